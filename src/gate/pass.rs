//! The Pass: proof that a request was judged and charged.

use super::meter::{Claim, Meter};
use crate::ledger::Standing;
use crate::policy::{Credits, Denial, Permit, Policy};

/// A request that may be forwarded. It is made only by judging (a [`Permit`]) and charging (a claim on credits), and
/// charges or gives back exactly once however the request ends (`ledger.md`, "Request life").
pub struct Pass {
    permit: Permit,
    standing: Standing,
    claim: Option<Claim>,
    charged: bool,
}

impl Pass {
    pub(super) async fn take(meter: &Meter, policy: &Policy, permit: Permit) -> Result<Self, Denial> {
        let (claim, standing) = meter.take(policy, &permit).await?;
        Ok(Self { permit, standing, claim: Some(claim), charged: false })
    }

    /// What the permit said.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// What the request costs in the end: nothing unless it was charged.
    pub fn charged(&self) -> Credits {
        if self.charged { self.permit.cost() } else { Credits(0) }
    }

    /// The response begins, with this status: below 400 it is charged in full, else all is given back. Only the
    /// first call counts.
    pub(super) fn begin_response(&mut self, status: u16) {
        if let Some(claim) = self.claim.take()
            && status < 400
        {
            claim.spend();
            self.charged = true;
        }
    }

    /// Where the token stands with this request settled.
    pub fn standing(&self) -> Standing {
        let mut standing = self.standing;
        if !self.charged && self.claim.is_none() {
            let cost = self.permit.cost().0;
            standing.used = Credits(standing.used.0.saturating_sub(cost));
            standing.remaining = standing.remaining.map(|left| Credits(left.0.saturating_add(cost)));
        }
        standing
    }
}
