//! The composition root: a configuration becomes running services.
//!
//! Owns the life of a process: start, reload, upgrade, stop. What runs is an `instance`: two runtimes, of which one serves
//! requests and one does all that requests do not wait for (store connections, settlements, the admin API), so that a flood
//! on one side leaves the other alive. Pingora's own `Server` is not used to run them: it stops its runtimes after a fixed
//! sleep, while here a stop waits for the requests in flight, and no longer.
//!
//! The process's first thread waits for what happens (`signals`, `files`, the words of a new process in `handover`) and acts
//! on one after the other: `change` knows what a reload can take, `sockets` keeps the listening sockets for whoever comes next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Config;
use crate::proxy::UpstreamError;
use crate::telemetry::start_events;

pub mod accept;
pub mod backup;
mod change;
mod conductor;
pub mod expiry;
mod files;
mod first_start;
mod handover;
mod instance;
mod listen;
mod notify;
mod pid_file;
mod plugin;
mod settings;
mod signals;
mod sockets;
mod state;

pub use plugin::{Plugin, PluginError};

/// Why Tollgate does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `state_dir` or a file in it cannot be used.
    #[error("{what} {path}: {source}", path = path.display())]
    State {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file in `state_dir` does not hold what it should.
    #[error("{path}: {why}", path = path.display())]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {source}. Is another program using it?")]
    Listen {
        /// For what.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The embedded store cannot be opened.
    #[error(transparent)]
    Embedded(#[from] crate::store::embedded::OpenError),
    /// The Redis store cannot be set up.
    #[error(transparent)]
    Redis(#[from] crate::store::redis::ConnectError),
    /// The store does not answer.
    #[error("the store: {0}")]
    Store(#[from] crate::store::StoreError),
    /// The gate cannot be opened.
    #[error(transparent)]
    Gate(#[from] crate::gate::GateError),
    /// An upstream cannot be set up.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] accept::TlsError),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The process that is to be succeeded does not hand over what it should.
    #[error("taking over from the process before: {0}")]
    TakeOver(io::Error),
    /// A runtime cannot be started.
    #[error("threads cannot be started: {0}")]
    Runtime(io::Error),
    /// The environment holds a secret token that is none.
    #[error("TOLLGATE_SECRET_TOKEN is not a secret token: it must be sk_ and 32 lowercase hex digits")]
    BadSecretToken,
}

/// Runs Tollgate until it is told to stop, or until another process has taken over. `pid_file`: where the process's id is
/// written, for scripts.
pub fn serve(config: Config, pid_file: Option<PathBuf>) -> Result<(), ServeError> {
    start_events();
    conductor::run(config, pid_file)
}
