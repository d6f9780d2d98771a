//! Laws 1 to 6 on fleets of real processes that are killed, cut off and edited under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::redis_server::{Options, RedisServer};
use crate::harness::upstream::Upstream;
use crate::harness::{wait_for, wait_long};

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const SECRET: &str = "sk_5ec2e7000000000000000000000005e7";
const KEY: &str = "a key for all the nodes of this fleet";

fn plan(upstream: &Upstream, redis: &RedisServer, store: &str) -> Plan {
    let store = format!("url: \"{}\"{store}", redis.url());
    Plan::new(upstream)
        .store(&store)
        .secret(SECRET)
        .env("TOLLGATE_TEST_KEY", KEY)
        .extra("master_key: ${TOLLGATE_TEST_KEY}")
}

async fn fleet(upstream: &Upstream, redis: &RedisServer, nodes: usize) -> Vec<Gate> {
    let mut fleet = Vec::new();
    for _ in 0..nodes {
        // A loaded test machine answers late; a late answer is no outage here.
        fleet.push(plan(upstream, redis, ", timeout: 10s").start().await);
    }
    fleet
}

/// What clients saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) passed: AtomicU64,
    pub(crate) exhausted: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) other: Mutex<Vec<(u16, String)>>,
    cut: AtomicU64,
}

