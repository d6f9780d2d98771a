//! Running services, made of one configuration: how they start, take another configuration, and end.
//!
//! An instance begins and ends within a process, and a process may have several, one after the other: where an upgrade
//! fails after the store was given away, the next instance takes it back. Listening sockets outlive it (`sockets`).

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept::{self, Certificates};
use super::handover::Predecessor;
use super::listen::{Listening, Serving};
use super::sockets::Sockets;
use super::{ServeError, change, expiry, first_start, settings, state};
use crate::admin;
use crate::authz::Authz;
use crate::config::{self, AccessLog, Config, ConfigError, MetricsAccess, StoreUrl};
use crate::console;
use crate::gate::Gate;
use crate::policy::AccountId;
use crate::proxy::{InForce, Proxy, Setup, Upstream, Upstreams};
use crate::store::Store;
use crate::store::embedded::{Clock, EmbeddedStore, OpenError};
use crate::store::redis::{RedisClock, RedisSettings, RedisStore, RedisTls};
use crate::store::seal::Sealer;
use crate::telemetry::{AccessLogWriter, LogGuard, Metrics, Tracer, TracerGuard};

/// How long a call to the store may take at least, whatever a request would wait for it.
const SHORTEST_CALL: Duration = Duration::from_millis(100);
/// How long a stop waits for settlements to reach the store.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long connections stay open that are idle when nobody listens any more: each may have one more request. A new
/// process that waits for the store waits for them, too.
const IDLE_PATIENCE: Duration = Duration::from_millis(500);
/// How long streams may take to say farewell, and requests that are cut to end.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the store's file may be held still by what is ending.
const RELEASE: Duration = Duration::from_secs(5);
/// How long a new process tries to get the store's file.
const STORE_PATIENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(10);

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// It has mistakes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be carried out.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// How an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The process was told to stop.
    Stop,
    /// Another process serves already.
    HandedOver,
    /// Another process waits for the store.
    GivesStore,
}

/// Running services.
pub(super) struct Instance {
    /// As it started: what needs a new process is of this.
    started: Config,
    /// As it was read last, without mistakes.
    config: Config,
    control: Runtime,
    requests: Runtime,
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    in_force: InForce,
    serving: Serving,
    /// No requests are taken any more.
    stop: watch::Sender<bool>,
    /// The node takes requests.
    ready: Arc<watch::Sender<bool>>,
    admin: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    authz: Option<Arc<Authz>>,
    certificates: accept::Watched,
    traces: Option<TracerGuard>,
    _log: Option<LogGuard>,
}

impl Instance {
    /// Starts all services. With a predecessor they start when its store is free and this process can serve at once.
    pub(super) fn start(
        config: Config,
        sockets: &mut Sockets,
        predecessor: Option<&Predecessor>,
    ) -> Result<Self, ServeError> {
        state::prepare(&config)?;
        let control = runtime("control", 2)?;
        let metrics = Arc::new(Metrics::new()?);
        let upstreams = upstreams(&config, None, &metrics, &control)?;
        expiry::tell_upstreams(&config, &metrics);
        let data = Listening::bind(&config, sockets, &metrics)?;
        let admin =
            config.admin.as_ref().map(|admin| AdminDoor::open(admin, sockets, &metrics)).transpose()?;
        let authz =
            config.authz.as_ref().map(|authz| sockets.listen("forward-auth", authz.address)).transpose()?;
        let store = open_store(&control, &config, predecessor)?;
        expiry::tell_store(&config, &metrics);
        let (access_log, log) = access_log(&config)?;
        let traces =
            settings::of_tracing(&config).map(Tracer::start).transpose().map_err(ServeError::Runtime)?;
        let (tracer, traces) = traces.unzip();
        let gate = Gate::open_as(
            settings::of(&config, Some(state::sealer(&config)?)),
            store.clone(),
            metrics.clone(),
            access_log,
            control.handle().clone(),
            predecessor.is_some(),
        )?;
        let gate = Arc::new(gate.traced(tracer));
        let in_force = InForce::new(Setup { rules: gate.rules(), upstreams });
        let ready = Arc::new(watch::Sender::new(false));
        let first = first_start::FirstStart::new(&config, store.clone(), AccountId::default_account());
        control.spawn(first.run(ready.clone()));
        if let Some(predecessor) = predecessor {
            // Until then the old process serves, and would go on if this one never could.
            control.block_on(wait_ready(ready.subscribe(), predecessor));
        }
        let stop = watch::Sender::new(false);
        let threads = config.threads.map_or_else(default_threads, std::num::NonZeroUsize::get);
        let requests = runtime("proxy", threads)?;
        let proxy = Proxy::new(gate.clone(), in_force.clone());
        let serving = data.start(&config, &requests, proxy, &metrics, &stop.subscribe())?;
        for address in &serving.addresses {
            tracing::info!(%address, "listening for requests");
        }
        let authz = authz
            .zip(config.authz.as_ref())
            .map(|(listener, settings)| start_authz(&requests, listener, settings, &gate, stop.subscribe()));
        let admin_certificates = admin.as_ref().and_then(|door| door.certificates.clone());
        let certificates = serving.certificates.clone().with(admin_certificates);
        control.spawn(certificates.clone().watch());
        let start_admin = |door| {
            let stop = watch::Sender::new(false);
            let stopping = stop.subscribe();
            let served = start_admin(&config, &control, door, &gate, &store, ready.subscribe(), stopping)?;
            Ok::<_, ServeError>((stop, served))
        };
        let admin = admin.map(start_admin).transpose()?;
        metrics.reloads().in_force(&config.digest);
        Ok(Self {
            started: config.clone(),
            config,
            control,
            requests,
            store,
            gate,
            metrics,
            in_force,
            serving,
            stop,
            ready,
            admin,
            authz,
            certificates,
            traces,
            _log: log,
        })
    }

