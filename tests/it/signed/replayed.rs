//! A signature is good once: on one node, in a fleet, at once, after a crash, and while the store is away.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::signer::Signer;
use super::{QUOTE, SECRET, assert_refused, embedded, on, plan, signed_token};
use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Token};
use crate::harness::redis_server::{Options, RedisServer};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

async fn fleet(upstream: &Upstream, redis: &RedisServer) -> Vec<Gate> {
    vec![on(redis, upstream).start().await, on(redis, upstream).start().await]
}

#[tokio::test]
async fn a_captured_request_is_refused_on_every_node() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = fleet(&upstream, &redis).await;
    let grants = json!({"datasets": [{"dataset": "MY/*", "operations": ["write"]}]});
    let token = signed_token(&mut nodes[0], grants).await;
    let get = Signer::get(&token.on(QUOTE), &token.value, SECRET);
    let post = Signer::post(&token.on("/v1/data/MY/CARS"), &token.value, SECRET, b"[1]");
    for (n, captured) in [get, post].into_iter().enumerate() {
        let first = nodes[0].ask(captured.ask()).await;
        assert_eq!(first.status, 200, "{}", first.text());
        let with_port = Ask::new(&captured.method, &captured.target)
            .header("Host", "cloud.iexapis.com:443")
            .header("x-iex-date", &captured.date)
            .header("Authorization", &captured.authorization())
            .body(captured.body.clone());
        for node in [&nodes[1], &nodes[0], &nodes[1]] {
            assert_refused(&node.ask(captured.ask()).await, 403, "signature_replayed", "again");
            let answer = node.ask(with_port.clone()).await;
            assert_refused(&answer, 403, "signature_replayed", "the same with a port in Host");
        }
        assert_eq!(upstream.count(), n + 1);
    }
    nodes[0].wait_used(&token, 2).await;
}

