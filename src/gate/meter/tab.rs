//! The tab of one response whose price is known only while it flows: credits in hand, and what of them is spent.
//!
//! Opened from a [`Claim`]. It grows from the purse in memory; what is spent is written to the journal first, before the
//! bytes that it pays for go out. Closing it gives back what is left.

use std::collections::VecDeque;
use std::sync::Arc;

use ulid::Ulid;

use super::purse_slot::{Cell, Drawn, PurseSlot};
use super::{Claim, Meter, keeper};
use crate::ledger::purse::{Micros, Wish};
use crate::policy::{Credits, Denial};

/// Credits of one lease.
struct Part {
    lease: Ulid,
    held: u64,
    ends: Micros,
    cell: Cell,
}

/// Credits taken for one response, and what it has cost up to now.
pub(in crate::gate) struct Tab {
    meter: Arc<Meter>,
    slot: Arc<PurseSlot>,
    /// Spent from the front.
    parts: VecDeque<Part>,
    /// The last lease that was spent from, and what is counted in it.
    last: (Ulid, Cell),
    spent: u64,
    counted: bool,
}

impl Claim {
    /// The response begins, and its price grows from here on.
    pub(in crate::gate) fn open_tab(mut self) -> Option<Tab> {
        let (lease, cell) = (self.lease.take()?, self.cell.take()?);
        let last = (lease, cell.clone());
        let part = Part { lease, held: self.cost, ends: Micros::MAX, cell };
        let (meter, slot) = (self.meter.clone(), self.slot.clone());
        Some(Tab { meter, slot, parts: VecDeque::from([part]), last, spent: 0, counted: false })
    }
}

impl Tab {
    /// What may be spent in all, what was spent included.
    pub(in crate::gate) fn in_hand(&self) -> Credits {
        let held: u64 = self.parts.iter().map(|part| part.held).sum();
        Credits(self.spent.saturating_add(held))
    }

    /// What was spent.
    pub(in crate::gate) fn spent(&self) -> Credits {
        Credits(self.spent)
    }

    /// Draws from the purse, at most up to `want` in hand. Whether `need` is in hand.
    pub(in crate::gate) fn grow(&mut self, need: Credits, want: Credits) -> bool {
        self.drop_over();
        while self.in_hand() < want {
            let has = self.in_hand().0;
            let (short, more) = (need.0.saturating_sub(has), want.0 - has);
            let (drawn, wish) = self.slot.draw_part(short, more, self.meter.now());
            if let Some(wish) = wish {
                self.ask(wish, short > drawn.map_or(0, |drawn| drawn.credits));
            }
            let Some(drawn) = drawn else { break };
            if !self.add(drawn) {
                break;
            }
        }
        self.in_hand() >= need
    }

    fn ask(&self, wish: Wish, short: bool) {
        self.meter.runtime.spawn(keeper::ask(self.meter.clone(), self.slot.clone(), wish, short));
    }

    /// Credits of a lease whose hour is over are not spent in the next one.
    fn drop_over(&mut self) {
        let now = self.meter.now();
        for part in &mut self.parts {
            if now >= part.ends && part.held > 0 {
                self.slot.release(part.lease, std::mem::take(&mut part.held));
            }
        }
    }

    /// Takes drawn credits in. `false`: the journal cannot take them, so they went back.
    fn add(&mut self, drawn: Drawn) -> bool {
        if let Some(last) = self.parts.back_mut()
            && last.lease == drawn.lease
        {
            last.held += drawn.credits;
            // The draw counted a request of its own.
            self.slot.give_back(drawn.lease, 0);
            return true;
        }
        let (_, cell) = &self.last;
        let cell = self.slot.cell(&self.meter.journal, drawn.lease, &cell.dataset, cell.operation);
        let Some(cell) = cell else {
            self.slot.give_back(drawn.lease, drawn.credits);
            return false;
        };
        self.last = (drawn.lease, cell.clone());
        self.parts.push_back(Part { lease: drawn.lease, held: drawn.credits, ends: drawn.ends, cell });
        true
    }

