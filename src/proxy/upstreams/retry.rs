//! Which requests are tried again, and how many.
//!
//! Two things are never done: a request that may not be done twice is not repeated once a byte of it may have reached a
//! server; and an outage is not multiplied, since repetitions come out of a budget that requests fill up.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;

use crate::config::Retries;

/// What a repetition costs, and what a request gives for each percent.
const ONE: u64 = 100;
/// Repetitions that are in hand at first, so that few requests may be repeated as well.
const AT_FIRST: u64 = 10;
/// Repetitions that are saved up at most.
const AT_MOST: u64 = 100;

/// The repetitions in hand, in hundredths.
pub(super) struct Budget {
    percent: u64,
    in_hand: AtomicU64,
}

impl Budget {
    pub(super) fn new(percent: u32) -> Self {
        let in_hand = if percent == 0 { 0 } else { AT_FIRST * ONE };
        Self { percent: percent.into(), in_hand: AtomicU64::new(in_hand) }
    }

    /// A request has come.
    pub(super) fn fill(&self) {
        self.change(|in_hand| Some((in_hand + self.percent).min(AT_MOST * ONE)));
    }

    /// Takes one repetition, if one is in hand.
    pub(super) fn take(&self) -> bool {
        self.change(|in_hand| in_hand.checked_sub(ONE))
    }

    fn change(&self, how: impl FnMut(u64) -> Option<u64>) -> bool {
        self.in_hand.fetch_update(Ordering::AcqRel, Ordering::Acquire, how).is_ok()
    }
}

/// Whether a request may be repeated although a server may have seen it.
pub(super) fn may_be_seen_twice(retries: &Retries, method: &Method) -> bool {
    method.is_idempotent() && retries.methods.contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(budget: &Budget, most: usize) -> usize {
        (0..most).take_while(|_| budget.take()).count()
    }

    #[test]
    fn repetitions_are_a_part_of_the_requests() {
        let budget = Budget::new(20);
        assert_eq!(tries(&budget, 1000), 10, "some are in hand at first");
        for _ in 0..50 {
            budget.fill();
        }
        assert_eq!(tries(&budget, 1000), 10, "a fifth of fifty");
        for _ in 0..100_000 {
            budget.fill();
        }
        assert_eq!(tries(&budget, 1000), 100, "calm does not save up for a storm");
        let none = Budget::new(0);
        none.fill();
        assert_eq!(tries(&none, 10), 0);
    }

    #[test]
    fn what_may_not_be_done_twice_is_never_repeated() {
        let all = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::POST, Method::PATCH];
        let retries = Retries {
            attempts: 3,
            connect: true,
            reset: true,
            statuses: vec![],
            methods: all.to_vec(),
            budget: 20,
        };
        let repeated: Vec<&Method> =
            all.iter().filter(|method| may_be_seen_twice(&retries, method)).collect();
        assert_eq!(repeated, [&Method::GET, &Method::HEAD, &Method::PUT, &Method::DELETE]);
    }
}
