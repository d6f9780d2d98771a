//! The sockets for requests: bound here, served by `accept`.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::accept::{Entry, Site, Watched};
use super::{ServeError, bind, settings};
use crate::config::{Config, Limits};
use crate::gate::reply::Dialect;
use crate::proxy::Proxy;
use crate::telemetry::Metrics;

/// How many connections the system keeps for us until they are accepted; it has a bound of its own besides.
const BACKLOG: u32 = 65_535;

/// Sockets that are bound and not yet served. Binding comes first and by our own hand, so that an address in use is
/// an error with a name instead of a panic in a thread, and port 0 has a number before anybody is told.
pub(super) struct Listening {
    sockets: Vec<(SocketAddr, TcpListener, Arc<Entry>)>,
    conf: ServerConf,
    limits: Limits,
    dialect: Dialect,
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
    /// Puts other limits in force.
    #[expect(dead_code, reason = "for a reload of the configuration")]
    pub(super) fn set_limits(&self, limits: Limits) {
        self.site.set_limits(limits);
    }
}

impl Listening {
    pub(super) fn bind(config: &Config) -> Result<Self, ServeError> {
        let mut sockets = Vec::new();
        for listener in &config.listeners {
            let entry = Arc::new(Entry::open(listener, &config.trusted_proxies)?);
            let socket = bind("requests", listener.address)?;
            let failed = |source| ServeError::Listen { what: "requests", address: listener.address, source };
            socket.set_nonblocking(true).map_err(failed)?;
            sockets.push((socket.local_addr().map_err(failed)?, socket, entry));
        }
        let keep_alive = config.upstreams.values().map(|upstream| upstream.keep_alive).sum();
        let conf =
            ServerConf { upstream_keepalive_pool_size: keep_alive, max_retries: 16, ..ServerConf::default() };
        Ok(Self { sockets, conf, limits: config.limits, dialect: settings::of_dialect(config.dialect) })
    }

    /// Serves the sockets until told to stop.
    pub(super) fn start(
        self,
        runtime: &Runtime,
        proxy: Proxy,
        metrics: &Metrics,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Serving, ServeError> {
        let _context = runtime.enter();
        let proxy = http_proxy(&Arc::new(self.conf), proxy);
        let site = Site::new(proxy, self.limits, self.dialect, metrics.registry())?;
        let (mut addresses, mut certificates, mut loops) = (Vec::new(), Vec::new(), Vec::new());
        for (address, socket, entry) in self.sockets {
            // Listening again only sets the length of the queue, which std leaves at 128.
            let again = TcpSocket::from_std_stream(std::net::TcpStream::from(OwnedFd::from(socket)));
            let listener = again.listen(BACKLOG).map_err(|source| ServeError::Listen {
                what: "requests",
                address,
                source,
            })?;
            certificates.extend(entry.certificates());
            loops.push(runtime.spawn(site.clone().run(listener, entry, stopping.clone())));
            addresses.push(address);
        }
        let closing = site.clone();
        runtime.spawn(async move {
            for accepting in loops {
                let _ = accepting.await;
            }
            closing.close().await;
        });
        Ok(Serving { addresses, certificates: Watched::new(certificates), site })
    }
}
