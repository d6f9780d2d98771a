//! The one integration binary: a file for each behaviour.

mod admin;
mod cli;
