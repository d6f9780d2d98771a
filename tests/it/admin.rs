//! The admin API, on a real socket over the embedded store.

mod account;
mod audit;
mod auth;
pub(crate) mod books;
mod concurrency;
pub(crate) mod desk;
mod explain;
mod fields;
pub(crate) mod moody_store;
mod nodes;
mod openapi;
mod pages;
mod protocol;
mod receipts;
mod signing;
mod tokens;
mod usage;
