//! What may happen next, and what it does.

use super::message::{Call, Message};
use super::node::{Node, Power, Scene};
use super::planted::Bug;
use super::{Rules, World, laws};
use crate::ledger::purse::Micros;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Request {
        node: u8,
        token: u8,
        cost: u64,
    },
    Respond {
        node: u8,
        at: usize,
        good: bool,
    },
    Tend {
        node: u8,
    },
    AskAgain {
        node: u8,
        token: u8,
    },
    /// A message arrives; it is named by its place among those under way.
    Deliver(usize),
    Lose(usize),
    Double(usize),
    GiveUp {
        node: u8,
        call: Call,
    },
    Pass(Time),
    Sweep,
    Crash {
        node: u8,
    },
    Restart {
        node: u8,
    },
    Vanish {
        node: u8,
    },
    /// The store starts anew: everything under way is lost.
    StoreRestart,
    Edit {
        token: u8,
        limit: u64,
    },
    StepBack,
}

/// How much time passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Idle,
    Renewal,
    Life,
    Hour,
}

impl World {
    fn live(&self, node: u8, life: u16) -> bool {
        let node = &self.nodes[usize::from(node)];
        node.power == Power::Up && node.life == life
    }

    /// Everything that may happen next.
    pub(super) fn actions(&self, rules: &Rules, actions: &mut Vec<Action>) {
        for at in 0..self.net.len() {
            if at > 0 && self.net[at] == self.net[at - 1] {
                continue;
            }
            actions.push(Action::Deliver(at));
            // A recall that is lost is said again by whoever asks again; the last one arrives (law 3: "while nodes reach
            // the store").
            if !matches!(self.net[at], Message::Recall { .. }) {
                if self.may.losses > 0 {
                    actions.push(Action::Lose(at));
                }
                if self.may.doubles > 0 {
                    actions.push(Action::Double(at));
                }
            }
        }
        for node in 0..rules.nodes {
            self.node_actions(node, rules, actions);
        }
        self.world_actions(rules, actions);
    }

    fn node_actions(&self, index: u8, rules: &Rules, actions: &mut Vec<Action>) {
        let node = &self.nodes[usize::from(index)];
        match node.power {
            Power::Gone => return,
            Power::Down => return actions.push(Action::Restart { node: index }),
            Power::Up => {}
        }
        let tokens = 0..u8::try_from(rules.limits.len()).unwrap();
        if self.may.requests > 0 {
            // The nodes are alike until the first request comes.
            let first = rules.may.requests == self.may.requests;
            for token in tokens.clone().filter(|token| !first || (*token, index) == (0, 0)) {
                let request = |cost: &u64| Action::Request { node: index, token, cost: *cost };
                actions.extend(rules.costs.iter().map(request));
            }
        }
        for at in 0..node.flights.len() {
            if at > 0 && node.flights[at] == node.flights[at - 1] {
                continue;
            }
            actions.push(Action::Respond { node: index, at, good: true });
            if self.may.bad_responses > 0 {
                actions.push(Action::Respond { node: index, at, good: false });
            }
        }
        if self.has_wishes(index) {
            actions.push(Action::Tend { node: index });
        }
        let again = tokens.filter(|token| node.is_recalling(*token) && self.recall_is_done());
        actions.extend(again.map(|token| Action::AskAgain { node: index, token }));
        for call in &node.calls {
            if self.may.timeouts > 0 || !self.is_under_way(index, call) {
                actions.push(Action::GiveUp { node: index, call: *call });
            }
        }
        if self.may.crashes > 0 {
            actions.push(Action::Crash { node: index });
        }
        if self.may.vanishings > 0 {
            actions.push(Action::Vanish { node: index });
        }
    }

