//! Redis as it is really run: with users of few rights, over TLS, behind sentinels, as a cluster; and a master that dies under
//! load.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::policy::AccountId;
use tollgate::policy::signature::Fingerprint;
use tollgate::store::people::{Member, MemberId, MemberWritten, Role, Session, SessionDigest, Visitor};
use tollgate::store::redis::{Place, RedisServers, RedisSettings, RedisStore, RedisTls};
use tollgate::store::{Remembered, Sighting, Store};

use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::redis_topology::{Certificates, Cluster, Node, Watched, start_with_users};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::laws::{Crowd, Seen};
use crate::store_conformance::a_note;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const CLIENTS: usize = 4;

/// A gate serves, counts and hears; whatever it needs of the store, it may do.
async fn serves(gate: &mut Gate) {
    let fields = json!({
        "credit_limit": {"core": {"credits": 5, "period": "month"}},
        "rate_limit": {"requests_per_second": 1000, "burst": 1000},
    });
    let token = gate.token(fields).await;
    for expected in [200, 200, 200, 200, 200, 402] {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
    gate.wait_used(&token, 5).await;
    // An edit is heard: through the store's events, not by the periodic check alone.
    gate.edit(&token, limited(6)).await;
    wait_for("the edit", || async { gate.ask(Ask::get(&token.on(DATA))).await.status == 200 }).await;
    let usage = gate.admin("GET", &format!("/v1/tokens/{}/usage", token.id), None).await;
    assert_eq!(usage.status, 200, "{}", usage.text());
    let nodes = gate.admin("GET", "/v1/nodes", None).await;
    assert_eq!(nodes.status, 200, "{}", nodes.text());
    let rotated = gate.admin("POST", &format!("/v1/tokens/{}/rotate", token.id), Some(json!({}))).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    for of_token in ["", &format!("&target={}", token.id)] {
        let trail = gate.admin("GET", &format!("/v1/audit?limit=3{of_token}"), None).await;
        let text = trail.text();
        assert_eq!(trail.status, 200, "{text}");
        for action in ["token.rotate", "token.edit", "token.create"] {
            assert!(text.contains(action), "{text}");
        }
    }
    let events = gate.events();
    for complaint in ["NOPERM", "cannot hear the store's events"] {
        assert!(!events.contains(complaint), "{events}");
    }
}

/// What signed requests need of a store: secrets are found, and each signature is new once, of whatever second it is.
async fn signs(settings: &RedisSettings) {
    let store = RedisStore::connect(settings, None).unwrap();
    let account = AccountId::default_account();
    let all = store.account_secrets(&account).await.unwrap();
    assert_eq!(
        (all.secrets.len(), all.unopened.len()),
        (0, 1),
        "the first secret token, which no key opens here"
    );
    let use_ = |nonce: u128| {
        move |n: u8| Sighting {
            fingerprint: Fingerprint([n; 16]),
            dated: i64::from(n / 4),
            life: Duration::from_mins(1),
            nonce: nonce + u128::from(n),
        }
    };
    for (nonce, expected) in [(1, Remembered::New), (1, Remembered::New), (1000, Remembered::Seen)] {
        let uses: Vec<_> = (0..200).map(use_(nonce)).collect();
        let answers = store.remember_signatures(&account, &uses).await.unwrap();
        assert_eq!(answers, vec![expected; 200]);
    }
}

/// What the console needs of a store: members are written and read, sessions begin and end.
async fn signs_in(settings: &RedisSettings) {
    let store = RedisStore::connect(settings, None).unwrap();
    let (account, now) = (AccountId::default_account(), jiff::Timestamp::UNIX_EPOCH);
    let member = Member {
        id: MemberId::from_ulid(ulid::Ulid(1)),
        name: "Ada".to_owned(),
        role: Role::Viewer,
        passphrase: None,
        invitation: None,
        sessions_since: now,
        created_at: now,
        version: 1,
    };
    let note = a_note();
    let written = store.create_member(&account, &member, &note).await.unwrap();
    assert_eq!(written, MemberWritten::Done { version: 1 });
    let written = store.put_member(&account, &member, &note).await.unwrap();
    assert_eq!(written, MemberWritten::Done { version: 2 });
    let stored = Member { version: 2, ..member };
    assert_eq!(store.member(&account, &stored.id).await.unwrap().as_ref(), Some(&stored));
    assert_eq!(store.members(&account).await.unwrap(), std::slice::from_ref(&stored));
    let written = store.remove_member(&account, &stored.id, 2, &note).await.unwrap();
    assert_eq!(written, MemberWritten::Done { version: 3 });
    let session = Session { visitor: Visitor::Member(stored.id), started_at: now };
    let digest = SessionDigest([7; 32]);
    store.put_session(&account, &digest, &session, Duration::from_hours(1)).await.unwrap();
    assert_eq!(store.session(&account, &digest).await.unwrap(), Some(session));
    store.end_session(&account, &digest).await.unwrap();
    assert_eq!(store.session(&account, &digest).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_rights_in_the_shipped_file_is_enough() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/redis/redis.acl");
    let server = start_with_users(file.to_str().unwrap());
    let upstream = Upstream::start().await;
    let store = format!(
        "url: \"redis://127.0.0.1:{}\", timeout: 2s, username: tollgate, password: \"${{TOLLGATE_TEST_PASSWORD}}\"",
        server.port()
    );
    let mut gate =
        Plan::new(&upstream).store(&store).env("TOLLGATE_TEST_PASSWORD", "change-me").start().await;
    serves(&mut gate).await;
    let settings = RedisSettings::new(&format!("redis://127.0.0.1:{}", server.port()));
    let (username, password) = (Some("tollgate".to_owned()), Some("change-me".to_owned()));
    let settings = RedisSettings { username, password, timeout: Duration::from_secs(2), ..settings };
    signs(&settings).await;
    signs_in(&settings).await;
    let as_user = ["--user", "tollgate", "--pass", "change-me", "--no-auth-warning"];
    // What only sentinels and clusters make it ask.
    for own in [&["ROLE"][..], &["CLUSTER", "SLOTS"], &["ASKING"], &["SELECT", "1"], &["WAIT", "0", "1"]] {
        let printed = server.cli(&[&as_user[..], own].concat());
        assert!(!printed.contains("NOPERM"), "{own:?}: {printed}");
    }
    // And no more than its own.
    for other in [&["GET", "other"][..], &["FLUSHALL"], &["CONFIG", "GET", "*"], &["PUBLISH", "other", "x"]] {
        let printed = server.cli(&[&as_user[..], other].concat());
        assert!(printed.contains("NOPERM"), "{other:?}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_only_the_authority_that_is_named() {
    let certificates = Certificates::make();
    let server = certificates.start_server();
    let upstream = Upstream::start().await;
    let store =
        format!("url: \"rediss://127.0.0.1:{}/1\", timeout: 2s, tls: {}", server.port(), certificates.yaml());
    let mut gate = Plan::new(&upstream).store(&store).start().await;
    serves(&mut gate).await;

    let identity = Some((certificates.path("gate.pem"), certificates.path("gate.key")));
    let stranger = Certificates::make();
    let table = [
        ("all as it should be", Some(certificates.path("ca.pem")), identity.clone(), true),
        ("another authority", Some(stranger.path("ca.pem")), identity.clone(), false),
        ("the public authorities", None, identity, false),
        ("no certificate of one's own", Some(certificates.path("ca.pem")), None, false),
    ];
    for (what, ca, identity, works) in table {
        let settings = RedisSettings {
            tls: Some(RedisTls { ca, identity }),
            timeout: Duration::from_secs(2),
            ..RedisSettings::new(&format!("redis://127.0.0.1:{}", server.port()))
        };
        let answer = RedisStore::connect(&settings, None).unwrap().ping().await;
        assert_eq!(answer.is_ok(), works, "{what}: {answer:?}");
    }
    // Without TLS nothing is said to such a server.
    let plain = RedisSettings::new(&format!("redis://127.0.0.1:{}", server.port()));
    RedisStore::connect(&plain, None).unwrap().ping().await.unwrap_err();
    let absent = RedisTls { ca: Some("no/such/ca.pem".into()), identity: None };
    let settings = RedisSettings { tls: Some(absent), ..plain };
    let error = RedisStore::connect(&settings, None).unwrap_err().to_string();
    assert!(error.contains("no/such/ca.pem"), "{error}");
}

/// Sends a crowd, kills a master, waits `after` that until another is one and has a replica again, and until the limit is used
/// up. Nothing goes over it, and nobody is refused for credits before that.
async fn outlive(gate: &Gate, token: &Token, limit: u64, master: &mut Node, after: impl FnOnce(&mut Node)) {
    let crowd = Crowd::gather(vec![gate.address], token, CLIENTS);
    let seen = crowd.seen.clone();
    let passed = |least: u64| {
        let seen = seen.clone();
        wait_for("requests to pass", move || {
            let passed = seen.passed();
            async move { passed >= least }
        })
    };
    passed(limit / 10).await;
    master.kill();
    let killed = Instant::now();
    wait_for("the outage to be felt, or the replica to take over", || async {
        seen.unavailable.load(Ordering::Relaxed) > 0 || killed.elapsed() > Duration::from_secs(5)
    })
    .await;
    after(master);
    let before = seen.passed();
    assert_refused_nobody(&seen);
    // By itself: nobody touches the gate.
    passed(before + limit / 10).await;
    let exhausted = || async { seen.exhausted.load(Ordering::Relaxed) > 0 };
    wait_for("the limit to be used up", exhausted).await;
    let seen = crowd.disperse().await;
    assert!(seen.other.lock().is_empty(), "{:?}", seen.other.lock());
    let passed = seen.passed();
    assert!(passed <= limit, "{passed} of {limit}");
    // What a lost settlement had given back counts as used: at most what was leased when the master died.
    assert!(passed >= limit / 2, "only {passed} of {limit}");
    wait_for("all to be settled", || async { gate.used(token).await >= passed }).await;
    assert!(gate.used(token).await <= limit);
}

fn assert_refused_nobody(seen: &Seen) {
    assert_eq!(seen.exhausted.load(Ordering::Relaxed), 0, "refused for credits by an outage");
    assert!(seen.other.lock().is_empty(), "{:?}", seen.other.lock());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laws_1_and_6_sentinels_promote_a_replica_under_load() {
    const LIMIT: u64 = 20_000;
    let mut watched = Watched::start();
    let upstream = Upstream::start().await;
    let store = format!("url: \"{}\", timeout: 1s, wait_replicas: 1", watched.url());
    let mut gate = Plan::new(&upstream).store(&store).start().await;
    let token = gate.token(limited(LIMIT)).await;
    let (master, replica) = (&mut watched.master, &watched.replica);
    let after = |master: &mut Node| {
        replica.wait_cli(&["INFO", "replication"], "role:master");
        master.start_again(&["--replicaof", "127.0.0.1", &replica.port().to_string()]);
    };
    outlive(&gate, &token, LIMIT, master, after).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_one_store() {
    let cluster = Cluster::start("tg:{default}:account");
    let upstream = Upstream::start().await;
    let store = format!("url: \"{}\", timeout: 1s", cluster.url());
    let mut gate = Plan::new(&upstream).store(&store).start().await;
    // Pointers lie anywhere: in time each node keeps some.
    let keeps_none = |node: &Node| !node.cli(&["--scan", "--pattern", "tg:digest:*"]).contains("tg:digest:");
    for made in 0.. {
        let token = gate.token(limited(1)).await;
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
        if !cluster.masters.iter().any(keeps_none) {
            break;
        }
        assert!(made < 200, "some node keeps no pointer");
    }
    serves(&mut gate).await;
    let place = |node: &Node| Place { host: "127.0.0.1".to_owned(), port: node.port() };
    let servers = RedisServers::Cluster { nodes: cluster.masters.iter().map(place).collect() };
    let settings = RedisSettings { servers, timeout: Duration::from_secs(5), ..RedisSettings::new("") };
    signs(&settings).await;
    signs_in(&settings).await;
    let keeps_none =
        |node: &Node| !node.cli(&["--scan", "--pattern", "tg:*:signatures"]).contains("signatures");
    assert!(!cluster.masters.iter().any(keeps_none), "signatures spread over the nodes");

    // The account's slot moves to another master while the gate runs: it follows, and mixes nothing up half-way.
    let read = gate.token(limited(10)).await;
    for _ in 0..3 {
        assert_eq!(gate.ask(Ask::get(&read.on(DATA))).await.status, 200);
    }
    gate.wait_used(&read, 3).await;
    let token = gate.token(limited(6_000)).await;
    let crowd = Crowd::gather(vec![gate.address], &token, 2);
    let (from, to) = (&cluster.masters[cluster.home], &cluster.masters[(cluster.home + 1) % 3]);
    let half_way = async {
        let answer = gate.admin("GET", &format!("/v1/tokens/{}", read.id), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["usage"]["core"]["used"], 3, "{}", answer.text());
    };
    cluster.move_slot(from, to, &format!("tg:{{default}}:token:{}", read.id), half_way).await;
    let exhausted = || async { crowd.seen.exhausted.load(Ordering::Relaxed) > 0 };
    wait_for("the limit to be used up", exhausted).await;
    let seen = crowd.disperse().await;
    assert!(seen.other.lock().is_empty(), "{:?}", seen.other.lock());
    assert_eq!(seen.passed(), 6_000);
    gate.wait_used(&token, 6_000).await;
    assert!(from.cli(&["EXISTS", "tg:{default}:account"]).contains("MOVED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laws_1_and_6_a_cluster_promotes_a_replica_under_load() {
    const LIMIT: u64 = 20_000;
    let mut cluster = Cluster::start("tg:{default}:account");
    let upstream = Upstream::start().await;
    let store = format!("url: \"{}\", timeout: 1s, wait_replicas: 1", cluster.url());
    let mut gate = Plan::new(&upstream).store(&store).start().await;
    let token = gate.token(limited(LIMIT)).await;
    let (master, replica) = (&mut cluster.masters[cluster.home], &cluster.replica);
    let after = |master: &mut Node| {
        replica.wait_cli(&["INFO", "replication"], "role:master");
        master.start_again(&[]);
    };
    outlive(&gate, &token, LIMIT, master, after).await;
}
