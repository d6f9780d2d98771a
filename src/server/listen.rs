//! The sockets for requests: bound or taken over, served by Pingora.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::Fds;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::ServeError;
use super::connections::Counted;
use super::sockets::Sockets;
use crate::config::Config;
use crate::proxy::Proxy;

/// Bytes of requests that are read ahead: a head of usual length, read at once. What is longer, and every body, is read
/// into buffers of its own. Each connection holds this as long as it is open, so Pingora's default of 64 KiB is most of
/// what an idle stream would cost.
const READ_BUFFER: usize = 4 << 10;
/// Bytes of a response that are gathered into one write: the head and a body of usual length. Pingora's default of 1,460
/// makes two of them as soon as both together are longer, and a write costs more than copying. What may be a stream (a
/// response without a length) is written at once all the same.
const WRITE_BUFFER: usize = 20 << 10;

/// Sockets that are bound and not yet served. Binding comes first and by our own hand, so that an address in use is
/// an error with a name instead of a panic in a thread, and port 0 has a number before anybody is told.
pub(super) struct Listening {
    sockets: Vec<(SocketAddr, TcpListener)>,
    conf: ServerConf,
}

/// Sockets that are served.
pub(super) struct Serving {
    /// Their addresses, with their real ports.
    pub(super) addresses: Vec<SocketAddr>,
    connections: Counted<HttpProxy<Proxy>>,
}

impl Serving {
    /// The sockets are served no more: lets connections come to their end (`connections`).
    pub(super) async fn close(&self, patience: Duration) {
        self.connections.close(patience).await;
    }

    /// Waits until all connections have ended, for `patience` at most.
    pub(super) async fn wait_closed(&self, patience: Duration) {
        self.connections.wait_closed(patience).await;
    }
}

impl Listening {
    pub(super) fn bind(config: &Config, sockets: &mut Sockets) -> Result<Self, ServeError> {
        let mut bound = Vec::new();
        for listener in &config.listeners {
            let socket = sockets.listen("requests", listener.address)?;
            let failed = |source| ServeError::Listen { what: "requests", address: listener.address, source };
            socket.set_nonblocking(true).map_err(failed)?;
            bound.push((socket.local_addr().map_err(failed)?, socket));
        }
        let keep_alive = config.upstreams.values().map(|upstream| upstream.keep_alive).sum();
        let conf =
            ServerConf { upstream_keepalive_pool_size: keep_alive, max_retries: 16, ..ServerConf::default() };
        Ok(Self { sockets: bound, conf })
    }

    /// Serves the sockets until told to stop.
    pub(super) fn start(self, runtime: &Runtime, proxy: Proxy, stopping: watch::Receiver<bool>) -> Serving {
        let mut fds = Fds::new();
        let mut addresses = Vec::new();
        let _context = runtime.enter();
        let connections = Counted::new(http_proxy(&Arc::new(self.conf), proxy));
        let mut service = Service::new("requests".to_owned(), connections.clone());
        for (address, socket) in self.sockets {
            let listener = ListenerConfig::tcp(address.to_string());
            service.add_listener(
                listener.l4_buffer(L4BufferSettings::default().read(READ_BUFFER).write(WRITE_BUFFER)),
            );
            fds.add(address.to_string(), socket.into_raw_fd());
            addresses.push(address);
        }
        let fds = Arc::new(Mutex::new(fds));
        runtime.spawn(async move { service.start_service(Some(fds), stopping, 1).await });
        Serving { addresses, connections }
    }
}
