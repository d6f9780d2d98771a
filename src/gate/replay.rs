//! The memory of used signatures, as this node asks for it.
//!
//! Owns how checks share calls to the store. While a call is under way the next checks gather; a call takes all that wait,
//! up to [`BATCH`]. A lone check goes out at once. Where several shared a call there is load, and the next call waits a
//! moment longer for more ([`GATHER`]): otherwise each signed request would be a call of its own, and what that costs the
//! machine delays unsigned requests, too. A call that is late holds nobody up: the next ones do not wait for it. The store
//! decides ([`crate::store::Store::remember_signatures`]): exactly one use of a signature is let
//! through in the fleet, none is forgotten early, and a full memory refuses.
//!
//! Cost of a signed request: one place in one call. With Redis that is one `EVALSHA` for each second of `x-iex-date` in
//! the call (mostly one or two), two or three steps of it for each signature, and some 110 bytes there until it is
//! stale. Unsigned requests never come here.
//!
//! Fails closed: where the store cannot be asked, the request is refused with 503, as it could be a repetition.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::line::Line;
use crate::policy::signature::Verified;
use crate::policy::{AccountId, Denial};
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

/// One check that waits.
struct Check {
    account: AccountId,
    sighting: Sighting,
    answer: oneshot::Sender<Result<Remembered, Denial>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Check>,
    flights: usize,
    /// When the last call began.
    called_at: Option<Instant>,
}

impl Queue {
    fn needs_flight(&self) -> bool {
        let late = || self.called_at.is_some_and(|at| at.elapsed() >= LATE);
        self.flights == 0 || (self.flights < FLIGHTS && (self.waiting.len() >= BATCH || late()))
    }
}

/// Lets each signature through once.
pub(super) struct Replay {
    ask: Box<dyn Fn(AccountId, Vec<Sighting>) -> Asked + Send + Sync>,
    patience: Duration,
    gather: Duration,
    runtime: Handle,
    queue: Mutex<Queue>,
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
        let (queue, uses) = (Mutex::default(), AtomicU64::new(1));
        Arc::new(Self { ask, patience, gather, runtime, queue, run, uses })
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
        let answer = self.enqueue(account.clone(), sighting)?;
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(Ok(Remembered::New))) => Ok(()),
            Ok(Ok(Ok(Remembered::Seen))) => Err(Denial::SignatureReplayed),
            Ok(Ok(Ok(Remembered::Full))) => Err(Denial::ReplayMemoryFull),
            Ok(Ok(Err(denial))) => Err(denial),
            Ok(Err(_)) | Err(_) => Err(Denial::StoreUnavailable),
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        account: AccountId,
        sighting: Sighting,
    ) -> Result<oneshot::Receiver<Result<Remembered, Denial>>, Denial> {
        let (answer, told) = oneshot::channel();
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= WAITING {
            return Err(Denial::StoreUnavailable);
        }
        queue.waiting.push_back(Check { account, sighting, answer });
        if queue.needs_flight() {
            queue.flights += 1;
            queue.called_at = Some(Instant::now());
            let flight = Flight { replay: self.clone(), ended: false };
            drop(queue);
            self.runtime.spawn(flight.run());
        }
        Ok(told)
    }

    /// The checks of the next call: all of one account, in their order. Those that nobody waits for any more are left out: what
    /// was answered with 503 must not count as used.
    fn next_batch(&self) -> Vec<Check> {
        let mut queue = self.queue.lock();
        let mut batch: Vec<Check> = Vec::new();
        while let Some(check) = queue.waiting.pop_front() {
            if check.answer.is_closed() {
                continue;
            }
            if batch.first().is_some_and(|first| first.account != check.account) {
                queue.waiting.push_front(check);
                break;
            }
            batch.push(check);
            if batch.len() == BATCH {
                break;
            }
        }
        queue.called_at = Some(Instant::now());
        batch
    }
}

/// One of the calls that may be under way. Dropped before its end, by a panic, it leaves its place to another.
struct Flight {
    replay: Arc<Replay>,
    ended: bool,
}

impl Flight {
    async fn run(mut self) {
        while !self.ended {
            let batch = self.replay.next_batch();
            match batch.first() {
                Some(first) => {
                    let sightings = batch.iter().map(|check| check.sighting).collect();
                    let answers = (self.replay.ask)(first.account.clone(), sightings).await;
                    let (shared, full) = (batch.len() > 1, batch.len() == BATCH);
                    answer(batch, answers).await;
                    if shared && !full {
                        tokio::time::sleep(self.replay.gather).await;
                    }
                }
                None => self.end(),
            }
        }
    }

    /// Ends, unless somebody came in between.
    fn end(&mut self) {
        let mut queue = self.replay.queue.lock();
        if queue.waiting.is_empty() {
            queue.flights = queue.flights.saturating_sub(1);
            self.ended = true;
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.ended {
            let mut queue = self.replay.queue.lock();
            queue.flights = queue.flights.saturating_sub(1);
        }
    }
}

/// Tells each check its answer. In turn with whatever else is to be done: requests that went on all at once would stand before
/// those that come just now, which know nothing of signatures.
async fn answer(batch: Vec<Check>, answers: Result<Vec<Remembered>, Denial>) {
    let answers = match answers {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(denial) => vec![Err(denial); batch.len()],
    };
    for (check, answer) in batch.into_iter().zip(answers) {
        // Whoever has left misses the answer.
        let _ = check.answer.send(answer);
        tokio::task::yield_now().await;
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
