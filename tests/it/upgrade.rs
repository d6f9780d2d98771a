//! A process ends without a request lost: it hands over to a new one under load, or it stops in good order. Whatever is
//! killed in the middle of it, no credit is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::load::{EVENTS, Load, Tally};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::{wait_for, wait_long};

const ROUTES: &str = "
  - {path: /data/**, upstream: datasets, access: core, credits: 2}
  - {path: /events/**, upstream: datasets, access: core, credits: 0, per_event: 1}
";

fn plan(upstream: &Upstream) -> Plan {
    Plan::new(upstream).routes(ROUTES)
}

fn on_redis(upstream: &Upstream, redis: &RedisServer) -> Plan {
    plan(upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url()))
}

/// What all that was delivered cost.
fn credits_of(tally: &Tally) -> u64 {
    2 * tally.answers + EVENTS as u64 * tally.streams
}

/// Waits until the store says so many credits, however long what was killed takes to be settled.
async fn wait_used(gate: &Gate, token: &Token, expected: u64) {
    wait_long(&format!("used to be {expected}"), || async move { gate.used(token).await == expected }).await;
}

async fn five_upgrades(mut gate: Gate) {
    let token = gate.token(json!({})).await;
    let load = Load::start(gate.address, &token.on("/data/x"), Some(&token.on("/events/x")), 3);
    for _ in 0..5 {
        load.go_on(20).await;
        gate.upgrade().await;
    }
    load.go_on(20).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{}", gate.events());
    assert!(tally.streams > 0 && tally.closes >= 5, "{tally:?}");
    wait_used(&gate, &token, credits_of(&tally)).await;
    let events = gate.events();
    assert_eq!(events.matches("took over from the process before").count(), 5, "{events}");
    // Each settled its own before it ended.
    assert!(!events.contains("settling what another process"), "{events}");
    gate.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_upgrades_under_load_lose_no_request_and_no_credit_redis() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    five_upgrades(on_redis(&upstream, &redis).start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_upgrades_under_load_lose_no_request_and_no_credit_embedded() {
    let upstream = Upstream::start().await;
    five_upgrades(plan(&upstream).start().await).await;
}

/// A new program, or configuration, that cannot serve: the old process goes on.
async fn a_failed_upgrade_changes_nothing(plan: Plan) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tollgate");
    symlink(env!("CARGO_BIN_EXE_tollgate"), &program).unwrap();
    let relink = |to: &Path| {
        symlink(to, folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("new"), &program).unwrap();
    };
    let mut gate = plan.clone().binary(&program).start().await;
    let token = gate.token(json!({})).await;
    let load = Load::start(gate.address, &token.on("/data/x"), None, 2);
    let pid = gate.pid();
    let good = fs::read_to_string(gate.path("proxy.yaml")).unwrap();
    let table = [
        ("/bin/false", good.as_str()),
        ("/nowhere", good.as_str()),
        (env!("CARGO_BIN_EXE_tollgate"), "routes: []\n"),
    ];
    for (before, (to, config)) in table.into_iter().enumerate() {
        load.go_on(10).await;
        relink(Path::new(to));
        if config != good {
            gate.write_config(config);
        }
        gate.signal("USR2");
        let events = || gate.events().matches("the upgrade failed").count();
        wait_for("the upgrade to fail", || async { events() == before + 1 }).await;
        load.go_on(10).await;
    }
    gate.write_config(&good);
    assert_eq!(gate.pid(), pid);
    gate.upgrade().await;
    load.go_on(10).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{}", gate.events());
    wait_used(&gate, &token, credits_of(&tally)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_program_that_cannot_serve_changes_nothing() {
    let upstream = Upstream::start().await;
    a_failed_upgrade_changes_nothing(plan(&upstream)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_process_takes_the_store_back_where_the_new_one_dies_with_it() {
    let upstream = Upstream::start().await;
    let mut gate = plan(&upstream).start().await;
    let token = gate.token(json!({})).await;
    let load = Load::start(gate.address, &token.on("/data/x"), None, 2);
    load.go_on(20).await;
    // While this flows the old process drains, and the new one has no store to serve from.
    let (address, stream) = (gate.address, Ask::get(&token.on("/events/x")).header("X-Test", "ticks=100"));
    let seen = upstream.clone();
    let stream = tokio::spawn(async move { stream.send(address).await.text() });
    wait_for("the stream to begin", || async { seen.seen().iter().any(|it| it.target.contains("/events/")) })
        .await;
    gate.signal("USR2");
    wait_for("the new process to wait for the store", || async {
        gate.events().contains("waits for the store")
    })
    .await;
    let events = gate.events();
    let line = events.lines().find(|line| line.contains("waits for the store")).unwrap();
    let new: u32 = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    std::process::Command::new("kill").args(["-KILL", &new.to_string()]).status().unwrap();
    wait_long("the old one to go on", || async { gate.events().contains("takes the store back") }).await;
    assert_eq!(gate.taken_over_by(0), None);
    assert_eq!(stream.await.unwrap().matches("data: {\"price\"").count(), 100);
    load.go_on(20).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{}", gate.events());
    wait_used(&gate, &token, credits_of(&tally) + 100).await;
    gate.upgrade().await;
    wait_used(&gate, &token, credits_of(&tally) + 100).await;
}

/// Begins a stream, and reads so many events of it; it would go on.
async fn begin_stream(gate: &Gate, token: &Token, events: usize) -> Connection {
    let mut connection = Connection::open(gate.address).await;
    let line = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Test: feed={events}\r\n\r\n",
        token.on("/events/x")
    );
    connection.write(line.as_bytes()).await.unwrap();
    assert_eq!(connection.read_head().await.unwrap().status, 200);
    let mut text = Vec::new();
    while String::from_utf8_lossy(&text).matches("data: {\"price\"").count() < events {
        text.extend(connection.read_chunk().await.expect("an event"));
    }
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_old_process_had_spent_is_settled_by_the_new_one() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut gate = on_redis(&upstream, &redis).extra("shutdown_grace: 1m").start().await;
    let token = gate.token(json!({})).await;
    // It keeps the old process from ending.
    let stream = begin_stream(&gate, &token, 30).await;
    let old = gate.begin_upgrade().await;
    for _ in 0..10 {
        assert_eq!(gate.ask(Ask::get(&token.on("/data/x"))).await.status, 200);
    }
    assert!(!gate.has_ended(old), "{}", gate.events());
    std::process::Command::new("kill").args(["-KILL", &old.to_string()]).status().unwrap();
    gate.wait_ended(old).await;
    drop(stream);
    wait_used(&gate, &token, 30 + 20).await;
    assert!(gate.events().contains("settling what another process of this node left"), "{}", gate.events());
    gate.stop();
    gate.start_again().await;
    wait_used(&gate, &token, 30 + 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_new_process_had_spent_is_settled_by_the_next_start() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut gate = on_redis(&upstream, &redis).extra("shutdown_grace: 2s").start().await;
    let token = gate.token(json!({})).await;
    let mut stream = begin_stream(&gate, &token, 30).await;
    let old = gate.begin_upgrade().await;
    for _ in 0..10 {
        assert_eq!(gate.ask(Ask::get(&token.on("/data/x"))).await.status, 200);
    }
    gate.kill();
    // The old one ends its stream with a word, and settles it.
    let rest = String::from_utf8(stream.read_to_end().await).unwrap();
    assert!(rest.contains("\"code\":\"shutting_down\"") && rest.ends_with("0\r\n\r\n"), "{rest}");
    gate.wait_ended(old).await;
    gate.start_again().await;
    wait_used(&gate, &token, 30 + 20).await;
    assert_eq!(gate.ask(Ask::get(&token.on("/data/x"))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_not_ready_first_then_ends_connections_then_streams() {
    let upstream = Upstream::start().await;
    let extra = "shutdown_delay: 1s\nshutdown_grace: 2s";
    let mut gate = plan(&upstream).extra(extra).start().await;
    let token = gate.token(json!({})).await;
    let mut stream = begin_stream(&gate, &token, 5).await;
    let mut kept = Connection::open(gate.address).await;
    let ask = Ask::get(&token.on("/data/x"));
    let answer = kept.send(&ask).await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
    gate.signal("TERM");
    let admin = gate.admin;
    wait_for("not to be ready", || async move { Ask::get("/readyz").send(admin).await.status == 503 }).await;
    // Requests are taken still, and each connection is told that it was its last.
    let answer = gate.ask(ask.clone()).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{}", gate.events());
    let answer = kept.send(&ask).await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let rest = String::from_utf8(stream.read_to_end().await).unwrap();
    assert!(rest.contains("event: error\ndata: {\"code\":\"shutting_down\""), "{rest}");
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    let pid = gate.pid();
    gate.wait_ended(pid).await;
    gate.start_again().await;
    gate.wait_used(&token, 6 + 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once_and_loses_no_credit() {
    let upstream = Upstream::start().await;
    let extra = "shutdown_delay: 1h\nshutdown_grace: 1h";
    let mut gate = plan(&upstream).extra(extra).start().await;
    let token = gate.token(json!({})).await;
    let _stream = begin_stream(&gate, &token, 5).await;
    gate.signal("TERM");
    wait_for("the stop to begin", || async { gate.events().contains("about to stop") }).await;
    let begun = Instant::now();
    gate.signal("TERM");
    let pid = gate.pid();
    gate.wait_ended(pid).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    gate.start_again().await;
    gate.wait_used(&token, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_on_the_same_state_dir_is_refused_also_after_an_upgrade() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut gate = on_redis(&upstream, &redis).start().await;
    for _ in 0..2 {
        let tried = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--config"])
            .arg(gate.path("proxy.yaml"))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(tried.stderr).unwrap();
        assert!(!tried.status.success() && said.contains("is in use by another Tollgate"), "{said}");
        gate.upgrade().await;
    }
}
