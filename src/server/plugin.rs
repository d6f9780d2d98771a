//! A gate for a proxy of somebody else's, with all that it stands on.
//!
//! Owns the same order of starting and stopping as [`super::serve`], without the proxy. Nothing in it is global: a process
//! may hold several, each with its own file, store and account. It sets up no event log; whoever embeds it has one, or
//! none.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::{BackgroundService, GenBackgroundService};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::instance::{AdminDoor, DRAIN_PATIENCE, access_log, open_store, runtime, start_admin};
use super::sockets::Sockets;
use super::{ServeError, expiry, first_start, settings, state};
use crate::config::{self, Config, ConfigError};
use crate::gate::Gate;
use crate::policy::AccountId;
use crate::telemetry::{LogGuard, Metrics};

/// Why a plugin does not open.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The file has mistakes, or cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What it says cannot be set up.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A [`Gate`] that brings its store, its journal, its metrics and a small runtime for what no request waits for. It is the
/// gate by `Deref`, so each phase of a `ProxyHttp` calls it in one line.
///
/// Run beside the proxy ([`Plugin::service`]) it gives back what it leased when Pingora's server stops; elsewhere
/// [`Plugin::stop`] does. Where neither is called its credits are settled at the next start on the same `state_dir`.
pub struct Plugin {
    gate: Arc<Gate>,
    grace: Duration,
    admin: Option<SocketAddr>,
    stopping: watch::Sender<bool>,
    control: Mutex<Option<Runtime>>,
    started: watch::Receiver<bool>,
    _log: Option<LogGuard>,
}

impl Plugin {
    /// Opens a gate by a configuration file. It is a `proxy.yaml` in which `listeners` and `upstreams` may be left out: the
    /// proxy is yours. With `admin` the admin API and the console are served there, in this process.
    ///
    /// Call it outside of an async runtime, as at the start of `main`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PluginError> {
        let config = config::load_plugin(path.as_ref(), &|name| std::env::var(name).ok())?;
        Ok(Self::from_config(&config)?)
    }

    /// Opens a gate by a configuration.
    pub fn from_config(config: &Config) -> Result<Self, ServeError> {
        state::prepare(config)?;
        let control = runtime("tollgate", 1)?;
        let store = open_store(&control, config, None)?;
        let (access_log, log) = access_log(config)?;
        let settings = settings::of(config, Some(state::sealer(config)?));
        let metrics = Arc::new(Metrics::new()?);
        expiry::tell_store(config, &metrics);
        let handle = control.handle().clone();
        let gate = Arc::new(Gate::open(settings, store.clone(), metrics.clone(), access_log, handle)?);
        let (stopping, stop) = watch::channel(false);
        let ready = Arc::new(watch::Sender::new(false));
        let started = ready.subscribe();
        let first = first_start::FirstStart::new(config, store.clone(), AccountId::default_account());
        control.spawn(first.run(ready));
        let listener = config
            .admin
            .as_ref()
            .map(|admin| AdminDoor::open(admin, &mut Sockets::default(), &metrics))
            .transpose()?;
        let admin = listener.as_ref().and_then(AdminDoor::address);
        if let Some(listener) = listener {
            start_admin(config, &control, listener, &gate, &store, started.clone(), stop)?;
        }
        let control = Mutex::new(Some(control));
        Ok(Self { gate, grace: config.shutdown_grace, admin, stopping, control, started, _log: log })
    }

    /// What Pingora's server is to run beside the proxy (`Server::add_service`), so that a stop gives back what is leased.
    pub fn service(self: &Arc<Self>) -> GenBackgroundService<Self> {
        GenBackgroundService::new("tollgate".to_owned(), self.clone())
    }

    /// The gate alone.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Where the admin API is, with its real port.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Whether the store has answered: its account is there. Until then requests get 503.
    pub fn is_ready(&self) -> bool {
        *self.started.borrow()
    }

    /// Waits for requests in flight, at most `shutdown_grace`, and gives back what is leased. How many settlements the store
    /// has not taken; they are made at the next start.
    pub async fn stop(&self) -> u64 {
        let _ = self.stopping.send(true);
        self.gate.wait_idle(self.grace).await;
        self.gate.drain(DRAIN_PATIENCE).await
    }
}

impl Deref for Plugin {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.gate
    }
}

#[async_trait]
impl BackgroundService for Plugin {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let _ = shutdown.wait_for(|stop| *stop).await;
        self.stop().await;
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(control) = self.control.lock().take() {
            // Also where waiting is not allowed, as inside a runtime.
            control.shutdown_background();
        }
    }
}
