//! The sockets for requests: bound or taken over, served by `accept`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::accept::{Entry, Site, Watched};
use super::sockets::Sockets;
use super::{ServeError, settings};
use crate::config::Config;
use crate::proxy::Proxy;
use crate::telemetry::Metrics;

/// Sockets that are bound and not yet served. Binding comes first and by our own hand, so that an address in use is
/// an error with a name instead of a panic in a thread, and port 0 has a number before anybody is told.
pub(super) struct Listening {
    sockets: Vec<(SocketAddr, TcpListener, Arc<Entry>)>,
    conf: ServerConf,
}

/// Sockets that are served.
pub(super) struct Serving {
    /// Their addresses, with their real ports.
    pub(super) addresses: Vec<SocketAddr>,
    /// Their certificates.
    pub(super) certificates: Watched,
    site: Arc<Site>,
}

impl Serving {
    /// Puts what a configuration says of clients in force.
    pub(super) fn take(&self, config: &Config) {
        self.site.adopt(config.limits, settings::of_dialect(config.dialect));
    }

    /// Nobody listens any more: connections end by themselves, each with one more request if it has one, for `patience`
    /// at most; then those that are idle are closed.
    pub(super) async fn close(&self, patience: Duration) {
        self.site.wait_empty(patience).await;
        self.site.close().await;
    }

    /// Waits until all connections have ended, for `patience` at most.
    pub(super) async fn wait_closed(&self, patience: Duration) {
        self.site.wait_empty(patience).await;
    }
}

impl Listening {
    pub(super) fn bind(
        config: &Config,
        sockets: &mut Sockets,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, ServeError> {
        let mut bound = Vec::new();
        for listener in &config.listeners {
            let entry = Arc::new(Entry::open(listener, &config.trusted_proxies, metrics)?);
            let socket = sockets.listen("requests", listener.address)?;
            let failed = |source| ServeError::Listen { what: "requests", address: listener.address, source };
            socket.set_nonblocking(true).map_err(failed)?;
            bound.push((socket.local_addr().map_err(failed)?, socket, entry));
        }
        let keep_alive = config.upstreams.values().map(|upstream| upstream.keep_alive).sum();
        let conf =
            ServerConf { upstream_keepalive_pool_size: keep_alive, max_retries: 16, ..ServerConf::default() };
        Ok(Self { sockets: bound, conf })
    }

    /// Serves the sockets until told to stop.
    pub(super) fn start(
        self,
        config: &Config,
        runtime: &Runtime,
        proxy: Proxy,
        metrics: &Metrics,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Serving, ServeError> {
        let _context = runtime.enter();
        let proxy = http_proxy(&Arc::new(self.conf), proxy);
        let dialect = settings::of_dialect(config.dialect);
        let site = Site::new(proxy, config.limits, dialect, metrics.registry())?;
        let (mut addresses, mut certificates) = (Vec::new(), Vec::new());
        for (address, socket, entry) in self.sockets {
            let failed = |source| ServeError::Listen { what: "requests", address, source };
            let listener = tokio::net::TcpListener::from_std(socket).map_err(failed)?;
            certificates.extend(entry.certificates());
            runtime.spawn(site.clone().run(listener, entry, stopping.clone()));
            addresses.push(address);
        }
        Ok(Serving { addresses, certificates: Watched::new(certificates), site })
    }
}
