//! The gate as a plugin: one method for each Pingora phase.
//!
//! Built once, called from any `ProxyHttp` in one line a phase; Tollgate's own proxy uses exactly these. A request
//! passes only with a [`Pass`], which judging and charging make; without one, [`Gate::upstream_request_filter`]
//! refuses to send anything. Rooms: `facts` reads the session, `decision` keeps the order of checks, `directory`
//! knows policies, `signing` checks signatures and `held` holds bodies back for it, `meter` takes and settles credits, [`reply`] chooses statuses, `forward` writes what the upstream
//! gets, `cors` answers browsers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use ipnet::IpNet;
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::ledger::journal::JournalError;
use crate::policy::route::{Route, RouteTable};
use crate::policy::signature::BodyDigest;
use crate::policy::{AccountId, Denial, LeakedSecret, Note, OutsideBrowser, Policy, TokenId};
use crate::store::seal::Sealer;
use crate::store::{NodeId, NodeReport, Store};
use crate::telemetry::{AccessLogWriter, Ended, Metrics, NodeState, RouteMetrics, Tracer};

pub mod check;
mod cors;
mod decision;
mod directory;
mod explain;
pub mod explanation;
mod facts;
mod flowing;
mod forward;
mod held;
mod identity;
mod keyring;
mod leash;
mod line;
mod memory;
mod meter;
mod metered;
mod own;
mod pass;
mod replay;
pub mod reply;
mod rules;
mod seat;
mod signing;
mod step;
mod strangers;
mod streams;
mod traced;
mod upload;
mod visit;

pub use cors::CorsSettings;
pub use directory::DirectorySettings;
pub use forward::Forwarded;
pub use leash::Connector;
pub use pass::Pass;
pub use rules::Rules;
pub use strangers::GuessLimit;
pub use upload::Uploads;
pub use visit::Visit;

use decision::{Decision, Judge};
use directory::Directory;
use facts::Request;
use line::Line;
use memory::Memory;
use meter::Meter;
use metered::Metered;
use reply::{Answer, Dialect, Failure, Preflight};
use seat::Seat;
use signing::{Signing, SigningSettings};
use step::Watch;
use strangers::Strangers;
use streams::Streams;
use visit::{Late, Trail, Verdict};

/// What a gate is told by its configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which path serves which data.
    pub routes: RouteTable,
    /// How refusals are told, and which account endpoints there are.
    pub dialect: Dialect,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How many invalid tokens one address may try.
    pub guesses: GuessLimit,
    /// What a secret token from a browser leads to.
    pub leaked_secret: LeakedSecret,
    /// What a publishable token without a browser's signal leads to.
    pub outside_browser: OutsideBrowser,
    /// What cross-origin pages may do.
    pub cors: CorsSettings,
    /// Which headers tell an upstream of the client.
    pub forwarded: Forwarded,
    /// How long a body may be, and how slow.
    pub uploads: Uploads,
    /// How far the time of a signed request may be from this node's, to either side.
    pub signature_max_skew: Duration,
    /// How policies are kept.
    pub directory: DirectorySettings,
    /// Where the journal and the node's name are kept.
    pub state_dir: PathBuf,
    /// What people call this node.
    pub node_name: String,
    /// Seals what is known, so that a start while the store is down serves what it may; `None`: it is not kept.
    pub sealer: Option<Sealer>,
}

/// Why a gate cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The node's name cannot be kept.
    #[error("the node's name in {path}: {source}", path = path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The gate.
pub struct Gate {
    /// What new requests are judged by.
    rules: ArcSwap<Rules>,
    /// How long a request waits for the store.
    patience: Duration,
    node_name: String,
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    strangers: Strangers,
    meter: Arc<Meter>,
    streams: Arc<Streams>,
    signing: Signing,
    room: held::Room,
    line: Arc<Line>,
    memory: Option<Arc<Memory>>,
    node: NodeId,
    no_route: RouteMetrics,
    epoch: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    access_log: Option<AccessLogWriter>,
    tracer: Option<Tracer>,
    runtime: Handle,
    marked: Mutex<std::collections::HashSet<TokenId>>,
    active: Arc<AtomicUsize>,
    stopping: AtomicBool,
}

