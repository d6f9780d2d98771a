//! Streams end: at their last credit, when their token is revoked, after an edit that would refuse them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;

const ROUTES: &str = r#"
  - {path: "/events/**", upstream: datasets, access: core, credits: 0, per_event: 1}
  - {path: "/lines/**", upstream: datasets, access: core, credits: 0, per_record: 1}
  - {path: "/flat/**", upstream: datasets, access: core, credits: 1}
"#;

/// How long the end of a stream may take to reach a client here; on a loaded machine, so longer than 100 ms.
const SOON: Duration = Duration::from_millis(1500);

/// Begins a stream and reads its head.
async fn begin(gate: &Gate, target: &str, headers: &str, wish: &str) -> Connection {
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Test: {wish}\r\n{headers}\r\n");
    connection.write(line.as_bytes()).await.expect("sent");
    let head = connection.read_head().await.expect("a head");
    assert!(head.status < 300, "{}", head.status);
    connection
}

fn events(text: &[u8]) -> usize {
    String::from_utf8_lossy(text).matches("data: {\"price\"").count()
}

async fn read_events(connection: &mut Connection, count: usize) {
    let mut read = Vec::new();
    while events(&read) < count {
        let chunk = connection.read_chunk().await.expect("a chunk");
        assert!(!chunk.is_empty(), "it ended after {} events", events(&read));
        read.extend(chunk);
    }
    assert_eq!(events(&read), count);
}

/// Reads to the end, which must be one: a chunk of length 0.
async fn read_end(connection: &mut Connection) -> String {
    let mut read = Vec::new();
    loop {
        let chunk = tokio::time::timeout(Duration::from_secs(20), connection.read_chunk()).await;
        let chunk = chunk.expect("the stream ends").expect("in good order");
        if chunk.is_empty() {
            return String::from_utf8(read).expect("text");
        }
        read.extend(chunk);
    }
}

