//! The one integration binary: real processes, real sockets, real stores, a real browser. A file for each behaviour;
//! what they share is in `harness`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::assigning_clones,
    clippy::needless_pass_by_value,
    unreachable_pub,
    reason = "what helps a test panics where something is not as it must be, and is reached by nobody else"
)]

mod harness;

mod admin;
mod browser;
mod bulk;
mod cli;
mod console;
mod console_story;
mod credits;
mod credits_of_a_holder;
mod dialect_iex;
mod direct_way;
mod forward_auth;
mod forwarding;
mod hostile;
mod laws;
mod main_job;
mod observability;
mod plugin;
mod prices;
mod redis_topologies;
mod refusals;
mod reload;
mod rooms;
mod signed;
mod store_conformance;
mod streaming;
mod streams;
mod supervised;
mod transport;
mod upgrade;
mod upstreams;
mod upstreams_rewriting;
mod upstreams_secure;
mod upstreams_tries;
