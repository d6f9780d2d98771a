//! Credits through the whole gate: laws 1 to 3 in their simple form, on both stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const SECRET: &str = "sk_5ec2e7000000000000000000000005e7";

/// Nodes that share one Redis.
async fn fleet(upstream: &Upstream, redis: &RedisServer, nodes: usize) -> Vec<Gate> {
    let mut fleet = Vec::new();
    for _ in 0..nodes {
        // A loaded test machine answers late; a late answer is no outage here.
        let store = format!("url: \"{}\", timeout: 10s", redis.url());
        fleet.push(Plan::new(upstream).store(&store).secret(SECRET).start().await);
    }
    fleet
}

/// What clients saw of a run.
#[derive(Default)]
struct Tally {
    passed: AtomicU64,
    exhausted: AtomicU64,
    other: AtomicU64,
}

/// Clients hammer the nodes in turn until each has seen `refusals` refusals.
async fn hammer(nodes: &[&Gate], token: &Token, clients: usize, refusals: u64) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let mut tasks = Vec::new();
    for client in 0..clients {
        let address = nodes[client % nodes.len()].address;
        let (ask, tally) = (Ask::get(&token.on(DATA)), tally.clone());
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut refused = 0;
            while refused < refusals {
                let answer = connection.send(&ask).await.expect("an answer");
                let counter = match answer.status {
                    200 => &tally.passed,
                    402 => {
                        refused += 1;
                        assert_eq!(answer.code(), "credits_exhausted");
                        &tally.exhausted
                    }
                    _ => &tally.other,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.expect("a client");
    }
    tally
}

async fn exactly_the_limit(nodes: &[&Gate], token: &Token, upstream: &Upstream, limit: u64, clients: usize) {
    let tally = hammer(nodes, token, clients, 5).await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&tally.passed), limit, "admitted");
    assert_eq!(count(&tally.exhausted), clients as u64 * 5, "refused");
    assert_eq!(count(&tally.other), 0, "neither");
    assert_eq!(upstream.count() as u64, limit, "delivered");
    for node in nodes {
        node.wait_used(token, limit).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_1_never_over_with_three_nodes_on_one_redis() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = fleet(&upstream, &redis, 3).await;
    let token = nodes[0].token(limited(5000)).await;
    let nodes: Vec<&Gate> = nodes.iter().collect();
    exactly_the_limit(&nodes, &token, &upstream, 5000, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_1_never_over_on_the_embedded_store_and_over_a_restart() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(limited(2000)).await;
    exactly_the_limit(&[&gate], &token, &upstream, 2000, 64).await;
    gate.stop();
    gate.start_again().await;
    assert_eq!(gate.used(&token).await, 2000);
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 402);
    gate.kill();
    gate.start_again().await;
    assert_eq!(gate.used(&token).await, 2000);
    assert_eq!(upstream.count(), 2000);
}

/// What becomes of each kind of ending, by the client's wish to the upstream.
async fn endings(gate: &mut Gate, upstream: &Upstream) {
    let token = gate.token(limited(1000)).await;
    let ask = |wish: &str| Ask::get(&token.on(DATA)).header("X-Test", wish);
    let mut used = 0;
    // (wish, status, charged)
    let table = [
        ("", 200, 1),
        ("status=201", 201, 1),
        ("status=204", 204, 1),
        ("status=301", 301, 1),
        ("status=304", 304, 1),
        ("status=400", 400, 0),
        ("status=404", 404, 0),
        ("status=429", 429, 0),
        ("status=500", 500, 0),
        ("status=503", 503, 0),
        ("cut", 502, 0),
        ("hang", 504, 0),
    ];
    for (wish, status, charged) in table {
        let answer = gate.ask(ask(wish)).await;
        assert_eq!(answer.status, status, "{wish}: {}", answer.text());
        used += charged;
        let remaining =
            answer.header("x-credits-remaining").map(|left| left.parse::<u64>().expect("a number"));
        assert!(remaining.is_none_or(|left| left == 1000 - used), "{wish}: {remaining:?} after {used}");
    }
    gate.wait_used(&token, used).await;
    // The upstream breaks off after it began: the response was delivered in part, and is charged.
    let mut connection = Connection::open(gate.address).await;
    assert!(connection.send(&ask("cut-body")).await.is_err());
    used += 1;
    // The client leaves after the response began: charged.
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: drip\r\n\r\n", token.on(DATA));
    connection.write(line.as_bytes()).await.expect("sent");
    assert_eq!(connection.read_head().await.expect("a head").status, 200);
    drop(connection);
    used += 1;
    // The client leaves before the response began: given back.
    let before = upstream.count();
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: hang\r\n\r\n", token.on(DATA));
    connection.write(line.as_bytes()).await.expect("sent");
    wait_for("the upstream to have the request", || async { upstream.count() == before + 1 }).await;
    drop(connection);
    gate.wait_used(&token, used).await;
    let charged = gate.metric("tollgate_credits_total{outcome=\"charged\",pool=\"core\"}").await;
    assert_eq!(charged, used, "the metric adds up");
}

