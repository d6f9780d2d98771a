//! Leases at their edges: over the end of a period, under an edited limit, expired in numbers, settled late.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tollgate::ledger::lease::{Grant, Reserved};
use tollgate::policy::{Credits, PerPool, Period, Pool, RateLimit, TokenId};
use tollgate::store::{Counted, LeaseKey, NodeId, Paced, Reserve, Settlement, StoreError, UsageRow};

use super::bench::{
    Bench, Takes as _, a_note, account_id, charge, key, limit, new_id, reserve, settlement, time,
};

super::on_both![
    a_lease_over_the_end_of_a_period_counts_where_it_was_granted,
    a_lease_is_good_until_its_hour_ends_also_past_its_life,
    a_lease_shrunk_or_expired_after_its_period_leaves_the_next_alone,
    a_limit_lowered_below_what_is_leased_grants_nothing_until_it_is_given_back,
    a_limit_raised_or_moved_to_another_period_acts_at_once,
    a_budget_lowered_below_what_is_leased_refuses_all_its_tokens,
    a_response_that_cost_more_than_was_leased_is_counted_in_full,
    a_reserve_closes_eight_expired_leases_on_its_way,
    expired_leases_are_closed_some_hundreds_at_a_call,
    expiring_one_account_leaves_the_others_alone,
    a_lease_settled_after_the_reclaim_window_counts_nothing,
    a_reserve_that_comes_after_its_lease_expired_grants_nothing,
    many_leases_are_renewed_and_settled_at_once,
    what_was_refused_leaves_nothing_behind,
    tokens_and_accounts_that_are_not_there_lease_nothing,
    a_bad_rate_stops_the_throttle_and_a_bad_limit_the_lease,
    passes_are_taken_ahead_in_batches,
];

fn granted(reserved: Reserved) -> Grant {
    match reserved {
        Reserved::Granted(grant) => grant,
        refused => panic!("{refused:?}"),
    }
}

async fn stranded(bench: &Bench, id: &TokenId) -> u64 {
    bench.store().token_usage(&account_id(), id).await.unwrap().stranded.core.0
}

/// What is used and leased in each period, of a token's core pool.
async fn books(bench: &Bench, id: &TokenId) -> [(u64, u64); 4] {
    let Counted { counters, at: now, .. } = bench.store().token_usage(&account_id(), id).await.unwrap();
    Period::ALL.map(|period| (counters.core.used(period, now).0, counters.core.leased(period, now).0))
}

async fn leased_with_life(bench: &Bench, id: &TokenId, want: u64, life: Duration) -> (LeaseKey, Grant) {
    let key = key(id, Pool::Core);
    let reserve = Reserve { life, ..reserve(&key, want, want) };
    (key.clone(), granted(bench.store().reserve(&reserve).await.unwrap()))
}

/// The last microsecond before hour, day and month end, one after the other.
const ENDS: [(&str, [(u64, u64); 4]); 3] = [
    // In hour, day, month and ever: what is used and leased once 5 were granted before and 2 of them spent after.
    ("2026-11-24T06:59:59.999999Z", [(0, 0), (2, 0), (2, 0), (2, 0)]),
    ("2026-11-24T23:59:59.999999Z", [(0, 0), (0, 0), (2, 0), (2, 0)]),
    ("2026-11-30T23:59:59.999999Z", [(0, 0), (0, 0), (0, 0), (2, 0)]),
];

async fn a_lease_over_the_end_of_a_period_counts_where_it_was_granted(bench: Bench) {
    for (end, expected) in ENDS {
        let bench = bench.fresh();
        bench.make_account(PerPool::default()).await;
        let (policy, _) = bench.make_token(|_| ()).await;
        bench.set_time(time(end));
        let (taking, _) = bench.take(&policy.id, 5).await;
        assert_eq!(books(&bench, &policy.id).await, [(0, 5); 4]);
        bench.pass(SignedDuration::from_micros(1));
        // Another lease moves the books on; the old one is settled in what is left of its periods.
        let (next, _) = bench.take(&policy.id, 0).await;
        bench.settle(&taking, 2).await;
        bench.settle(&next, 0).await;
        assert_eq!(books(&bench, &policy.id).await, expected, "{end}");
        let Counted { counters, at: now, .. } = bench.store().account_usage(&account_id()).await.unwrap();
        let account = Period::ALL.map(|period| (counters.core.used(period, now).0, 0));
        assert_eq!(account, expected, "{end}");
    }
}