impl Seen {
    fn note(&self, answer: &Answer) {
        match (answer.status, answer.status >= 400) {
            (200, _) => self.passed.fetch_add(1, Ordering::Relaxed),
            (402, _) => self.exhausted.fetch_add(1, Ordering::Relaxed),
            (503, _) if answer.code() == "store_unavailable" => {
                self.unavailable.fetch_add(1, Ordering::Relaxed)
            }
            (status, _) => {
                self.other.lock().push((status, answer.text()));
                0
            }
        };
    }

    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

/// Clients that ask and ask, until they are told to stop. A node that is gone is asked again when it is back.
pub(crate) struct Crowd {
    pub(crate) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn gather(addresses: Vec<SocketAddr>, token: &Token, clients: usize) -> Self {
        let crowd = Self {
            seen: Arc::default(),
            stop: Arc::default(),
            addresses: Arc::new(Mutex::new(addresses)),
            tasks: Vec::new(),
        };
        let tasks = (0..clients).map(|client| {
            let (seen, stop, addresses) = (crowd.seen.clone(), crowd.stop.clone(), crowd.addresses.clone());
            let ask = Ask::get(&token.on(DATA));
            tokio::spawn(async move {
                let address = || {
                    let addresses = addresses.lock();
                    addresses[client % addresses.len()]
                };
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut open = if let Some(open) = connection.take() {
                        open
                    } else {
                        let Ok(open) = Connection::try_open(address()).await else {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            continue;
                        };
                        open
                    };
                    match open.send(&ask).await {
                        Ok(answer) => {
                            seen.note(&answer);
                            if answer.status == 200 {
                                connection = Some(open);
                            } else {
                                // Whoever is refused waits a little before it asks again.
                                tokio::time::sleep(Duration::from_millis(2)).await;
                                connection = (answer.header("connection") != Some("close")).then_some(open);
                            }
                        }
                        Err(_) => {
                            seen.cut.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { tasks, ..crowd }
    }

    fn moved(&self, node: usize, address: SocketAddr) {
        self.addresses.lock()[node] = address;
    }

    pub(crate) async fn disperse(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client");
        }
        self.seen
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laws_1_to_3_three_nodes_killed_ten_times_each_use_exactly_the_limit() {
    const LIMIT: u64 = 50_000;
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = fleet(&upstream, &redis, 3).await;
    let token = nodes[0].token(limited(LIMIT)).await;
    let crowd = Crowd::gather(nodes.iter().map(|node| node.address).collect(), &token, 64);
    for _ in 0..10 {
        for (at, node) in nodes.iter_mut().enumerate() {
            let before = crowd.seen.passed();
            wait_for("some requests to pass", || async {
                crowd.seen.passed() >= (before + 300).min(LIMIT * 9 / 10)
            })
            .await;
            node.kill();
            node.start_again().await;
            crowd.moved(at, node.address);
        }
    }
    // Every credit is used in the end, also those that were in the hands of a node when it was killed.
    crate::harness::wait_long("all credits to be used", || async { nodes[0].used(&token).await == LIMIT })
        .await;
    let refused = crowd.seen.exhausted.load(Ordering::Relaxed);
    wait_for("everybody to be refused", || async {
        crowd.seen.exhausted.load(Ordering::Relaxed) > refused + 640
    })
    .await;
    let seen = crowd.disperse().await;
    assert_eq!(seen.other.lock().as_slice(), [], "only 200, 402 or a cut connection");
    assert_eq!(nodes[0].used(&token).await, LIMIT, "none over");
    // A charge is written down before the first byte of the response goes out, and after the upstream answered. So
    // what clients have received was charged, and what was charged the upstream has served.
    let (received, served) = (seen.passed(), upstream.count() as u64);
    assert!(received <= LIMIT && LIMIT <= served, "received {received}, served {served}");
    let lost = seen.cut.load(Ordering::Relaxed);
    assert!(
        LIMIT - received <= lost,
        "{} charged and not received, but only {lost} cut off",
        LIMIT - received
    );
    for node in &nodes {
        let shown = node.admin("GET", &format!("/v1/tokens/{}", token.id), None).await.json();
        assert_eq!(shown["usage"]["core"]["stranded"], 0, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_2_nothing_lost_when_the_store_freezes_dies_and_comes_back() {
    let upstream = Upstream::start().await;
    let mut redis = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let mut node = plan(&upstream, &redis, "").start().await;
    let token = node.token(json!({})).await;
    let crowd = Crowd::gather(vec![node.address], &token, 8);
    wait_for("the crowd to be served", || async { crowd.seen.passed() > 2000 }).await;
    redis.freeze();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(10) {
        // An unknown token is not refused as unknown while nobody can tell.
        let answer =
            node.ask(Ask::get(&format!("{DATA}?token=pk_{:032x}", frozen.elapsed().as_nanos()))).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
        assert!(answer.header("retry-after").is_some());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    redis.thaw();
    redis.stop();
    tokio::time::sleep(Duration::from_millis(300)).await;
    redis.restart();
    let before = crowd.seen.passed();
    wait_for("the crowd to be served again", || async { crowd.seen.passed() > before + 2000 }).await;
    let seen = crowd.disperse().await;
    assert_eq!(seen.other.lock().as_slice(), [], "only 200 or 503");
    assert_eq!(seen.exhausted.load(Ordering::Relaxed), 0);
    wait_for("the books to be even", || async { node.used(&token).await == seen.passed() }).await;
    assert_eq!(upstream.count() as u64, seen.passed());
    node.stop();
    node.start_again().await;
    assert_eq!(node.used(&token).await, seen.passed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_3_never_early_credits_in_other_hands_are_recalled() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = fleet(&upstream, &redis, 3).await;
    // With few credits each node takes some into its hands; every single one can be used at any node.
    for limit in [1, 2, 3, 5, 10, 30] {
        let token = nodes[0].token(limited(limit)).await;
        for request in 0..limit {
            let node = &nodes[usize::try_from(request % 3).unwrap()];
            let answer = node.ask(Ask::get(&token.on(DATA))).await;
            assert_eq!(answer.status, 200, "request {request} of {limit}: {}", answer.text());
        }
        for node in &nodes {
            assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 402);
        }
        nodes[0].wait_used(&token, limit).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_4_free_of_round_trips() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut node = plan(&upstream, &redis, ", timeout: 10s").start().await;
    let token = node.token(limited(100_000_000)).await;
    let crowd = Crowd::gather(vec![node.address], &token, 16);
    wait_for("the crowd to be served", || async { crowd.seen.passed() > 3000 }).await;
    let (before, passed, begun) = (redis.reads(), crowd.seen.passed(), Instant::now());
    wait_for("a steady state", || async { crowd.seen.passed() > passed + 12_000 }).await;
    let trips = redis.reads() - before;
    let passed = crowd.seen.passed() - passed;
    let seconds = begun.elapsed().as_secs();
    crowd.disperse().await;
    // A round trip for each request would be 12,000; the law is about 1,000 requests/s and more, so a machine that is
    // slower than that is given the trips that go by time.
    let allowed = passed / 200 + if passed / (seconds + 1) < 1000 { seconds * 10 } else { 0 };
    assert!(trips <= allowed, "{trips} round trips for {passed} requests in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_5_prompt_an_edit_with_its_receipt_is_in_force_on_every_node() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = fleet(&upstream, &redis, 3).await;
    let token = nodes[0].token(json!({})).await;
    wait_for("three nodes to live", || async {
        nodes[0].admin("GET", "/v1/nodes", None).await.json()["nodes"]
            .as_array()
            .is_some_and(|all| all.len() == 3)
    })
    .await;
    for round in 0..10 {
        let access = round % 2 == 1;
        let target = format!("/v1/tokens/{}?wait=5s", token.id);
        let answer = nodes[round % 3].admin("PATCH", &target, Some(json!({"core_access": access}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let receipt = answer.json()["receipt"].clone();
        assert_eq!((&receipt["in_force"], &receipt["nodes"]), (&json!(true), &json!(3)), "{receipt}");
        for node in &nodes {
            let status = node.ask(Ask::get(&token.on(DATA))).await.status;
            assert_eq!(status, if access { 200 } else { 403 }, "round {round}");
        }
    }
    // Without waiting for the receipt it takes a moment, and no more.
    nodes[1].edit(&token, json!({"status": "disabled"})).await;
    for node in &nodes {
        wait_for("the edit to be in force", || async {
            node.ask(Ask::get(&token.on(DATA))).await.status == 403
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_5_a_node_that_fell_silent_is_named_and_not_waited_for() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = fleet(&upstream, &redis, 2).await;
    let token = nodes[0].token(json!({})).await;
    let target = format!("/v1/tokens/{}?wait=1s", token.id);
    let round = AtomicU64::new(0);
    let edit = async |node: &Gate| -> Value {
        let nickname = format!("round {}", round.fetch_add(1, Ordering::Relaxed));
        let answer = node.admin("PATCH", &target, Some(json!({ "nickname": nickname }))).await;
        answer.json()["receipt"].clone()
    };
    let mut gone = nodes.pop().expect("two nodes");
    let node = nodes.pop().expect("two nodes");
    wait_long("the receipt", async || edit(&node).await["nodes"] == 2).await;
    gone.kill();
    // It may have been cut off and serve by what it knows, for all that the store can tell.
    wait_long("the receipt", async || edit(&node).await["missing"][0]["silent"] == true).await;
    let asked = Instant::now();
    let receipt = edit(&node).await;
    assert_eq!((&receipt["in_force"], &receipt["nodes"]), (&json!(false), &json!(2)), "{receipt}");
    assert!(asked.elapsed() < Duration::from_secs(1), "it was waited for");
    gone.start_again().await;
    wait_long("the receipt", async || edit(&node).await["in_force"] == true).await;
    // One that was stopped in order has said farewell.
    gone.stop();
    let receipt = edit(&node).await;
    assert_eq!((&receipt["in_force"], &receipt["nodes"]), (&json!(true), &json!(1)), "{receipt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_5_an_edit_during_a_lost_connection_is_in_force_when_it_is_back() {
    let upstream = Upstream::start().await;
    let mut redis = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let mut nodes = fleet(&upstream, &redis, 2).await;
    let token = nodes[0].token(json!({})).await;
    for node in &nodes {
        assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 200);
    }
    redis.stop();
    redis.restart();
    wait_for("the edit to be taken", || async {
        let target = format!("/v1/tokens/{}", token.id);
        nodes[0].admin("PATCH", &target, Some(json!({"core_access": false}))).await.status == 200
    })
    .await;
    for node in &nodes {
        wait_for("the edit to be in force", || async {
            node.ask(Ask::get(&token.on(DATA))).await.status == 403
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_6_a_start_while_the_store_is_down_serves_what_it_may_and_says_so() {
    let upstream = Upstream::start().await;
    let mut redis = RedisServer::start_with(Options { durable: true, ..Options::default() });
    let mut node = plan(&upstream, &redis, "").start().await;
    let token = node.token(json!({"core_access": false})).await;
    assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 403);
    node.stop();
    redis.stop();
    node.start_again_unready().await;
    // What is known of the token is enough to refuse it; what is not known is told as an outage.
    let known = node.ask(Ask::get(&token.on(DATA))).await;
    assert_eq!((known.status, known.code().as_str()), (403, "core_denied"));
    let unknown = node.ask(Ask::get(&format!("{DATA}?token=pk_00000000000000000000000000000000"))).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (503, "store_unavailable"));
    assert_eq!(Ask::get("/readyz").send(node.admin).await.status, 503);
    assert_eq!(Ask::get("/healthz").send(node.admin).await.status, 200);
    redis.restart();
    wait_for("the node to be ready", || async { Ask::get("/readyz").send(node.admin).await.status == 200 })
        .await;
    node.edit(&token, json!({"core_access": true})).await;
    wait_for("the edit to be in force", || async { node.ask(Ask::get(&token.on(DATA))).await.status == 200 })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_6_credits_in_hand_serve_a_known_token_also_after_a_pause() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut node = plan(&upstream, &redis, "").start().await;
    let token = node.token(limited(1_000_000)).await;
    let crowd = Crowd::gather(vec![node.address], &token, 8);
    wait_for("the crowd to be served", || async { crowd.seen.passed() > 2000 }).await;
    let passed = crowd.disperse().await.passed();
    redis.freeze();
    // Long enough that an idle purse would have been given back.
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(4) {
        let unknown = format!("{DATA}?token=pk_{:032x}", frozen.elapsed().as_nanos());
        assert_eq!(node.ask(Ask::get(&unknown)).await.status, 503);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let served = node.ask(Ask::get(&token.on(DATA))).await;
    assert_eq!(served.status, 200, "{}\n{}\n{}", served.text(), node.metrics().await, node.events());
    redis.thaw();
    node.wait_used(&token, passed + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_6_after_the_grace_time_nothing_known_is_trusted() {
    let (upstream, mut redis) = (Upstream::start().await, RedisServer::start());
    let mut node = plan(&upstream, &redis, "").extra("outage: {grace: 1s}").start().await;
    let token = node.token(json!({"core_access": false})).await;
    assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 403);
    redis.stop();
    assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 403);
    wait_for("the grace time to be over", || async {
        node.ask(Ask::get(&token.on(DATA))).await.status == 503
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_made_up_tokens_reaches_the_store_slower_than_it_comes() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    // As if each request came from another address.
    let plan = plan(&upstream, &redis, ", timeout: 10s").extra("brute_force: {failures: 0}");
    let mut node = plan.start().await;
    let token = node.token(json!({})).await;
    assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 200);
    let commands = redis.commands();
    let address = node.address;
    let flood = (0..4_u64).map(|client| {
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            for number in 0..500_u64 {
                // Each client tries the same few made-up tokens again and again, and some new ones.
                let made_up = if number % 2 == 0 { number % 10 } else { client * 1000 + number };
                let ask = Ask::get(&format!("{DATA}?token=pk_{made_up:032x}"));
                let answer = connection.send(&ask).await.expect("an answer");
                assert!(answer.status == 403 || answer.status == 503, "{}", answer.text());
            }
        })
    });
    for task in flood.collect::<Vec<_>>() {
        task.await.expect("a client");
    }
    let commands = redis.commands() - commands;
    assert!(commands < 2 * 1300, "{commands} commands for 2000 requests");
    assert_eq!(node.ask(Ask::get(&token.on(DATA))).await.status, 200);
}

#[tokio::test]
async fn two_nodes_never_share_a_state_directory() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let node = plan(&upstream, &redis, "").start().await;
    let config = node.path("proxy.yaml");
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--config"])
        .arg(config)
        .env("TOLLGATE_TEST_KEY", KEY)
        .env("TOLLGATE_SECRET_TOKEN", SECRET)
        .output()
        .expect("tollgate");
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("in use"), "{told}");
}