#[tokio::test]
async fn law_2_nothing_lost_however_a_request_ends_embedded() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).upstream_extra("read_timeout: 700ms").start().await;
    endings(&mut gate, &upstream).await;
}

#[tokio::test]
async fn law_2_nothing_lost_however_a_request_ends_redis() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let mut gate = Plan::new(&upstream).store(&store).upstream_extra("read_timeout: 700ms").start().await;
    endings(&mut gate, &upstream).await;
}

#[tokio::test]
async fn law_2_nothing_lost_while_a_record_in_the_store_cannot_be_read() {
    unreadable(false).await;
}

#[tokio::test]
async fn law_2_nothing_lost_when_a_restart_meets_a_record_that_cannot_be_read() {
    unreadable(true).await;
}

async fn unreadable(restart: bool) {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let mut gate = Plan::new(&upstream).store(&store).start().await;
    let tokens = [gate.token(limited(100)).await, gate.token(limited(100)).await];
    for token in &tokens {
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    }
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let leases: Vec<String> = redis::cmd("KEYS").arg("*lease:*").query(&mut connection).unwrap();
    assert_eq!(leases.len(), 2, "one lease a token: {leases:?}");
    for lease in &leases {
        let () =
            redis::cmd("RENAME").arg(lease).arg(format!("aside {lease}")).query(&mut connection).unwrap();
        let () = redis::cmd("SET").arg(lease).arg("not a lease").query(&mut connection).unwrap();
    }
    if restart {
        gate.kill();
        gate.start_again().await;
    }
    let failed = "tollgate_store_errors_total{kind=\"unreadable\",operation=\"settle\"}";
    wait_for("settlements that fail", async || gate.metric(failed).await > 3).await;
    for lease in &leases {
        let () =
            redis::cmd("RENAME").arg(format!("aside {lease}")).arg(lease).query(&mut connection).unwrap();
    }
    for token in &tokens {
        gate.wait_used(token, 1).await;
    }
}

#[tokio::test]
async fn law_2_nothing_lost_in_a_graceful_stop() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(limited(100)).await;
    // One request is under way when the gate is told to stop: it is served to its end.
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: bytes=30000000\r\n\r\n", token.on(DATA));
    connection.write(line.as_bytes()).await.expect("sent");
    assert_eq!(connection.read_head().await.expect("a head").status, 200);
    let pid = gate.pid().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
    let mut received = 0;
    while received < 30_000_000 {
        let some = connection.read_some().await.expect("the rest of the body");
        assert!(some > 0, "cut off after {received} bytes");
        received += some;
    }
    gate.stop();
    gate.start_again().await;
    assert_eq!(gate.used(&token).await, 1);
}

#[tokio::test]
async fn law_3_never_early_each_credit_can_be_used() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(limited(10)).await;
    // Failures in between cost nothing, so exactly ten good answers come.
    for _ in 0..10 {
        assert_eq!(gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=500")).await.status, 500);
        wait_for("the credit to be back", || async {
            let answer = gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=418")).await;
            answer.status == 418
        })
        .await;
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    }
    gate.wait_used(&token, 10).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 402);
}

