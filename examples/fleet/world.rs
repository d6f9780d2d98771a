//! The simulated fleet: events in time, the purses of all nodes, and one store.
//!
//! Purses and the store's steps are Tollgate's own; what is between them follows `src/gate/meter`: one ask at a time for
//! each purse, a round of tidying every 200 ms, a recall and another ask every 10 ms for at most 250 ms.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tollgate::ledger::lease::{self, Ask, Lease, LeaseBooks, LeaseTerms, Reserved};
use tollgate::ledger::purse::{Draw, Micros, Purse, Wish};
use tollgate::policy::{Credits, Limit, Period};
use ulid::Ulid;

use crate::dice::Dice;
use crate::plan::{Findings, Plan};

/// From a node to the store, or back.
const ONE_WAY: Micros = 250;
/// How long a response takes.
const RESPONSE: Micros = 5_000;
const ROUND: Micros = 200_000;
const ASK_AGAIN: Micros = 10_000;
const RECALL: Micros = 250_000;
const REMEMBER: Micros = 50_000;
const LIFE: Micros = 30_000_000;
const BEGIN: i64 = 1_800_000_000;

#[derive(Clone, Copy)]
enum Event {
    Request,
    Respond {
        node: u32,
        token: u32,
        lease: Ulid,
    },
    /// A call reaches the store.
    Call {
        node: u32,
        token: u32,
        call: Wish,
        lease: Ulid,
        asked_at: Micros,
    },
    Answer {
        node: u32,
        token: u32,
        call: Wish,
        lease: Ulid,
        asked_at: Micros,
        answer: Answer,
    },
    Recall {
        node: u32,
        token: u32,
    },
    AskAgain {
        node: u32,
        token: u32,
    },
    Round {
        node: u32,
    },
    Look,
}

#[derive(Clone, Copy)]
enum Answer {
    Granted { credits: u64, valid_for: Micros },
    Refused { recallable: bool },
    Done,
}

