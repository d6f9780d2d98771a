//! Takes credits for a request, and makes sure that each taking is settled once.
//!
//! Owns the [`Claim`]: credits taken and not yet settled. Whatever happens to a request, its claim is settled: spent
//! in full when the response began well, given back otherwise, also when it is merely dropped (client gone, panic,
//! shutdown). Settlements leave the request's way: they go through a queue to one task, which sends them in batches
//! and repeats them until the store has them; a settlement counts once however often it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::ledger::{Standing, Taken};
use crate::policy::{Credits, Denial, Permit, Policy};
use crate::store::{Charge, LeaseId, Settlement, Store};
use crate::telemetry::Metrics;

/// The most settlements sent in one call.
const BATCH: usize = 256;
/// The pauses between attempts when the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Takes and settles credits.
#[derive(Clone)]
pub(super) struct Meter {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    queue: UnboundedSender<Settlement>,
    pending: Arc<AtomicU64>,
}

impl Meter {
    /// Starts the task that settles, on `runtime`.
    pub(super) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>, runtime: &Handle) -> Self {
        let (queue, settlements) = mpsc::unbounded_channel();
        let pending = Arc::new(AtomicU64::new(0));
        let settler =
            Settler { store: store.clone(), metrics: metrics.clone(), settlements, pending: pending.clone() };
        runtime.spawn(settler.run());
        Self { store, metrics, queue, pending }
    }

    /// Takes what a permit costs from its token and account.
    pub(super) async fn take(&self, policy: &Policy, permit: &Permit) -> Result<(Claim, Standing), Denial> {
        let charge = Charge {
            lease: LeaseId(ulid::Ulid::generate()),
            account: policy.account.clone(),
            token: policy.id.clone(),
            pool: permit.pool(),
            cost: permit.cost(),
        };
        // The claim exists before the store is asked: if this future is dropped half-way, or the answer is lost,
        // what the store may have taken is given back.
        let claim = Claim { charge: Some(charge.clone()), meter: self.clone() };
        let denial = match self.store.take(&charge).await {
            Ok(Taken::Granted(standing)) => return Ok((claim, standing)),
            // What the store may have taken is given back by the claim.
            Err(error) => return Err(self.metrics.store_failed("take", &error)),
            Ok(Taken::RateLimited { retry_after }) => Denial::RateLimited { retry_after },
            Ok(Taken::CreditsExhausted { retry_after }) => {
                Denial::CreditsExhausted { pool: charge.pool, retry_after }
            }
            Ok(Taken::BudgetExhausted { retry_after }) => {
                Denial::BudgetExhausted { pool: charge.pool, retry_after }
            }
        };
        claim.forget();
        Err(denial)
    }

    /// Waits until every settlement has reached the store, at most for `patience`. How many are left.
    pub(super) async fn drain(&self, patience: Duration) -> u64 {
        let empty = async {
            while self.pending.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(patience, empty).await;
        self.pending.load(Ordering::Acquire)
    }

    fn settle(&self, charge: Charge, spent: Credits) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.metrics.credits(charge.pool, spent, Credits(charge.cost.0 - spent.0.min(charge.cost.0)));
        if self.queue.send(Settlement { charge, spent }).is_err() {
            // The task is gone: the runtime is being torn down. The store keeps the taking as spent (law 1).
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Credits taken for one request and not yet settled. Dropping it gives them back.
pub(super) struct Claim {
    charge: Option<Charge>,
    meter: Meter,
}

impl Claim {
    /// The request was answered: all of it is spent.
    pub(super) fn spend(mut self) {
        if let Some(charge) = self.charge.take() {
            let cost = charge.cost;
            self.meter.settle(charge, cost);
        }
    }

    /// The store took nothing, so there is nothing to settle.
    fn forget(mut self) {
        self.charge = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.meter.settle(charge, Credits(0));
        }
    }
}

struct Settler {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    settlements: UnboundedReceiver<Settlement>,
    pending: Arc<AtomicU64>,
}

impl Settler {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.settlements.recv_many(&mut batch, BATCH).await > 0 {
            self.send(&batch).await;
            self.pending.fetch_sub(batch.len() as u64, Ordering::AcqRel);
            batch.clear();
        }
    }

    /// Sends a batch until the store has it. An unreadable record is no reason to try again.
    async fn send(&self, batch: &[Settlement]) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.store.settle(batch).await {
            if self.metrics.store_failed("settle", &error) != Denial::StoreUnavailable {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
