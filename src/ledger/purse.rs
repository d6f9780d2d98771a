//! A node's unspent credits of one token in one pool: the node's side of the lease protocol.
//!
//! Pure: time is an argument (microseconds of a clock that never steps back), and nothing is sent from here. A purse says
//! what should be done ([`Wish`]) and is told what came of it. Requests take from the lease in hand; when it runs low the
//! purse wishes for the next one, so that nobody waits; what lies idle it wishes to give back.
//!
//! A lease is closed (settled) once nothing is in flight on it any more. Until then what it holds beyond the spent and
//! the flying can be given back by a shrink.

use ulid::Ulid;

/// Microseconds of a clock that never steps back.
pub type Micros = u64;

/// A purse that was not used for so long gives everything back (`ledger.md`: "Idle purses are settled after 2 s").
pub const IDLE: Micros = 2_000_000;
/// A lease is renewed when this much of its life is left.
pub const RENEW_BEFORE: Micros = 10_000_000;
/// The next lease is asked for when less than this part of a second's spending is left.
const LOW_PART: u64 = 4;
/// The least that is asked for, in requests. The store gives no more than a fair share of what is free.
const HANDFUL: u64 = 8;
/// What was spent in less time than this is taken as spent in this time. It is also how much one lease may be larger
/// than the one before: about ten times, where that one was gone at once.
const SHORTEST: Micros = 100_000;
/// Nothing is asked for ahead so soon after the store had nothing, or after a recall: whoever is out of credits comes
/// first.
const HOLD_BACK: Micros = 250_000;

/// One lease in hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its name.
    pub lease: Ulid,
    /// Credits it holds.
    pub granted: u64,
    /// Credits used for good.
    pub spent: u64,
    /// Credits that requests in flight hold.
    pub flying: u64,
    /// How many requests are in flight on it; a request may hold no credit.
    pub requests: u64,
    /// When it may no longer be spent from.
    pub ends: Micros,
    /// When the store would close it as stranded; moved by renewing.
    pub expires: Micros,
    /// It is not to be spent from any more: recalled, idle, over, or used up.
    pub leaving: bool,
    /// What the store was last told to keep for it, if it was shrunk.
    pub kept: u64,
    /// Its settling is under way, or its renewing.
    pub busy: bool,
}

impl Held {
    fn left(&self) -> u64 {
        self.granted.saturating_sub(self.spent).saturating_sub(self.flying)
    }
}

/// What a request gets from a purse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// The credits, from this lease.
    Taken(Ulid),
    /// There is not enough in hand: a lease has to be had first.
    Short,
}

/// Something a purse wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    /// A lease of `want` credits, of no use with less than `need`.
    Reserve {
        /// As many as it would like.
        want: u64,
        /// As many as it needs.
        need: u64,
    },
    /// Tell the store that this much is kept of a lease, and the rest is free.
    Shrink {
        /// Which.
        lease: Ulid,
        /// Spent and flying.
        keep: u64,
    },
    /// Close a lease.
    Settle {
        /// Which.
        lease: Ulid,
        /// What was used for good.
        spent: u64,
    },
    /// Let a lease live on.
    Renew {
        /// Which.
        lease: Ulid,
    },
}

/// The purse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Purse {
    held: Vec<Held>,
    asking: bool,
    /// Credits per second, as of when a lease was last asked for.
    rate: u64,
    /// When that was.
    asked_at: Micros,
    /// Credits drawn since.
    drawn: u64,
    last_draw: Micros,
    last_cost: u64,
    /// Before then nothing is asked for ahead.
    ahead_from: Micros,
    recalled: bool,
}

impl Purse {
    /// Takes `cost` for one request.
    pub fn draw(&mut self, cost: u64, now: Micros) -> Draw {
        self.last_draw = now;
        self.last_cost = cost;
        let usable = |held: &Held| !held.leaving && now < held.ends;
        let fits = |held: &Held| usable(held) && held.left() >= cost;
        let Some(at) = self.held.iter().position(fits) else { return Draw::Short };
        for rest in self.held.iter_mut().take(at) {
            // Too little for what requests cost; it would lie about until its end.
            rest.leaving |= usable(rest);
        }
        let Some(held) = self.held.get_mut(at) else { return Draw::Short };
        held.flying += cost;
        held.requests += 1;
        self.drawn = self.drawn.saturating_add(cost);
        Draw::Taken(held.lease)
    }

