//! What is simulated, and what is counted.

use std::collections::HashMap;

use tollgate::ledger::purse::Micros;

/// A fleet and its traffic.
pub struct Plan {
    pub nodes: u32,
    /// Credits of each token.
    pub limits: Vec<u64>,
    /// How likely each token is to be the next one's, summed up.
    pub shares: Vec<f64>,
    /// Of the whole fleet.
    pub requests_per_second: f64,
    pub seconds: u64,
    /// What happens before is not counted.
    pub warm_up: Micros,
    pub seed: u64,
}

/// What was counted.
#[derive(Default)]
pub struct Findings {
    pub requests: u64,
    pub admitted: u64,
    pub refused: u64,
    /// Refused while a credit was unspent somewhere.
    pub early: u64,
    pub waited: u64,
    /// Calls that change leases, one for each lease; asks that were refused included.
    pub operations: u64,
    pub recalls: u64,
    /// The seconds that were counted.
    pub seconds: f64,
    /// Credits in open leases: of each token that had some, at the moments looked at.
    pub open: Vec<u64>,
    /// The same of all tokens together.
    pub open_in_all: Vec<u64>,
    /// Requests and operations of each node and token.
    pub pairs: HashMap<(u32, u32), (u64, u64)>,
    /// When the first request was refused, and when the last credit was taken, of tokens that used all.
    pub ends: HashMap<u32, (Option<Micros>, Option<Micros>)>,
    /// Credits drawn, by token.
    pub drawn: Vec<u64>,
}
