//! The process as the system sees it, read from `/proc` when somebody asks: the names and meanings that Prometheus'
//! own client libraries use, so that dashboards made for any program work.

use std::fs;

use parking_lot::Mutex;
use prometheus::{Counter, Error, Gauge, IntGauge, Registry};

use super::register::{Register, set};

/// Ticks in a second, as `/proc` counts them: part of Linux' promise to programs on every usual machine (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Figures of this process.
pub(super) struct ProcessMetrics {
    /// Seconds counted so far.
    counted: Mutex<f64>,
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_files: IntGauge,
    most_files: IntGauge,
    threads: IntGauge,
    started: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let make = Register(registry);
        Ok(Self {
            counted: Mutex::default(),
            cpu: make
                .seconds("process_cpu_seconds_total", "Processor time used, user and system, in seconds")?,
            resident: make.gauge("process_resident_memory_bytes", "Memory in RAM, in bytes")?,
            virtual_memory: make.gauge("process_virtual_memory_bytes", "Virtual memory, in bytes")?,
            open_files: make.gauge("process_open_fds", "Open files and sockets")?,
            most_files: make.gauge("process_max_fds", "Open files and sockets at most")?,
            threads: make.gauge("process_threads", "Threads")?,
            started: make
                .level("process_start_time_seconds", "When the process started, in seconds since 1970")?,
        })
    }

    /// Reads everything anew. What the system does not tell keeps its last figure.
    pub(super) fn read(&self) {
        let text = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let stat = Stat::parse(&text("self/stat"));
        if let Some(stat) = stat {
            let mut counted = self.counted.lock();
            self.cpu.inc_by((stat.cpu - *counted).max(0.0));
            *counted = stat.cpu.max(*counted);
            if let Some(boot) = field(&text("stat"), "btime") {
                #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 have 31 bits")]
                self.started.set(boot as f64 + stat.started);
            }
        }
        let status = text("self/status");
        let memory = |name| field(&status, name).map(|kib: u64| kib.saturating_mul(1024));
        let limits = text("self/limits");
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let most = most.and_then(|line| line.split_whitespace().next()?.parse().ok());
        // The listing itself holds one file open.
        let open = fs::read_dir("/proc/self/fd").map(|files| (files.count() as u64).saturating_sub(1)).ok();
        for (gauge, figure) in [
            (&self.resident, memory("VmRSS:")),
            (&self.virtual_memory, memory("VmSize:")),
            (&self.threads, field(&status, "Threads:")),
            (&self.most_files, most),
            (&self.open_files, open),
        ] {
            if let Some(figure) = figure {
                set(gauge, figure);
            }
        }
    }
}

/// The number that follows a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What `/proc/self/stat` tells, in seconds.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: f64,
    /// After the machine's start.
    started: f64,
}

impl Stat {
    /// The program's name may hold spaces and brackets, so the fields are counted from behind it (proc(5): `utime` is the
    /// 14th, `stime` the 15th, `starttime` the 22nd).
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at - 3)?.parse::<f64>().ok();
        Some(Self { cpu: (ticks(14)? + ticks(15)?) / TICKS, started: ticks(22)? / TICKS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_does_not_shift_the_fields() {
        let text = "7 (a b) c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 7 8 20 0 5 0 12345 1000 200";
        assert_eq!(Stat::parse(text), Some(Stat { cpu: 2.0, started: 123.45 }));
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let process = ProcessMetrics::new(&Registry::new()).unwrap();
        process.read();
        process.read();
        assert!(process.resident.get() > 100_000 && process.virtual_memory.get() >= process.resident.get());
        assert!(process.open_files.get() > 2 && process.most_files.get() >= process.open_files.get());
        assert!(process.threads.get() > 0 && process.cpu.get() >= 0.0);
        // The kernel tells the time it booted at in whole seconds.
        let age = jiff::Timestamp::now().as_duration().as_secs_f64() - process.started.get();
        assert!((-1.0..7.0 * 24.0 * 3600.0).contains(&age), "{age} s old");
    }
}