    /// The configuration that the services started with.
    pub(super) fn started(&self) -> &Config {
        &self.started
    }

    /// The configuration as it was read last without a mistake.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the configuration's file anew and puts it in force, or leaves the one in force and says why, loudly.
    pub(super) fn reload(&mut self) {
        match self.try_reload() {
            Ok(fixed) => {
                self.metrics.reloads().reloaded();
                self.metrics.reloads().in_force(&self.config.digest);
                let sha256 = &self.config.digest;
                if fixed.is_empty() {
                    tracing::info!(%sha256, "the configuration was read anew and is in force");
                } else {
                    let keys = fixed.join(", ");
                    tracing::warn!(%sha256, %keys, "the configuration was read anew and is in force, but for these keys: \
                        they take effect by an upgrade (SIGUSR2) or a restart");
                }
            }
            Err(error) => {
                self.metrics.reloads().refused();
                let sha256 = &self.config.digest;
                let path = self.config.path.display();
                let error = in_full(&error);
                tracing::error!(%path, %error, in_force = %sha256, "the configuration is refused; the one before stays in force");
            }
        }
    }

    fn try_reload(&mut self) -> Result<Vec<&'static str>, ReloadError> {
        let new = config::load(&self.config.path, &|name| std::env::var(name).ok())?;
        Ok(self.take(new)?)
    }

    /// Puts a configuration in force, as far as that needs no new process. The keys for which it does.
    pub(super) fn take(&mut self, new: Config) -> Result<Vec<&'static str>, ServeError> {
        let fixed = change::fixed(&self.started, &new);
        let before = self.in_force.get();
        let kept = Some((&self.config, &before.upstreams));
        let upstreams = upstreams(&new, kept, &self.metrics, &self.control)?;
        let rules = self.gate.make_rules(settings::of(&new, None));
        self.in_force.replace(Setup { rules: rules.clone(), upstreams });
        expiry::tell_upstreams(&new, &self.metrics);
        self.gate.adopt(rules);
        self.serving.take(&new);
        self.certificates.reload();
        self.config = new;
        Ok(fixed)
    }

    /// Ends all services: requests in flight end, and what they cost is settled. When `hurry` is done, nobody waits any
    /// longer. Whether the store was let go of.
    pub(super) fn end(self, clock: &Runtime, ending: Ending, hurry: impl Future<Output = ()>) -> bool {
        let Self {
            config, control, requests, store, gate, serving, stop, ready, admin, authz, traces, ..
        } = self;
        ready.send_replace(false);
        gate.begin_stop();
        let admin_stops = admin.as_ref().map(|(stop, _)| stop);
        let hurried = clock.block_on(async {
            tokio::select! {
                () = quiesce(&config, &gate, &serving, (&stop, admin_stops), ending) => false,
                () = hurry => true,
            }
        });
        if hurried {
            tracing::warn!("told to stop once more: not waiting for requests in flight any longer");
        }
        stop.send_replace(true);
        drop(serving);
        requests.shutdown_timeout(Duration::from_secs(1));
        if let Some(authz) = authz {
            clock.block_on(authz.close());
        }
        let patience = if hurried { FAREWELL } else { DRAIN_PATIENCE };
        let unsettled = clock.block_on(gate.drain(patience));
        if unsettled > 0 {
            tracing::error!(
                unsettled,
                "stopped with settlements that the store has not taken; they count as spent until they are settled by \
                 the next start"
            );
        }
        if let Some((stop, served)) = admin {
            stop.send_replace(true);
            let _ = clock.block_on(async { tokio::time::timeout(Duration::from_secs(1), served).await });
        }
        let held = Arc::downgrade(&store);
        drop((gate, store, traces));
        control.shutdown_timeout(Duration::from_secs(2));
        let begun = Instant::now();
        while held.strong_count() > 0 && begun.elapsed() < RELEASE {
            std::thread::sleep(AGAIN);
        }
        held.strong_count() == 0
    }
}

