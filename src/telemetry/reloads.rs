//! What is counted of reading the configuration anew.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Reloads, and which configuration is in force.
pub struct ReloadMetrics {
    reloads: IntCounterVec,
    last_good: IntGauge,
    successful: IntGauge,
    in_force: IntGaugeVec,
}

impl ReloadMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "tollgate_config_reloads_total",
                "Times the configuration was read anew, by result: ok, or refused because of a mistake",
            ),
            &["result"],
        )?;
        let last_good = IntGauge::new(
            "tollgate_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since the epoch",
        )?;
        let successful = IntGauge::new(
            "tollgate_config_last_reload_successful",
            "1: the file is in force as it was last read; 0: it has a mistake, and the one before is in force",
        )?;
        let in_force = IntGaugeVec::new(
            Opts::new(
                "tollgate_config_info",
                "The configuration in force, by the start of its file's SHA-256: the same on all nodes of a fleet",
            ),
            &["sha256"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(last_good.clone()))?;
        registry.register(Box::new(successful.clone()))?;
        registry.register(Box::new(in_force.clone()))?;
        for result in ["ok", "refused"] {
            reloads.with_label_values(&[result]);
        }
        Ok(Self { reloads, last_good, successful, in_force })
    }

    /// This configuration is in force from now on.
    pub fn in_force(&self, digest: &str) {
        self.in_force.reset();
        self.in_force.with_label_values(&[digest]).set(1);
        self.last_good.set(jiff::Timestamp::now().as_second());
        self.successful.set(1);
    }

    /// The configuration was read anew.
    pub fn reloaded(&self) {
        self.reloads.with_label_values(&["ok"]).inc();
    }

    /// It was read anew and refused.
    pub fn refused(&self) {
        self.reloads.with_label_values(&["refused"]).inc();
        self.successful.set(0);
    }
}
