//! Leases: granted, shrunk, settled, renewed, expired; limits, budgets, the throttle; usage, events and nodes.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tollgate::ledger::lease::{Grant, Reserved};
use tollgate::policy::{Credits, Operation, PerPool, Period, Pool, RateLimit, TokenId};
use tollgate::store::{Counted, Event, LeaseKey, NodeId, NodeReport, Paced, RefusalCell, UsageRow};

use super::bench::{
    Bench, Charge, LIFE, Takes as _, a_note, account_id, charge, key, limit, new_lease, reserve, settlement,
};

super::on_both![
    the_last_credit_is_leased_once,
    a_lease_holds_a_fair_share_of_what_is_free,
    the_budget_counts_over_all_tokens_and_beside_the_limit,
    pools_are_counted_apart,
    an_edited_limit_is_in_force_with_the_next_lease,
    reserving_twice_with_one_id_leases_once,
    settling_gives_back_what_was_not_spent_once,
    a_reserve_that_comes_after_its_settlement_grants_nothing,
    shrinking_gives_back_once_and_never_grows,
    a_lease_that_expires_is_spent_until_its_node_says_better,
    renewing_keeps_a_lease_open_and_a_closed_one_closed,
    a_lease_of_another_token_is_not_settled,
    concurrent_reserves_stop_exactly_at_the_limit,
    concurrent_reserves_of_many_tokens_stop_exactly_at_the_budget,
    the_throttle_gives_a_burst_and_then_its_pace,
    usage_adds_up_to_what_is_used_and_counts_once,
    refusals_count_once_and_for_whom_they_were,
    edits_move_the_epoch_and_are_told,
    nodes_live_as_long_as_they_say_so,
];

fn granted(reserved: Reserved) -> Grant {
    match reserved {
        Reserved::Granted(grant) => grant,
        refused => panic!("{refused:?}"),
    }
}

async fn the_last_credit_is_leased_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("3/month")).await;
    for leased in 1..=3 {
        let grant = granted(bench.take(&policy.id, 1).await.1);
        assert_eq!((grant.granted, grant.leased, grant.used), (Credits(1), Credits(leased), Credits(0)));
        assert_eq!(grant.free, Some(Credits(3 - leased)));
    }
    // 2026-11-24T06:00:00 to 2026-12-01T00:00:00.
    let retry_after = Some(Duration::from_hours(162));
    let refused = Reserved::CreditsExhausted { retry_after, recallable: true };
    assert_eq!(bench.take(&policy.id, 1).await.1, refused);
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (3, 3));
}

async fn a_lease_holds_a_fair_share_of_what_is_free(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("100")).await;
    let first = key(&policy.id, Pool::Core);
    let grant = granted(bench.store().reserve(&reserve(&first, 1000, 1)).await.unwrap());
    assert_eq!((grant.granted, grant.free), (Credits(25), Some(Credits(75))));
    assert!(grant.valid_for <= Duration::from_hours(1));
    let grant =
        granted(bench.store().reserve(&reserve(&key(&policy.id, Pool::Core), 1000, 60)).await.unwrap());
    assert_eq!((grant.granted, grant.free), (Credits(60), Some(Credits(15))), "as much as is needed");
    let refused = bench.store().reserve(&reserve(&key(&policy.id, Pool::Core), 1000, 16)).await.unwrap();
    assert!(matches!(refused, Reserved::CreditsExhausted { recallable: true, .. }));
    bench.store().settle(&[settlement(&Charge { key: first, cost: 25 }, 25)]).await.unwrap();
    let refused = bench.store().reserve(&reserve(&key(&policy.id, Pool::Core), 1000, 76)).await.unwrap();
    assert!(matches!(refused, Reserved::CreditsExhausted { recallable: false, .. }));
}

async fn the_budget_counts_over_all_tokens_and_beside_the_limit(bench: Bench) {
    bench.make_account(PerPool { core: limit("10/hour"), premium: None }).await;
    let (one, _) = bench.make_token(|policy| policy.credit_limit.core = limit("8/day")).await;
    let (two, _) = bench.make_token(|_| ()).await;
    granted(bench.take(&one.id, 8).await.1);
    assert!(matches!(bench.take(&one.id, 1).await.1, Reserved::CreditsExhausted { .. }));
    granted(bench.take(&two.id, 2).await.1);
    let refused = Reserved::BudgetExhausted { retry_after: Some(Duration::from_hours(1)), recallable: true };
    assert_eq!(bench.take(&two.id, 1).await.1, refused);
    bench.pass(SignedDuration::from_hours(1));
    granted(bench.take(&two.id, 10).await.1);
}

