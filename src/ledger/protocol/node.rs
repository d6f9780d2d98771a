//! A node: its purses, its journal, and what surrounds them, after the gate's meter.

use std::collections::{BTreeMap, BTreeSet};

use ulid::Ulid;

use super::LIFE_MICROS;
use super::message::{Call, Message, Reply};
use super::planted::Bug;
use crate::ledger::purse::{Draw, Micros, Purse, Wish};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Power {
    Up,
    /// It will come back, with its journal.
    Down,
    /// It will not.
    Gone,
}

/// A request whose response has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Flight {
    pub(super) token: u8,
    pub(super) lease: Ulid,
    pub(super) cost: u64,
    /// The hour in which it drew its credits.
    pub(super) hour: i64,
}

/// A purse that asks for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asking {
    /// A call is out.
    Called,
    /// Credits are being recalled; it will ask again.
    Recalling { want: u64, need: u64, round: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) index: u8,
    pub(super) power: Power,
    pub(super) life: u16,
    made: u32,
    pub(super) purses: Vec<Purse>,
    pub(super) asking: Vec<Option<Asking>>,
    /// What survives a crash: for each lease its token and the credits used for good.
    pub(super) journal: BTreeMap<Ulid, (u8, u64)>,
    /// Leases that no purse holds and that are to be settled as the journal says: of an earlier life, or asked for in vain.
    pub(super) closing: BTreeSet<Ulid>,
    /// Calls that wait for their answer.
    pub(super) calls: BTreeSet<Call>,
    pub(super) flights: Vec<Flight>,
    /// Requests that wait for credits: token and cost.
    pub(super) waiting: Vec<(u8, u64)>,
}

/// What a node reads while it acts, and where it puts what it says.
pub(super) struct Scene<'a> {
    pub(super) now: Micros,
    pub(super) hour: i64,
    pub(super) want: u64,
    pub(super) rounds: u8,
    pub(super) bug: Option<Bug>,
    pub(super) out: &'a mut Vec<Message>,
    /// Recalls that it publishes: of one token or of all.
    pub(super) recalls: Vec<Option<u8>>,
}

/// A purse from which `rate` credits were spent a moment ago: it asks ahead, and for more than it needs.
fn used_purse(rate: u64) -> Purse {
    let mut purse = Purse::default();
    purse.granted(Ulid::nil(), rate, 1, 1);
    let _ = purse.draw(rate, 0);
    purse.settled(Ulid::nil());
    purse
}

