//! The access log in part, and warnings that repeat.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const PASSED: usize = 400;
const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

async fn gate(access_log: &str) -> (Upstream, Gate, Token) {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra(&format!("access_log: {access_log}")).start().await;
    let token = gate.token(json!({})).await;
    (upstream, gate, token)
}

fn of_verdict<'l>(log: &'l [Value], verdict: &str) -> Vec<&'l Value> {
    log.iter().filter(|line| line["verdict"] == verdict).collect()
}

#[tokio::test]
async fn a_sampled_line_says_for_how_many_it_stands() {
    let (_upstream, gate, token) = gate("{to: stdout, sample: 0.25}").await;
    for _ in 0..PASSED {
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    }
    for _ in 0..10 {
        assert_eq!(gate.ask(Ask::new("POST", &token.on(DATA))).await.status, 403);
    }
    assert_eq!(gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=500")).await.status, 500);
    let left_out = "tollgate_access_log_lines_left_out_total";
    let whole = |log: &[Value], left_out: u64| log.len() as u64 + left_out == PASSED as u64 + 11;
    wait_for("all to be written or counted", || async {
        whole(&gate.access_log(), gate.metric(left_out).await)
    })
    .await;
    let log = gate.access_log();
    // What always gets a line stands for itself.
    assert_eq!(
        of_verdict(&log, "dataset_denied").len() + of_verdict(&log, "core_denied").len(),
        10,
        "{log:?}"
    );
    let certain: Vec<_> = log.iter().filter(|line| line.get("sample").is_none()).collect();
    assert_eq!(certain.len(), 11, "{certain:?}");
    assert!(certain.iter().any(|line| line["status"] == 500));
    let sampled: Vec<_> = log.iter().filter(|line| line["sample"] == 0.25).collect();
    assert_eq!(sampled.len(), log.len() - 11);
    assert!(sampled.iter().all(|line| line["status"] == 200));
    let scaled = sampled.len() * 4;
    assert!((PASSED / 2..PASSED * 3 / 2).contains(&scaled), "{scaled}");
}

#[tokio::test]
async fn slow_requests_always_get_their_line() {
    let (_upstream, gate, token) = gate("{to: stdout, sample: 0, always: [], slow: 0s}").await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    wait_for("the line", || async { gate.access_log().len() == 1 }).await;
    assert_eq!(gate.access_log()[0].get("sample"), None);
}

#[tokio::test]
async fn nothing_is_written_where_nothing_is_wished() {
    let (_upstream, gate, token) = gate("{to: stdout, sample: 0, always: []}").await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    assert_eq!(gate.ask(Ask::get(DATA)).await.status, 401);
    let left_out = "tollgate_access_log_lines_left_out_total";
    wait_for("both to be counted", || async { gate.metric(left_out).await == 2 }).await;
    assert!(gate.access_log().is_empty());
}

/// A client that makes the gate warn at each of its requests.
#[tokio::test]
async fn a_client_cannot_flood_the_event_log() {
    let (_upstream, gate, token) = gate("stdout").await;
    let begun = Instant::now();
    for _ in 0..120 {
        assert_eq!(gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "cut")).await.status, 502);
    }
    let warned = gate.events().lines().filter(|line| line.contains("came to nothing")).count();
    let left_out = gate.metric("tollgate_log_events_left_out_total").await;
    assert!(warned >= 20 && warned as u64 + left_out == 120, "{warned} {left_out}");
    // Twenty in each ten seconds; a slow machine takes more than one of these.
    let windows = begun.elapsed().as_secs() / 10 + 1;
    assert!(warned as u64 <= 20 * windows, "{warned} in {windows} windows");
}
