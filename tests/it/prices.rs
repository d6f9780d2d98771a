//! What requests cost: each form against a figure worked out here, by the body that the upstream was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const ROUTES: &str = r#"
  - {path: "/flat/**", upstream: datasets, access: core, credits: 2, operations: {POST: read}}
  - {path: "/items/**", upstream: datasets, access: core, credits: 3, per_item: {param: symbols}}
  - {path: "/kilobytes/**", upstream: datasets, access: core, credits: 0, per_kilobyte: 2}
  - {path: "/records/**", upstream: datasets, access: core, credits: 1, per_record: 2, operations: {POST: read}}
  - {path: "/bounded/**", upstream: datasets, access: core, credits: 1, per_record: 3, max_credits: 40}
  - {path: "/events/**", upstream: datasets, access: core, credits: 0, per_event: 1, operations: {POST: read}}
  - {path: "/stated/**", upstream: datasets, access: core, credits: 4, from_header: X-Price}
  - {path: "/mixed/**", upstream: datasets, access: core, credits: 1, per_item: {param: symbols}, per_kilobyte: 1, per_record: 1, max_credits: 60}
"#;

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A request, what is wished of the upstream, and what it is to cost.
struct Case {
    path: String,
    wish: String,
    price: u64,
}

/// The bodies of `harness::upstream::bodies`, measured.
fn lines_bytes(count: u64) -> u64 {
    (0..count).map(|at| format!("{{\"at\":{at},\"of\":[1,2]}}\n").len() as u64).sum()
}

fn json_bytes(count: u64) -> u64 {
    lines_bytes(count).saturating_sub(count) + 2 + 2 * count.saturating_sub(1)
}

fn case(dice: &mut Dice) -> Case {
    let count = dice.roll(30);
    let ends_badly = dice.roll(6) == 0;
    let symbols = 1 + dice.roll(4);
    let list = vec!["A"; usize::try_from(symbols).unwrap()].join(",");
    let (path, wish, price) = match dice.roll(8) {
        0 => ("/flat/x".to_owned(), format!("json={count}"), 2),
        1 => (format!("/items/x?symbols={list}"), format!("json={count}"), 3 * symbols),
        2 => {
            let bytes = count * 400;
            ("/kilobytes/x".to_owned(), format!("object={bytes}"), 2 * bytes.div_ceil(1000))
        }
        3 => ("/records/x".to_owned(), format!("json={count}"), 1 + 2 * count),
        4 => ("/bounded/x".to_owned(), format!("lines={count}"), (1 + 3 * count).min(40)),
        5 => ("/events/x".to_owned(), format!("events={count}"), count),
        6 => ("/stated/x".to_owned(), format!("price={count}"), count),
        _ => {
            let price = symbols + json_bytes(count).div_ceil(1000) + count;
            (format!("/mixed/x?symbols={list}"), format!("json={count}"), price.min(60))
        }
    };
    match (ends_badly, dice.roll(3)) {
        (true, 0) => Case { path, wish: "status=500".to_owned(), price: 0 },
        (true, 1) => Case { path, wish: "status=404".to_owned(), price: 0 },
        (true, _) => Case { path, wish: "cut".to_owned(), price: 0 },
        (false, _) => Case { path, wish, price },
    }
}

