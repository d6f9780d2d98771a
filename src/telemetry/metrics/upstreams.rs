//! What is counted of upstreams and their servers.
//!
//! A server's series are there as long as somebody holds its [`ServerMetrics`], so a server that left leaves no series
//! behind, and one that two configurations share (while one takes the other's place) is counted once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The metrics of all upstreams.
#[derive(Clone)]
pub struct UpstreamMetrics(Arc<Families>);

struct Families {
    up: IntGaugeVec,
    circuit_open: IntGaugeVec,
    in_flight: IntGaugeVec,
    retries: IntCounterVec,
    refused: IntCounterVec,
    held: Mutex<HashMap<(String, String), usize>>,
}

impl UpstreamMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["upstream", "server"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counters = |name: &str, help: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &["upstream", "reason"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self(Arc::new(Families {
            up: gauges(
                "tollgate_upstream_server_up",
                "Whether a server passes its health checks (1) or not (0); 1 where none are made",
            )?,
            circuit_open: gauges(
                "tollgate_upstream_circuit_open",
                "Whether a server is left alone after failures (1) or not (0)",
            )?,
            in_flight: gauges("tollgate_upstream_requests_in_flight", "Requests under way at a server")?,
            retries: counters(
                "tollgate_upstream_retries_total",
                "Requests tried again, by reason: connect, reset, status or reuse (an idle connection was closed)",
            )?,
            refused: counters(
                "tollgate_upstream_refused_total",
                "Admitted requests that no server was asked for, by reason: busy (max_requests), circuit, or retry_budget (not tried again)",
            )?,
            held: Mutex::default(),
        })))
    }

    /// The metrics of one server; a server is up and its circuit closed at first.
    pub fn of_server(&self, upstream: &str, server: &str) -> ServerMetrics {
        let key = (upstream.to_owned(), server.to_owned());
        let mut held = self.0.held.lock();
        let count = held.entry(key.clone()).or_default();
        *count += 1;
        let labels = [upstream, server];
        let metrics = ServerMetrics {
            up: self.0.up.with_label_values(&labels),
            circuit_open: self.0.circuit_open.with_label_values(&labels),
            in_flight: self.0.in_flight.with_label_values(&labels),
            families: self.clone(),
            key,
        };
        if *count == 1 {
            metrics.up.set(1);
        }
        metrics
    }

    /// The metrics of one upstream.
    pub fn of_upstream(&self, upstream: &str) -> TriesMetrics {
        let retry = |reason: &str| self.0.retries.with_label_values(&[upstream, reason]);
        let refused = |reason: &str| self.0.refused.with_label_values(&[upstream, reason]);
        TriesMetrics {
            connect: retry("connect"),
            reset: retry("reset"),
            status: retry("status"),
            reuse: retry("reuse"),
            busy: refused("busy"),
            circuit: refused("circuit"),
            retry_budget: refused("retry_budget"),
        }
    }
}

/// The metrics of one server.
pub struct ServerMetrics {
    /// Whether it passes its health checks.
    pub up: IntGauge,
    /// Whether it is left alone.
    pub circuit_open: IntGauge,
    /// Requests under way.
    pub in_flight: IntGauge,
    families: UpstreamMetrics,
    key: (String, String),
}

impl Drop for ServerMetrics {
    fn drop(&mut self) {
        let families = &self.families.0;
        let mut held = families.held.lock();
        let left = held.get_mut(&self.key).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            held.remove(&self.key);
            let labels = [self.key.0.as_str(), self.key.1.as_str()];
            for family in [&families.up, &families.circuit_open, &families.in_flight] {
                // It was there as long as it was held.
                let _ = family.remove_label_values(&labels);
            }
        }
    }
}

/// How requests to an upstream were tried.
pub struct TriesMetrics {
    /// Tried again after a connection that did not stand.
    pub connect: IntCounter,
    /// Tried again after a connection that broke.
    pub reset: IntCounter,
    /// Tried again after a status.
    pub status: IntCounter,
    /// Tried again after an idle connection turned out to be closed.
    pub reuse: IntCounter,
    /// Refused: too many under way.
    pub busy: IntCounter,
    /// Refused: all servers are left alone.
    pub circuit: IntCounter,
    /// Not tried again: too many were.
    pub retry_budget: IntCounter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| line.contains("_up{")).map(str::to_owned).collect()
    }

    #[test]
    fn a_server_that_left_leaves_no_series() {
        let registry = Registry::new();
        let metrics = UpstreamMetrics::register(&registry).unwrap();
        let first = metrics.of_server("data", "127.0.0.1:1");
        first.up.set(0);
        let second = metrics.of_server("data", "127.0.0.1:1");
        drop(first);
        assert_eq!(
            lines(&registry),
            ["tollgate_upstream_server_up{server=\"127.0.0.1:1\",upstream=\"data\"} 0"]
        );
        drop(second);
        assert_eq!(lines(&registry), Vec::<String>::new());
    }
}
