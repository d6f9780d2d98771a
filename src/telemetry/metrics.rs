//! The metrics of one gate, in a registry of its own: two gates in one process do not mix.
//!
//! Every label is from a closed set: routes and upstreams of the configuration, codes of an enum, words of this room. So
//! however many tokens, paths or methods are made up, the number of series is what the configuration makes it.
//! `route` counts requests, `certificates` tells when they end, `node` shows what is read when somebody asks, `process` is the system's view.

use std::array::from_fn;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

use super::reloads::ReloadMetrics;
use crate::policy::{Credits, Denial, Pool};
use crate::store::StoreError;

mod certificates;
mod node;
mod process;
mod register;
mod route;
mod upstreams;

pub use certificates::CertificateMetrics;
pub use node::NodeState;
pub use route::RouteMetrics;
pub use upstreams::{ServerMetrics, TriesMetrics, UpstreamMetrics};

use node::NodeMetrics;
use process::ProcessMetrics;
use register::{Register, set};
use route::{AnswerMetrics, CLASSES, class_of};

/// Buckets for durations of whole requests, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Buckets for the gate's own part, in seconds.
const FINE_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
];
/// Buckets for calls to the store, in seconds.
const STORE_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Methods, as labels. A client may send any word; all but these count as the last.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "OTHER"];

/// How the policy behind a token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// In memory.
    Known,
    /// In memory: it is nobody's.
    KnownAbsent,
    /// The store was asked, and had it.
    Fetched,
    /// The store was asked, and it is nobody's.
    Absent,
    /// In memory, from before the store went away.
    Stale,
    /// The store could not be asked.
    Unavailable,
}

impl Lookup {
    const ALL: [Self; 6] =
        [Self::Known, Self::KnownAbsent, Self::Fetched, Self::Absent, Self::Stale, Self::Unavailable];

    fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::KnownAbsent => "known_absent",
            Self::Fetched => "fetched",
            Self::Absent => "absent",
            Self::Stale => "stale",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Everything the gate counts.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    responses: [[IntCounter; CLASSES.len()]; METHODS.len()],
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    credits: CreditMetrics,
    duration: HistogramVec,
    gate_duration: Histogram,
    answers: AnswerVecs,
    upstreams: UpstreamMetrics,
    reloads: ReloadMetrics,
    certificates: CertificateMetrics,
    lookups: [IntCounter; Lookup::ALL.len()],
    store_errors: IntCounterVec,
    store_duration: HistogramVec,
    store_events: IntCounter,
    catch_ups: IntCounter,
    domain_reported: IntCounter,
    secret_from_browser: IntCounter,
    publishable_outside_browser: IntCounter,
    leased: IntGauge,
    node: NodeMetrics,
    process: ProcessMetrics,
}

struct AnswerVecs {
    duration: HistogramVec,
    responses: IntCounterVec,
    failures: IntCounterVec,
}

/// The counters of each pool, looked up once.
struct CreditMetrics {
    core: PoolMetrics,
    premium: PoolMetrics,
}

struct PoolMetrics {
    charged: IntCounter,
    returned: IntCounter,
}

impl CreditMetrics {
    fn of(&self, pool: Pool) -> &PoolMetrics {
        match pool {
            Pool::Core => &self.core,
            Pool::Premium => &self.premium,
        }
    }

    fn new(make: &Register<'_>) -> Result<Self, prometheus::Error> {
        let credits = make.counters(
            "tollgate_credits_total",
            "Credits by pool and what became of them: charged, or returned after a failure",
            &["pool", "outcome"],
        )?;
        let of_pool = |pool: Pool| PoolMetrics {
            charged: credits.with_label_values(&[pool.as_str(), "charged"]),
            returned: credits.with_label_values(&[pool.as_str(), "returned"]),
        };
        Ok(Self { core: of_pool(Pool::Core), premium: of_pool(Pool::Premium) })
    }
}

