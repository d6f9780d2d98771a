//! One request's state on its way through the phases, and its line in the access log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{HeaderValue, Method};
use serde::Serialize;

use super::pass::Pass;
use super::reply::Failure;
use crate::policy::route::Route;
use crate::policy::{DatasetId, Denial, Note, Operation, Policy};

/// What was learned of a request, kept also when it is refused, for its log line and for CORS.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) wire: String,
    /// The route and its place in the table.
    pub(super) route: Option<(usize, Arc<Route>)>,
    pub(super) datasets: Vec<DatasetId>,
    pub(super) operation: Option<Operation>,
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) client: Option<std::net::IpAddr>,
}

impl Trail {
    /// The route's path template.
    pub(super) fn route_name(&self) -> Option<&str> {
        self.route.as_ref().map(|(_, route)| route.path.as_str())
    }

    /// The name of the upstream the route leads to.
    pub(super) fn upstream(&self) -> Option<&str> {
        self.route.as_ref().map(|(_, route)| route.upstream.as_str())
    }
}

/// How a request stands.
#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "one a request, never moved; a box would cost an allocation")]
pub(super) enum Verdict {
    #[default]
    Undecided,
    Preflight,
    Denied(Denial),
    Passed(Pass),
}

/// The per-request state of the gate: the `CTX`, or a part of it, of a `ProxyHttp`.
pub struct Visit {
    pub(super) request_id: String,
    pub(super) started: Instant,
    pub(super) decided: Option<Instant>,
    pub(super) answered: Option<Instant>,
    pub(super) trail: Trail,
    pub(super) verdict: Verdict,
    pub(super) failure: Option<Failure>,
    pub(super) origin: Option<HeaderValue>,
    pub(super) server: Option<String>,
    pub(super) bytes_out: u64,
    _active: Active,
}

/// Counts a request as in flight while it lives.
pub(super) struct Active(Arc<AtomicUsize>);

impl Active {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Visit {
    pub(super) fn new(active: Active) -> Self {
        Self {
            _active: active,
            request_id: ulid::Ulid::generate().to_string(),
            started: Instant::now(),
            decided: None,
            answered: None,
            trail: Trail::default(),
            verdict: Verdict::Undecided,
            failure: None,
            origin: None,
            server: None,
            bytes_out: 0,
        }
    }

    /// The request's own name, which the client, the upstream and the log share.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The upstream its route names; only of a request that was let through.
    pub fn upstream(&self) -> Option<&str> {
        match self.verdict {
            Verdict::Passed(_) => self.trail.upstream(),
            _ => None,
        }
    }

    /// Tells the log which server was chosen.
    pub fn note_server(&mut self, server: String) {
        self.server = Some(server);
    }

    /// The server that was chosen.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    pub(super) fn verdict_name(&self) -> &'static str {
        match &self.verdict {
            Verdict::Undecided => "undecided",
            Verdict::Preflight => "preflight",
            Verdict::Denied(denial) => denial.code(),
            Verdict::Passed(_) => "pass",
        }
    }
}

/// One line of the access log. Everything in it is ours, from a closed set, or passed a strict grammar; the target,
/// the headers and the body are not in it (law 7).
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: String,
    request_id: &'a str,
    client: Option<std::net::IpAddr>,
    method: &'a str,
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    datasets: Vec<&'a str>,
    operation: Option<&'static str>,
    token_id: Option<&'a str>,
    account: Option<&'a str>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<&'static str>,
    status: u16,
    pool: Option<&'static str>,
    credits: u64,
    upstream: Option<&'a str>,
    server: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    total_ms: f64,
    gate_ms: Option<f64>,
    upstream_ms: Option<f64>,
}

impl<'a> Line<'a> {
    pub(super) fn new(visit: &'a Visit, method: &Method, status: u16, bytes_in: u64) -> Self {
        let millis = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1000.0;
        let round = |ms: f64| (ms * 1000.0).round() / 1000.0;
        let pass = match &visit.verdict {
            Verdict::Passed(pass) => Some(pass),
            _ => None,
        };
        let policy = visit.trail.policy.as_deref();
        let notes = pass.map(|pass| pass.permit().notes()).unwrap_or_default();
        Self {
            time: jiff::Timestamp::now().to_string(),
            request_id: &visit.request_id,
            client: visit.trail.client,
            method: method_name(method),
            route: visit.trail.route_name(),
            datasets: visit.trail.datasets.iter().map(DatasetId::as_str).collect(),
            operation: visit.trail.operation.map(Operation::as_str),
            token_id: policy.map(|policy| policy.id.as_str()),
            account: policy.map(|policy| policy.account.as_str()),
            verdict: visit.verdict_name(),
            failure: visit.failure.map(Failure::code),
            notes: notes.iter().map(|note| note_name(*note)).collect(),
            status,
            pool: pass.map(|pass| pass.permit().pool().as_str()),
            credits: pass.map_or(0, |pass| pass.charged().0),
            upstream: visit.upstream(),
            server: visit.server.as_deref(),
            bytes_in,
            bytes_out: visit.bytes_out,
            total_ms: round(millis(visit.started, Instant::now())),
            gate_ms: visit.decided.map(|decided| round(millis(visit.started, decided))),
            upstream_ms: visit.decided.zip(visit.answered).map(|(from, to)| round(millis(from, to))),
        }
    }
}

fn note_name(note: Note) -> &'static str {
    match note {
        Note::DomainReported(_) => "domain_reported",
        Note::SecretFromBrowser => "secret_from_browser",
    }
}

/// A method's name, if it is one of the usual: a client may send any word, a token too.
pub(super) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "OTHER",
    }
}
