//! The throttle, taken ahead in small batches: exact for the fleet all the same.
//!
//! A node takes passes for the near future in one call. Passes that are used later than they were taken would let a
//! window hold more than `burst + rate × t`, so all but the first are cut from a burst that is smaller by what the rate
//! gives in the time they may be held; the first is used at once and needs no such margin.

use std::time::Duration;

use jiff::Timestamp;

use super::throttle::{Cell, admit_within};
use crate::policy::RateLimit;

/// The longest that a pass taken ahead may be held: 100 ms of the rate at most are taken at once (`ledger.md`).
pub const LONGEST_HOLD: Duration = Duration::from_millis(100);

/// Passes of a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    /// The cell to keep.
    pub cell: Cell,
    /// How many; at least one.
    pub count: u32,
    /// For how long those after the first are good.
    pub hold: Duration,
}

/// Takes up to `want` passes, at least one; or says after how long one can be had.
pub fn take_passes(cell: Cell, rate: RateLimit, want: u32, now: Timestamp) -> Result<Passes, Duration> {
    let first = admit_within(cell, rate, Duration::ZERO, now)?;
    let most = want.min(rate.requests_per_second / 10).max(1);
    let mut passes = Passes { cell: first, count: 1, hold: LONGEST_HOLD };
    while passes.count < most {
        let Ok(next) = admit_within(passes.cell, rate, LONGEST_HOLD, now) else { break };
        passes.cell = next;
        passes.count += 1;
    }
    Ok(passes)
}
