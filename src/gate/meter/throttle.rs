//! The throttle of this node: passes taken ahead from the store, exact for the fleet ([`crate::ledger::pace`]).
//!
//! While the store is away, or silent, each node lets its part of the rate by, by a cell of its own. So that neither the
//! beginning nor the end of that lets more by, the cell counts passes of the store too, and what was let by without the
//! store is owed: it is paid from the passes that the store gives next, before anybody uses those.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::gate::line::Line;
use crate::ledger::pace::hold;
use crate::ledger::{Cell, admit, count_in};
use crate::policy::{Denial, Policy, RateLimit, TokenId};
use crate::store::Paced;

/// A throttle that was not used for so long is forgotten, if it says nothing any more.
const FORGET: Duration = Duration::from_secs(1);
/// Requests are counted by so much time.
const TENTH: Duration = Duration::from_millis(100);
/// Calls that one request makes at most, where what they bring is owed.
const CALLS: u32 = 4;

struct State {
    passes: u32,
    /// How many more the store had when it was asked last.
    more: u32,
    /// Requests that were let by without the store, and that its passes have not paid for.
    owed: u32,
    good_until: Instant,
    closed_until: Option<Instant>,
    /// Requests in the present tenth of a second, and in the one before: what is worth taking ahead.
    window: (Instant, u32, u32),
    /// For when the store cannot be asked: a throttle of this node's own, with its part of the rate.
    own: Cell,
    last: Instant,
    /// The store is being asked.
    asking: bool,
}

pub(super) struct Slot {
    state: Mutex<State>,
    /// The store has been asked.
    asked: Notify,
}

/// The right to ask the store: one at a time.
struct Turn(Arc<Slot>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state.lock().asking = false;
        self.0.asked.notify_waiters();
    }
}

/// What a request is to do next.
enum Next {
    /// It is decided.
    Decided(Result<u32, Denial>),
    /// It asks the store for so many.
    Ask(Turn, u32),
    /// Another one asks.
    Wait,
}

type Asking = Pin<Box<dyn Future<Output = Result<Paced, Denial>> + Send>>;

/// All throttles in use.
pub(super) struct Throttle {
    line: Arc<Line>,
    patience: Duration,
    runtime: Handle,
    slots: Mutex<HashMap<TokenId, Arc<Slot>, foldhash::fast::RandomState>>,
    nodes: AtomicU32,
}

impl Throttle {
    pub(super) fn new(line: Arc<Line>, patience: Duration, runtime: Handle) -> Self {
        Self { line, patience, runtime, slots: Mutex::default(), nodes: AtomicU32::new(1) }
    }

    /// Lets one request by; how many more would pass at once, as far as this node knows.
    pub(super) async fn pass(&self, policy: &Policy, rate: RateLimit) -> Result<u32, Denial> {
        let slot = self.slot(&policy.id);
        if let Some(decided) = slot.take(true) {
            return decided;
        }
        let deadline = tokio::time::Instant::now() + self.patience;
        let mut calls = 0;
        loop {
            let mut asked = std::pin::pin!(slot.asked.notified());
            asked.as_mut().enable();
            if self.line.is_cut() {
                return self.alone(&slot, rate);
            }
            match Slot::next(&slot, rate) {
                Next::Decided(decided) => return decided,
                Next::Wait => tokio::select! {
                    () = asked => {}
                    Some(left) = self.without(&slot, rate) => return Ok(left),
                    () = tokio::time::sleep_until(deadline) => return self.alone(&slot, rate),
                },
                Next::Ask(turn, want) => {
                    calls += 1;
                    let asked_at = Instant::now();
                    let mut call = self.call(policy, want);
                    let paced = tokio::select! {
                        biased;
                        paced = &mut call => paced,
                        without = self.without_until(&slot, rate, deadline) => {
                            // It goes on: what it brings is for others, and that it failed is to be noticed.
                            let part = self.part(rate);
                            self.runtime.spawn(async move {
                                if let Ok(paced) = call.await {
                                    let _ = turn.0.took(paced, asked_at, part, false);
                                }
                                drop(turn);
                            });
                            return without;
                        }
                    };
                    match paced {
                        Ok(paced) => match slot.took(paced, asked_at, self.part(rate), true) {
                            Some(decided) => return decided,
                            None if calls < CALLS => {}
                            None => return self.alone(&slot, rate),
                        },
                        Err(Denial::StoreUnavailable) => return self.alone(&slot, rate),
                        Err(denial) => return Err(denial),
                    }
                }
            }
        }
    }

    fn call(&self, policy: &Policy, want: u32) -> Asking {
        let (line, account, token) = (self.line.clone(), policy.account.clone(), policy.id.clone());
        Box::pin(async move { line.call("pace", |store| store.pace(&account, &token, want)).await })
    }

    /// Once the store is silent: lets a request by without it, if this node's part of the rate allows. `None`: it does
    /// not; one slow call is no reason to refuse, so the request waits on.
    async fn without(&self, slot: &Slot, rate: RateLimit) -> Option<u32> {
        self.line.falls_silent().await;
        self.alone(slot, rate).ok()
    }

    /// The same; at `deadline` it is decided without the store either way.
    async fn without_until(
        &self,
        slot: &Slot,
        rate: RateLimit,
        deadline: tokio::time::Instant,
    ) -> Result<u32, Denial> {
        if let Ok(Some(left)) = tokio::time::timeout_at(deadline, self.without(slot, rate)).await {
            return Ok(left);
        }
        tokio::time::sleep_until(deadline).await;
        self.alone(slot, rate)
    }

