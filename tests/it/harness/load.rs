//! A constant load that forgives nothing: kept connections, new connections and streams, without a single retry. What is
//! not answered as it must be is a failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::client::{Answer, Ask, Connection};

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answers: AtomicU64,
    streams: AtomicU64,
    closes: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// The load, until it is stopped.
pub(crate) struct Load {
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Answers that came whole.
    pub(crate) answers: u64,
    /// Streams that came whole.
    pub(crate) streams: u64,
    /// Answers that said they were the last on their connection.
    pub(crate) closes: u64,
    pub(crate) failures: Vec<String>,
}

/// Events of each stream.
pub(crate) const EVENTS: usize = 10;

impl Load {
    /// Asks for `target` on `kept` connections that are kept, and on new ones; and for streams of `stream`, whose events
    /// cost a credit each.
    pub(crate) fn start(address: SocketAddr, target: &str, stream: Option<&str>, kept: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let ask = Ask::get(target);
        let mut tasks: Vec<JoinHandle<()>> =
            (0..kept).map(|_| tokio::spawn(keep_asking(counts.clone(), address, ask.clone()))).collect();
        tasks.push(tokio::spawn(ask_anew(counts.clone(), address, ask)));
        if let Some(stream) = stream {
            let ask = Ask::get(stream).header("X-Test", &format!("ticks={EVENTS}"));
            tasks.push(tokio::spawn(keep_streaming(counts.clone(), address, ask)));
        }
        Self { counts, tasks }
    }

    /// How many answers came so far.
    pub(crate) fn answers(&self) -> u64 {
        self.counts.answers.load(Ordering::Acquire)
    }

    /// Waits until so many more answers came.
    pub(crate) async fn go_on(&self, more: u64) {
        let until = self.answers() + more;
        super::wait_for("more answers", || async { self.answers() >= until || self.has_failed() }).await;
    }

    fn has_failed(&self) -> bool {
        !self.counts.failures.lock().is_empty()
    }

    /// Ends it; what is under way is waited for.
    pub(crate) async fn stop(self) -> Tally {
        self.counts.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("a task of the load");
        }
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        let counts = &self.counts;
        Tally {
            answers: read(&counts.answers),
            streams: read(&counts.streams),
            closes: read(&counts.closes),
            failures: counts.failures.lock().clone(),
        }
    }
}

impl Counts {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn fail(&self, what: &str, why: &dyn std::fmt::Display) {
        self.failures.lock().push(format!("{what}: {why}"));
    }

    /// Takes an answer in; whether its connection can be used again.
    fn take(&self, what: &str, answer: &std::io::Result<Answer>) -> bool {
        let answer = match answer {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => {
                self.fail(what, &format!("{} {}", answer.status, answer.text()));
                return false;
            }
            Err(error) => {
                self.fail(what, error);
                return false;
            }
        };
        self.answers.fetch_add(1, Ordering::AcqRel);
        let closes = answer.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        if closes {
            self.closes.fetch_add(1, Ordering::AcqRel);
        }
        !closes
    }
}

async fn keep_asking(counts: Arc<Counts>, address: SocketAddr, ask: Ask) {
    while !counts.is_over() {
        let mut connection = match Connection::try_open(address).await {
            Ok(connection) => connection,
            Err(error) => return counts.fail("a kept connection", &error),
        };
        while !counts.is_over() {
            let answer = connection.send(&ask).await;
            if !counts.take("a kept connection", &answer) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn ask_anew(counts: Arc<Counts>, address: SocketAddr, ask: Ask) {
    let ask = ask.header("Connection", "close");
    while !counts.is_over() {
        match Connection::try_open(address).await {
            Ok(mut connection) => {
                let answer = connection.send(&ask).await;
                counts.take("a new connection", &answer);
                counts.closes.fetch_sub(u64::from(answer.is_ok()), Ordering::AcqRel);
            }
            Err(error) => counts.fail("a new connection", &error),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn keep_streaming(counts: Arc<Counts>, address: SocketAddr, ask: Ask) {
    while !counts.is_over() {
        let answer = match Connection::try_open(address).await {
            Ok(mut connection) => connection.send(&ask).await,
            Err(error) => return counts.fail("a stream", &error),
        };
        match answer {
            Ok(answer) if answer.text().matches("data: {\"price\"").count() == EVENTS => {
                counts.streams.fetch_add(1, Ordering::AcqRel);
            }
            Ok(answer) => counts.fail("a stream", &format!("{} {}", answer.status, answer.text())),
            Err(error) => counts.fail("a stream", &error),
        }
    }
}
