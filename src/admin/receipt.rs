//! Receipts: whether a change is in force on every node (`laws.md`, law 5).
//!
//! A write that asks `?wait=` is answered when every node that lives says it acts by it, or when the time is over. A node
//! that is silent is not waited for, and named: it is gone, or cut off and serving by what it knows. The write itself
//! stands either way, so trouble from here on never turns its answer into an error.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};
use utoipa::ToSchema;

use super::State;
use crate::store::{NodeReport, StoreError};

/// The longest `?wait=`.
pub(super) const MAX_WAIT: Duration = Duration::from_mins(1);
/// The nodes are looked at once at least: the store gets this long even if nobody wants to wait.
const ONE_LOOK: Duration = Duration::from_millis(50);
/// The first pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// Pauses grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Whether a change is in force on every node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(super) struct ReceiptView {
    /// The account's epoch with this change; `null`: the store did not say in time.
    #[schema(required)]
    epoch: Option<u64>,
    /// Every node acts by this epoch or a later one, and there is one at least. A node that was cut off counts until it
    /// trusts nothing any more (`outage.grace`).
    in_force: bool,
    /// How many nodes there are, silent ones included.
    nodes: usize,
    /// Those that did not act by it when the time was over.
    missing: Vec<MissingNode>,
}

/// A node that does not act by a change yet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MissingNode)]
struct MissingNode {
    /// Its id.
    node: String,
    /// Where it can be found.
    name: String,
    /// The epoch it acts by.
    epoch: u64,
    /// It has not been heard for a while: it is gone, or cut off and serving by what it knows.
    silent: bool,
    /// When it was last heard, by the store's clock.
    #[schema(format = DateTime)]
    seen_at: String,
}

impl ReceiptView {
    fn new(epoch: Option<u64>, nodes: &[NodeReport]) -> Self {
        let acts = |node: &NodeReport| epoch.is_some_and(|epoch| node.epoch >= epoch);
        let missing = NodeReport::living(nodes).filter(|(node, _)| !acts(node));
        let missing = missing.map(|(node, lives)| MissingNode {
            node: node.node.0.to_string(),
            name: node.name.clone(),
            epoch: node.epoch,
            silent: !lives,
            seen_at: node.seen_at.to_string(),
        });
        let mut missing: Vec<_> = missing.collect();
        missing.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        // Where nobody says that the change is in force, it is not called so.
        let in_force = epoch.is_some() && !nodes.is_empty() && missing.is_empty();
        Self { epoch, in_force, nodes: nodes.len(), missing }
    }

    /// Whether waiting longer would help: a silent node is not waited for.
    fn is_final(&self) -> bool {
        self.epoch.is_some() && self.nodes > 0 && self.missing.iter().all(|node| node.silent)
    }
}

/// How long an edit waits to be in force on the node that took it.
const HERE: Duration = Duration::from_secs(1);

/// Waits until the last write is in force on this node: who edits a token and asks this node next finds it so.
async fn in_step_here(shared: &State) {
    let mut acts_by = shared.admin.acts_by.clone();
    let here = async {
        let Ok(epoch) = shared.admin.store.epoch(&shared.admin.account).await else { return };
        let _ = acts_by.wait_for(|known| *known >= epoch).await;
    };
    let _ = tokio::time::timeout(HERE, here).await;
}

/// Waits until the last write is in force on every node that lives, for `wait` at most. `None`: nobody asked.
pub(super) async fn collect(shared: &State, wait: Option<Duration>) -> Option<ReceiptView> {
    let Some(wait) = wait else {
        in_step_here(shared).await;
        return None;
    };
    let deadline = Instant::now() + wait.max(ONE_LOOK);
    let mut epoch = None;
    let mut nodes = Vec::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        match timeout_at(deadline, look(shared, &mut epoch)).await {
            Ok(Ok(seen)) => nodes = seen,
            Ok(Err(error)) => tracing::debug!(%error, "no receipt yet: the store did not answer"),
            // What the last look saw is what there is to tell.
            Err(_) => {}
        }
        let receipt = ReceiptView::new(epoch, &nodes);
        let now = Instant::now();
        if receipt.is_final() || now >= deadline {
            return Some(receipt);
        }
        sleep_until((now + pause).min(deadline)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The epoch is taken once, after the write; a later one would wait for other people's changes.
async fn look(shared: &State, epoch: &mut Option<u64>) -> Result<Vec<NodeReport>, StoreError> {
    let admin = &shared.admin;
    if epoch.is_none() {
        *epoch = Some(admin.store.epoch(&admin.account).await?);
    }
    admin.store.nodes(&admin.account).await
}