impl Gate {
    /// Opens a gate over a store. Its background work runs on `runtime`, which must outlive it. What an earlier run
    /// left in the journal of `state_dir` is settled.
    pub fn open(
        settings: Settings,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        access_log: Option<AccessLogWriter>,
        runtime: Handle,
    ) -> Result<Self, GateError> {
        Self::open_as(settings, store, metrics, access_log, runtime, false)
    }

    /// As [`Gate::open`]. `succeeds`: another process may have this `state_dir` still, and is about to hand over; what it
    /// leaves is settled as soon as it has ended.
    pub fn open_as(
        settings: Settings,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        access_log: Option<AccessLogWriter>,
        runtime: Handle,
        succeeds: bool,
    ) -> Result<Self, GateError> {
        let Seat { node, journal, recovered, at, aside } = Seat::take(&settings.state_dir, succeeds)?;
        metrics.journals_set_aside(aside);
        let line = Arc::new(Line::new(store.clone(), metrics.clone()));
        runtime.spawn(Line::watch(Arc::downgrade(&line), AccountId::default_account()));
        let directory = Directory::new(line.clone(), settings.directory, runtime.clone());
        let patience = settings.directory.patience;
        let meter = Meter::start(line.clone(), metrics.clone(), journal, recovered, node, patience, &runtime);
        runtime.spawn(seat::settle_others(settings.state_dir.clone(), at, Arc::downgrade(&meter)));
        let memory = settings
            .sealer
            .clone()
            .map(|sealer| Arc::new(Memory::new(settings.state_dir.join("policies.sealed"), sealer)));
        if let Some(memory) = &memory {
            memory.restore(&directory, &line, settings.directory.grace);
            runtime.spawn(memory.clone().run(Arc::downgrade(&directory), Arc::downgrade(&line)));
        }
        let streams = Arc::new(Streams::new(line.clone(), runtime.clone(), settings.leaked_secret));
        let signing = SigningSettings { patience, grace: settings.directory.grace };
        let room = held::Room::new();
        let signing = Signing::new(&line, signing, runtime.clone());
        let events = store.events();
        let watch = Watch {
            line: line.clone(),
            directory: directory.clone(),
            meter: meter.clone(),
            streams: streams.clone(),
            keyring: signing.keyring.clone(),
            account: AccountId::default_account(),
            node,
            name: settings.node_name.clone(),
            report_life: settings.directory.grace.max(NodeReport::SILENT_AFTER),
            epoch: watch::Sender::new(0),
        };
        let epoch = watch.epoch.subscribe();
        runtime.spawn(watch.run(events));
        let no_route = metrics.of_route("none", None);
        let marked = Mutex::default();
        let active = Arc::default();
        Ok(Self {
            patience,
            node_name: settings.node_name.clone(),
            strangers: Strangers::new(settings.guesses),
            rules: ArcSwap::from_pointee(Rules::new(settings, &metrics)),
            store,
            directory,
            meter,
            streams,
            signing,
            room,
            line,
            memory,
            node,
            no_route,
            epoch,
            metrics,
            access_log,
            tracer: None,
            runtime,
            marked,
            active,
            stopping: AtomicBool::new(false),
        })
    }

    /// The same gate, with its requests traced.
    #[must_use]
    pub fn traced(mut self, tracer: Option<Tracer>) -> Self {
        self.tracer = tracer;
        self
    }

    /// Data sets that the routes name, for whoever grants them.
    pub fn grantable(&self) -> Vec<String> {
        self.rules.load().settings.routes.grantable()
    }

    /// The state of one request: the `CTX` of a `ProxyHttp`, or a part of it.
    pub fn new_visit(&self) -> Visit {
        self.new_visit_by(self.rules())
    }

    /// The counters of a request's route.
    fn counts<'v>(&'v self, visit: &'v Visit) -> &'v RouteMetrics {
        let at = visit.trail.route.as_ref().map(|(at, _)| *at);
        at.and_then(|at| visit.rules.counts(at)).unwrap_or(&self.no_route)
    }

