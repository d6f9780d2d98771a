//! The counters of one route, looked up once instead of for each request.

use prometheus::{Histogram, IntCounter, IntCounterVec};

/// Classes of statuses, as labels.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Where a status' class stands in [`CLASSES`]; 0 and all that is no status: the last.
pub(super) fn class_of(status: u16) -> usize {
    match status {
        100..600 => usize::from(status / 100 - 1),
        _ => CLASSES.len() - 1,
    }
}

/// Counters of one route.
pub struct RouteMetrics {
    pub(super) route: String,
    pub(super) passed: IntCounter,
    pub(super) requests: IntCounterVec,
    pub(super) duration: Histogram,
    /// Of the upstream the route leads to; `None`: it leads nowhere.
    pub(super) upstream: Option<AnswerMetrics>,
}

/// How one upstream answered.
pub(super) struct AnswerMetrics {
    pub(super) name: String,
    pub(super) duration: Histogram,
    pub(super) responses: [IntCounter; CLASSES.len()],
    pub(super) failures: IntCounterVec,
}

impl RouteMetrics {
    /// A request has ended.
    pub fn request(&self, verdict: &str, status: u16, seconds: f64) {
        let class = CLASSES.get(class_of(status)).copied().unwrap_or("none");
        if verdict == "pass" && class == "2xx" {
            self.passed.inc();
        } else {
            self.requests.with_label_values(&[self.route.as_str(), verdict, class]).inc();
        }
        self.duration.observe(seconds);
    }

    /// The upstream has begun to answer, with this status, so long after the gate's decision.
    pub fn upstream(&self, status: u16, seconds: f64) {
        let Some(upstream) = &self.upstream else { return };
        upstream.duration.observe(seconds);
        if let Some(counter) = upstream.responses.get(class_of(status)) {
            counter.inc();
        }
    }

    /// A request that was admitted came to nothing, for this reason.
    pub fn failed(&self, failure: &str) {
        let Some(upstream) = &self.upstream else { return };
        upstream.failures.with_label_values(&[upstream.name.as_str(), failure]).inc();
    }
}
