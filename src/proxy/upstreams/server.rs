//! One server: where it is, how it is, and how many requests are under way at it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use pingora::protocols::Stream;
use pingora::upstreams::peer::HttpPeer;

use super::balance::Candidate;
use super::circuit::{Admission, Circuit};
use super::idle::Idle;
use crate::telemetry::ServerMetrics;

/// One server.
pub(super) struct Server {
    pub(super) upstream: Arc<str>,
    pub(super) address: SocketAddr,
    /// The address, as the log and the metrics call it.
    pub(super) name: Arc<str>,
    /// `host:port` as it stands in the configuration.
    pub(super) authority: Arc<str>,
    pub(super) weight: u32,
    /// How it is connected to.
    pub(super) peer: Arc<HttpPeer>,
    pub(super) circuit: Option<Circuit>,
    pub(super) healthy: AtomicBool,
    /// Answers in a row that say the other.
    pub(super) streak: AtomicU32,
    pub(super) metrics: ServerMetrics,
    pub(super) idle: Idle,
}

impl Candidate for Server {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn load(&self) -> u64 {
        u64::try_from(self.metrics.in_flight.get()).unwrap_or(0)
    }
}

impl Server {
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    /// Lets a request in, unless the server is left alone.
    pub(super) fn try_take(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        let admission = self.circuit.as_ref().map_or(Admission::Yes, |circuit| circuit.admit(now));
        if admission == Admission::No {
            return None;
        }
        if admission == Admission::Probe {
            tracing::info!(upstream = %self.upstream, server = %self.name, "one request tries a server that was left alone");
        }
        self.metrics.in_flight.inc();
        Some(Ticket { server: self.clone(), open_probe: admission == Admission::Probe, told: false })
    }

    /// Takes the result of a health check. Whether the server's state changed by it.
    pub(super) fn note_health(&self, well: bool, needed: u32) -> bool {
        if self.is_healthy() == well {
            self.streak.store(0, Ordering::Relaxed);
            return false;
        }
        if self.streak.fetch_add(1, Ordering::Relaxed) + 1 < needed {
            return false;
        }
        self.streak.store(0, Ordering::Relaxed);
        self.healthy.store(well, Ordering::Release);
        self.metrics.up.set(i64::from(well));
        true
    }
}

/// One request's place at a server: counted while this lives, however the request ends.
pub(in crate::proxy) struct Ticket {
    server: Arc<Server>,
    /// Whether it is the one that tries a server that was left alone, and has no result yet.
    open_probe: bool,
    told: bool,
}

impl Ticket {
    /// How the server is connected to.
    pub(in crate::proxy) fn peer(&self) -> &Arc<HttpPeer> {
        &self.server.peer
    }

    /// An idle connection to the server.
    pub(in crate::proxy) fn take_idle(&self) -> Option<Stream> {
        self.server.idle.take(Instant::now())
    }

    /// Keeps a connection to the server for the next one.
    pub(in crate::proxy) fn keep(&self, stream: Stream) {
        self.server.idle.put(stream, Instant::now());
    }

    /// What the log calls the server.
    pub(in crate::proxy) fn name(&self) -> &Arc<str> {
        &self.server.name
    }

    /// `host:port` of the server as it stands in the configuration.
    pub(in crate::proxy) fn authority(&self) -> &str {
        &self.server.authority
    }

    pub(in crate::proxy) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The server failed this request. Only the first result counts.
    pub(in crate::proxy) fn fail(&mut self, why: &str) {
        let probe = std::mem::take(&mut self.open_probe);
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let server = &self.server;
        if server.circuit.as_ref().is_some_and(|circuit| circuit.fail(Instant::now(), probe)) {
            server.metrics.circuit_open.set(1);
            tracing::warn!(
                upstream = %server.upstream,
                server = %server.name,
                why,
                "a server failed too often and is left alone for a while"
            );
        }
    }

    /// The server answered this request. Only the first result counts.
    pub(in crate::proxy) fn succeed(&mut self) {
        let probe = std::mem::take(&mut self.open_probe);
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let server = &self.server;
        if server.circuit.as_ref().is_some_and(|circuit| circuit.succeed(probe)) {
            server.metrics.circuit_open.set(0);
            tracing::info!(upstream = %server.upstream, server = %server.name, "a server that was left alone is asked again");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.server.metrics.in_flight.dec();
        if let (true, Some(circuit)) = (self.open_probe, &self.server.circuit) {
            circuit.abandon(Instant::now());
        }
    }
}