async fn pools_are_counted_apart(bench: Bench) {
    bench.make_account(PerPool { core: limit("5"), premium: limit("6") }).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.premium = limit("4")).await;
    granted(bench.take(&policy.id, 5).await.1);
    assert!(matches!(bench.take(&policy.id, 1).await.1, Reserved::BudgetExhausted { .. }));
    let premium = |cost| charge(&policy.id, Pool::Premium, cost);
    granted(bench.store().take(&premium(4)).await.unwrap());
    let refused = bench.store().take(&premium(1)).await.unwrap();
    assert!(matches!(refused, Reserved::CreditsExhausted { retry_after: None, .. }));
}

async fn an_edited_limit_is_in_force_with_the_next_lease(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    granted(bench.take(&policy.id, 10).await.1);
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("5/month")).await;
    assert!(matches!(bench.take(&policy.id, 1).await.1, Reserved::CreditsExhausted { .. }));
    granted(bench.take(&policy.id, 0).await.1);
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("11/hour")).await;
    let grant = granted(bench.take(&policy.id, 1).await.1);
    assert_eq!((grant.leased, grant.free), (Credits(11), Some(Credits(0))), "what was taken stays counted");
    bench.edit(&policy.id, |policy| policy.credit_limit.core = None).await;
    granted(bench.take(&policy.id, 1000).await.1);
}

async fn reserving_twice_with_one_id_leases_once(bench: Bench) {
    bench.make_account(PerPool { core: limit("100/month"), premium: None }).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10/day")).await;
    let (taking, first) = bench.take(&policy.id, 6).await;
    for _ in 0..3 {
        assert_eq!(granted(bench.store().take(&taking).await.unwrap()).granted, granted(first).granted);
    }
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (6, 6));
    // Sixteen copies at once, too.
    let copies = charge(&policy.id, Pool::Core, 1);
    let copy = |_| {
        let (store, charge) = (Arc::clone(bench.store()), copies.clone());
        tokio::spawn(async move { store.take(&charge).await.unwrap() })
    };
    for task in (0..16).map(copy).collect::<Vec<_>>() {
        granted(task.await.unwrap());
    }
    assert_eq!(bench.used(&policy.id).await, 7);
}

async fn settling_gives_back_what_was_not_spent_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10/day")).await;
    let (taking, _) = bench.take(&policy.id, 10).await;
    for spent in [4, 9, 0] {
        bench.settle(&taking, spent).await;
        assert_eq!(
            (bench.used(&policy.id).await, bench.used_by_account().await),
            (4, 4),
            "the first one counts"
        );
    }
    // Twice in one call counts once, too.
    let (taking, _) = bench.take(&policy.id, 3).await;
    let settled = settlement(&taking, 1);
    bench.store().settle(&[settled.clone(), settled]).await.unwrap();
    bench.store().settle(&[]).await.unwrap();
    assert_eq!(bench.used(&policy.id).await, 5);
    let Counted { counters, at: now, .. } =
        bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counters.core.leased(Period::Day, now), Credits(0));
}

async fn a_reserve_that_comes_after_its_settlement_grants_nothing(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let late = charge(&policy.id, Pool::Core, 5);
    bench.settle(&late, 0).await;
    assert_eq!(bench.store().take(&late).await.unwrap(), Reserved::Void);
    let (settled, _) = bench.take(&policy.id, 5).await;
    bench.settle(&settled, 2).await;
    assert_eq!(bench.store().take(&settled).await.unwrap(), Reserved::Void);
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (2, 2));
}

async fn shrinking_gives_back_once_and_never_grows(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10")).await;
    let (taking, _) = bench.take(&policy.id, 10).await;
    for (keep, left) in [(6, 6), (6, 6), (9, 6), (4, 4)] {
        bench.store().shrink(&taking.key, Credits(keep)).await.unwrap();
        assert_eq!(bench.used(&policy.id).await, left);
    }
    bench.settle(&taking, 4).await;
    bench.store().shrink(&taking.key, Credits(0)).await.unwrap();
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (4, 4));
}

async fn a_lease_that_expires_is_spent_until_its_node_says_better(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10")).await;
    let (taking, _) = bench.take(&policy.id, 10).await;
    let stranded = async || bench.store().token_usage(&account_id(), &policy.id).await.unwrap().stranded.core;
    bench.pass(SignedDuration::from_secs(29));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 0);
    bench.pass(SignedDuration::from_secs(1));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 1);
    assert_eq!((stranded().await, bench.used(&policy.id).await), (Credits(10), 10));
    let refused = bench.take(&policy.id, 1).await.1;
    assert!(matches!(refused, Reserved::CreditsExhausted { recallable: false, .. }));
    // The node comes back with its journal, an hour later and for the second time.
    bench.pass(SignedDuration::from_hours(1));
    bench.settle(&taking, 3).await;
    bench.settle(&taking, 9).await;
    assert_eq!((stranded().await, bench.used(&policy.id).await), (Credits(0), 3));
    granted(bench.take(&policy.id, 7).await.1);
}

