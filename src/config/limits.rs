//! `limits`: what one client may take of the gate: size, time, connections.

use std::time::Duration;

use super::reader::{Fields, Item, Keys, Read};

pub(super) const KEYS: Keys = Keys {
    known: &[
        "request_header_size",
        "request_headers",
        "uri_length",
        "request_body",
        "header_timeout",
        "body_timeout",
        "write_timeout",
        "keepalive_timeout",
        "keepalive_requests",
        "connections",
        "connections_per_address",
        "http2_streams",
    ],
    later: &[],
};

/// What one client may take of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest head of a request, in bytes; over HTTP/2 its fields, each with 32 bytes more (RFC 9113, 6.5.2).
    pub request_header_size: usize,
    /// The most header fields.
    pub request_headers: usize,
    /// The longest request target, in bytes.
    pub uri_length: usize,
    /// The longest body, in bytes.
    pub request_body: u64,
    /// How long a whole head may take, a TLS handshake, and a PROXY header.
    pub header_timeout: Duration,
    /// How long the next piece of a body may take.
    pub body_timeout: Duration,
    /// How long a client may take nothing of its response.
    pub write_timeout: Duration,
    /// How long a connection may lie idle between two requests.
    pub keepalive_timeout: Duration,
    /// After how many requests a connection is closed; 0: never.
    pub keepalive_requests: u32,
    /// The most connections; 0: as many as the system has files.
    pub connections: usize,
    /// The most connections of one address, or of one IPv6 /64; 0: as many.
    pub connections_per_address: usize,
    /// The most requests at a time on one HTTP/2 connection.
    pub http2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_header_size: 32 << 10,
            request_headers: 100,
            uri_length: 8 << 10,
            request_body: 128 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_mins(1),
            keepalive_timeout: Duration::from_mins(1),
            keepalive_requests: 0,
            connections: 0,
            connections_per_address: 0,
            http2_streams: 100,
        }
    }
}

/// Reads `limits`.
pub(super) fn read(item: &Item<'_>) -> Read<Limits> {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_hours(1);
    let fields = item.fields(&KEYS, "a mapping such as `request_body: 16MiB`")?;
    let own = Limits::default();
    let size = |key: &str, default: usize, from: u64, to: u64| {
        fields.or(key, default, |item| item.size(from..=to).map(to_usize))
    };
    let request_header_size = size("request_header_size", own.request_header_size, 1 << 10, 1 << 20);
    let uri_length = size("uri_length", own.uri_length, 64, 64 << 10);
    let request_body = fields.or("request_body", own.request_body, |item| item.size(0..=1 << 40));
    // Pingora's parser takes 256 at most.
    let request_headers = count(&fields, "request_headers", own.request_headers, 1, 256);
    let keepalive_requests = count(&fields, "keepalive_requests", 0, 0, 1_000_000_000);
    let connections = count(&fields, "connections", own.connections, 0, 10_000_000);
    let connections_per_address =
        count(&fields, "connections_per_address", own.connections_per_address, 0, 10_000_000);
    let http2_streams = count(&fields, "http2_streams", 100, 1, 10_000);
    let time =
        |key: &str, default: Duration| fields.or(key, default, |item| item.duration(SHORTEST..=LONGEST));
    let header_timeout = time("header_timeout", own.header_timeout);
    let body_timeout = time("body_timeout", own.body_timeout);
    let write_timeout = time("write_timeout", own.write_timeout);
    let keepalive_timeout = time("keepalive_timeout", own.keepalive_timeout);
    Ok(Limits {
        request_header_size: request_header_size?,
        request_headers: request_headers?,
        uri_length: uri_length?,
        request_body: request_body?,
        header_timeout: header_timeout?,
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        keepalive_timeout: keepalive_timeout?,
        keepalive_requests: u32::try_from(keepalive_requests?).unwrap_or(u32::MAX),
        connections: connections?,
        connections_per_address: connections_per_address?,
        http2_streams: u32::try_from(http2_streams?).unwrap_or(u32::MAX),
    })
}

fn count(fields: &Fields<'_>, key: &str, default: usize, from: u64, to: u64) -> Read<usize> {
    fields.or(key, default, |item| item.integer(from..=to).map(to_usize))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