    fn judge<'g>(&'g self, rules: &'g Rules) -> Judge<'g> {
        let Self { directory, strangers, meter, signing, line, patience, .. } = self;
        let Rules { settings, own, .. } = rules;
        Judge { settings, directory, strangers, meter, signing, line, own, patience: *patience }
    }

    /// What a refused client is told, with the limit that decided.
    fn answer(denial: &Denial, rules: &Rules, trail: &Trail) -> Answer {
        let mut answer = reply::answer_in(rules.dialect(), denial);
        if let (Some(policy), Some((_, route))) = (&trail.policy, &trail.route) {
            // What only the request or its response tells is not known here.
            let known = route.items.is_none() && !route.price.is_known_late();
            let cost = if known { route.price.hold(1).credits.0 } else { 0 };
            answer.headers.extend(reply::limits::of_refusal(denial, policy, cost));
        }
        answer
    }

    /// Decides about a request. `Ok(true)`: it was answered here (refused, or a preflight) and goes no further.
    pub async fn request_filter(&self, session: &mut Session, visit: &mut Visit) -> Result<bool> {
        if let Some(tracer) = &self.tracer {
            let request = Request::read(session, &[]);
            let trusted = request.is_from(&visit.rules.settings.trusted_proxies);
            let context = tracer.begin(request.headers, trusted, visit.ulid());
            if context.sampled {
                visit.trail.waits.begin();
            }
            visit.traced = Some(Box::new(traced::Traced::new(context)));
        }
        let most = visit.rules.settings.uploads.most;
        let mut decision = match facts::framing(session) {
            Ok(()) if upload::announced(session).is_some_and(|length| length > most) => {
                Err(Denial::BodyTooLarge { most })
            }
            Ok(()) => {
                if visit.rules.dialect() == Dialect::Iex {
                    visit.trail.form = visit.rules.own.read_form(session).await;
                }
                self.decide(session, visit, None).await
            }
            Err(why) => {
                visit.trail.client =
                    Request::read(session, &[]).client(&visit.rules.settings.trusted_proxies);
                // What follows on this connection may be the rest of this request, or another: nobody can tell.
                session.set_keepalive(None);
                Err(Denial::BadFraming(why))
            }
        };
        if let Ok(Decision::AwaitBody { most }) = decision {
            let began = Instant::now();
            let longest = visit.rules.settings.signature_max_skew.saturating_mul(2);
            let body = self.room.hold(session, most, longest).await?;
            visit.held = Some(began.elapsed());
            visit.trail.waits.add("body", began, Instant::now());
            // All is judged again: while the body came the policy may have changed, and the signature grown old.
            decision = match body {
                Ok(held) => {
                    visit.place = held.place;
                    self.decide(session, visit, Some(&held.digest)).await
                }
                Err(denial) => Err(denial),
            };
        }
        let now = Instant::now();
        visit.decided = Some(now);
        self.metrics.decided(visit.judged_in(now).as_secs_f64());
        match decision {
            Ok(Decision::Pass(pass)) => {
                self.tell(pass.permit().notes(), visit.trail.policy.as_deref());
                if let Some((_, route)) = &visit.trail.route
                    && flowing::may_stream(route, &session.req_header().headers)
                {
                    visit.leash = Some(Arc::default());
                }
                visit.verdict = Verdict::Passed(pass);
                Ok(false)
            }
            Ok(Decision::Preflight(route)) => {
                visit.verdict = Verdict::Preflight;
                let request = Request::read(session, &[]);
                let (rules, origin) = (&visit.rules, visit.origin.as_ref());
                let preflight = Self::preflight(rules, &route, &request, &visit.request_id, origin);
                reply::send_preflight(session, &preflight).await?;
                Ok(true)
            }
            Ok(Decision::AwaitBody { .. }) => {
                Error::e_explain(ErrorType::InternalError, "a body was asked for twice")
            }
            Ok(Decision::Answer(told, notes)) => {
                self.tell(&notes, visit.trail.policy.as_deref());
                visit.verdict = Verdict::Answered;
                reply::send_json(session, &told, &visit.request_id, visit.origin.as_ref()).await?;
                Ok(true)
            }
            Err(denial) => {
                let answer = Self::answer(&denial, &visit.rules, &visit.trail);
                let unread = matches!(denial, Denial::BodyTooLarge { .. } | Denial::HeldBodiesFull);
                let token = visit.trail.policy.as_deref().map(|policy| &policy.id);
                self.meter.refused(token, denial.code());
                visit.verdict = Verdict::Denied(denial);
                let origin = visit.origin.as_ref();
                reply::send(visit.rules.dialect(), session, &answer, &visit.request_id, origin).await?;
                if unread {
                    held::linger(session).await;
                }
                Ok(true)
            }
        }
    }