    fn world_actions(&self, rules: &Rules, actions: &mut Vec<Action>) {
        let times = [
            (self.may.idles, Time::Idle),
            (self.may.renewals, Time::Renewal),
            (self.may.lives, Time::Life),
            (self.may.hours, Time::Hour),
        ];
        actions.extend(times.iter().filter(|(left, _)| *left > 0).map(|(_, time)| Action::Pass(*time)));
        let mut swept = self.shop.clone();
        swept.sweep(rules.bug);
        if swept != self.shop {
            actions.push(Action::Sweep);
        }
        if self.may.store_restarts > 0
            && self.net.iter().any(|message| !matches!(message, Message::Recall { .. }))
        {
            actions.push(Action::StoreRestart);
        }
        if self.may.steps_back > 0 {
            actions.push(Action::StepBack);
        }
        if self.may.edits > 0 {
            for (token, book) in (0_u8..).zip(&self.shop.tokens) {
                let other = rules.edits.iter().filter(|limit| **limit != book.limit);
                actions.extend(other.map(|limit| Action::Edit { token, limit: *limit }));
            }
        }
    }

    fn is_under_way(&self, node: u8, call: &Call) -> bool {
        let life = self.nodes[usize::from(node)].life;
        self.net.iter().any(|message| match message {
            Message::Call { node: from, life: of, call: what }
            | Message::Reply { node: from, life: of, call: what, .. } => {
                (*from, *of, what) == (node, life, call)
            }
            Message::Recall { .. } => false,
        })
    }

    fn has_wishes(&self, index: u8) -> bool {
        let node = &self.nodes[usize::from(index)];
        let settles = |call: &Call, lease| matches!(call, Call::Settle { .. }) && call.lease() == lease;
        node.closing.iter().any(|lease| !node.calls.iter().any(|call| settles(call, *lease)))
            || node.purses.iter().any(|purse| !purse.clone().wishes(self.now, false).is_empty())
    }

    /// A recall reached everybody, what it set free is back, and calls that were lost on the way are given up. In
    /// production this is a matter of milliseconds; whoever asks before then asks again.
    fn recall_is_done(&self) -> bool {
        let from_the_living = |message: &Message| match *message {
            Message::Call { node, life, .. } => self.live(node, life),
            Message::Reply { .. } | Message::Recall { .. } => true,
        };
        !self.net.iter().any(from_the_living)
            && (0..)
                .zip(&self.nodes)
                .filter(|(_, node)| node.power == Power::Up)
                .all(|(index, node)| !self.has_wishes(index) && node.calls.is_empty())
    }

    /// Lets something happen, and checks the laws that are about steps.
    pub(super) fn act(&mut self, action: Action, rules: &Rules) {
        let (clock, before) = (self.shop.clock, laws::committed(&self.shop));
        self.apply(action, rules);
        self.forget_the_unheard(rules);
        // Another time shows another period's books.
        if self.shop.clock == clock {
            laws::check_step(self, &before);
        }
    }

    fn with_node(&mut self, node: u8, rules: &Rules, act: impl FnOnce(&mut Node, &mut Scene)) {
        let mut out = Vec::new();
        let mut scene = Scene {
            now: self.now,
            hour: self.shop.hour(),
            want: rules.want,
            rounds: rules.rounds,
            bug: rules.bug,
            out: &mut out,
            recalls: Vec::new(),
        };
        act(&mut self.nodes[usize::from(node)], &mut scene);
        let recalls = scene.recalls;
        for message in out {
            self.send(message);
        }
        for token in recalls {
            self.publish(token, rules);
        }
    }

    fn publish(&mut self, token: Option<u8>, rules: &Rules) {
        if rules.bug == Some(Bug::RecallIsNotHeard) {
            return;
        }
        for node in 0..rules.nodes {
            let message = Message::Recall { node, token };
            if self.nodes[usize::from(node)].power == Power::Up && !self.net.contains(&message) {
                self.send(message);
            }
        }
    }

