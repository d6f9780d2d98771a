//! What one configuration makes of requests: the gate's rules and the upstreams, swapped together.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Upstreams;
use crate::gate::Rules;

/// The rules that a request is judged by, and the upstreams it may go to. A request keeps it to its end.
pub struct Setup {
    /// What requests are judged by.
    pub rules: Arc<Rules>,
    /// Where they go.
    pub upstreams: Upstreams,
}

/// The setup in force, shared by the proxy and whoever reads the configuration anew.
#[derive(Clone)]
pub struct InForce(Arc<ArcSwap<Setup>>);

impl InForce {
    /// Begins with this one.
    pub fn new(setup: Setup) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(setup)))
    }

    /// The one in force now.
    pub fn get(&self) -> Arc<Setup> {
        self.0.load_full()
    }

    /// Puts another one in force, for requests that begin from now on.
    pub fn replace(&self, setup: Setup) {
        self.0.store(Arc::new(setup));
    }
}
