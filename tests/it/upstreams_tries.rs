//! Servers that fail: what is tried again, what never is, and who is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::upstreams::{addresses, several};

const ROUTES: &str =
    "\n  - {path: \"/x/**\", upstream: datasets, access: core, operations: {POST: read, PUT: read}}\n";

async fn gate_of(upstreams: &[Upstream], keys: &str) -> Gate {
    let plan = Plan::new(&upstreams[0]).servers(&addresses(upstreams)).routes(ROUTES);
    plan.upstream_extra(keys).start().await
}

async fn statuses(gate: &Gate, token: &Token, method: &str, times: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for at in 0..times {
        let mut ask = Ask::new(method, &token.on(&format!("/x/{at}")));
        if method != "GET" {
            ask = ask.body("{\"record\":1}");
        }
        statuses.push(gate.ask(ask).await.status);
    }
    statuses
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|found| **found == status).count()
}

async fn retries(gate: &Gate, reason: &str) -> u64 {
    gate.metric(&format!("tollgate_upstream_retries_total{{reason=\"{reason}\",upstream=\"datasets\"}}"))
        .await
}

const EAGER: &str = "retries: {attempts: 5, on: [connect, reset, 500, 502, 503, 504], methods: [GET, HEAD, PUT, DELETE], budget: 100}";

#[tokio::test]
async fn a_write_that_a_server_may_have_seen_is_never_sent_again() {
    let all = several::<3>().await;
    let mut gate = gate_of(&all, EAGER).await;
    let token = gate.token(json!({})).await;
    // One breaks off once it has read the request, one says 503, one is well.
    all[0].behave(Some("cut"));
    all[1].behave(Some("status=503"));
    let told = statuses(&gate, &token, "POST", 60).await;
    let seen: Vec<usize> = all.iter().map(Upstream::count).collect();
    assert_eq!(seen.iter().sum::<usize>(), 60, "each was sent once: {seen:?}");
    assert_eq!([count(&told, 502), count(&told, 503), count(&told, 200)], [seen[0], seen[1], seen[2]]);
    assert!(seen.iter().all(|seen| *seen >= 10), "{seen:?}");
    let mut targets: Vec<String> = all.iter().flat_map(Upstream::seen).map(|seen| seen.target).collect();
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len(), 60);
    gate.wait_used(&token, seen[2] as u64).await;
    assert_eq!(
        retries(&gate, "reset").await + retries(&gate, "status").await + retries(&gate, "reuse").await,
        0
    );
}

#[tokio::test]
async fn a_write_whose_body_was_on_its_way_is_never_sent_again() {
    let well = Upstream::start().await;
    // The server goes while the client still sends: its connection ends in the middle of the body.
    let killed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = killed.local_addr().expect("an address");
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = killed.accept().await {
            let mut some = vec![0; 200];
            if stream.read(&mut some).await.is_ok_and(|read| read > 0) {
                counted.fetch_add(1, Ordering::AcqRel);
            }
        }
    });
    let plan = Plan::new(&well).servers(&[address, well.address()]).routes(ROUTES).upstream_extra(EAGER);
    let mut gate = plan.start().await;
    let writer = gate.token(json!({})).await;
    let mut answered = Vec::new();
    for at in 0..20 {
        let mut connection = Connection::open(gate.address).await;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
            writer.on(&format!("/x/{at}"))
        );
        connection.write(head.as_bytes()).await.expect("sent");
        for _ in 0..10 {
            // The gate may have answered and closed already.
            let _ = connection.write(&[b'x'; 10_000]).await;
        }
        answered.push(connection.read(false).await.map_or(0, |answer| answer.status));
    }
    let (begun, whole) = (begun.load(Ordering::Acquire), well.count());
    assert_eq!(begun + whole, 20, "each was begun once: {answered:?}");
    assert_eq!((count(&answered, 200), begun > 0), (whole, true));
    gate.wait_used(&writer, whole as u64).await;
}

#[tokio::test]
async fn a_request_for_a_server_that_is_not_there_goes_to_another_whatever_its_method() {
    let upstream = Upstream::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for keys in ["retries: {attempts: 2, budget: 0}", "keep_alive: 128"] {
        let plan =
            Plan::new(&upstream).servers(&[dead, upstream.address()]).routes(ROUTES).upstream_extra(keys);
        let mut gate = plan.start().await;
        let token = gate.token(json!({})).await;
        let before = upstream.count();
        assert_eq!(count(&statuses(&gate, &token, "POST", 10).await, 200), 10);
        assert_eq!(upstream.count() - before, 10);
        gate.wait_used(&token, 10).await;
        assert!(retries(&gate, "connect").await >= 5);
    }
}

