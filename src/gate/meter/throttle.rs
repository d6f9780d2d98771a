//! The throttle of this node: passes taken ahead from the store, exact for the fleet ([`crate::ledger::pace`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::gate::line::Line;
use crate::ledger::{Cell, admit};
use crate::policy::{Denial, Policy, RateLimit, TokenId};
use crate::store::Paced;

/// A throttle that was not used for so long is forgotten.
const FORGET: Duration = Duration::from_secs(10);

struct State {
    passes: u32,
    good_until: Instant,
    closed_until: Option<Instant>,
    /// Requests in the present tenth of a second, and in the one before: what is worth taking ahead.
    window: (Instant, u32, u32),
    /// For when the store cannot be asked: a throttle of this node's own, with its part of the rate.
    own: Cell,
    last: Instant,
}

struct Slot {
    state: Mutex<State>,
    asking: tokio::sync::Mutex<()>,
}

/// All throttles in use.
pub(super) struct Throttle {
    line: Arc<Line>,
    patience: Duration,
    slots: Mutex<HashMap<TokenId, Arc<Slot>>>,
    nodes: AtomicU32,
}

impl Throttle {
    pub(super) fn new(line: Arc<Line>, patience: Duration) -> Self {
        Self { line, patience, slots: Mutex::default(), nodes: AtomicU32::new(1) }
    }

    /// Lets one request by; how many more passes are in hand.
    pub(super) async fn pass(&self, policy: &Policy, rate: RateLimit) -> Result<u32, Denial> {
        let slot = self.slot(&policy.id);
        if let Some(decided) = slot.take(true) {
            return decided;
        }
        // One call at a time; whoever waited for it looks again first.
        let Ok(_asking) = tokio::time::timeout(self.patience, slot.asking.lock()).await else {
            return Err(Denial::StoreUnavailable);
        };
        if let Some(decided) = slot.take(false) {
            return decided;
        }
        let want = slot.worth();
        let call = self.line.call("pace", |store| store.pace(&policy.account, &policy.id, want));
        let asked = Instant::now();
        match tokio::time::timeout(self.patience, call).await {
            Ok(Ok(paced)) => slot.took(paced, asked),
            Ok(Err(Denial::StoreUnavailable)) | Err(_) => self.alone(&slot, rate),
            Ok(Err(denial)) => Err(denial),
        }
    }

    fn slot(&self, token: &TokenId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(token) {
            return slot.clone();
        }
        let now = Instant::now();
        let state = State {
            passes: 0,
            good_until: now,
            closed_until: None,
            window: (now, 0, 0),
            own: Cell::default(),
            last: now,
        };
        let slot = Arc::new(Slot { state: Mutex::new(state), asking: tokio::sync::Mutex::default() });
        slots.insert(token.clone(), slot.clone());
        slot
    }

    /// The store cannot be asked: each node lets its part of the rate by, so that together they stay under it.
    fn alone(&self, slot: &Slot, rate: RateLimit) -> Result<u32, Denial> {
        let nodes = self.nodes.load(Ordering::Relaxed).max(1);
        let part = RateLimit {
            requests_per_second: (rate.requests_per_second / nodes).max(1),
            burst: (rate.burst / nodes).max(1),
        };
        let mut state = slot.state.lock();
        match admit(state.own, part, jiff::Timestamp::now()) {
            Ok(throttled) => {
                state.own = throttled.cell;
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
        let now = Instant::now();
        let used = |slot: &Arc<Slot>| now.duration_since(slot.state.lock().last) < FORGET;
        self.slots.lock().retain(|_, slot| Arc::strong_count(slot) > 1 || used(slot));
    }
}

impl Slot {
    /// Decides from what is in hand; `None`: the store has to be asked.
    fn take(&self, fresh: bool) -> Option<Result<u32, Denial>> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.last = now;
        if fresh {
            if now.duration_since(state.window.0) >= Duration::from_millis(100) {
                state.window = (now, 0, state.window.1);
            }
            state.window.1 += 1;
        }
        if state.passes > 0 && now < state.good_until {
            state.passes -= 1;
            return Some(Ok(state.passes));
        }
        state.passes = 0;
        let closed = state.closed_until.filter(|until| now < *until)?;
        Some(Err(Denial::RateLimited { retry_after: closed.duration_since(now) }))
    }

    fn worth(&self) -> u32 {
        let state = self.state.lock();
        state.window.1.max(state.window.2).max(1)
    }

    fn took(&self, paced: Paced, asked: Instant) -> Result<u32, Denial> {
        let mut state = self.state.lock();
        match paced {
            Paced::Unlimited => Ok(u32::MAX),
            Paced::Passes { count, hold } => {
                state.passes = count.saturating_sub(1);
                state.good_until = asked + hold;
                state.closed_until = None;
                Ok(state.passes)
            }
            Paced::Wait { retry_after } => {
                // Counted from when the answer came: never too early.
                state.closed_until = Some(Instant::now() + retry_after);
                Err(Denial::RateLimited { retry_after })
            }
        }
    }
}
