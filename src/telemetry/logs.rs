//! The two log streams.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::EnvFilter;

use super::repeats::Limited;
use super::sampling::{Ended, LogSampling};

/// Starts the event log on standard error. `TOLLGATE_LOG` filters it, as in `debug` or `tollgate::store=trace`.
///
/// Pingora writes its own messages through the `log` crate, with request lines in them, and so tokens. They are not
/// bridged into this log: what matters of them, the gate says itself without secrets (law 7). Warnings that repeat are
/// written only so often.
pub fn start_events() {
    let filter = EnvFilter::try_from_env("TOLLGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let events =
        tracing_subscriber::fmt().with_writer(Limited::new(io::stderr)).with_ansi(false).with_target(false);
    // A second start in one process (two servers in a test) keeps the first log.
    let _ = events.with_env_filter(filter).try_init();
}

/// Lines that wait to be written, in bytes, at most. What comes then is dropped and counted.
const MOST_WAITING: usize = 8 << 20;
/// How often what waits is written.
const EVERY: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    end: Condvar,
    dropped: AtomicUsize,
    left_out: AtomicUsize,
}

/// Writes the access log without making requests wait: a request appends its line to a buffer, and one thread writes
/// the buffer now and then, so that many lines cost one system call and no request wakes anybody.
#[derive(Clone)]
pub struct AccessLogWriter {
    shared: Arc<Shared>,
    sampling: Option<LogSampling>,
}

/// Keeps the log's writer thread alive; dropping it writes out what is left.
pub struct LogGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLogWriter {
    /// A log on standard output.
    pub fn stdout() -> io::Result<(Self, LogGuard)> {
        Self::over(io::stdout())
    }

    /// A log appended to a file.
    pub fn file(path: &Path) -> io::Result<(Self, LogGuard)> {
        Self::over(std::fs::OpenOptions::new().create(true).append(true).open(path)?)
    }

    fn over(writer: impl Write + Send + 'static) -> io::Result<(Self, LogGuard)> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let name = "access-log".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || write_all(&theirs, writer))?;
        Ok((Self { shared: shared.clone(), sampling: None }, LogGuard { shared, thread: Some(thread) }))
    }

    /// The same log, with only a part of its lines.
    #[must_use]
    pub fn sampled(mut self, sampling: LogSampling) -> Self {
        self.sampling = Some(sampling);
        self
    }

    /// Whether only a part of the lines is written.
    pub fn is_sampled(&self) -> bool {
        self.sampling.is_some()
    }

    /// Whether a request gets a line, and for which part of all requests like it that line stands; `None`: it gets
    /// none, and is counted as left out.
    pub fn choose(&self, ended: &Ended) -> Option<f64> {
        let Some(sampling) = &self.sampling else { return Some(1.0) };
        let part = sampling.choose(ended);
        if part.is_none() {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
        part
    }

    /// Hands one line over. When the writer cannot keep up, lines are dropped and counted, requests do not wait.
    pub fn write(&self, line: &[u8]) {
        let mut waiting = self.shared.waiting.lock();
        if waiting.lines.len() + line.len() > MOST_WAITING {
            drop(waiting);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How many lines were left out by sampling so far.
    pub fn left_out(&self) -> usize {
        self.shared.left_out.load(Ordering::Relaxed)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.shared.waiting.lock().ended = true;
        self.shared.end.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(shared: &Shared, mut writer: impl Write) {
    let mut lines = Vec::new();
    loop {
        let ended = {
            let mut waiting = shared.waiting.lock();
            if waiting.lines.is_empty() && !waiting.ended {
                shared.end.wait_for(&mut waiting, EVERY);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            waiting.ended
        };
        if !lines.is_empty() {
            // A log that cannot be written is no reason to stop serving; it is counted as dropped.
            if writer.write_all(&lines).and_then(|()| writer.flush()).is_err() {
                let count = memchr::memchr_iter(b'\n', &lines).count();
                shared.dropped.fetch_add(count, Ordering::Relaxed);
            }
            lines.clear();
        }
        if ended {
            return;
        }
        // Lines gather meanwhile; the end does not wait for it.
        let mut waiting = shared.waiting.lock();
        if !waiting.ended {
            shared.end.wait_for(&mut waiting, EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_written_in_its_order_by_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let (log, guard) = AccessLogWriter::file(&path).unwrap();
        for number in 0..10_000 {
            log.write(format!("{number}\n").as_bytes());
        }
        drop(guard);
        let text = std::fs::read_to_string(&path).unwrap();
        let written: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(written, (0..10_000).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_log_that_is_too_slow_drops_and_counts() {
        struct Never;
        impl Write for Never {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (log, guard) = AccessLogWriter::over(Never).unwrap();
        for _ in 0..10 {
            log.write(b"line\n");
        }
        drop(guard);
        assert_eq!(log.dropped(), 10);
    }
}
