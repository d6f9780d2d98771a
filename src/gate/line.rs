//! The line to the store: every call the gate makes goes through here.
//!
//! Owns the circuit breaker and the time of the last contact. After two failures in a row the line is cut: calls fail at
//! once, and only [`Line::watch`] asks, now and then, whether the store is back. So an outage costs each request
//! microseconds, not a timeout (law 6).

use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::policy::{AccountId, Denial};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Failures in a row that cut the line.
const CUTS: u32 = 2;
/// The pause between two tries while it is cut.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The line.
pub(super) struct Line {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    born: Instant,
    failures: AtomicU32,
    /// Milliseconds since `born`; `u64::MAX`: never.
    contact: AtomicU64,
    /// Milliseconds that had passed at `born` since an earlier run heard the store; gone with the first contact.
    before: AtomicU64,
}

impl Line {
    pub(super) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            born: Instant::now(),
            failures: AtomicU32::new(0),
            contact: AtomicU64::new(u64::MAX),
            before: AtomicU64::new(0),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long ago the store last answered; `None`: it has not yet.
    pub(super) fn silence(&self) -> Option<Duration> {
        let contact = self.contact.load(Ordering::Acquire);
        (contact != u64::MAX).then(|| {
            let before = self.before.load(Ordering::Acquire);
            Duration::from_millis(self.millis().saturating_sub(contact).saturating_add(before))
        })
    }

    /// The store was heard so long ago, by an earlier run.
    pub(super) fn heard(&self, age: Duration) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.before.store(age, Ordering::Release);
        self.contact.store(0, Ordering::Release);
    }

    /// Whether calls fail at once just now.
    pub(super) fn is_cut(&self) -> bool {
        self.failures.load(Ordering::Acquire) >= CUTS
    }

    /// Makes one call. What it says is counted and logged here, once.
    pub(super) async fn call<'s, T, F>(
        &'s self,
        operation: &'static str,
        ask: impl FnOnce(&'s dyn Store) -> F,
    ) -> Result<T, Denial>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if self.is_cut() {
            return Err(Denial::StoreUnavailable);
        }
        let begun = Instant::now();
        let answer = ask(self.store.as_ref()).await;
        self.metrics.store_called(operation, begun.elapsed());
        self.hear(operation, answer)
    }

    /// Where calls are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks the store whether it is back whenever the line is cut, as long as there is a line. It is asked for the account,
    /// so that in a cluster the server answers that calls need.
    pub(super) async fn watch(line: Weak<Self>, account: AccountId) {
        loop {
            tokio::time::sleep(TRY_EVERY).await;
            let Some(line) = line.upgrade() else { return };
            if line.is_cut() {
                let _ = line.hear("epoch", line.store.epoch(&account).await);
            }
        }
    }

    /// Takes note of how a call went.
    fn hear<T>(&self, operation: &'static str, result: Result<T, StoreError>) -> Result<T, Denial> {
        match result {
            Err(error @ StoreError::Unavailable(_)) => {
                let before = self.failures.fetch_add(1, Ordering::AcqRel);
                if before + 1 == CUTS {
                    tracing::error!(operation, %error, "the store is out of reach; known tokens go on, for the grace time");
                }
                Err(self.metrics.store_failed(operation, &error))
            }
            other => {
                if self.failures.swap(0, Ordering::AcqRel) >= CUTS {
                    tracing::info!("the store is back");
                }
                self.before.store(0, Ordering::Release);
                self.contact.store(self.millis(), Ordering::Release);
                other.map_err(|error| self.metrics.store_failed(operation, &error))
            }
        }
    }
}
