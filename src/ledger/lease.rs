//! The lease protocol, the store's side of it: reserve, shrink, settle, renew, expire (`ledger.md`).
//!
//! Pure steps over the books of one token and its account. Each is idempotent, so a call whose answer was lost can be
//! sent again: `reserve` by the lease's id, the others because each only ever moves a lease one way. What is leased counts
//! against the limit at once: `used + leased <= limit`, for the token and for the account, in the same step.
//!
//! The node's side is [`super::purse`]; both are put together, with lost and doubled messages, crashes and clocks, in
//! the model check.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::counter::{Counter, period_end, seconds_until};
use crate::policy::{Credits, Limit, Period};

/// What the store keeps of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Credits it holds, spent ones included.
    pub granted: Credits,
    /// When it was granted: the periods it counts in.
    pub taken_at: Timestamp,
    /// When it is closed as spent in full unless it is renewed or settled before.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: LeaseState,
}

/// How a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// A node spends from it.
    Open,
    /// It expired and counts as spent in full; its node may still come back and say what was really spent.
    Stranded,
    /// It is settled. Kept for a while, so that a late reserve or settle with its id finds it so.
    Closed,
}

/// The counters of a token and of its account in one pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LeaseBooks {
    /// The token's.
    pub token: Counter,
    /// The account's.
    pub account: Counter,
    /// Credits of the token that count as spent only because a node has not come back.
    pub stranded: Credits,
    /// The same of all the account's tokens together.
    pub account_stranded: Credits,
}

impl LeaseBooks {
    /// The time to count by: never before the hour that is being counted already, so that a clock which stepped back
    /// (a failover) books each lease in the periods it is later taken out of again.
    fn steady(&self, now: Timestamp) -> Timestamp {
        let begun = self.token.hour.start.max(self.account.hour.start);
        Timestamp::from_second(begun).map_or(now, |begun| begun.max(now))
    }
}

/// What may be leased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The token's limit in the pool.
    pub limit: Option<Limit>,
    /// The account's budget in the pool.
    pub budget: Option<Limit>,
    /// How long a lease lives without being renewed.
    pub life: Duration,
}

/// What a node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// As much as it would like.
    pub want: Credits,
    /// As much as it needs: less is of no use. At most `want`.
    pub need: Credits,
}

/// A lease as the node hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Credits it holds.
    pub granted: Credits,
    /// What the token has used for good, in its limit's period; without a limit, in this month.
    pub used: Credits,
    /// What nodes hold of the token in that period, this lease included.
    pub leased: Credits,
    /// The token's limit.
    pub limit: Option<Limit>,
    /// What is left to lease under limit and budget, the smaller of both; `None`: no end.
    pub free: Option<Credits>,
    /// After how long the token's limit starts anew; `None`: never, or no limit.
    pub resets_in: Option<Duration>,
    /// For how long it may be spent from, counted from when it was asked for: to the end of the store's current hour, so
    /// that no credit of one period is spent in the next. It may outlive the lease's life: a lease that expires counts
    /// as spent in full, so a node that is cut off spends what is counted already (law 6).
    pub valid_for: Duration,
    /// The store's clock.
    pub at: Timestamp,
}

/// How a reserve went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// Credits are leased.
    Granted(Grant),
    /// The token's limit does not cover the need; nothing was leased.
    CreditsExhausted {
        /// After how long the limit starts anew; `None`: never.
        retry_after: Option<Duration>,
        /// Nodes hold credits that could be recalled and would cover the need.
        recallable: bool,
    },
    /// The account's budget does not cover the need; nothing was leased.
    BudgetExhausted {
        /// After how long the budget starts anew; `None`: never.
        retry_after: Option<Duration>,
        /// Nodes hold credits that could be recalled and would cover the need.
        recallable: bool,
    },
    /// The lease of this id is settled already: the reserve came late and grants nothing.
    Void,
}

/// Without a limit a lease may be this large at most.
pub const LARGEST_LEASE: u64 = 1_000_000;

/// Never more than this part of what is free goes into one lease (a fair share), so that the last credits are not
/// stranded with one node; the lease shrinks toward the need near the end.
pub const SHARE: u64 = 4;

