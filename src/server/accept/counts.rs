//! What is counted of connections.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::head::Refusal;

/// The counters of all listeners.
pub(super) struct Counts {
    open: IntGauge,
    refused: IntCounterVec,
    bad_requests: IntCounterVec,
}

/// Why a connection is closed before anything is asked on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Closed {
    /// There are as many as may be.
    Connections,
    /// This client has as many as it may.
    PerAddress,
    /// The PROXY header is none, is late, or comes from nobody who is trusted.
    ProxyProtocol,
    /// The TLS handshake failed, or took too long.
    Handshake,
}

impl Closed {
    const ALL: [Self; 4] = [Self::Connections, Self::PerAddress, Self::ProxyProtocol, Self::Handshake];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PerAddress => "connections_per_address",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Handshake => "handshake",
        }
    }
}

impl Counts {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let open = IntGauge::new("tollgate_connections", "Open connections of clients")?;
        let refused = IntCounterVec::new(
            Opts::new(
                "tollgate_connections_refused_total",
                "Connections closed before anything was asked on them, by reason",
            ),
            &["reason"],
        )?;
        let bad_requests = IntCounterVec::new(
            Opts::new(
                "tollgate_bad_requests_total",
                "Requests refused before they were judged, by reason: their head was too long, too late or not HTTP",
            ),
            &["reason"],
        )?;
        // Each is there from the start, at zero.
        for why in Closed::ALL {
            refused.with_label_values(&[why.as_str()]);
        }
        for refusal in Refusal::ALL {
            bad_requests.with_label_values(&[refusal.wording().1]);
        }
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(bad_requests.clone()))?;
        Ok(Self { open, refused, bad_requests })
    }

    pub(super) fn open(&self, connections: usize) {
        self.open.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    pub(super) fn closed(&self, why: Closed) {
        self.refused.with_label_values(&[why.as_str()]).inc();
    }

    pub(super) fn bad_request(&self, code: &str) {
        self.bad_requests.with_label_values(&[code]).inc();
    }
}