async fn delivers_exactly_100_events(gate: &mut Gate) {
    // (what comes, at once or one by one; as many as are paid for, or more)
    for wish in ["feed=150", "burst=150", "feed=100", "burst=100"] {
        let token = gate.token(limited(100)).await;
        let started = Instant::now();
        let mut connection = begin(gate, &token.on("/events/x"), "", wish).await;
        let text = read_end(&mut connection).await;
        assert_eq!(events(text.as_bytes()), 100, "{wish}");
        let last = text.rsplit("\n\n").nth(1).unwrap();
        assert!(last.starts_with("event: error\ndata: {\"code\":\"credits_exhausted\""), "{wish}: {last}");
        assert!(started.elapsed() < SOON * 2, "{wish}: {:?}", started.elapsed());
        gate.wait_used(&token, 100).await;
        let answer = gate.ask(Ask::get(&token.on("/events/x"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (402, "credits_exhausted"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_100_credits_gets_exactly_100_events_embedded() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    delivers_exactly_100_events(&mut gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_100_credits_gets_exactly_100_events_redis() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let mut gate = Plan::new(&upstream).store(&store).routes(ROUTES).start().await;
    delivers_exactly_100_events(&mut gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_end_with_a_line_that_says_why() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(25)).await;
    let mut connection = begin(&gate, &token.on("/lines/x"), "", "lines=400").await;
    let text = read_end(&mut connection).await;
    assert_eq!(text.matches("{\"at\":").count(), 25);
    assert!(text.lines().last().unwrap().starts_with("{\"error\":{\"code\":\"credits_exhausted\""), "{text}");
    gate.wait_used(&token, 25).await;
}

async fn sixteen_streams_on_one_limit(nodes: &[&Gate], token: &Token) {
    let mut clients = Vec::new();
    for at in 0..16 {
        let (gate, target) = (nodes[at % nodes.len()], token.on("/events/x"));
        let address = gate.address;
        clients.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            let line = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Test: feed=2000\r\n\r\n");
            connection.write(line.as_bytes()).await.expect("sent");
            let head = connection.read_head().await.expect("a head");
            match head.status {
                200 => events(read_end(&mut connection).await.as_bytes()),
                402 => 0,
                status => panic!("{status}"),
            }
        }));
    }
    let mut delivered = 0;
    for client in clients {
        delivered += client.await.expect("a client");
    }
    assert_eq!(delivered, 1000);
    for node in nodes {
        node.wait_used(token, 1000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_1_never_over_with_16_streams_on_one_limit_embedded() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let token = gate.token(limited(1000)).await;
    sixteen_streams_on_one_limit(&[&gate], &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_1_never_over_with_16_streams_on_two_nodes() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let secret = "sk_5ec2e7000000000000000000000005e8";
    let plan = || Plan::new(&upstream).store(&store).routes(ROUTES).secret(secret);
    let (mut first, second) = (plan().start().await, plan().start().await);
    let token = first.token(limited(1000)).await;
    sixteen_streams_on_one_limit(&[&first, &second], &token).await;
}

/// An idle stream ends soon after this edit of its token, with this code.
async fn ends_by(gate: &mut Gate, path: &str, edit: serde_json::Value, code: &str) {
    let token = gate.token(limited(1000)).await;
    let accept = "Accept: text/event-stream\r\n";
    let mut connection = begin(gate, &token.on(path), accept, "feed=3").await;
    read_events(&mut connection, 3).await;
    let started = Instant::now();
    if edit.is_null() {
        let answer = gate.admin("DELETE", &format!("/v1/tokens/{}", token.id), None).await;
        assert!(answer.status < 300, "{}", answer.text());
    } else {
        gate.edit(&token, edit).await;
    }
    let text = read_end(&mut connection).await;
    assert!(started.elapsed() < SOON, "{path} {code}: {:?}", started.elapsed());
    assert!(text.starts_with(&format!("event: error\ndata: {{\"code\":\"{code}\"")), "{path}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_ends_when_its_token_may_no_longer_read_it() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    for path in ["/events/x", "/flat/x"] {
        ends_by(&mut gate, path, json!(null), "token_revoked").await;
        ends_by(&mut gate, path, json!({"status": "disabled"}), "token_disabled").await;
        ends_by(&mut gate, path, json!({"core_access": false}), "core_denied").await;
        ends_by(&mut gate, path, json!({"allowed_domains": ["www.example.com"]}), "domain_denied").await;
    }
    ends_by(&mut gate, "/events/x", limited(3), "credits_exhausted").await;
    // Edits that would not refuse it leave it alone.
    let token = gate.token(limited(1000)).await;
    let mut connection = begin(&gate, &token.on("/events/x"), "", "feed=3").await;
    read_events(&mut connection, 3).await;
    gate.edit(&token, json!({"nickname": "other"})).await;
    gate.edit(&token, limited(50)).await;
    let more = tokio::time::timeout(Duration::from_millis(300), connection.read_chunk()).await;
    assert!(more.is_err(), "it goes on: {more:?}");
    drop(connection);
    gate.wait_used(&token, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_ends_with_a_close_frame() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).routes(ROUTES).start().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    // At its last credit.
    let token = gate.token(limited(7)).await;
    let mut connection = begin(&gate, &token.on("/events/x"), upgrade, "frames=20").await;
    let text = connection.read_to_end().await;
    assert!(text.len() > 53, "{text:?}");
    assert_eq!(&text[..49], b"\x81\x05hello".repeat(7));
    assert_eq!((text[49], &text[51..53]), (0x88, &1008_u16.to_be_bytes()[..]), "{text:?}");
    assert!(text[53..].starts_with(b"credits_exhausted"));
    gate.wait_used(&token, 7).await;
    // When the token is revoked.
    let token = gate.token(limited(7)).await;
    let mut connection = begin(&gate, &token.on("/events/x"), upgrade, "frames=2").await;
    let mut read = 0;
    while read < 14 {
        let some = connection.read_some().await.expect("frames");
        assert!(some > 0, "closed after {read} bytes: {:?} {}", gate.access_log(), gate.events());
        read += some;
    }
    let answer = gate.admin("DELETE", &format!("/v1/tokens/{}", token.id), None).await;
    assert!(answer.status < 300, "{}", answer.text());
    let text = connection.read_to_end().await;
    assert!(text.len() > 4, "{text:?}");
    assert_eq!((text[0], &text[2..4]), (0x88, &1008_u16.to_be_bytes()[..]), "{text:?}");
    assert!(text[4..].starts_with(b"token_revoked"));
}
