//! The composition root: a configuration becomes running services.
//!
//! Owns the order of starting and stopping, and nothing else. Two runtimes: one serves requests, one does all that
//! requests do not wait for (store connections, settlements, the admin API), so that a flood on one side leaves the
//! other alive. Pingora's own `Server` is not used to run them: it stops its runtimes after a fixed sleep, while here
//! a stop waits for the requests in flight, and no longer.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::admin;
use crate::config::{AccessLog, Config, StoreUrl};
use crate::console;
use crate::gate::Gate;
use crate::policy::AccountId;
use crate::proxy::{Proxy, Upstream, UpstreamError, UpstreamSettings, Upstreams};
use crate::store::Store;
use crate::store::embedded::{Clock, EmbeddedStore};
use crate::store::redis::{RedisClock, RedisSettings, RedisStore, RedisTls};
use crate::telemetry::{AccessLogWriter, LogGuard, Metrics, start_events};

pub mod accept;
mod first_start;
mod listen;
mod settings;
mod signals;
mod state;

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
    /// A runtime cannot be started.
    #[error("threads cannot be started: {0}")]
    Runtime(io::Error),
    /// The environment holds a secret token that is none.
    #[error("TOLLGATE_SECRET_TOKEN is not a secret token: it must be sk_ and 32 lowercase hex digits")]
    BadSecretToken,
}

/// How long a call to the store may take at least, whatever a request would wait for it.
const SHORTEST_CALL: Duration = Duration::from_millis(100);
/// How long a stop waits for settlements to reach the store.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Runs Tollgate until it is told to stop.
#[expect(clippy::needless_pass_by_value, reason = "a configuration is for one server")]
pub fn serve(config: Config) -> Result<(), ServeError> {
    start_events();
    state::prepare(&config)?;
    let control = runtime("control", 2)?;
    let store = control.block_on(open_store(&config))?;
    let (access_log, _log_guard) = access_log(&config)?;
    let metrics = Arc::new(Metrics::new()?);
    let gate = Arc::new(Gate::open(
        settings::of(&config, state::sealer(&config)?),
        store.clone(),
        metrics.clone(),
        access_log,
        control.handle().clone(),
    )?);
    let upstreams = upstreams(&config)?;
    let data = listen::Listening::bind(&config)?;
    let admin = config.admin.as_ref().map(AdminDoor::bind).transpose()?;

    let (stop, stopping) = watch::channel(false);
    let (ready, started) = watch::channel(false);
    let first = first_start::FirstStart::new(&config, store.clone(), AccountId::default_account());
    control.spawn(first.run(ready));
    let threads = config.threads.map_or_else(default_threads, std::num::NonZeroUsize::get);
    let proxy_runtime = runtime("proxy", threads)?;
    let serving = data.start(&proxy_runtime, Proxy::new(gate.clone(), upstreams), &metrics, &stopping)?;
    for address in &serving.addresses {
        tracing::info!(%address, "listening for requests");
    }
    let admin_certificates = admin.as_ref().and_then(|admin| admin.certificates.clone());
    control.spawn(serving.certificates.clone().with(admin_certificates).watch());
    let admin = admin.map(|listener| start_admin(&control, listener, &gate, &store, started, stopping));
    control.block_on(signals::wait_for_stop());

    tracing::info!("stopping: no new requests; waiting for those in flight");
    let _ = stop.send(true);
    control.block_on(gate.wait_idle(config.shutdown_grace));
    proxy_runtime.shutdown_timeout(Duration::from_secs(1));
    let unsettled = control.block_on(gate.drain(DRAIN_PATIENCE));
    if unsettled > 0 {
        tracing::error!(
            unsettled,
            "stopped with settlements that the store has not taken; they count as spent"
        );
    }
    if let Some(admin) = admin {
        // Inside, since a timer needs its runtime.
        let _ = control.block_on(async { tokio::time::timeout(Duration::from_secs(1), admin).await });
    }
    drop((gate, store));
    control.shutdown_timeout(Duration::from_secs(2));
    tracing::info!("stopped");
    Ok(())
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, ServeError> {
    let built = Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
    built.map_err(ServeError::Runtime)
}

#[expect(clippy::unused_async, reason = "both stores are opened inside the control runtime")]
async fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServeError> {
    let sealer = Some(state::sealer(config)?);
    match &config.store.url {
        StoreUrl::Embedded { path } => {
            tracing::info!(path = %path.display(), "store: embedded");
            let retention = settings::of_retention(config);
            Ok(Arc::new(EmbeddedStore::open_keeping(path, sealer, Clock::system(), retention)?))
        }
        StoreUrl::Redis(url) => {
            let servers = settings::of_redis(url);
            tracing::info!(?servers, db = url.db, tls = url.tls.is_some(), "store: redis");
            let settings = RedisSettings {
                servers,
                tls: url.tls.clone().map(|files| RedisTls { ca: files.ca, identity: files.identity }),
                database: Some(url.db),
                username: url.username.clone(),
                password: url.password.as_ref().map(|secret| secret.expose().to_owned()),
                prefix: config.store.prefix.clone(),
                timeout: config.store.timeout.max(SHORTEST_CALL),
                wait_replicas: config.store.wait_replicas,
                clock: RedisClock::Store,
                retention: settings::of_retention(config),
            };
            Ok(Arc::new(RedisStore::connect(&settings, sealer)?))
        }
    }
}

fn access_log(config: &Config) -> Result<(Option<AccessLogWriter>, Option<LogGuard>), ServeError> {
    match &config.access_log {
        AccessLog::Off => Ok((None, None)),
        AccessLog::Stdout => {
            let opened = AccessLogWriter::stdout();
            let (log, guard) = opened.map_err(ServeError::Runtime)?;
            Ok((Some(log), Some(guard)))
        }
        AccessLog::File(path) => {
            let opened = AccessLogWriter::file(path).map_err(|source| ServeError::State {
                what: "cannot write the access log",
                path: path.clone(),
                source,
            });
            let (log, guard) = opened?;
            Ok((Some(log), Some(guard)))
        }
    }
}

fn upstreams(config: &Config) -> Result<Upstreams, ServeError> {
    let build = |(name, upstream): (&String, &crate::config::Upstream)| {
        let settings: UpstreamSettings = settings::of_upstream(upstream);
        Ok((name.clone(), Upstream::try_new(name, settings)?))
    };
    config.upstreams.iter().map(build).collect()
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|source| ServeError::Listen { what, address, source })
}

