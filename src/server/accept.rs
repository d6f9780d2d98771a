//! Connections of clients: from the socket to Pingora.
//!
//! accept → is there room → PROXY header → is there room for this client → TLS → HTTP/2 or HTTP/1 → Pingora's `HttpProxy`.
//! What a connection is and who it comes from is settled here; what is asked on it is the gate's to judge. Each step
//! has a bound in time and size (`limits`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use pingora::apps::HttpServerApp;
use pingora::prelude::timeout;
use pingora::proxy::HttpProxy;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::{Limits, Listener};
use crate::gate::Ahead;
use crate::gate::reply::Dialect;
use crate::proxy::Proxy;
use crate::server::expiry::{Place, Teller, Use};
use crate::telemetry::Metrics;

pub(super) mod admin;
mod certificates;
mod counts;
mod crowd;
mod head;
mod http1;
mod http2;
pub mod proxy_protocol;
mod wire;

pub(super) use certificates::Certificates;
pub use certificates::TlsError;

use counts::{Closed, Counts};
use crowd::{Crowd, Seat};
use proxy_protocol::Origin;
use wire::{Io, Wire};

/// What is offered in a TLS handshake, best first.
const HTTP2_AND_1: &[&[u8]] = &[b"h2", b"http/1.1"];
const HTTP1: &[&[u8]] = &[b"http/1.1"];
/// How long nothing is accepted once the system has no more files.
const BREATH: Duration = Duration::from_millis(200);
/// How often it is looked whether all connections have ended.
const EMPTY: Duration = Duration::from_millis(5);
/// How often certificates are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What all listeners share.
pub(super) struct Site {
    proxy: Arc<HttpProxy<Proxy>>,
    limits: ArcSwap<Limits>,
    dialect: ArcSwap<Dialect>,
    /// Idle connections are to be closed.
    closing: watch::Sender<bool>,
    crowd: Arc<Crowd>,
    counts: Counts,
}

/// One listener: what is spoken there.
pub(super) struct Entry {
    certificates: Option<Arc<Certificates>>,
    http2: bool,
    /// Whose PROXY headers are believed; `None`: there are none.
    proxies: Option<Vec<IpNet>>,
}

impl Entry {
    /// What the configuration says; certificates are read.
    pub(super) fn open(
        listener: &Listener,
        trusted: &[IpNet],
        metrics: &Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let alpn = if listener.http2 { HTTP2_AND_1 } else { HTTP1 };
        Ok(Self {
            certificates: load(listener, alpn, Use::Listener, metrics)?,
            http2: listener.http2,
            proxies: listener.proxy_protocol.then(|| trusted.to_vec()),
        })
    }

    /// The certificates of the admin API.
    pub(super) fn open_admin(
        listener: &Listener,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Arc<Certificates>>, TlsError> {
        load(listener, HTTP1, Use::Admin, metrics)
    }

    pub(super) fn certificates(&self) -> Option<Arc<Certificates>> {
        self.certificates.clone()
    }
}

fn load(
    listener: &Listener,
    alpn: &'static [&'static [u8]],
    what: Use,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Certificates>>, TlsError> {
    let teller = || Teller::new(Place::new(what, &listener.address), metrics);
    let load = |tls| Certificates::load(tls, alpn, teller()).map(Arc::new);
    listener.tls.as_ref().map(load).transpose()
}

/// All certificates in use, to be read anew.
#[derive(Clone, Default)]
pub(super) struct Watched(Vec<Arc<Certificates>>);

impl Watched {
    pub(super) fn new(certificates: impl IntoIterator<Item = Arc<Certificates>>) -> Self {
        Self(certificates.into_iter().collect())
    }

    /// These, and others.
    pub(super) fn with(mut self, more: Option<Arc<Certificates>>) -> Self {
        self.0.extend(more);
        self
    }

    /// Reads all files anew. Those that cannot be used change nothing, and are told of once.
    pub(super) fn reload(&self) {
        for certificates in &self.0 {
            match certificates.reload() {
                Ok(false) => {}
                Ok(true) => tracing::info!("certificates were read anew and are in force"),
                Err(error) => {
                    tracing::error!(%error, "new certificates cannot be used; the old ones stay in force");
                }
            }
        }
    }

