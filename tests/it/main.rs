//! The one integration binary: real processes, real sockets, real stores.

mod harness;

mod browser;
mod refusals;