    /// All up to `total` is spent. What is not in hand is a debt: only a response that is no stream, and has no
    /// `max_credits`, comes to that (law 1).
    pub(in crate::gate) fn spend_to(&mut self, total: Credits) {
        let due = total.0.saturating_sub(self.spent);
        if due == 0 && self.counted {
            return;
        }
        let mut left = due;
        for part in &mut self.parts {
            let now = part.held.min(left);
            // Written down first: a kill in between leaves a charge that is settled after all.
            if !std::mem::replace(&mut self.counted, true) {
                part.cell.reference.charge(now);
            } else if now > 0 {
                part.cell.reference.charge_more(now);
            }
            if now > 0 {
                self.slot.spend_part(part.lease, now);
                part.held -= now;
                left -= now;
            }
            if left == 0 {
                break;
            }
        }
        if left > 0
            && let Some(last) = self.parts.back()
        {
            last.cell.reference.charge_more(left);
            self.slot.overspend(last.lease, left);
            let cover = keeper::cover(self.meter.clone(), self.slot.clone(), last.lease, left);
            self.meter.runtime.spawn(cover);
        }
        while self.parts.len() > 1 && self.parts.front().is_some_and(|part| part.held == 0) {
            if let Some(part) = self.parts.pop_front() {
                self.slot.give_back(part.lease, 0);
            }
        }
        self.spent += due;
        self.meter.metrics.charged(self.slot.pool(), Credits(due));
    }

    /// Gives back what is held and not spent; the response goes on.
    pub(in crate::gate) fn release(&mut self) {
        for part in &mut self.parts {
            self.slot.release(part.lease, std::mem::take(&mut part.held));
        }
    }

    /// Lets go of leases that are spent, so that they can be settled, and the store knows them as used. Only for what
    /// never owes anything: a stream, before it asks for more.
    pub(in crate::gate) fn close_spent(&mut self) {
        self.parts.retain(|part| {
            if part.held == 0 {
                self.slot.give_back(part.lease, 0);
            }
            part.held > 0
        });
    }

    /// Draws until `need` is in hand, waiting for the store where the purse is empty.
    pub(in crate::gate) fn asker(&self) -> Asker {
        Asker { meter: self.meter.clone(), slot: self.slot.clone() }
    }

    /// Takes in what an [`Asker`] drew.
    pub(in crate::gate) fn take_in(&mut self, found: Found) {
        if let Some(drawn) = found.drawn() {
            self.add(drawn);
        }
    }

    /// So many bytes of the body went out.
    pub(in crate::gate) fn add_bytes(&self, bytes: u64) {
        if bytes > 0 {
            self.slot.add_bytes(self.last.0, &self.last.1, bytes);
        }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        let mut returned = 0;
        for part in &self.parts {
            self.slot.give_back(part.lease, part.held);
            returned += part.held;
        }
        if returned > 0 {
            self.meter.metrics.returned(self.slot.pool(), Credits(returned));
        }
    }
}

/// Draws for a tab, away from it.
pub(in crate::gate) struct Asker {
    meter: Arc<Meter>,
    slot: Arc<PurseSlot>,
}

impl Asker {
    /// Draws up to `need` credits, at least one.
    pub(in crate::gate) async fn draw(&self, need: u64) -> Result<Found, Denial> {
        let drawn = self.meter.draw_part(&self.slot, need).await?;
        Ok(Found { slot: self.slot.clone(), drawn: Some(drawn) })
    }

    /// How long a draw takes at most.
    pub(in crate::gate) fn patience(&self) -> std::time::Duration {
        super::RECALL + self.meter.patience
    }
}

/// Credits on their way to a tab. Dropping them gives them back.
pub(in crate::gate) struct Found {
    slot: Arc<PurseSlot>,
    drawn: Option<Drawn>,
}

impl Found {
    fn drawn(mut self) -> Option<Drawn> {
        self.drawn.take()
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        if let Some(drawn) = self.drawn.take() {
            self.slot.give_back(drawn.lease, drawn.credits);
        }
    }
}
