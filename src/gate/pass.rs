//! The Pass: proof that a request was judged and charged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::meter::{Claim, Meter, Receipt, Tab};
use super::metered::Metered;
use crate::ledger::Standing;
use crate::ledger::idempotency::{Key, Opened, Payment};
use crate::policy::cost::Rest;
use crate::policy::route::Errand;
use crate::policy::{Credits, Denial, Permit, Policy};

/// A request that may be forwarded. It is made only by judging (a [`Permit`]) and charging (a claim on credits), and
/// charges or gives back exactly once however the request ends (`ledger.md`, "Request life").
pub struct Pass {
    permit: Permit,
    standing: Standing,
    items: u64,
    /// What was taken before it was sent.
    held: Credits,
    claim: Option<Claim>,
    receipt: Option<Receipt>,
    metered: Option<Box<Metered>>,
    /// What was paid when the price was told afterwards.
    paid: Option<Credits>,
    key: Option<Key>,
    /// It was paid for by an earlier request with its key.
    free: bool,
}

impl Pass {
    pub(super) async fn take(
        meter: &Arc<Meter>,
        policy: &Policy,
        permit: Permit,
        errand: &Errand<'_>,
        key: Option<Key>,
    ) -> Result<Self, Denial> {
        let free = match key {
            Some(key) => meter.open_key(key)? == Opened::Paid,
            None => false,
        };
        let held = if free { Credits(0) } else { permit.cost() };
        // A batch is counted with the first data set it names.
        let taken = meter.take(policy, permit.pool(), held, errand.datasets.first(), errand.operation);
        let (claim, standing) = taken.await?;
        Ok(Self {
            permit,
            standing,
            items: errand.items,
            held,
            claim: Some(claim),
            receipt: None,
            metered: None,
            paid: None,
            key,
            free,
        })
    }

    /// What the permit said.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// What the request costs in the end: nothing unless it was charged.
    pub fn charged(&self) -> Credits {
        if let Some(paid) = self.paid {
            return paid;
        }
        match (&self.metered, &self.receipt) {
            (Some(metered), _) => metered.charged(),
            (None, Some(_)) if !self.free => self.held,
            (None, _) => Credits(0),
        }
    }

    /// How many items the request names.
    pub(super) fn items(&self) -> u64 {
        self.items
    }

    /// Whether its price is known only from the response.
    pub(super) fn is_late(&self) -> bool {
        self.permit.hold().rest != Rest::Nothing
    }

    /// Whether it was paid for already.
    pub(super) fn is_free(&self) -> bool {
        self.free
    }

    /// The response begins, with this status: below 400 it is charged in full, else all is given back. Only the
    /// first call counts.
    pub(super) fn begin_response(&mut self, status: u16) {
        if status >= 400 {
            self.claim = None;
        }
        let Some(mut claim) = self.claim.take() else { return };
        if self.is_paid_meanwhile(&claim) {
            claim.release();
        }
        self.receipt = claim.spend();
    }

    /// Whether another request with the key was faster; else this one pays.
    fn is_paid_meanwhile(&mut self, claim: &Claim) -> bool {
        if let (Some(key), false) = (self.key, self.free) {
            self.free = claim.pay_key(key) == Payment::Again;
            return self.free;
        }
        false
    }

    /// The response begins well, and its price or its end is settled while it flows: the credits taken are its tab's.
    /// `None`: there is nothing to settle, as another request with the key has paid.
    pub(super) fn begin_flow(&mut self, may_be_paid: bool) -> Option<Tab> {
        let claim = self.claim.take()?;
        if may_be_paid && self.is_paid_meanwhile(&claim) {
            self.claim = Some(claim);
            self.begin_response(200);
            return None;
        }
        claim.open_tab()
    }

    /// The response has gone by elsewhere, and its price is told afterwards: that much of what is held is spent, what is
    /// missing is drawn, what is left is given back. What cannot be drawn exceeds the limit by at most this response's
    /// cost (law 1).
    pub(super) async fn pay(&mut self, price: Credits, bytes: u64) {
        let Some(mut tab) = self.begin_flow(true) else { return };
        while tab.in_hand() < price {
            let missing = price.0.saturating_sub(tab.in_hand().0);
            let Ok(found) = tab.asker().draw(missing).await else { break };
            tab.take_in(found);
        }
        tab.spend_to(price);
        tab.add_bytes(bytes);
        self.paid = Some(tab.spent());
    }

    /// What settles it while it flows.
    pub(super) fn set_metered(&mut self, metered: Metered) {
        self.metered = Some(Box::new(metered));
    }

    /// What settles it while it flows, if that is so.
    pub(super) fn metered(&mut self) -> Option<&mut Metered> {
        self.metered.as_deref_mut()
    }

    /// Why the gate ended the response, if it did.
    pub(super) fn ended(&self) -> Option<Denial> {
        self.metered.as_ref().and_then(|metered| metered.ended())
    }

    /// A piece of the body goes by.
    pub(super) fn pass_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Option<Duration> {
        self.metered.as_mut().and_then(|metered| metered.pass(body, end))
    }

    /// The response has ended after so many bytes of its body.
    pub(super) fn end_response(&mut self, bytes: u64) {
        if let Some(metered) = &mut self.metered {
            metered.close(bytes);
        }
        if let Some(receipt) = &self.receipt {
            receipt.add_bytes(bytes);
        }
    }

    /// Where the token stands with this request settled.
    pub fn standing(&self) -> Standing {
        let mut standing = self.standing;
        let open = self.receipt.is_some() || self.claim.is_some() || self.metered.is_some();
        if !open || (self.free && self.receipt.is_some()) {
            let cost = self.held.0;
            standing.used = Credits(standing.used.0.saturating_sub(cost));
            standing.remaining = standing.remaining.map(|left| Credits(left.0.saturating_add(cost)));
        }
        standing
    }
}
