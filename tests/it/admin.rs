//! The admin API, on a real socket over the embedded store.

mod account;
mod audit;
mod auth;
pub(crate) mod books;
mod concurrency;
mod datasets;
pub(crate) mod desk;
mod explain;
mod fields;
pub(crate) mod moody_store;
mod nodes;
mod openapi;
mod pages;
mod people;
mod protocol;
mod receipts;
mod search;
mod signing;
mod tokens;
mod usage;