/// Takes no more requests, and waits for those in flight.
async fn quiesce(
    config: &Config,
    gate: &Gate,
    serving: &Serving,
    (stop, admin): (&watch::Sender<bool>, Option<&watch::Sender<bool>>),
    ending: Ending,
) {
    if ending == Ending::Stop {
        if !config.shutdown_delay.is_zero() {
            tracing::info!(delay = ?config.shutdown_delay, "about to stop: not ready any more, requests are taken still");
            tokio::time::sleep(config.shutdown_delay).await;
        }
    } else if let Some(admin) = admin {
        // The other process has this socket, too, and answers there from now on.
        admin.send_replace(true);
    }
    tracing::info!("stopping: no new connections; waiting for requests in flight");
    stop.send_replace(true);
    let (begun, grace) = (Instant::now(), config.shutdown_grace);
    // Where another process serves already, nobody waits for this one.
    let idle = if ending == Ending::HandedOver { grace } else { IDLE_PATIENCE.min(grace) };
    serving.close(idle).await;
    gate.wait_idle(grace.saturating_sub(begun.elapsed())).await;
    gate.end_streams();
    gate.wait_idle(FAREWELL).await;
    serving.wait_closed(FAREWELL).await;
}

/// Waits until the first start is done, as long as there is a predecessor that serves.
async fn wait_ready(mut ready: watch::Receiver<bool>, predecessor: &Predecessor) {
    while !predecessor.is_gone() {
        if tokio::time::timeout(RELEASE, ready.wait_for(|ready| *ready)).await.is_ok() {
            return;
        }
    }
}

/// An error with its causes, as one line for each problem.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

pub(super) fn runtime(name: &'static str, threads: usize) -> Result<Runtime, ServeError> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build();
    built.map_err(ServeError::Runtime)
}

pub(super) fn open_store(
    control: &Runtime,
    config: &Config,
    predecessor: Option<&Predecessor>,
) -> Result<Arc<dyn Store>, ServeError> {
    let sealer = state::sealer(config)?;
    match &config.store.url {
        StoreUrl::Embedded { path } => {
            tracing::info!(path = %path.display(), "store: embedded");
            Ok(Arc::new(open_embedded(path, &sealer, config, predecessor)?))
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
            let _context = control.enter();
            Ok(Arc::new(RedisStore::connect(&settings, Some(sealer))?))
        }
    }
}

/// One process at a time can have the file. Where the one before has it, it is asked for it once all else is well.
fn open_embedded(
    path: &Path,
    sealer: &Sealer,
    config: &Config,
    predecessor: Option<&Predecessor>,
) -> Result<EmbeddedStore, OpenError> {
    let open = || {
        let retention = settings::of_retention(config);
        EmbeddedStore::open_keeping(path, Some(sealer.clone()), Clock::system(), retention)
    };
    let mut opened = open();
    if let (Err(OpenError::InUse { .. }), Some(predecessor)) = (&opened, predecessor) {
        predecessor.wait_for_store();
        let begun = Instant::now();
        opened = open();
        while matches!(opened, Err(OpenError::InUse { .. })) && begun.elapsed() < STORE_PATIENCE {
            std::thread::sleep(AGAIN);
            opened = open();
        }
    }
    opened
}

