//! Credits: counters, calendar periods, throttle cells, leases, a node's purse and journal, and which retries are paid for.
//!
//! Pure, but for the journal's file: no clock, no socket, no store. The embedded store runs [`lease`] as it stands; the
//! Redis store runs the same steps as scripts, and the conformance suite holds the two together.

mod counter;
pub mod idempotency;
pub mod journal;
pub mod lease;
pub mod pace;
#[cfg(test)]
mod protocol;
pub mod purse;
mod standing;
mod throttle;

pub use counter::{Counter, Slot, period_end, period_start};
pub use standing::Standing;
pub use throttle::{Cell, Throttled, admit, count_in};
