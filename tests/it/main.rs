//! The one integration binary: real processes, real sockets, real stores.

mod harness;

mod credits;
mod forwarding;
mod main_job;
mod refusals;
mod rooms;
mod streaming;
