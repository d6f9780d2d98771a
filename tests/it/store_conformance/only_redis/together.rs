//! Asks that come together share calls, and none of them is the worse for it.

use std::time::Duration;

use futures_util::future::join_all;
use tollgate::ledger::lease::Reserved;
use tollgate::policy::{Credits, Pool, RateLimit};
use tollgate::store::redis::{RedisSettings, RedisStore};
use tollgate::store::{Paced, Store, StoreError};

use super::super::bench::{
    Bench, Takes as _, account_id, ask, charge, connect, key, limit, reserve, sealer, settlement,
};
use super::leases::server;
use crate::harness::redis_server::RedisServer;

/// How often a script was run.
async fn scripts_run(server: &RedisServer) -> u64 {
    let told: String = ask(&mut connect(server).await, &["INFO", "commandstats"]).await;
    let line = told.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn what_is_asked_at_once_shares_calls() {
    let bench = Bench::redis();
    bench.make_account(tollgate::policy::PerPool { core: limit("150/day"), premium: None }).await;
    let mut tokens = Vec::new();
    for _ in 0..100 {
        let rate = Some(RateLimit { requests_per_second: 10, burst: 2 });
        tokens.push(bench.make_token(|policy| policy.rate_limit = rate).await.0.id);
    }
    // So that the script is known.
    bench.store().pace(&account_id(), &tokens[0], 1).await.unwrap();
    let before = scripts_run(server(&bench)).await;
    let account = account_id();
    let leases: Vec<_> = tokens.iter().map(|id| reserve(&key(id, Pool::Core), 2, 2)).collect();
    let leases = join_all(leases.iter().map(|reserve| bench.store().reserve(reserve)));
    let passes = join_all(tokens.iter().map(|id| bench.store().pace(&account, id, 1)));
    let (leases, passes) = tokio::join!(leases, passes);
    let calls = scripts_run(server(&bench)).await - before;
    assert!(calls <= 4, "200 asks in {calls} calls");
    // The budget is that of all of them together.
    let granted = leases.iter().filter(|lease| matches!(lease, Ok(Reserved::Granted(_)))).count();
    assert_eq!(granted, 75);
    assert!(leases[75..].iter().all(|lease| matches!(lease, Ok(Reserved::BudgetExhausted { .. }))));
    assert_eq!(bench.used_by_account().await, 150);
    let one = |left| Paced::Passes { count: 1, hold: Duration::from_millis(100), remaining: left };
    assert_eq!(passes[0].as_ref().unwrap(), &one(0));
    assert!(passes[1..].iter().all(|pass| *pass.as_ref().unwrap() == one(1)), "{passes:?}");
}

#[tokio::test]
async fn one_whose_keys_hold_something_else_holds_up_nobody_but_itself() {
    let bench = Bench::redis();
    bench.make_account(tollgate::policy::PerPool::default()).await;
    let rate = Some(RateLimit { requests_per_second: 10, burst: 2 });
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(bench.make_token(|policy| policy.rate_limit = rate).await.0.id);
    }
    let mut admin = connect(server(&bench)).await;
    let pace = format!("tg:{{default}}:pace:{}", tokens[0]);
    let counter = format!("tg:{{default}}:used:{}:core", tokens[1]);
    let record = format!("tg:{{default}}:token:{}", tokens[2]);
    for key in [&pace, &counter] {
        let _: i64 = ask(&mut admin, &["RPUSH", key, "x"]).await;
    }
    let _: i64 = ask(&mut admin, &["HDEL", &record, "rate", "core_limit"]).await;
    let account = account_id();
    let leases: Vec<_> = tokens.iter().map(|id| reserve(&key(id, Pool::Core), 2, 2)).collect();
    for _ in 0..2 {
        let leases = join_all(leases.iter().map(|reserve| bench.store().reserve(reserve)));
        let passes = join_all(tokens.iter().map(|id| bench.store().pace(&account, id, 1)));
        let (leases, passes) = tokio::join!(leases, passes);
        let unreadable = |bad: bool, error: Option<StoreError>| match error {
            Some(StoreError::Unreadable { .. }) => assert!(bad),
            Some(error) => panic!("{error}"),
            None => assert!(!bad),
        };
        for (at, lease) in leases.into_iter().enumerate() {
            unreadable(at == 1 || at == 2, lease.err());
        }
        for (at, pass) in passes.into_iter().enumerate() {
            unreadable(at == 0 || at == 2, pass.err());
        }
    }
    // What failed left nothing behind.
    assert_eq!(bench.used_by_account().await, 4);
}

#[tokio::test]
async fn whoever_leaves_takes_nothing_and_the_others_are_answered() {
    let bench = Bench::redis();
    bench.make_account(tollgate::policy::PerPool::default()).await;
    let token = bench.make_token(|policy| policy.credit_limit.core = limit("100")).await.0.id;
    bench.take(&token, 1).await;
    let charges: Vec<_> = (0..10).map(|_| charge(&token, Pool::Core, 1)).collect();
    let mut asks: Vec<_> = charges.iter().map(|charge| Box::pin(bench.store().take(charge))).collect();
    for ask in &mut asks {
        assert!(futures_util::poll!(ask).is_pending());
    }
    let mut kept = Vec::new();
    for (at, ask) in asks.into_iter().enumerate() {
        if at % 2 == 1 {
            kept.push(ask);
        }
    }
    for answer in join_all(kept).await {
        assert!(matches!(answer, Ok(Reserved::Granted(_))));
    }
    assert_eq!(bench.used(&token).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_fails_all_of_them_within_the_timeout_and_a_new_one_serves_all() {
    let server = RedisServer::start();
    let timeout = Duration::from_millis(300);
    let settings = RedisSettings { timeout, ..RedisSettings::new(&server.url()) };
    let store = RedisStore::connect(&settings, Some(sealer())).unwrap();
    let (policy, _) = super::furnish(&store).await;
    server.freeze();
    let begun = std::time::Instant::now();
    let charges: Vec<_> = (0..300).map(|_| charge(&policy.id, Pool::Core, 1)).collect();
    for answer in join_all(charges.iter().map(|charge| store.take(charge))).await {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    let took = begun.elapsed();
    assert!(took < timeout * 2 + Duration::from_secs(1), "{took:?}");
    server.thaw();
    super::wait_until_it_answers(&store).await;
    for charge in &charges {
        store.settle(&[settlement(charge, 0)]).await.unwrap();
    }
    let charges: Vec<_> = (0..300).map(|_| charge(&policy.id, Pool::Core, 1)).collect();
    for answer in join_all(charges.iter().map(|charge| store.take(charge))).await {
        assert!(matches!(answer, Ok(Reserved::Granted(_))), "{answer:?}");
    }
    let counted = store.token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counted.counters.core.leased(tollgate::policy::Period::Month, counted.at), Credits(300));
}
