//! Credits: taken, settled, limited, throttled.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tollgate::ledger::{Standing, Taken};
use tollgate::policy::{Credits, PerPool, Pool, RateLimit};
use tollgate::store::{Charge, Settlement};

use super::bench::{Bench, account_id, charge, limit, new_lease};

super::on_both![
    takes_the_last_credit_once,
    tells_where_a_token_stands,
    the_budget_counts_over_all_tokens_and_beside_the_limit,
    pools_are_counted_apart,
    a_request_that_costs_nothing_passes_used_up_limits,
    an_edited_limit_is_in_force_with_the_next_taking,
    a_throttle_lets_a_burst_by_and_then_its_pace,
    a_refusal_takes_nothing,
    taking_twice_with_one_lease_takes_once,
    a_lease_is_good_for_what_it_was_taken_for_only,
    settling_gives_back_what_was_not_spent_once,
    settling_what_was_never_taken_says_nothing,
    settling_more_than_was_taken_gives_nothing_back,
    settling_goes_to_the_period_it_was_taken_in,
    a_lease_that_is_not_settled_in_a_day_is_spent,
    many_settlements_go_at_once,
    concurrent_takings_stop_exactly_at_the_limit,
    concurrent_takings_of_many_tokens_stop_exactly_at_the_budget,
    the_largest_numbers_are_counted_exactly,
];

fn granted(taken: Taken) -> Standing {
    match taken {
        Taken::Granted(standing) => standing,
        refused => panic!("{refused:?}"),
    }
}

async fn takes_the_last_credit_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("3/month")).await;
    for used in 1..=3 {
        let standing = granted(bench.take(&policy.id, 1).await.1);
        assert_eq!((standing.used, standing.remaining), (Credits(used), Some(Credits(3 - used))));
    }
    // 2026-11-24T06:00:00 to 2026-12-01T00:00:00.
    let retry_after = Some(Duration::from_hours(162));
    assert_eq!(bench.take(&policy.id, 1).await.1, Taken::CreditsExhausted { retry_after });
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (3, 3));
}

async fn tells_where_a_token_stands(bench: Bench) {
    bench.make_account(PerPool { core: limit("50"), premium: None }).await;
    let (policy, _) = bench
        .make_token(|policy| {
            policy.credit_limit.core = limit("100/day");
            policy.rate_limit = Some(RateLimit { requests_per_second: 10, burst: 5 });
        })
        .await;
    bench.pass(SignedDuration::from_micros(1));
    let standing = granted(bench.take(&policy.id, 7).await.1);
    let expected = Standing {
        used: Credits(7),
        limit: limit("100/day"),
        remaining: Some(Credits(43)),
        resets_in: Some(Duration::from_hours(18)),
        burst_left: Some(4),
        at: bench.now(),
    };
    assert_eq!(standing, expected);
    let (free, _) = bench.make_token(|_| ()).await;
    let standing = granted(bench.take(&free.id, 2).await.1);
    let expected = Standing {
        used: Credits(2),
        limit: None,
        remaining: Some(Credits(41)),
        resets_in: None,
        burst_left: None,
        at: bench.now(),
    };
    assert_eq!(standing, expected);
    let standing = granted(bench.store().take(&charge(&free.id, Pool::Premium, 2)).await.unwrap());
    assert_eq!(standing.remaining, None);
}

async fn the_budget_counts_over_all_tokens_and_beside_the_limit(bench: Bench) {
    bench.make_account(PerPool { core: limit("10/hour"), premium: None }).await;
    let (one, _) = bench.make_token(|policy| policy.credit_limit.core = limit("8/day")).await;
    let (two, _) = bench.make_token(|_| ()).await;
    granted(bench.take(&one.id, 8).await.1);
    let retry_after = Some(Duration::from_hours(18));
    assert_eq!(bench.take(&one.id, 1).await.1, Taken::CreditsExhausted { retry_after });
    granted(bench.take(&two.id, 2).await.1);
    let retry_after = Some(Duration::from_hours(1));
    assert_eq!(bench.take(&two.id, 1).await.1, Taken::BudgetExhausted { retry_after });
    // The token's own limit is told first.
    let retry_after = Some(Duration::from_hours(18));
    assert_eq!(bench.take(&one.id, 1).await.1, Taken::CreditsExhausted { retry_after });
    bench.pass(SignedDuration::from_hours(1));
    granted(bench.take(&two.id, 10).await.1);
}