async fn a_lease_is_good_until_its_hour_ends_also_past_its_life(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (_, grant) = leased_with_life(&bench, &policy.id, 1, Duration::from_hours(2)).await;
    assert_eq!((grant.valid_for, grant.at), (Duration::from_hours(1), bench.now()));
    let (_, grant) = leased_with_life(&bench, &policy.id, 1, Duration::from_secs(9)).await;
    assert_eq!(grant.valid_for, Duration::from_hours(1));
    bench.set_time(time("2026-11-24T06:59:59.999999Z"));
    let (late, grant) = leased_with_life(&bench, &policy.id, 1, Duration::from_secs(9)).await;
    assert_eq!(grant.valid_for, Duration::from_micros(1));
    // Asked for again in the next hour it is there, and not to be spent from.
    bench.pass(SignedDuration::from_secs(1));
    let again = granted(bench.store().reserve(&reserve(&late, 1, 1)).await.unwrap());
    assert_eq!((again.granted, again.valid_for), (Credits(1), Duration::ZERO));
}

async fn a_lease_shrunk_or_expired_after_its_period_leaves_the_next_alone(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10/hour")).await;
    bench.set_time(time("2026-11-24T06:59:59Z"));
    let (shrunk, _) = bench.take(&policy.id, 4).await;
    let (expired, _) = bench.take(&policy.id, 6).await;
    bench.pass(SignedDuration::from_secs(1));
    granted(bench.take(&policy.id, 10).await.1);
    bench.store().shrink(&shrunk.key, Credits(1)).await.unwrap();
    assert_eq!(books(&bench, &policy.id).await, [(0, 10), (0, 17), (0, 17), (0, 17)]);
    bench.pass(SignedDuration::from_secs(29));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 2);
    assert_eq!(books(&bench, &policy.id).await, [(0, 10), (7, 10), (7, 10), (7, 10)]);
    assert_eq!(stranded(&bench, &policy.id).await, 7);
    bench.settle(&expired, 5).await;
    assert_eq!(books(&bench, &policy.id).await, [(0, 10), (6, 10), (6, 10), (6, 10)]);
    assert_eq!(stranded(&bench, &policy.id).await, 1);
}

async fn a_limit_lowered_below_what_is_leased_grants_nothing_until_it_is_given_back(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("100/day")).await;
    let (taking, _) = bench.take(&policy.id, 80).await;
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("50/day")).await;
    let refused =
        |recallable| Reserved::CreditsExhausted { retry_after: Some(Duration::from_hours(18)), recallable };
    // Nodes hold what would do, up to the new limit; not more.
    assert_eq!(bench.take(&policy.id, 50).await.1, refused(true));
    assert_eq!(bench.take(&policy.id, 51).await.1, refused(false));
    bench.store().shrink(&taking.key, Credits(30)).await.unwrap();
    let grant = granted(bench.take(&policy.id, 20).await.1);
    assert_eq!((grant.leased, grant.free), (Credits(50), Some(Credits(0))));
    bench.settle(&taking, 30).await;
    assert_eq!(bench.take(&policy.id, 20).await.1, refused(true));
    assert_eq!(bench.take(&policy.id, 21).await.1, refused(false));
}

async fn a_limit_raised_or_moved_to_another_period_acts_at_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("5/hour")).await;
    granted(bench.take(&policy.id, 5).await.1);
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("8/hour")).await;
    granted(bench.take(&policy.id, 3).await.1);
    bench.pass(SignedDuration::from_hours(1));
    granted(bench.take(&policy.id, 8).await.1);
    // By the day, all 16 count.
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("17/day")).await;
    assert!(matches!(bench.take(&policy.id, 2).await.1, Reserved::CreditsExhausted { .. }));
    let grant = granted(bench.take(&policy.id, 1).await.1);
    assert_eq!(grant.limit, limit("17/day"));
    // The first two have expired meanwhile, and are spent.
    assert_eq!((grant.used, grant.leased), (Credits(8), Credits(9)));
}

