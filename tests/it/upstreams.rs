//! Whose turn it is, and which servers are asked at all.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const PATH: &str = "/v1/data/CORE/QUOTE/AAPL";

pub(crate) async fn several<const N: usize>() -> [Upstream; N] {
    let mut all = Vec::new();
    for _ in 0..N {
        all.push(Upstream::start().await);
    }
    all.try_into().unwrap_or_else(|_| panic!("{N} upstreams"))
}

pub(crate) fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(Upstream::address).collect()
}

async fn ok(gate: &Gate, token: &Token, times: usize) {
    for _ in 0..times {
        let answer = gate.ask(Ask::get(&token.on(PATH))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// The value of a server's metric.
async fn metric(gate: &Gate, name: &str, upstream: &Upstream) -> u64 {
    gate.metric(&format!(
        "tollgate_upstream_{name}{{server=\"{}\",upstream=\"datasets\"}}",
        upstream.address()
    ))
    .await
}

async fn wait_metric(gate: &Gate, name: &str, upstream: &Upstream, expected: u64) {
    let what = format!("{name} of {} to be {expected}", upstream.address());
    wait_for(&what, || async move { metric(gate, name, upstream).await == expected }).await;
}

/// Begins a request that is not answered.
async fn hang(gate: &Gate, token: &Token) -> Connection {
    let mut connection = Connection::open(gate.address).await;
    let text = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: hang\r\n\r\n", token.on(PATH));
    connection.write(text.as_bytes()).await.expect("sent");
    connection
}

#[tokio::test]
async fn servers_get_their_shares_exactly() {
    let [heavy, light] = several::<2>().await;
    let servers = format!(
        "{{address: \"{}\", weight: 3}}, {{address: \"{}\", weight: 1}}",
        heavy.address(),
        light.address()
    );
    let mut gate = Plan::new(&heavy).servers_as(&servers).start().await;
    let token = gate.token(json!({})).await;
    ok(&gate, &token, 40).await;
    assert_eq!((heavy.count(), light.count()), (30, 10));
}

#[tokio::test]
async fn a_key_stays_with_its_server() {
    let all = several::<3>().await;
    let plan = Plan::new(&all[0]).servers(&addresses(&all));
    let mut gate = plan.upstream_extra("balance: hash, hash_by: query:user").start().await;
    let token = gate.token(json!({})).await;
    let mut homes = Vec::new();
    for round in 0..2 {
        for user in 0..15 {
            let before: Vec<usize> = all.iter().map(Upstream::count).collect();
            let path = format!("{PATH}?round={round}&user={user}");
            assert_eq!(gate.ask(Ask::get(&token.on(&path))).await.status, 200);
            let home = (0..3).find(|at| all[*at].count() > before[*at]).expect("one was asked");
            if round == 0 { homes.push(home) } else { assert_eq!(homes[user], home, "{user}") }
        }
    }
    homes.sort_unstable();
    homes.dedup();
    assert!(homes.len() > 1, "one server has all keys");
}

#[tokio::test]
async fn the_emptiest_is_asked_and_nothing_is_forgotten() {
    let [one, two] = several::<2>().await;
    let plan = Plan::new(&one).servers(&[one.address(), two.address()]);
    let mut gate = plan.upstream_extra("balance: least_connections").start().await;
    let token = gate.token(json!({})).await;
    let mut hanging = Vec::new();
    for count in 1..=4 {
        hanging.push(hang(&gate, &token).await);
        wait_for("it to arrive", || async { one.count() + two.count() == count }).await;
    }
    assert_eq!((one.count(), two.count()), (2, 2));
    for upstream in [&one, &two] {
        assert_eq!(metric(&gate, "requests_in_flight", upstream).await, 2);
    }
    // A server that breaks off, a client that leaves, an answer in order: each gives its place back.
    let answer = gate.ask(Ask::get(&token.on(PATH)).header("X-Test", "cut")).await;
    assert_eq!(answer.status, 502);
    ok(&gate, &token, 3).await;
    drop(hanging);
    for upstream in [&one, &two] {
        wait_metric(&gate, "requests_in_flight", upstream, 0).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_well_is_out_until_it_is() {
    let [one, two] = several::<2>().await;
    let health = "health: {path: /health, interval: 20ms, timeout: 5s, unhealthy_after: 2, healthy_after: 2}";
    let plan = Plan::new(&one).servers(&[one.address(), two.address()]).upstream_extra(health);
    let mut gate = plan.start().await;
    let token = gate.token(json!({})).await;
    ok(&gate, &token, 10).await;
    assert_eq!((one.asked(), two.asked()), (5, 5));

    one.behave(Some("status=500"));
    wait_metric(&gate, "server_up", &one, 0).await;
    let before = one.asked();
    ok(&gate, &token, 10).await;
    assert_eq!((one.asked(), two.asked()), (before, 15));

    // None is well: all are asked all the same. The recording upstream answers requests as it answers checks.
    two.behave(Some("status=500"));
    wait_metric(&gate, "server_up", &two, 0).await;
    let answers = [gate.ask(Ask::get(&token.on(PATH))).await, gate.ask(Ask::get(&token.on(PATH))).await];
    assert_eq!(answers.map(|answer| answer.status), [500, 500]);
    assert_eq!((one.asked(), two.asked()), (before + 1, 16));

    one.behave(None);
    wait_metric(&gate, "server_up", &one, 1).await;
    ok(&gate, &token, 4).await;
    assert_eq!((one.asked(), two.asked()), (before + 5, 16));
    let events = gate.events();
    for told in
        ["a server is not well", "it answered with 500", "no server is well", "a server is well again"]
    {
        assert!(events.contains(told), "{told}: {events}");
    }
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let [one, two] = several::<2>().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = Plan::new(&one).servers(&[one.address(), dead, two.address()]);
    let gate = plan.upstream_extra("health: {interval: 20ms, unhealthy_after: 1}").start().await;
    let name = format!("tollgate_upstream_server_up{{server=\"{dead}\",upstream=\"datasets\"}}");
    wait_for("the dead one to be known", || async { gate.metrics().await.contains(&format!("{name} 0")) })
        .await;
    assert_eq!(metric(&gate, "server_up", &one).await, 1);
    assert_eq!((one.count(), two.count()), (0, 0), "nothing is asked");
}

#[tokio::test]
async fn no_more_than_max_requests_are_under_way_and_what_is_refused_is_not_charged() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).upstream_extra("max_requests: 2").start().await;
    let token = gate.token(json!({})).await;
    let hanging = [hang(&gate, &token).await, hang(&gate, &token).await];
    wait_for("both to arrive", || async { upstream.count() == 2 }).await;
    let refused = gate.ask(Ask::get(&token.on(PATH))).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "upstream_busy"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(upstream.count(), 2);
    assert_eq!(
        gate.metric("tollgate_upstream_refused_total{reason=\"busy\",upstream=\"datasets\"}").await,
        1
    );
    drop(hanging);
    wait_metric(&gate, "requests_in_flight", &upstream, 0).await;
    ok(&gate, &token, 1).await;
    gate.wait_used(&token, 1).await;
}

#[tokio::test]
async fn a_request_is_bound_in_all_if_it_is_no_stream() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).upstream_extra("request_timeout: 300ms").routes(
        "\n  - {path: \"/v1/**\", upstream: datasets, access: core}\n  - {path: \"/events/**\", upstream: datasets, access: core, per_event: 1}\n",
    );
    let mut gate = plan.start().await;
    let token = gate.token(json!({})).await;
    let late = gate.ask(Ask::get(&token.on(PATH)).header("X-Test", "hang")).await;
    assert_eq!((late.status, late.code().as_str()), (504, "upstream_timeout"));
    // Bytes come all the time, and it ends all the same.
    let mut dripping = Connection::open(gate.address).await;
    let text = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: drip\r\n\r\n", token.on(PATH));
    dripping.write(text.as_bytes()).await.expect("sent");
    assert_eq!(dripping.read_head().await.expect("a head").status, 200);
    let body = dripping.read_to_end().await;
    assert!(body.len() < 300_000, "{} bytes", body.len());
    // A stream goes on.
    let mut stream = Connection::open(gate.address).await;
    let text = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Test: feed=3\r\n\r\n",
        token.on("/events/x")
    );
    stream.write(text.as_bytes()).await.expect("sent");
    assert_eq!(stream.read_head().await.expect("a head").status, 200);
    let mut events = String::new();
    while events.matches("data: ").count() < 3 {
        events += &String::from_utf8_lossy(&stream.read_chunk().await.expect("an event"));
    }
    let more = tokio::time::timeout(Duration::from_millis(700), stream.read_chunk()).await;
    assert!(more.is_err(), "the stream ended");
}
