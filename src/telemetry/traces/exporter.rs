//! Sends spans to a collector, away from requests: a bounded queue, one thread, batches.
//!
//! A request only appends to the queue. When that is full, its spans are dropped and counted; a collector that is slow or
//! gone costs spans, never time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::otlp::{Resource, encode};
use super::span::Trace;

/// The most spans that wait.
const MOST_WAITING: usize = 8192;
/// The most spans in one call, but for those of one request.
const BATCH: usize = 512;
/// How long spans wait for others to go with them.
const EVERY: Duration = Duration::from_secs(1);
/// How often a call is made again that a collector may take later.
const TRIES: u32 = 3;
/// The pause before the second call; each next is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a stop waits for the last spans to be sent.
const FLUSH: Duration = Duration::from_secs(3);

/// What became of spans so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SpanCounts {
    /// The collector took them.
    pub exported: u64,
    /// The queue was full.
    pub dropped: u64,
    /// The collector did not take them.
    pub failed: u64,
}

#[derive(Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    traces: Vec<Trace>,
    spans: usize,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    counters: Counters,
}

/// Where finished spans are handed over.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

/// Sends what is left when it is dropped, within [`FLUSH`].
pub struct TracerGuard {
    shared: Arc<Shared>,
    done: Receiver<()>,
}

/// Where spans go.
pub(super) struct Collector {
    /// The whole address.
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    pub(super) resource: Resource,
}

impl Queue {
    /// Hands over the spans of one request.
    pub(super) fn push(&self, trace: Trace) {
        let spans = trace.spans.len();
        let mut waiting = self.0.waiting.lock();
        if waiting.spans + spans > MOST_WAITING {
            drop(waiting);
            self.0.counters.dropped.fetch_add(spans as u64, Ordering::Relaxed);
            return;
        }
        let before = waiting.spans;
        waiting.spans += spans;
        waiting.traces.push(trace);
        drop(waiting);
        if before < BATCH && before + spans >= BATCH {
            self.0.wake.notify_one();
        }
    }

    pub(super) fn counts(&self) -> SpanCounts {
        let Counters { exported, dropped, failed } = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SpanCounts { exported: read(exported), dropped: read(dropped), failed: read(failed) }
    }

    /// Starts the thread that sends.
    pub(super) fn start(&self, collector: Collector) -> io::Result<TracerGuard> {
        let (finished, done) = channel();
        let shared = self.0.clone();
        let run = move || Sending::new(shared, collector).run(&finished);
        std::thread::Builder::new().name("traces".to_owned()).spawn(run)?;
        Ok(TracerGuard { shared: self.0.clone(), done })
    }
}

impl Drop for TracerGuard {
    fn drop(&mut self) {
        self.shared.waiting.lock().ended = true;
        self.shared.wake.notify_all();
        // A call that hangs ends with the process.
        let _ = self.done.recv_timeout(FLUSH);
    }
}

/// What a collector made of a batch.
enum Outcome {
    Taken,
    Later(String),
    Refused(String),
}

struct Sending {
    shared: Arc<Shared>,
    collector: Collector,
    agent: ureq::Agent,
    /// Whether the last batch was taken; said in the log when it changes.
    well: bool,
}

impl Sending {
    fn new(shared: Arc<Shared>, collector: Collector) -> Self {
        // Headers may hold a secret; nobody but the collector itself is to see them.
        let settings = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(collector.timeout))
            .build();
        Self { shared, agent: settings.into(), collector, well: true }
    }

    fn run(mut self, finished: &Sender<()>) {
        loop {
            let (traces, ended) = self.gather();
            if !traces.is_empty() {
                self.deliver(&traces);
            } else if ended {
                let _ = finished.send(());
                return;
            }
        }
    }

    /// The next batch, and whether nothing more comes.
    fn gather(&self) -> (Vec<Trace>, bool) {
        let mut waiting = self.shared.waiting.lock();
        let until = Instant::now() + EVERY;
        while waiting.spans < BATCH && !waiting.ended {
            if self.shared.wake.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        let (mut spans, mut count) = (0, 0);
        for trace in &waiting.traces {
            if spans >= BATCH {
                break;
            }
            spans += trace.spans.len();
            count += 1;
        }
        waiting.spans -= spans;
        (waiting.traces.drain(..count).collect(), waiting.ended)
    }

    fn deliver(&mut self, traces: &[Trace]) {
        let spans: u64 = traces.iter().map(|trace| trace.spans.len() as u64).sum();
        let body = encode(&self.collector.resource, traces);
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let why = match self.post(&body) {
                Outcome::Taken => {
                    self.shared.counters.exported.fetch_add(spans, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.well, true) {
                        tracing::info!("the trace collector takes spans again");
                    }
                    return;
                }
                Outcome::Later(why) => why,
                Outcome::Refused(why) => {
                    self.fail(spans, &why);
                    return;
                }
            };
            if attempt == TRIES || self.rest(pause) {
                self.fail(spans, &why);
                return;
            }
            pause *= 2;
        }
    }

    fn fail(&mut self, spans: u64, why: &str) {
        self.shared.counters.failed.fetch_add(spans, Ordering::Relaxed);
        if std::mem::replace(&mut self.well, false) {
            tracing::warn!(why, "the trace collector does not take spans; they are lost meanwhile");
        }
    }

    /// Waits; whether the end came meanwhile.
    fn rest(&self, pause: Duration) -> bool {
        let mut waiting = self.shared.waiting.lock();
        let until = Instant::now() + pause;
        while !waiting.ended {
            if self.shared.wake.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        waiting.ended
    }

    /// One call (OTLP/HTTP: 429, 502, 503 and 504 may be tried again, all else not).
    fn post(&self, body: &[u8]) -> Outcome {
        let mut request = self.agent.post(&self.collector.url).content_type("application/x-protobuf");
        for (name, value) in &self.collector.headers {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(response) => match response.status().as_u16() {
                200..300 => Outcome::Taken,
                status @ (429 | 502..=504) => Outcome::Later(format!("status {status}")),
                status => Outcome::Refused(format!("status {status}")),
            },
            Err(error) => Outcome::Later(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::{SpanId, TraceId};
    use super::super::span::{Kind, Span};
    use super::*;

    fn trace() -> Trace {
        let now = Instant::now();
        let span = Span {
            id: SpanId::generate(),
            parent: None,
            name: "GET".into(),
            kind: Kind::Server,
            start: now,
            end: now,
            attributes: Vec::new(),
            failed: false,
        };
        Trace { id: TraceId::of_request(ulid::Ulid::generate()), state: None, spans: vec![span] }
    }

    #[test]
    fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
        let queue = Queue::default();
        for _ in 0..MOST_WAITING + 5 {
            queue.push(trace());
        }
        assert_eq!(queue.counts(), SpanCounts { dropped: 5, ..SpanCounts::default() });
        assert_eq!(queue.0.waiting.lock().spans, MOST_WAITING);
    }

    #[test]
    fn a_collector_that_is_not_there_costs_spans_and_no_time_at_the_end() {
        let queue = Queue::default();
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let collector = Collector {
            url: format!("http://127.0.0.1:{port}/v1/traces"),
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            resource: Resource { service_name: "t".to_owned(), instance: "t".to_owned() },
        };
        let guard = queue.start(collector).unwrap();
        for _ in 0..3 {
            queue.push(trace());
        }
        let begun = Instant::now();
        drop(guard);
        assert!(begun.elapsed() < FLUSH + Duration::from_secs(2));
        assert_eq!(queue.counts(), SpanCounts { failed: 3, ..SpanCounts::default() });
    }
}