#[tokio::test]
async fn pools_and_costs_are_counted_apart() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({
        "premium_access": true,
        "credit_limit": {"core": {"credits": 25, "period": "day"}, "premium": {"credits": 10, "period": "day"}},
    }));
    let token = token.await;
    let status = |path: &'static str| {
        let ask = Ask::get(&token.on(path));
        let gate = &gate;
        async move { gate.ask(ask).await.status }
    };
    assert_eq!(status("/v1/ten/x").await, 200);
    assert_eq!(status("/v1/premium/x").await, 200);
    assert_eq!(status("/v1/ten/x").await, 200);
    assert_eq!(status("/v1/ten/x").await, 402);
    assert_eq!(status("/v1/premium/x").await, 200);
    assert_eq!(status("/v1/premium/x").await, 402);
    for _ in 0..5 {
        assert_eq!(status(DATA).await, 200);
    }
    assert_eq!(status(DATA).await, 402);
    assert_eq!(status("/v1/free/x").await, 200, "what costs nothing passes");
    wait_for("the figures", || async {
        let usage =
            gate.admin("GET", &format!("/v1/tokens/{}", token.id), None).await.json()["usage"].clone();
        let of = |pool: &str| (usage[pool]["used"].as_u64(), usage[pool]["remaining"].as_u64());
        of("core") == (Some(25), Some(0)) && of("premium") == (Some(10), Some(0))
    })
    .await;
    let account = gate.admin("GET", "/v1/account", None).await.json();
    assert_eq!(account["usage"]["core"]["used"], 25);
}

#[tokio::test]
async fn an_edit_reaches_the_running_gate_at_once() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({})).await;
    for round in 0..10 {
        gate.edit(&token, json!({"core_access": false})).await;
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 403, "round {round}");
        gate.edit(&token, json!({"core_access": true})).await;
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200, "round {round}");
    }
    gate.edit(&token, limited(10)).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 402, "what was used before counts");
    gate.edit(&token, limited(11)).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
}

#[tokio::test]
async fn law_6_a_store_outage_is_told_as_503_and_ends_by_itself() {
    let (upstream, mut redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\"", redis.url());
    let mut gate = Plan::new(&upstream).store(&store).start().await;
    let token = gate.token(limited(100)).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    redis.stop();
    let told = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
        assert!(answer.header("retry-after").is_some());
    };
    told(&gate.ask(Ask::get(&format!("{DATA}?token=pk_00000000000000000000000000000000"))).await);
    // The known token is served from credits in hand, and told the same when they are gone.
    let mut served = 1;
    loop {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        if answer.status != 200 {
            told(&answer);
            break;
        }
        served += 1;
    }
    assert!((2..=25).contains(&served), "{served}");
    assert_eq!(Ask::get("/readyz").send(gate.admin).await.status, 503);
    assert_eq!(Ask::get("/healthz").send(gate.admin).await.status, 200);
    redis.restart();
    wait_for("the gate to find its store again", || async {
        Ask::get("/readyz").send(gate.admin).await.status == 200
    })
    .await;
    let metrics = gate.metrics().await;
    assert!(metrics.contains("tollgate_store_errors_total{kind=\"unavailable\""), "{metrics}");
    assert_eq!(upstream.count(), served);
}

#[tokio::test]
async fn usage_is_kept_for_as_long_as_the_configuration_says() {
    const DAY_MS: i64 = 86_400_000;
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let plan = Plan::new(&upstream).store(&store).extra("usage: {retention: 100d}");
    let mut gate = plan.extra("lease: {reclaim_window: 2h}").start().await;
    let token = gate.token(limited(100)).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    gate.wait_used(&token, 1).await;
    // Settled with the lease, so it is there once it is used for good; it goes away a hundred days after its day.
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut left = Vec::new();
    for kind in ["cells", "active"] {
        let mut find = redis::cmd("KEYS");
        let keys: Vec<String> =
            find.arg(format!("tg:*:{kind}:*")).query_async(&mut connection).await.unwrap();
        for key in keys {
            let ttl = redis::cmd("PTTL").arg(key).query_async::<i64>(&mut connection).await.unwrap();
            left.push(ttl);
        }
    }
    assert!(left.len() >= 2 && left.iter().all(|ms| (100 * DAY_MS..102 * DAY_MS).contains(ms)), "{left:?}");
}
