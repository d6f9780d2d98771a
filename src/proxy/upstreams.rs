//! Upstreams: the servers of each, whose turn it is, and what is done about those that fail.
//!
//! Rooms: `members` says which servers there are, `resolve` finds their addresses, `balance` lays them out for choosing,
//! `health` asks them whether they are well, `circuit` leaves alone what fails, `idle` keeps connections, `retry` says
//! what is tried again, `tls` how TLS is spoken, `server` is one of them. Knows nothing of what may pass.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Method;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::config::{self, Balance, HashBy, WeightedServer};
use crate::telemetry::{TriesMetrics, UpstreamMetrics};

mod balance;
mod circuit;
mod health;
mod idle;
mod members;
mod resolve;
mod retry;
mod server;
mod tls;

use balance::Order;
use members::{follow_names, tend_idle};
use resolve::{Resolver, System};
use retry::Budget;
use server::Server;
pub(super) use server::Ticket;
use tls::Tls;

/// One upstream: servers that serve the same. Its background work ends when it is dropped.
pub struct Upstream {
    inner: Arc<Inner>,
    work: Vec<AbortHandle>,
}

struct Inner {
    name: Arc<str>,
    settings: config::Upstream,
    tls: Option<Tls>,
    resolver: Arc<dyn Resolver>,
    server_metrics: UpstreamMetrics,
    metrics: TriesMetrics,
    /// All servers; whoever changes them holds this.
    all: Mutex<Vec<Arc<Server>>>,
    /// Those to choose from.
    order: ArcSwap<Order<Server>>,
    turn: AtomicUsize,
    running: Arc<AtomicUsize>,
    budget: Option<Budget>,
    /// For idle connections.
    room: idle::Room,
}

