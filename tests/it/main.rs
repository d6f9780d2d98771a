//! The one integration binary: a file for each behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a harness fails loudly; clippy exempts only the tests themselves"
)]

mod admin;
mod cli;