    /// Decides about a session's request; `body` as far as it is known.
    async fn decide(
        &self,
        session: &Session,
        visit: &mut Visit,
        body: Option<&BodyDigest>,
    ) -> std::result::Result<Decision, Denial> {
        let target = facts::raw_target(session);
        self.decide_about(&Request::read(session, &target), visit, body).await
    }

    /// Decides about a request, wherever it was read from.
    async fn decide_about(
        &self,
        request: &Request<'_>,
        visit: &mut Visit,
        body: Option<&BodyDigest>,
    ) -> std::result::Result<Decision, Denial> {
        let page = request.page();
        let judge = self.judge(&visit.rules);
        let decision = judge.decide(request, &page, body, &mut visit.trail).await;
        let policy = visit.trail.policy.as_deref();
        visit.origin = cors::allowed_origin(request, &page, policy, visit.trail.client);
        decision
    }

    /// What a preflight for a route is told.
    fn preflight<'p>(
        rules: &Rules,
        route: &Route,
        request: &Request<'_>,
        request_id: &'p str,
        origin: Option<&'p http::HeaderValue>,
    ) -> Preflight<'p> {
        let headers = cors::allowed_headers(&rules.settings.cors, request);
        let (methods, max_age) = (route.methods.allow(), rules.settings.cors.max_age);
        Preflight { methods, headers, max_age, request_id, origin }
    }

    /// A piece of the request's body has come, for a `ProxyHttp`'s `request_body_filter`.
    ///
    /// # Errors
    /// The body is longer than it may be, or comes too slowly: it goes no further.
    pub fn request_body_filter(
        &self,
        session: &Session,
        body: Option<&Bytes>,
        end_of_stream: bool,
        visit: &mut Visit,
    ) -> Result<()> {
        let Some(piece) = body.filter(|_| !session.as_downstream().was_upgraded()) else { return Ok(()) };
        let now = Instant::now();
        let uploads = visit.rules.settings.uploads;
        let Err(late) = visit.upload.count(&uploads, piece.len(), end_of_stream, now) else {
            return Ok(());
        };
        visit.late = Some(late);
        Err(Error::new_down(ErrorType::Custom("request body refused")))
    }

    /// Writes what the upstream gets: the judged target, no credential, and who the request is from.
    ///
    /// # Errors
    /// Without a [`Pass`] nothing is sent (law 9).
    #[expect(clippy::unused_async, reason = "a Pingora phase is async")]
    pub async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        let (Verdict::Passed(_), Some(policy)) = (&visit.verdict, &visit.trail.policy) else {
            return Error::e_explain(
                ErrorType::InternalError,
                "a request without a Pass was to be forwarded",
            );
        };
        let request = Request::read(session, &[]);
        upstream.set_raw_path(visit.trail.wire.as_bytes())?;
        forward::strip(upstream)?;
        forward::join_cookies(upstream)?;
        if let Some((_, route)) = &visit.trail.route
            && (route.price.reads_body() || (visit.leash.is_some() && route.price.is_known_late()))
        {
            forward::ask_whole(upstream);
        }
        if visit.held.is_some() {
            // What a client waits for before it sends its body was said here.
            upstream.remove_header(&http::header::EXPECT);
        }
        let sender =
            forward::Sender { token: &policy.id, account: &policy.account, request_id: &visit.request_id };
        forward::introduce(upstream, &sender)?;
        let settings = &visit.rules.settings;
        let trusted = request.is_from(&settings.trusted_proxies);
        forward::trace(upstream, &request, trusted, settings.forwarded)?;
        match &mut visit.traced {
            Some(traced) => traced.tell(upstream),
            None => Ok(()),
        }
    }

    /// The response begins: charges or gives back, and writes the gate's headers.
    pub async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        if is_interim(response.status) {
            return Ok(());
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // What is spoken now has pauses of its own; how long they may be is the upstream's `read_timeout` to say.
            session.as_downstream_mut().set_read_timeout(None);
        }
        let now = Instant::now();
        if let (Some(decided), None) = (visit.decided, visit.answered) {
            let seconds = now.duration_since(decided).as_secs_f64();
            self.counts(visit).upstream(response.status.as_u16(), seconds);
        }
        visit.answered = Some(now);
        if let Some(traced) = &mut visit.traced {
            traced.answered(response.status.as_u16());
        }
        if let Some(leash) = &visit.leash
            && flowing::is_bare(&session.req_header().method, response)
        {
            leash.pull();
        }
        let Verdict::Passed(pass) = &mut visit.verdict else { return Ok(()) };
        if pass.is_late() || (response.status.as_u16() < 400 && flowing::is_stream(response)) {
            self.begin_flow(session, response, visit).await?;
        } else {
            pass.begin_response(response.status.as_u16());
        }
        let Verdict::Passed(pass) = &mut visit.verdict else { return Ok(()) };
        let rate = visit.trail.policy.as_deref().and_then(|policy| policy.rate_limit);
        reply::credit_headers(visit.rules.dialect(), response, pass, rate)?;
        response.insert_header("X-Request-Id", visit.request_id.as_str())?;
        cors::decorate(response, visit.origin.as_ref())
    }

    /// A piece of the response's body has come, for a `ProxyHttp`'s `upstream_response_body_filter`: where a stream waits
    /// for credits, Pingora is told to wait a little. Without this call it works as well, and waits longer.
    pub fn upstream_response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        visit: &mut Visit,
    ) -> Option<Duration> {
        let Verdict::Passed(pass) = &mut visit.verdict else { return None };
        pass.metered()?.prepare(body, end_of_stream)
    }

    /// A piece of the response's body goes by: untouched, or cut where the credits end.
    pub fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        visit: &mut Visit,
    ) -> Result<Option<Duration>> {
        let mut wait = None;
        if let Verdict::Passed(pass) = &mut visit.verdict {
            wait = pass.pass_body(body, end_of_stream);
        }
        if end_of_stream && let Some(leash) = &visit.leash {
            leash.pull();
        }
        visit.bytes_out += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(wait)
    }

    /// The request has ended, however: settles what is open, counts and logs.
    #[expect(clippy::unused_async, reason = "a Pingora phase is async")]
    pub async fn logging(&self, session: &mut Session, _error: Option<&Error>, visit: &mut Visit) {
        let status = status_of(session).map_or(0, |status| status.as_u16());
        // No response began, so nothing is charged; what was taken goes back.
        if let Verdict::Passed(pass) = &mut visit.verdict {
            pass.begin_response(599);
            pass.end_response(visit.bytes_out);
        }
        let (now, bytes_in) = (Instant::now(), session.body_bytes_read() as u64);
        let trace = visit.trace_id(session);
        self.write_down(visit, &session.req_header().method, visit::End { status, bytes_in, now, trace });
        if let Some(tracer) = &self.tracer
            && let Some(trace) = traced::spans(tracer, session, visit, status, now)
        {
            tracer.finish(trace);
        }
    }

    /// Counts a request that has ended, and writes its line.
    fn write_down(&self, visit: &Visit, method: &http::Method, end: visit::End) {
        let visit::End { status, bytes_in, now, .. } = end;
        let seconds = now.duration_since(visit.started).as_secs_f64();
        let counts = self.counts(visit);
        counts.request(visit.verdict_name(), status, seconds);
        self.metrics.ended(visit::method_name(method), status, bytes_in, visit.bytes_out);
        if let Some(log) = &self.access_log {
            let ended = Ended {
                key: if log.is_sampled() { visit.sampling_key() } else { 0 },
                refused: matches!(visit.verdict, Verdict::Denied(_)),
                failed: status == 0 || status >= 500 || visit.failure.is_some(),
                took: now.duration_since(visit.started),
            };
            if let Some(part) = log.choose(&ended) {
                log.write(&visit::log_line(visit, method, end, part));
            }
        }
    }

    /// Answers an admitted request that came to nothing; for a `ProxyHttp`'s `fail_to_proxy`. The status sent, or 0
    /// if the client is gone or has its response already.
    pub async fn fail(&self, session: &mut Session, error: &Error, visit: &mut Visit) -> u16 {
        if session.response_written().is_some()
            && let Verdict::Passed(pass) = &mut visit.verdict
            && let Some(farewell) = pass.metered().and_then(Metered::farewell)
        {
            // The gate let go of the upstream: the stream ends in good order.
            visit.bytes_out += farewell.len() as u64;
            let _ = session.as_downstream_mut().write_response_body(farewell, true).await;
            return 0;
        }
        let failure = match visit.late.take() {
            Some(Late::Failed(failure)) => failure,
            Some(Late::Denied(denial)) => return self.refuse_late(session, denial, visit).await,
            None => match failure_of(error) {
                Some(failure) => failure,
                None => return 0,
            },
        };
        visit.failure = Some(failure);
        if let Verdict::Passed(pass) = &mut visit.verdict {
            pass.begin_response(599);
        }
        if !matches!(failure, Failure::BadRequest | Failure::RequestTimeout) {
            self.counts(visit).failed(failure.code());
            // The error's text may quote the request, so only its kind is told (law 7).
            tracing::warn!(
                request_id = %visit.request_id,
                trace_id = visit.trace_id(session).map(tracing::field::display),
                failure = failure.code(),
                upstream = visit.trail.upstream(),
                server = visit.server.as_deref(),
                kind = error.etype().as_str(),
                "a request was admitted and came to nothing"
            );
        }
        if status_of(session).is_some() {
            return 0;
        }
        let answer = reply::answer_failure(failure);
        let (dialect, origin) = (visit.rules.dialect(), visit.origin.as_ref());
        match reply::send(dialect, session, &answer, &visit.request_id, origin).await {
            Ok(()) => answer.status,
            Err(_) => 0,
        }
    }

    /// A response that had begun to come cannot be paid for.
    async fn refuse_late(
        &self,
        session: &mut Session,
        denial: crate::policy::Denial,
        visit: &mut Visit,
    ) -> u16 {
        let answer = Self::answer(&denial, &visit.rules, &visit.trail);
        let token = visit.trail.policy.as_deref().map(|policy| &policy.id);
        self.meter.refused(token, denial.code());
        let unread = matches!(denial, Denial::BodyTooLarge { .. });
        visit.verdict = Verdict::Denied(denial);
        if status_of(session).is_some() {
            return 0;
        }
        let (dialect, origin) = (visit.rules.dialect(), visit.origin.as_ref());
        let sent = reply::send(dialect, session, &answer, &visit.request_id, origin).await;
        if sent.is_ok() && unread {
            held::linger(session).await;
        }
        sent.map_or(0, |()| answer.status)
    }

    /// Waits until no request is in flight, at most for `patience`.
    ///
    /// Between two requests on a kept connection Pingora holds no state of ours, so idle connections do not count.
    pub async fn wait_idle(&self, patience: Duration) {
        let idle = async {
            while self.active.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(patience, idle).await;
    }

    /// Ends the streams that are open still, each with a word of farewell.
    pub fn end_streams(&self) {
        self.streams.end_all();
    }

    /// Waits until all that was spent and given back has reached the store, at most for `patience`. How many
    /// settlements are left.
    pub async fn drain(&self, patience: Duration) -> u64 {
        let left = self.meter.drain(patience).await;
        self.say_farewell().await;
        if let Some(memory) = &self.memory {
            memory.keep(&self.directory, &self.line);
        }
        left
    }

    /// Takes this node's report back: it serves nobody any more, so no receipt has to wait for it.
    async fn say_farewell(&self) {
        let (epoch, name) = (*self.epoch.borrow(), &self.node_name);
        let report = NodeReport::new(self.node, epoch, self.meter.leased(), name);
        let account = AccountId::default_account();
        let told =
            self.line.call("report_node", |store| store.report_node(&account, &report, Duration::ZERO));
        let _ = tokio::time::timeout(self.patience, told).await;
    }

    /// The epoch this gate acts by: every change up to it is in force here.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.clone()
    }

    /// The gate's metrics in Prometheus's text format.
    pub fn metrics(&self) -> String {
        self.metrics.render(&self.state())
    }

    /// How the node stands just now.
    fn state(&self) -> NodeState {
        let owed = self.meter.owed();
        let (journal_leases, journal_bytes) = self.meter.journal_extent();
        let (line_cut, silence) = (self.line.is_cut(), self.line.silence());
        // A cut line is not even tried.
        let waiting = silence.filter(|_| line_cut && owed.unsettled > 0).unwrap_or_default();
        NodeState {
            in_flight: self.active.load(Ordering::Acquire),
            streams: self.streams.len(),
            held_bytes: self.room.taken(),
            policies: self.directory.len(),
            unknown_tokens: self.directory.unknown(),
            leases: owed.leases,
            unsettled: owed.unsettled,
            settlement_lag: owed.lag.max(waiting),
            journal_leases,
            journal_bytes,
            line_cut,
            silence,
            epoch: *self.epoch.borrow(),
            log_lines_dropped: self.access_log.as_ref().map_or(0, |log| log.dropped() as u64),
            log_lines_left_out: self.access_log.as_ref().map_or(0, |log| log.left_out() as u64),
            spans: self.tracer.as_ref().map(Tracer::counts).unwrap_or_default(),
        }
    }

    fn tell(&self, notes: &[Note], policy: Option<&Policy>) {
        for note in notes {
            match note {
                Note::DomainReported(_) => self.metrics.domain_reported(),
                Note::PublishableOutsideBrowser => self.metrics.publishable_outside_browser(),
                Note::SecretFromBrowser => {
                    self.metrics.secret_from_browser();
                    if let Some(policy) = policy {
                        self.mark(policy);
                    }
                }
            }
        }
    }

    /// Marks a secret token as seen in a browser: once for each token in this process, besides the request.
    fn mark(&self, policy: &Policy) {
        if policy.seen_in_browser_at.is_some() || !self.marked.lock().insert(policy.id.clone()) {
            return;
        }
        tracing::warn!(token_id = %policy.id, "a secret token came from a browser; it has most likely leaked, rotate it");
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let (account, id) = (policy.account.clone(), policy.id.clone());
        self.runtime.spawn(async move {
            let now = jiff::Timestamp::now();
            if let Err(error) = store.mark_seen_in_browser(&account, &id, now).await {
                metrics.store_failed("mark_seen_in_browser", &error);
            }
        });
    }
}