    /// Takes at least one credit and at most `want`, for a response whose price grows while it flows: from which lease,
    /// how many, and until when they may be spent. The lease counts one more request, until [`Purse::give_back`].
    pub fn draw_part(&mut self, want: u64, now: Micros) -> Option<(Ulid, u64, Micros)> {
        self.last_draw = now;
        self.last_cost = 1;
        let usable = |held: &&mut Held| !held.leaving && now < held.ends && held.left() > 0;
        let held = self.held.iter_mut().find(usable)?;
        let part = held.left().min(want);
        held.flying += part;
        held.requests += 1;
        self.drawn = self.drawn.saturating_add(part);
        Some((held.lease, part, held.ends))
    }

    /// Some of what a request holds is used for good; the request goes on.
    pub fn spend_part(&mut self, lease: Ulid, credits: u64) {
        if let Some(held) = self.find(lease) {
            held.flying = held.flying.saturating_sub(credits);
            held.spent += credits;
        }
    }

    /// Some of what a request holds is not needed; the request goes on.
    pub fn release(&mut self, lease: Ulid, credits: u64) {
        if let Some(held) = self.find(lease) {
            held.flying = held.flying.saturating_sub(credits);
        }
    }

    /// A response without `max_credits` cost more than was to be had (law 1). The lease says so at its settling, which
    /// is to come soon: nothing more is drawn from it.
    pub fn overspend(&mut self, lease: Ulid, credits: u64) {
        if let Some(held) = self.find(lease) {
            held.spent += credits;
            held.leaving = true;
        }
    }

    /// Holds what is in hand for a debt, so that nobody draws it: which leases, and how much of each. These leases are not
    /// spent from any more; [`Purse::give_back`] lets go of them once the debt is settled.
    pub fn hold_for_debt(&mut self, debt: u64) -> Vec<(Ulid, u64)> {
        let mut left = debt;
        let mut taken = Vec::new();
        for held in self.held.iter_mut().filter(|held| !held.leaving && held.left() > 0) {
            if left == 0 {
                break;
            }
            let part = held.left().min(left);
            held.flying += part;
            held.requests += 1;
            held.leaving = true;
            left -= part;
            taken.push((held.lease, part));
        }
        taken
    }

    /// Whether a lease is being asked for.
    pub fn is_asking(&self) -> bool {
        self.asking
    }

    /// The lease to ask for now, if any: `short` is what a request that waits needs; without one, the purse asks ahead
    /// when what is in hand runs low. One lease is asked for at a time.
    pub fn wish_more(&mut self, short: Option<u64>, now: Micros) -> Option<Wish> {
        if std::mem::take(&mut self.recalled) {
            self.ahead_from = self.ahead_from.max(now.saturating_add(HOLD_BACK));
        }
        if self.asking {
            return None;
        }
        let need = match short {
            Some(need) => need,
            None if self.runs_low(now) => self.last_cost.max(1),
            None => return None,
        };
        self.rate = self.drawn.saturating_mul(1_000_000) / now.saturating_sub(self.asked_at).max(SHORTEST);
        self.asked_at = now;
        self.drawn = 0;
        self.asking = true;
        // About one second of what is being spent; of a slow token a handful of requests, or each would need its own call.
        let handful = self.last_cost.max(need).max(1).saturating_mul(HANDFUL);
        Some(Wish::Reserve { want: self.rate.max(handful), need })
    }

    fn runs_low(&self, now: Micros) -> bool {
        let usable = self.held.iter().filter(|held| !held.leaving && now < held.ends);
        let left: u64 = usable.map(Held::left).sum();
        left < self.rate.div_ceil(LOW_PART)
            && now >= self.ahead_from
            && now.saturating_sub(self.last_draw) < IDLE
    }

    /// A lease was granted: `ends` and `expires` are counted from when it was asked for.
    pub fn granted(&mut self, lease: Ulid, granted: u64, ends: Micros, expires: Micros) {
        self.asking = false;
        if self.held.iter().all(|held| held.lease != lease) {
            // Most purses hold one lease, and there may be many purses.
            self.held.reserve_exact(1);
            self.held.push(Held {
                lease,
                granted,
                spent: 0,
                flying: 0,
                requests: 0,
                ends,
                expires,
                leaving: false,
                kept: granted,
                busy: false,
            });
        }
    }