async fn pools_are_counted_apart(bench: Bench) {
    bench.make_account(PerPool { core: limit("5"), premium: limit("6") }).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.premium = limit("4")).await;
    granted(bench.take(&policy.id, 5).await.1);
    assert_eq!(bench.take(&policy.id, 1).await.1, Taken::BudgetExhausted { retry_after: None });
    let premium = |cost| charge(&policy.id, Pool::Premium, cost);
    granted(bench.store().take(&premium(4)).await.unwrap());
    let refused = bench.store().take(&premium(1)).await.unwrap();
    assert_eq!(refused, Taken::CreditsExhausted { retry_after: None });
}

async fn a_request_that_costs_nothing_passes_used_up_limits(bench: Bench) {
    bench.make_account(PerPool { core: limit("2"), premium: None }).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("2/day")).await;
    granted(bench.take(&policy.id, 2).await.1);
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("1/day")).await;
    let standing = granted(bench.take(&policy.id, 0).await.1);
    assert_eq!((standing.used, standing.remaining), (Credits(2), Some(Credits(0))));
    assert!(matches!(bench.take(&policy.id, 1).await.1, Taken::CreditsExhausted { .. }));
}

async fn an_edited_limit_is_in_force_with_the_next_taking(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    granted(bench.take(&policy.id, 10).await.1);
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("5/month")).await;
    assert!(matches!(bench.take(&policy.id, 1).await.1, Taken::CreditsExhausted { .. }));
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("11/hour")).await;
    let standing = granted(bench.take(&policy.id, 1).await.1);
    assert_eq!(
        (standing.used, standing.remaining),
        (Credits(11), Some(Credits(0))),
        "what was used stays counted"
    );
    bench.edit(&policy.id, |policy| policy.credit_limit.core = None).await;
    granted(bench.take(&policy.id, 1_000_000).await.1);
    let mut account = bench.store().get_account(&account_id()).await.unwrap().unwrap();
    account.budget.core = limit("1000011/month");
    bench.store().put_account(&account).await.unwrap();
    assert!(matches!(bench.take(&policy.id, 1).await.1, Taken::BudgetExhausted { .. }));
}

async fn a_throttle_lets_a_burst_by_and_then_its_pace(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let rate = RateLimit { requests_per_second: 10, burst: 3 };
    let (policy, _) = bench.make_token(|policy| policy.rate_limit = Some(rate)).await;
    let (other, _) = bench.make_token(|policy| policy.rate_limit = Some(rate)).await;
    for left in [2, 1, 0] {
        assert_eq!(granted(bench.take(&policy.id, 1).await.1).burst_left, Some(left));
    }
    let wait = |millis| Taken::RateLimited { retry_after: Duration::from_millis(millis) };
    assert_eq!(bench.take(&policy.id, 1).await.1, wait(100));
    assert_eq!(bench.take(&policy.id, 0).await.1, wait(100), "costing nothing is no way past it");
    granted(bench.take(&other.id, 1).await.1);
    bench.pass(SignedDuration::from_millis(99));
    assert_eq!(bench.take(&policy.id, 1).await.1, wait(1));
    bench.pass(SignedDuration::from_millis(1));
    granted(bench.take(&policy.id, 1).await.1);
    assert_eq!(bench.take(&policy.id, 1).await.1, wait(100));
    // A clock that steps back locks nobody out for longer than a full burst takes.
    bench.pass(SignedDuration::from_hours(-1));
    assert_eq!(bench.take(&policy.id, 1).await.1, wait(100));
    bench.pass(SignedDuration::from_secs(10));
    assert_eq!(bench.used(&policy.id).await, 4);
}

async fn a_refusal_takes_nothing(bench: Bench) {
    bench.make_account(PerPool { core: limit("5"), premium: None }).await;
    let (policy, _) = bench
        .make_token(|policy| {
            policy.credit_limit.core = limit("10");
            policy.rate_limit = Some(RateLimit { requests_per_second: 1, burst: 2 });
        })
        .await;
    for _ in 0..5 {
        assert_eq!(bench.take(&policy.id, 11).await.1, Taken::CreditsExhausted { retry_after: None });
        assert_eq!(bench.take(&policy.id, 6).await.1, Taken::BudgetExhausted { retry_after: None });
    }
    let standing = granted(bench.take(&policy.id, 5).await.1);
    assert_eq!((standing.burst_left, standing.used), (Some(1), Credits(5)));
}

