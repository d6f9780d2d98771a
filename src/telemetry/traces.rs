//! Traces: W3C Trace Context in, OTLP out.
//!
//! Owns whose word about a trace counts, which traces are kept, and how their spans get to a collector. What spans say
//! of a request is the gate's. `context` reads and writes headers, `span` is what is kept, `otlp` turns it into bytes,
//! `exporter` sends them. Without a tracer nothing of this runs.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

mod context;
mod exporter;
mod otlp;
mod span;

pub use context::{SpanId, TRACEPARENT, TRACESTATE, TraceId, TraceParent};
pub use exporter::{SpanCounts, TracerGuard};
pub use span::{Kind, Span, Trace, Value};

use context::find_tracestate;
use exporter::{Collector, Queue};
use otlp::Resource;

/// Whose decision to keep a trace counts besides our own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Parents {
    /// That of callers who are trusted proxies.
    #[default]
    Trusted,
    /// Everybody's: whoever can reach the gate can have all of their requests traced.
    Always,
    /// Nobody's.
    Never,
}

/// How to trace.
#[derive(Debug, Clone)]
pub struct TracerSettings {
    /// Where spans go, the whole address.
    pub url: String,
    /// Headers of each call to it.
    pub headers: Vec<(String, String)>,
    /// How long a call may take.
    pub timeout: Duration,
    /// The part of traces that is kept, 0 to 1.
    pub sample: f64,
    /// Whose decision counts besides.
    pub parents: Parents,
    /// `service.name`.
    pub service_name: String,
    /// `service.instance.id`.
    pub instance: String,
    /// Whether spans tell the client's address.
    pub client_address: bool,
}

/// Begins traces and takes their spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    queue: Queue,
    parents: Parents,
    /// Traces whose random part lies below are kept.
    threshold: u64,
    client_address: bool,
    hasher: RandomState,
}

/// How one request is part of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span; `None`: the trace begins here.
    pub parent: Option<SpanId>,
    /// The span of this request.
    pub span: SpanId,
    /// Whether it is kept.
    pub sampled: bool,
    /// Whether the trace's name is random.
    random: bool,
    /// The words of other tracing systems that came along.
    pub state: Option<HeaderValue>,
    /// Whether the trace's name was given by somebody whose word counts.
    pub named_by_us: bool,
}

impl Context {
    /// What an upstream is told, with this span as its parent.
    pub fn told(&self, span: SpanId) -> TraceParent {
        TraceParent { trace: self.trace, span, sampled: self.sampled, random: self.random }
    }
}

/// As many parts of 2^56 as this part of one.
fn threshold(part: f64) -> u64 {
    /// One more than the largest random part of a trace's name.
    const ALL: f64 = 72_057_594_037_927_936.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^56")]
    let threshold = (part.clamp(0.0, 1.0) * ALL) as u64;
    threshold
}

impl Tracer {
    /// Starts sending. Dropping the guard sends what is left.
    pub fn start(settings: TracerSettings) -> io::Result<(Self, TracerGuard)> {
        let queue = Queue::default();
        let guard = queue.start(Collector {
            url: settings.url,
            headers: settings.headers,
            timeout: settings.timeout,
            resource: Resource { service_name: settings.service_name, instance: settings.instance },
        })?;
        let inner = Inner {
            queue,
            parents: settings.parents,
            threshold: threshold(settings.sample),
            client_address: settings.client_address,
            hasher: RandomState::new(),
        };
        Ok((Self(Arc::new(inner)), guard))
    }

    /// The trace of a request with these headers: the caller's, or a new one. `trusted`: the caller is a trusted proxy.
    ///
    /// A caller whose word does not count still names the trace, but not whether it is kept: that is then decided by a
    /// hash that nobody outside can foresee, so that no name can be chosen to be kept.
    pub fn begin(&self, headers: &HeaderMap, trusted: bool, request: ulid::Ulid) -> Context {
        let span = SpanId::generate();
        let Some(parent) = TraceParent::find(headers) else {
            let trace = TraceId::of_request(request);
            let sampled = trace.random_part() < self.0.threshold;
            return Context {
                trace,
                parent: None,
                span,
                sampled,
                random: true,
                state: None,
                named_by_us: true,
            };
        };
        let counts = match self.0.parents {
            Parents::Trusted => trusted,
            Parents::Always => true,
            Parents::Never => false,
        };
        let drawn = || self.0.hasher.hash_one(parent.trace.bytes()) >> 8 < self.0.threshold;
        Context {
            trace: parent.trace,
            parent: Some(parent.span),
            span,
            sampled: if counts { parent.sampled } else { drawn() },
            random: parent.random,
            state: find_tracestate(headers),
            named_by_us: counts,
        }
    }

    /// Whether spans tell the client's address.
    pub fn tells_clients(&self) -> bool {
        self.0.client_address
    }

    /// Takes the spans of a request that has ended.
    pub fn finish(&self, trace: Trace) {
        self.0.queue.push(trace);
    }

    /// What became of spans so far.
    pub fn counts(&self) -> SpanCounts {
        self.0.queue.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sample: f64, parents: Parents) -> Tracer {
        Tracer(Arc::new(Inner {
            queue: Queue::default(),
            parents,
            threshold: threshold(sample),
            client_address: true,
            hasher: RandomState::new(),
        }))
    }

    fn headers(parent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        headers
    }

    const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const LEFT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn a_parent_decides_only_where_its_word_counts() {
        let table = [
            (Parents::Trusted, true, 0.0, KEPT, true),
            (Parents::Trusted, true, 1.0, LEFT, false),
            (Parents::Trusted, false, 0.0, KEPT, false),
            (Parents::Trusted, false, 1.0, LEFT, true),
            (Parents::Always, false, 0.0, KEPT, true),
            (Parents::Never, true, 0.0, KEPT, false),
        ];
        for (parents, trusted, sample, parent, expected) in table {
            let begun = tracer(sample, parents).begin(&headers(parent), trusted, ulid::Ulid::generate());
            assert_eq!(begun.sampled, expected, "{parents:?} {trusted} {sample} {parent}");
            assert_eq!(begun.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(begun.parent.map(|span| span.to_string()).as_deref(), Some("00f067aa0ba902b7"));
            assert_ne!(Some(begun.span), begun.parent);
            assert_eq!(begun.state.unwrap(), "a=b");
        }
    }

    #[test]
    fn what_is_not_well_formed_begins_a_new_trace_without_its_state() {
        let begun = tracer(1.0, Parents::Always).begin(&headers("00-xyz"), true, ulid::Ulid((7 << 64) | 9));
        assert_eq!((begun.parent, begun.state, begun.sampled), (None, None, true));
        assert_eq!(begun.trace.to_string(), "00000000000000070000000000000009");
    }

    #[test]
    fn about_as_many_traces_are_kept_as_is_wished() {
        let tracer = tracer(0.1, Parents::Trusted);
        let kept = (0..5_000)
            .filter(|_| tracer.begin(&HeaderMap::new(), false, ulid::Ulid::generate()).sampled)
            .count();
        assert!((350..650).contains(&kept), "{kept}");
    }
}
