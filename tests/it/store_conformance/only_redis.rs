//! What only the Redis store promises: how it behaves when the server does not, and what many nodes see of one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::ledger::lease::Reserved;
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{PerPool, Policy, Pool, TokenKind};
use tollgate::store::redis::{ConnectError, RedisSettings, RedisStore};
use tollgate::store::{Counted, Grain, Listed, Store, StoreError};

use super::bench::{
    Bench, Raw, Takes as _, a_note, account_id, ask, charge, connect, limit, new_id, new_value, sealer,
    settlement,
};
use crate::harness::redis_server::{Options, RedisServer};

mod copies;
mod leases;
mod signatures;
mod together;

fn open(server: &RedisServer, timeout: Duration) -> RedisStore {
    let settings = RedisSettings { timeout, ..RedisSettings::new(&server.url()) };
    RedisStore::connect(&settings, Some(sealer())).unwrap()
}

/// Makes the default account and one publishable token.
async fn furnish(store: &RedisStore) -> (Policy, tollgate::policy::Token) {
    let now = jiff::Timestamp::now();
    let account = Account {
        id: account_id(),
        created_at: now,
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    };
    let first = Policy::new(new_id(), account_id(), TokenKind::Secret, now);
    assert!(store.create_account(&account, &first, &new_value(TokenKind::Secret), &a_note()).await.unwrap());
    let mut policy = Policy::new(new_id(), account_id(), TokenKind::Publishable, now);
    policy.credit_limit.core = limit("1000/month");
    let value = new_value(TokenKind::Publishable);
    store.create_token(&policy, &value, &a_note()).await.unwrap();
    (policy, value)
}

