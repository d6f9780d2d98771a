//! What only Redis promises of leases, events and usage: replicas, lost connections, keys that end by themselves, and what
//! is kept there by an older Tollgate or by nobody of ours.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tollgate::ledger::lease::Reserved;
use tollgate::policy::{Credits, PerPool, Pool};
use tollgate::store::redis::{RedisSettings, RedisStore};
use tollgate::store::{Counted, Event, LeaseKey, RefusalCell, Retention, Settlement, Store, StoreError};

use super::super::bench::{
    Bench, Raw, Takes as _, a_note, account_id, ask, charge, connect, key, new_lease, reserve, sealer,
    settlement,
};
use super::super::news::{listen, next_event};
use super::{furnish, open, wait_until_it_answers};
use crate::harness::redis_server::{Options, RedisServer};
use crate::harness::wait_for;

pub(super) fn server(bench: &Bench) -> &RedisServer {
    match &bench.raw {
        Raw::Redis(server) => server,
        Raw::Embedded(_) => panic!("not Redis"),
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_and_events_come_again() {
    let mut server = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let store = open(&server, Duration::from_secs(2));
    let (policy, _) = furnish(&store).await;
    let mut events = store.events();
    assert_eq!(next_event(&mut events).await, Event::Lost);
    for version in 1..=3 {
        server.stop();
        // Longer than the first tries to come back.
        let error = store.ping().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        server.restart();
        wait_until_it_answers(&store).await;
        assert_eq!(next_event(&mut events).await, Event::Lost);
        let edited = tollgate::policy::Policy { version, ..policy.clone() };
        store.put_policy(&edited, &a_note()).await.unwrap();
        let Event::Policy { token, version: told, epoch } = next_event(&mut events).await else {
            panic!("another event")
        };
        assert_eq!((token, told), (policy.id.clone(), version + 1));
        assert_eq!(store.epoch(&account_id()).await.unwrap(), epoch, "the epoch is as durable as the edits");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_made_anew_at_once() {
    let bench = Bench::redis();
    let mut events = listen(&bench).await;
    let mut admin = connect(server(&bench)).await;
    for _ in 0..3 {
        let killed: i64 = ask(&mut admin, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(killed, 1);
        let started = Instant::now();
        assert_eq!(next_event(&mut events).await, Event::Lost);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn one_that_listens_before_the_server_is_there_hears_later() {
    let mut server = RedisServer::start();
    server.stop();
    let store = open(&server, Duration::from_secs(5));
    let mut events = store.events();
    assert!(store.ping().await.is_err());
    assert!(events.try_recv().is_err());
    server.restart();
    assert_eq!(next_event(&mut events).await, Event::Lost);
    store.recall(&account_id(), None, Pool::Core).await.unwrap();
    assert_eq!(next_event(&mut events).await, Event::Recall { token: None, pool: Pool::Core });
}

#[tokio::test]
async fn a_store_that_is_dropped_listens_no_more() {
    let server = RedisServer::start();
    let mut admin = connect(&server).await;
    let store = open(&server, Duration::from_secs(5));
    let mut events = store.events();
    assert_eq!(next_event(&mut events).await, Event::Lost);
    let patterns: i64 = ask(&mut admin, &["PUBSUB", "NUMPAT"]).await;
    assert_eq!(patterns, 1);
    drop(store);
    wait_for("the listener to go", || {
        let mut admin = admin.clone();
        async move { ask::<i64>(&mut admin, &["PUBSUB", "NUMPAT"]).await == 0 }
    })
    .await;
    assert_eq!(events.recv().await.unwrap_err(), tokio::sync::broadcast::error::RecvError::Closed);
}

#[tokio::test]
async fn what_others_publish_on_our_channels_is_no_event() {
    let bench = Bench::redis();
    let mut events = listen(&bench).await;
    let mut admin = connect(server(&bench)).await;
    let channels =
        ["tg:{default}:events", "tg:default:events", "other:{default}:events", "tg:{default}:event"];
    for channel in channels {
        for text in ["", "lost", "account", "account x", "policy tok_x 1 2", "recall - gold", "\u{fffd}"] {
            let _: i64 = ask(&mut admin, &["PUBLISH", channel, text]).await;
        }
    }
    // An event, but on a channel that is not ours.
    let _: i64 = ask(&mut admin, &["PUBLISH", "other:{default}:events", "account 9"]).await;
    let _: i64 = ask(&mut admin, &["PUBLISH", "tg:{default}:events", "account 7"]).await;
    assert_eq!(next_event(&mut events).await, Event::Account { epoch: 7 });
}

#[tokio::test]
async fn stores_of_two_prefixes_hear_only_their_own() {
    let server = RedisServer::start();
    let store = |prefix: &str| {
        let settings = RedisSettings { prefix: prefix.to_owned(), ..RedisSettings::new(&server.url()) };
        RedisStore::connect(&settings, Some(sealer())).unwrap()
    };
    let (stars, ours) = (store("a*:"), store("ab:"));
    let mut heard = [stars.events(), ours.events()];
    for events in &mut heard {
        assert_eq!(next_event(events).await, Event::Lost);
    }
    ours.recall(&account_id(), None, Pool::Core).await.unwrap();
    stars.recall(&account_id(), None, Pool::Premium).await.unwrap();
    for (events, pool) in heard.iter_mut().zip([Pool::Premium, Pool::Core]) {
        assert_eq!(next_event(events).await, Event::Recall { token: None, pool });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_granted_only_when_the_replicas_have_it() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    let settings = RedisSettings {
        wait_replicas: 1,
        timeout: Duration::from_secs(2),
        ..RedisSettings::new(&primary.url())
    };
    let store = RedisStore::connect(&settings, Some(sealer())).unwrap();
    let (policy, _) = furnish(&store).await;
    let alone = charge(&policy.id, Pool::Core, 10);
    let error = store.take(&alone).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(why) if why.contains("`wait_replicas` is 1")),
        "{error}"
    );
    // What is not granted waits for nothing.
    let refused = store.take(&charge(&policy.id, Pool::Core, 100_000)).await.unwrap();
    assert!(matches!(refused, Reserved::CreditsExhausted { .. }));
    let mut admin = connect(&replica).await;
    let _: String = ask(&mut admin, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    wait_for("the replica", || {
        let mut admin = admin.clone();
        async move { ask::<String>(&mut admin, &["INFO", "replication"]).await.contains("master_link_status:up") }
    })
    .await;
    // The same lease, asked for again: now a replica has it, and it is leased once.
    let Reserved::Granted(grant) = store.take(&alone).await.unwrap() else { panic!("refused") };
    assert_eq!((grant.granted, grant.leased), (Credits(10), Credits(10)));
    let copy: String =
        ask(&mut admin, &["GET", &format!("tg:{{default}}:lease:{}", alone.key.lease.0)]).await;
    assert!(copy.contains("|10|"), "{copy}");
    let at_once: Vec<_> = (0..64).map(|_| charge(&policy.id, Pool::Core, 1)).collect();
    let answers = futures_util::future::join_all(at_once.iter().map(|taking| store.take(taking))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Reserved::Granted(_)))), "{answers:?}");
    // One that hangs has nothing: also where the lease was written before and is only asked for again.
    replica.freeze();
    let late = charge(&policy.id, Pool::Core, 5);
    for _ in 0..2 {
        let error = store.take(&late).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    // Others do not wait with it.
    let started = Instant::now();
    let waiting = store.take(&late);
    let others = async {
        store.ping().await.unwrap();
        started.elapsed()
    };
    let (error, took) = tokio::join!(waiting, others);
    assert!(error.is_err() && took < Duration::from_secs(1), "{took:?}");
    // The caller settles what it was not granted; nothing stays leased of it.
    store.settle(&[settlement(&late, 0)]).await.unwrap();
    replica.thaw();
    let Counted { counters, at: now, .. } = store.token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counters.core.leased(tollgate::policy::Period::Month, now), Credits(74));
}

#[tokio::test]
async fn usage_and_marks_end_by_themselves() {
    let kept = |usage, stranded| Retention { usage, stranded, ..Retention::default() };
    for retention in [
        Retention::default(),
        kept(Duration::from_hours(31 * 24), Duration::from_mins(10)),
        kept(Duration::from_hours(3650 * 24), Duration::from_hours(30 * 24)),
    ] {
        keys_end_when_they_say_nothing_any_more(retention).await;
    }
}

async fn keys_end_when_they_say_nothing_any_more(retention: Retention) {
    let mut bench = Bench::redis();
    bench.keep_for(retention);
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&policy.id, 5).await;
    let hour = bench.now().as_second();
    let mut settled = settlement(&taking, 5);
    settled.cells[0].hour = hour;
    bench.store().settle(&[settled]).await.unwrap();
    let batch = new_lease();
    let refusal = RefusalCell { token: None, hour, code: "no_token", count: 1 };
    bench.store().count_refusals(&account_id(), batch, &[refusal]).await.unwrap();
    let unknown = key(&policy.id, Pool::Core);
    let nothing = Settlement { key: unknown.clone(), spent: Credits(0), cells: Vec::new() };
    bench.store().settle(&[nothing]).await.unwrap();
    let (stranded, _) = bench.take(&policy.id, 1).await;
    bench.pass(SignedDuration::from_mins(1));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 1);
    let mut admin = connect(server(&bench)).await;
    // 18 hours are left of the day.
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap();
    let usage = millis(retention.usage) + (18 + 1) * 3_600_000;
    let lease = |key: &LeaseKey| format!("tg:{{default}}:lease:{}", key.lease.0);
    let ends = [
        (format!("tg:{{default}}:cells:{}:20261124", policy.id), usage),
        ("tg:{default}:refusals:-:20261124".to_owned(), usage),
        ("tg:{default}:active:20261124".to_owned(), usage),
        (format!("tg:{{default}}:batch:{}", batch.0), 3_600_000),
        (lease(&taking.key), 3 * 60_000),
        (lease(&unknown), 61 * 60_000),
        (lease(&stranded.key), millis(retention.stranded) + 60_000),
    ];
    for (key, most) in ends {
        let left: i64 = ask(&mut admin, &["PTTL", &key]).await;
        assert!(left > most - 120_000 && left <= most, "{key}: {left} ms, not {most}");
    }
    let active: Vec<String> = ask(&mut admin, &["SMEMBERS", "tg:{default}:active:20261124"]).await;
    assert_eq!(active.len(), 2, "{active:?}");
    // All keys of the account have its tag: they are in one slot of a cluster.
    let mut keys: Vec<String> = ask(&mut admin, &["KEYS", "*"]).await;
    keys.retain(|key| !key.starts_with("tg:digest:"));
    assert!(keys.len() > 10 && keys.iter().all(|key| key.starts_with("tg:{default}:")), "{keys:?}");
}

#[tokio::test]
async fn counters_of_a_tollgate_without_leases_are_read() {
    let bench = Bench::redis();
    bench.make_account(PerPool::default()).await;
    let (policy, _) =
        bench.make_token(|policy| policy.credit_limit.core = super::super::bench::limit("10/month")).await;
    let mut admin = connect(server(&bench)).await;
    let [hour, day, month] = ["2026-11-24T06:00:00Z", "2026-11-24T00:00:00Z", "2026-11-01T00:00:00Z"]
        .map(|start| super::super::bench::time(start).as_second().to_string());
    for key in [format!("tg:{{default}}:used:{}:core", policy.id), "tg:{default}:used:core".to_owned()] {
        let old = [
            "HSET",
            &key,
            "hour_start",
            &hour,
            "hour_used",
            "1",
            "day_start",
            &day,
            "day_used",
            "3",
            "month_start",
            &month,
            "month_used",
            "7",
            "ever_start",
            "0",
            "ever_used",
            "70",
        ];
        let _: i64 = ask(&mut admin, &old).await;
    }
    assert_eq!(bench.used(&policy.id).await, 7);
    let (taking, taken) = bench.take(&policy.id, 3).await;
    assert!(matches!(taken, Reserved::Granted(_)));
    assert!(matches!(bench.take(&policy.id, 1).await.1, Reserved::CreditsExhausted { .. }));
    bench.settle(&taking, 2).await;
    let Counted { counters, .. } = bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
    let used = [counters.core.hour, counters.core.day, counters.core.month, counters.core.ever];
    assert_eq!(used.map(|slot| (slot.used, slot.leased)), [(3, 0), (5, 0), (9, 0), (72, 0)]);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_is_not_in_the_way_of_others() {
    let bench = Bench::redis();
    bench.make_account(PerPool::default()).await;
    let (good, _) = bench.make_token(|_| ()).await;
    let (bad, _) = bench.make_token(|_| ()).await;
    let mut admin = connect(server(&bench)).await;
    let lease = |key: &LeaseKey| format!("tg:{{default}}:lease:{}", key.lease.0);
    let (unread, _) = bench.take(&good.id, 1).await;
    let _: String = ask(&mut admin, &["SET", &lease(&unread.key), "garbage"]).await;
    let renew = bench.store().renew(std::slice::from_ref(&unread.key), Duration::from_secs(9)).await;
    for error in [
        bench.store().take(&unread).await.map(drop).unwrap_err(),
        bench.store().shrink(&unread.key, Credits(0)).await.unwrap_err(),
        renew.map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(&error, StoreError::Unreadable { key, .. } if *key == lease(&unread.key)),
            "{error}"
        );
    }
    // A settlement that cannot be made is told; the others of the call are made.
    let (fine, _) = bench.take(&good.id, 5).await;
    let error = bench.store().settle(&[settlement(&unread, 0), settlement(&fine, 2)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { .. }), "{error}");
    let Counted { counters, at: now, .. } = bench.store().token_usage(&account_id(), &good.id).await.unwrap();
    assert_eq!(counters.core.used(tollgate::policy::Period::Day, now), Credits(2));
    // Leases of a counter that cannot be read are put off; those behind them are closed.
    for _ in 0..8 {
        bench.take(&bad.id, 1).await;
    }
    let used = format!("tg:{{default}}:used:{}:core", bad.id);
    let _: i64 = ask(&mut admin, &["HSET", &used, "day_leased", "many"]).await;
    bench.pass(SignedDuration::from_secs(1));
    bench.take(&good.id, 7).await;
    bench.pass(SignedDuration::from_mins(1));
    for _ in 0..2 {
        assert!(matches!(bench.take(&good.id, 1).await.1, Reserved::Granted(_)));
    }
    assert_eq!(bench.store().token_usage(&account_id(), &good.id).await.unwrap().stranded.core, Credits(7));
    let error = bench.store().token_usage(&account_id(), &bad.id).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { key, .. } if *key == used), "{error}");
    // Mended, they are closed when their hour is over.
    let _: i64 = ask(&mut admin, &["HSET", &used, "day_leased", "8"]).await;
    bench.pass(SignedDuration::from_hours(1));
    bench.store().expire(&account_id()).await.unwrap();
    assert_eq!(bench.store().token_usage(&account_id(), &bad.id).await.unwrap().stranded.core, Credits(8));
}

