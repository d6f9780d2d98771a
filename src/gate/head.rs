//! The head of a plain request, written as it goes onto the wire to an HTTP/1 upstream.
//!
//! The same head as [`Gate::upstream_request_filter`] makes of Pingora's copy of the request, without the copy. What it
//! must hold and what it must not is `forward`'s to say; here is only which requests are plain enough: `GET`, without a
//! body, with nothing in their fields that has to be mended. All others take the long way.

use http::{HeaderName, HeaderValue, Method, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::facts::Request;
use super::forward::{self, Fields};
use super::visit::Verdict;
use super::{Gate, Visit};
use crate::telemetry::{TRACEPARENT, TRACESTATE};

/// A head of usual length.
const USUAL: usize = 768;

/// What a proxy changes in a head after the gate: of both the client's fields and the gate's.
pub(crate) trait Changes {
    /// The target, instead of the judged one.
    fn target(&self, judged: &str) -> Option<String>;
    /// Whether fields of this name (in any case) are left out.
    fn leaves_out(&self, name: &str) -> bool;
}

/// A head that is being written.
pub(crate) struct PlainHead<'c, C> {
    wire: Vec<u8>,
    changes: &'c C,
}

impl<C: Changes> PlainHead<'_, C> {
    /// Adds a field whose value is known to be fit for one.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.write(name.as_str().as_bytes(), value.as_bytes());
    }

    /// Adds the host, where the client's was left out.
    pub(crate) fn host(&mut self, host: &str) -> pingora::Result<()> {
        self.write_checked("Host", host.as_bytes())
    }

    /// The whole head.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.wire.extend_from_slice(b"\r\n");
        self.wire
    }

    fn write_checked(&mut self, name: &str, value: &[u8]) -> pingora::Result<()> {
        if !value.iter().all(|byte| is_of_value(*byte)) {
            return Err(bad_value());
        }
        self.write(name.as_bytes(), value);
        Ok(())
    }

    fn write(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b": ", value, b"\r\n"] {
            self.wire.extend_from_slice(part);
        }
    }
}

impl<C: Changes> Fields for PlainHead<'_, C> {
    fn field(&mut self, name: &'static str, value: &[u8]) -> pingora::Result<()> {
        if self.changes.leaves_out(name) { Ok(()) } else { self.write_checked(name, value) }
    }
}

/// Whether a byte may stand in a field's value (RFC 9110, 5.5).
fn is_of_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cold]
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn bad_value() -> Box<pingora::Error> {
    pingora::Error::explain(
        pingora::ErrorType::InvalidHTTPHeader,
        "a field for the upstream has no fit value",
    )
}

/// What is to be done with a client's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    /// The long way knows what to do.
    Unusual,
}

/// What a client's field means for its request.
fn fate(name: &HeaderName, value: &HeaderValue) -> Fate {
    if *name == header::CONNECTION {
        // For this hop alone. What names other fields takes them out as well.
        let value = value.as_bytes();
        let alone = value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
        return if alone { Fate::Drop } else { Fate::Unusual };
    }
    match name.as_str() {
        "content-length"
        | "transfer-encoding"
        | "te"
        | "trailer"
        | "upgrade"
        | "expect"
        | "http2-settings"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization" => Fate::Unusual,
        _ if forward::is_removed(name) => Fate::Drop,
        _ if forward::is_tainted(value.as_bytes()) => Fate::Unusual,
        _ => Fate::Pass,
    }
}

/// Whether a request asks in the plainest of ways, its fields aside.
fn asks_plainly(request: &RequestHeader) -> bool {
    request.method == Method::GET
        && request.version == Version::HTTP_11
        && request.raw_path().first() == Some(&b'/')
        && request.has_case()
}

impl Gate {
    /// What the upstream gets of a plain request, but for what [`Gate::end_plain_head`] adds once its server is chosen.
    /// `None`: it is not plain, or was not let through.
    pub(crate) fn plain_head<'c, C: Changes>(
        session: &Session,
        visit: &Visit,
        changes: &'c C,
    ) -> Option<PlainHead<'c, C>> {
        let (Verdict::Passed(_), Some(policy)) = (&visit.verdict, &visit.trail.policy) else { return None };
        let header = session.req_header();
        if visit.leash.is_some()
            || visit.held.is_some()
            || session.as_downstream().as_http1().is_none()
            || !asks_plainly(header)
        {
            return None;
        }
        let rewritten = changes.target(&visit.trail.wire);
        let target = rewritten.as_deref().unwrap_or(&visit.trail.wire);
        if target.bytes().any(|byte| byte <= b' ') {
            return None;
        }
        let whole = visit.trail.route.as_ref().is_some_and(|(_, route)| route.price.reads_body());
        let mut head = PlainHead { wire: Vec::with_capacity(USUAL), changes };
        for part in [b"GET ", target.as_bytes(), b" HTTP/1.1\r\n"] {
            head.wire.extend_from_slice(part);
        }
        let (mut hosts, mut cookies) = (0, 0);
        for ((name, value), (spelt, _)) in header.headers.iter().zip(header.case_header_iter()) {
            match fate(name, value) {
                Fate::Pass => {}
                Fate::Drop => continue,
                Fate::Unusual => return None,
            }
            hosts += u8::from(*name == header::HOST);
            cookies += u8::from(*name == header::COOKIE);
            let is_told_anew = visit.traced.is_some() && [TRACEPARENT, TRACESTATE].contains(name);
            if is_told_anew || (whole && forward::PARTIAL.contains(name)) || changes.leaves_out(name.as_str())
            {
                continue;
            }
            head.write(spelt.as_slice(), value.as_bytes());
        }
        if hosts != 1 || cookies > 1 {
            return None;
        }
        let request = Request::read(session, &[]);
        let settings = &visit.rules.settings;
        let sender =
            forward::Sender { token: &policy.id, account: &policy.account, request_id: &visit.request_id };
        let trusted = request.is_from(&settings.trusted_proxies);
        forward::introduce(&mut head, &sender).ok()?;
        forward::trace(&mut head, &request, trusted, settings.forwarded).ok()?;
        Some(head)
    }

    /// Adds what is known only once a server is chosen.
    pub(crate) fn end_plain_head<C: Changes>(visit: &mut Visit, head: &mut PlainHead<'_, C>) {
        let Some(traced) = &mut visit.traced else { return };
        for (name, value) in traced.fields() {
            if !head.changes.leaves_out(name.as_str()) {
                head.add(&name, &value);
            }
        }
    }
}
