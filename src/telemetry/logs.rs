//! The two log streams.

use std::io::{self, Write};
use std::path::Path;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Starts the event log on standard error. `TOLLGATE_LOG` filters it, as in `debug` or `tollgate::store=trace`.
///
/// Pingora writes its own messages through the `log` crate, with request lines in them, and so tokens. They are not
/// bridged into this log: what matters of them, the gate says itself without secrets (law 7).
pub fn start_events() {
    let filter = EnvFilter::try_from_env("TOLLGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let events = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).with_target(false);
    // A second start in one process (two servers in a test) keeps the first log.
    let _ = events.with_env_filter(filter).try_init();
}

/// Writes the access log without making requests wait.
#[derive(Clone)]
pub struct AccessLogWriter {
    lines: NonBlocking,
    dropped: ErrorCounter,
}

/// Keeps the log's writer thread alive; dropping it writes out what is left.
pub struct LogGuard(#[expect(dead_code, reason = "held for its Drop")] WorkerGuard);

impl AccessLogWriter {
    /// A log on standard output.
    pub fn stdout() -> (Self, LogGuard) {
        Self::over(io::stdout())
    }

    /// A log appended to a file.
    pub fn file(path: &Path) -> io::Result<(Self, LogGuard)> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::over(file))
    }

    fn over(writer: impl Write + Send + 'static) -> (Self, LogGuard) {
        let (lines, guard) =
            NonBlockingBuilder::default().lossy(true).thread_name("access-log").finish(writer);
        let dropped = lines.error_counter();
        (Self { lines, dropped }, LogGuard(guard))
    }

    /// Hands one line over. When the writer cannot keep up, lines are dropped and counted, requests do not wait.
    pub fn write(&self, line: &[u8]) {
        let _ = self.lines.clone().write_all(line);
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> usize {
        self.dropped.dropped_lines()
    }
}
