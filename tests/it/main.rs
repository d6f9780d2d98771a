//! The one integration binary: real processes, real sockets, real stores, a real browser.

mod harness;

mod admin;
mod browser;
mod cli;
mod credits;
mod forwarding;
mod main_job;
mod refusals;
mod rooms;
mod store_conformance;
mod streaming;