#[tokio::test]
async fn usage_that_is_none_of_ours_is_unreadable_and_counts_nothing() {
    let bench = Bench::redis();
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let mut admin = connect(server(&bench)).await;
    let (taking, _) = bench.take(&policy.id, 3).await;
    let mut settled = settlement(&taking, 3);
    settled.cells[0].hour = bench.now().as_second();
    let cells = format!("tg:{{default}}:cells:{}:20261124", policy.id);
    let _: i64 = ask(&mut admin, &["HSET", &cells, "06|core|read|MY/CARS", "many"]).await;
    let error = bench.store().settle(std::slice::from_ref(&settled)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { key, .. } if *key == cells), "{error}");
    let all = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
    let error = bench.store().usage(&account_id(), Some(&policy.id), all.0, all.1).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { key, .. } if *key == cells), "{error}");
    let Counted { counters, at: now, .. } =
        bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counters.core.used(tollgate::policy::Period::Day, now), Credits(0), "all or nothing");
    // Mended, the same settlement counts once.
    let _: i64 = ask(&mut admin, &["DEL", &cells]).await;
    for _ in 0..2 {
        bench.store().settle(std::slice::from_ref(&settled)).await.unwrap();
    }
    let rows = bench.store().usage(&account_id(), None, all.0, all.1).await.unwrap();
    assert_eq!((rows.len(), bench.used(&policy.id).await), (1, 3));
}