#[tokio::test]
async fn a_read_is_tried_again_and_charged_once() {
    let all = several::<2>().await;
    let mut gate =
        gate_of(&all, "retries: {on: [connect, reset, 503], methods: [GET, PUT], budget: 100}").await;
    let token = gate.token(json!({})).await;
    let mut used = 0;
    for (mood, reason) in [("cut", "reset"), ("status=503", "status")] {
        all[0].behave(Some(mood));
        for method in ["GET", "PUT"] {
            let before = [all[0].count(), all[1].count()];
            let retried = retries(&gate, reason).await;
            assert_eq!(count(&statuses(&gate, &token, method, 20).await, 200), 20, "{mood} {method}");
            let failed = all[0].count() - before[0];
            assert!(failed >= 5, "{mood} {method}: {failed}");
            assert_eq!(all[1].count() - before[1], 20);
            // An idle connection that was closed in time is tried again for free.
            assert!(retries(&gate, reason).await - retried <= failed as u64);
            used += 20;
            gate.wait_used(&token, used).await;
        }
    }
    assert!(all[1].seen().iter().filter(|seen| seen.method == "PUT").all(|seen| seen.body_length == 12));
    // Where all fail the last answer is the client's, and costs nothing.
    all[1].behave(Some("status=503"));
    assert_eq!(statuses(&gate, &token, "GET", 1).await, [503]);
    gate.wait_used(&token, used).await;
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    let all = several::<2>().await;
    let mut gate = gate_of(&all, "retries: {attempts: 10, on: [503], budget: 20}").await;
    let token = gate.token(json!({})).await;
    for upstream in &all {
        upstream.behave(Some("status=503"));
    }
    assert_eq!(count(&statuses(&gate, &token, "GET", 100).await, 503), 100);
    let seen: usize = all.iter().map(Upstream::count).sum();
    // Ten are in hand at first, and a fifth of a hundred.
    assert_eq!(seen, 130);
    assert_eq!(retries(&gate, "status").await, 30);
}

#[tokio::test]
async fn without_retries_nothing_is_repeated_that_a_server_may_have_seen() {
    let all = several::<2>().await;
    let mut gate = gate_of(&all, "keep_alive: 128").await;
    let token = gate.token(json!({})).await;
    all[0].behave(Some("cut"));
    all[1].behave(Some("status=503"));
    let told = statuses(&gate, &token, "GET", 10).await;
    assert_eq!((count(&told, 502), count(&told, 503)), (5, 5), "{told:?}");
    assert_eq!((all[0].count(), all[1].count()), (5, 5));
}

async fn circuit_is(gate: &Gate, upstream: &Upstream, open: u64) {
    let name = format!(
        "tollgate_upstream_circuit_open{{server=\"{}\",upstream=\"datasets\"}} {open}",
        upstream.address()
    );
    wait_for(&name, || async { gate.metrics().await.contains(&name) }).await;
}

#[tokio::test]
async fn a_server_that_fails_is_left_alone_and_then_tried() {
    let all = several::<2>().await;
    let mut gate = gate_of(&all, "circuit: {failures: 3, window: 1h, open_for: 2s}").await;
    let token = gate.token(json!({})).await;
    all[0].behave(Some("status=500"));
    let told = statuses(&gate, &token, "GET", 30).await;
    // Three open it; on a slow machine a probe or two may follow.
    let failed = all[0].count();
    assert!((3..8).contains(&failed), "{told:?}");
    assert_eq!((count(&told, 500), count(&told, 200)), (failed, 30 - failed));
    circuit_is(&gate, &all[0], 1).await;
    // Well again, it is asked once the time is over; until then nobody fails for it.
    all[0].behave(None);
    wait_for("it to be tried", || async {
        assert_eq!(statuses(&gate, &token, "GET", 2).await, [200, 200]);
        all[0].count() > failed
    })
    .await;
    circuit_is(&gate, &all[0], 0).await;
    let before = all[0].count();
    statuses(&gate, &token, "GET", 10).await;
    assert_eq!(all[0].count(), before + 5);
    let events = gate.events();
    assert!(events.contains("left alone for a while") && events.contains("is asked again"), "{events}");
}

#[tokio::test]
async fn where_all_are_left_alone_nobody_is_asked_or_charged() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).routes(ROUTES).upstream_extra("circuit: {failures: 2, open_for: 1h}");
    let mut gate = plan.start().await;
    let token = gate.token(json!({})).await;
    upstream.behave(Some("cut"));
    assert_eq!(statuses(&gate, &token, "POST", 2).await, [502, 502]);
    upstream.behave(None);
    let refused = gate.ask(Ask::get(&token.on("/x/y"))).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "upstream_resting"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(upstream.count(), 2);
    gate.wait_used(&token, 0).await;
}