async fn a_budget_lowered_below_what_is_leased_refuses_all_its_tokens(bench: Bench) {
    bench.make_account(PerPool { core: limit("30/day"), premium: None }).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|policy| policy.credit_limit.core = limit("5")).await;
    let (taking, _) = bench.take(&one.id, 20).await;
    let mut account = bench.store().get_account(&account_id()).await.unwrap().unwrap();
    account.budget.core = limit("10/day");
    bench.store().put_account(&account, &a_note()).await.unwrap();
    let refused =
        |recallable| Reserved::BudgetExhausted { retry_after: Some(Duration::from_hours(18)), recallable };
    assert_eq!(bench.take(&two.id, 3).await.1, refused(true));
    assert_eq!(bench.take(&one.id, 11).await.1, refused(false));
    // Short of both: the limit is told, and a recall must help with both.
    granted(bench.take(&two.id, 0).await.1);
    let exhausted = Reserved::CreditsExhausted { retry_after: None, recallable: false };
    assert_eq!(bench.take(&two.id, 6).await.1, exhausted);
    bench.settle(&taking, 10).await;
    assert_eq!(bench.take(&two.id, 1).await.1, refused(false));
}

async fn a_response_that_cost_more_than_was_leased_is_counted_in_full(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10")).await;
    let (taking, _) = bench.take(&policy.id, 3).await;
    bench.settle(&taking, 12).await;
    assert_eq!(books(&bench, &policy.id).await, [(12, 0); 4]);
    let refused = Reserved::CreditsExhausted { retry_after: None, recallable: false };
    assert_eq!(bench.take(&policy.id, 1).await.1, refused);
}

async fn a_reserve_closes_eight_expired_leases_on_its_way(bench: Bench) {
    bench.make_account(PerPool { core: limit("100"), premium: None }).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    for n in 1..=10 {
        // The one that was granted last expires first.
        leased_with_life(&bench, if n % 2 == 0 { &one.id } else { &two.id }, n, Duration::from_secs(40 - n))
            .await;
    }
    bench.pass(SignedDuration::from_hours(1));
    granted(bench.take(&two.id, 1).await.1);
    assert_eq!(
        (stranded(&bench, &one.id).await, stranded(&bench, &two.id).await),
        (10 + 8 + 6 + 4, 9 + 7 + 5 + 3)
    );
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 2);
    assert_eq!((stranded(&bench, &one.id).await, stranded(&bench, &two.id).await), (30, 25));
    assert_eq!(bench.used_by_account().await, 56);
}

async fn expired_leases_are_closed_some_hundreds_at_a_call(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let takings: Vec<_> = (0..300).map(|_| charge(&policy.id, Pool::Core, 1)).collect();
    let answers = takings.iter().map(|taking| bench.store().take(taking));
    futures_util::future::try_join_all(answers).await.unwrap();
    bench.pass(SignedDuration::from_hours(1));
    let mut closed = Vec::new();
    for _ in 0..3 {
        closed.push(bench.store().expire(&account_id()).await.unwrap());
    }
    assert_eq!(closed, [256, 44, 0]);
    assert_eq!((stranded(&bench, &policy.id).await, books(&bench, &policy.id).await[3]), (300, (300, 0)));
}

async fn expiring_one_account_leaves_the_others_alone(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    // Names of which one begins with the other.
    let other = tollgate::policy::AccountId::parse("default-2").unwrap();
    let (token, _) = bench.make_account_named(&other, PerPool::default()).await;
    let key = LeaseKey { account: other.clone(), ..key(&token, Pool::Core) };
    granted(bench.store().reserve(&reserve(&key, 5, 5)).await.unwrap());
    bench.pass(SignedDuration::from_hours(2));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 0);
    let (policy, _) = bench.make_token(|_| ()).await;
    granted(bench.take(&policy.id, 1).await.1);
    assert_eq!(bench.store().token_usage(&other, &token).await.unwrap().stranded.core, Credits(0));
    assert_eq!(bench.store().expire(&other).await.unwrap(), 1);
    assert_eq!(bench.store().token_usage(&other, &token).await.unwrap().stranded.core, Credits(5));
}

async fn a_lease_settled_after_the_reclaim_window_counts_nothing(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (in_time, _) = bench.take(&policy.id, 10).await;
    let (too_late, _) = bench.take(&policy.id, 10).await;
    bench.pass(SignedDuration::from_secs(30));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 2);
    bench.pass(SignedDuration::from_micros(24 * 3_600_000_000 - 1));
    bench.settle(&in_time, 1).await;
    bench.pass(SignedDuration::from_micros(1));
    bench.settle(&too_late, 1).await;
    bench.settle(&too_late, 1).await;
    assert_eq!((stranded(&bench, &policy.id).await, books(&bench, &policy.id).await[3]), (10, (11, 0)));
    let rows = bench.store().usage(&account_id(), None, Timestamp::MIN, Timestamp::MAX).await.unwrap();
    let credits = rows.iter().map(|row| match row {
        UsageRow::Used { cell, .. } => cell.credits,
        UsageRow::Refused { .. } => 0,
    });
    assert_eq!(credits.collect::<Vec<_>>(), [1], "what is used is in the cells, or stranded");
}

