//! Logs and metrics.
//!
//! Owns the metric names and the two log streams: events for people on standard error, one JSON line a request on
//! standard output (or a file). No value here may hold a token or a signature (law 7); labels are bounded: routes of
//! the configuration, codes of an enum, names in this file.

mod json_line;
mod logs;
mod metrics;
mod reloads;

pub use json_line::JsonLine;
pub use logs::{AccessLogWriter, LogGuard, start_events};
pub use metrics::{Metrics, RouteMetrics};
pub use reloads::ReloadMetrics;
