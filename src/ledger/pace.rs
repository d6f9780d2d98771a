//! The throttle, taken ahead in small batches: exact for the fleet all the same.
//!
//! A node takes passes for the near future in one call. The first is used at once; the others may be used until the hold
//! is over, so the cell counts them as if each came at its end. Then every pass that is used in a window leaves the cell
//! at least one spacing further than the window's start, and the last of them is admitted only while the cell is no more
//! than a burst ahead of the window's end: never more than `burst + rate × t` in any window of length t.

use std::time::Duration;

use jiff::Timestamp;

use super::throttle::{Cell, NoPass, admit_ahead, remaining};
use crate::policy::RateLimit;

/// How long a pass taken ahead may be held, at least and at most.
const HOLDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(200));

/// How long a pass taken ahead may be held: a fifth of the time in which the burst fills up, within [100 ms, 200 ms]. A batch is cut
/// from a burst that is smaller by what the rate gives in that time, so where bursts are short, holds are. The longer the
/// hold, the fewer calls; a batch is never more than 100 ms of the rate (`ledger.md`).
pub fn hold(rate: RateLimit) -> Duration {
    let fifth = u64::from(rate.burst) * 200_000 / u64::from(rate.requests_per_second.max(1));
    Duration::from_micros(fifth).clamp(HOLDS.0, HOLDS.1)
}

/// Passes of a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    /// The cell to keep.
    pub cell: Cell,
    /// How many; at least one.
    pub count: u32,
    /// For how long those after the first are good.
    pub hold: Duration,
    /// How many more could be had at once.
    pub remaining: u32,
}

