//! How the gate stands, for metrics and health, and how it comes to its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::Gate;
use crate::policy::AccountId;
use crate::store::NodeReport;
use crate::telemetry::{NodeState, Tracer};

impl Gate {
    /// Waits until no request is in flight, at most for `patience`.
    ///
    /// Between two requests on a kept connection Pingora holds no state of ours, so idle connections do not count.
    pub async fn wait_idle(&self, patience: Duration) {
        let idle = async {
            while self.active.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(patience, idle).await;
    }

    /// Ends the streams that are open still, each with a word of farewell.
    pub fn end_streams(&self) {
        self.streams.end_all();
    }

    /// Waits until all that was spent and given back has reached the store, at most for `patience`. How many
    /// settlements are left.
    pub async fn drain(&self, patience: Duration) -> u64 {
        let left = self.meter.drain(patience).await;
        self.say_farewell().await;
        if let Some(memory) = &self.memory {
            memory.keep(&self.directory, &self.line);
        }
        left
    }

    /// Takes this node's report back: it serves nobody any more, so no receipt has to wait for it.
    async fn say_farewell(&self) {
        let (epoch, name) = (*self.epoch.borrow(), &self.node_name);
        let report = NodeReport::new(self.node, epoch, self.meter.leased(), name);
        let account = AccountId::default_account();
        let told =
            self.line.call("report_node", |store| store.report_node(&account, &report, Duration::ZERO));
        let _ = tokio::time::timeout(self.patience, told).await;
    }

    /// The epoch this gate acts by: every change up to it is in force here.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.clone()
    }

    /// The gate's metrics in Prometheus's text format.
    pub fn metrics(&self) -> String {
        self.metrics.render(&self.state())
    }

    /// How the node stands just now.
    fn state(&self) -> NodeState {
        let owed = self.meter.owed();
        let (journal_leases, journal_bytes) = self.meter.journal_extent();
        let (line_cut, silence) = (self.line.is_cut(), self.line.silence());
        // A cut line is not even tried.
        let waiting = silence.filter(|_| line_cut && owed.unsettled > 0).unwrap_or_default();
        NodeState {
            in_flight: self.active.load(Ordering::Acquire),
            streams: self.streams.len(),
            held_bytes: self.room.taken(),
            policies: self.directory.len(),
            unknown_tokens: self.directory.unknown(),
            leases: owed.leases,
            unsettled: owed.unsettled,
            settlement_lag: owed.lag.max(waiting),
            journal_leases,
            journal_bytes,
            line_cut,
            silence,
            epoch: *self.epoch.borrow(),
            log_lines_dropped: self.access_log.as_ref().map_or(0, |log| log.dropped() as u64),
            log_lines_left_out: self.access_log.as_ref().map_or(0, |log| log.left_out() as u64),
            spans: self.tracer.as_ref().map(Tracer::counts).unwrap_or_default(),
        }
    }
}
