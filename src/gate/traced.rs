//! What a trace tells of a request: one span of the request itself, one of its decision with what that waited for, one
//! for each try of a server. Names and attributes are OpenTelemetry's semantic conventions for HTTP; `tollgate.*` is ours.
//!
//! Nothing here may hold a token: the path is the canonical one, without its query, which no token can be part of.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::pass::Pass;
use super::visit::{Verdict, Visit, method_name};
use crate::policy::token::contains_token;
use crate::telemetry::{Context, Kind, Span, SpanId, TRACEPARENT, TRACESTATE, Trace, Tracer, Value};

/// Something that a decision had to wait for.
pub(super) struct Wait {
    what: &'static str,
    start: Instant,
    end: Instant,
}

/// What a decision waited for; kept only for requests that are traced.
#[derive(Default)]
pub(super) struct Waits(Option<Vec<Wait>>);

impl Waits {
    /// Keeps what follows.
    pub(super) fn begin(&mut self) {
        self.0 = Some(Vec::new());
    }

    /// Keeps one that was timed elsewhere.
    pub(super) fn add(&mut self, what: &'static str, start: Instant, end: Instant) {
        if let Some(waits) = &mut self.0 {
            waits.push(Wait { what, start, end });
        }
    }

    /// Waits for something. What is there at once is no wait.
    pub(super) async fn of<F: Future>(&mut self, what: &'static str, future: F) -> F::Output {
        let Some(waits) = &mut self.0 else { return future.await };
        let (mut future, start, mut waited) = (pin!(future), Instant::now(), false);
        let output = poll_fn(|context| {
            let poll = future.as_mut().poll(context);
            waited |= poll.is_pending();
            match poll {
                Poll::Ready(output) => Poll::Ready(output),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if waited {
            waits.push(Wait { what, start, end: Instant::now() });
        }
        output
    }
}

/// A server that was tried.
struct Try {
    span: SpanId,
    server: Option<Arc<str>>,
    start: Instant,
    end: Option<Instant>,
    status: Option<u16>,
}

/// A request that is part of a trace.
pub(super) struct Traced {
    pub(super) context: Context,
    tries: Vec<Try>,
}

impl Traced {
    pub(super) fn new(context: Context) -> Self {
        Self { context, tries: Vec::new() }
    }

    /// A server was chosen: the one before did not answer.
    pub(super) fn choose(&mut self, server: Arc<str>) {
        let now = Instant::now();
        self.end_try(now);
        self.begin_try(Some(server), now);
    }

    fn begin_try(&mut self, server: Option<Arc<str>>, start: Instant) {
        self.tries.push(Try { span: SpanId::generate(), server, start, end: None, status: None });
    }

    fn end_try(&mut self, now: Instant) {
        if let Some(last) = self.tries.last_mut() {
            last.end.get_or_insert(now);
        }
    }

    /// The last server has begun to answer.
    pub(super) fn answered(&mut self, status: u16) {
        if let Some(last) = self.tries.last_mut() {
            last.status = Some(status);
        }
    }

    /// Tells the upstream which trace this is, in place of whatever the client said.
    pub(super) fn tell(&mut self, upstream: &mut RequestHeader) -> pingora::Result<()> {
        upstream.remove_header(&TRACESTATE);
        for (name, value) in self.fields() {
            upstream.insert_header(name, value)?;
        }
        Ok(())
    }

    /// The fields that tell it.
    pub(super) fn fields(&mut self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        if self.tries.is_empty() {
            // A proxy that does not say which server it chose.
            self.begin_try(None, Instant::now());
        }
        let parent = self.tries.last().map(|last| self.context.told(last.span).to_header());
        let parent = parent.and_then(|parent| HeaderValue::from_str(&parent).ok());
        let state = self.context.state.clone();
        parent.map(|parent| (TRACEPARENT, parent)).into_iter().chain(state.map(|state| (TRACESTATE, state)))
    }
}

/// The spans of a request that has ended.
pub(super) fn spans(
    tracer: &Tracer,
    session: &Session,
    visit: &mut Visit,
    status: u16,
    now: Instant,
) -> Option<Trace> {
    let mut traced = visit.traced.take()?;
    if !traced.context.sampled {
        visit.traced = Some(traced);
        return None;
    }
    traced.end_try(now);
    let root = traced.context.span;
    let mut spans = vec![server_span(tracer, session, visit, &traced.context, status, now)];
    if let Some(decided) = visit.decided {
        let judged = child(root, "judge", visit.started, decided);
        for wait in visit.trail.waits.0.take().unwrap_or_default() {
            spans.push(child(judged.id, wait.what, wait.start, wait.end));
        }
        spans.push(judged);
    }
    let method = method_name(&session.req_header().method);
    for (number, tried) in traced.tries.iter().enumerate() {
        spans.push(client_span(root, method, visit.upstream(), tried, number));
    }
    let trace = Trace { id: traced.context.trace, state: traced.context.state.clone(), spans };
    visit.traced = Some(traced);
    Some(trace)
}

fn child(parent: SpanId, name: &'static str, start: Instant, end: Instant) -> Span {
    Span {
        id: SpanId::generate(),
        parent: Some(parent),
        name: Cow::Borrowed(name),
        kind: Kind::Internal,
        start,
        end,
        attributes: Vec::new(),
        failed: false,
    }
}

fn client_span(
    root: SpanId,
    method: &'static str,
    upstream: Option<&str>,
    tried: &Try,
    number: usize,
) -> Span {
    let mut attributes = vec![("http.request.method", semantic(method))];
    if let Some(name) = upstream {
        attributes.push(("tollgate.upstream", name.to_owned().into()));
    }
    if let Some(server) = &tried.server {
        address(&mut attributes, server);
    }
    if number > 0 {
        attributes.push(("http.request.resend_count", (number as u64).into()));
    }
    match tried.status {
        Some(status) => attributes.push(("http.response.status_code", u64::from(status).into())),
        None => attributes.push(("error.type", "no_response".into())),
    }
    Span {
        id: tried.span,
        parent: Some(root),
        name: Cow::Borrowed(method),
        kind: Kind::Client,
        start: tried.start,
        end: tried.end.unwrap_or(tried.start),
        attributes,
        failed: tried.status.is_none_or(|status| status >= 400),
    }
}

fn server_span(
    tracer: &Tracer,
    session: &Session,
    visit: &Visit,
    context: &Context,
    status: u16,
    now: Instant,
) -> Span {
    let header = session.req_header();
    let method = method_name(&header.method);
    let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let mut attributes = vec![
        ("http.request.method", semantic(method)),
        ("url.scheme", if secure { "https" } else { "http" }.into()),
        ("tollgate.request_id", visit.request_id.clone().into()),
        ("tollgate.code", visit.verdict_name().into()),
    ];
    let path = visit.trail.wire.split('?').next().unwrap_or_default();
    if !path.is_empty() {
        attributes.push(("url.path", path.to_owned().into()));
    }
    if let Some(host) = header.headers.get(http::header::HOST).and_then(told_host) {
        address(&mut attributes, &host);
    }
    if status > 0 {
        attributes.push(("http.response.status_code", u64::from(status).into()));
    }
    if let Some(route) = visit.trail.route_name() {
        attributes.push(("http.route", route.to_owned().into()));
    }
    if let Some(client) = visit.trail.client.filter(|_| tracer.tells_clients()) {
        attributes.push(("client.address", client.to_string().into()));
    }
    if let Some(policy) = visit.trail.policy.as_deref() {
        attributes.push(("tollgate.token_id", policy.id.to_string().into()));
        attributes.push(("tollgate.account", policy.account.to_string().into()));
    }
    if let Verdict::Passed(pass) = &visit.verdict {
        attributes.push(("tollgate.credits", pass.charged().0.into()));
        attributes.push(("tollgate.pool", pass.permit().pool().as_str().into()));
    }
    let ended = match &visit.verdict {
        Verdict::Passed(pass) => Pass::ended(pass),
        _ => None,
    };
    if let Some(denial) = ended {
        attributes.push(("tollgate.ended", denial.code().into()));
    }
    let failed = status >= 500 || visit.failure.is_some();
    if failed {
        let kind = visit.failure.map_or_else(|| status.to_string().into(), |failure| failure.code().into());
        attributes.push(("error.type", kind));
    }
    Span {
        id: context.span,
        parent: context.parent,
        name: visit
            .trail
            .route_name()
            .map_or(Cow::Borrowed(method), |route| format!("{method} {route}").into()),
        kind: Kind::Server,
        start: visit.started,
        end: now,
        attributes,
        failed,
    }
}

/// The conventions' word for a method that is none of the usual.
fn semantic(method: &'static str) -> Value {
    if method == "OTHER" { "_OTHER" } else { method }.into()
}

/// A `Host` that is one, and short: a client may send anything there.
fn told_host(host: &HeaderValue) -> Option<String> {
    let usual =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let bytes = host.as_bytes();
    let told = bytes.len() <= 255 && bytes.iter().all(usual) && !contains_token(&bytes.to_ascii_lowercase());
    told.then(|| host.to_str().ok().map(str::to_owned)).flatten()
}

fn address(attributes: &mut Vec<(&'static str, Value)>, authority: &str) {
    let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((host, port)) if !host.is_empty() => {
            attributes.push(("server.address", host.to_owned().into()));
            attributes.push(("server.port", u64::from(port).into()));
        }
        _ => attributes.push(("server.address", authority.to_owned().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_waited_for_is_a_wait() {
        let mut waits = Waits::default();
        waits.of("off", tokio::task::yield_now()).await;
        assert!(waits.0.is_none());
        waits.begin();
        assert_eq!(waits.of("at once", async { 7 }).await, 7);
        waits.of("waited", tokio::task::yield_now()).await;
        let kept: Vec<_> = waits.0.unwrap().iter().map(|wait| wait.what).collect();
        assert_eq!(kept, ["waited"]);
    }

    #[test]
    fn an_authority_is_told_in_its_parts() {
        let table = [
            ("a.example:80", "a.example", Some(80)),
            ("a.example", "a.example", None),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("a:b", "a:b", None),
        ];
        for (text, host, port) in table {
            let mut attributes = Vec::new();
            address(&mut attributes, text);
            let mut expected = vec![("server.address", Value::from(host.to_owned()))];
            expected.extend(port.map(|port: u64| ("server.port", port.into())));
            assert_eq!(attributes, expected);
        }
        let token = format!("PK_{}", "0".repeat(32));
        assert_eq!(told_host(&HeaderValue::from_str(&token).unwrap()), None);
        assert_eq!(told_host(&HeaderValue::from_static("a b")), None);
        assert_eq!(semantic(method_name(&http::Method::from_bytes(b"X").unwrap())), "_OTHER".into());
    }
}
