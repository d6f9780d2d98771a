//! One request's state on its way through the phases, and its line in the access log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};

use super::held::Place;
use super::leash::{Connector, Leash};
use super::own::Form;
use super::pass::Pass;
use super::reply::Failure;
use super::upload::Upload;
use crate::policy::route::Route;
use crate::policy::{DatasetId, Denial, Note, Operation, Policy};
use crate::telemetry::JsonLine;

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
    /// The body of a request for an account endpoint.
    pub(super) form: Option<Form>,
    /// It was most likely made by a browser.
    pub(super) from_browser: bool,
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
    Answered,
    Denied(Denial),
    Passed(Pass),
}

/// Why a response that had come is not let out after all.
pub(super) enum Late {
    /// It cannot be counted.
    Failed(Failure),
    /// It cannot be paid for.
    Denied(Denial),
}

/// The per-request state of the gate: the `CTX`, or a part of it, of a `ProxyHttp`.
pub struct Visit {
    pub(super) request_id: String,
    pub(super) started: Instant,
    pub(super) decided: Option<Instant>,
    /// How long its body was waited for, to check its signature.
    pub(super) held: Option<Duration>,
    /// Where its body is held.
    pub(super) place: Place,
    pub(super) answered: Option<Instant>,
    pub(super) trail: Trail,
    pub(super) verdict: Verdict,
    pub(super) failure: Option<Failure>,
    pub(super) origin: Option<HeaderValue>,
    pub(super) server: Option<Arc<str>>,
    pub(super) bytes_out: u64,
    pub(super) late: Option<Late>,
    /// How much of its body came, and how fast.
    pub(super) upload: Upload,
    /// By which the upstream's connection can be let go of, where the response may be a stream.
    pub(super) leash: Option<Arc<Leash>>,
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
            held: None,
            place: Place::default(),
            upload: Upload::default(),
            answered: None,
            trail: Trail::default(),
            verdict: Verdict::Undecided,
            failure: None,
            origin: None,
            server: None,
            bytes_out: 0,
            late: None,
            leash: None,
        }
    }

    /// How long the gate itself took until then; that a client is slow to send its body is not its doing.
    pub(super) fn judged_in(&self, decided: Instant) -> Duration {
        decided.duration_since(self.started).saturating_sub(self.held.unwrap_or_default())
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

    /// What is to make the connection to the upstream, for a `ProxyHttp`'s `upstream_peer` (`custom_l4` of a peer's
    /// options, with a `group_key` of its own): the gate may end the response at any time, also while nothing comes.
    /// `None`: whatever makes connections as ever; a stream then ends with its next piece.
    pub fn connector(&self, patience: std::time::Duration) -> Option<Connector> {
        self.leash.as_ref().map(|leash| Connector { leash: leash.clone(), patience })
    }

    /// Tells the log which server was chosen.
    pub fn note_server(&mut self, server: Arc<str>) {
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
            Verdict::Answered => "answered",
            Verdict::Denied(denial) => denial.code(),
            Verdict::Passed(_) => "pass",
        }
    }
}

/// One line of the access log. Everything in it is ours, from a closed set, or passed a strict grammar; the target,
/// the headers and the body are not in it (law 7).
pub(super) fn log_line(visit: &Visit, method: &Method, status: u16, bytes_in: u64, now: Instant) -> Vec<u8> {
    let pass = match &visit.verdict {
        Verdict::Passed(pass) => Some(pass),
        _ => None,
    };
    let policy = visit.trail.policy.as_deref();
    let notes = pass.map(|pass| pass.permit().notes()).unwrap_or_default();
    let mut line = JsonLine::new();
    line.text("time", &jiff::Timestamp::now().to_string());
    line.text("request_id", &visit.request_id);
    line.address("client", visit.trail.client);
    line.text("method", method_name(method));
    line.maybe("route", visit.trail.route_name());
    if !visit.trail.datasets.is_empty() {
        line.texts("datasets", visit.trail.datasets.iter().map(DatasetId::as_str));
    }
    line.maybe("operation", visit.trail.operation.map(Operation::as_str));
    line.maybe("token_id", policy.map(|policy| policy.id.as_str()));
    line.maybe("account", policy.map(|policy| policy.account.as_str()));
    line.text("verdict", visit.verdict_name());
    if let Some(failure) = visit.failure {
        line.text("failure", failure.code());
    }
    if let Some(denial) = pass.and_then(Pass::ended) {
        line.text("ended", denial.code());
    }
    if !notes.is_empty() {
        line.texts("notes", notes.iter().map(|note| note_name(*note)));
    }
    line.number("status", status.into());
    line.maybe("pool", pass.map(|pass| pass.permit().pool().as_str()));
    line.number("credits", pass.map_or(0, |pass| pass.charged().0));
    line.maybe("upstream", visit.upstream());
    line.maybe("server", visit.server());
    line.number("bytes_in", bytes_in);
    line.number("bytes_out", visit.bytes_out);
    line.millis("total_ms", now.duration_since(visit.started));
    match visit.decided {
        Some(decided) => line.millis("gate_ms", visit.judged_in(decided)),
        None => line.null("gate_ms"),
    }
    match visit.decided.zip(visit.answered) {
        Some((decided, answered)) => line.millis("upstream_ms", answered.duration_since(decided)),
        None => line.null("upstream_ms"),
    }
    line.end()
}

fn note_name(note: Note) -> &'static str {
    match note {
        Note::DomainReported(_) => "domain_reported",
        Note::SecretFromBrowser => "secret_from_browser",
        Note::PublishableOutsideBrowser => "publishable_outside_browser",
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
