//! The pure heart of the policy room, compiled from the very sources of the main crate.
//!
//! The files are taken by path and not through the crate `tollgate`: building Pingora and the rest under a sanitizer
//! takes many minutes and adds nothing to what is fuzzed. These modules know only their neighbours here,
//! so this list is all they need.
#![allow(missing_docs, reason = "the modules document themselves")]

#[path = "../../src/policy"]
pub mod policy {
    pub mod cost;
    pub mod credential;
    pub mod dataset;
    pub mod denial;
    pub mod domain;
    pub mod query;
    pub mod signature;
    pub mod tally;
    pub mod target;
    pub mod token;
}