async fn renewing_keeps_a_lease_open_and_a_closed_one_closed(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (kept, _) = bench.take(&policy.id, 1).await;
    let (closed, _) = bench.take(&policy.id, 1).await;
    bench.settle(&closed, 1).await;
    bench.pass(SignedDuration::from_secs(20));
    let keys = [kept.key.clone(), closed.key.clone(), key(&policy.id, Pool::Core)];
    assert_eq!(bench.store().renew(&keys, LIFE).await.unwrap(), [true, false, false]);
    bench.pass(SignedDuration::from_secs(20));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 0);
    bench.pass(SignedDuration::from_secs(20));
    // A reserve closes what is over by itself.
    granted(bench.take(&policy.id, 1).await.1);
    assert_eq!(bench.store().renew(&keys, LIFE).await.unwrap(), [false, false, false]);
}

async fn a_lease_of_another_token_is_not_settled(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&one.id, 5).await;
    let stranger = Charge { key: LeaseKey { token: two.id.clone(), ..taking.key.clone() }, cost: 5 };
    let _ = bench.store().settle(&[settlement(&stranger, 0)]).await;
    assert_eq!((bench.used(&one.id).await, bench.used_by_account().await), (5, 5));
}

/// 64 tasks lease one credit after another, for these tokens in turn, until they are refused; how many they got.
async fn hammer(bench: &Bench, ids: &[TokenId]) -> usize {
    let task = |n: usize| {
        let (store, id) = (Arc::clone(bench.store()), ids[n % ids.len()].clone());
        tokio::spawn(async move {
            let mut got = 0;
            while let Reserved::Granted(_) = store.take(&charge(&id, Pool::Core, 1)).await.unwrap() {
                got += 1;
            }
            got
        })
    };
    let mut got = 0;
    for task in (0..64).map(task).collect::<Vec<_>>() {
        got += task.await.unwrap();
    }
    got
}

async fn concurrent_reserves_stop_exactly_at_the_limit(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("1000/month")).await;
    assert_eq!(hammer(&bench, std::slice::from_ref(&policy.id)).await, 1000);
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (1000, 1000));
}

async fn concurrent_reserves_of_many_tokens_stop_exactly_at_the_budget(bench: Bench) {
    bench.make_account(PerPool { core: limit("1000/day"), premium: None }).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.make_token(|_| ()).await.0.id);
    }
    assert_eq!(hammer(&bench, &ids).await, 1000);
    assert_eq!(bench.used_by_account().await, 1000);
}

async fn the_throttle_gives_a_burst_and_then_its_pace(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (free, _) = bench.make_token(|_| ()).await;
    assert_eq!(bench.store().pace(&account_id(), &free.id, 5).await.unwrap(), Paced::Unlimited);
    let rate = RateLimit { requests_per_second: 10, burst: 3 };
    let (policy, _) = bench.make_token(|policy| policy.rate_limit = Some(rate)).await;
    let pace = async || bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(pace().await, Paced::Passes { count: 1, .. }));
    }
    assert!(matches!(pace().await, Paced::Wait { retry_after } if retry_after <= Duration::from_millis(100)));
    bench.pass(SignedDuration::from_millis(100));
    assert!(matches!(pace().await, Paced::Passes { count: 1, .. }));
    assert!(matches!(pace().await, Paced::Wait { .. }));
}

async fn usage_adds_up_to_what_is_used_and_counts_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    let from = bench.now().checked_sub(SignedDuration::from_hours(24 * 3)).unwrap();
    let to = bench.now().checked_add(SignedDuration::from_hours(24)).unwrap();
    let hour = bench.now().as_second() - bench.now().as_second() % 3600;
    for (id, spent) in [(&one.id, 3), (&one.id, 4), (&two.id, 5)] {
        let (taking, _) = bench.take(id, 10).await;
        let mut settled = settlement(&taking, spent);
        settled.cells[0].hour = hour;
        for _ in 0..2 {
            bench.store().settle(std::slice::from_ref(&settled)).await.unwrap();
        }
    }
    let credits = |rows: &[UsageRow]| -> u64 {
        let of = |row: &UsageRow| match row {
            UsageRow::Used { cell, .. } => cell.credits,
            UsageRow::Refused { .. } => 0,
        };
        rows.iter().map(of).sum()
    };
    let rows = bench.store().usage(&account_id(), Some(&one.id), from, to).await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let UsageRow::Used { token, pool, cell } = &rows[0] else { panic!("{rows:?}") };
    assert_eq!((token, *pool), (&one.id, Pool::Core));
    assert_eq!((cell.hour, cell.dataset.as_str(), cell.operation), (hour, "MY/CARS", Operation::Read));
    assert_eq!((cell.requests, cell.credits, cell.bytes), (2, 7, 20));
    let all = bench.store().usage(&account_id(), None, from, to).await.unwrap();
    assert_eq!((credits(&all), bench.used_by_account().await), (12, 12));
    let none = bench.store().usage(&account_id(), None, to, to).await.unwrap();
    assert!(none.is_empty());
}

