//! What must hold, in every state.

use std::collections::BTreeMap;

use ulid::Ulid;

use super::message::{Call, Reply};
use super::node::Power;
use super::shop::Shop;
use super::{Rules, World};
use crate::ledger::lease::{Lease, LeaseState};
use crate::ledger::purse::Wish;
use crate::ledger::{Counter, period_start};
use crate::policy::Period;

/// Something that must hold, and its name.
pub(super) type Law = (&'static str, fn(&World, &Rules) -> bool);

pub(super) const LAWS: [Law; 6] = [
    ("law 1: what is delivered in a period is within the limit", delivered_is_within_the_limit),
    ("law 1: a lease covers what is spent and flying on it", leases_cover_what_flies),
    ("law 1: a request draws on a lease of its own period", leases_are_of_the_period),
    ("the books are the sum of the leases", books_are_the_sum_of_leases),
    ("law 2: a closed lease says what was delivered", closed_leases_are_true),
    ("law 2: once all is quiet, used is what was delivered", quiet_books_are_true),
];

/// The first law that does not hold.
pub(super) fn broken_law(world: &World, rules: &Rules) -> Option<&'static str> {
    world.truth.broken.or_else(|| {
        let broken = LAWS.iter().find(|(_, holds)| !holds(world, rules)).map(|(name, _)| *name);
        broken.or_else(|| restless(world, rules))
    })
}

/// What is committed under each limit, and the limit; the account last.
pub(super) fn committed(shop: &Shop) -> Vec<(u64, u64)> {
    let now = shop.steady();
    let of = |counter: &Counter, limit| (counter.committed(shop.period, now).0, limit);
    let tokens = shop.tokens.iter().map(|book| of(&book.counter, book.limit));
    tokens.chain(shop.budget.map(|budget| of(&shop.account, budget))).collect()
}

/// Law 1 for the step that was taken: what is committed does not grow beyond the limit. It may be beyond it only where
/// the limit was lowered below what was committed already.
pub(super) fn check_step(world: &mut World, before: &[(u64, u64)]) {
    let after = committed(&world.shop);
    if before.iter().zip(&after).any(|((before, _), (after, limit))| after > limit && after > before) {
        world.truth.broken = Some("law 1: used and leased are within limit and budget");
    }
}

/// Law 3 for the answer that was given: whoever is refused for good finds no credits that could have been had.
pub(super) fn check_refusal(world: &mut World, call: &Call, reply: &Reply) {
    let (Call::Reserve { token, need, ahead: false, last, .. }, Reply::Refused { recallable, .. }) =
        (call, reply)
    else {
        return;
    };
    if *recallable && !last {
        return;
    }
    let need = i128::from(*need);
    let limits = committed(&world.shop);
    let free =
        |at: usize| limits.get(at).map(|(committed, limit)| i128::from(*limit) - i128::from(*committed));
    let of_token = free(usize::from(*token)).map_or(0, |free| free + unspent(world, Some(*token)));
    let of_account = free(world.shop.tokens.len()).map(|free| free + unspent(world, None));
    if of_token >= need && of_account.is_none_or(|of_account| of_account >= need) {
        world.truth.broken = Some("law 3: nobody is refused while credits can be had");
    }
}

/// Credits that can be had: in open leases that a node which is up holds or is about to hold, spent by nothing, held by no
/// request in flight, and not on the way to one that waits. What an earlier life of a node held can be had once it is
/// settled.
fn unspent(world: &World, token: Option<u8>) -> i128 {
    let flying = flying(world);
    let start = |at| period_start(world.shop.period, at);
    let now = world.shop.steady();
    let unspent = |(id, (of, lease)): (&Ulid, &(u8, Lease))| {
        let other = token.is_some_and(|token| token != *of);
        if other || lease.state != LeaseState::Open || start(lease.taken_at) != start(now) {
            return 0;
        }
        let charged = world.truth.charged.get(id).copied().unwrap_or(0);
        let taken = charged + flying.get(id).copied().unwrap_or(0);
        let Some(awaited) = is_held(world, *id) else { return 0 };
        i128::from(lease.granted.0) - i128::from(taken) - i128::from(awaited)
    };
    world.shop.leases.iter().map(unspent).sum()
}

/// Whether a node that is up holds a lease or is about to, and how much of it is for those who wait for it. A lease on its
/// way back is not held: who asks again finds it free.
fn is_held(world: &World, lease: Ulid) -> Option<u64> {
    let up = || world.nodes.iter().filter(|node| node.power == Power::Up);
    for purse in up().flat_map(|node| &node.purses) {
        let Some(held) = purse.leases().iter().find(|held| held.lease == lease) else { continue };
        let goes = |wish: &Wish| match wish {
            Wish::Settle { lease: of, .. } | Wish::Shrink { lease: of, .. } => *of == lease,
            _ => false,
        };
        let on_its_way = held.busy || purse.clone().wishes(world.now, false).iter().any(goes);
        return (!(held.leaving && on_its_way)).then_some(0);
    }
    up().flat_map(|node| &node.calls).find_map(|call| match call {
        Call::Reserve { lease: of, need, ahead, .. } if *of == lease => Some(if *ahead { 0 } else { *need }),
        _ => None,
    })
}

fn flying(world: &World) -> BTreeMap<Ulid, u64> {
    let mut flying = BTreeMap::new();
    for flight in world.nodes.iter().flat_map(|node| &node.flights) {
        *flying.entry(flight.lease).or_default() += flight.cost;
    }
    flying
}