/// The admin API's socket, and what is shown there.
struct AdminDoor {
    socket: TcpListener,
    certificates: Option<Arc<accept::Certificates>>,
    patience: Duration,
}

impl AdminDoor {
    fn bind(listener: &crate::config::Listener) -> Result<Self, ServeError> {
        let certificates = accept::Entry::open_admin(listener)?;
        let socket = bind("admin", listener.address)?;
        Ok(Self { socket, certificates, patience: crate::config::Limits::default().header_timeout })
    }
}

fn start_admin(
    control: &Runtime,
    door: AdminDoor,
    gate: &Arc<Gate>,
    store: &Arc<dyn Store>,
    started: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let AdminDoor { socket, certificates, patience } = door;
    if let Ok(address) = socket.local_addr() {
        tracing::info!(%address, tls = certificates.is_some(), "listening for the admin API");
    }
    let metrics = gate.clone();
    let account = AccountId::default_account();
    let router = admin::router(admin::Admin {
        store: store.clone(),
        account: account.clone(),
        explainer: gate.clone(),
        datasets: gate.grantable(),
        metrics: Arc::new(move || metrics.metrics()),
        started,
        acts_by: gate.epoch(),
        now: jiff::Timestamp::now,
        version: env!("CARGO_PKG_VERSION"),
    });
    let router = console::router(router, store.clone(), account, jiff::Timestamp::now);
    let stop = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    control.spawn(async move {
        let served = match certificates {
            None => admin::serve(socket, router, stop).await,
            Some(certificates) => match accept::admin::Encrypted::start(socket, certificates, patience) {
                Ok(listener) => admin::serve_encrypted(listener, router, stop).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            tracing::error!(%error, "the admin API stopped");
        }
    })
}
