//! One response whose price, or whose end, is settled while it flows.
//!
//! Puts [`Flow`] (what went by, and what it costs) and [`Tab`](super::meter::Tab) (what is in hand) together: charges before
//! bytes go out, cuts a stream where the credits end, holds back what cannot be paid for yet, and says farewell. Pingora's
//! filters of bodies cannot wait for anything but a time that they name beforehand. So a piece that cannot be paid for at once
//! waits [`SOON`], and where the store takes longer, its thread waits (the other tasks of it go on elsewhere). On a runtime
//! with one thread nobody can wait so: there the rest goes with the next piece.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::streams::{Hand, Open};
use crate::policy::tally::Flow;
use crate::policy::{Credits, Denial};

/// How long a piece waits for credits at first: longer than a store takes to answer.
const SOON: Duration = Duration::from_millis(10);
/// The same for what is delivered in any case, so that the limit is exceeded only where it is really used up.
const SOONER: Duration = Duration::from_millis(3);

/// So much of a body whose length is known is drawn for at once; it goes out soon, and what does not is given back.
const AHEAD: u64 = 1024 * 1024;

/// The response.
pub(super) struct Metered {
    flow: Flow,
    open: Arc<Open>,
    /// How long the body is, if that is known.
    length: u64,
    /// Held back: not paid for yet.
    rest: Bytes,
    /// A stream, and its price grows: it is cut where the credits end.
    cut: bool,
    /// The upstream's filter has seen the piece already.
    seen: bool,
    /// The last word was said; nothing more goes out.
    said: bool,
}

impl Metered {
    /// The response begins: what it costs already is spent.
    pub(super) fn begin(flow: Flow, open: Arc<Open>, grows: bool, length: Option<u64>) -> Self {
        let cut = grows && flow.is_stream();
        let length = length.unwrap_or_default();
        let mut metered = Self { flow, open, length, rest: Bytes::new(), cut, seen: false, said: false };
        let open = metered.open.clone();
        let mut hand = open.hand();
        metered.spend(&mut hand);
        metered.look_ahead(&mut hand);
        drop(hand);
        metered
    }

    /// What it has cost up to now.
    pub(super) fn charged(&self) -> Credits {
        let hand = self.open.hand();
        hand.tab.as_ref().map_or(hand.charged, super::meter::Tab::spent)
    }

    /// Why the gate ended it, if it did.
    pub(super) fn ended(&self) -> Option<Denial> {
        self.open.hand().ended.clone()
    }

    /// Before Pingora passes a piece on: takes note of it. How long Pingora is to wait, where credits are being fetched;
    /// [`Self::pass`] then tries once more.
    pub(super) fn prepare(&mut self, body: &mut Option<Bytes>, end: bool) -> Option<Duration> {
        if !self.cut {
            return self.count_ahead(body.as_ref());
        }
        self.seen = true;
        self.go(body, end).then_some(SOON)
    }

    /// A piece goes by: what of it goes out is left in `body`.
    pub(super) fn pass(&mut self, body: &mut Option<Bytes>, end: bool) -> Option<Duration> {
        let seen = std::mem::take(&mut self.seen);
        if seen && !self.cut && !self.said {
            let open = self.open.clone();
            let mut hand = open.hand();
            self.draw_all(&mut hand);
            self.spend(&mut hand);
            return None;
        }
        let mut short = if seen { !self.rest.is_empty() && !self.said } else { self.go(body, end) };
        if seen && short {
            short = self.go_on(body, end);
        }
        // Two rounds at most: what is asked for is all that is held back.
        if short && self.open.wait() {
            short = self.go_on(body, end);
        }
        // Nothing more is read meanwhile. What is held back goes with the next piece, or with the farewell.
        (short && !end).then(|| self.patience())
    }

    /// Counts a piece that is not cut, and asks for what it costs beyond what is in hand.
    fn count_ahead(&mut self, body: Option<&Bytes>) -> Option<Duration> {
        let open = self.open.clone();
        let mut hand = open.hand();
        let piece = body?;
        if self.said || hand.ended.is_some() {
            return None;
        }
        self.seen = true;
        self.flow.pass(piece);
        self.draw_all(&mut hand);
        let price = self.flow.price();
        if hand.tab.as_ref().is_none_or(|tab| tab.in_hand() >= price) {
            return None;
        }
        hand.need = Some(price);
        open.ask(&mut hand);
        Some(SOONER)
    }

    fn patience(&self) -> Duration {
        self.open.hand().tab.as_ref().map_or(SOON, |tab| tab.asker().patience())
    }