    /// Looks at the files again and again, for as long as the task lives.
    pub(super) async fn watch(self) {
        if self.0.is_empty() {
            return;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            self.reload();
        }
    }
}

impl Site {
    /// A site that serves by `proxy`.
    pub(super) fn new(
        proxy: HttpProxy<Proxy>,
        limits: Limits,
        dialect: Dialect,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            proxy: Arc::new(proxy),
            limits: ArcSwap::from_pointee(limits),
            dialect: ArcSwap::from_pointee(dialect),
            closing: watch::Sender::new(false),
            crowd: Arc::default(),
            counts: Counts::new(registry)?,
        }))
    }

    /// What is in force for the next connection, or the next request.
    fn limits(&self) -> Limits {
        **self.limits.load()
    }

    /// How refusals are told.
    fn dialect(&self) -> Dialect {
        **self.dialect.load()
    }

    /// Puts other limits and another dialect in force, for the next connection and the next request of each that stands.
    pub(super) fn adopt(&self, limits: Limits, dialect: Dialect) {
        self.limits.store(Arc::new(limits));
        self.dialect.store(Arc::new(dialect));
    }

    /// Accepts connections until told to stop.
    pub(super) async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        entry: Arc<Entry>,
        stopping: watch::Receiver<bool>,
    ) {
        let mut stop = stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The system is out of files, or the client is gone already.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let limits = self.limits();
            let Some(mut seat) = self.crowd.enter(&limits) else {
                self.counts.closed(Closed::Connections);
                continue;
            };
            if entry.proxies.is_none() && !seat.is_for(peer.ip(), &limits) {
                self.counts.closed(Closed::PerAddress);
                continue;
            }
            tokio::spawn(self.clone().serve(tcp, peer, entry.clone(), seat, stopping.clone()));
        }
    }

    /// Idle connections are closed, those of clients and those kept to upstreams.
    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        self.proxy.http_cleanup().await;
    }

    /// Waits until all connections have ended, for `patience` at most.
    pub(super) async fn wait_empty(&self, patience: Duration) {
        let ended = async {
            while self.crowd.len() > 0 {
                tokio::time::sleep(EMPTY).await;
            }
        };
        let _ = tokio::time::timeout(patience, ended).await;
    }

    /// How many connections there are, for the metrics.
    pub(super) fn count(&self) {
        self.counts.open(self.crowd.len());
    }

    async fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        entry: Arc<Entry>,
        mut seat: Seat,
        stopping: watch::Receiver<bool>,
    ) {
        self.count();
        match self.begin(tcp, peer, &entry, &mut seat).await {
            Ok(mut wire) => {
                let patience = self.limits().header_timeout;
                let looks = entry.http2 && (wire.is_http2() || entry.certificates.is_none());
                let begins = if looks { http2::begins(&mut wire, patience).await } else { Some(false) };
                match begins {
                    Some(true) => {
                        wire.set_http2();
                        http2::serve(&self, wire, stopping).await;
                    }
                    // h2 says what is wrong.
                    Some(false) if wire.is_http2() => http2::serve(&self, wire, stopping).await,
                    Some(false) => http1::serve(&self, wire, stopping).await,
                    None => {}
                }
            }
            Err(why) => {
                tracing::debug!(%peer, reason = why.as_str(), "a connection was closed");
                self.counts.closed(why);
            }
        }
        drop(seat);
        self.count();
    }

    /// From an accepted connection to one on which HTTP is spoken.
    async fn begin(
        &self,
        mut tcp: TcpStream,
        peer: SocketAddr,
        entry: &Entry,
        seat: &mut Seat,
    ) -> Result<Wire, Closed> {
        let limits = self.limits();
        // Without it the last piece of an answer waits for the client's acknowledgement of the one before.
        let _ = tcp.set_nodelay(true);
        let (mut client, mut first) = (peer, Bytes::new());
        if let Some(proxies) = &entry.proxies {
            let known = peer.ip().to_canonical();
            if !proxies.iter().any(|net| net.contains(&known)) {
                return Err(Closed::ProxyProtocol);
            }
            let read = timeout(limits.header_timeout, read_origin(&mut tcp)).await;
            let (origin, rest) = read.ok().flatten().ok_or(Closed::ProxyProtocol)?;
            first = rest;
            if let Origin::Client(address) = origin {
                client = address;
            }
            if !seat.is_for(client.ip(), &limits) {
                return Err(Closed::PerAddress);
            }
        }
        let ahead = Ahead::new(first, tcp);
        let io = match &entry.certificates {
            None => Io::Plain(ahead),
            Some(certificates) => {
                let handshake = TlsAcceptor::from(certificates.current()).accept(ahead);
                match timeout(limits.header_timeout, handshake).await {
                    Ok(Ok(stream)) => Io::Tls(Box::new(stream)),
                    Ok(Err(_)) | Err(_) => return Err(Closed::Handshake),
                }
            }
        };
        Ok(Wire::new(io, client))
    }
}

/// Reads a PROXY header, and what came with it. `None`: there is none.
async fn read_origin(tcp: &mut TcpStream) -> Option<(Origin, Bytes)> {
    let mut buffer = BytesMut::with_capacity(512);
    loop {
        if !matches!(tcp.read_buf(&mut buffer).await, Ok(1..)) {
            return None;
        }
        if let Some((origin, length)) = proxy_protocol::parse(&buffer).ok()? {
            let rest = buffer.split_off(length);
            return Some((origin, rest.freeze()));
        }
    }
}
