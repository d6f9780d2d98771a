//! The gate as a plugin: one method for each Pingora phase.
//!
//! Built once, called from any `ProxyHttp` in one line a phase; Tollgate's own proxy uses exactly these. A request
//! passes only with a [`Pass`], which judging and charging make; without one, [`Gate::upstream_request_filter`]
//! refuses to send anything. Rooms: `facts` reads the session, `decision` keeps the order of checks, `directory`
//! knows policies, `signing` checks signatures and `held` holds bodies back for it, `meter` takes and settles credits,
//! [`reply`] chooses statuses, `forward` writes what the upstream gets, `cors` answers browsers. Here: how it is opened, and
//! the phase in which it decides; `forwarding` has the phases after that, `standing` how it stands and how it ends.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderMap;
use ipnet::IpNet;
use parking_lot::Mutex;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::ledger::journal::JournalError;
use crate::policy::route::{Route, RouteTable};
use crate::policy::signature::BodyDigest;
use crate::policy::{AccountId, Denial, LeakedSecret, Note, OutsideBrowser, Policy, TokenId};
use crate::store::seal::Sealer;
use crate::store::{NodeId, NodeReport, Store};
use crate::telemetry::{AccessLogWriter, Metrics, RouteMetrics, Tracer};

mod ahead;
pub mod check;
mod cors;
mod decision;
mod directory;
mod explain;
pub mod explanation;
mod facts;
mod flowing;
mod forward;
mod forwarding;
mod head;
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
mod standing;
mod step;
mod strangers;
mod streams;
mod traced;
mod upload;
mod visit;

pub(crate) use ahead::Ahead;
pub use cors::CorsSettings;
pub use directory::DirectorySettings;
pub use forward::Forwarded;
pub use forwarding::{UPSTREAM_BUSY, UPSTREAM_RESTING};
pub(crate) use head::{Changes, PlainHead};
pub use leash::Connector;
pub use pass::Pass;
pub use reply::told::Appendix;
pub use rules::Rules;
pub(crate) use strangers::holder;
pub use strangers::{GuessLimit, Strangers};
pub use upload::Uploads;
pub use visit::Visit;

use decision::{Decision, Judge};
use directory::Directory;
use facts::Request;
use line::Line;
use memory::Memory;
use meter::Meter;
use reply::{Answer, Dialect, Preflight};
use seat::Seat;
use signing::{Signing, SigningSettings};
use step::Watch;
use streams::Streams;
use visit::{Trail, Verdict};

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

    /// The client's own address of a request that reached another listener, by the proxies that are trusted now.
    pub fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        facts::client_behind(peer.to_canonical(), headers, &self.rules.load().settings.trusted_proxies)
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
