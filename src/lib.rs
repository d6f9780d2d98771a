//! Tollgate: the gate in front of data APIs, for a [Pingora](https://docs.rs/pingora) proxy of your own.
//!
//! It finds an API token's policy, judges each request by it (allowed domains, data sets, rate, credits), passes on what is
//! approved without the token, and charges what was served. As a program of its own it is [`server`]; for other proxies
//! (nginx, Caddy, ...) [`authz`]; in a `ProxyHttp` of yours it is a [`Plugin`], called once in each phase:
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use bytes::Bytes;
//! use pingora::http::{RequestHeader, ResponseHeader};
//! use pingora::prelude::*;
//! use pingora::proxy::FailToProxy;
//! use tollgate::Plugin;
//! use tollgate::gate::Visit;
//!
//! struct Mine {
//!     gate: Arc<Plugin>,
//! }
//!
//! #[async_trait]
//! impl ProxyHttp for Mine {
//!     type CTX = Visit;
//!
//!     fn new_ctx(&self) -> Visit {
//!         self.gate.new_visit()
//!     }
//!
//!     // Refused requests, preflights and a few paths of its own are answered here, and go no further.
//!     async fn request_filter(&self, session: &mut Session, visit: &mut Visit) -> Result<bool> {
//!         self.gate.request_filter(session, visit).await
//!     }
//!
//!     // `visit.upstream()` is the name that the route gives, if you serve several.
//!     async fn upstream_peer(&self, _: &mut Session, _: &mut Visit) -> Result<Box<HttpPeer>> {
//!         Ok(Box::new(HttpPeer::new("127.0.0.1:9000", false, String::new())))
//!     }
//!
//!     // The judged target goes on, without a credential; a request that nobody judged does not.
//!     async fn upstream_request_filter(&self, session: &mut Session, upstream: &mut RequestHeader, visit: &mut Visit) -> Result<()> {
//!         self.gate.upstream_request_filter(session, upstream, visit).await
//!     }
//!
//!     // Below 400 the response is charged, else all is given back.
//!     async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, visit: &mut Visit) -> Result<()> {
//!         self.gate.response_filter(session, response, visit).await
//!     }
//!
//!     // How long a body may be, and how slow; and one that a client ends over HTTP/2 without a byte is ended once.
//!     async fn request_body_filter(&self, session: &mut Session, body: &mut Option<Bytes>, end: bool, visit: &mut Visit) -> Result<()> {
//!         self.gate.request_body_filter(session, body, end, visit)
//!     }
//!
//!     // What is paid for by its length or its events is counted here, and a stream ends where its credits do.
//!     fn response_body_filter(&self, session: &mut Session, body: &mut Option<Bytes>, end: bool, visit: &mut Visit) -> Result<Option<Duration>> {
//!         self.gate.response_body_filter(session, body, end, visit)
//!     }
//!
//!     async fn fail_to_proxy(&self, session: &mut Session, error: &Error, visit: &mut Visit) -> FailToProxy {
//!         FailToProxy { error_code: self.gate.fail(session, error, visit).await, can_reuse_downstream: false }
//!     }
//!
//!     // Pingora's own line quotes the request's target, and with it the token.
//!     fn suppress_error_log(&self, _: &Session, _: &Visit, _: &Error) -> bool {
//!         true
//!     }
//!
//!     async fn logging(&self, session: &mut Session, error: Option<&Error>, visit: &mut Visit) {
//!         self.gate.logging(session, error, visit).await;
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let gate = Arc::new(Plugin::open("gate.yaml")?);
//!     let mut server = Server::new(None)?;
//!     server.bootstrap();
//!     let mut proxy = http_proxy_service(&server.configuration, Mine { gate: gate.clone() });
//!     proxy.add_tcp("127.0.0.1:8080");
//!     server.add_service(proxy);
//!     // Gives back what is leased when the server stops.
//!     server.add_service(gate.service());
//!     server.run_forever();
//! }
//! ```
//!
//! `gate.yaml` is a [`proxy.yaml`](config) that needs no `listeners` and no `upstreams`; with `admin` in it, tokens are made
//! and edited in this very process, else by any Tollgate on the same Redis:
//!
//! ```yaml
//! state_dir: /var/lib/my-proxy/gate
//! admin: { address: 127.0.0.1:8081 }
//! store: { url: "embedded:" }
//! routes:
//!   - { path: "/v1/data/CORE/{dataset}/**", upstream: mine, access: core, dataset: "CORE/{dataset}" }
//! ```
//!
//! - **Nothing is global.** A process may hold several plugins, each with its own file, `state_dir`, store, account and
//!   metrics ([`gate::Gate::metrics`]).
//! - **With a cache**, make its key of [`gate::Visit::target`]: the judged target, without the token. A response from the
//!   cache is judged and charged like any other, since `request_filter` and `response_filter` see it too. What your
//!   upstream answers by `X-Tollgate-Token-Id` does not belong into a shared cache.
//! - **Streams** end the moment their token is revoked if `upstream_peer` uses [`gate::Visit::connector`]; else with
//!   their next piece.
//!
//! `examples/embed.rs` is a caching load balancer that gained the gate in fourteen lines.
//!
//! # The map
//!
//! This page is the map, too. Dependencies point one way, from left to right nothing looks back:
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

pub use server::{Plugin, PluginError};