/// Takes up to `want` passes, at least one; or says after how long one can be had.
pub fn take_passes(cell: Cell, rate: RateLimit, want: u32, now: Timestamp) -> Result<Passes, NoPass> {
    let first = admit_ahead(cell, rate, Duration::ZERO, now)
        .map_err(|retry_after| NoPass::of(cell, rate, now, retry_after))?;
    let most = want.min(rate.requests_per_second / 10).max(1);
    let mut passes = Passes { cell: first, count: 1, hold: hold(rate), remaining: 0 };
    while passes.count < most {
        let Ok(next) = admit_ahead(passes.cell, rate, passes.hold, now) else { break };
        passes.cell = next;
        passes.count += 1;
    }
    passes.remaining = remaining(passes.cell, rate, now);
    Ok(passes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: i64 = 1_700_000_000_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(BASE + micros).unwrap()
    }

    /// Never more than `burst + rate × t` of these uses in any window of length t.
    fn check_windows(rate: RateLimit, uses: &mut [i64]) -> Result<(), TestCaseError> {
        uses.sort_unstable();
        for (i, start) in uses.iter().enumerate() {
            for (j, end) in uses.iter().enumerate().skip(i) {
                let allowed = i128::from(rate.burst) * 1_000_000
                    + i128::from(rate.requests_per_second) * i128::from(end - start);
                let passed = i128::try_from(j - i + 1).unwrap();
                prop_assert!(passed * 1_000_000 <= allowed, "{passed} in {} µs", end - start);
            }
        }
        Ok(())
    }

    #[test]
    fn a_batch_is_at_most_a_tenth_of_a_second_of_the_rate() {
        let rate = RateLimit { requests_per_second: 1_000, burst: 1_000 };
        assert_eq!(take_passes(Cell::default(), rate, 1_000_000, at(0)).unwrap().count, 100);
        assert_eq!(take_passes(Cell::default(), rate, 7, at(0)).unwrap().count, 7);
        assert_eq!(take_passes(Cell::default(), rate, 0, at(0)).unwrap().count, 1);
        let slow = RateLimit { requests_per_second: 9, burst: 1_000 };
        assert_eq!(take_passes(Cell::default(), slow, 100, at(0)).unwrap().count, 1);
    }

    #[test]
    fn a_hold_is_short_where_the_burst_is() {
        let table = [(100, 1, 100), (100, 49, 100), (100, 75, 150), (100, 100, 200), (1, 1_000_000, 200)];
        for (requests_per_second, burst, millis) in table {
            let rate = RateLimit { requests_per_second, burst };
            assert_eq!(hold(rate), Duration::from_millis(millis), "{burst} of {requests_per_second}");
        }
    }

    #[test]
    fn a_batch_tells_what_is_left_of_the_burst() {
        let rate = RateLimit { requests_per_second: 10, burst: 10 };
        let mut cell = Cell::default();
        for left in (0..10).rev() {
            let passes = take_passes(cell, rate, 1, at(0)).unwrap();
            assert_eq!(passes.remaining, left);
            cell = passes.cell;
        }
        assert_eq!(take_passes(cell, rate, 1, at(300_000)).unwrap().remaining, 2);
        // A batch counts as if it came when its hold ends: what is told is less than what is free, never more.
        let rate = RateLimit { requests_per_second: 1_000, burst: 1_000 };
        let batch = take_passes(Cell::default(), rate, 100, at(0)).unwrap();
        assert_eq!((batch.count, batch.remaining), (100, 701));
    }

    #[test]
    fn a_batch_held_back_and_a_burst_right_after_are_within_the_burst() {
        let rate = RateLimit { requests_per_second: 100, burst: 20 };
        let batch = take_passes(Cell::default(), rate, 10, at(0)).unwrap();
        let mut uses = vec![0];
        uses.resize(usize::try_from(batch.count).unwrap(), 100_000);
        let mut cell = batch.cell;
        while let Ok(passes) = take_passes(cell, rate, 1, at(100_000)) {
            cell = passes.cell;
            uses.push(100_000);
        }
        check_windows(rate, &mut uses).unwrap();
    }

    #[test]
    fn a_clock_that_steps_back_and_an_edited_limit_lock_nobody_out() {
        let rate = RateLimit { requests_per_second: 10, burst: 3 };
        for ahead in [3_600_000_000, 300_001] {
            let refused = take_passes(Cell(BASE + ahead), rate, 1, at(0)).unwrap_err();
            assert_eq!(
                refused,
                NoPass { cell: Cell(BASE + 300_000), retry_after: Duration::from_millis(100) }
            );
            assert!(take_passes(refused.cell, rate, 1, at(99_999)).is_err());
            assert!(take_passes(refused.cell, rate, 1, at(100_000)).is_ok());
        }
        // One that is not ahead stays.
        let refused = take_passes(Cell(BASE + 299_999), rate, 1, at(0)).unwrap_err();
        assert_eq!(refused.cell, Cell(BASE + 299_999));
    }

    #[test]
    fn a_whole_second_of_the_rate_gets_through_in_batches() {
        let rate = RateLimit { requests_per_second: 1_000, burst: 1_000 };
        let mut cell = Cell::default();
        let mut passed = 0;
        for now in (0..10_000_000).step_by(10_000) {
            if let Ok(passes) = take_passes(cell, rate, 100, at(now)) {
                cell = passes.cell;
                passed += passes.count;
            }
        }
        assert!(passed >= 10_000, "{passed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_fleet_never_passes_more_than_burst_and_rate(
            per_second in 1u32..400, burst in 1u32..80,
            // After how long a node asks, for how many, and how late each of those is used, in parts of the hold.
            calls in prop::collection::vec(
                (
                    prop_oneof![6 => Just(0), 2 => Just(100_000), 1 => 0i64..120_000],
                    prop_oneof![2 => Just(1), 1 => 1u32..50],
                    prop::collection::vec(prop_oneof![4 => Just(100), 1 => 0i64..=100], 50),
                ),
                1..120,
            )
        ) {
            let rate = RateLimit { requests_per_second: per_second, burst };
            let longest = hold(rate);
            let hold = i64::try_from(longest.as_micros()).unwrap();
            let (mut cell, mut now, mut uses) = (Cell::default(), 0, Vec::new());
            for (gap, want, late) in calls {
                now += gap;
                let Ok(passes) = take_passes(cell, rate, want, at(now)) else { continue };
                prop_assert!(passes.count >= 1 && passes.count <= want && passes.hold == longest);
                cell = passes.cell;
                uses.push(now);
                uses.extend(late.iter().take(passes.count as usize - 1).map(|late| now + hold * late / 100));
            }
            check_windows(rate, &mut uses)?;
        }
    }
}
