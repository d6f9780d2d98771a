//! Takes credits for a request from leases, and makes sure that each taking counts once.
//!
//! Owns the purses of this node, one for each token and pool in use, and carries out what they wish for
//! ([`crate::ledger::purse`]). A request touches only memory: its purse, and a cell of the journal when it is charged. It
//! waits for the store only when its purse is empty, and then all that wait share one call.
//!
//! Owns the [`Claim`]: credits taken and not yet settled. Whatever happens to a request, its claim ends once: spent when
//! the response began well, given back otherwise, also when it is merely dropped (client gone, panic, shutdown).

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use ulid::Ulid;

use super::line::Line;
use crate::ledger::Standing;
use crate::ledger::idempotency::{Bounds, Key, Memory, Opened, Payment};
use crate::ledger::journal::{Journal, Recovered};
use crate::ledger::purse::{Draw, IDLE, Micros};
use crate::policy::{Credits, DatasetId, Denial, Operation, Policy, Pool, TokenId};
use crate::store::NodeId;
use crate::telemetry::Metrics;

mod keeper;
mod purse_slot;
mod refusals;
mod tab;
mod throttle;
#[cfg(test)]
mod weight;

use purse_slot::{Cell, Drawn, Outcome, PurseSlot};
use refusals::Refusals;
pub(super) use tab::Tab;
use throttle::Throttle;

/// How long leases live without being renewed.
pub(super) const LIFE: Duration = Duration::from_secs(30);
/// How long a request waits for credits that other nodes hold (law 3).
pub(super) const RECALL: Duration = Duration::from_millis(250);
/// Purses by their keys, which are ours: nobody outside can choose them.
type Purses = HashMap<PurseKey, Arc<PurseSlot>, RandomState>;

/// The shards of the table of purses.
const SHARDS: usize = 64;

type PurseKey = (TokenId, Pool);

/// Takes and settles credits.
pub(super) struct Meter {
    line: Arc<Line>,
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    node: NodeId,
    runtime: Handle,
    /// How long a request waits for the store.
    patience: Duration,
    born: Instant,
    hasher: RandomState,
    shards: Vec<Mutex<Purses>>,
    throttle: Throttle,
    refusals: Refusals,
    keys: Mutex<Memory>,
    /// Leases that wait to be settled or were left by an earlier run.
    open: AtomicU64,
}

impl Meter {
    /// Starts the task that keeps the purses, on `runtime`, and settles what an earlier run of this node left.
    pub(super) fn start(
        line: Arc<Line>,
        metrics: Arc<Metrics>,
        journal: Arc<Journal>,
        recovered: Vec<Recovered>,
        node: NodeId,
        patience: Duration,
        runtime: &Handle,
    ) -> Arc<Self> {
        let meter = Arc::new(Self {
            throttle: Throttle::new(line.clone(), patience, runtime.clone()),
            line,
            metrics,
            journal,
            node,
            runtime: runtime.clone(),
            patience,
            born: Instant::now(),
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            refusals: Refusals::default(),
            keys: Mutex::new(Memory::new(Bounds::default())),
            open: AtomicU64::new(recovered.len() as u64),
        });
        runtime.spawn(keeper::recover(meter.clone(), meter.journal.clone(), recovered));
        runtime.spawn(keeper::keep(Arc::downgrade(&meter)));
        meter
    }

    /// Settles what another process of this node left in its journal.
    pub(super) async fn settle_left(self: Arc<Self>, journal: Arc<Journal>, left: Vec<Recovered>) {
        self.open.fetch_add(left.len() as u64, Ordering::AcqRel);
        keeper::recover(self, journal, left).await;
    }

    fn now(&self) -> Micros {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn shard(&self, key: &PurseKey) -> Option<&Mutex<Purses>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards.get(hash)
    }

    fn slot(&self, policy: &Policy, pool: Pool) -> Arc<PurseSlot> {
        let key = (policy.id.clone(), pool);
        let make = || Arc::new(PurseSlot::new(policy.account.clone(), policy.id.clone(), pool));
        match self.shard(&key) {
            Some(shard) => shard.lock().entry(key).or_insert_with(make).clone(),
            None => make(),
        }
    }

