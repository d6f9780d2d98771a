//! Health checks: servers are asked whether they are well, away from requests.
//!
//! A check is a connection of its own, made as requests' connections are: the same TLS, the same HTTP version.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header;
use pingora::Error;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::task::JoinSet;

use super::Inner;
use super::server::Server;
use crate::config::Health;

/// Marks the group of connections of checks, each its own.
const CHECKS: u64 = 1 << 61;

/// What checks are made with.
struct Checker {
    health: Health,
    connector: Connector,
    checks: AtomicU64,
}

/// Asks all servers, again and again, until it is aborted.
pub(super) async fn run(inner: Arc<Inner>, health: Health) {
    // It reads the system's authorities.
    let made = tokio::task::spawn_blocking(|| Connector::new(None)).await;
    let Ok(connector) = made else {
        tracing::error!(upstream = %inner.name, "health checks cannot be made; all servers count as well");
        return;
    };
    let interval = health.interval;
    let checker = Arc::new(Checker { health, connector, checks: AtomicU64::new(CHECKS) });
    loop {
        let mut checks = JoinSet::new();
        for server in inner.servers() {
            let checker = checker.clone();
            checks.spawn(async move {
                let result = checker.check(&server).await;
                (server, result)
            });
        }
        let mut changed = false;
        while let Some(checked) = checks.join_next().await {
            if let Ok((server, result)) = checked {
                changed |= note(&server, &result, &checker.health);
            }
        }
        if changed {
            inner.arrange();
        }
        tokio::time::sleep(interval).await;
    }
}

/// Takes a result. Whether the server's state changed by it.
fn note(server: &Server, result: &Result<(), String>, health: &Health) -> bool {
    let needed = if result.is_ok() { health.healthy_after } else { health.unhealthy_after };
    let changed = server.note_health(result.is_ok(), needed);
    if changed {
        let (upstream, name) = (&server.upstream, &server.name);
        match result {
            Ok(()) => tracing::info!(%upstream, server = %name, "a server is well again"),
            Err(why) => tracing::warn!(%upstream, server = %name, why, "a server is not well"),
        }
    }
    changed
}

impl Checker {
    async fn check(&self, server: &Server) -> Result<(), String> {
        let asked = tokio::time::timeout(self.health.timeout, self.ask(server)).await;
        match asked {
            Err(_) => Err("it took too long".to_owned()),
            // Nothing of a request is in it.
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(status))) if self.health.expect.contains(&status) => Ok(()),
            Ok(Ok(Some(status))) => Err(format!("it answered with {status}")),
        }
    }

    /// The status of the answer; `None`: a connection was enough.
    async fn ask(&self, server: &Server) -> Result<Option<u16>, Box<Error>> {
        let mut peer = HttpPeer::clone(&server.peer);
        // Never an old connection: it would say nothing of the next.
        peer.group_key = self.checks.fetch_add(1, Ordering::Relaxed);
        let (mut session, _) = self.connector.get_http_session(&peer).await?;
        let mut status = None;
        if let Some(path) = &self.health.path {
            let mut request = RequestHeader::build("GET", path.as_bytes(), Some(2))?;
            let host = self.health.host.as_deref().unwrap_or(&server.authority);
            request.insert_header(header::HOST, host)?;
            request.insert_header(header::USER_AGENT, "tollgate-health")?;
            if session.as_http2().is_some() {
                address_http2(&mut request, host, path, peer.is_tls());
            }
            session.write_request_header(Box::new(request)).await?;
            session.finish_request_body().await?;
            session.read_response_header().await?;
            status = session.response_header().map(|response| response.status.as_u16());
        }
        session.shutdown().await;
        if session.as_http2().is_some() {
            let soon = Some(Duration::from_millis(1));
            self.connector.release_http_session(session, &peer, soon).await;
        }
        Ok(status)
    }
}

/// HTTP/2 has scheme and authority in place of `Host` (RFC 9113, 8.3.1).
fn address_http2(request: &mut RequestHeader, host: &str, path: &str, tls: bool) {
    let scheme = if tls { "https" } else { "http" };
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build();
    if let Ok(uri) = uri {
        request.set_uri(uri);
        request.set_version(http::Version::HTTP_2);
        request.remove_header(&header::HOST);
    }
}
