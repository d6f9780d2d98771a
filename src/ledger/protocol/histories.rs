//! Long random histories of larger worlds: more nodes, tokens, credits and kinds of requests than can be visited whole.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::action::Action;
use super::node::Power;
use super::{May, Rules, World, laws};
use crate::policy::Period;

const STEPS: u32 = 4_000;

/// A small generator, so that a history is named by its seed.
struct Dice(u64);

impl Dice {
    /// A number below `end` (splitmix64).
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// How likely something is, against everything else that may happen now.
fn weight(action: &Action) -> u64 {
    match action {
        Action::Deliver(_) => 40,
        Action::Respond { good: true, .. } | Action::AskAgain { .. } => 20,
        Action::Request { .. } | Action::Tend { .. } | Action::GiveUp { .. } => 8,
        Action::Respond { good: false, .. } | Action::Restart { .. } | Action::Sweep => 4,
        Action::Lose(_) | Action::Double(_) | Action::Pass(_) => 2,
        _ => 1,
    }
}

fn pick(actions: &[Action], dice: &mut Dice) -> Action {
    let mut at = dice.below(actions.iter().map(weight).sum());
    for action in actions {
        match at.checked_sub(weight(action)) {
            Some(rest) => at = rest,
            None => return *action,
        }
    }
    unreachable!("the weights add up")
}

/// What came of a history, to see that it was one.
#[derive(Debug, Default)]
struct Seen {
    steps: u32,
    delivered: u64,
    leases: usize,
    crashes: u16,
}

fn live_through(rules: &Rules, seed: u64) -> Result<Seen, TestCaseError> {
    let mut dice = Dice(seed);
    let mut world = World::new(rules);
    let mut actions = Vec::new();
    let check = |world: &World, step: u32| {
        let broken = laws::broken_law(world, rules);
        prop_assert!(broken.is_none(), "{broken:?} does not hold after {step} steps of {seed} in {rules:?}");
        Ok(())
    };
    let mut steps = 0;
    for step in 0..STEPS {
        actions.clear();
        world.actions(rules, &mut actions);
        if actions.is_empty() {
            break;
        }
        steps += 1;
        let action = pick(&actions, &mut dice);
        world.act(action, rules);
        if step.is_multiple_of(16) || world.truth.broken.is_some() {
            check(&world, step)?;
        }
    }
    let seen = Seen {
        steps,
        delivered: world.truth.charged.values().sum(),
        leases: world.shop.leases.len(),
        crashes: rules.may.crashes - world.may.crashes,
    };
    world.come_to_rest(rules);
    check(&world, STEPS)?;
    prop_assert!(world.is_quiet(), "{seed} in {rules:?} does not come to rest");
    let gone = world.nodes.iter().any(|node| node.power == Power::Gone);
    for book in &world.shop.tokens {
        prop_assert!(gone || (book.stranded, book.counter.ever.leased) == (0, 0));
    }
    Ok(seen)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let size = (1u8..=5, prop::collection::vec(1u64..400, 1..=3), prop::option::of(50u64..500), 1u64..60);
    let costs = prop_oneof![Just(vec![1]), Just(vec![1, 1, 1, 2, 20]), Just(vec![0, 1, 7])];
    let period = prop::sample::select(Period::ALL.to_vec());
    let faults = (0u16..60, 0u16..60, 0u16..40, 0u16..8, 0u16..=1);
    (size, costs, period, faults).prop_map(|(size, costs, period, faults)| {
        let (nodes, limits, budget, want) = size;
        let (losses, doubles, timeouts, crashes, vanishings) = faults;
        let vanishings = if nodes > 1 { vanishings } else { 0 };
        let may = May {
            requests: 600,
            bad_responses: 100,
            losses,
            doubles,
            timeouts,
            crashes,
            vanishings,
            store_restarts: 2,
            edits: 6,
            idles: 60,
            renewals: 10,
            lives: 4,
            hours: 3,
            steps_back: 3,
        };
        Rules {
            nodes,
            limits,
            budget,
            period,
            costs,
            want,
            rounds: 25,
            edits: vec![10, 100, 300],
            may,
            bug: None,
        }
    })
}

#[test]
fn laws_hold_through_long_random_histories() {
    let config = ProptestConfig {
        cases: 96,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let seen = RefCell::new(Seen::default());
    TestRunner::new(config)
        .run(&(any_rules(), any::<u64>()), |(rules, seed)| {
            let one = live_through(&rules, seed)?;
            let mut seen = seen.borrow_mut();
            seen.steps += one.steps;
            seen.delivered += one.delivered;
            seen.leases += one.leases;
            seen.crashes += one.crashes;
            Ok(())
        })
        .unwrap();
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert!(
        seen.steps > 100_000 && seen.delivered > 10_000 && seen.leases > 4_000 && seen.crashes > 100,
        "{seen:?}"
    );
}
