//! What requests are judged by, as one configuration says it.
//!
//! A configuration that is read anew makes new rules, and they are swapped as a whole ([`Gate::adopt`]). A request
//! keeps those it began with to its end, so it is judged, forwarded and answered by one configuration, never by parts
//! of two. Owns what of [`Settings`] may change while the gate is open; what may not is the gate's own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::own::Own;
use super::reply::Dialect;
use super::{Gate, Settings, Visit};
use crate::policy::route::Route;
use crate::telemetry::{Metrics, RouteMetrics};

/// The rules of one configuration. They are used with the gate that made them.
pub struct Rules {
    pub(super) settings: Settings,
    pub(super) own: Own,
    /// The counters of each route, by its place in the table.
    counts: Vec<RouteMetrics>,
}

impl Rules {
    pub(super) fn new(settings: Settings, metrics: &Metrics) -> Self {
        let of_route = |route: &Route| metrics.of_route(route.path.as_str(), Some(&route.upstream));
        let counts = settings.routes.iter().map(of_route).collect();
        Self { own: Own::new(settings.dialect, &settings.routes), settings, counts }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.settings.dialect
    }

    /// The counters of the route at this place; `None`: it has none of its own.
    pub(super) fn counts(&self, at: usize) -> Option<&RouteMetrics> {
        self.counts.get(at)
    }
}

impl Gate {
    /// Rules by other settings. Of these the following count: routes, dialect, trusted proxies, what is told of
    /// browsers, CORS, forwarded headers and the skew of signatures. The others stay as they were when the gate opened.
    pub fn make_rules(&self, settings: Settings) -> Arc<Rules> {
        Arc::new(Rules::new(settings, &self.metrics))
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Puts rules in force, for requests that begin from now on.
    pub fn adopt(&self, rules: Arc<Rules>) {
        self.streams.set_leaked_secret(rules.settings.leaked_secret);
        self.rules.store(rules);
    }

    /// Says that the gate is about to stop: what answers from now on is the last on its connection.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the gate is about to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// As [`Gate::new_visit`], by rules that the caller swaps together with what it forwards by.
    pub fn new_visit_by(&self, rules: Arc<Rules>) -> Visit {
        Visit::new(super::visit::Active::new(&self.active), rules)
    }
}