/// Why an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A server's name does not lead to an address.
    #[error("upstream `{upstream}`: the server `{server}` cannot be resolved: {source}")]
    Resolve {
        /// The upstream's name.
        upstream: String,
        /// The server as configured.
        server: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// A file of its TLS settings cannot be used.
    #[error("upstream `{upstream}`: {path}: {why}")]
    Tls {
        /// The upstream's name.
        upstream: String,
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Why no server gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoServer {
    /// As many requests are under way as may be.
    Busy,
    /// All servers are left alone after failures.
    AllOpen,
}

/// Why a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// A connection did not stand: nothing was sent.
    Connect,
    /// A connection broke before an answer came.
    Reset,
    /// The answer was this status.
    Status(u16),
}

/// A request's place among those under way.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Upstream {
    /// Resolves the servers' names, reads the TLS files and begins the background work on `runtime`, which must outlive it.
    pub fn try_new(
        name: &str,
        settings: config::Upstream,
        metrics: &UpstreamMetrics,
        runtime: &Handle,
    ) -> Result<Self, UpstreamError> {
        Self::try_new_by(name, settings, metrics, runtime, Arc::new(System))
    }

    fn try_new_by(
        name: &str,
        settings: config::Upstream,
        metrics: &UpstreamMetrics,
        runtime: &Handle,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, UpstreamError> {
        let tls = settings.tls.as_ref().map(Tls::try_load).transpose();
        let tls = tls.map_err(|bad| UpstreamError::Tls {
            upstream: name.to_owned(),
            path: bad.path,
            why: bad.why,
        })?;
        if settings.tls.as_ref().is_some_and(|tls| tls.trust_anyone) {
            tracing::warn!(
                upstream = name,
                "verify: false: whoever answers for its servers is believed; nothing protects what is sent there"
            );
        }
        let inner = Arc::new(Inner {
            name: name.into(),
            tls,
            resolver,
            server_metrics: metrics.clone(),
            metrics: metrics.of_upstream(name),
            all: Mutex::default(),
            order: ArcSwap::from_pointee(Order::new(&[], &settings.balance)),
            turn: AtomicUsize::new(0),
            running: Arc::default(),
            budget: settings.retries.as_ref().map(|retries| Budget::new(retries.budget)),
            room: idle::Room::new(settings.keep_alive, settings.idle_timeout),
            settings,
        });
        let found = inner.look_up_all(&mut |server, source| {
            Err(UpstreamError::Resolve { upstream: name.to_owned(), server, source })
        })?;
        inner.replace(&found);
        let mut work = vec![runtime.spawn(tend_idle(inner.clone())).abort_handle()];
        let is_name = |entry: &WeightedServer| entry.server.host.parse::<std::net::IpAddr>().is_err();
        if inner.settings.servers.iter().any(is_name) {
            work.push(runtime.spawn(follow_names(inner.clone())).abort_handle());
        }
        if let Some(health) = inner.settings.health.clone() {
            work.push(runtime.spawn(health::run(inner.clone(), health)).abort_handle());
        }
        Ok(Self { inner, work })
    }

    /// What is configured.
    pub(super) fn settings(&self) -> &config::Upstream {
        &self.inner.settings
    }

    /// A request comes: takes a place for it, unless too many are under way.
    pub(super) fn enter(&self) -> Result<Slot, NoServer> {
        let inner = &self.inner;
        if let Some(budget) = &inner.budget {
            budget.fill();
        }
        let slot = Slot(inner.running.clone());
        let before = inner.running.fetch_add(1, Ordering::AcqRel);
        if inner.settings.max_requests.is_some_and(|most| before >= most) {
            inner.metrics.busy.inc();
            return Err(NoServer::Busy);
        }
        Ok(slot)
    }

    /// The server whose turn it is; one that was tried already only where there is no other.
    pub(super) fn pick(&self, key: &[u8], tried: &[SocketAddr]) -> Result<Ticket, NoServer> {
        let order = self.inner.order.load();
        // A request takes one turn, however often it is tried: else those that come after a failing server's would always
        // be tried there first.
        let turn = if tried.is_empty() {
            self.inner.turn.fetch_add(1, Ordering::Relaxed)
        } else {
            self.inner.turn.load(Ordering::Relaxed)
        };
        let now = Instant::now();
        let untried =
            order.find(
                turn,
                key,
                |server| {
                    if tried.contains(&server.address) { None } else { server.try_take(now) }
                },
            );
        let found = untried.or_else(|| {
            if tried.is_empty() { None } else { order.find(turn, key, |server| server.try_take(now)) }
        });
        found.ok_or_else(|| {
            self.inner.metrics.circuit.inc();
            NoServer::AllOpen
        })
    }

    /// What is hashed to choose a server, if that is so.
    pub(super) fn hash_by(&self) -> Option<&HashBy> {
        match &self.inner.settings.balance {
            Balance::Hash(by) => Some(by),
            _ => None,
        }
    }

    /// Whether a status counts as a failure of the server.
    pub(super) fn is_failure(&self, status: u16) -> bool {
        self.inner.settings.circuit.as_ref().is_some_and(|circuit| circuit.statuses.contains(&status))
    }

    /// Whether a request that was tried so often is tried again. Where it is, that is counted.
    pub(super) fn tries_again(&self, why: Again, method: &Method, tries: usize) -> bool {
        let (inner, metrics) = (&self.inner, &self.inner.metrics);
        let Some(retries) = &inner.settings.retries else {
            // What was not sent can be sent to each other server.
            let again = why == Again::Connect && tries < inner.all.lock().len();
            if again {
                metrics.connect.inc();
            }
            return again;
        };
        let listed = match why {
            Again::Connect => retries.connect,
            Again::Reset => retries.reset && retry::may_be_seen_twice(retries, method),
            Again::Status(status) => {
                retries.statuses.contains(&status) && retry::may_be_seen_twice(retries, method)
            }
        };
        if !listed || tries >= retries.attempts as usize {
            return false;
        }
        // A connection that did not stand costs no server anything.
        if why != Again::Connect && inner.budget.as_ref().is_some_and(|budget| !budget.take()) {
            metrics.retry_budget.inc();
            return false;
        }
        match why {
            Again::Connect => metrics.connect.inc(),
            Again::Reset => metrics.reset.inc(),
            Again::Status(_) => metrics.status.inc(),
        }
        true
    }

    /// A request is tried again because an idle connection was closed meanwhile.
    pub(super) fn note_reuse(&self) {
        self.inner.metrics.reuse.inc();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for work in &self.work {
            work.abort();
        }
    }
}

/// What is left of a request's time in all, if that is bounded.
pub(super) fn time_left(settings: &config::Upstream, began: Instant) -> Option<Duration> {
    settings.request_timeout.map(|all| all.saturating_sub(began.elapsed()))
}

/// All upstreams by name.
#[derive(Default)]
pub struct Upstreams(BTreeMap<String, Arc<Upstream>>);

impl Upstreams {
    /// One upstream.
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }
}

impl FromIterator<(String, Arc<Upstream>)> for Upstreams {
    fn from_iter<I: IntoIterator<Item = (String, Arc<Upstream>)>>(upstreams: I) -> Self {
        Self(upstreams.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
