//! The admin API, on a real socket over the embedded store.

mod account;
mod auth;
mod concurrency;
pub(crate) mod desk;
mod explain;
mod fields;
pub(crate) mod moody_store;
mod openapi;
mod pages;
mod protocol;
mod tokens;