impl AnswerVecs {
    fn new(make: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            duration: make.histograms(
                "tollgate_upstream_duration_seconds",
                "Time from the gate's decision to the first byte of the upstream's response",
                &["upstream"],
                SECONDS,
            )?,
            responses: make.counters(
                "tollgate_upstream_responses_total",
                "Responses of an upstream by class of their status",
                &["upstream", "status"],
            )?,
            failures: make.counters(
                "tollgate_upstream_failures_total",
                "Requests that were admitted and came to nothing, by the code the client was told",
                &["upstream", "failure"],
            )?,
        })
    }

    fn of(&self, name: &str) -> AnswerMetrics {
        for failure in ["upstream_unavailable", "upstream_timeout"] {
            self.failures.with_label_values(&[name, failure]);
        }
        let of_class = |at: usize| CLASSES.get(at).copied().unwrap_or("none");
        AnswerMetrics {
            name: name.to_owned(),
            duration: self.duration.with_label_values(&[name]),
            responses: from_fn(|at| self.responses.with_label_values(&[name, of_class(at)])),
            failures: self.failures.clone(),
        }
    }
}

impl Metrics {
    /// A new set, all at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Register(&registry);
        let build = make.gauges("tollgate_build_info", "Always 1; which version runs", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let responses = make.counters(
            "tollgate_responses_total",
            "Responses by the request's method and the class of their status; none: the client had left",
            &["method", "status"],
        )?;
        let lookups = make.counters(
            "tollgate_token_lookups_total",
            "How policies were found: known, known_absent (in memory), fetched, absent (the store was asked), stale (in an \
             outage), unavailable",
            &["outcome"],
        )?;
        let one = |counter: (&str, &str)| make.counter(counter.0, counter.1);
        Ok(Self {
            requests: make.counters(
                "tollgate_requests_total",
                "Requests by route, verdict (pass, preflight or the refusal's code) and class of the status sent",
                &["route", "verdict", "status"],
            )?,
            responses: METHODS
                .map(|method| CLASSES.map(|class| responses.with_label_values(&[method, class]))),
            request_bytes: one(("tollgate_request_bytes_total", "Bytes of bodies that came from clients"))?,
            response_bytes: one(("tollgate_response_bytes_total", "Bytes of bodies that went out to clients"))?,
            credits: CreditMetrics::new(&make)?,
            duration: make.histograms(
                "tollgate_request_duration_seconds",
                "Time from request to end of response",
                &["route"],
                SECONDS,
            )?,
            gate_duration: make.histogram(
                "tollgate_gate_duration_seconds",
                "Time the gate took to decide, store included",
                FINE_SECONDS,
            )?,
            answers: AnswerVecs::new(&make)?,
            upstreams: UpstreamMetrics::register(&registry)?,
            reloads: ReloadMetrics::register(&registry)?,
            certificates: CertificateMetrics::new(&make)?,
            lookups: Lookup::ALL.map(|lookup| lookups.with_label_values(&[lookup.as_str()])),
            store_errors: make.counters(
                "tollgate_store_errors_total",
                "Store calls that failed",
                &["operation", "kind"],
            )?,
            store_duration: make.histograms(
                "tollgate_store_duration_seconds",
                "Time of calls to the store, whatever came of them",
                &["operation"],
                STORE_SECONDS,
            )?,
            store_events: one((
                "tollgate_store_events_total",
                "Changes made elsewhere that this node heard of and acted on",
            ))?,
            catch_ups: one((
                "tollgate_store_catch_ups_total",
                "Times that events may have been missed, and all that was known was looked up anew",
            ))?,
            domain_reported: one((
                "tollgate_domain_reported_total",
                "Requests let through in domain_mode report that enforce would have refused",
            ))?,
            secret_from_browser: one((
                "tollgate_secret_from_browser_total",
                "Requests with a secret token that came from a browser",
            ))?,
            publishable_outside_browser: one((
                "tollgate_publishable_outside_browser_total",
                "Requests with a publishable token and no signal of a browser; counted with publishable_outside_browser: report",
            ))?,
            leased: make.gauge(
                "tollgate_leased_credits",
                "Credits this node holds in open leases: what its customers lose at most if it never comes back",
            )?,
            node: NodeMetrics::new(&registry)?,
            process: ProcessMetrics::new(&registry)?,
            registry,
        })
    }

    /// What is counted of reading the configuration anew.
    pub fn reloads(&self) -> &ReloadMetrics {
        &self.reloads
    }

