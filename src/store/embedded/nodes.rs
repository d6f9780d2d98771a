//! The nodes that live. One process has the file, so they are its own, and memory keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::super::{NodeId, NodeReport};
use crate::policy::AccountId;

/// Reports, and for how long each is good.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<BTreeMap<(AccountId, NodeId), (NodeReport, SignedDuration)>>);

impl Nodes {
    /// Keeps a report.
    pub(super) fn report(&self, account: &AccountId, report: &NodeReport, life: Duration, now: Timestamp) {
        let life = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
        let report = NodeReport { seen_at: now, ..report.clone() };
        self.0.lock().insert((account.clone(), report.node), (report, life));
    }

    /// The reports that are good, by name of the node; the others are forgotten.
    pub(super) fn alive(&self, account: &AccountId, now: Timestamp) -> Vec<NodeReport> {
        let mut nodes = self.0.lock();
        nodes.retain(|_, (report, life)| now.duration_since(report.seen_at) < *life);
        let of_account = nodes.iter().filter(|((of, _), _)| of == account);
        of_account.map(|(_, (report, _))| report.clone()).collect()
    }
}