/// 100, 103 and their kin come before the response; 101 is one.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The status of the response that a client has, at least in part.
fn status_of(session: &Session) -> Option<StatusCode> {
    session.response_written().map(|response| response.status).filter(|status| !is_interim(*status))
}

/// The error of a `ProxyHttp`'s `upstream_peer` that has as many requests under way as it may have: the client is told 503,
/// and gets its credits back.
pub const UPSTREAM_BUSY: ErrorType = ErrorType::Custom("UpstreamBusy");
/// The error of a `ProxyHttp`'s `upstream_peer` that leaves all its servers alone for a while: the same.
pub const UPSTREAM_RESTING: ErrorType = ErrorType::Custom("UpstreamResting");

/// What an error means for the client; `None`: the client is gone.
fn failure_of(error: &Error) -> Option<Failure> {
    match (error.esource(), error.etype()) {
        (_, etype) if *etype == UPSTREAM_BUSY => Some(Failure::UpstreamBusy),
        (_, etype) if *etype == UPSTREAM_RESTING => Some(Failure::UpstreamResting),
        (
            ErrorSource::Upstream,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout,
        ) => Some(Failure::UpstreamTimeout),
        (ErrorSource::Upstream, _) => Some(Failure::UpstreamUnavailable),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Failure::RequestTimeout),
        (
            ErrorSource::Downstream,
            ErrorType::WriteTimedout
            | ErrorType::WriteError
            | ErrorType::ReadError
            | ErrorType::ConnectionClosed,
        ) => None,
        (ErrorSource::Downstream, _) => Some(Failure::BadRequest),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Failure::Internal),
    }
}
