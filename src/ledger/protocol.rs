//! The whole lease protocol as one pure state machine, for checking: a store, nodes, and a network that loses, doubles and
//! reorders what is sent.
//!
//! The steps of the store are [`super::lease`] and those of a node's purse [`super::purse`], as they stand in production.
//! What surrounds a purse in a node (asking, writing ahead, recalling, recovering) is modelled in [`node`] after the gate's
//! meter. Time, faults and the order of everything are actions that a checker or a random history chooses.
//!
//! [`laws`] says what must hold; [`check`] visits every state within small bounds; [`planted`] removes one guard at a
//! time and expects the checker to notice; [`histories`] are long and random.
//!
//! What the model assumes of the network: a call that was read as refused is not carried out later. A copy of it that
//! comes late would make a lease that its node does not know of: never over the limit, but stranded.

mod action;
mod check;
mod histories;
mod laws;
mod message;
mod node;
mod planted;
mod shop;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use ulid::Ulid;

use super::purse::Micros;
use crate::policy::Period;
use message::Message;
use node::{Node, Power};
use planted::Bug;
use shop::Shop;

/// How long a lease lives.
const LIFE: Duration = Duration::from_secs(30);
const LIFE_MICROS: Micros = 30_000_000;
/// One minute before an hour, a day and a month end at once.
const BEGIN: i64 = 1_709_251_140;
/// The nodes' clocks do not begin at nought.
const NODE_BEGIN: Micros = 1_000_000;

/// What is checked: how large the world is, and how much may happen in it.
#[derive(Debug, Clone)]
struct Rules {
    nodes: u8,
    /// The limit of each token.
    limits: Vec<u64>,
    budget: Option<u64>,
    period: Period,
    /// What requests cost.
    costs: Vec<u64>,
    /// Nodes would like at least this much of a lease.
    want: u64,
    /// How often a node asks for credits that are being recalled; in production, for 250 ms.
    rounds: u8,
    /// Limits that an edit may set.
    edits: Vec<u64>,
    may: May,
    bug: Option<Bug>,
}

/// How often each thing may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct May {
    requests: u16,
    bad_responses: u16,
    losses: u16,
    doubles: u16,
    /// Calls given up while they may still be carried out.
    timeouts: u16,
    crashes: u16,
    vanishings: u16,
    store_restarts: u16,
    edits: u16,
    /// Two seconds pass.
    idles: u16,
    /// So much passes that leases want renewing.
    renewals: u16,
    /// So much passes that leases are over.
    lives: u16,
    /// The hour, the day and the month end.
    hours: u16,
    /// The store's clock steps back by ten minutes.
    steps_back: u16,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// The nodes' clock.
    now: Micros,
    shop: Shop,
    nodes: Vec<Node>,
    /// What is under way, in any order.
    net: Vec<Message>,
    may: May,
    /// What really happened.
    truth: Truth,
}

/// What really happened, known to nobody in the protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Truth {
    /// Credits of delivered responses, by lease.
    charged: BTreeMap<Ulid, u64>,
    /// The same by token and by the hour in which the request drew them.
    by_hour: BTreeMap<(u8, i64), u64>,
    /// The highest limit of each token so far.
    highest: Vec<u64>,
    /// A law that was broken by a step.
    broken: Option<&'static str>,
}

impl World {
    fn new(rules: &Rules) -> Self {
        Self {
            now: NODE_BEGIN,
            shop: Shop::new(rules),
            nodes: (0..rules.nodes).map(|index| Node::new(index, rules.limits.len(), rules.want)).collect(),
            net: Vec::new(),
            may: rules.may,
            truth: Truth { highest: rules.limits.clone(), ..Truth::default() },
        }
    }

    fn send(&mut self, message: Message) {
        let at = self.net.partition_point(|other| other <= &message);
        self.net.insert(at, message);
    }

    /// Nothing is under way anywhere, and every node that will ever come back is up.
    fn is_quiet(&self) -> bool {
        let quiet = |node: &Node| match node.power {
            Power::Up => node.is_quiet(),
            Power::Down => false,
            Power::Gone => true,
        };
        self.net.is_empty() && self.nodes.iter().all(quiet)
    }
}

fn store_time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}
