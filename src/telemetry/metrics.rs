//! The metrics of one gate, in a registry of its own: two gates in one process do not mix.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::policy::{Credits, Denial, Pool};
use crate::store::StoreError;

/// Buckets for durations of whole requests, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Buckets for the gate's own part, in seconds.
const FINE_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// Everything the gate counts.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    credits: CreditMetrics,
    duration: HistogramVec,
    gate_duration: Histogram,
    upstream_duration: HistogramVec,
    store_errors: IntCounterVec,
    domain_reported: IntCounter,
    secret_from_browser: IntCounter,
    publishable_outside_browser: IntCounter,
    log_lines_dropped: IntGauge,
    leased: IntGauge,
    policies: IntGauge,
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
}

impl Metrics {
    /// A new set, all at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let vec = HistogramVec::new(options, labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let requests = counters(
            "tollgate_requests_total",
            "Requests by route, verdict (pass, preflight or the refusal's code) and class of the status sent",
            &["route", "verdict", "status"],
        )?;
        let credits = counters(
            "tollgate_credits_total",
            "Credits by pool and what became of them: charged, or returned after a failure",
            &["pool", "outcome"],
        )?;
        let of_pool = |pool: Pool| PoolMetrics {
            charged: credits.with_label_values(&[pool.as_str(), "charged"]),
            returned: credits.with_label_values(&[pool.as_str(), "returned"]),
        };
        let duration = histograms(
            "tollgate_request_duration_seconds",
            "Time from request to end of response",
            &["route"],
        )?;
        let upstream_duration = histograms(
            "tollgate_upstream_duration_seconds",
            "Time from the gate's decision to the first byte of the upstream's response",
            &["upstream"],
        )?;
        let gate_options = HistogramOpts::new(
            "tollgate_gate_duration_seconds",
            "Time the gate took to decide, store included",
        );
        let gate_duration = Histogram::with_opts(gate_options.buckets(FINE_SECONDS.to_vec()))?;
        registry.register(Box::new(gate_duration.clone()))?;
        let store_errors =
            counters("tollgate_store_errors_total", "Store calls that failed", &["operation", "kind"])?;
        let domain_reported = counter(
            "tollgate_domain_reported_total",
            "Requests let through in domain_mode report that enforce would have refused",
        )?;
        let secret_from_browser = counter(
            "tollgate_secret_from_browser_total",
            "Requests with a secret token that came from a browser",
        )?;
        let publishable_outside_browser = counter(
            "tollgate_publishable_outside_browser_total",
            "Requests with a publishable token and no signal of a browser; counted with publishable_outside_browser: report",
        )?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let log_lines_dropped = gauge(
            "tollgate_access_log_dropped",
            "Access log lines dropped because the log could not keep up",
        )?;
        let leased = gauge(
            "tollgate_leased_credits",
            "Credits this node holds in open leases: what its customers lose at most if it never comes back",
        )?;
        let policies = gauge("tollgate_policies_known", "Policies in this node's memory")?;
        Ok(Self {
            registry,
            requests,
            credits: CreditMetrics { core: of_pool(Pool::Core), premium: of_pool(Pool::Premium) },
            duration,
            gate_duration,
            upstream_duration,
            store_errors,
            domain_reported,
            secret_from_browser,
            publishable_outside_browser,
            log_lines_dropped,
            leased,
            policies,
        })
    }

    /// Where other rooms register what they count themselves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All of it in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// The counters of one route, looked up once instead of for each request.
    pub fn of_route(&self, route: &str, upstream: &str) -> RouteMetrics {
        RouteMetrics {
            route: route.to_owned(),
            passed: self.requests.with_label_values(&[route, "pass", "2xx"]),
            requests: self.requests.clone(),
            duration: self.duration.with_label_values(&[route]),
            upstream: self.upstream_duration.with_label_values(&[upstream]),
        }
    }

    /// The gate has decided.
    pub fn decided(&self, seconds: f64) {
        self.gate_duration.observe(seconds);
    }

    /// So many credits are in open leases.
    pub fn leases(&self, credits: Credits) {
        self.leased.set(i64::try_from(credits.0).unwrap_or(i64::MAX));
    }

    /// So many policies are known.
    pub fn policies(&self, known: usize) {
        self.policies.set(i64::try_from(known).unwrap_or(i64::MAX));
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

    /// So many access log lines were dropped since the start.
    pub fn log_lines_dropped(&self, lines: usize) {
        self.log_lines_dropped.set(i64::try_from(lines).unwrap_or(i64::MAX));
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

/// The counters of one route.
pub struct RouteMetrics {
    route: String,
    passed: IntCounter,
    requests: IntCounterVec,
    duration: Histogram,
    upstream: Histogram,
}

impl RouteMetrics {
    /// A request has ended.
    pub fn request(&self, verdict: &str, status: u16, seconds: f64) {
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500..600 => "5xx",
            _ => "none",
        };
        if verdict == "pass" && class == "2xx" {
            self.passed.inc();
        } else {
            self.requests.with_label_values(&[self.route.as_str(), verdict, class]).inc();
        }
        self.duration.observe(seconds);
    }

    /// The upstream has begun to answer.
    pub fn upstream(&self, seconds: f64) {
        self.upstream.observe(seconds);
    }
}
