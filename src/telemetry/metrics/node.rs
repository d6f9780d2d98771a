//! Figures of the node that are read when somebody asks for them, not counted on the way of a request.

use std::time::Duration;

use prometheus::{Error, Gauge, IntCounter, IntGauge, IntGaugeVec, Registry};

use super::super::repeats::left_out;
use super::super::traces::SpanCounts;
use super::register::{Register, advance, set};

/// How the node stands.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct NodeState {
    /// Requests in flight, streams included.
    pub in_flight: usize,
    /// Responses that flow and are charged as they do.
    pub streams: usize,
    /// Memory that held bodies take up, in bytes.
    pub held_bytes: usize,
    /// Policies in memory.
    pub policies: usize,
    /// Tokens remembered as unknown.
    pub unknown_tokens: usize,
    /// Open leases.
    pub leases: u64,
    /// Credits spent that the store does not know of yet.
    pub unsettled: u64,
    /// For how long the store has not taken what it is told of leases.
    pub settlement_lag: Duration,
    /// Leases in the journal.
    pub journal_leases: usize,
    /// The journal's files, in bytes.
    pub journal_bytes: usize,
    /// Whether calls to the store fail at once just now.
    pub line_cut: bool,
    /// How long ago the store answered.
    pub silence: Option<Duration>,
    /// The epoch the node acts by.
    pub epoch: u64,
    /// Access log lines dropped since the start.
    pub log_lines_dropped: u64,
    /// Access log lines left out by sampling since the start.
    pub log_lines_left_out: u64,
    /// What became of spans since the start.
    pub spans: SpanCounts,
}

/// The metrics that show it.
pub(super) struct NodeMetrics {
    in_flight: IntGauge,
    streams: IntGauge,
    held_bytes: IntGauge,
    policies: IntGauge,
    unknown_tokens: IntGauge,
    leases: IntGauge,
    unsettled: IntGauge,
    settlement_lag: Gauge,
    journal_leases: IntGauge,
    journal_bytes: IntGauge,
    pub(super) journal_set_aside: IntGauge,
    line_cut: IntGauge,
    silence: Gauge,
    epoch: IntGauge,
    pub(super) nodes: IntGaugeVec,
    log_lines_dropped: IntCounter,
    log_lines_left_out: IntCounter,
    events_left_out: IntCounter,
    spans: [IntCounter; 3],
}

impl NodeMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let make = Register(registry);
        let spans = make.counters(
            "tollgate_trace_spans_total",
            "Spans by what became of them: exported, dropped (the queue was full), failed (the collector did not take them)",
            &["outcome"],
        )?;
        let nodes = make.gauges(
            "tollgate_nodes",
            "Nodes of the fleet as this one sees it: living or silent",
            &["state"],
        )?;
        for state in ["living", "silent"] {
            nodes.with_label_values(&[state]);
        }
        Ok(Self {
            in_flight: make.gauge("tollgate_requests_in_flight", "Requests in flight, streams included")?,
            streams: make
                .gauge("tollgate_streams_open", "Responses that flow just now and are charged as they do")?,
            held_bytes: make.gauge(
                "tollgate_held_body_bytes",
                "Memory taken up by bodies held back until their signature is checked",
            )?,
            policies: make.gauge("tollgate_policies_known", "Policies in this node's memory")?,
            unknown_tokens: make
                .gauge("tollgate_unknown_tokens_remembered", "Tokens remembered as being nobody's")?,
            leases: make.gauge(
                "tollgate_leases_open",
                "Leases this node holds or waits to settle, an earlier run's too",
            )?,
            unsettled: make.gauge(
                "tollgate_unsettled_credits",
                "Credits spent here that the store does not know of yet",
            )?,
            settlement_lag: make.level(
                "tollgate_settlement_lag_seconds",
                "For how long the store has not taken what it is told of leases; 0: it takes everything",
            )?,
            journal_leases: make.gauge("tollgate_journal_leases", "Leases written down in the journal")?,
            journal_bytes: make
                .gauge("tollgate_journal_bytes", "Size of the journal's files; 256 MiB is the most")?,
            journal_set_aside: make.gauge(
                "tollgate_journal_set_aside",
                "Journal files that this start found torn or foreign and set aside",
            )?,
            line_cut: make.gauge(
                "tollgate_store_line_cut",
                "1 while calls to the store fail at once (circuit breaker open)",
            )?,
            silence: make.level("tollgate_store_silence_seconds", "How long ago the store last answered")?,
            epoch: make.gauge("tollgate_epoch", "Every change up to this one is in force on this node")?,
            nodes,
            spans: ["exported", "dropped", "failed"].map(|outcome| spans.with_label_values(&[outcome])),
            log_lines_left_out: make.counter(
                "tollgate_access_log_lines_left_out_total",
                "Access log lines left out by sampling",
            )?,
            events_left_out: make.counter(
                "tollgate_log_events_left_out_total",
                "Warnings that repeated themselves and were not written",
            )?,
            log_lines_dropped: make.counter(
                "tollgate_access_log_lines_dropped_total",
                "Access log lines dropped because the log could not keep up",
            )?,
        })
    }

    pub(super) fn show(&self, state: &NodeState) {
        for (gauge, figure) in [
            (&self.in_flight, state.in_flight as u64),
            (&self.streams, state.streams as u64),
            (&self.held_bytes, state.held_bytes as u64),
            (&self.policies, state.policies as u64),
            (&self.unknown_tokens, state.unknown_tokens as u64),
            (&self.leases, state.leases),
            (&self.unsettled, state.unsettled),
            (&self.journal_leases, state.journal_leases as u64),
            (&self.journal_bytes, state.journal_bytes as u64),
            (&self.line_cut, state.line_cut.into()),
            (&self.epoch, state.epoch),
        ] {
            set(gauge, figure);
        }
        self.settlement_lag.set(state.settlement_lag.as_secs_f64());
        if let Some(silence) = state.silence {
            self.silence.set(silence.as_secs_f64());
        }
        let SpanCounts { exported, dropped, failed } = state.spans;
        for (counter, figure) in self.spans.iter().zip([exported, dropped, failed]) {
            advance(counter, figure);
        }
        for (counter, figure) in [
            (&self.log_lines_dropped, state.log_lines_dropped),
            (&self.log_lines_left_out, state.log_lines_left_out),
            (&self.events_left_out, left_out()),
        ] {
            advance(counter, figure);
        }
    }
}
