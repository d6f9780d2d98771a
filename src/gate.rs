//! The gate: finds a token's policy, judges a request and forwards what is approved.

pub mod explanation;