    /// Forgets purses that nobody uses and nothing lies in.
    fn forget_idle(&self) {
        let now = self.now();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_idle(now, IDLE));
            let few = shard.len() * 2;
            if shard.capacity() > few * 2 {
                shard.shrink_to(few);
            }
        }
    }

    fn slots(&self) -> Vec<Arc<PurseSlot>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// A request with an `Idempotency-Key` was judged: whether it was paid for already.
    pub(super) fn open_key(&self, key: Key) -> Result<Opened, Denial> {
        Ok(self.keys.lock().open(key, self.now())?)
    }

    /// Takes what a request costs: throttle first, then credits. Where the store has to be asked for a pass, it is asked
    /// for credits that are missing at the same time; the throttle has the first word all the same, and what a request has taken that
    /// is not let by goes back.
    pub(super) async fn take(
        self: &Arc<Self>,
        policy: &Policy,
        pool: Pool,
        cost: Credits,
        dataset: Option<&DatasetId>,
        operation: Operation,
    ) -> Result<(Claim, Standing), Denial> {
        let mut pass = pin!(async {
            match policy.rate_limit {
                Some(rate) => self.throttle.pass(policy, rate).await.map(Some),
                None => Ok(None),
            }
        });
        let at_once = poll_fn(|cx| match pass.as_mut().poll(cx) {
            Poll::Ready(passed) => Poll::Ready(Some(passed)),
            Poll::Pending => Poll::Ready(None),
        });
        let (burst_left, claimed) = if let Some(passed) = at_once.await {
            (passed?, self.claim(policy, pool, cost).await?)
        } else {
            let (passed, claimed) = tokio::join!(pass, self.claim(policy, pool, cost));
            (passed?, claimed?)
        };
        let (mut claim, lease, mut standing) = claimed;
        standing.burst_left = burst_left;
        let dataset = dataset.map(|id| id.as_str().to_ascii_uppercase()).unwrap_or_default();
        let cell = claim.slot.cell(&self.journal, lease, &dataset, operation);
        // What cannot be written down is not served: dropping the claim gives the credits back.
        claim.cell = Some(cell.ok_or(Denial::StoreUnavailable)?);
        Ok((claim, standing))
    }

    /// Draws credits, and from which lease.
    async fn claim(
        self: &Arc<Self>,
        policy: &Policy,
        pool: Pool,
        cost: Credits,
    ) -> Result<(Claim, Ulid, Standing), Denial> {
        let slot = self.slot(policy, pool);
        let (lease, standing) = self.draw(&slot, cost.0).await?;
        let claim = Claim { meter: self.clone(), slot, lease: Some(lease), cost: cost.0, cell: None };
        Ok((claim, lease, standing))
    }

    async fn draw(self: &Arc<Self>, slot: &Arc<PurseSlot>, cost: u64) -> Result<(Ulid, Standing), Denial> {
        let mut listening = None;
        loop {
            let cut = self.line.is_cut();
            match slot.draw(cost, self.now(), cut) {
                (Draw::Taken(lease), more) => {
                    if let Some(ask) = more {
                        self.runtime.spawn(keeper::ask(self.clone(), slot.clone(), ask, false));
                    }
                    return Ok((lease, slot.standing(self.now())));
                }
                (Draw::Short, ask) => {
                    if let Some(denial) = slot.exhausted(cost, self.now()) {
                        return Err(denial);
                    }
                    if cut {
                        return Err(Denial::StoreUnavailable);
                    }
                    // Looks once more after it began to listen, so that nothing is missed.
                    let listened = listening.is_some();
                    let listen = || (slot.outcomes(), Instant::now() + RECALL + self.patience);
                    let (outcome, deadline) = listening.get_or_insert_with(listen);
                    if let Some(ask) = ask {
                        self.runtime.spawn(keeper::ask(self.clone(), slot.clone(), ask, true));
                    }
                    if listened {
                        self.wait(slot, cost, outcome, *deadline).await?;
                    } else {
                        // As in the directory: whoever asks waits.
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    /// As [`Self::draw`], for a response whose price grows: from one to `need` credits.
    async fn draw_part(self: &Arc<Self>, slot: &Arc<PurseSlot>, need: u64) -> Result<Drawn, Denial> {
        let deadline = Instant::now() + RECALL + self.patience;
        loop {
            let mut outcome = slot.outcomes();
            let (drawn, ask) = slot.draw_part(1, need, self.now());
            if let Some(ask) = ask {
                self.runtime.spawn(keeper::ask(self.clone(), slot.clone(), ask, drawn.is_none()));
            }
            if let Some(drawn) = drawn {
                return Ok(drawn);
            }
            if let Some(denial) = slot.exhausted(1, self.now()) {
                return Err(denial);
            }
            self.wait(slot, 1, &mut outcome, deadline).await?;
        }
    }

    /// Waits until something came of asking for `cost`.
    async fn wait(
        &self,
        slot: &PurseSlot,
        cost: u64,
        outcome: &mut watch::Receiver<Outcome>,
        deadline: Instant,
    ) -> Result<(), Denial> {
        // While credits are being recalled the store does answer, so the wait may go on; a store that does not
        // answer gets the request's patience and no more.
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if slot.is_recalling() { left } else { left.min(self.patience) };
        match tokio::time::timeout(wait, outcome.changed()).await {
            Ok(Ok(())) => match outcome.borrow_and_update().clone() {
                Outcome::Denied { need, denial } if need <= cost => Err(denial),
                Outcome::Unavailable => Err(Denial::StoreUnavailable),
                Outcome::Changed | Outcome::Denied { .. } => Ok(()),
            },
            Err(_) if slot.is_recalling() && Instant::now() < deadline => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Denial::StoreUnavailable),
        }
    }

    /// Lets a request by that is not charged: the throttle counts all the same.
    pub(super) async fn pace(&self, policy: &Policy) -> Result<(), Denial> {
        match policy.rate_limit {
            Some(rate) => self.throttle.pass(policy, rate).await.map(drop),
            None => Ok(()),
        }
    }

    /// Credits of a token that are spent on this node, and that the store does not know of yet.
    pub(super) fn unsettled(&self, token: &TokenId, pool: Pool) -> u64 {
        let key = (token.clone(), pool);
        let slot = self.shard(&key).and_then(|shard| shard.lock().get(&key).cloned());
        slot.map_or(0, |slot| slot.unsettled())
    }

    /// Somebody is out of credits, or a policy was changed: what lies idle goes back.
    pub(super) fn recall(self: &Arc<Self>, token: Option<&TokenId>, pool: Option<Pool>) {
        let slots: Vec<Arc<PurseSlot>> = match token {
            Some(token) => Pool::ALL
                .into_iter()
                .filter(|one| pool.is_none_or(|pool| pool == *one))
                .filter_map(|pool| {
                    let key = (token.clone(), pool);
                    self.shard(&key)?.lock().get(&key).cloned()
                })
                .collect(),
            None => {
                self.slots().into_iter().filter(|slot| pool.is_none_or(|pool| pool == slot.pool())).collect()
            }
        };
        if slots.is_empty() {
            return;
        }
        for slot in &slots {
            slot.recall();
        }
        self.runtime.spawn(keeper::tend(self.clone(), slots));
    }

    /// A policy was changed: its throttle may be another.
    pub(super) fn forget_pace(&self, token: &TokenId) {
        self.throttle.forget(token);
    }

    /// How many nodes live.
    pub(super) fn set_nodes(&self, nodes: u32) {
        self.throttle.set_nodes(nodes);
    }

    /// A request was refused.
    pub(super) fn refused(&self, token: Option<&TokenId>, code: &'static str) {
        self.refusals.count(token, code);
    }

    /// Credits in open leases of this node.
    pub(super) fn leased(&self) -> Credits {
        Credits(self.slots().iter().map(|slot| slot.open()).sum())
    }

    /// What the store does not know of yet.
    pub(super) fn owed(&self) -> Owed {
        let now = self.now();
        let mut owed = Owed { leases: self.open.load(Ordering::Acquire), ..Owed::default() };
        for slot in self.slots() {
            owed.leases += slot.leases();
            owed.unsettled += slot.unsettled();
            owed.lag = owed.lag.max(slot.failing_for(now));
        }
        owed
    }

    /// How many leases the journal keeps, and how many bytes its files have.
    pub(super) fn journal_extent(&self) -> (usize, usize) {
        self.journal.extent()
    }

    /// Gives everything back and waits until the store has it, at most for `patience`. How many leases are left.
    pub(super) async fn drain(self: &Arc<Self>, patience: Duration) -> u64 {
        let begun = Instant::now();
        loop {
            let slots = self.slots();
            for slot in &slots {
                slot.recall();
            }
            keeper::tend(self.clone(), slots).await;
            keeper::flush_refusals(self).await;
            let left = self.slots().iter().map(|slot| slot.leases()).sum::<u64>()
                + self.open.load(Ordering::Acquire);
            if left == 0 || begun.elapsed() >= patience {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What this node owes the store.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Owed {
    /// Leases that are open, or wait to be settled.
    pub(super) leases: u64,
    /// Credits spent and not settled.
    pub(super) unsettled: u64,
    /// For how long the store has not taken what it was told of some lease.
    pub(super) lag: Duration,
}

/// Credits taken for one request and not yet settled. Dropping it gives them back.
pub(super) struct Claim {
    meter: Arc<Meter>,
    slot: Arc<PurseSlot>,
    lease: Option<Ulid>,
    cost: u64,
    cell: Option<Cell>,
}

impl Claim {
    /// The response begins well, to a request with a key that nobody had paid for.
    pub(super) fn pay_key(&self, key: Key) -> Payment {
        self.meter.keys.lock().pay(key, self.meter.now())
    }

    /// It costs nothing after all.
    pub(super) fn release(&mut self) {
        if let Some(lease) = self.lease {
            self.slot.release(lease, self.cost);
            self.meter.metrics.returned(self.slot.pool(), Credits(self.cost));
            self.cost = 0;
        }
    }

    /// The request was answered: all of it is spent. Its bytes are counted later, by the receipt.
    pub(super) fn spend(mut self) -> Option<Receipt> {
        let (lease, cell) = (self.lease.take()?, self.cell.take()?);
        // Written down first: a kill in between leaves a charge that is settled after all, never one that is forgotten.
        cell.reference.charge(self.cost);
        self.slot.spend(lease, self.cost);
        self.meter.metrics.charged(self.slot.pool(), Credits(self.cost));
        Some(Receipt { slot: self.slot.clone(), lease, cell })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.slot.give_back(lease, self.cost);
            self.meter.metrics.returned(self.slot.pool(), Credits(self.cost));
        }
    }
}

/// A charged request whose response is still on its way.
pub(super) struct Receipt {
    slot: Arc<PurseSlot>,
    lease: Ulid,
    cell: Cell,
}

impl Receipt {
    /// So many bytes of its body went out.
    pub(super) fn add_bytes(&self, bytes: u64) {
        if bytes > 0 {
            self.slot.add_bytes(self.lease, &self.cell, bytes);
        }
    }
}
