//! What a token may do, and the order in which it is asked: the spec's "Order of checks".
//!
//! Pure: no clock, no socket, no file, no store. Time and facts are arguments, so every rule here can be
//! tested as a table. The gate gathers [`Facts`], the store gives the [`Policy`], [`judge`] says the verdict.
//! Go on to [`record`] for a token's fields, [`route`] for which data a path serves, [`denial`] for every refusal,
//! [`cost`] for prices, [`tally`] for what a body holds and how a stream ends.

pub(crate) mod byte_set;
pub mod cost;
pub mod credential;
pub mod dataset;
pub mod denial;
pub mod domain;
pub mod framing;
pub mod query;
pub mod record;
pub mod route;
pub mod signature;
#[cfg(test)]
mod tables;
pub mod tally;
pub mod target;
pub mod token;
mod verdict;

pub use cost::{Credits, Hold, Limit, PerPool, Period, Pool, Price, RateLimit};
pub use dataset::{DatasetId, Grant, Operation, Operations};
pub use denial::Denial;
pub use record::{DomainMode, Policy, Status};
pub use token::{AccountId, Token, TokenDigest, TokenId, TokenKind};
pub use verdict::{
    Check, Facts, Finding, LeakedSecret, Note, OutsideBrowser, Permit, Verdict, asks_for_signature, examine,
    judge,
};
