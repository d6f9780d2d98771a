//! One request's state on its way through the phases, and its line in the access log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use pingora::proxy::Session;

use super::held::Place;
use super::leash::{Connector, Leash};
use super::own::Form;
use super::pass::Pass;
use super::reply::told::Appendix;
use super::reply::{Failure, Passing};
use super::rules::Rules;
use super::traced::{Traced, Waits};
use super::upload::Upload;
use crate::policy::route::{Rewrite, Route};
use crate::policy::{DatasetId, Denial, Note, Operation, Policy};
use crate::telemetry::{JsonLine, TraceId, TraceParent};

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
    /// What its decision waited for.
    pub(super) waits: Waits,
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
    /// What it is judged by, to its end.
    pub(super) rules: Arc<Rules>,
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
    /// How often a server was chosen.
    pub(super) tries: u32,
    pub(super) bytes_out: u64,
    pub(super) late: Option<Late>,
    /// How much of its body came, and how fast.
    pub(super) upload: Upload,
    /// By which the upstream's connection can be let go of, where the response may be a stream.
    pub(super) leash: Option<Arc<Leash>>,
    /// Where fields of the response's head go, instead of into it.
    pub(super) appendix: Option<Arc<Appendix>>,
    /// The trace it is part of, where requests are traced.
    pub(super) traced: Option<Box<Traced>>,
    active: Active,
}

/// Counts a request as in flight while it lives.
pub(super) struct Active(Option<Arc<AtomicUsize>>);

impl Active {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Some(count.clone()))
    }
}

impl Active {
    /// It is in flight no more.
    fn leave(&mut self) {
        if let Some(count) = self.0.take() {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Visit {
    pub(super) fn new(active: Active, rules: Arc<Rules>) -> Self {
        Self {
            rules,
            active,
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
            tries: 0,
            bytes_out: 0,
            late: None,
            leash: None,
            appendix: None,
            traced: None,
        }
    }

    /// It is in flight elsewhere, so a stop here does not wait for it.
    pub(super) fn stand_aside(&mut self) {
        self.active.leave();
    }

    /// How long the gate itself took until then; that a client is slow to send its body is not its doing.
    pub(super) fn judged_in(&self, decided: Instant) -> Duration {
        decided.duration_since(self.started).saturating_sub(self.held.unwrap_or_default())
    }

    /// Its name as a number.
    pub(super) fn ulid(&self) -> ulid::Ulid {
        ulid::Ulid::from_string(&self.request_id).unwrap_or_default()
    }

    /// The trace it is part of: where requests are not traced, the one that its client names.
    pub(super) fn trace_id(&self, session: &Session) -> Option<TraceId> {
        match &self.traced {
            Some(traced) => Some(traced.context.trace),
            None => TraceParent::find(&session.req_header().headers).map(|parent| parent.trace),
        }
    }

    /// By which it is decided whether it gets a log line: the same for all of a trace, unless a client could choose it.
    pub(super) fn sampling_key(&self) -> u64 {
        let context =
            self.traced.as_ref().map(|traced| &traced.context).filter(|context| context.named_by_us);
        context.map_or_else(|| TraceId::of_request(self.ulid()), |context| context.trace).random_part()
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

    /// The client's address; behind trusted proxies what they say of it.
    pub fn client(&self) -> Option<std::net::IpAddr> {
        self.trail.client
    }

    /// The public id of the request's token.
    pub fn token_id(&self) -> Option<&str> {
        self.trail.policy.as_deref().map(|policy| policy.id.as_str())
    }

    /// What is changed on the way to the upstream and back, as the request's route says.
    pub fn rewrite(&self) -> Option<&Arc<Rewrite>> {
        self.trail.route.as_ref().and_then(|(_, route)| route.rewrite.as_ref())
    }

    /// The target that was judged, in its one form and without a token: what the upstream gets, and what a cache's key is
    /// to be made of. Only of a request that was let through.
    pub fn target(&self) -> Option<&str> {
        matches!(self.verdict, Verdict::Passed(_)).then_some(self.trail.wire.as_str())
    }

    /// The connection writes what the gate tells of the response itself, behind the head that is written next.
    pub fn append_by(&mut self, appendix: Arc<Appendix>) {
        self.appendix = Some(appendix);
    }

    /// What is told of it once it passes, besides its credits.
    pub(super) fn passing(&self) -> Passing<'_> {
        Passing {
            dialect: self.rules.dialect(),
            rate: self.trail.policy.as_deref().and_then(|policy| policy.rate_limit),
            request_id: &self.request_id,
            origin: self.origin.as_ref(),
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
        if let Some(traced) = &mut self.traced {
            traced.choose(server.clone());
        }
        self.server = Some(server);
        self.tries += 1;
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

/// What is told of a request besides its visit.
#[derive(Clone, Copy)]
pub(super) struct End {
    /// The status sent; 0: none.
    pub(super) status: u16,
    pub(super) bytes_in: u64,
    pub(super) now: Instant,
    pub(super) trace: Option<TraceId>,
}

impl End {
    /// Of a request that another proxy has: its body and its trace are not ours.
    pub(super) fn unread(status: u16) -> Self {
        Self { status, bytes_in: 0, now: Instant::now(), trace: None }
    }
}

/// One line of the access log. Everything in it is ours, from a closed set, or passed a strict grammar; the target,
/// the headers and the body are not in it (law 7). `part` tells for which part of requests like it the line stands.
pub(super) fn log_line(visit: &Visit, method: &Method, end: End, part: f64) -> Vec<u8> {
    let End { status, bytes_in, now, trace } = end;
    let pass = match &visit.verdict {
        Verdict::Passed(pass) => Some(pass),
        _ => None,
    };
    let policy = visit.trail.policy.as_deref();
    let notes = pass.map(|pass| pass.permit().notes()).unwrap_or_default();
    let mut line = JsonLine::new();
    line.text("time", &jiff::Timestamp::now().to_string());
    line.text("request_id", &visit.request_id);
    if let Some(trace) = trace {
        line.text("trace_id", &trace.to_string());
    }
    if part < 1.0 {
        line.part("sample", part);
    }
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