fn delivered_is_within_the_limit(world: &World, rules: &Rules) -> bool {
    let mut by_token: BTreeMap<(u8, i64), u64> = BTreeMap::new();
    let mut by_account: BTreeMap<i64, u64> = BTreeMap::new();
    for ((token, hour), credits) in &world.truth.by_hour {
        let hour = super::store_time(*hour);
        let start = period_start(rules.period, hour).as_second();
        *by_token.entry((*token, start)).or_default() += credits;
        *by_account.entry(start).or_default() += credits;
    }
    by_token.iter().all(|((token, _), credits)| *credits <= world.truth.highest[usize::from(*token)])
        && rules.budget.is_none_or(|budget| by_account.values().all(|credits| *credits <= budget))
}

fn leases_cover_what_flies(world: &World, _: &Rules) -> bool {
    let flying = flying(world);
    let charged = |lease: &Ulid| world.truth.charged.get(lease).copied().unwrap_or(0);
    flying.keys().all(|lease| world.shop.leases.contains_key(lease))
        && world.shop.leases.iter().all(|(id, (_, lease))| match lease.state {
            LeaseState::Closed => !flying.contains_key(id),
            _ => charged(id) + flying.get(id).copied().unwrap_or(0) <= lease.granted.0,
        })
}

fn leases_are_of_the_period(world: &World, rules: &Rules) -> bool {
    let start = |at| period_start(rules.period, at);
    world.nodes.iter().flat_map(|node| &node.flights).all(|flight| {
        let lease = world.shop.leases.get(&flight.lease);
        lease.is_none_or(|(_, lease)| start(lease.taken_at) == start(super::store_time(flight.hour)))
    })
}

/// What the leases that count in one slot add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    used: u64,
    leased: u64,
}

fn sums(world: &World, token: Option<u8>, period: Period, start: i64) -> Sums {
    let mut sums = Sums::default();
    for (id, (of, lease)) in &world.shop.leases {
        let counts = period_start(period, lease.taken_at).as_second() == start;
        if !counts || token.is_some_and(|token| token != *of) {
            continue;
        }
        match lease.state {
            LeaseState::Open => sums.leased += lease.granted.0,
            LeaseState::Stranded => sums.used += lease.granted.0,
            LeaseState::Closed => sums.used += world.truth.charged.get(id).copied().unwrap_or(0),
        }
    }
    sums
}

fn books_are_the_sum_of_leases(world: &World, _: &Rules) -> bool {
    let agree = |counter: &Counter, token: Option<u8>| {
        let slots = [
            (Period::Hour, counter.hour),
            (Period::Day, counter.day),
            (Period::Month, counter.month),
            (Period::None, counter.ever),
        ];
        slots.iter().all(|(period, slot)| {
            sums(world, token, *period, slot.start) == Sums { used: slot.used, leased: slot.leased }
        })
    };
    let stranded = |token: u8| -> u64 {
        let of = world.shop.leases.values().filter(|(of, _)| *of == token);
        of.filter(|(_, lease)| lease.state == LeaseState::Stranded).map(|(_, lease)| lease.granted.0).sum()
    };
    let all_stranded = (0_u8..).zip(&world.shop.tokens).map(|(token, _)| stranded(token)).sum::<u64>();
    agree(&world.shop.account, None)
        && world.shop.account_stranded == all_stranded
        && (0_u8..)
            .zip(&world.shop.tokens)
            .all(|(token, book)| agree(&book.counter, Some(token)) && book.stranded == stranded(token))
}

fn closed_leases_are_true(world: &World, _: &Rules) -> bool {
    let of_nobody = |lease: &Ulid| !world.shop.leases.contains_key(lease);
    !world.truth.charged.keys().any(of_nobody)
        && world.nodes.iter().all(|node| {
            node.journal
                .iter()
                .all(|(lease, (_, spent))| *spent == world.truth.charged.get(lease).copied().unwrap_or(0))
        })
}

/// Law 2. Of nodes that never come back, each open lease costs at most what it holds.
fn quiet_books_are_true(world: &World, _: &Rules) -> bool {
    if !world.is_quiet() {
        return true;
    }
    let gone = |lease: &Ulid| {
        let mut gone = world.nodes.iter().filter(|node| node.power == Power::Gone);
        gone.any(|node| node.journal.contains_key(lease))
    };
    let charged = |lease: &Ulid| world.truth.charged.get(lease).copied().unwrap_or(0);
    let mut lost = vec![0; world.shop.tokens.len()];
    let mut unsettled = vec![0; world.shop.tokens.len()];
    for (id, (token, lease)) in &world.shop.leases {
        match lease.state {
            LeaseState::Closed => {}
            // Only a node that will not come back may leave something.
            _ if !gone(id) => return false,
            LeaseState::Stranded => lost[usize::from(*token)] += lease.granted.0 - charged(id),
            LeaseState::Open => unsettled[usize::from(*token)] += charged(id),
        }
    }
    (0_u8..).zip(&world.shop.tokens).all(|(token, book)| {
        let delivered: u64 =
            world.truth.by_hour.iter().filter(|((of, _), _)| *of == token).map(|(_, credits)| credits).sum();
        let at = usize::from(token);
        book.counter.ever.used + unsettled[at] == delivered + lost[at]
    })
}

/// What is broken once nothing fails any more. Looked at where nothing is under way, so that each end of a story is followed
/// once.
fn restless(world: &World, rules: &Rules) -> Option<&'static str> {
    if !world.net.is_empty() || world.nodes.iter().any(|node| !node.flights.is_empty()) || world.is_quiet() {
        return None;
    }
    let mut rest = world.clone();
    rest.come_to_rest(rules);
    if rest.truth.broken.is_none() && !rest.is_quiet() {
        return Some("law 2: once nothing fails any more, all becomes quiet");
    }
    // Where it is quiet, this does not come here again.
    broken_law(&rest, rules)
}
