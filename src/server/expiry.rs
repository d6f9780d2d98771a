//! Until when certificates are good: read at load, told in the log, the metrics and by `tollgate check`.
//!
//! Only what Tollgate shows is looked at: to clients, at the admin address, to upstreams and to Redis. Whom it trusts is
//! not, for an authority that is over fails with a reason of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::{Config, StoreUrl, Tls};
use crate::telemetry::Metrics;

/// What is left of a certificate when people are told to replace it.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
const DAY: i64 = 24 * 60 * 60;

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// To clients, on a listener.
    Listener,
    /// At the admin address.
    Admin,
    /// To an upstream.
    Upstream,
    /// To Redis.
    Redis,
}

impl Use {
    /// As a label of the metric.
    fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Admin => "admin",
            Self::Upstream => "upstream",
            Self::Redis => "redis",
        }
    }
}

/// A place of the configuration that shows certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// For what.
    pub(super) what: Use,
    /// A listener's address, an upstream's name; empty for Redis, of which there is one.
    pub(super) name: String,
}

impl Place {
    pub(super) fn new(what: Use, name: &impl ToString) -> Self {
        Self { what, name: name.to_string() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Use::Listener => write!(f, "listener {}", self.name),
            Use::Admin => write!(f, "admin {}", self.name),
            Use::Upstream => write!(f, "upstream {}", self.name),
            Use::Redis => f.write_str("store"),
        }
    }
}

/// A certificate's file, and when the first certificate in it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) path: PathBuf,
    pub(super) at: Timestamp,
}

impl Expiry {
    /// Of a file's content. A chain is good as long as each part of it is; `None`: nothing in it can be read.
    pub(super) fn of_pem(path: &Path, content: &[u8]) -> Option<Self> {
        let chain = CertificateDer::pem_slice_iter(content).map_while(Result::ok);
        let at = chain.filter_map(|der| end_of(&der)).min()?;
        Some(Self { path: path.to_owned(), at })
    }

    fn of_file(path: &Path) -> Option<Self> {
        Self::of_pem(path, &std::fs::read(path).ok()?)
    }

    /// What people are to be told of it now, if anything.
    fn complaint(&self, now: Timestamp) -> Option<String> {
        let left = self.at.duration_since(now);
        if left >= SOON {
            return None;
        }
        let (path, at) = (self.path.display(), self.at);
        let days = left.as_secs() / DAY;
        Some(match days {
            _ if left <= SignedDuration::ZERO => format!("the certificate in {path} has expired ({at})"),
            0 => format!("the certificate in {path} expires in less than a day ({at})"),
            1 => format!("the certificate in {path} expires in 1 day ({at})"),
            _ => format!("the certificate in {path} expires in {days} days ({at})"),
        })
    }
}

