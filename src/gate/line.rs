//! The line to the store: every call the gate makes goes through here.
//!
//! Owns the circuit breaker and the time of the last contact. After two failures in a row, or one call that timed out while
//! nothing else came back, the line is cut: calls fail at once, and only [`Line::watch`] asks, now and then, whether the
//! store is back. Before a call times out the store is already known to be silent ([`pulse`]), and requests that can do
//! without it do not wait. So an outage costs each request microseconds, not a timeout (law 6).

use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ledger::purse::Micros;
use crate::policy::{AccountId, Denial};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

mod pulse;

use pulse::{Out, Pulse};

/// Failures in a row that cut the line.
const CUTS: u32 = 2;
/// The pause between two tries while it is cut.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether the store owes an answer, where it owes none.
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    pulse: Mutex<Pulse>,
    /// The line was cut just now.
    cut: Notify,
}

/// A call that is out; dropped, nobody waits for its answer any more.
struct Call<'l> {
    line: &'l Line,
    out: Option<Out>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.out.is_some() {
            self.line.pulse.lock().gave_up();
        }
    }
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
            pulse: Mutex::default(),
            cut: Notify::new(),
        }
    }

    fn micros(&self) -> Micros {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
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

    /// Ends when the store is silent: calls are out, and nothing has come back for much longer than usual.
    pub(super) async fn falls_silent(&self) {
        loop {
            let silent_from = self.pulse.lock().silent_from();
            let wait = match silent_from.map(|from| from.saturating_sub(self.micros())) {
                Some(0) => return,
                Some(left) => Duration::from_micros(left),
                None => LOOK_EVERY,
            };
            tokio::time::sleep(wait).await;
        }
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
        self.hear(operation, ask(self.store.as_ref())).await
    }

    /// Where calls are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks the store whether it is back whenever the line is cut, as long as there is a line: at once, since one late
    /// answer may be all there was, and then now and then. It is asked for the account, so that in a cluster the server
    /// answers that calls need.
    pub(super) async fn watch(line: Weak<Self>, account: AccountId) {
        loop {
            let Some(line) = line.upgrade() else { return };
            if line.is_cut() {
                let _ = line.hear("epoch", line.store.epoch(&account)).await;
            }
            if !line.is_cut() {
                let _ = tokio::time::timeout(TRY_EVERY, line.cut.notified()).await;
                continue;
            }
            drop(line);
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Waits for an answer and takes note of it.
    async fn hear<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Denial> {
        let mut call = Call { line: self, out: Some(self.pulse.lock().begin(self.micros())) };
        let begun = self.micros();
        let answer = answer.await;
        self.metrics.store_called(operation, Duration::from_micros(self.micros().saturating_sub(begun)));
        let out = call.out.take();
        match answer {
            Err(error @ StoreError::Unavailable(_)) => {
                let silent = out.is_some_and(|out| {
                    let mut pulse = self.pulse.lock();
                    pulse.gave_up();
                    pulse.was_silent(out, self.micros())
                });
                let counts = if silent { CUTS } else { 1 };
                let before = self.failures.fetch_add(counts, Ordering::AcqRel);
                if before < CUTS && before + counts >= CUTS {
                    tracing::error!(operation, %error, "the store is out of reach; known tokens go on, for the grace time");
                    self.cut.notify_one();
                }
                Err(self.metrics.store_failed(operation, &error))
            }
            other => {
                if let Some(out) = out {
                    self.pulse.lock().answered(out, self.micros());
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::directory::tests::Shelf;

    fn line() -> Line {
        Line::new(Arc::new(Shelf::default()), Arc::new(Metrics::new().unwrap()))
    }

    fn away() -> Result<(), StoreError> {
        Err(StoreError::Unavailable("gone".to_owned()))
    }

    #[tokio::test]
    async fn one_call_that_fails_in_silence_cuts_the_line() {
        let line = line();
        let failing = async || {
            line.falls_silent().await;
            away()
        };
        assert_eq!(line.call("test", |_| failing()).await, Err(Denial::StoreUnavailable));
        assert!(line.is_cut());
    }

    #[tokio::test]
    async fn one_call_that_fails_among_others_does_not() {
        let line = line();
        let failing = async || {
            line.falls_silent().await;
            line.call("test", |_| async { Ok(()) }).await.unwrap();
            away()
        };
        assert_eq!(line.call("test", |_| failing()).await, Err(Denial::StoreUnavailable));
        assert!(!line.is_cut());
        // Two in a row do, however soon they fail.
        assert_eq!(line.call("test", |_| async { away() }).await, Err(Denial::StoreUnavailable));
        assert!(line.is_cut());
    }

    #[tokio::test]
    async fn a_line_that_is_cut_is_mended_by_its_watch() {
        let line = Arc::new(line());
        for _ in 0..CUTS {
            let _ = line.call("test", |_| async { away() }).await;
        }
        let watch = tokio::spawn(Line::watch(Arc::downgrade(&line), AccountId::default_account()));
        let mended = async {
            while line.is_cut() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), mended).await.expect("the line is mended");
        watch.abort();
    }
}