/// Asks until the store answers.
async fn wait_until_it_answers(store: &RedisStore) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.ping().await.is_err() {
        assert!(Instant::now() < deadline, "the store does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable_and_comes_back_by_itself() {
    let mut server = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let timeout = Duration::from_secs(2);
    let store = open(&server, timeout);
    let (policy, value) = furnish(&store).await;
    let taking = charge(&policy.id, Pool::Core, 3);
    store.take(&taking).await.unwrap();
    for _ in 0..2 {
        server.stop();
        for _ in 0..3 {
            let started = Instant::now();
            let error = store.find_token(&value.digest()).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            let error = store.take(&charge(&policy.id, Pool::Core, 1)).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            assert!(started.elapsed() < 2 * timeout + Duration::from_secs(1), "{:?}", started.elapsed());
        }
        server.restart();
        wait_until_it_answers(&store).await;
        assert_eq!(store.find_token(&value.digest()).await.unwrap(), Some(policy.clone()));
        let Reserved::Granted(_) = store.take(&taking).await.unwrap() else { panic!("the lease is known") };
    }
    let Counted { counters: used, at: now, .. } = store.token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(used.core.committed(tollgate::policy::Period::Month, now).0, 3);
}

#[tokio::test]
async fn a_store_that_was_never_there_is_unavailable_and_then_used() {
    let mut server = RedisServer::start();
    server.stop();
    let store = open(&server, Duration::from_secs(5));
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    server.restart();
    wait_until_it_answers(&store).await;
    furnish(&store).await;
}

#[tokio::test]
async fn a_restart_between_two_calls_is_not_noticed() {
    let mut server = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let store = open(&server, Duration::from_secs(10));
    let (policy, value) = furnish(&store).await;
    for _ in 0..3 {
        server.restart();
        // The connection is broken and the scripts are forgotten; both are seen to.
        assert!(store.find_token(&value.digest()).await.unwrap().is_some());
        server.restart();
        assert!(matches!(
            store.take(&charge(&policy.id, Pool::Core, 1)).await.unwrap(),
            Reserved::Granted(_)
        ));
    }
    let Counted { counters: used, at: now, .. } = store.token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(used.core.committed(tollgate::policy::Period::Month, now).0, 3);
}

#[tokio::test]
async fn a_store_that_hangs_is_unavailable_within_the_timeout() {
    let server = RedisServer::start();
    let timeout = Duration::from_millis(200);
    let store = open(&server, timeout);
    wait_until_it_answers(&store).await;
    server.freeze();
    let started = Instant::now();
    let calls: Vec<_> = (0..20).map(|_| store.ping()).collect();
    for answer in futures_util::future::join_all(calls).await {
        let error = answer.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("200ms")), "{error}");
    }
    // Nor does the next one, that has to connect first.
    assert!(store.ping().await.is_err());
    let took = started.elapsed();
    assert!(took >= timeout && took < timeout * 2 + Duration::from_secs(1), "{took:?}");
    server.thaw();
    wait_until_it_answers(&store).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_no_password_is_shown() {
    let server =
        RedisServer::start_with(Options { password: Some("hunter2-correct".to_owned()), durable: false });
    let with = |password: Option<&str>| RedisSettings {
        password: password.map(str::to_owned),
        timeout: Duration::from_secs(5),
        ..RedisSettings::new(&server.url())
    };
    let right = RedisStore::connect(&with(Some("hunter2-correct")), None).unwrap();
    right.ping().await.unwrap();
    for password in [None, Some("hunter2-wrong")] {
        let settings = with(password);
        let store = RedisStore::connect(&settings, None).unwrap();
        for _ in 0..2 {
            let error = store.ping().await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            assert!(!format!("{error} {error:?} {settings:?} {store:?}").contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_refusal_at_the_handshake_is_not_for_ever() {
    let server = RedisServer::start();
    let mut admin = connect(&server).await;
    let _: String = ask(&mut admin, &["CONFIG", "SET", "maxclients", "1"]).await;
    let store = open(&server, Duration::from_secs(5));
    for _ in 0..3 {
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }
    let _: String = ask(&mut admin, &["CONFIG", "SET", "maxclients", "100"]).await;
    wait_until_it_answers(&store).await;
}

#[tokio::test]
async fn a_server_that_does_not_write_is_unavailable() {
    let server = RedisServer::start();
    let store = open(&server, Duration::from_secs(5));
    let (policy, value) = furnish(&store).await;
    let mut admin = connect(&server).await;
    let refusals: [(&[&str], &[&str], &str); 2] = [
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], "READONLY"),
        (&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"], "OOM"),
    ];
    for (break_it, mend_it, code) in refusals {
        let _: String = ask(&mut admin, break_it).await;
        let error = store.take(&charge(&policy.id, Pool::Core, 1)).await.unwrap_err();
        let said = error.to_string().to_lowercase();
        let expected = ["readonly", "read only", "oom", "memory"].iter().any(|word| said.contains(word));
        assert!(matches!(error, StoreError::Unavailable(_)) && expected, "{code}: {error}");
        let _: String = ask(&mut admin, mend_it).await;
        wait_until_it_answers(&store).await;
        assert!(store.find_token(&value.digest()).await.unwrap().is_some());
        assert!(matches!(
            store.take(&charge(&policy.id, Pool::Core, 1)).await.unwrap(),
            Reserved::Granted(_)
        ));
    }
    let Counted { counters: used, at: now, .. } = store.token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(
        used.core.committed(tollgate::policy::Period::Month, now).0,
        2,
        "what was refused was not counted"
    );
}

#[test]
fn addresses_that_are_none_are_told() {
    for url in ["", "localhost", "http://localhost", "redis://", "redis://localhost/x"] {
        let error = RedisStore::connect(&RedisSettings::new(url), None).unwrap_err();
        assert!(matches!(error, ConnectError::Address(_)), "{url}: {error}");
    }
    let settings = RedisSettings { prefix: "a{b}".to_owned(), ..RedisSettings::new("redis://localhost") };
    assert!(matches!(RedisStore::connect(&settings, None), Err(ConnectError::Prefix(_))));
}

#[tokio::test]
async fn prefixes_and_databases_are_stores_apart() {
    let server = RedisServer::start();
    let store = |prefix: &str, database| {
        let settings = RedisSettings {
            prefix: prefix.to_owned(),
            database: Some(database),
            ..RedisSettings::new(&server.url())
        };
        RedisStore::connect(&settings, Some(sealer())).unwrap()
    };
    let stores = [store("tg:", 0), store("other:", 0), store("tg:", 1)];
    for store in &stores {
        let (policy, value) = furnish(store).await;
        for other in &stores {
            let found = other.find_token(&value.digest()).await.unwrap();
            assert_eq!(found, std::ptr::eq(store, other).then(|| policy.clone()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_stop_exactly_at_the_limit() {
    let server = RedisServer::start();
    let nodes: Vec<_> = (0..3).map(|_| Arc::new(open(&server, Duration::from_secs(20)))).collect();
    let (policy, _) = furnish(&nodes[0]).await;
    let task = |n: usize| {
        let (store, id) = (Arc::clone(&nodes[n % nodes.len()]), policy.id.clone());
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
    assert_eq!(got, 1000);
}

#[tokio::test]
async fn by_the_server_clock_it_works_too() {
    let server = RedisServer::start();
    let store = open(&server, Duration::from_secs(10));
    let (policy, old) = furnish(&store).await;
    let before = jiff::Timestamp::now();
    let Reserved::Granted(standing) = store.take(&charge(&policy.id, Pool::Core, 1)).await.unwrap() else {
        panic!("refused")
    };
    let Counted { at: now, .. } = store.token_usage(&account_id(), &policy.id).await.unwrap();
    // The same machine, so the same clock; it is read in microseconds.
    let micro = jiff::SignedDuration::from_micros(1);
    assert!(before - micro <= standing.at && standing.at <= now && now <= jiff::Timestamp::now());
    assert!(standing.resets_in.unwrap() <= Duration::from_hours(31 * 24));
    let new = new_value(TokenKind::Publishable);
    store
        .rotate_token(&account_id(), &policy.id, 1, &new, Duration::from_millis(300), &a_note())
        .await
        .unwrap();
    assert!(store.find_token(&new.digest()).await.unwrap().is_some());
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.find_token(&old.digest()).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the old value never ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn keys_are_named_as_documented_and_leases_end_by_themselves() {
    let bench = Bench::redis();
    let (first, _) = bench.make_account(PerPool::default()).await;
    let rate = Some(tollgate::policy::RateLimit { requests_per_second: 1, burst: 1 });
    let (policy, old) = bench.make_token(|policy| policy.rate_limit = rate).await;
    let new = new_value(TokenKind::Publishable);
    let grace = Duration::from_hours(1);
    bench.store().rotate_token(&account_id(), &policy.id, 1, &new, grace, &a_note()).await.unwrap();
    let (taking, _) = bench.take(&policy.id, 1).await;
    bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    let Raw::Redis(server) = &bench.raw else { panic!("not Redis") };
    let mut connection = connect(server).await;
    let mut keys: Vec<String> = ask(&mut connection, &["KEYS", "*"]).await;
    keys.retain(|key| !key.starts_with("tg:digest:"));
    keys.sort();
    let id = &policy.id;
    let lease = format!("tg:{{default}}:lease:{}", taking.key.lease.0);
    let pace = format!("tg:{{default}}:pace:{id}");
    let mut expected = vec![
        "tg:{default}:account".to_owned(),
        "tg:{default}:epoch".to_owned(),
        "tg:{default}:leases".to_owned(),
        "tg:{default}:secrets".to_owned(),
        format!("tg:{{default}}:token:{first}"),
        format!("tg:{{default}}:token:{id}"),
        "tg:{default}:tokens".to_owned(),
        "tg:{default}:trail".to_owned(),
        "tg:{default}:trail:a test".to_owned(),
        format!("tg:{{default}}:used:{id}:core"),
        "tg:{default}:used:core".to_owned(),
        lease.clone(),
        pace.clone(),
    ];
    expected.sort();
    assert_eq!(keys, expected);
    let pointer = format!("tg:digest:{}", old.digest().to_hex());
    for (key, most) in [(&pointer, 3_600_000), (&pace, 3_601_000)] {
        let left: i64 = ask(&mut connection, &["PTTL", key]).await;
        assert!(left > most - 60_000 && left <= most, "{key}: {left} ms");
    }
    bench.settle(&taking, 1).await;
    let left: i64 = ask(&mut connection, &["PTTL", &lease]).await;
    assert!(left > 0 && left <= 2 * 86_400_000, "a settled lease ends by itself: {left} ms");
    let open: i64 = ask(&mut connection, &["ZCARD", "tg:{default}:leases"]).await;
    assert_eq!(open, 0, "and is not open any more");
}

#[tokio::test]
async fn keys_that_hold_something_else_are_unreadable() {
    let bench = Bench::redis();
    let (first, _) = bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token(|_| ()).await;
    let (good, _) = bench.make_token(|_| ()).await;
    let Raw::Redis(server) = &bench.raw else { panic!("not Redis") };
    let mut connection = connect(server).await;
    let key = format!("tg:{{default}}:token:{}", policy.id);
    let _: i64 = ask(&mut connection, &["DEL", &key]).await;
    let _: String = ask(&mut connection, &["SET", &key, "garbage"]).await;
    let store = bench.store();
    for error in [
        store.find_token(&value.digest()).await.map(drop).unwrap_err(),
        store.get_token(&account_id(), &policy.id).await.map(drop).unwrap_err(),
        store.put_policy(&policy, &a_note()).await.map(drop).unwrap_err(),
        store.take(&charge(&policy.id, Pool::Core, 1)).await.map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(&error, StoreError::Unreadable { key, .. } if key.contains(policy.id.as_str())),
            "{error}"
        );
    }
    let listed = store.list_tokens(&account_id(), None, 10).await.unwrap();
    assert!(matches!(&listed[..], [Listed::Token(a), Listed::Unreadable { id, .. }, Listed::Token(b)]
        if a.policy.id == first && *id == policy.id && b.policy.id == good.id));
    // Counters that are none open nothing: not by a text, not by a field that is missing.
    let used = format!("tg:{{default}}:used:{}:core", good.id);
    for (field, spoilt) in
        [("month_used", "nan"), ("month_start", "-1"), ("hour_used", "1e3"), ("ever_used", "")]
    {
        let _: i64 = ask(&mut connection, &["DEL", &used]).await;
        bench.take(&good.id, 1).await;
        let _: i64 = ask(&mut connection, &["HSET", &used, field, spoilt]).await;
        for error in [
            store.take(&charge(&good.id, Pool::Core, 1)).await.map(drop).unwrap_err(),
            store.token_usage(&account_id(), &good.id).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(&error, StoreError::Unreadable { key, .. } if *key == used), "{field}: {error}");
        }
    }
    let pointer = format!("tg:digest:{}", value.digest().to_hex());
    let _: String = ask(&mut connection, &["SET", &pointer, "nonsense"]).await;
    let error = store.find_token(&value.digest()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
    assert!(!error.to_string().contains(&value.digest().to_hex()), "digests are kept out of messages");
}

/// A crash between pointer and record leaves a pointer that leads nowhere. It lets nobody in, and is no obstacle.
#[tokio::test]
async fn a_pointer_that_leads_nowhere_does_no_harm() {
    let bench = Bench::redis();
    let Raw::Redis(server) = &bench.raw else { panic!("not Redis") };
    let mut connection = connect(server).await;
    let value = new_value(TokenKind::Secret);
    let pointer = format!("tg:digest:{}", value.digest().to_hex());
    let _: String = ask(&mut connection, &["SET", &pointer, &format!("default/{}", new_id())]).await;
    let store = bench.store();
    assert_eq!(store.find_token(&value.digest()).await.unwrap(), None);
    let account = Account {
        id: account_id(),
        created_at: bench.now(),
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    };
    let first = Policy::new(new_id(), account_id(), TokenKind::Secret, bench.now());
    assert!(store.create_account(&account, &first, &value, &a_note()).await.unwrap());
    assert_eq!(store.find_token(&value.digest()).await.unwrap(), Some(first.clone()));
    // A pointer that was not removed after a rotation without grace lets nobody in either.
    let new = new_value(TokenKind::Secret);
    store.rotate_token(&account_id(), &first.id, 1, &new, Duration::ZERO, &a_note()).await.unwrap();
    let _: String = ask(&mut connection, &["SET", &pointer, &format!("default/{}", first.id)]).await;
    assert_eq!(store.find_token(&value.digest()).await.unwrap(), None);
    assert!(store.find_token(&new.digest()).await.unwrap().is_some());
}

#[tokio::test]
async fn whoever_comes_too_late_leaves_no_pointer() {
    let bench = Bench::redis();
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let Raw::Redis(server) = &bench.raw else { panic!("not Redis") };
    let mut connection = connect(server).await;
    let before: Vec<String> = ask(&mut connection, &["KEYS", "tg:digest:*"]).await;
    let store = bench.store();
    let account = Account {
        id: account_id(),
        created_at: bench.now(),
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    };
    let late = Policy::new(new_id(), account_id(), TokenKind::Secret, bench.now());
    assert!(!store.create_account(&account, &late, &new_value(TokenKind::Secret), &a_note()).await.unwrap());
    store.create_token(&policy, &new_value(TokenKind::Publishable), &a_note()).await.unwrap_err();
    let value = new_value(TokenKind::Publishable);
    store.rotate_token(&account_id(), &policy.id, 7, &value, Duration::ZERO, &a_note()).await.unwrap();
    let after: Vec<String> = ask(&mut connection, &["KEYS", "tg:digest:*"]).await;
    assert_eq!(before.len(), 2);
    assert_eq!(before.len(), after.len(), "{after:?}");
}

#[tokio::test]
async fn law_1_with_wait_replicas_no_lease_is_spent_that_a_failover_could_forget() {
    let (mut master, replica) = (RedisServer::start(), RedisServer::start());
    let settings = RedisSettings {
        timeout: Duration::from_secs(2),
        wait_replicas: 1,
        ..RedisSettings::new(&master.url())
    };
    let store = RedisStore::connect(&settings, Some(sealer())).unwrap();
    let (policy, _) = furnish(&store).await;

    // Nobody has a copy: the lease may not be spent from, and the message says which setting asks for it.
    let error = store.take(&charge(&policy.id, Pool::Core, 100)).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(why) if why.contains("0 replicas") && why.contains("wait_replicas")),
        "{error}"
    );

    let mut of_master = connect(&master).await;
    let () = ask(&mut of_master, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    let mut of_replica = connect(&replica).await;
    let () = ask(&mut of_replica, &["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask::<u32>(&mut of_master, &["WAIT", "1", "50"]).await == 0 {
        assert!(Instant::now() < deadline, "the replica never follows");
    }
    let granted = store.take(&charge(&policy.id, Pool::Core, 700)).await.unwrap();
    assert!(matches!(granted, Reserved::Granted(_)), "{granted:?}");

    // The master dies; what takes its place knows of the lease: of the limit of 1,000, 200 are free.
    master.stop();
    let () = ask(&mut of_replica, &["REPLICAOF", "NO", "ONE"]).await;
    let after = open(&replica, Duration::from_secs(2));
    let refused = after.take(&charge(&policy.id, Pool::Core, 201)).await.unwrap();
    assert!(matches!(refused, Reserved::CreditsExhausted { .. }), "{refused:?}");
    let granted = after.take(&charge(&policy.id, Pool::Core, 200)).await.unwrap();
    assert!(matches!(granted, Reserved::Granted(_)), "{granted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_more_tokens_than_are_read_at_once_are_whole() {
    let bench = Bench::redis();
    bench.make_account(PerPool::default()).await;
    let store = bench.store();
    let mut waiting = tokio::task::JoinSet::new();
    for at in 0..5000_u64 {
        let (policy, value) = (
            Policy::new(new_id(), account_id(), TokenKind::Publishable, bench.now()),
            new_value(TokenKind::Publishable),
        );
        let store = Arc::clone(store);
        waiting.spawn(async move {
            store.create_token(&policy, &value, &a_note()).await.unwrap();
            let taking = charge(&policy.id, Pool::Core, at + 1);
            store.take(&taking).await.unwrap();
            store.settle(&[settlement(&taking, at + 1)]).await.unwrap();
        });
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
    let month = ["2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"].map(|time| time.parse().unwrap());
    let sums = store.usage_sums(&account_id(), Grain::Token, month[0], month[1]).await.unwrap();
    assert_eq!(sums.used.len(), 5000);
    assert_eq!(sums.used.iter().map(|sum| sum.credits).sum::<u64>(), 5000 * 5001 / 2);
    super::sums::check(&bench, month[0], month[1]).await;
}
