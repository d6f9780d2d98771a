//! The Pass: proof that a request was judged and charged.

use std::sync::Arc;

use super::meter::{Claim, Meter, Receipt};
use crate::ledger::Standing;
use crate::policy::route::Errand;
use crate::policy::{Credits, Denial, Permit, Policy};

/// A request that may be forwarded. It is made only by judging (a [`Permit`]) and charging (a claim on credits), and
/// charges or gives back exactly once however the request ends (`ledger.md`, "Request life").
pub struct Pass {
    permit: Permit,
    standing: Standing,
    claim: Option<Claim>,
    receipt: Option<Receipt>,
}

impl Pass {
    pub(super) async fn take(
        meter: &Arc<Meter>,
        policy: &Policy,
        permit: Permit,
        errand: &Errand<'_>,
    ) -> Result<Self, Denial> {
        // A batch is counted with the first data set it names.
        let (claim, standing) =
            meter.take(policy, &permit, errand.datasets.first(), errand.operation).await?;
        Ok(Self { permit, standing, claim: Some(claim), receipt: None })
    }

    /// What the permit said.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// What the request costs in the end: nothing unless it was charged.
    pub fn charged(&self) -> Credits {
        if self.receipt.is_some() { self.permit.cost() } else { Credits(0) }
    }

    /// The response begins, with this status: below 400 it is charged in full, else all is given back. Only the
    /// first call counts.
    pub(super) fn begin_response(&mut self, status: u16) {
        if let Some(claim) = self.claim.take()
            && status < 400
        {
            self.receipt = claim.spend();
        }
    }

    /// The response has ended after so many bytes of its body.
    pub(super) fn end_response(&self, bytes: u64) {
        if let Some(receipt) = &self.receipt {
            receipt.add_bytes(bytes);
        }
    }

    /// Where the token stands with this request settled.
    pub fn standing(&self) -> Standing {
        let mut standing = self.standing;
        if self.receipt.is_none() && self.claim.is_none() {
            let cost = self.permit.cost().0;
            standing.used = Credits(standing.used.0.saturating_sub(cost));
            standing.remaining = standing.remaining.map(|left| Credits(left.0.saturating_add(cost)));
        }
        standing
    }
}