    /// No lease was granted.
    pub fn refused(&mut self) {
        self.asking = false;
        self.ahead_from = self.ahead_from.max(self.asked_at.saturating_add(HOLD_BACK));
    }

    fn find(&mut self, lease: Ulid) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.lease == lease)
    }

    /// A request's credits are used for good.
    pub fn spend(&mut self, lease: Ulid, cost: u64) {
        if let Some(held) = self.find(lease) {
            held.flying = held.flying.saturating_sub(cost);
            held.requests = held.requests.saturating_sub(1);
            held.spent += cost;
        }
    }

    /// A request's credits are given back.
    pub fn give_back(&mut self, lease: Ulid, cost: u64) {
        if let Some(held) = self.find(lease) {
            held.flying = held.flying.saturating_sub(cost);
            held.requests = held.requests.saturating_sub(1);
        }
    }

    /// Everything idle is to go back: another node is out of credits, the policy was changed, or the gate stops.
    pub fn recall(&mut self) {
        self.recalled = true;
        for held in &mut self.held {
            held.leaving = true;
        }
    }

    /// What is to be done about the leases in hand. Each wish is given out once; what came of it is told by
    /// [`Purse::settled`], [`Purse::shrunk`] or [`Purse::renewed`].
    ///
    /// `cut`: the store is out of reach. Then what lies idle stays in hand: it is all there is to serve requests from.
    pub fn wishes(&mut self, now: Micros, cut: bool) -> Vec<Wish> {
        let idle = !cut && now.saturating_sub(self.last_draw) >= IDLE;
        let usable =
            self.held.iter().filter(|held| !held.leaving && now < held.ends && held.left() > 0).count();
        let mut wishes = Vec::new();
        for held in &mut self.held {
            let used_up = held.left() == 0 && usable > 0;
            if idle || now >= held.ends || used_up {
                held.leaving = true;
            }
            if held.busy {
                continue;
            }
            let lease = held.lease;
            if held.leaving && held.requests == 0 {
                held.busy = true;
                wishes.push(Wish::Settle { lease, spent: held.spent });
            } else if held.leaving && held.kept > held.spent + held.flying {
                held.busy = true;
                held.granted = held.spent + held.flying;
                wishes.push(Wish::Shrink { lease, keep: held.granted });
            } else if now + RENEW_BEFORE >= held.expires {
                held.busy = true;
                wishes.push(Wish::Renew { lease });
            }
        }
        wishes
    }

    /// The store has closed a lease.
    pub fn settled(&mut self, lease: Ulid) {
        self.held.retain(|held| held.lease != lease);
    }

    /// The store keeps no more than this for a lease.
    pub fn shrunk(&mut self, lease: Ulid, keep: u64) {
        if let Some(held) = self.find(lease) {
            held.kept = keep;
            held.busy = false;
        }
    }

    /// The store lets a lease live until `expires`; `None`: it is not open any more and must not be spent from.
    pub fn renewed(&mut self, lease: Ulid, expires: Option<Micros>) {
        if let Some(held) = self.find(lease) {
            held.busy = false;
            held.leaving |= expires.is_none();
            held.expires = expires.unwrap_or(Micros::MAX);
        }
    }

    /// A call about a lease failed; it will be wished for again.
    pub fn failed(&mut self, lease: Ulid) {
        if let Some(held) = self.find(lease) {
            held.busy = false;
        }
    }

    /// Credits in hand that no request holds.
    pub fn left(&self) -> u64 {
        self.held.iter().filter(|held| !held.leaving).map(Held::left).sum()
    }

    /// Credits that the store counts as leased to this purse.
    pub fn open(&self) -> u64 {
        self.held.iter().map(|held| held.kept).sum()
    }

    /// Whether nothing is in hand and nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && !self.asking
    }

    /// The leases in hand.
    pub fn leases(&self) -> &[Held] {
        &self.held
    }

    /// When it was last drawn from.
    pub fn last_draw(&self) -> Micros {
        self.last_draw
    }
}

#[cfg(test)]
mod tests;