async fn mixed_requests_cost_what_the_model_says(gate: &mut Gate, requests: usize) {
    let token = gate.token(limited(1_000_000)).await;
    let mut dice = Dice(20_261_124);
    let cases: Vec<Case> = (0..requests).map(|_| case(&mut dice)).collect();
    let expected: u64 = cases.iter().map(|case| case.price).sum();
    let cases = Arc::new(cases);
    let mut clients = Vec::new();
    for client in 0..8 {
        let (cases, token, address) = (cases.clone(), token.clone(), gate.address);
        clients.push(tokio::spawn(async move {
            for case in cases.iter().skip(client).step_by(8) {
                let ask = Ask::get(&token.on(&case.path)).header("X-Test", &case.wish);
                let answer = ask.send(address).await;
                assert_eq!(answer.header("x-price"), None, "{}", case.path);
                assert_eq!(
                    answer.status < 400,
                    !matches!(case.wish.as_str(), "status=500" | "status=404" | "cut")
                );
            }
        }));
    }
    for client in clients {
        client.await.expect("a client");
    }
    gate.wait_used(&token, expected).await;
    // Each line of the access log says what the model says, too.
    wait_for("the log", || async { gate.access_log().len() >= requests }).await;
    let logged: u64 = gate.access_log().iter().map(|line| line["credits"].as_u64().unwrap()).sum();
    assert_eq!(logged, expected);
    // Killed with charges that wait to be settled: the next start settles them.
    let ask = Ask::get(&token.on("/bounded/x")).header("X-Test", "lines=5");
    assert_eq!(gate.ask(ask).await.status, 200);
    gate.kill();
    gate.start_again().await;
    gate.wait_used(&token, expected + 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_2_mixed_prices_are_charged_to_the_credit_embedded() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    mixed_requests_cost_what_the_model_says(&mut gate, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_2_mixed_prices_are_charged_to_the_credit_redis() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let mut gate = Plan::new(&upstream).store(&store).routes(ROUTES).start().await;
    mixed_requests_cost_what_the_model_says(&mut gate, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_charged_for_what_went_out() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(10_000)).await;
    // The upstream breaks off after seven lines, which were delivered.
    let mut connection = Connection::open(gate.address).await;
    let ask = Ask::get(&token.on("/bounded/x")).header("X-Test", "half=7");
    assert!(connection.send(&ask).await.is_err(), "it does not look complete");
    gate.wait_used(&token, 22).await;
    // The client leaves in the middle of a feed: what it could have read is charged, the rest of the hold is not.
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: feed=9\r\n\r\n", token.on("/events/x"));
    connection.write(line.as_bytes()).await.expect("sent");
    connection.read_head().await.expect("a head");
    let mut read = Vec::new();
    while read.windows(2).filter(|pair| pair == b"\n\n").count() < 9 {
        read.extend(connection.read_chunk().await.expect("a chunk"));
    }
    drop(connection);
    gate.wait_used(&token, 31).await;
    // The gate is killed in the middle of one.
    let mut connection = Connection::open(gate.address).await;
    connection.write(line.as_bytes()).await.expect("sent");
    connection.read_head().await.expect("a head");
    let mut read = Vec::new();
    while read.windows(2).filter(|pair| pair == b"\n\n").count() < 9 {
        read.extend(connection.read_chunk().await.expect("a chunk"));
    }
    gate.kill();
    gate.start_again().await;
    gate.wait_used(&token, 40).await;
}

/// Asks for a long body of which 700,000 bytes come, and reads until `charged` is charged in all.
async fn read_700_kilobytes(gate: &Gate, token: &Token, charged: u64) -> Connection {
    let target = token.on("/kilobytes/x");
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Test: stall=700000\r\n\r\n");
    let mut connection = Connection::open(gate.address).await;
    connection.write(request.as_bytes()).await.expect("sent");
    connection.read_head().await.expect("a head");
    // The last few kilobytes may wait for more in the gate's buffer, so nothing tells when the client has them.
    while gate.metric("tollgate_credits_total{outcome=\"charged\",pool=\"core\"}").await < charged {
        let piece = tokio::time::timeout(Duration::from_millis(10), connection.read_some()).await;
        assert!(!matches!(piece, Ok(Ok(0) | Err(_))), "it ends early");
    }
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_that_stops_midway_is_charged_for_what_went_out_also_through_a_kill() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(5_400)).await;
    // Credits are drawn ahead of the body; a client that leaves has paid for what it could read.
    drop(read_700_kilobytes(&gate, &token, 1_400).await);
    gate.wait_used(&token, 1_400).await;
    // So it is through a kill.
    let connection = read_700_kilobytes(&gate, &token, 2_800).await;
    gate.kill();
    drop(connection);
    gate.start_again().await;
    gate.wait_used(&token, 2_800).await;
    // What was drawn and not spent is there to the last credit.
    let ask = Ask::get(&token.on("/kilobytes/x")).header("X-Test", "object=1300000");
    assert_eq!(gate.ask(ask).await.body.len(), 1_300_000);
    gate.wait_used(&token, 5_400).await;
    assert_eq!(gate.ask(Ask::get(&token.on("/flat/x"))).await.status, 402);
}

#[tokio::test]
async fn a_compressed_answer_that_cannot_be_counted_is_502_and_costs_nothing() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(100)).await;
    let ask = Ask::get(&token.on("/records/x")).header("X-Test", "packed=50");
    let answer = gate.ask(ask.header("Accept-Encoding", "gzip").header("Range", "bytes=0-9")).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_encoded"));
    let seen = upstream.only();
    assert_eq!((seen.header("accept-encoding"), seen.header("range")), (None, None));
    // By the kilobyte it is counted as it is sent.
    let ask = Ask::get(&token.on("/kilobytes/x")).header("X-Test", "packed=1001");
    assert_eq!(gate.ask(ask.header("Accept-Encoding", "gzip")).await.body.len(), 1001);
    assert_eq!(upstream.seen()[1].header("accept-encoding"), Some("gzip"));
    gate.wait_used(&token, 4).await;
}

