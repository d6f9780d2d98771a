//! The integration tests: one binary, a file for each behaviour, what they share in `harness`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::assigning_clones,
    unreachable_pub,
    reason = "what helps a test panics where something is not as it must be, and is reached by nobody else"
)]

mod harness;
mod store_conformance;