struct Due(Micros, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

#[derive(Default)]
struct Slot {
    purse: Purse,
    waiting: u64,
    /// The wish that is being asked for, since when, and whether somebody waits.
    asking: Option<(Wish, Micros, bool)>,
    exhausted_until: Micros,
}

pub struct World<'a> {
    plan: &'a Plan,
    now: Micros,
    due: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    dice: Dice,
    slots: HashMap<(u32, u32), Slot>,
    /// The tokens that each node has purses of.
    purses: Vec<Vec<u32>>,
    /// The nodes that have purses of a token.
    holders: HashMap<u32, Vec<u32>>,
    books: Vec<LeaseBooks>,
    leases: HashMap<Ulid, Lease>,
    made: u128,
    findings: Findings,
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let mut world = Self {
            plan,
            now: 0,
            due: BinaryHeap::new(),
            sequence: 0,
            dice: Dice(plan.seed),
            slots: HashMap::new(),
            purses: vec![Vec::new(); plan.nodes as usize],
            holders: HashMap::new(),
            books: vec![LeaseBooks::default(); plan.limits.len()],
            leases: HashMap::new(),
            made: 0,
            findings: Findings { drawn: vec![0; plan.limits.len()], ..Findings::default() },
        };
        world.schedule(1_000_000, Event::Request);
        world.schedule(plan.warm_up.max(1_500_000), Event::Look);
        for node in 0..plan.nodes {
            let first = world.dice.below(ROUND);
            world.schedule(first, Event::Round { node });
        }
        world
    }

    pub fn run(mut self) -> Findings {
        let end = self.plan.seconds * 1_000_000;
        while let Some(Reverse(Due(at, _, event))) = self.due.pop() {
            if at >= end {
                break;
            }
            self.now = at;
            self.happen(event);
        }
        self.findings.seconds = Duration::from_micros(end - self.plan.warm_up).as_secs_f64();
        self.findings
    }

    fn schedule(&mut self, after: Micros, event: Event) {
        self.sequence += 1;
        self.due.push(Reverse(Due(self.now + after, self.sequence, event)));
    }

    fn counts(&self) -> bool {
        self.now >= self.plan.warm_up
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request => self.request(),
            Event::Respond { node, token, lease } => {
                if let Some(slot) = self.slots.get_mut(&(node, token)) {
                    slot.purse.spend(lease, 1);
                }
            }
            Event::Call { node, token, call, lease, asked_at } => {
                let answer = self.serve(token, call, lease);
                if self.counts() {
                    self.findings.operations += 1;
                    self.findings.pairs.entry((node, token)).or_default().1 += 1;
                }
                self.schedule(ONE_WAY, Event::Answer { node, token, call, lease, asked_at, answer });
            }
            Event::Answer { node, token, call, lease, asked_at, answer } => {
                self.hear(node, token, (call, lease, asked_at), answer);
            }
            Event::Recall { node, token } => {
                if let Some(slot) = self.slots.get_mut(&(node, token)) {
                    slot.purse.recall();
                    slot.exhausted_until = 0;
                    self.tend(node, token);
                }
            }
            Event::AskAgain { node, token } => {
                let asking = self.slots.get(&(node, token)).and_then(|slot| slot.asking);
                if let Some((wish, _, _)) = asking {
                    self.call(node, token, wish);
                }
            }
            Event::Round { node } => self.round(node),
            Event::Look => self.look(),
        }
    }

    fn request(&mut self) {
        let wait = -(1.0 - self.dice.part()).ln() / self.plan.requests_per_second * 1e6;
        // The cast saturates and the figure is small.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, at least one")]
        self.schedule((wait as Micros).max(1), Event::Request);
        let part = self.dice.part();
        let token = self.plan.shares.partition_point(|upto| *upto < part).min(self.plan.limits.len() - 1);
        let token = u32::try_from(token).unwrap();
        let node = u32::try_from(self.dice.below(u64::from(self.plan.nodes))).unwrap();
        if self.counts() {
            self.findings.requests += 1;
            self.findings.pairs.entry((node, token)).or_default().0 += 1;
        }
        if let Entry::Vacant(vacant) = self.slots.entry((node, token)) {
            vacant.insert(Slot::default());
            self.purses[node as usize].push(token);
            self.holders.entry(token).or_default().push(node);
        }
        self.draw(node, token, true);
    }

    /// One request draws, waits or is refused.
    fn draw(&mut self, node: u32, token: u32, fresh: bool) {
        let now = self.now;
        let Some(slot) = self.slots.get_mut(&(node, token)) else { return };
        let short = match slot.purse.draw(1, now) {
            Draw::Taken(lease) => {
                slot.waiting -= u64::from(!fresh);
                self.admit(node, token, lease, fresh);
                None
            }
            Draw::Short if fresh && now < slot.exhausted_until => return self.refuse(token, 1),
            Draw::Short => {
                slot.waiting += u64::from(fresh);
                Some(1)
            }
        };
        let Some(slot) = self.slots.get_mut(&(node, token)) else { return };
        if now < slot.exhausted_until {
            return;
        }
        if let Some(wish) = slot.purse.wish_more(short, now) {
            slot.asking = Some((wish, now, short.is_some()));
            self.call(node, token, wish);
        }
    }

    fn admit(&mut self, node: u32, token: u32, lease: Ulid, fresh: bool) {
        let drawn = &mut self.findings.drawn[token as usize];
        *drawn += 1;
        if *drawn == self.plan.limits[token as usize] {
            self.findings.ends.entry(token).or_default().1 = Some(self.now);
        }
        if self.counts() {
            self.findings.admitted += 1;
            self.findings.waited += u64::from(!fresh);
        }
        let late = self.dice.below(RESPONSE);
        self.schedule(RESPONSE / 2 + late, Event::Respond { node, token, lease });
    }

    fn refuse(&mut self, token: u32, requests: u64) {
        let early = self.findings.drawn[token as usize] < self.plan.limits[token as usize];
        self.findings.ends.entry(token).or_default().0.get_or_insert(self.now);
        if self.counts() {
            self.findings.refused += requests;
        }
        if early {
            self.findings.early += requests;
        }
    }

    fn call(&mut self, node: u32, token: u32, call: Wish) {
        let lease = match call {
            Wish::Reserve { .. } => {
                self.made += 1;
                Ulid(self.made)
            }
            Wish::Shrink { lease, .. } | Wish::Settle { lease, .. } | Wish::Renew { lease } => lease,
        };
        self.schedule(ONE_WAY, Event::Call { node, token, call, lease, asked_at: self.now });
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_microsecond(BEGIN * 1_000_000 + i64::try_from(self.now).unwrap()).unwrap()
    }

    fn serve(&mut self, token: u32, call: Wish, id: Ulid) -> Answer {
        let now = self.clock();
        let credits = Credits(self.plan.limits[token as usize]);
        let life = Duration::from_micros(LIFE);
        let terms = LeaseTerms { limit: Some(Limit { credits, period: Period::None }), budget: None, life };
        let books = &mut self.books[token as usize];
        let mut lease = self.leases.remove(&id);
        let answer = match call {
            Wish::Reserve { want, need } => {
                let ask = Ask { want: Credits(want), need: Credits(need) };
                match lease::reserve(books, &mut lease, &terms, ask, now) {
                    Reserved::Granted(grant) => Answer::Granted {
                        credits: grant.granted.0,
                        valid_for: Micros::try_from(grant.valid_for.as_micros()).unwrap(),
                    },
                    Reserved::CreditsExhausted { recallable, .. }
                    | Reserved::BudgetExhausted { recallable, .. } => Answer::Refused { recallable },
                    Reserved::Void => Answer::Refused { recallable: false },
                }
            }
            Wish::Shrink { keep, .. } => {
                lease::shrink(books, &mut lease, Credits(keep));
                Answer::Done
            }
            Wish::Settle { spent, .. } => {
                lease::settle(books, &mut lease, Credits(spent), now);
                // Nothing is said twice here, so nothing has to be remembered.
                return Answer::Done;
            }
            Wish::Renew { .. } => {
                lease::renew(&mut lease, life, now);
                Answer::Done
            }
        };
        if let Some(lease) = lease {
            self.leases.insert(id, lease);
        }
        answer
    }

    fn hear(&mut self, node: u32, token: u32, (call, lease, asked_at): (Wish, Ulid, Micros), answer: Answer) {
        let now = self.now;
        let Some(slot) = self.slots.get_mut(&(node, token)) else { return };
        match (call, answer) {
            (_, Answer::Granted { credits, valid_for }) => {
                slot.purse.granted(lease, credits, asked_at + valid_for, asked_at + LIFE);
                slot.asking = None;
                self.serve_waiting(node, token);
            }
            (_, Answer::Refused { recallable }) => {
                let Some((_, since, waits)) = slot.asking else { return };
                if waits && recallable && now - since < RECALL {
                    return self.recall(node, token);
                }
                slot.purse.refused();
                slot.asking = None;
                if waits {
                    slot.exhausted_until = now + REMEMBER;
                    let refused = std::mem::take(&mut slot.waiting);
                    self.refuse(token, refused);
                } else {
                    self.serve_waiting(node, token);
                }
            }
            (Wish::Shrink { keep, .. }, _) => slot.purse.shrunk(lease, keep),
            (Wish::Settle { .. }, _) => slot.purse.settled(lease),
            (Wish::Renew { .. }, _) => slot.purse.renewed(lease, Some(asked_at + LIFE)),
            (Wish::Reserve { .. }, _) => {}
        }
    }

    /// Those who wait draw until one has to wait on.
    fn serve_waiting(&mut self, node: u32, token: u32) {
        loop {
            let waiting = self.slots.get(&(node, token)).map_or(0, |slot| slot.waiting);
            if waiting == 0 {
                return;
            }
            self.draw(node, token, false);
            if self.slots.get(&(node, token)).is_none_or(|slot| slot.waiting == waiting) {
                return;
            }
        }
    }

    /// Asks all nodes for what they do not need, and then the store again.
    fn recall(&mut self, node: u32, token: u32) {
        self.findings.recalls += 1;
        for holder in self.holders.get(&token).cloned().unwrap_or_default() {
            self.schedule(2 * ONE_WAY, Event::Recall { node: holder, token });
        }
        self.schedule(ASK_AGAIN, Event::AskAgain { node, token });
    }

    fn tend(&mut self, node: u32, token: u32) {
        let Some(slot) = self.slots.get_mut(&(node, token)) else { return };
        for wish in slot.purse.wishes(self.now, false) {
            self.call(node, token, wish);
        }
    }

    fn round(&mut self, node: u32) {
        self.schedule(ROUND, Event::Round { node });
        let tokens = std::mem::take(&mut self.purses[node as usize]);
        for token in &tokens {
            self.tend(node, *token);
        }
        let now = self.now;
        let (slots, holders) = (&mut self.slots, &mut self.holders);
        let kept = tokens.into_iter().filter(|token| {
            let Some(slot) = slots.get(&(node, *token)) else { return false };
            let idle = slot.purse.is_empty() && slot.waiting == 0 && slot.asking.is_none();
            let forgotten = idle && now - slot.purse.last_draw() > 10_000_000;
            if forgotten {
                slots.remove(&(node, *token));
                if let Some(nodes) = holders.get_mut(token) {
                    nodes.retain(|other| *other != node);
                }
            }
            !forgotten
        });
        self.purses[node as usize] = kept.collect();
    }

    fn look(&mut self) {
        self.schedule(1_000_000, Event::Look);
        let now = self.clock();
        let open = self.books.iter().map(|books| books.token.leased(Period::None, now).0);
        let open: Vec<u64> = open.filter(|open| *open > 0).collect();
        self.findings.open_in_all.push(open.iter().sum());
        self.findings.open.extend(open);
    }
}
