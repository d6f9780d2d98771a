//! `proxy.yaml` as a value that exists only if valid (`interface.md`, "proxy.yaml").
//!
//! Owns the file's schema, its defaults and every sentence about a mistake in it. [`load`] gives a [`Config`] or all
//! [`Problems`] at once, each with its place. It knows no Pingora and opens no socket; what a configuration leads to
//! is [`crate::server`]'s.
//!
//! The way of a file: `tree` reads the YAML and keeps each place, `reader` reads types and notes mistakes, `document`
//! and the sections beside it know the keys. serde takes no part: it ends at the first mistake.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::route::RouteTable;
use crate::policy::{LeakedSecret, OutsideBrowser};

mod cors;
mod document;
mod keeping;
mod limits;
mod listeners;
mod nearest;
mod problem;
mod reader;
mod routes;
mod secret;
mod store;
mod tree;
pub mod units;
mod upstreams;

pub use cors::Cors;
pub use limits::Limits;
pub use listeners::{CertificateFiles, Listener, Tls, TlsVersion};
pub use problem::{ConfigError, Problem, Problems};
pub use secret::Secret;
pub use store::{RedisTopology, RedisUrl, StoreConfig, StoreUrl, TlsFiles};
pub use upstreams::{HostHeader, Server, Upstream};

/// A whole configuration, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it comes from.
    pub path: PathBuf,
    /// Where the embedded store, the first secret token and the master key are kept.
    pub state_dir: PathBuf,
    /// Worker threads, 1 to 256; `None`: one per core.
    pub threads: Option<NonZeroUsize>,
    /// Where requests come in; at least one.
    pub listeners: Vec<Listener>,
    /// Where the admin API is; `None`: there is none.
    pub admin: Option<Listener>,
    /// What one client may take of the gate.
    pub limits: Limits,
    /// Where tokens and credits are kept.
    pub store: StoreConfig,
    /// How refusals are told.
    pub dialect: Dialect,
    /// What seals secret tokens; `None`: a key of its own in [`Config::master_key_path`].
    pub master_key: Option<Secret>,
    /// Proxies whose word about the client's address is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What a secret token from a browser leads to.
    pub leaked_secret: LeakedSecret,
    /// What a publishable token without a browser's signal leads to.
    pub outside_browser: OutsideBrowser,
    /// How the client's address is told to the upstream.
    pub forwarded: Forwarded,
    /// What browsers are told.
    pub cors: Cors,
    /// Where one line for each request goes.
    pub access_log: AccessLog,
    /// How long requests under way may take to end when the gate stops.
    pub shutdown_grace: Duration,
    /// For how long known policies and leased credits are trusted while the store cannot be reached.
    pub outage_grace: Duration,
    /// How far the time of a signed request may be from this machine's, to either side.
    pub signature_max_skew: Duration,
    /// For how long a node that was gone can come back and say what its leases really paid for.
    pub reclaim_window: Duration,
    /// How long usage and refusals are kept after the end of their day: never less than the longest period.
    pub usage_retention: Duration,
    /// The most policies kept in memory.
    pub policies: usize,
    /// Where approved requests go, by name; at least one.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which paths are served; at least one.
    pub routes: RouteTable,
}

/// How refusals are told (`clients.md`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 9457 problem documents.
    #[default]
    Standard,
    /// As the original service tells them, with its account endpoints.
    Iex,
}

/// How the client's address is told to the upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// It is not.
    None,
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both.
    Both,
}

/// Where one line for each request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// To the standard output.
    #[default]
    Stdout,
    /// Nowhere.
    Off,
    /// To the end of a file.
    File(PathBuf),
}

impl Config {
    /// The file into which the first start writes the secret token (`interface.md`, "First start").
    pub fn secret_token_path(&self) -> PathBuf {
        self.state_dir.join("secret-token")
    }

    /// The file that holds the key made by the first start where the configuration gives none.
    pub fn master_key_path(&self) -> PathBuf {
        self.state_dir.join("master-key")
    }
}

/// Reads a configuration file. `env` looks up environment variables.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::read(path, source))?;
    Ok(parse(&text, path, env)?)
}

/// Reads a configuration's text. `path` is where it comes from: relative paths in it are taken from there, and
/// problems name it.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let (tree, faults) = tree::parse(text);
    let reader = reader::Reader::new(path, env, faults);
    let config = tree.as_ref().and_then(|tree| document::read(&reader.root(tree), path).ok());
    match (Problems::collect(reader.into_problems()), config) {
        (Some(problems), _) => Err(problems),
        (None, Some(config)) => Ok(config),
        (None, None) => Err(Problems::unexplained(path)),
    }
}

/// Every key that is known anywhere in the file.
#[cfg(test)]
fn all_keys() -> Vec<&'static str> {
    let keys = [
        document::KEYS,
        keeping::LEASE_KEYS,
        keeping::USAGE_KEYS,
        listeners::KEYS,
        listeners::TLS_KEYS,
        limits::KEYS,
        cors::KEYS,
        store::KEYS,
        store::TLS_KEYS,
        upstreams::KEYS,
        routes::KEYS,
    ];
    keys.iter().flat_map(|keys| keys.known.iter().copied()).collect()
}

#[cfg(test)]
mod tests;