#[tokio::test]
async fn a_bounded_price_never_exceeds_a_limit_and_an_unbounded_one_by_its_own_cost_at_most() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let ask = |token: &Token, path: &str| Ask::get(&token.on(path)).header("X-Test", "json=10");
    // 31 each; 40 must be free for one.
    let token = gate.token(limited(75)).await;
    assert_eq!(gate.ask(ask(&token, "/bounded/x")).await.status, 200);
    assert_eq!(gate.ask(ask(&token, "/bounded/x")).await.status, 200);
    assert_eq!(gate.ask(ask(&token, "/bounded/x")).await.status, 402);
    gate.wait_used(&token, 62).await;
    // 21 each; three are held, and the rest is drawn when it is known. One after the other, only the last exceeds.
    let token = gate.token(limited(30)).await;
    assert_eq!(gate.ask(ask(&token, "/records/x")).await.status, 200);
    assert_eq!(gate.ask(ask(&token, "/records/x")).await.status, 200);
    for _ in 0..5 {
        assert_eq!(gate.ask(ask(&token, "/records/x")).await.status, 402);
    }
    gate.wait_used(&token, 42).await;
}

#[tokio::test]
async fn a_retry_with_its_key_is_charged_once() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(100)).await;
    let ask = |path: &str, key: &str, wish: &str| {
        Ask::new("POST", &token.on(path)).header("Idempotency-Key", key).header("X-Test", wish)
    };
    // (path, key, wish, status, credits used after it)
    let table = [
        ("/flat/x", "one", "status=503", 503, 0),
        ("/flat/x", "one", "", 200, 2),
        ("/flat/x", "one", "", 200, 2),
        ("/flat/x", "\"one\"", "", 200, 2),
        ("/flat/y", "one", "", 422, 2),
        ("/flat/x", "two", "", 200, 4),
        ("/records/x", "three", "json=3", 200, 11),
        ("/records/x", "three", "json=3", 200, 11),
        ("/flat/x", " ", "", 400, 11),
        // Reading a stream again is a new stream.
        ("/events/x", "four", "events=5", 200, 16),
        ("/events/x", "four", "events=5", 200, 21),
    ];
    for (path, key, wish, status, used) in table {
        let answer = gate.ask(ask(path, key, wish)).await;
        assert_eq!(answer.status, status, "{path} {key}: {}", answer.text());
        gate.wait_used(&token, used).await;
    }
    assert_eq!(upstream.seen()[1].header("idempotency-key"), Some("one"), "the upstream has it, too");
    // Many at once with one key: one is charged.
    let paid = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..12 {
        let (ask, address, paid) = (ask("/flat/x", "five", ""), gate.address, paid.clone());
        clients.push(tokio::spawn(async move {
            assert_eq!(ask.send(address).await.status, 200);
            paid.fetch_add(1, Ordering::Relaxed);
        }));
    }
    for client in clients {
        client.await.expect("a client");
    }
    assert_eq!(paid.load(Ordering::Relaxed), 12);
    gate.wait_used(&token, 23).await;
    tokio::time::timeout(Duration::from_secs(5), gate.wait_used(&token, 23)).await.expect("it stays");
}

#[tokio::test]
async fn explain_shows_the_price_before_it_is_paid() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(100)).await;
    let table = [
        ("/flat/x", "2", 2),
        ("/items/x?symbols=A,B", "3 for each item", 6),
        (
            "/bounded/x",
            "1 + 3 for each record, at most 40; 40 are held, and what is not used is returned",
            40,
        ),
        (
            "/records/x",
            "1 + 2 for each record; 3 are held, and the rest is drawn or returned as the response is counted",
            3,
        ),
    ];
    for (target, price, credits) in table {
        let question = json!({"target": target, "token_id": token.id});
        let told = gate.admin("POST", "/v1/explain", Some(question)).await.json();
        assert_eq!(
            (told["price"].as_str(), told["credits"].as_u64()),
            (Some(price), Some(credits)),
            "{target}"
        );
    }
    assert_eq!((upstream.count(), gate.used(&token).await), (0, 0));
}
