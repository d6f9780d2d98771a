//! A program under measurement: started, watched through `/proc`, ended when dropped, by its own number.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a program may take to start; under valgrind that is long.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long it may take to stop when asked.
const FAREWELL: Duration = Duration::from_mins(1);

/// A running program and the processes it started.
pub(crate) struct Process {
    child: Child,
    name: String,
}

/// The processor time of a program at one moment.
pub(crate) struct Cpu {
    /// By thread, exact (`schedstat`).
    threads: BTreeMap<u32, Duration>,
    /// Of all, in the system's ticks (`utime + stime`), also of threads that have ended.
    ticks: Duration,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| {
            format!(
                "{name}: cannot run {}; `scripts/setup bench` installs what is missing",
                command.get_program().display()
            )
        })?;
        Ok(Self { child, name: name.to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// This process and all below it.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut family = vec![self.id()];
        let mut known = 0;
        while let Some(parent) = family.get(known) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            let children = children.unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            known += 1;
        }
        family
    }

    /// Tries again until there is an answer, as long as the program lives.
    pub(crate) fn await_with<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready", self.name);
            }
            if started.elapsed() > PATIENCE {
                bail!("{} is not ready after {PATIENCE:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until somebody answers there.
    pub(crate) fn await_port(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.await_with(|| TcpStream::connect(address).ok()).map(drop)
    }

    /// Asks it to stop with a signal (`INT`, `TERM`) and waits for its end.
    pub(crate) fn stop(&mut self, signal: &str) -> anyhow::Result<()> {
        let id = self.id().to_string();
        Command::new("kill").args(["-s", signal, &id]).status().context("kill")?;
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > FAREWELL {
                bail!("{} does not stop", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The processor time used so far, by all its threads and processes, in user mode and in the system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut cpu = Cpu { threads: BTreeMap::new(), ticks: Duration::ZERO };
        for id in self.family() {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("a process is gone")?;
            cpu.ticks += ticks(&stat).with_context(|| format!("/proc/{id}/stat: {stat}"))?;
            for task in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
                let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
                if let (Some(thread), Some(nanos)) = (thread, nanos) {
                    cpu.threads.insert(thread, Duration::from_nanos(nanos));
                }
            }
        }
        Ok(cpu)
    }

    /// The memory it holds, in KiB; what several processes share counts once (PSS).
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let mut sum = 0;
        for id in self.family() {
            let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).context("its memory")?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
            sum += line.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(sum as f64)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A family's head takes its own along when it is asked; what is left after that is killed, each by its number.
        let family = self.family();
        if self.stop_soon().is_err() {
            for id in family {
                let _ = Command::new("kill").args(["-s", "KILL", &id.to_string()]).output();
            }
        }
        let _ = self.child.wait();
    }
}

impl Process {
    fn stop_soon(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        Command::new("kill").args(["-s", "TERM", &self.id().to_string()]).output()?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1500) {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Cpu {
    /// The time from an earlier moment to this one.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        // A thread that has ended took its exact time with it; then the coarse figure has to do.
        if before.threads.keys().any(|thread| !self.threads.contains_key(thread)) {
            return self.ticks.saturating_sub(before.ticks);
        }
        let past = |thread| before.threads.get(thread).copied().unwrap_or_default();
        self.threads.iter().map(|(thread, now)| now.saturating_sub(past(thread))).sum()
    }
}

/// `utime + stime` of a line of `/proc/PID/stat`. A tick is 10 ms on every Linux there is (`USER_HZ`).
fn ticks(stat: &str) -> Option<Duration> {
    let rest = stat.rsplit_once(") ")?.1;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

/// An address nobody listens on at this moment.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