async fn a_reserve_that_comes_after_its_lease_expired_grants_nothing(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&policy.id, 10).await;
    bench.pass(SignedDuration::from_secs(30));
    assert_eq!(bench.store().take(&taking).await.unwrap(), Reserved::Void);
    assert_eq!(
        bench.store().renew(std::slice::from_ref(&taking.key), Duration::from_hours(1)).await.unwrap(),
        [false]
    );
    bench.store().shrink(&taking.key, Credits(0)).await.unwrap();
    assert_eq!(books(&bench, &policy.id).await, [(10, 0); 4]);
    // Renewed after its time, but before anybody closed it, it lives on: nobody else had its credits.
    let (late, _) = bench.take(&policy.id, 1).await;
    bench.pass(SignedDuration::from_secs(31));
    let renewed =
        bench.store().renew(std::slice::from_ref(&late.key), Duration::from_hours(1)).await.unwrap();
    assert_eq!((renewed, bench.store().expire(&account_id()).await.unwrap()), (vec![true], 0));
}

async fn many_leases_are_renewed_and_settled_at_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let other = tollgate::policy::AccountId::parse("other").unwrap();
    let (token, _) = bench.make_account_named(&other, PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let mut keys: Vec<_> = (0..300).map(|_| key(&policy.id, Pool::Core)).collect();
    keys.extend((0..300).map(|_| LeaseKey { account: other.clone(), ..key(&token, Pool::Core) }));
    let reserves: Vec<_> = keys.iter().map(|key| reserve(key, 2, 2)).collect();
    let answers = reserves.iter().map(|reserve| bench.store().reserve(reserve));
    futures_util::future::try_join_all(answers).await.unwrap();
    let settlements: Vec<Settlement> = keys
        .iter()
        .step_by(2)
        .map(|key| settlement(&super::bench::Charge { key: key.clone(), cost: 2 }, 1))
        .collect();
    bench.store().settle(&settlements).await.unwrap();
    bench.store().settle(&settlements).await.unwrap();
    let open = bench.store().renew(&keys, Duration::from_hours(1)).await.unwrap();
    assert_eq!(open, (0..600).map(|n| n % 2 == 1).collect::<Vec<_>>());
    assert_eq!(books(&bench, &policy.id).await[3], (150, 300));
    let Counted { counters, at: now, .. } = bench.store().account_usage(&other).await.unwrap();
    assert_eq!(
        (counters.core.used(Period::Day, now), counters.core.leased(Period::Day, now)),
        (Credits(150), Credits(300))
    );
}

async fn what_was_refused_leaves_nothing_behind(bench: Bench) {
    bench.make_account(PerPool { core: limit("5"), premium: None }).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("8")).await;
    let over_limit = charge(&policy.id, Pool::Core, 9);
    let over_budget = charge(&policy.id, Pool::Core, 6);
    for _ in 0..2 {
        let refused = bench.store().take(&over_limit).await.unwrap();
        assert_eq!(refused, Reserved::CreditsExhausted { retry_after: None, recallable: false });
        let refused = bench.store().take(&over_budget).await.unwrap();
        assert_eq!(refused, Reserved::BudgetExhausted { retry_after: None, recallable: false });
    }
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (0, 0));
    // A refusal is no lease: the same id may be granted later.
    let smaller = reserve(&over_budget.key, 5, 2);
    let grant = granted(bench.store().reserve(&smaller).await.unwrap());
    assert_eq!((grant.granted, grant.free), (Credits(2), Some(Credits(3))));
}

async fn tokens_and_accounts_that_are_not_there_lease_nothing(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let nobody = new_id();
    let error = bench.store().take(&charge(&nobody, Pool::Core, 1)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { key, .. } if key.contains(nobody.as_str())), "{error}");
    let error = bench.store().pace(&account_id(), &nobody, 1).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
    let (policy, _) = bench.make_token(|_| ()).await;
    let nowhere = tollgate::policy::AccountId::parse("nowhere").unwrap();
    let key = LeaseKey { account: nowhere.clone(), ..key(&policy.id, Pool::Core) };
    let error = bench.store().reserve(&reserve(&key, 1, 0)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
    assert_eq!(bench.store().expire(&nowhere).await.unwrap(), 0);
    assert_eq!(bench.store().epoch(&nowhere).await.unwrap(), 0);
    assert!(bench.store().nodes(&nowhere).await.unwrap().is_empty());
    assert!(bench.store().usage(&nowhere, None, Timestamp::MIN, Timestamp::MAX).await.unwrap().is_empty());
    assert_eq!(bench.store().token_usage(&nowhere, &nobody).await.unwrap().stranded, PerPool::default());
    assert!(bench.store().renew(&[], Duration::from_secs(1)).await.unwrap().is_empty());
}

