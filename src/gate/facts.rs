//! Reads what a request says of itself. The only place that looks into a Pingora `Session` for it; its body, where that
//! has to be known, is `held`'s.
//!
//! Everything after this room works on a [`Request`], so `explain` and forward-auth can ask the same questions
//! without a session.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use ipnet::IpNet;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use crate::policy::domain::Page;
use crate::policy::framing::{self, BadFraming};

/// One request, as it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// Its method.
    pub(super) method: &'a Method,
    /// Its target, byte for byte as on the request line.
    pub(super) target: &'a [u8],
    /// Its headers.
    pub(super) headers: &'a HeaderMap,
    /// The address of the other end of the connection.
    pub(super) peer: Option<IpAddr>,
    /// The host of an HTTP/2 request, which has no `Host` header.
    pub(super) authority: Option<&'a [u8]>,
    /// Whether the connection is encrypted.
    pub(super) encrypted: bool,
    /// Whether a body comes, or may come.
    pub(super) has_body: bool,
}

impl<'a> Request<'a> {
    /// Reads the request of a session, with its target as [`raw_target`] gave it.
    pub(super) fn read(session: &'a Session, target: &'a [u8]) -> Self {
        let header = session.req_header();
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        let has_body = has_body(session);
        let downstream = session.as_downstream();
        let authority = authority(session);
        let encrypted = downstream.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        Self {
            authority,
            encrypted,
            method: &header.method,
            target,
            headers: &header.headers,
            peer,
            has_body,
        }
    }

    /// Every value of one header.
    pub(super) fn values(&self, name: header::HeaderName) -> Vec<&'a [u8]> {
        self.headers.get_all(name).iter().map(header::HeaderValue::as_bytes).collect()
    }

    /// The `Host` header, or what stands for it.
    pub(super) fn host(&self) -> Option<&'a [u8]> {
        self.headers.get(header::HOST).map(header::HeaderValue::as_bytes).or(self.authority)
    }

    /// The address of the other end of the connection, as IPv4 where it is one in IPv6's clothes.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.peer.map(|address| address.to_canonical())
    }

    /// Whether the other end of the connection is one of these proxies.
    pub(super) fn is_from(&self, trusted: &[IpNet]) -> bool {
        self.peer().is_some_and(|peer| trusted.iter().any(|net| net.contains(&peer)))
    }

    /// The page it says it comes from.
    pub(super) fn page(&self) -> Page {
        Page::read(&self.values(header::ORIGIN), &self.values(header::REFERER))
    }

    /// The client's own address: the connection's other end, or behind trusted proxies the right-most address in
    /// `X-Forwarded-For` that is not theirs (`policy.md`, "Allowed domains"). An entry that is no address ends the
    /// search: what lies left of it was written by nobody we trust.
    pub(super) fn client(&self, trusted: &[IpNet]) -> Option<IpAddr> {
        self.peer().map(|peer| client_behind(peer, self.headers, trusted))
    }
}

/// [`Request::client`], of any request that came from `peer`.
pub(super) fn client_behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let mut client = peer;
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let entries = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries {
        let Some(address) = parse_address(entry) else { break };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// The target as it stands on the request line. Pingora's own view of it has lost a fragment already, and a request
/// with one is to be refused, not mended (`policy.md`, "Canonical target").
///
/// One thing is gone even here: a raw space, quote, angle bracket or control byte in the target. Pingora percent-encodes
/// those before it parses the line; what is judged and sent is then that encoded form.
pub(super) fn raw_target(session: &Session) -> Bytes {
    let Some(http1) = session.as_downstream().as_http1() else {
        return Bytes::copy_from_slice(session.req_header().raw_path());
    };
    let head = http1.get_headers_raw_bytes();
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let line = head.get(start..).unwrap_or_default();
    let line = line.get(..memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len())).unwrap_or_default();
    let after_method = memchr::memchr(b' ', line).and_then(|at| line.get(at + 1..)).unwrap_or_default();
    let end = memchr::memrchr(b' ', after_method).unwrap_or(after_method.len());
    head.slice_ref(after_method.get(..end).unwrap_or_default())
}

/// Whether a request came over HTTP/2; while its body is still to come it is in a session of Tollgate's own making
/// (`server/accept/http2/uploading`).
fn is_http2(downstream: &ServerSession) -> bool {
    downstream.as_http2().is_some() || downstream.is_custom()
}

/// The host of an HTTP/2 request, as its `:authority` names it.
fn authority(session: &Session) -> Option<&[u8]> {
    let authority = session.req_header().uri.authority().filter(|_| is_http2(session.as_downstream()))?;
    Some(authority.as_str().as_bytes())
}

/// Whether a request says in one way where it ends and whose it is ([`framing::check`]). Over HTTP/1 the bytes of its head are
/// looked at as well: of what stands there the parser before us has forgiven, or taken out, a part.
pub(super) fn framing(session: &Session) -> Result<(), BadFraming> {
    let (header, downstream) = (session.req_header(), session.as_downstream());
    if is_http2(downstream) {
        return framing::check_http2(&header.headers, authority(session));
    }
    let Some(http1) = downstream.as_http1() else {
        return framing::check(header.version, &header.headers, false);
    };
    let head = http1.get_headers_raw_bytes();
    if memchr::memchr_iter(b'\n', &head).any(|at| at == 0 || head.get(at - 1) != Some(&b'\r')) {
        return Err(BadFraming::BareLineFeed);
    }
    // Pingora takes a length that stands beside a coding out.
    let both = header.headers.contains_key(header::TRANSFER_ENCODING)
        && head.split(|byte| *byte == b'\n').any(|line| {
            const NAME: &[u8] = b"content-length:";
            line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME))
        });
    framing::check(header.version, &header.headers, both)
}

/// Over HTTP/1 a request without `Content-Length` and `Transfer-Encoding` has no body (RFC 9112, 6.3).
fn has_body(session: &Session) -> bool {
    let downstream = session.as_downstream();
    match downstream.as_http2() {
        Some(http2) => !http2.is_body_empty(),
        // Over HTTP/2, and its body had not come with its head.
        None if downstream.is_custom() => true,
        None => announces_body(&downstream.req_header().headers),
    }
}

/// Whether headers announce a body.
pub(super) fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// An entry of `X-Forwarded-For`: an address, perhaps with a port.
pub(super) fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    address
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_right_most_address_that_is_not_ours() {
        // (peer, X-Forwarded-For values, client)
        let table: &[(&str, &[&str], &str)] = &[
            ("203.0.113.9", &["10.0.0.1"], "203.0.113.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
            ("127.0.0.1", &["203.0.113.9", "10.1.2.3"], "203.0.113.9"),
            ("127.0.0.1", &["203.0.113.9, nonsense, 10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &["nonsense"], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("::ffff:127.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        ];
        let trusted = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        for (peer, forwarded, client) in table {
            let mut headers = HeaderMap::new();
            for value in *forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let request = Request {
                method: &Method::GET,
                target: b"/",
                headers: &headers,
                peer: Some(peer.parse().unwrap()),
                authority: None,
                encrypted: false,
                has_body: false,
            };
            assert_eq!(request.client(&trusted), Some(client.parse().unwrap()), "{peer} {forwarded:?}");
        }
    }
}
