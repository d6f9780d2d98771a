//! Logs, metrics and traces.
//!
//! Owns the metric names and the two log streams: events for people on standard error, one JSON line a request on
//! standard output (or a file); traces go to a collector, where one is named. No value here may hold a token or a signature (law 7); labels are bounded: routes of
//! the configuration, codes of an enum, names in this file.

mod json_line;
mod logs;
mod metrics;
mod reloads;
mod repeats;
mod sampling;
mod traces;

pub use json_line::{JsonLine, write_address};
pub use logs::{AccessLogWriter, LogGuard, start_events};
pub use metrics::{
    CertificateMetrics, Lookup, Metrics, NodeState, RouteMetrics, ServerMetrics, TriesMetrics,
    UpstreamMetrics,
};
pub use reloads::ReloadMetrics;
pub use sampling::{Ended, LogSampling};
pub use traces::{
    Context, Kind, Parents, Span, SpanCounts, SpanId, TRACEPARENT, TRACESTATE, Trace, TraceId, TraceParent,
    Tracer, TracerGuard, TracerSettings, Value,
};
