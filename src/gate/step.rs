//! Keeps this node in step with the store: acts on events, notices missed ones, says up to which change it acts.
//!
//! Each change moves the account's epoch and is published in the same step. A node that has acted on it reports the
//! epoch; that report is the receipt that `--wait` waits for (law 5). Once a second the epoch is compared: one that
//! moved without an event means that events were missed, and everything known is stale.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::directory::Directory;
use super::keyring::Keyring;
use super::line::Line;
use super::meter::Meter;
use super::streams::Streams;
use crate::policy::AccountId;
use crate::store::{Event, NodeId, NodeReport};

/// How often the epoch is compared.
const CHECK: Duration = Duration::from_secs(1);
/// How long an event may be on its way after its epoch is seen.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// How often a report is made anew where nothing changes. The store is asked rarely: this, the epoch and the leases are
/// all it hears of a node in the steady state (law 4).
const REPORT_EVERY: u32 = 4;

/// What is kept in step.
pub(super) struct Watch {
    pub(super) line: Arc<Line>,
    pub(super) directory: Arc<Directory>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) meter: Arc<Meter>,
    pub(super) streams: Arc<Streams>,
    pub(super) account: AccountId,
    pub(super) node: NodeId,
    pub(super) name: String,
    /// How long a report stands: a node that is cut off serves by what it knows for so long.
    pub(super) report_life: Duration,
    /// The epoch this node acts by.
    pub(super) epoch: watch::Sender<u64>,
}

impl Watch {
    /// Runs as long as the store's events do.
    pub(super) async fn run(self, mut events: Receiver<Event>) {
        let mut behind = !self.catch_up().await;
        let mut checks = 0_u32;
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => {
                    let lost = match event {
                        Ok(event) => self.act_on_all(&event, &mut events),
                        Err(RecvError::Lagged(_)) => true,
                        Err(RecvError::Closed) => return,
                    };
                    if lost {
                        behind = !self.catch_up().await;
                    } else {
                        self.report().await;
                    }
                }
                _ = check.tick() => {
                    self.streams.sweep();
                    behind = if behind { !self.catch_up().await } else { !self.check(&mut events).await };
                    if !behind && checks.is_multiple_of(REPORT_EVERY) {
                        self.report().await;
                        self.count_nodes().await;
                    }
                    checks = checks.wrapping_add(1);
                }
            }
        }
    }

    /// Acts on an event and on those that came with it, so that a burst of edits is reported once. Whether some were
    /// lost.
    fn act_on_all(&self, first: &Event, events: &mut Receiver<Event>) -> bool {
        let mut lost = self.act_on(first);
        loop {
            match events.try_recv() {
                Ok(event) => lost |= self.act_on(&event),
                Err(TryRecvError::Lagged(_)) => lost = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return lost,
            }
        }
    }

    fn act_on(&self, event: &Event) -> bool {
        if matches!(event, Event::Policy { .. } | Event::Account { .. }) {
            self.line.metrics().store_event();
        }
        match event {
            Event::Policy { token, version, epoch } => {
                self.directory.changed(token, *version);
                self.keyring.changed(token);
                self.meter.forget_pace(token);
                self.meter.recall(Some(token), None);
                self.streams.changed(Some(token));
                self.acts_by(*epoch);
            }
            Event::Account { epoch } => {
                self.meter.recall(None, None);
                self.acts_by(*epoch);
            }
            Event::Recall { token, pool } => self.meter.recall(token.as_ref(), Some(*pool)),
            Event::Lost => return true,
        }
        false
    }

    fn acts_by(&self, epoch: u64) {
        self.epoch.send_if_modified(|known| {
            let later = epoch > *known;
            *known = epoch.max(*known);
            later
        });
    }

    /// Events may have been missed: takes note of the epoch first, then drops trust in all that was known before, so
    /// that every change up to that epoch is in force. Whether the store could be asked.
    async fn catch_up(&self) -> bool {
        self.line.metrics().caught_up();
        let epoch = self.line.call("epoch", |store| store.epoch(&self.account)).await;
        self.directory.lost();
        self.streams.changed(None);
        self.keyring.lost();
        match epoch {
            Ok(epoch) => {
                // Not before the store is there: what is in hand is all that an outage can be served from (law 6).
                self.meter.recall(None, None);
                self.acts_by(epoch);
                self.report().await;
                true
            }
            Err(_) => false,
        }
    }

    /// Compares the epoch. Whether this node is in step, or was brought back into step.
    async fn check(&self, events: &mut Receiver<Event>) -> bool {
        let ask = || self.line.call("epoch", |store| store.epoch(&self.account));
        let Ok(epoch) = ask().await else { return false };
        if epoch > *self.epoch.borrow() {
            let event = tokio::time::timeout(ON_ITS_WAY, events.recv()).await;
            if let Ok(Ok(event)) = event
                && self.act_on_all(&event, events)
            {
                return self.catch_up().await;
            }
            if epoch > *self.epoch.borrow() {
                tracing::warn!("changes were made of which no event came; looking everything up anew");
                return self.catch_up().await;
            }
        }
        true
    }

    async fn count_nodes(&self) {
        if let Ok(nodes) = self.line.call("nodes", |store| store.nodes(&self.account)).await {
            let living = NodeReport::living(&nodes).filter(|(_, lives)| *lives).count();
            self.meter.set_nodes(u32::try_from(living).unwrap_or(u32::MAX));
            self.line.metrics().nodes(living as u64, (nodes.len() - living) as u64);
        }
    }

    async fn report(&self) {
        let report = NodeReport::new(self.node, *self.epoch.borrow(), self.meter.leased(), &self.name);
        let told = |store| report_to(store, &self.account, &report, self.report_life);
        let _ = self.line.call("report_node", told).await;
    }
}

async fn report_to(
    store: &dyn crate::store::Store,
    account: &AccountId,
    report: &NodeReport,
    life: Duration,
) -> Result<(), crate::store::StoreError> {
    store.report_node(account, report, life).await
}