async fn taking_twice_with_one_lease_takes_once(bench: Bench) {
    bench.make_account(PerPool { core: limit("100/month"), premium: None }).await;
    let (policy, _) = bench
        .make_token(|policy| {
            policy.credit_limit.core = limit("10/day");
            policy.rate_limit = Some(RateLimit { requests_per_second: 1, burst: 1 });
        })
        .await;
    let (taking, first) = bench.take(&policy.id, 6).await;
    bench.pass(SignedDuration::from_millis(1));
    for _ in 0..3 {
        assert_eq!(bench.store().take(&taking).await.unwrap(), first, "it answers what it answered");
    }
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (6, 6));
    // A refusal is no lease: the same charge may be taken later.
    let again = charge(&policy.id, Pool::Core, 4);
    assert!(matches!(bench.store().take(&again).await.unwrap(), Taken::RateLimited { .. }));
    bench.pass(SignedDuration::from_secs(1));
    granted(bench.store().take(&again).await.unwrap());
    // Sixteen copies at once, too.
    bench.edit(&policy.id, |policy| policy.rate_limit = None).await;
    bench.edit(&policy.id, |policy| policy.credit_limit.core = limit("11/day")).await;
    let copies = charge(&policy.id, Pool::Core, 1);
    let copy = |_| {
        let (store, charge) = (Arc::clone(bench.store()), copies.clone());
        tokio::spawn(async move { store.take(&charge).await.unwrap() })
    };
    for task in (0..16).map(copy).collect::<Vec<_>>() {
        granted(task.await.unwrap());
    }
    assert_eq!(bench.used(&policy.id).await, 11);
}

async fn a_lease_is_good_for_what_it_was_taken_for_only(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&one.id, 5).await;
    let stranger = Charge { token: two.id.clone(), ..taking.clone() };
    let wrong_pool = Charge { pool: Pool::Premium, ..taking.clone() };
    bench.settle(&stranger, 0).await;
    bench.settle(&wrong_pool, 0).await;
    assert_eq!((bench.used(&one.id).await, bench.used_by_account().await), (5, 5));
    bench.settle(&taking, 0).await;
    assert_eq!((bench.used(&one.id).await, bench.used_by_account().await), (0, 0));
}

async fn settling_gives_back_what_was_not_spent_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10/day")).await;
    let table = [(10, 4), (6, 6), (6, 0)];
    let mut used = 0;
    for (cost, spent) in table {
        let (taking, taken) = bench.take(&policy.id, cost - used).await;
        granted(taken);
        for _ in 0..3 {
            bench.settle(&taking, spent.min(cost - used)).await;
        }
        used += spent.min(cost - used);
        assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (used, used));
    }
    // Twice in one call counts once, too.
    let (taking, _) = bench.take(&policy.id, 3).await;
    let settlement = Settlement { charge: taking, spent: Credits(1) };
    bench.store().settle(&[settlement.clone(), settlement]).await.unwrap();
    assert_eq!(bench.used(&policy.id).await, used + 1);
}

async fn settling_what_was_never_taken_says_nothing(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("5")).await;
    bench.take(&policy.id, 3).await;
    bench.settle(&charge(&policy.id, Pool::Core, 3), 0).await;
    // Nor does a taking that was refused.
    let (refused, taken) = bench.take(&policy.id, 3).await;
    assert!(matches!(taken, Taken::CreditsExhausted { .. }));
    bench.settle(&refused, 0).await;
    bench.store().settle(&[]).await.unwrap();
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (3, 3));
}

async fn settling_more_than_was_taken_gives_nothing_back(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&policy.id, 3).await;
    bench.settle(&taking, 7).await;
    bench.settle(&taking, 0).await;
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (3, 3));
}