    fn apply(&mut self, action: Action, rules: &Rules) {
        let may = &mut self.may;
        match action {
            Action::Request { node, token, cost } => {
                may.requests -= 1;
                self.with_node(node, rules, |node, scene| node.request(token, cost, scene));
            }
            Action::Respond { node, at, good } => {
                may.bad_responses -= u16::from(!good);
                let mut flight = None;
                self.with_node(node, rules, |node, scene| flight = Some(node.respond(at, good, scene)));
                if let Some(flight) = flight.filter(|_| good) {
                    *self.truth.charged.entry(flight.lease).or_default() += flight.cost;
                    *self.truth.by_hour.entry((flight.token, flight.hour)).or_default() += flight.cost;
                }
            }
            Action::Tend { node } => self.with_node(node, rules, Node::tend),
            Action::AskAgain { node, token } => {
                self.with_node(node, rules, |node, scene| node.ask_again(token, scene));
            }
            Action::Deliver(at) => {
                let message = self.net.remove(at);
                self.deliver(message, rules);
            }
            Action::Lose(at) => {
                may.losses -= 1;
                self.net.remove(at);
            }
            Action::Double(at) => {
                may.doubles -= 1;
                let message = self.net[at];
                self.send(message);
            }
            Action::GiveUp { node, call } => {
                if self.is_under_way(node, &call) {
                    self.may.timeouts -= 1;
                }
                self.with_node(node, rules, |node, scene| node.give_up(call, scene));
            }
            Action::Crash { node } => {
                may.crashes -= 1;
                self.nodes[usize::from(node)].crash(Power::Down);
            }
            Action::Vanish { node } => {
                may.vanishings -= 1;
                self.nodes[usize::from(node)].crash(Power::Gone);
            }
            Action::Restart { node } => self.nodes[usize::from(node)].restart(rules.bug),
            Action::StoreRestart => {
                may.store_restarts -= 1;
                // A recall is said again by whoever asks again.
                self.net.retain(|message| matches!(message, Message::Recall { .. }));
            }
            Action::Edit { token, limit } => {
                may.edits -= 1;
                self.shop.tokens[usize::from(token)].limit = limit;
                let highest = &mut self.truth.highest[usize::from(token)];
                *highest = limit.max(*highest);
                self.publish(Some(token), rules);
            }
            Action::Sweep => self.shop.sweep(rules.bug),
            Action::Pass(time) => self.pass(time),
            Action::StepBack => {
                may.steps_back -= 1;
                self.shop.clock -= 600_000_000;
            }
        }
    }

    /// Lets the world come to rest: nothing fails any more, whoever is down comes back, and time passes.
    pub(super) fn come_to_rest(&mut self, rules: &Rules) {
        self.may = super::May::default();
        let mut actions = Vec::new();
        for _ in 0..3 {
            self.may.idles = 0;
            loop {
                actions.clear();
                self.actions(rules, &mut actions);
                let Some(action) = actions.first() else { break };
                self.act(*action, rules);
            }
            self.may.idles = 1;
            self.act(Action::Pass(Time::Idle), rules);
        }
    }

    fn pass(&mut self, time: Time) {
        let (left, micros) = match time {
            Time::Idle => (&mut self.may.idles, 2_000_000),
            Time::Renewal => (&mut self.may.renewals, 21_000_000),
            Time::Life => (&mut self.may.lives, 31_000_000),
            Time::Hour => (&mut self.may.hours, 3_600_000_000 - self.shop.clock.rem_euclid(3_600_000_000)),
        };
        *left -= 1;
        self.shop.clock += micros;
        self.now += Micros::try_from(micros).unwrap();
    }

    fn deliver(&mut self, message: Message, rules: &Rules) {
        match message {
            Message::Call { node, life, call } => {
                let reply = self.shop.serve(&call, rules.bug);
                laws::check_refusal(self, &call, &reply);
                if matches!(reply, super::message::Reply::Refused { .. }) {
                    self.net.retain(|other| *other != message);
                }
                self.send(Message::Reply { node, life, call, reply });
            }
            Message::Reply { node, life, call, reply } => {
                if self.live(node, life) {
                    self.with_node(node, rules, |node, scene| node.hear(call, reply, scene));
                }
            }
            Message::Recall { node, token } => {
                if self.nodes[usize::from(node)].power == Power::Up {
                    self.with_node(node, rules, |node, scene| node.recall(token, scene));
                }
            }
        }
    }

    /// Takes away what would change nothing when it arrives, so that fewer states have to be visited.
    fn forget_the_unheard(&mut self, rules: &Rules) {
        let stale = rules.bug == Some(Bug::HearsStaleReplies);
        let nodes = &self.nodes;
        self.net.retain(|message| {
            let node = &nodes[usize::from(message.node())];
            match message {
                Message::Call { .. } => true,
                Message::Reply { life, call, .. } => {
                    node.power == Power::Up && node.life == *life && (stale || node.calls.contains(call))
                }
                Message::Recall { .. } => node.power == Power::Up,
            }
        });
    }
}