    /// Tries once more with what is held back.
    fn go_on(&mut self, body: &mut Option<Bytes>, end: bool) -> bool {
        let mut more = None;
        let short = self.go(&mut more, end);
        let first = body.take().unwrap_or_default();
        let out = join(first, more.unwrap_or_default());
        *body = (!out.is_empty()).then_some(out);
        short
    }

    /// Whether something had to be held back.
    fn go(&mut self, body: &mut Option<Bytes>, end: bool) -> bool {
        if self.said {
            *body = None;
            return false;
        }
        let open = self.open.clone();
        let mut hand = open.hand();
        let fresh = body.take().unwrap_or_default();
        if let Some(denial) = hand.ended.clone()
            && !(end && fresh.is_empty() && self.rest.is_empty())
        {
            self.rest = join(std::mem::take(&mut self.rest), fresh);
            *body = self.last_words(&mut hand, &denial);
            drop(hand);
            open.let_go();
            return false;
        }
        if !self.cut {
            self.flow.pass(&fresh);
            self.draw_all(&mut hand);
            self.spend(&mut hand);
            *body = (!fresh.is_empty()).then_some(fresh);
            return false;
        }
        self.rest = join(std::mem::take(&mut self.rest), fresh);
        *body = self.admit(&mut hand);
        let short = !self.rest.is_empty();
        hand.waiting = short;
        if short {
            let mut whole = self.flow;
            whole.pass(&self.rest);
            hand.need = Some(whole.due().max(self.flow.next_price()));
            open.ask(&mut hand);
        } else if !end {
            self.look_ahead(&mut hand);
        }
        short
    }

    /// Takes from the rest what can be paid for, and pays.
    fn admit(&mut self, hand: &mut Hand) -> Option<Bytes> {
        let tab = hand.tab.as_mut()?;
        let mut out = Bytes::new();
        while !self.rest.is_empty() {
            let paid = self.flow.admit(&self.rest, tab.in_hand());
            if paid > 0 {
                out = join(out, self.rest.split_to(paid));
            }
            if self.rest.is_empty() {
                break;
            }
            let mut whole = self.flow;
            whole.pass(&self.rest);
            let next = self.flow.next_price();
            if !tab.grow(next, whole.due().max(next)) {
                break;
            }
        }
        tab.spend_to(self.flow.price());
        (!out.is_empty()).then_some(out)
    }

    /// A stream has the price of its next event in hand before that comes, or is told that there is none.
    fn look_ahead(&mut self, hand: &mut Hand) {
        if !self.cut {
            return;
        }
        let next = self.flow.next_price();
        hand.is_cut = true;
        hand.need = Some(next);
        if let Some(tab) = &mut hand.tab
            && !tab.grow(next, next)
        {
            self.open.ask(hand);
        }
    }

    fn draw_all(&self, hand: &mut Hand) {
        let price = self.flow.price();
        if let Some(tab) = &mut hand.tab
            && tab.in_hand() < price
        {
            let ahead = self.flow.seen().bytes.saturating_add(AHEAD);
            tab.grow(price, self.flow.price_at(self.length.min(ahead)));
        }
    }

    fn spend(&self, hand: &mut Hand) {
        if let Some(tab) = &mut hand.tab {
            tab.spend_to(self.flow.price());
        }
    }

    /// What still goes out when the gate ends the response: what is paid for, and why it ends.
    fn last_words(&mut self, hand: &mut Hand, denial: &Denial) -> Option<Bytes> {
        self.said = true;
        let mut out = BytesMut::new();
        let over = matches!(
            denial,
            Denial::CreditsExhausted { .. } | Denial::BudgetExhausted { .. } | Denial::StoreUnavailable
        );
        if over && self.cut {
            out.extend_from_slice(&self.admit(hand).unwrap_or_default());
        }
        hand.waiting = false;
        out.extend_from_slice(&self.flow.farewell(denial).unwrap_or_default());
        (!out.is_empty()).then(|| out.freeze())
    }

    /// The upstream was let go of: what still goes out. `None`: the gate did not end it.
    pub(super) fn farewell(&mut self) -> Option<Bytes> {
        let open = self.open.clone();
        let mut hand = open.hand();
        let denial = hand.ended.clone()?;
        if self.said {
            return Some(Bytes::new());
        }
        Some(self.last_words(&mut hand, &denial).unwrap_or_default())
    }

    /// The response has ended after so many bytes: what is held goes back.
    pub(super) fn close(&mut self, bytes: u64) {
        let mut hand = self.open.hand();
        if let Some(tab) = hand.tab.take() {
            tab.add_bytes(bytes);
            hand.charged = tab.spent();
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        // Whoever draws for it finds that it has ended.
        self.close(0);
    }
}

fn join(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (false, true) => first,
        (false, false) => [first, second].concat().into(),
    }
}