pub(super) fn access_log(config: &Config) -> Result<(Option<AccessLogWriter>, Option<LogGuard>), ServeError> {
    let sampled = |log: AccessLogWriter| match settings::of_sampling(config) {
        Some(sampling) => log.sampled(sampling),
        None => log,
    };
    let (log, guard) = match &config.access_log {
        AccessLog::Off => return Ok((None, None)),
        AccessLog::Stdout => AccessLogWriter::stdout().map_err(ServeError::Runtime)?,
        AccessLog::File(path) => AccessLogWriter::file(path).map_err(|source| ServeError::State {
            what: "cannot write the access log",
            path: path.clone(),
            source,
        })?,
    };
    Ok((Some(sampled(log)), Some(guard)))
}

/// The upstreams of a configuration; their background work is on `control`. One that is as it was, and names no files,
/// goes on as it is: with what it knows of its servers' health, and whose turn it is.
fn upstreams(
    config: &Config,
    before: Option<(&Config, &Upstreams)>,
    metrics: &Metrics,
    control: &Runtime,
) -> Result<Upstreams, ServeError> {
    let build = |(name, upstream): (&String, &config::Upstream)| {
        let same = before
            .filter(|(old, _)| old.upstreams.get(name) == Some(upstream) && upstream.tls.is_none())
            .and_then(|(_, upstreams)| upstreams.get(name));
        let built = match same {
            Some(same) => same.clone(),
            None => {
                Arc::new(Upstream::try_new(name, upstream.clone(), metrics.upstreams(), control.handle())?)
            }
        };
        Ok((name.clone(), built))
    };
    config.upstreams.iter().map(build).collect()
}

fn start_authz(
    runtime: &Runtime,
    listener: TcpListener,
    settings: &config::Authz,
    gate: &Arc<Gate>,
    mut stopping: watch::Receiver<bool>,
) -> Arc<Authz> {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening for forward-auth");
    }
    let authz = Authz::new(gate.clone(), settings.trusted.clone(), settings.settle_within);
    let serving = authz.clone();
    runtime.spawn(async move {
        let stop = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        if let Err(error) = serving.serve(listener, stop).await {
            tracing::error!(%error, "forward-auth stopped");
        }
    });
    authz
}

/// The admin API's socket, and what is shown there.
pub(super) struct AdminDoor {
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl AdminDoor {
    pub(super) fn open(
        listener: &config::Listener,
        sockets: &mut Sockets,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, ServeError> {
        let certificates = accept::Entry::open_admin(listener, metrics)?;
        let socket = sockets.listen("admin", listener.address)?;
        let patience = config::Limits::default().header_timeout;
        Ok(Self { socket, certificates, patience, metrics: metrics.clone() })
    }

    /// Where it is, with its real port.
    pub(super) fn address(&self) -> Option<std::net::SocketAddr> {
        self.socket.local_addr().ok()
    }
}

pub(super) fn start_admin(
    config: &Config,
    control: &Runtime,
    door: AdminDoor,
    gate: &Arc<Gate>,
    store: &Arc<dyn Store>,
    started: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ServeError> {
    let AdminDoor { socket, certificates, patience, metrics: counts } = door;
    if let Ok(address) = socket.local_addr() {
        tracing::info!(%address, tls = certificates.is_some(), "listening for the admin API");
    }
    let (metrics, datasets, clients) = (gate.clone(), gate.clone(), gate.clone());
    let client_of = Arc::new(move |peer, headers: &HeaderMap| clients.client_of(peer, headers));
    let guard = admin::Guard::new(settings::of_guesses(config), client_of, counts.registry())?;
    let account = AccountId::default_account();
    let router = admin::router(admin::Admin {
        store: store.clone(),
        account: account.clone(),
        explainer: gate.clone(),
        datasets: Arc::new(move || datasets.grantable()),
        metrics: Arc::new(move || metrics.metrics()),
        metrics_open: config.metrics == MetricsAccess::Open,
        started,
        acts_by: gate.epoch(),
        guard,
        now: jiff::Timestamp::now,
        version: env!("CARGO_PKG_VERSION"),
    });
    let router = console::router(router, store.clone(), account, jiff::Timestamp::now);
    let stop = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    Ok(control.spawn(async move {
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
    }))
}
