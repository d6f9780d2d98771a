//! Keeps repeated warnings from flooding the event log.
//!
//! A client, or a store that is away, can bring one place in the code to warn at every request. Each place may say
//! [`FIRST`] warnings or errors in [`WINDOW`]; more are counted, and the count is said once that time is over. What is
//! below a warning is not held back: no client can cause it without leave.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Warnings of one place that are written in each window.
const FIRST: u64 = 20;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);

/// Events that were not written; of the process, as the log is.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many events were not written since the start.
pub(super) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

struct Window {
    began: Instant,
    said: u64,
    place: String,
}

/// What was said lately, by place.
#[derive(Default)]
struct Book(HashMap<Identifier, Window>);

impl Book {
    /// Whether one more may be written, and what is to be said of windows that are over: the place, and how many.
    fn admit(&mut self, metadata: &Metadata<'_>, now: Instant) -> (bool, Vec<(String, u64)>) {
        let mut over = Vec::new();
        self.0.retain(|_, window| {
            let open = now.duration_since(window.began) < WINDOW;
            if !open && window.said > FIRST {
                over.push((std::mem::take(&mut window.place), window.said - FIRST));
            }
            open
        });
        let place = || {
            let file = metadata.file().and_then(|path| path.rsplit_once("src/").map(|(_, file)| file));
            format!("{}:{}", file.unwrap_or_else(|| metadata.target()), metadata.line().unwrap_or_default())
        };
        let window = self.0.entry(metadata.callsite());
        let window = window.or_insert_with(|| Window { began: now, said: 0, place: place() });
        window.said += 1;
        (window.said <= FIRST, over)
    }
}

/// Where events are written, each place's warnings only so often.
pub(super) struct Limited<W> {
    book: Mutex<Book>,
    open: fn() -> W,
}

impl<W: Write> Limited<W> {
    pub(super) fn new(open: fn() -> W) -> Self {
        Self { book: Mutex::default(), open }
    }
}

/// One event's way out.
pub(super) enum Outlet<W> {
    Open(W),
    Shut,
}

impl<W: Write> Write for Outlet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Open(writer) => writer.write(bytes),
            Self::Shut => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Open(writer) => writer.flush(),
            Self::Shut => Ok(()),
        }
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Limited<W> {
    type Writer = Outlet<W>;

    fn make_writer(&'a self) -> Outlet<W> {
        Outlet::Open((self.open)())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Outlet<W> {
        if *metadata.level() > Level::WARN {
            return self.make_writer();
        }
        let (admitted, over) = self.book.lock().admit(metadata, Instant::now());
        let mut writer = (self.open)();
        for (place, count) in over {
            let now = jiff::Timestamp::now();
            // A log that cannot be written is no reason to stop.
            let _ = writeln!(
                writer,
                "{now}  WARN more events like one before were left out place={place} count={count}"
            );
        }
        if admitted {
            return Outlet::Open(writer);
        }
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        Outlet::Shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Kept;

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_place_that_warns_at_every_request_is_written_some_times_and_counted() {
        let limited = Limited::new(|| Kept);
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(limited).finish();
        let before = left_out();
        tracing::subscriber::with_default(log, || {
            for number in 0..FIRST + 30 {
                tracing::warn!(number, "again");
                tracing::info!(number, "told");
            }
            tracing::error!("another place");
        });
        let text = String::from_utf8(WRITTEN.lock().clone()).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count() as u64;
        assert_eq!((count("again"), count("told"), count("another place")), (FIRST, FIRST + 30, 1), "{text}");
        assert!(left_out() >= before + 30);
    }

    #[test]
    fn what_was_left_out_is_said_once_its_time_is_over() {
        let mut book = Book::default();
        let now = Instant::now();
        let metadata = METADATA;
        for said in 1..=FIRST + 3 {
            assert_eq!(book.admit(metadata, now), (said <= FIRST, Vec::new()));
        }
        let (admitted, over) = book.admit(metadata, now + WINDOW);
        assert!(admitted);
        assert_eq!(over.into_iter().map(|(_, count)| count).collect::<Vec<_>>(), [3]);
        assert_eq!(book.admit(metadata, now + WINDOW), (true, Vec::new()));
    }

    struct Place;
    static PLACE: Place = Place;
    static METADATA: &Metadata<'static> = &tracing::metadata! {
        name: "test", target: "test", level: Level::WARN, fields: &[], callsite: &PLACE, kind: tracing::metadata::Kind::EVENT
    };
    impl tracing::callsite::Callsite for Place {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            METADATA
        }
    }
}
