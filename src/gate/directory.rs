//! The policies known here: who is behind a token.
//!
//! Today each request asks the store, so an edit is in force with the next request on every node. The seam is where
//! a bounded cache with invalidation will stand; nobody else may look a token up for a request.

use std::sync::Arc;

use crate::policy::{Denial, Policy, Token};
use crate::store::Store;
use crate::telemetry::Metrics;

/// Finds policies for the gate.
pub(super) struct Directory {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Directory {
    pub(super) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// The policy behind a token, or the refusal that its absence means.
    pub(super) async fn find(&self, token: &Token) -> Result<Arc<Policy>, Denial> {
        match self.store.find_token(&token.digest()).await {
            // A record that calls itself another kind than its token's prefix is not to be trusted.
            Ok(Some(policy)) if policy.kind == token.kind() => Ok(Arc::new(policy)),
            Ok(Some(policy)) => {
                tracing::error!(token_id = %policy.id, "the record's type is not the token's; refused");
                Err(Denial::PolicyUnreadable)
            }
            Ok(None) => Err(Denial::TokenInvalid),
            Err(error) => Err(self.metrics.store_failed("find_token", &error)),
        }
    }
}