async fn settling_goes_to_the_period_it_was_taken_in(bench: Bench) {
    use tollgate::policy::Period;
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    bench.set_time(super::bench::time("2026-11-24T23:59:59.999999Z"));
    let (taking, _) = bench.take(&policy.id, 5).await;
    bench.pass(SignedDuration::from_micros(1));
    bench.take(&policy.id, 4).await;
    bench.settle(&taking, 2).await;
    let (counters, now) = bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
    let used = Period::ALL.map(|period| counters.core.used(period, now).0);
    // The hour and the day are over: there is nothing to give back to. The month and "ever" go on.
    assert_eq!(used, [4, 4, 6, 6]);
    let (counters, now) = bench.store().account_usage(&account_id()).await.unwrap();
    assert_eq!(Period::ALL.map(|period| counters.core.used(period, now).0), [4, 4, 6, 6]);
}

async fn a_lease_that_is_not_settled_in_a_day_is_spent(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("10")).await;
    let (in_time, _) = bench.take(&policy.id, 3).await;
    bench.pass(SignedDuration::from_micros(1));
    let (late, _) = bench.take(&policy.id, 4).await;
    bench.pass(SignedDuration::from_micros(86_399_999_998));
    bench.settle(&in_time, 0).await;
    bench.pass(SignedDuration::from_micros(2));
    bench.settle(&late, 0).await;
    let (counters, now) = bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counters.core.used(tollgate::policy::Period::None, now), Credits(4));
}

async fn many_settlements_go_at_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let mut settlements = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(bench.make_token(|_| ()).await.0.id);
    }
    for n in 0..60 {
        let (charge, _) = bench.take(&ids[n % 3], 2).await;
        settlements.push(Settlement { charge, spent: Credits(u64::from(n < 30)) });
    }
    bench.store().settle(&settlements).await.unwrap();
    for id in &ids {
        assert_eq!(bench.used(id).await, 10);
    }
    assert_eq!(bench.used_by_account().await, 30);
}

/// 64 tasks take one credit after another, from these tokens in turn, until they are refused; how many they got.
async fn hammer(bench: &Bench, ids: &[tollgate::policy::TokenId]) -> usize {
    let task = |n: usize| {
        let (store, id) = (Arc::clone(bench.store()), ids[n % ids.len()].clone());
        tokio::spawn(async move {
            let mut got = 0;
            while let Taken::Granted(_) = store.take(&charge(&id, Pool::Core, 1)).await.unwrap() {
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

async fn concurrent_takings_stop_exactly_at_the_limit(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("1000/month")).await;
    assert_eq!(hammer(&bench, std::slice::from_ref(&policy.id)).await, 1000);
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (1000, 1000));
}

async fn concurrent_takings_of_many_tokens_stop_exactly_at_the_budget(bench: Bench) {
    bench.make_account(PerPool { core: limit("1000/day"), premium: None }).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.make_token(|_| ()).await.0.id);
    }
    assert_eq!(hammer(&bench, &ids).await, 1000);
    assert_eq!(bench.used_by_account().await, 1000);
    let mut used = 0;
    for id in &ids {
        used += bench.used(id).await;
    }
    assert_eq!(used, 1000);
}

async fn the_largest_numbers_are_counted_exactly(bench: Bench) {
    const MOST: u64 = tollgate::policy::cost::MAX_CREDITS;
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit(&MOST.to_string())).await;
    let (first, taken) = bench.take(&policy.id, MOST - 1).await;
    assert_eq!(granted(taken).remaining, Some(Credits(1)));
    assert!(matches!(bench.take(&policy.id, 2).await.1, Taken::CreditsExhausted { .. }));
    assert!(matches!(bench.take(&policy.id, MOST).await.1, Taken::CreditsExhausted { .. }));
    assert_eq!(granted(bench.take(&policy.id, 1).await.1).used, Credits(MOST));
    bench.settle(&first, MOST - 2).await;
    assert_eq!(bench.used(&policy.id).await, MOST - 1);
    // Without a limit, counters stop at their end and do not start anew.
    let (free, _) = bench.make_token(|_| ()).await;
    for cost in [MOST, 2, MOST] {
        assert_eq!(granted(bench.take(&free.id, cost).await.1).used, Credits(MOST));
    }
    let again = Charge { lease: new_lease(), ..first };
    assert!(matches!(bench.store().take(&again).await.unwrap(), Taken::CreditsExhausted { .. }));
}
