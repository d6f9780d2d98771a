//! Upstreams: the servers of each, whose turn it is, and what is done about those that fail.
//!
//! Rooms: `balance` lays servers out for choosing, `resolve` finds their addresses, `health` asks them whether they are
//! well, `circuit` leaves alone what fails, `retry` says what is tried again, `tls` how TLS is spoken, `server` is one of
//! them. Knows nothing of what may pass.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Method;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::config::{self, Balance, HashBy, WeightedServer};
use crate::telemetry::{TriesMetrics, UpstreamMetrics};

mod balance;
mod circuit;
mod health;
mod resolve;
mod retry;
mod server;
mod tls;

use balance::Order;
use circuit::Circuit;
use resolve::{Resolver, System, look_up};
use retry::Budget;
use server::Server;
pub(super) use server::Ticket;
use tls::Tls;

/// Streams that share one HTTP/2 connection at most.
const STREAMS: usize = 100;

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
            settings,
        });
        let found = inner.look_up_all(&mut |server, source| {
            Err(UpstreamError::Resolve { upstream: name.to_owned(), server, source })
        })?;
        inner.replace(&found);
        let mut work = Vec::new();
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
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
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

/// An address, and which server of the configuration is there.
type Found<'s> = (SocketAddr, &'s WeightedServer);

impl Inner {
    /// All servers.
    fn servers(&self) -> Vec<Arc<Server>> {
        self.all.lock().clone()
    }

    /// Every server's addresses. `failed` says what stands for one that cannot be looked up.
    fn look_up_all<E>(
        &self,
        failed: &mut dyn FnMut(String, io::Error) -> Result<Vec<SocketAddr>, E>,
    ) -> Result<Vec<Found<'_>>, E> {
        let mut all: Vec<Found<'_>> = Vec::new();
        for entry in &self.settings.servers {
            let server = &entry.server;
            let addresses = match look_up(&self.resolver, &server.host, server.port) {
                Ok(addresses) => addresses,
                Err(error) => failed(server.to_string(), error)?,
            };
            for address in addresses {
                // Two names may lead to one address; the first has it.
                if !all.iter().any(|(known, _)| *known == address) {
                    all.push((address, entry));
                }
            }
        }
        Ok(all)
    }

    /// Takes what was found as the servers; those that are known already stay what they are. Whether something changed.
    fn replace(&self, found: &[Found<'_>]) -> bool {
        let changed = {
            let mut all = self.all.lock();
            let same = |(server, (address, _)): (&Arc<Server>, &Found<'_>)| server.address == *address;
            if all.len() == found.len() && all.iter().zip(found).all(same) {
                return false;
            }
            let server = |(address, entry): &Found<'_>| {
                let known = all.iter().find(|server| server.address == *address);
                known.cloned().unwrap_or_else(|| Arc::new(self.make(*address, entry)))
            };
            let new: Vec<Arc<Server>> = found.iter().map(server).collect();
            !std::mem::replace(&mut *all, new).is_empty()
        };
        self.arrange();
        changed
    }

    /// Lays the servers out for choosing: those that are well; where none is, all of them. For if all seem ill, it is as
    /// likely the check that is wrong, and nothing is gained by asking nobody.
    fn arrange(&self) {
        let all = self.all.lock();
        let mut chosen: Vec<Arc<Server>> = all.iter().filter(|server| server.is_healthy()).cloned().collect();
        if chosen.is_empty() {
            if !all.is_empty() {
                tracing::error!(upstream = %self.name, "no server is well; all are asked all the same");
            }
            chosen.clone_from(&all);
        }
        self.order.store(Arc::new(Order::new(&chosen, &self.settings.balance)));
    }

    fn make(&self, address: SocketAddr, entry: &WeightedServer) -> Server {
        let settings = &self.settings;
        let name: Arc<str> = address.to_string().into();
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(settings.connect_timeout);
        peer.options.total_connection_timeout = Some(settings.connect_timeout);
        peer.options.read_timeout = Some(settings.read_timeout);
        peer.options.write_timeout = Some(settings.write_timeout);
        peer.options.idle_timeout = Some(settings.idle_timeout);
        if let Some(tls) = &self.tls {
            tls.dress(&mut peer, &entry.server.host);
        }
        if settings.http2 {
            // Without TLS there is nothing to agree by, so HTTP/2 is taken for granted.
            peer.options.set_http_version(2, if self.tls.is_some() { 1 } else { 2 });
            peer.options.max_h2_streams = STREAMS;
        }
        Server {
            upstream: self.name.clone(),
            address,
            metrics: self.server_metrics.of_server(&self.name, &name),
            name,
            authority: entry.server.to_string().into(),
            weight: entry.weight,
            peer,
            circuit: settings.circuit.as_ref().map(Circuit::new),
            healthy: true.into(),
            streak: 0.into(),
        }
    }

    /// Looks all names up again. One that cannot be found keeps its addresses.
    fn refresh(&self) {
        let known = self.servers();
        let found = self.look_up_all(&mut |server, error| {
            tracing::error!(
                upstream = %self.name,
                server,
                %error,
                "a server's name cannot be looked up; the addresses known are kept"
            );
            let kept = known.iter().filter(|known| *known.authority == *server);
            Ok::<_, std::convert::Infallible>(kept.map(|known| known.address).collect())
        });
        let Ok(found) = found;
        if self.replace(&found) {
            let servers: Vec<String> = found.iter().map(|(address, _)| address.to_string()).collect();
            tracing::info!(upstream = %self.name, servers = servers.join(" "), "the servers' addresses changed");
        }
    }
}

/// Looks names up again and again, until it is aborted.
async fn follow_names(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(inner.settings.resolve_interval).await;
        let asked = inner.clone();
        if tokio::task::spawn_blocking(move || asked.refresh()).await.is_err() {
            tracing::error!(upstream = %inner.name, "looking up names failed");
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

impl FromIterator<(String, Upstream)> for Upstreams {
    fn from_iter<I: IntoIterator<Item = (String, Upstream)>>(upstreams: I) -> Self {
        Self(upstreams.into_iter().map(|(name, upstream)| (name, Arc::new(upstream))).collect())
    }
}

#[cfg(test)]
mod tests;
