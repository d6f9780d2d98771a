//! Credits: counters, calendar periods, throttle cells, and the step that takes a request's credits.
//!
//! Pure: no clock, no socket, no file, no store. The embedded store runs [`take()`] as it stands; the Redis store runs
//! the same step as a script, and the conformance suite holds the two together. Leases (`ledger.md`) will come in
//! behind the same two calls: take credits for a request, settle what it really cost.

mod counter;
pub mod journal;
pub mod lease;
pub mod pace;
#[cfg(test)]
mod protocol;
pub mod purse;
mod standing;
mod take;
mod throttle;

pub use counter::{Counter, Slot, period_end, period_start};
pub use standing::Standing;
pub use take::{Books, Taken, Terms, take};
pub use throttle::{Cell, Throttled, admit};
