//! Every state within small bounds.
//!
//! Each scope is one kind of trouble, so that each can be visited whole. The figures of states are asserted: a checker that
//! visits nothing finds nothing.

use stateright::{Checker, Model, Property};

use super::action::Action;
use super::{May, Rules, World, laws};
use crate::policy::Period;

const ALL_LAWS: &str = "all laws hold";

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(self, actions);
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        world.act(action, self);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = |rules: &Rules, world: &World| laws::broken_law(world, rules).is_none();
        vec![Property::always(ALL_LAWS, holds)]
    }
}

/// Two nodes and one token, and nothing goes wrong yet.
pub(super) fn small(limit: u64) -> Rules {
    Rules {
        nodes: 2,
        limits: vec![limit],
        budget: None,
        period: Period::Hour,
        costs: vec![1],
        want: limit,
        rounds: 3,
        edits: Vec::new(),
        may: May::default(),
        bug: None,
    }
}

/// The first law that is broken in the fewest steps, and those steps.
pub(super) fn find_break(rules: &Rules) -> Option<(&'static str, Vec<String>)> {
    let checker = rules.clone().checker().spawn_bfs().join();
    let path = checker.discovery(ALL_LAWS)?;
    let law = laws::broken_law(path.last_state(), rules)?;
    let steps = path.into_vec().into_iter().filter_map(|(_, action)| action);
    Some((law, steps.map(|action| format!("{action:?}")).collect()))
}

/// Visits every state, of which there are at least `at_least`.
fn check(rules: &Rules, at_least: usize) {
    let checker = rules.clone().checker().threads(2).spawn_bfs().join();
    if let Some(path) = checker.discovery(ALL_LAWS) {
        let law = laws::broken_law(path.last_state(), rules);
        let steps: Vec<_> = path.into_vec().into_iter().filter_map(|(_, action)| action).collect();
        panic!("{law:?} does not hold after {steps:#?}");
    }
    let visited = checker.unique_state_count();
    println!("{visited} states, up to {} steps deep", checker.max_depth());
    assert!(visited >= at_least, "{visited} states were visited, not {at_least}");
}

/// Calls and answers are lost, doubled, late and given up.
pub(super) fn lossy() -> Rules {
    let may = May { requests: 2, losses: 1, doubles: 1, timeouts: 1, idles: 1, ..May::default() };
    Rules { nodes: 1, may, ..small(2) }
}

/// The same between two nodes that want the same credits.
pub(super) fn contended() -> Rules {
    Rules { may: May { requests: 2, doubles: 1, timeouts: 1, ..May::default() }, ..small(2) }
}

/// A node is killed and comes back, and what it sent before arrives late.
pub(super) fn crashing() -> Rules {
    let may = May { requests: 1, crashes: 1, losses: 1, doubles: 1, lives: 1, ..May::default() };
    Rules { may, ..small(2) }
}

/// Nodes are killed twice while both spend.
pub(super) fn crashing_twice() -> Rules {
    Rules { may: May { requests: 2, crashes: 2, ..May::default() }, ..small(2) }
}

/// A node never comes back.
pub(super) fn vanishing() -> Rules {
    Rules { may: May { requests: 2, vanishings: 1, lives: 1, ..May::default() }, ..small(2) }
}

/// Requests outlive their lease, whose renewing may fail.
pub(super) fn outliving() -> Rules {
    let may = May { requests: 1, timeouts: 1, losses: 1, renewals: 1, lives: 1, ..May::default() };
    Rules { nodes: 1, may, ..small(3) }
}

/// The hour ends, and the store's clock steps back.
pub(super) fn turning() -> Rules {
    let may = May { requests: 2, bad_responses: 1, idles: 1, hours: 1, steps_back: 1, ..May::default() };
    Rules { nodes: 1, may, ..small(1) }
}

/// The hour ends while two nodes spend.
pub(super) fn turning_together() -> Rules {
    Rules { may: May { requests: 2, hours: 1, ..May::default() }, ..small(2) }
}

/// The limit is lowered and raised; what nodes hold goes back.
pub(super) fn edited() -> Rules {
    let may = May { requests: 2, bad_responses: 1, edits: 1, ..May::default() };
    Rules { want: 2, edits: vec![3], may, ..small(5) }
}

/// Two tokens share a budget.
pub(super) fn budgeted() -> Rules {
    let may = May { requests: 2, bad_responses: 1, idles: 1, ..May::default() };
    Rules { limits: vec![2, 2], budget: Some(2), may, ..small(2) }
}

/// Requests cost more and less.
pub(super) fn unequal() -> Rules {
    Rules { costs: vec![1, 2], may: May { requests: 3, ..May::default() }, ..small(3) }
}

/// The store starts anew, and everything under way is lost.
pub(super) fn restarting() -> Rules {
    Rules { may: May { requests: 2, store_restarts: 1, idles: 1, ..May::default() }, ..small(2) }
}

#[test]
fn calls_may_be_lost_doubled_late_and_given_up() {
    check(&lossy(), 230_000);
}

#[test]
fn two_nodes_may_want_the_same_credits() {
    check(&contended(), 14_000);
}

#[test]
fn a_node_may_be_killed() {
    check(&crashing(), 69_000);
}

#[test]
fn nodes_may_be_killed_twice() {
    check(&crashing_twice(), 74_000);
}

#[test]
fn a_node_may_never_come_back() {
    check(&vanishing(), 108_000);
}

#[test]
fn requests_may_outlive_their_lease() {
    check(&outliving(), 140_000);
}

#[test]
fn the_hour_may_end_and_the_clock_step_back() {
    check(&turning(), 290_000);
}

#[test]
fn the_hour_may_end_for_two_nodes() {
    check(&turning_together(), 60_000);
}

#[test]
fn the_limit_may_be_edited() {
    check(&edited(), 13_000);
}

#[test]
fn tokens_may_share_a_budget() {
    check(&budgeted(), 42_000);
}

#[test]
fn requests_may_cost_more_and_less() {
    check(&unequal(), 55_000);
}

#[test]
fn the_store_may_restart() {
    check(&restarting(), 49_000);
}
