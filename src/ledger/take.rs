//! The one step that takes a request's credits: throttle, token limit and account budget, all or nothing.

use std::time::Duration;

use jiff::Timestamp;

use super::counter::{Counter, period_end, seconds_until};
use super::standing::Standing;
use super::throttle::{Cell, admit};
use crate::policy::{Credits, Limit, RateLimit};

/// The counters a request draws on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    /// The token's, in the request's pool.
    pub token: Counter,
    /// The account's, in the request's pool.
    pub account: Counter,
    /// The token's throttle.
    pub cell: Cell,
}

/// What may be drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// The token's limit in the pool.
    pub limit: Option<Limit>,
    /// The account's budget in the pool.
    pub budget: Option<Limit>,
    /// The token's rate.
    pub rate: Option<RateLimit>,
}

/// How the taking of a request's credits went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// They are taken.
    Granted(Standing),
    /// Too many requests; nothing was taken.
    RateLimited {
        /// After how long one more passes.
        retry_after: Duration,
    },
    /// The token's limit does not cover the cost; nothing was taken.
    CreditsExhausted {
        /// After how long the limit starts anew; `None`: never.
        retry_after: Option<Duration>,
    },
    /// The account's budget does not cover the cost; nothing was taken.
    BudgetExhausted {
        /// After how long the budget starts anew; `None`: never.
        retry_after: Option<Duration>,
    },
}

/// Takes `cost` from the books, or says why not and leaves them as they are. The counters never pass a limit
/// (law 1); a request that costs nothing passes limits that are used up.
pub fn take(books: &mut Books, terms: &Terms, cost: Credits, now: Timestamp) -> Taken {
    let throttled = match terms.rate.map(|rate| admit(books.cell, rate, now)) {
        Some(Err(retry_after)) => return Taken::RateLimited { retry_after },
        Some(Ok(throttled)) => Some(throttled),
        None => None,
    };
    if !covers(terms.limit, &books.token, cost, now) {
        return Taken::CreditsExhausted { retry_after: terms.limit.and_then(|limit| resets_in(limit, now)) };
    }
    if !covers(terms.budget, &books.account, cost, now) {
        return Taken::BudgetExhausted { retry_after: terms.budget.and_then(|limit| resets_in(limit, now)) };
    }
    books.token.add(cost, now);
    books.account.add(cost, now);
    if let Some(throttled) = throttled {
        books.cell = throttled.cell;
    }
    let left =
        |limit: Limit, counter: &Counter| limit.credits.0.saturating_sub(counter.used(limit.period, now).0);
    let under_limit = terms.limit.map(|limit| left(limit, &books.token));
    let under_budget = terms.budget.map(|limit| left(limit, &books.account));
    Taken::Granted(Standing {
        used: books.token.used(terms.limit.map_or(crate::policy::Period::Month, |limit| limit.period), now),
        limit: terms.limit,
        remaining: under_limit.into_iter().chain(under_budget).min().map(Credits),
        resets_in: terms.limit.and_then(|limit| resets_in(limit, now)),
        burst_left: throttled.map(|throttled| throttled.remaining),
        at: now,
    })
}

fn covers(limit: Option<Limit>, counter: &Counter, cost: Credits, now: Timestamp) -> bool {
    let Some(limit) = limit else { return true };
    cost.0 == 0 || counter.used(limit.period, now).0.saturating_add(cost.0) <= limit.credits.0
}

fn resets_in(limit: Limit, now: Timestamp) -> Option<Duration> {
    period_end(limit.period, now).map(|end| Duration::from_secs(seconds_until(end, now)))
}

#[cfg(test)]
mod tests;