impl Node {
    pub(super) fn new(index: u8, tokens: usize, want: u64) -> Self {
        Self {
            index,
            power: Power::Up,
            life: 0,
            made: 0,
            purses: vec![used_purse(want); tokens],
            asking: vec![None; tokens],
            journal: BTreeMap::new(),
            closing: BTreeSet::new(),
            calls: BTreeSet::new(),
            flights: Vec::new(),
            waiting: Vec::new(),
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.flights.is_empty()
            && self.waiting.is_empty()
            && self.calls.is_empty()
            && self.closing.is_empty()
            && self.asking.iter().all(Option::is_none)
            && self.purses.iter().all(Purse::is_empty)
    }

    fn tokens(&self) -> impl Iterator<Item = u8> + use<> {
        0..u8::try_from(self.purses.len()).unwrap()
    }

    fn call(&mut self, call: Call, scene: &mut Scene) {
        if self.calls.insert(call) {
            scene.out.push(Message::Call { node: self.index, life: self.life, call });
        }
    }

    pub(super) fn request(&mut self, token: u8, cost: u64, scene: &mut Scene) {
        self.waiting.push((token, cost));
        self.serve(scene);
    }

    /// Whoever waits draws, and what they lack is asked for.
    fn serve(&mut self, scene: &mut Scene) {
        for (token, cost) in std::mem::take(&mut self.waiting) {
            let purse = &mut self.purses[usize::from(token)];
            let by = match scene.bug {
                // As if no lease ended in the meantime.
                Some(Bug::DrawsAfterTheEnd) => {
                    let ends = purse.leases().iter().map(|held| held.ends).min();
                    ends.map_or(scene.now, |ends| ends.saturating_sub(1).min(scene.now))
                }
                _ => scene.now,
            };
            let short = match purse.draw(cost, by) {
                Draw::Taken(lease) => {
                    self.flights.push(Flight { token, lease, cost, hour: scene.hour });
                    None
                }
                Draw::Short => {
                    self.waiting.push((token, cost));
                    Some(cost)
                }
            };
            if let Some(Wish::Reserve { want, need }) = purse.wish_more(short, scene.now) {
                let ask = (want.max(scene.want), need, u8::from(short.is_some()));
                self.ask(token, ask, scene);
            }
        }
        self.flights.sort_unstable();
        self.waiting.sort_unstable();
    }

    /// Asks for a lease: `want`, `need`, and the how manieth time; zero: ahead, nobody waits.
    fn ask(&mut self, token: u8, (want, need, round): (u64, u64, u8), scene: &mut Scene) {
        let lease = Ulid((u128::from(self.index) + 1) << 64 | u128::from(self.made));
        self.made += 1;
        if scene.bug != Some(Bug::NoWriteAhead) {
            self.journal.insert(lease, (token, 0));
        }
        self.asking[usize::from(token)] =
            Some(if round > 0 { Asking::Recalling { want, need, round } } else { Asking::Called });
        let (ahead, last) = (round == 0, round >= scene.rounds);
        self.call(Call::Reserve { lease, token, want, need, asked_at: scene.now, ahead, last }, scene);
    }

    /// Asks again for credits that were recalled.
    pub(super) fn ask_again(&mut self, token: u8, scene: &mut Scene) {
        if let Some(Asking::Recalling { want, need, round }) = self.asking[usize::from(token)] {
            self.ask(token, (want, need, round + 1), scene);
        }
    }

    /// Whether it waits for recalled credits, with no call out.
    pub(super) fn is_recalling(&self, token: u8) -> bool {
        matches!(self.asking[usize::from(token)], Some(Asking::Recalling { .. }))
            && !self.calls.iter().any(|call| matches!(call, Call::Reserve { token: of, .. } if *of == token))
    }

    pub(super) fn respond(&mut self, at: usize, good: bool, scene: &mut Scene) -> Flight {
        let flight = self.flights.remove(at);
        let purse = &mut self.purses[usize::from(flight.token)];
        if good {
            if scene.bug != Some(Bug::JournalMissesSpend) {
                self.journal.entry(flight.lease).and_modify(|(_, spent)| *spent += flight.cost);
            }
            purse.spend(flight.lease, flight.cost);
        } else {
            purse.give_back(flight.lease, flight.cost);
            self.serve(scene);
        }
        flight
    }

    /// Carries out what the purses wish for.
    pub(super) fn tend(&mut self, scene: &mut Scene) {
        for lease in self.closing.clone() {
            let Some(&(token, spent)) = self.journal.get(&lease) else { continue };
            self.call(Call::Settle { lease, token, spent }, scene);
        }
        for token in self.tokens() {
            self.tend_purse(token, scene);
        }
    }

    fn tend_purse(&mut self, token: u8, scene: &mut Scene) {
        for wish in self.purses[usize::from(token)].wishes(scene.now, false) {
            match wish {
                Wish::Settle { lease, .. } => {
                    let spent = self.journal.get(&lease).map_or(0, |(_, spent)| *spent);
                    self.call(Call::Settle { lease, token, spent }, scene);
                }
                Wish::Shrink { lease, .. } if scene.bug == Some(Bug::SettlesWhatFlies) => {
                    let spent = self.journal.get(&lease).map_or(0, |(_, spent)| *spent);
                    self.call(Call::Settle { lease, token, spent }, scene);
                }
                Wish::Shrink { lease, keep } => {
                    let flying = self.flights.iter().filter(|flight| flight.lease == lease);
                    let keep = match scene.bug {
                        Some(Bug::ShrinksBelowFlying) => keep - flying.map(|flight| flight.cost).sum::<u64>(),
                        _ => keep,
                    };
                    self.call(Call::Shrink { lease, token, keep }, scene);
                }
                Wish::Renew { lease } => {
                    self.call(Call::Renew { lease, token, asked_at: scene.now }, scene);
                }
                Wish::Reserve { .. } => {}
            }
        }
    }

    pub(super) fn recall(&mut self, token: Option<u8>, scene: &mut Scene) {
        for of in self.tokens().filter(|of| token.is_none_or(|token| token == *of)) {
            self.purses[usize::from(of)].recall();
            self.tend_purse(of, scene);
        }
    }

    /// A call is given up: its answer did not come in time. It may still be carried out.
    pub(super) fn give_up(&mut self, call: Call, scene: &mut Scene) {
        self.calls.remove(&call);
        let (token, lease) = (call.token(), call.lease());
        let purse = &mut self.purses[usize::from(token)];
        match call {
            Call::Reserve { .. } => {
                purse.refused();
                self.asking[usize::from(token)] = None;
                if scene.bug == Some(Bug::UnansweredIsForgotten) {
                    self.journal.remove(&lease);
                } else {
                    self.abandon(lease, token);
                }
                // They are told that the store is unavailable.
                self.waiting.retain(|(of, _)| *of != token);
            }
            _ => purse.failed(lease),
        }
    }

    fn abandon(&mut self, lease: Ulid, token: u8) {
        self.journal.entry(lease).or_insert((token, 0));
        self.closing.insert(lease);
    }

    pub(super) fn hear(&mut self, call: Call, reply: Reply, scene: &mut Scene) {
        if !self.calls.remove(&call) && scene.bug != Some(Bug::HearsStaleReplies) {
            return;
        }
        let (lease, token) = (call.lease(), call.token());
        let purse = &mut self.purses[usize::from(token)];
        match (call, reply) {
            (Call::Reserve { asked_at, .. }, Reply::Granted { granted, valid_for }) => {
                let counted_from =
                    if scene.bug == Some(Bug::CountsFromTheAnswer) { scene.now } else { asked_at };
                purse.granted(
                    lease,
                    granted,
                    counted_from.saturating_add(valid_for),
                    counted_from + LIFE_MICROS,
                );
                self.journal.entry(lease).or_insert((token, 0));
                self.asking[usize::from(token)] = None;
                self.serve(scene);
            }
            (Call::Reserve { need, ahead, last, .. }, Reply::Refused { recallable, budget }) => {
                self.journal.remove(&lease);
                if !ahead && recallable && !last {
                    scene.recalls.push((!budget).then_some(token));
                    return;
                }
                purse.refused();
                self.asking[usize::from(token)] = None;
                if !ahead {
                    self.waiting.retain(|(of, cost)| *of != token || *cost < need);
                }
                self.serve(scene);
            }
            (Call::Reserve { .. }, _) => {
                // It was settled or has expired before its answer came.
                purse.refused();
                self.asking[usize::from(token)] = None;
                if scene.bug == Some(Bug::VoidIsForgotten) {
                    self.journal.remove(&lease);
                } else {
                    self.abandon(lease, token);
                }
                self.serve(scene);
            }
            (Call::Shrink { keep, .. }, _) => purse.shrunk(lease, keep),
            (Call::Settle { .. }, _) => {
                if !self.closing.remove(&lease) {
                    purse.settled(lease);
                }
                self.journal.remove(&lease);
            }
            (Call::Renew { asked_at, .. }, Reply::Renewed { open }) => {
                purse.renewed(lease, open.then_some(asked_at + LIFE_MICROS));
            }
            (Call::Renew { .. }, _) => {}
        }
    }

    pub(super) fn crash(&mut self, power: Power) {
        self.power = power;
        self.life += 1;
        self.purses.fill(Purse::default());
        self.asking.fill(None);
        self.closing.clear();
        self.calls.clear();
        self.flights.clear();
        self.waiting.clear();
    }

    /// Comes back; what the journal holds is to be settled.
    pub(super) fn restart(&mut self, bug: Option<Bug>) {
        self.power = Power::Up;
        self.closing = self.journal.keys().copied().collect();
        if bug == Some(Bug::JournalIsLost) {
            self.journal.clear();
            self.closing.clear();
        }
    }
}