async fn refusals_count_once_and_for_whom_they_were(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let hour = bench.now().as_second() - bench.now().as_second() % 3600;
    let cell = |token: Option<&TokenId>, count| RefusalCell {
        token: token.cloned(),
        hour,
        code: "domain_denied",
        count,
    };
    let cells = [cell(Some(&policy.id), 3), cell(None, 5)];
    let batch = new_lease();
    for _ in 0..3 {
        bench.store().count_refusals(&account_id(), batch, &cells).await.unwrap();
    }
    bench.store().count_refusals(&account_id(), new_lease(), &[cell(Some(&policy.id), 1)]).await.unwrap();
    let from = bench.now().checked_sub(SignedDuration::from_hours(1)).unwrap();
    let to = bench.now().checked_add(SignedDuration::from_hours(1)).unwrap();
    let counts = |rows: Vec<UsageRow>| -> Vec<(Option<TokenId>, u64)> {
        let of = |row| match row {
            UsageRow::Refused { token, count, .. } => Some((token, count)),
            UsageRow::Used { .. } => None,
        };
        rows.into_iter().filter_map(of).collect()
    };
    let one = counts(bench.store().usage(&account_id(), Some(&policy.id), from, to).await.unwrap());
    assert_eq!(one, [(Some(policy.id.clone()), 4)]);
    let mut all = counts(bench.store().usage(&account_id(), None, from, to).await.unwrap());
    all.sort();
    assert_eq!(all, [(None, 5), (Some(policy.id.clone()), 4)]);
}

async fn next_event(events: &mut tokio::sync::broadcast::Receiver<Event>) -> Event {
    loop {
        let event =
            tokio::time::timeout(Duration::from_secs(10), events.recv()).await.expect("an event").unwrap();
        // The connection that brings them has only just been made.
        if event != Event::Lost {
            return event;
        }
    }
}

async fn edits_move_the_epoch_and_are_told(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let mut events = bench.store().events();
    // Until the first one comes the subscription may not stand yet.
    let (first, _) = bench.make_token(|_| ()).await;
    let epoch = async || bench.store().epoch(&account_id()).await.unwrap();
    let mut heard = false;
    for _ in 0..200 {
        bench.store().recall(&account_id(), Some(&first.id), Pool::Core).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(20), next_event(&mut events)).await.is_ok() {
            heard = true;
            break;
        }
    }
    assert!(heard, "no event comes");
    while tokio::time::timeout(Duration::from_millis(200), events.recv()).await.is_ok() {}
    let before = epoch().await;
    bench.edit(&first.id, |policy| policy.core_access = false).await;
    let after = epoch().await;
    assert!(after > before);
    let told = Event::Policy { token: first.id.clone(), version: 2, epoch: after };
    assert_eq!(next_event(&mut events).await, told);
    let account = bench.store().get_account(&account_id()).await.unwrap().unwrap();
    bench.store().put_account(&account, &a_note()).await.unwrap();
    assert_eq!(next_event(&mut events).await, Event::Account { epoch: epoch().await });
    bench.store().recall(&account_id(), None, Pool::Premium).await.unwrap();
    assert_eq!(next_event(&mut events).await, Event::Recall { token: None, pool: Pool::Premium });
}

async fn nodes_live_as_long_as_they_say_so(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let report = |n: u128, epoch| NodeReport {
        node: NodeId(ulid::Ulid(n)),
        epoch,
        seen_at: bench.now(),
        leased: Credits(7),
        name: format!("host {n}"),
    };
    let nodes = async || {
        let mut nodes = bench.store().nodes(&account_id()).await.unwrap();
        nodes.sort_by_key(|node| node.node);
        nodes
    };
    for epoch in [3, 4] {
        bench.store().report_node(&account_id(), &report(1, epoch), Duration::from_secs(10)).await.unwrap();
    }
    bench.store().report_node(&account_id(), &report(2, 9), Duration::from_mins(1)).await.unwrap();
    assert_eq!(nodes().await, [report(1, 4), report(2, 9)]);
    bench.pass(SignedDuration::from_secs(11));
    let left = nodes().await;
    assert_eq!(left.iter().map(|node| node.node).collect::<Vec<_>>(), [NodeId(ulid::Ulid(2))]);
}