    /// Until when certificates are good.
    pub fn certificates(&self) -> &CertificateMetrics {
        &self.certificates
    }

    /// What is counted of upstreams and their servers.
    pub fn upstreams(&self) -> &UpstreamMetrics {
        &self.upstreams
    }

    /// Where other rooms register what they count themselves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All of it in Prometheus's text format, with the node as it stands.
    pub fn render(&self, node: &NodeState) -> String {
        self.node.show(node);
        self.process.read();
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// The counters of one route and its upstream, looked up once instead of for each request.
    pub fn of_route(&self, route: &str, upstream: Option<&str>) -> RouteMetrics {
        RouteMetrics {
            route: route.to_owned(),
            passed: self.requests.with_label_values(&[route, "pass", "2xx"]),
            requests: self.requests.clone(),
            duration: self.duration.with_label_values(&[route]),
            upstream: upstream.map(|name| self.answers.of(name)),
        }
    }

    /// The gate has decided.
    pub fn decided(&self, seconds: f64) {
        self.gate_duration.observe(seconds);
    }

    /// A request has ended with this status (0: none was sent), after so many bytes of body in and out.
    pub fn ended(&self, method: &str, status: u16, bytes_in: u64, bytes_out: u64) {
        let at = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        if let Some(counter) = self.responses.get(at).and_then(|of| of.get(class_of(status))) {
            counter.inc();
        }
        if bytes_in > 0 {
            self.request_bytes.inc_by(bytes_in);
        }
        self.response_bytes.inc_by(bytes_out);
    }

    /// A policy was looked for.
    pub fn looked_up(&self, lookup: Lookup) {
        if let Some(counter) = self.lookups.get(lookup as usize) {
            counter.inc();
        }
    }

    /// A call to the store has ended.
    pub fn store_called(&self, operation: &str, time: Duration) {
        self.store_duration.with_label_values(&[operation]).observe(time.as_secs_f64());
        // There before the first of them, so that their rate is known from it on.
        for kind in ["unavailable", "unreadable"] {
            self.store_errors.with_label_values(&[operation, kind]);
        }
    }

    /// A change that was made elsewhere was acted on.
    pub fn store_event(&self) {
        self.store_events.inc();
    }

    /// Changes may have been missed.
    pub fn caught_up(&self) {
        self.catch_ups.inc();
    }

    /// So many nodes live, and so many fell silent.
    pub fn nodes(&self, living: u64, silent: u64) {
        set(&self.node.nodes.with_label_values(&["living"]), living);
        set(&self.node.nodes.with_label_values(&["silent"]), silent);
    }

    /// So many journal files were set aside at the start.
    pub fn journals_set_aside(&self, files: usize) {
        set(&self.node.journal_set_aside, files as u64);
    }

    /// So many credits are in open leases.
    pub fn leases(&self, credits: Credits) {
        set(&self.leased, credits.0);
    }

    /// Credits were charged.
    pub fn charged(&self, pool: Pool, credits: Credits) {
        self.credits.of(pool).charged.inc_by(credits.0);
    }

    /// Credits were given back after a failure.
    pub fn returned(&self, pool: Pool, credits: Credits) {
        self.credits.of(pool).returned.inc_by(credits.0);
    }

    /// A request passed only because its token's domains are not enforced.
    pub fn domain_reported(&self) {
        self.domain_reported.inc();
    }

    /// A publishable token came with no signal of a browser.
    pub fn publishable_outside_browser(&self) {
        self.publishable_outside_browser.inc();
    }

    /// A secret token came from a browser.
    pub fn secret_from_browser(&self) {
        self.secret_from_browser.inc();
    }

    /// Counts and logs a failed store call, once, and says what it means for a request.
    pub fn store_failed(&self, operation: &str, error: &StoreError) -> Denial {
        let (kind, denial) = match error {
            StoreError::Unavailable(_) => ("unavailable", Denial::StoreUnavailable),
            StoreError::Unreadable { .. } | StoreError::Seal(_) => ("unreadable", Denial::PolicyUnreadable),
        };
        self.store_errors.with_label_values(&[operation, kind]).inc();
        tracing::warn!(operation, %error, "a store call failed");
        denial
    }
}