#[tokio::test]
async fn leases_survive_a_restart_of_the_server() {
    let mut server = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let store = open(&server, Duration::from_secs(10));
    let (policy, _) = furnish(&store).await;
    let taking = key(&policy.id, Pool::Core);
    let asked = reserve(&taking, 10, 10);
    assert!(matches!(store.reserve(&asked).await.unwrap(), Reserved::Granted(_)));
    server.restart();
    let Reserved::Granted(grant) = store.reserve(&asked).await.unwrap() else { panic!("refused") };
    assert_eq!((grant.granted, grant.leased), (Credits(10), Credits(10)));
    server.restart();
    assert_eq!(store.renew(std::slice::from_ref(&taking), Duration::from_mins(1)).await.unwrap(), [true]);
    server.restart();
    let settlement = settlement(&super::super::bench::Charge { key: taking, cost: 10 }, 4);
    for _ in 0..2 {
        store.settle(std::slice::from_ref(&settlement)).await.unwrap();
        server.restart();
    }
    let Counted { counters: used, at: now, .. } = store.token_usage(&account_id(), &policy.id).await.unwrap();
    let month = tollgate::policy::Period::Month;
    assert_eq!((used.core.used(month, now), used.core.leased(month, now)), (Credits(4), Credits(0)));
}
