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
use sha2::{Digest, Sha256};

use crate::policy::route::RouteTable;
use crate::policy::{LeakedSecret, OutsideBrowser};

mod access_log;
mod authz;
mod brute_force;
mod cors;
mod document;
mod keeping;
mod limits;
mod listeners;
mod nearest;
mod plain;
mod problem;
mod reader;
mod routes;
mod secret;
mod store;
mod tracing;
mod tree;
pub mod units;
mod upstreams;

pub use access_log::{AccessLog, AccessLogSampling};
pub use authz::Authz;
pub use brute_force::BruteForce;
pub use cors::Cors;
pub use limits::Limits;
pub use listeners::{CertificateFiles, Listener, Tls, TlsVersion};
pub(crate) use plain::read_yaml;
pub use problem::{ConfigError, Problem, Problems};
pub use secret::Secret;
pub use store::{RedisTopology, RedisUrl, StoreConfig, StoreUrl, TlsFiles};
pub use tracing::{TraceParents, Tracing};
pub use upstreams::{
    Balance, Circuit, HashBy, Health, HostHeader, Retries, Server, Upstream, UpstreamTls, WeightedServer,
};

/// A whole configuration, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it comes from.
    pub path: PathBuf,
    /// The start of the SHA-256 of the file, in hex: the same configuration has the same everywhere.
    pub digest: String,
    /// Files that it names and that are read with it: secrets, certificates.
    pub files: Vec<PathBuf>,
    /// Where the embedded store, the first secret token and the master key are kept.
    pub state_dir: PathBuf,
    /// Worker threads, 1 to 256; `None`: one per core.
    pub threads: Option<NonZeroUsize>,
    /// Where requests come in; at least one, but for a plugin.
    pub listeners: Vec<Listener>,
    /// Where the admin API is; `None`: there is none.
    pub admin: Option<Listener>,
    /// Who may read the metrics there.
    pub metrics: MetricsAccess,
    /// Where other proxies ask; `None`: they cannot.
    pub authz: Option<Authz>,
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
    /// How many invalid tokens one address may try.
    pub brute_force: BruteForce,
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
    /// Which requests get one; `None`: all.
    pub access_log_sampling: Option<AccessLogSampling>,
    /// How requests are traced; `None`: they are not.
    pub tracing: Option<Tracing>,
    /// How long the gate goes on after it was told to stop, so that balancers notice first.
    pub shutdown_delay: Duration,
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
    /// Where approved requests go, by name; at least one, but for a plugin.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which paths are served; at least one.
    pub routes: RouteTable,
}

/// Who may read the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Whoever reaches the address.
    #[default]
    Open,
    /// Whoever shows a secret token.
    Secret,
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

/// Reads the configuration of a gate in a proxy that is not Tollgate's own: `listeners` and `upstreams` may be left out.
/// Without the latter the routes' `upstream` is any name, for that proxy to understand.
pub fn load_plugin(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::read(path, source))?;
    Ok(parse_for(Purpose::Plugin, &text, path, env)?)
}

/// What a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Server,
    Plugin,
}

/// Reads a configuration's text. `path` is where it comes from: relative paths in it are taken from there, and
/// problems name it.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    parse_for(Purpose::Server, text, path, env)
}

fn parse_for(
    purpose: Purpose,
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problems> {
    let (tree, faults) = tree::parse(text);
    let reader = reader::Reader::new(path, env, faults);
    let config = tree.as_ref().and_then(|tree| document::read(&reader.root(tree), path, purpose).ok());
    let config = config.map(|config| complete(config, text, reader.named()));
    match (Problems::collect(reader.into_problems()), config) {
        (Some(problems), _) => Err(problems),
        (None, Some(config)) => Ok(config),
        (None, None) => Err(Problems::unexplained(path)),
    }
}

/// Adds what only the whole tells: which files belong to it, and its digest.
fn complete(config: Config, text: &str, named: Vec<PathBuf>) -> Config {
    const HEX_DIGITS: usize = 12;
    let mut digest = hex::encode(Sha256::digest(text));
    digest.truncate(HEX_DIGITS);
    let written = |path: &Path| {
        let log = matches!(&config.access_log, AccessLog::File(log) if log == path);
        let store = matches!(&config.store.url, StoreUrl::Embedded { path: store } if store == path);
        log || store || config.state_dir == path
    };
    let files = named.into_iter().filter(|path| !written(path)).collect();
    Config { digest, files, ..config }
}

/// Every key that is known anywhere in the file.
#[cfg(test)]
fn all_keys() -> Vec<&'static str> {
    let keys = [
        document::KEYS,
        keeping::LEASE_KEYS,
        keeping::USAGE_KEYS,
        listeners::KEYS,
        listeners::ADMIN_KEYS,
        authz::KEYS,
        access_log::KEYS,
        tracing::KEYS,
        listeners::TLS_KEYS,
        limits::KEYS,
        cors::KEYS,
        store::KEYS,
        store::TLS_KEYS,
        upstreams::KEYS,
        routes::KEYS,
        routes::REWRITE_KEYS,
    ];
    let keys = keys.into_iter().chain(upstreams::INNER_KEYS);
    let keys: Vec<_> = keys.collect();
    keys.iter().flat_map(|keys| keys.known.iter().copied()).collect()
}

#[cfg(test)]
mod tests;