    pub(super) fn slot(&self, token: &TokenId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(token) {
            return slot.clone();
        }
        let now = Instant::now();
        let state = State {
            passes: 0,
            more: 0,
            owed: 0,
            good_until: now,
            closed_until: None,
            window: (now, 0, 0),
            own: Cell::default(),
            last: now,
            asking: false,
        };
        let slot = Arc::new(Slot { state: Mutex::new(state), asked: Notify::new() });
        slots.insert(token.clone(), slot.clone());
        slot
    }

    /// This node's part of a rate: all of them together stay under it.
    fn part(&self, rate: RateLimit) -> RateLimit {
        let nodes = self.nodes.load(Ordering::Relaxed).max(1);
        RateLimit {
            requests_per_second: (rate.requests_per_second / nodes).max(1),
            burst: (rate.burst / nodes).max(1),
        }
    }

    /// The store cannot be asked: each node lets its part of the rate by.
    fn alone(&self, slot: &Slot, rate: RateLimit) -> Result<u32, Denial> {
        let mut state = slot.state.lock();
        match admit(state.own, self.part(rate), jiff::Timestamp::now()) {
            Ok(throttled) => {
                state.own = throttled.cell;
                state.owed = state.owed.saturating_add(1);
                Ok(throttled.remaining)
            }
            Err(refused) => {
                state.own = refused.cell;
                Err(Denial::RateLimited { retry_after: refused.retry_after })
            }
        }
    }

    /// How many nodes live, this one included.
    pub(super) fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    pub(super) fn forget(&self, token: &TokenId) {
        self.slots.lock().remove(token);
    }

    pub(super) fn sweep(&self) {
        let (now, at) = (Instant::now(), jiff::Timestamp::now().as_microsecond());
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.state.lock().says_something(now, at));
        let few = slots.len() * 2;
        if slots.capacity() > few * 2 {
            slots.shrink_to(few);
        }
    }
}

impl Slot {
    /// Decides from what is in hand; `None`: the store has to be asked.
    fn take(&self, fresh: bool) -> Option<Result<u32, Denial>> {
        self.state.lock().take(fresh)
    }

    /// Decides from what is in hand, or says who asks the store.
    fn next(slot: &Arc<Self>, rate: RateLimit) -> Next {
        let mut state = slot.state.lock();
        if let Some(decided) = state.take(false) {
            return Next::Decided(decided);
        }
        if std::mem::replace(&mut state.asking, true) {
            return Next::Wait;
        }
        let in_a_tenth = u128::from(state.window.1.max(state.window.2));
        let worth =
            u32::try_from(in_a_tenth * hold(rate).as_millis() / TENTH.as_millis()).unwrap_or(u32::MAX);
        Next::Ask(Turn(slot.clone()), worth.max(1).saturating_add(state.owed))
    }

    /// Takes in what the store said. What is owed is paid first; whoever asked, `here`, uses a pass at once. `None`: there
    /// was none left.
    fn took(&self, paced: Paced, asked: Instant, part: RateLimit, here: bool) -> Option<Result<u32, Denial>> {
        let mut state = self.state.lock();
        match paced {
            Paced::Unlimited => Some(Ok(u32::MAX)),
            Paced::Passes { count, hold, remaining } => {
                let now = jiff::Timestamp::now();
                let (own, ahead) = count_in(state.own, part, count, now);
                // What was let by so long ago that a throttle would have forgotten it is owed no more.
                let owed = state.owed.min(ahead);
                state.own = own;
                state.owed = owed.saturating_sub(count);
                let left = count.saturating_sub(owed);
                // The first is good only at once: whoever asked uses it, or it pays.
                state.passes = if here { left.saturating_sub(1) } else { left.min(count.saturating_sub(1)) };
                state.more = remaining;
                state.good_until = asked + hold;
                state.closed_until = None;
                (here && left > 0).then_some(Ok(state.left()))
            }
            Paced::Wait { retry_after } => {
                // Counted from when the answer came: never too early.
                state.closed_until = Some(Instant::now() + retry_after);
                Some(Err(Denial::RateLimited { retry_after }))
            }
        }
    }
}

impl State {
    /// How many more requests would pass at once, as far as this node knows.
    fn left(&self) -> u32 {
        self.passes.saturating_add(self.more)
    }

    /// Whether a new throttle would not do as well.
    fn says_something(&self, now: Instant, at: i64) -> bool {
        let closed = self.closed_until.is_some_and(|until| now < until);
        now.duration_since(self.last) < FORGET || now < self.good_until || closed || self.own.0 > at
    }

    fn take(&mut self, fresh: bool) -> Option<Result<u32, Denial>> {
        let now = Instant::now();
        self.last = now;
        if fresh {
            if now.duration_since(self.window.0) >= TENTH {
                self.window = (now, 0, self.window.1);
            }
            self.window.1 += 1;
        }
        if self.passes > 0 && now < self.good_until {
            self.passes -= 1;
            return Some(Ok(self.left()));
        }
        self.passes = 0;
        let closed = self.closed_until.filter(|until| now < *until)?;
        Some(Err(Denial::RateLimited { retry_after: closed.duration_since(now) }))
    }
}

#[cfg(test)]
mod tests;