fn end_of(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Tells of the certificates that one place shows.
#[derive(Clone)]
pub(super) struct Teller {
    place: Place,
    metrics: Arc<Metrics>,
}

impl Teller {
    pub(super) fn new(place: Place, metrics: &Arc<Metrics>) -> Self {
        Self { place, metrics: metrics.clone() }
    }

    /// These are shown from now on. The first that ends is what the metric tells.
    pub(super) fn tell(&self, shown: &[Expiry]) {
        warn_of(&self.place, shown, Timestamp::now());
        if let Some(first) = shown.iter().map(|expiry| expiry.at).min() {
            let Place { what, name } = &self.place;
            self.metrics.certificates().expires(what.as_str(), name, first.as_second());
        }
    }
}

fn warn_of(place: &Place, shown: &[Expiry], now: Timestamp) {
    for complaint in shown.iter().filter_map(|expiry| expiry.complaint(now)) {
        tracing::warn!(%place, "{complaint}");
    }
}

/// Tells of what is shown to upstreams. They have just read the same files.
pub(super) fn tell_upstreams(config: &Config, metrics: &Metrics) {
    let now = Timestamp::now();
    metrics.certificates().upstreams(to_upstreams(config).filter_map(|(place, path)| {
        let expiry = Expiry::of_file(path)?;
        let at = expiry.at.as_second();
        warn_of(&place, &[expiry], now);
        Some((place.name, at))
    }));
}

/// Tells of what is shown to Redis, which is read once.
pub(super) fn tell_store(config: &Config, metrics: &Arc<Metrics>) {
    if let Some((place, expiry)) =
        to_store(config).and_then(|(place, path)| Some((place, Expiry::of_file(path)?)))
    {
        Teller::new(place, metrics).tell(&[expiry]);
    }
}

/// What `tollgate check` says of the certificates that a configuration names, as far as they can be read here: one
/// sentence for each that has expired or soon will.
pub fn complaints(config: &Config, now: Timestamp) -> Vec<String> {
    let of = |place: Place, tls: &Option<Tls>| {
        let pairs = tls.iter().flat_map(|tls| &tls.certificates);
        pairs.map(|pair| (place.clone(), pair.cert.clone())).collect::<Vec<_>>()
    };
    let listeners = config.listeners.iter().map(|listener| (Use::Listener, listener));
    let listeners = listeners.chain(config.admin.iter().map(|listener| (Use::Admin, listener)));
    let shown = listeners.flat_map(|(what, listener)| of(Place::new(what, &listener.address), &listener.tls));
    let clients = to_upstreams(config).chain(to_store(config)).map(|(place, path)| (place, path.to_owned()));
    let all = shown.chain(clients);
    all.filter_map(|(place, path)| Some(format!("{place}: {}", Expiry::of_file(&path)?.complaint(now)?)))
        .collect()
}

fn to_upstreams(config: &Config) -> impl Iterator<Item = (Place, &Path)> {
    config.upstreams.iter().filter_map(|(name, upstream)| {
        let (cert, _) = upstream.tls.as_ref()?.identity.as_ref()?;
        Some((Place::new(Use::Upstream, name), cert.as_path()))
    })
}

fn to_store(config: &Config) -> Option<(Place, &Path)> {
    let StoreUrl::Redis(url) = &config.store.url else { return None };
    let (cert, _) = url.tls.as_ref()?.identity.as_ref()?;
    Some((Place::new(Use::Redis, &""), cert))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate that ends so many seconds after 2030 began.
    fn pem(seconds: i64) -> String {
        let mut params = CertificateParams::new(vec!["gate.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2029, 1, 1);
        params.not_after =
            rcgen::date_time_ymd(2030, 1, 1) + std::time::Duration::from_secs(seconds.unsigned_abs());
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn start() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    fn after(seconds: i64) -> Timestamp {
        start() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_chain_ends_with_the_first_of_its_parts() {
        let path = Path::new("gate.pem");
        let of = |text: &str| Expiry::of_pem(path, text.as_bytes()).map(|expiry| expiry.at);
        assert_eq!(of(&pem(7)), Some(after(7)));
        assert_eq!(of(&format!("{}{}{}", pem(90), pem(30), pem(60))), Some(after(30)));
        assert_eq!(of("no certificate"), None);
        assert_eq!(of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), None);
    }

    #[test]
    fn people_are_told_from_fourteen_days_on() {
        let expiry = Expiry { path: "gate.pem".into(), at: after(0) };
        for (before, told) in [
            (14 * DAY, None),
            (14 * DAY - 1, Some("expires in 13 days")),
            (2 * DAY, Some("expires in 2 days")),
            (2 * DAY - 1, Some("expires in 1 day")),
            (DAY - 1, Some("expires in less than a day")),
            (0, Some("has expired")),
            (-400 * DAY, Some("has expired")),
        ] {
            let told = told.map(|told| format!("the certificate in gate.pem {told} (2030-01-01T00:00:00Z)"));
            assert_eq!(expiry.complaint(after(-before)), told, "{before} s before");
        }
    }

    #[test]
    fn a_check_looks_at_whatever_is_shown_and_passes_over_what_is_not_here() {
        let folder = tempfile::tempdir().unwrap();
        for (name, days) in [("old", 1), ("fine", 90)] {
            std::fs::write(folder.path().join(name), pem(days * DAY)).unwrap();
        }
        let [old, fine] = ["old", "fine"].map(|name| folder.path().join(name).display().to_string());
        let text = format!(
            "listeners:\n  - {{address: \"127.0.0.1:8080\", tls: {{certificates: [{{cert: {fine}, key: k}}, {{cert: {old}, key: k}}]}}}}\n\
             admin: {{address: \"127.0.0.1:8081\", tls: {{cert: {old}, key: k}}}}\n\
             store: {{url: \"rediss://redis.test\", tls: {{cert: {old}, key: k}}}}\n\
             upstreams:\n  a: {{servers: [\"127.0.0.1:1\"], tls: {{cert: {old}, key: k}}}}\n  \
             b: {{servers: [\"127.0.0.1:2\"], tls: {{cert: {fine}, key: k}}}}\n  \
             c: {{servers: [\"127.0.0.1:3\"], tls: {{cert: /absent, key: k}}}}\n\
             routes: [{{path: /a, upstream: a, access: core}}]\n"
        );
        let config =
            crate::config::parse(&text, Path::new("proxy.yaml"), &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let places = ["listener 127.0.0.1:8080", "admin 127.0.0.1:8081", "upstream a", "store"];
        let expected = places
            .map(|place| format!("{place}: the certificate in {old} has expired (2030-01-02T00:00:00Z)"));
        assert_eq!(complaints(&config, after(DAY)), expected);
        assert_eq!(complaints(&config, after(-30 * DAY)), Vec::<String>::new());
    }
}
