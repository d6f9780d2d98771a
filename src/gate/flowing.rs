//! Responses that are settled while they flow: those whose price only the response tells, and streams.
//!
//! Owns how such a response begins: its kind, its price up to now, its place in the list of open streams. A response whose
//! price was known before, and that is no stream, does not come here.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::Gate;
use super::facts::Request;
use super::metered::Metered;
use super::reply::Failure;
use super::streams::Case;
use super::visit::{Late, Trail, Verdict, Visit};
use crate::policy::cost::Price;
use crate::policy::route::Route;
use crate::policy::tally::{BodyKind, Flow, is_encoded};

/// Whether a request may be answered by a stream, as far as it says: then its connection is one that can be let go of.
pub(super) fn may_stream(route: &Route, headers: &HeaderMap) -> bool {
    let asks = |value: &header::HeaderValue| {
        let find = |name: &[u8]| memchr::memmem::find(value.as_bytes(), name).is_some();
        value.len() >= 8 && (find(b"event-stream") || find(b"ndjson") || find(b"jsonl"))
    };
    route.price.form().per_event.is_some()
        || headers.get(header::ACCEPT).is_some_and(asks)
        || headers.contains_key(header::UPGRADE)
}

/// Whether a response is a stream, asked of one whose price is known. What has a length is none.
pub(super) fn is_stream(response: &ResponseHeader) -> bool {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return true;
    }
    if response.headers.contains_key(header::CONTENT_LENGTH) {
        return false;
    }
    let content_type = response.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    content_type.is_some() && BodyKind::of(content_type, false).is_stream()
}

/// Whether no body follows.
pub(super) fn is_bare(method: &Method, response: &ResponseHeader) -> bool {
    let empty = || response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    *method == Method::HEAD || matches!(response.status.as_u16(), 204 | 304) || empty()
}

/// How the body is read, and whether it is compressed.
fn kind_of(method: &Method, response: &ResponseHeader) -> (BodyKind, bool) {
    if is_bare(method, response) {
        return (BodyKind::Empty, false);
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = response.headers.get(header::UPGRADE);
        let websocket = upgrade.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
        return (if websocket { BodyKind::Frames } else { BodyKind::Opaque }, false);
    }
    let codings = response.headers.get_all(header::CONTENT_ENCODING).iter();
    let content_type = response.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    (BodyKind::of(content_type, false), is_encoded(codings.map(header::HeaderValue::as_bytes)))
}

fn length_of(response: &ResponseHeader) -> Option<u64> {
    response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn stated(price: &Price, response: &mut ResponseHeader) -> Option<crate::policy::Credits> {
    let name = price.header()?;
    let values = response.headers.get_all(name).iter();
    let stated = Price::parse_header(values.map(header::HeaderValue::as_bytes));
    response.remove_header(name);
    stated
}

impl Gate {
    /// Such a response begins: it gets its tab, or it is not let out.
    pub(super) async fn begin_flow(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        let (Verdict::Passed(pass), Some((_, route))) = (&mut visit.verdict, &visit.trail.route) else {
            return Ok(());
        };
        let route = route.clone();
        let (price, status) = (&route.price, response.status.as_u16());
        let stated = stated(price, response);
        if status >= 400 {
            pass.begin_response(status);
            return Ok(());
        }
        let (kind, encoded) = kind_of(&session.req_header().method, response);
        let grows = pass.is_late();
        // What is compressed cannot be counted, and a stream of it cannot be cut.
        if encoded && (price.reads_body() || (grows && kind.is_stream())) {
            visit.late = Some(Late::Failed(Failure::EncodedResponse));
            return Error::e_explain(ErrorType::InternalError, "a response that cannot be counted");
        }
        let kind = if encoded { BodyKind::Opaque } else { kind };
        let is_stream = kind.is_stream() || response.status == StatusCode::SWITCHING_PROTOCOLS;
        if pass.is_free() && !(grows && is_stream) {
            pass.begin_response(status);
            return Ok(());
        }
        let flow = Flow::new(price.rates(pass.items(), kind, stated), kind);
        // Reading a stream again is a new stream: its key pays for nothing.
        let Some(mut tab) = pass.begin_flow(!(grows && is_stream)) else { return Ok(()) };
        let first = flow.price();
        while tab.in_hand() < first {
            match tab.asker().draw(first.0.saturating_sub(tab.in_hand().0)).await {
                Ok(found) => tab.take_in(found),
                Err(denial) if is_stream => {
                    visit.late = Some(Late::Denied(denial));
                    return Error::e_explain(ErrorType::InternalError, "a stream that cannot be paid for");
                }
                // It is delivered, and exceeds the limit by its own cost at most (law 1).
                Err(_) => break,
            }
        }
        let case = is_stream.then(|| case(session, &visit.trail, route)).flatten();
        let expires_at = visit.trail.policy.as_ref().and_then(|policy| policy.expires_at);
        let open = self.streams.open(tab, visit.leash.clone(), case, expires_at);
        pass.set_metered(Metered::begin(flow, open, grows, length_of(response)));
        Ok(())
    }
}

fn case(session: &Session, trail: &Trail, route: Arc<Route>) -> Option<Case> {
    let policy = trail.policy.as_ref()?;
    Some(Case {
        account: policy.account.clone(),
        token: policy.id.clone(),
        route,
        datasets: trail.datasets.clone(),
        operation: trail.operation?,
        page: Request::read(session, &[]).page(),
        client: trail.client,
        from_browser: trail.from_browser,
    })
}
