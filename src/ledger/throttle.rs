//! The throttle: GCRA cells, one for each token with a rate limit.
//!
//! A cell is one number, the "theoretical arrival time": when the next request would come if all came evenly.
//! It admits never more than `burst + rate × t` requests in any window of length t (`ledger.md`).

use std::time::Duration;

use jiff::Timestamp;

use crate::policy::RateLimit;

/// The state of one throttle, in microseconds since the epoch. Zero: no request yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell(pub i64);

/// Where a throttle stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// The cell to keep.
    pub cell: Cell,
    /// How many more requests would pass at once.
    pub remaining: u32,
}

/// There is no pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPass {
    /// The cell to keep: one that was further ahead than a burst is brought back, so that the wait comes to its end.
    pub cell: Cell,
    /// After how long there is one.
    pub retry_after: Duration,
}

impl NoPass {
    pub(super) fn of(cell: Cell, rate: RateLimit, now: Timestamp, retry_after: Duration) -> Self {
        Self { cell: bring_back(cell, rate, now), retry_after }
    }
}

/// Microseconds between two requests at an even pace. Rounded up, so that rounding never admits more.
fn spacing(rate: RateLimit) -> i64 {
    let rate = i64::from(rate.requests_per_second.max(1));
    (1_000_000 + rate - 1) / rate
}

/// How far ahead of the clock a cell can get: a full burst.
fn window(rate: RateLimit) -> i64 {
    spacing(rate) * i64::from(rate.burst.max(1))
}

/// A cell that is further ahead than a burst, brought back to one: it comes from a larger limit that was edited, or from a
/// clock that stepped back. Kept as it is, it would lock the token out until the clock has come to it.
fn bring_back(cell: Cell, rate: RateLimit, now: Timestamp) -> Cell {
    Cell(cell.0.min(now.as_microsecond() + window(rate)))
}

/// Lets one request by, or says after how long one would pass.
pub fn admit(cell: Cell, rate: RateLimit, now: Timestamp) -> Result<Throttled, NoPass> {
    let next = admit_ahead(cell, rate, Duration::ZERO, now)
        .map_err(|retry_after| NoPass::of(cell, rate, now, retry_after))?;
    Ok(Throttled { cell: next, remaining: remaining(next, rate, now) })
}

/// How many more requests a cell would let by at once.
pub(super) fn remaining(cell: Cell, rate: RateLimit, now: Timestamp) -> u32 {
    let now = now.as_microsecond();
    let ahead = (cell.0 - now).clamp(0, window(rate));
    u32::try_from((window(rate) - ahead) / spacing(rate)).unwrap_or(0)
}

/// As [`admit`], for a request that may come as late as `hold` from now: it counts as if it came then.
pub(super) fn admit_ahead(
    cell: Cell,
    rate: RateLimit,
    hold: Duration,
    now: Timestamp,
) -> Result<Cell, Duration> {
    let now = now.as_microsecond();
    let spacing = spacing(rate);
    let window = window(rate);
    let hold = i64::try_from(hold.as_micros()).unwrap_or(window);
    let arrival = cell.0.clamp(now, now + window);
    let next = arrival.max(now + hold) + spacing;
    if next - now > window {
        return Err(Duration::from_micros(u64::try_from(next - now - window).unwrap_or(0)));
    }
    Ok(Cell(next))
}

/// Counts requests in that were let by elsewhere, so that the cell knows of them: at most until it is a burst ahead. Also
/// how many requests it was ahead before: what is further back than that weighs no more.
pub fn count_in(cell: Cell, rate: RateLimit, requests: u32, now: Timestamp) -> (Cell, u32) {
    let at = now.as_microsecond();
    let arrival = cell.0.clamp(at, at + window(rate));
    let ahead = (arrival - at + spacing(rate) - 1) / spacing(rate);
    let next = arrival.saturating_add(spacing(rate).saturating_mul(i64::from(requests)));
    (bring_back(Cell(next), rate, now), u32::try_from(ahead).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(1_700_000_000_000_000 + micros).unwrap()
    }

    #[test]
    fn a_full_burst_passes_and_then_the_pace_decides() {
        let rate = RateLimit { requests_per_second: 10, burst: 3 };
        let mut cell = Cell::default();
        for left in [2, 1, 0] {
            let passed = admit(cell, rate, at(0)).unwrap();
            assert_eq!(passed.remaining, left);
            cell = passed.cell;
        }
        assert_eq!(admit(cell, rate, at(0)).unwrap_err().retry_after, Duration::from_millis(100));
        assert_eq!(admit(cell, rate, at(99_999)).unwrap_err().retry_after, Duration::from_micros(1));
        assert!(admit(cell, rate, at(100_000)).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out_for_long() {
        let rate = RateLimit { requests_per_second: 10, burst: 3 };
        let ahead = Cell(at(3_600_000_000).as_microsecond());
        let refused = admit(ahead, rate, at(0)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        assert!(admit(refused.cell, rate, at(99_999)).is_err());
        assert!(admit(refused.cell, rate, at(100_000)).is_ok());
    }

    proptest! {
        #[test]
        fn never_admits_more_than_burst_and_rate(
            rate in 1u32..200, burst in 1u32..50, gaps in prop::collection::vec(0i64..30_000, 1..300)
        ) {
            let limit = RateLimit { requests_per_second: rate, burst };
            let mut cell = Cell::default();
            let mut now = 0;
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap;
                if let Ok(next) = admit(cell, limit, at(now)) {
                    cell = next.cell;
                    passed.push(now);
                }
            }
            for (i, start) in passed.iter().enumerate() {
                for (j, end) in passed.iter().enumerate().skip(i) {
                    let allowed = i128::from(burst) * 1_000_000 + i128::from(rate) * i128::from(end - start);
                    prop_assert!(i128::try_from(j - i + 1).unwrap() * 1_000_000 <= allowed);
                }
            }
        }
    }
}
