//! The memory of used signatures, as this node asks for it.
//!
//! Checks share calls to the store ([`crate::store::shared_calls`]). Where several shared a call there is load, and the next
//! call waits a moment longer for more ([`GATHER`]): otherwise each signed request would be a call of its own, and what that
//! costs the machine delays unsigned requests, too. Answers are told in turn with whatever else is to be done: requests that
//! went on all at once would stand before those that come just now, which know nothing of signatures. The store decides ([`crate::store::Store::remember_signatures`]): exactly one use of a signature is let
//! through in the fleet, none is forgotten early, and a full memory refuses.
//!
//! Cost of a signed request: one place in one call. With Redis that is one `EVALSHA` for each second of `x-iex-date` in
//! the call (mostly one or two), two or three steps of it for each signature, and some 110 bytes there until it is
//! stale. Unsigned requests never come here.
//!
//! Fails closed: where the store cannot be asked, the request is refused with 503, as it could be a repetition.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::line::Line;
use crate::policy::signature::Verified;
use crate::policy::{AccountId, Denial};
use crate::store::shared_calls::{Called, Caller, SharedCalls, Sharing};
use crate::store::{Remembered, Sighting, Store, StoreError};

/// Checks that share a call at most.
const BATCH: usize = 256;
/// Calls under way at once: more than one where a full call waits, or the last one is late.
const FLIGHTS: usize = 4;
/// How long checks gather after a call that several shared.
const GATHER: Duration = Duration::from_millis(1);
/// A call that is under way for so long is late.
const LATE: Duration = Duration::from_millis(5);
/// Checks that wait for a call at most; more than that and the store is no help any more.
const WAITING: usize = 100_000;
/// How much longer than needed a signature is remembered: by so much the clocks of two nodes may differ.
pub(super) const CLOCKS: Duration = Duration::from_mins(1);

type Asked = Pin<Box<dyn Future<Output = Result<Vec<Remembered>, Denial>> + Send>>;

/// Lets each signature through once.
pub(super) struct Replay {
    ask: Box<dyn Fn(AccountId, Vec<Sighting>) -> Asked + Send + Sync>,
    patience: Duration,
    runtime: Handle,
    shared: SharedCalls<Self>,
    /// Names uses: random bits of this run, then a number.
    run: u64,
    uses: AtomicU64,
}

impl Replay {
    /// `patience`: how long a request waits for the store. Calls are made on `runtime`.
    pub(super) fn new(line: Arc<Line>, patience: Duration, runtime: Handle) -> Arc<Self> {
        let ask = move |account: AccountId, sightings: Vec<Sighting>| -> Asked {
            let line = line.clone();
            Box::pin(async move {
                line.call("remember_signatures", |store| remember(store, &account, &sightings)).await
            })
        };
        Self::asking(Box::new(ask), patience, GATHER, runtime)
    }

    fn asking(
        ask: Box<dyn Fn(AccountId, Vec<Sighting>) -> Asked + Send + Sync>,
        patience: Duration,
        gather: Duration,
        runtime: Handle,
    ) -> Arc<Self> {
        let mut bits = [0; 8];
        // Without random bits the runs of this node share their names; that matters only to an answer that was lost.
        let _ = getrandom::fill(&mut bits);
        let run = u64::from_be_bytes(bits);
        let shared = SharedCalls::new(Sharing {
            batch: BATCH,
            flights: FLIGHTS,
            late: LATE,
            waiting: WAITING,
            gather,
            in_turn: true,
        });
        Arc::new(Self { ask, patience, runtime, shared, run, uses: AtomicU64::new(1) })
    }

    /// Lets a signature through, if it was not used before. By the gate's clock, as the signature was verified.
    pub(super) async fn check(
        self: &Arc<Self>,
        account: &AccountId,
        verified: &Verified,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let left = Duration::try_from(verified.expires_at().duration_since(now)).unwrap_or_default();
        let use_ = self.uses.fetch_add(1, Ordering::Relaxed);
        let sighting = Sighting {
            fingerprint: verified.fingerprint(),
            dated: verified.dated().as_second(),
            life: left.saturating_add(CLOCKS),
            nonce: u128::from(self.run) << 64 | u128::from(use_),
        };
        // Nobody is asked for those that have left: what was answered with 503 must not count as used.
        let answer = SharedCalls::ask(self, &self.runtime, account, sighting);
        let answer = answer.ok_or(Denial::StoreUnavailable)?;
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(Ok(Remembered::New))) => Ok(()),
            Ok(Ok(Ok(Remembered::Seen))) => Err(Denial::SignatureReplayed),
            Ok(Ok(Ok(Remembered::Full))) => Err(Denial::ReplayMemoryFull),
            Ok(Ok(Err(denial))) => Err(denial),
            Ok(Err(_)) | Err(_) => Err(Denial::StoreUnavailable),
        }
    }
}

impl Caller for Replay {
    type Key = AccountId;
    type Ask = Sighting;
    type Answer = Result<Remembered, Denial>;

    fn shared(&self) -> &SharedCalls<Self> {
        &self.shared
    }

    async fn call(&self, account: &AccountId, sightings: Vec<Sighting>) -> Called<Self::Answer> {
        let count = sightings.len();
        match (self.ask)(account.clone(), sightings).await {
            Ok(answers) => Called::Answered(answers.into_iter().map(Ok).collect()),
            Err(Denial::StoreUnavailable) => Called::Failed(Box::new(|| Err(Denial::StoreUnavailable))),
            Err(denial) => Called::Answered(vec![Err(denial); count]),
        }
    }
}

async fn remember(
    store: &dyn Store,
    account: &AccountId,
    sightings: &[Sighting],
) -> Result<Vec<Remembered>, StoreError> {
    store.remember_signatures(account, sightings).await
}

#[cfg(test)]
mod tests;