#[tokio::test]
async fn a_repeated_signature_is_refused_before_throttle_and_credits() {
    let (upstream, mut gate) = embedded().await;
    let fields = json!({
        "credit_limit": {"core": {"credits": 1, "period": "none"}},
        "rate_limit": {"requests_per_second": 1, "burst": 3},
    });
    let token = signed_token(&mut gate, fields).await;
    let request = |n: u32| Signer::get(&token.on(&format!("{QUOTE}?n={n}")), &token.value, SECRET).ask();
    assert_eq!(gate.ask(request(1)).await.status, 200);
    for _ in 0..10 {
        assert_refused(&gate.ask(request(1)).await, 403, "signature_replayed", "again");
    }
    assert_refused(
        &gate.ask(request(2)).await,
        402,
        "credits_exhausted",
        "the throttle has not counted those",
    );
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn of_many_at_once_exactly_one_passes() {
    let redis = RedisServer::start();
    for on_redis in [false, true] {
        let upstream = Upstream::start().await;
        let mut nodes =
            if on_redis { fleet(&upstream, &redis).await } else { vec![plan(&upstream).start().await] };
        let token = signed_token(&mut nodes[0], json!({})).await;
        let nodes = Arc::new(nodes);
        for round in 0..5 {
            let target = token.on(&format!("{QUOTE}?round={round}"));
            let request = Signer::get(&target, &token.value, SECRET).ask();
            let mut asked = Vec::new();
            for n in 0..24 {
                let (nodes, request) = (nodes.clone(), request.clone());
                asked.push(tokio::spawn(async move { nodes[n % nodes.len()].ask(request).await }));
            }
            let mut passed = 0;
            for answer in asked {
                let answer = answer.await.unwrap();
                if answer.status == 200 {
                    passed += 1;
                } else {
                    assert_refused(&answer, 403, "signature_replayed", "one of many");
                }
            }
            assert_eq!((passed, upstream.count()), (1, round + 1));
        }
        nodes[0].wait_used(&token, 5).await;
    }
}

#[tokio::test]
async fn a_token_may_be_told_to_let_repetitions_through() {
    let (upstream, mut gate) = embedded().await;
    let token = signed_token(&mut gate, json!({"replay_protection": false})).await;
    let request = Signer::get(&token.on(QUOTE), &token.value, SECRET);
    for _ in 0..3 {
        assert_eq!(gate.ask(request.ask()).await.status, 200);
    }
    let wrong = Signer { secret: "sk_00000000000000000000000000000000".to_owned(), ..request.clone() };
    assert_refused(&gate.ask(wrong.ask()).await, 403, "signature_invalid", "it is checked all the same");
    // From now on it counts; what was not remembered is good once more.
    gate.edit(&token, json!({"replay_protection": true})).await;
    assert_eq!(gate.ask(request.ask()).await.status, 200);
    assert_refused(&gate.ask(request.ask()).await, 403, "signature_replayed", "protected again");
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn a_node_that_was_killed_remembers_the_signatures_it_let_through() {
    let (upstream, mut gate) = embedded().await;
    let token = signed_token(&mut gate, json!({})).await;
    let requests: Vec<Ask> = (0..20)
        .map(|n| Signer::get(&token.on(&format!("{QUOTE}?n={n}")), &token.value, SECRET).ask())
        .collect();
    for request in &requests {
        assert_eq!(gate.ask(request.clone()).await.status, 200);
    }
    gate.kill();
    gate.start_again().await;
    for request in &requests {
        assert_refused(&gate.ask(request.clone()).await, 403, "signature_replayed", "after the crash");
    }
    let fresh = Signer::get(&token.on(&format!("{QUOTE}?n=new")), &token.value, SECRET).ask();
    assert_eq!(gate.ask(fresh).await.status, 200);
    assert_eq!(upstream.count(), 21);
}

#[tokio::test]
async fn while_the_store_is_away_a_signed_request_is_503_and_an_unsigned_one_goes_on() {
    let upstream = Upstream::start().await;
    let mut redis = RedisServer::start_with(Options { durable: true, ..Options::default() });
    // The outage is to be noticed soon, so this gate waits for its store no longer than gates do.
    let store = format!("url: \"{}\"", redis.url());
    let mut gate = on(&redis, &upstream).store(&store).start().await;
    let signed = signed_token(&mut gate, json!({})).await;
    let unsigned = gate.token(json!({})).await;
    let mut number = 0;
    let mut next = || {
        number += 1;
        Signer::get(&signed.on(&format!("{QUOTE}?n={number}")), &signed.value, SECRET)
    };
    let used = next();
    wait_for("a first signed request", || async { gate.ask(used.ask()).await.status != 503 }).await;
    // So many that it has some leased, whatever comes.
    for _ in 0..50 {
        assert_eq!(gate.ask(Ask::get(&unsigned.on(QUOTE))).await.status, 200);
    }
    redis.stop();
    let before = upstream.count();
    for _ in 0..5 {
        let answer = gate.ask(next().ask()).await;
        assert_refused(&answer, 503, "store_unavailable", "it could be a repetition");
        assert!(answer.header("retry-after").is_some());
    }
    let wrong = Signer { secret: "sk_00000000000000000000000000000000".to_owned(), ..next() };
    assert_refused(
        &gate.ask(wrong.ask()).await,
        403,
        "signature_invalid",
        "known secrets are good meanwhile",
    );
    assert_eq!(upstream.count(), before, "the upstream saw a signed request");
    assert_eq!(gate.ask(Ask::get(&unsigned.on(QUOTE))).await.status, 200, "needs no store");
    redis.restart();
    let again = next();
    wait_for("the store to be back", || async {
        let answer = gate.ask(again.ask()).await;
        answer.status != 503
    })
    .await;
    assert_refused(&gate.ask(again.ask()).await, 403, "signature_replayed", "it has passed by now");
    assert_refused(&gate.ask(used.ask()).await, 403, "signature_replayed", "used before the outage");
}

#[tokio::test]
async fn signed_requests_that_come_together_share_their_way_to_the_store() {
    const EACH: usize = 40;
    const TOGETHER: usize = 32;
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut gate = on(&redis, &upstream).start().await;
    let token = signed_token(&mut gate, json!({})).await;
    let request = move |token: &Token, n: usize| {
        Signer::get(&token.on(&format!("{QUOTE}?n={n}")), &token.value, SECRET).ask()
    };
    // Secrets, policy and credits are known after some.
    for n in 0..100 {
        assert_eq!(gate.ask(request(&token, n)).await.status, 200);
    }
    let (before, begun) = (redis.reads(), Instant::now());
    let mut clients = Vec::new();
    for client in 0..TOGETHER {
        let (token, address) = (token.clone(), gate.address);
        clients.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            for n in 0..EACH {
                let n = 1000 * (client + 1) + n;
                assert_eq!(connection.send(&request(&token, n)).await.unwrap().status, 200);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let (trips, requests) = (redis.reads() - before, (EACH * TOGETHER) as u64);
    // What a node says to its store of itself and of its leases, by the second, comes on top.
    let other = 30 * (begun.elapsed().as_secs() + 1);
    assert!(trips < requests / 2 + other, "{trips} round trips for {requests} requests");
}