async fn a_bad_rate_stops_the_throttle_and_a_bad_limit_the_lease(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&policy.id, 1).await;
    let set = |field: &'static str, text: &'static str| {
        move |fields: &mut std::collections::BTreeMap<String, String>| {
            fields.insert(field.to_owned(), text.to_owned());
        }
    };
    bench.spoil_token(&policy.id, set("rate", "fast")).await;
    let error = bench.store().pace(&account_id(), &policy.id, 1).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
    granted(bench.take(&policy.id, 1).await.1);
    bench.spoil_token(&policy.id, set("core_limit", "5/week")).await;
    let error = bench.store().take(&charge(&policy.id, Pool::Core, 1)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
    // The other pool has its own limit, and what is leased can be settled.
    granted(bench.store().take(&charge(&policy.id, Pool::Premium, 1)).await.unwrap());
    bench.settle(&taking, 1).await;
    assert_eq!(books(&bench, &policy.id).await[3], (1, 1));
    bench.spoil_account(set("premium_budget", "-1")).await;
    let error = bench.store().take(&charge(&policy.id, Pool::Premium, 1)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
}

async fn passes_are_taken_ahead_in_batches(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let rate = RateLimit { requests_per_second: 1000, burst: 300 };
    let (policy, _) = bench.make_token(|policy| policy.rate_limit = Some(rate)).await;
    let pace = async |want| match bench.store().pace(&account_id(), &policy.id, want).await.unwrap() {
        Paced::Passes { count, hold, .. } => {
            assert_eq!(hold, Duration::from_millis(100));
            count
        }
        other => panic!("{other:?}"),
    };
    // 100 ms of the rate at most; a batch counts as if it came when its hold ends.
    assert_eq!(pace(500).await, 100);
    assert_eq!(pace(7).await, 7);
    assert_eq!(pace(0).await, 1);
    assert_eq!(pace(500).await, 93);
    assert!(matches!(bench.store().pace(&account_id(), &policy.id, 5).await.unwrap(), Paced::Wait { .. }));
    // Forgotten with the rate, and a clock that steps back locks nobody out for longer than a burst takes.
    bench.edit(&policy.id, |policy| policy.rate_limit = None).await;
    assert_eq!(bench.store().pace(&account_id(), &policy.id, 5).await.unwrap(), Paced::Unlimited);
    bench.edit(&policy.id, |policy| policy.rate_limit = Some(rate)).await;
    bench.pass(SignedDuration::from_hours(-1));
    let waiting = bench.store().pace(&account_id(), &policy.id, 5).await.unwrap();
    assert_eq!(waiting, Paced::Wait { retry_after: Duration::from_millis(1) });
    bench.pass(SignedDuration::from_millis(1));
    assert_eq!(pace(5).await, 1);
    // Where the burst is a second of the rate, a hold is a fifth of it.
    let rate = RateLimit { requests_per_second: 100, burst: 100 };
    let (policy, _) = bench.make_token(|policy| policy.rate_limit = Some(rate)).await;
    let passes = bench.store().pace(&account_id(), &policy.id, 10).await.unwrap();
    assert_eq!(passes, Paced::Passes { count: 10, hold: Duration::from_millis(200), remaining: 71 });
}

/// Which node holds a lease is part of it; asking again from another node does not move it.
#[tokio::test]
async fn a_lease_stays_with_the_node_that_has_it() {
    for bench in [Bench::embedded(), Bench::redis()] {
        bench.make_account(PerPool::default()).await;
        let (policy, _) = bench.make_token(|_| ()).await;
        let (taking, _) = bench.take(&policy.id, 4).await;
        let other = Reserve { node: NodeId(ulid::Ulid(2)), ..reserve(&taking.key, 9, 9) };
        assert_eq!(granted(bench.store().reserve(&other).await.unwrap()).granted, Credits(4));
        assert_eq!(bench.used(&policy.id).await, 4);
    }
}
