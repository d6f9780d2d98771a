//! Tollgate: the gate in front of data APIs.
//!
//! This page is the map. Dependencies point one way, from left to right nothing looks back:
//! `policy`, `ledger` ← `store` ← `gate` ← `proxy`, `authz`, `admin` ← `console` ← `server`, `cli`.
//!
//! | room | owns |
//! | --- | --- |
//! | [`policy`] | what a token may do; pure: time and facts are arguments |
//! | [`ledger`] | credits: counters, holds and calendar periods; pure |
//! | [`store`] | what the gate asks of a store, and the two stores |
//! | [`gate`] | the plugin: one method per Pingora phase, and the [`gate::Pass`] |
//! | [`proxy`] | Tollgate's own `ProxyHttp` over the gate |
//! | [`authz`] | forward-auth: the gate for other proxies |
//! | [`admin`] | the admin API: tokens, account, explain, health, metrics |
//! | [`console`] | the web console: pages over the admin API |
//! | [`config`] | `proxy.yaml` as a value that exists only if valid |
//! | [`cli`] | the commands |
//! | [`server`] | composition root: a configuration becomes running services |
//! | [`telemetry`] | logs and metrics |
//!
//! `tests/it/rooms.rs` reads the sources and holds the direction of dependencies.

pub mod admin;
pub mod authz;
pub mod cli;
pub mod config;
pub mod console;
pub mod gate;
pub mod ledger;
pub mod policy;
pub mod proxy;
pub mod server;
pub mod store;
pub mod telemetry;