/// Leases credits: `min(want, fair share of what is free)`, at least the need, or nothing. Asked again with the id of a
/// lease that exists, it answers with that lease.
pub fn reserve(
    books: &mut LeaseBooks,
    lease: &mut Option<Lease>,
    terms: &LeaseTerms,
    ask: Ask,
    now: Timestamp,
) -> Reserved {
    let now = books.steady(now);
    match lease {
        Some(known) if known.state == LeaseState::Open => {
            return Reserved::Granted(grant_of(books, known, terms, now));
        }
        Some(_) => return Reserved::Void,
        None => {}
    }
    let free_under = |limit: Option<Limit>, counter: &Counter| {
        limit.map(|limit| limit.credits.0.saturating_sub(counter.committed(limit.period, now).0))
    };
    let by_limit = free_under(terms.limit, &books.token);
    let by_budget = free_under(terms.budget, &books.account);
    let need = ask.need.0;
    // A request that costs nothing passes limits that are used up.
    if need > 0 {
        let short = |free: Option<u64>| free.is_some_and(|free| free < need);
        let recallable = |limit: Option<Limit>, counter: &Counter| {
            limit.is_some_and(|limit| {
                limit.credits.0.saturating_sub(counter.used(limit.period, now).0) >= need
            })
        };
        let retry_after = |limit: Option<Limit>| limit.and_then(|limit| resets_in(limit, now));
        if short(by_limit) {
            return Reserved::CreditsExhausted {
                retry_after: retry_after(terms.limit),
                recallable: recallable(terms.limit, &books.token)
                    && (!short(by_budget) || recallable(terms.budget, &books.account)),
            };
        }
        if short(by_budget) {
            return Reserved::BudgetExhausted {
                retry_after: retry_after(terms.budget),
                recallable: recallable(terms.budget, &books.account),
            };
        }
    }
    let free = by_limit.into_iter().chain(by_budget).min();
    let share = free.map_or(LARGEST_LEASE, |free| free.div_ceil(SHARE));
    let granted = Credits(ask.want.0.min(share).min(LARGEST_LEASE).max(need));
    books.token.lease(granted, now);
    books.account.lease(granted, now);
    let made = Lease { granted, taken_at: now, expires_at: after(now, terms.life), state: LeaseState::Open };
    *lease = Some(made);
    Reserved::Granted(grant_of(books, &made, terms, now))
}

fn grant_of(books: &LeaseBooks, lease: &Lease, terms: &LeaseTerms, now: Timestamp) -> Grant {
    let period = terms.limit.map_or(Period::Month, |limit| limit.period);
    let free = |limit: Limit, counter: &Counter| {
        limit.credits.0.saturating_sub(counter.committed(limit.period, now).0)
    };
    let by_limit = terms.limit.map(|limit| free(limit, &books.token));
    let by_budget = terms.budget.map(|limit| free(limit, &books.account));
    let end = period_end(Period::Hour, lease.taken_at).unwrap_or(lease.taken_at);
    let valid_for = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    Grant {
        granted: lease.granted,
        used: books.token.used(period, now),
        leased: books.token.leased(period, now),
        limit: terms.limit,
        free: by_limit.into_iter().chain(by_budget).min().map(Credits),
        resets_in: terms.limit.and_then(|limit| resets_in(limit, now)),
        valid_for,
        at: now,
    }
}

/// Gives back what a lease holds beyond `keep`, which covers what was spent and what requests in flight may still spend.
/// Said twice, or said late after a smaller `keep`, it changes nothing more.
pub fn shrink(books: &mut LeaseBooks, lease: &mut Option<Lease>, keep: Credits) {
    let Some(known) = lease.as_mut().filter(|lease| lease.state == LeaseState::Open) else { return };
    let back = known.granted.0.saturating_sub(keep.0);
    books.token.unlease(Credits(back), Credits(0), known.taken_at);
    books.account.unlease(Credits(back), Credits(0), known.taken_at);
    known.granted = Credits(known.granted.0 - back);
}

/// Closes a lease: `spent` is used for good, the rest is given back. A stranded lease gets its true figure. Whether
/// it counted: `false` if the lease was closed before, or is not known; an unknown one is kept as closed, so
/// that a reserve that is still under way grants nothing.
pub fn settle(books: &mut LeaseBooks, lease: &mut Option<Lease>, spent: Credits, now: Timestamp) -> bool {
    let Some(known) = lease.as_mut() else {
        *lease =
            Some(Lease { granted: Credits(0), taken_at: now, expires_at: now, state: LeaseState::Closed });
        return false;
    };
    match known.state {
        LeaseState::Closed => return false,
        LeaseState::Open => {
            books.token.unlease(known.granted, spent, known.taken_at);
            books.account.unlease(known.granted, spent, known.taken_at);
        }
        LeaseState::Stranded => {
            books.token.correct(known.granted, spent, known.taken_at);
            books.account.correct(known.granted, spent, known.taken_at);
            for stranded in [&mut books.stranded, &mut books.account_stranded] {
                *stranded = Credits(stranded.0.saturating_sub(known.granted.0));
            }
        }
    }
    known.state = LeaseState::Closed;
    true
}

/// Lets an open lease live on. `false`: it is not open any more, and its node must not spend from it.
pub fn renew(lease: &mut Option<Lease>, life: Duration, now: Timestamp) -> bool {
    let Some(known) = lease.as_mut().filter(|lease| lease.state == LeaseState::Open) else { return false };
    known.expires_at = known.expires_at.max(after(now, life));
    true
}

/// Closes an open lease whose time is over as spent in full (law 1 before comfort). Whether it did.
pub fn expire(books: &mut LeaseBooks, lease: &mut Option<Lease>, now: Timestamp) -> bool {
    let over = |lease: &&mut Lease| lease.state == LeaseState::Open && lease.expires_at <= now;
    let Some(known) = lease.as_mut().filter(over) else { return false };
    books.token.unlease(known.granted, known.granted, known.taken_at);
    books.account.unlease(known.granted, known.granted, known.taken_at);
    for stranded in [&mut books.stranded, &mut books.account_stranded] {
        *stranded = Credits(stranded.0.saturating_add(known.granted.0));
    }
    known.state = LeaseState::Stranded;
    true
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

fn resets_in(limit: Limit, now: Timestamp) -> Option<Duration> {
    period_end(limit.period, now).map(|end| Duration::from_secs(seconds_until(end, now)))
}
