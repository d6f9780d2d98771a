//! Upstreams: the servers of each, and whose turn it is.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use http::header;
use pingora::http::RequestHeader;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

/// Which `Host` an upstream is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The one the client sent.
    #[default]
    Keep,
    /// The server's own `host:port`.
    Server,
}

/// What the configuration says of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// `host:port` of each server, in the order they take turns.
    pub servers: Vec<String>,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long the server may be silent.
    pub read_timeout: Duration,
    /// How long the server may take nothing in.
    pub write_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Which `Host` it is asked for.
    pub host: HostHeader,
}

/// One upstream: servers that take turns.
pub struct Upstream {
    settings: UpstreamSettings,
    turn: LoadBalancer<RoundRobin>,
    /// What the log calls each server, made once.
    names: Vec<(SocketAddr, Arc<str>)>,
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
}

impl Upstream {
    /// Resolves the servers' names, once, at the start.
    pub fn try_new(name: &str, settings: UpstreamSettings) -> std::result::Result<Self, UpstreamError> {
        let mut addresses = Vec::new();
        for server in &settings.servers {
            let failed =
                |source| UpstreamError::Resolve { upstream: name.to_owned(), server: server.clone(), source };
            let first = server.to_socket_addrs().map_err(failed)?.next();
            addresses.push(first.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?);
        }
        let failed =
            |source| UpstreamError::Resolve { upstream: name.to_owned(), server: "all".to_owned(), source };
        let names = addresses.iter().map(|address| (*address, address.to_string().into())).collect();
        let turn = LoadBalancer::try_from_iter(addresses).map_err(failed)?;
        Ok(Self { settings, turn, names })
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.settings.servers.len()
    }

    /// Whether there is no server; the configuration sees to it that there is one.
    pub fn is_empty(&self) -> bool {
        self.settings.servers.is_empty()
    }

    /// The server whose turn it is, and what the log calls it.
    pub(super) fn pick(&self) -> Result<(HttpPeer, Arc<str>)> {
        let backend = self.turn.select(b"", 256);
        let backend = backend.ok_or_else(|| Error::explain(ErrorType::ConnectError, "no server to ask"))?;
        let address = backend.addr.as_inet();
        let known = self.names.iter().find(|(known, _)| address == Some(known));
        let name = known.map_or_else(|| backend.addr.to_string().into(), |(_, name)| name.clone());
        let mut peer = HttpPeer::new(backend.addr, false, String::new());
        peer.options.connection_timeout = Some(self.settings.connect_timeout);
        peer.options.total_connection_timeout = Some(self.settings.connect_timeout);
        peer.options.read_timeout = Some(self.settings.read_timeout);
        peer.options.write_timeout = Some(self.settings.write_timeout);
        peer.options.idle_timeout = Some(self.settings.idle_timeout);
        Ok((peer, name))
    }

    /// Sets the `Host` that the server is asked for.
    pub(super) fn address_host(&self, request: &mut RequestHeader, server: Option<&str>) -> Result<()> {
        match (self.settings.host, server) {
            (HostHeader::Server, Some(server)) => request.insert_header(header::HOST, server),
            _ => Ok(()),
        }
    }
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
