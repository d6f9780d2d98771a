//! Until when the certificates in use are good.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{Error, IntGaugeVec};

use super::register::Register;

/// The end of each certificate that is shown. One series for each place of the configuration that shows one.
pub struct CertificateMetrics {
    expires: IntGaugeVec,
    upstreams: Mutex<BTreeSet<String>>,
}

/// The `use` of certificates shown to upstreams, which come and go with a reload.
const UPSTREAM: &str = "upstream";

impl CertificateMetrics {
    pub(super) fn new(make: &Register<'_>) -> Result<Self, Error> {
        let expires = make.gauges(
            "tollgate_certificate_expires_timestamp_seconds",
            "When what is shown expires (the first of a chain, or of several), in seconds since 1970, by use (listener, admin, \
             upstream, redis) and its name in the configuration",
            &["use", "name"],
        )?;
        Ok(Self { expires, upstreams: Mutex::default() })
    }

    /// What is shown there from now on expires then (seconds since 1970).
    pub fn expires(&self, what: &str, name: &str, at: i64) {
        self.expires.with_label_values(&[what, name]).set(at);
    }

    /// These upstreams are shown certificates that expire then; no others are shown any.
    pub fn upstreams(&self, all: impl IntoIterator<Item = (String, i64)>) {
        let mut known = self.upstreams.lock();
        let mut now = BTreeSet::new();
        for (name, at) in all {
            self.expires(UPSTREAM, &name, at);
            now.insert(name);
        }
        for gone in known.difference(&now) {
            // It was set when it became known.
            let _ = self.expires.remove_label_values(&[UPSTREAM, gone]);
        }
        *known = now;
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn an_upstream_that_left_leaves_no_series() {
        let registry = Registry::new();
        let metrics = CertificateMetrics::new(&Register(&registry)).unwrap();
        let lines = || {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            text.lines().filter(|line| line.contains('{')).map(str::to_owned).collect::<Vec<_>>()
        };
        let line = |what: &str, name: &str, at: i64| {
            format!("tollgate_certificate_expires_timestamp_seconds{{name=\"{name}\",use=\"{what}\"}} {at}")
        };
        metrics.expires("listener", "a", 1);
        metrics.upstreams([("a".to_owned(), 2), ("b".to_owned(), 3)]);
        metrics.upstreams([("b".to_owned(), 4)]);
        assert_eq!(lines(), [line("listener", "a", 1), line("upstream", "b", 4)]);
    }
}
