//! The configuration is read anew: by a signal, by a change of its file; under load, and without a request being judged by
//! parts of two.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan};
use crate::harness::load::{EVENTS, Load};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const OK: &str = "tollgate_config_reloads_total{result=\"ok\"}";
const REFUSED: &str = "tollgate_config_reloads_total{result=\"refused\"}";

/// A route with a price of its own for each upstream, so that what was judged shows where it must have gone.
fn plan(upstream: &Upstream, price: u64) -> Plan {
    Plan::new(upstream).routes(&format!(
        "\n  - {{path: /data/**, upstream: datasets, access: core, credits: {price}}}\
         \n  - {{path: /events/**, upstream: datasets, access: core, credits: 0, per_event: 1}}\n"
    ))
}

async fn wait_count(gate: &Gate, line: &str, at_least: u64) {
    wait_for(line, || async move { gate.metric(line).await >= at_least }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_under_load_lose_no_request_and_no_credit() {
    let (one, three) = (Upstream::start().await, Upstream::start().await);
    let mut gate = plan(&one, 1).start().await;
    let token = gate.token(json!({})).await;
    let load = Load::start(gate.address, &token.on("/data/x"), Some(&token.on("/events/x")), 3);
    let mut refused = 0;
    for round in 0..20_u64 {
        load.go_on(20).await;
        let (to, price) = if round % 2 == 0 { (&three, 3) } else { (&one, 1) };
        if round % 4 == 1 {
            // Valid YAML and no configuration, or no YAML at all, or half of one.
            let text = plan(to, price).yaml();
            let bad = match round % 3 {
                0 => "upstreams: {}\n".to_owned(),
                1 => "listeners: [\n".to_owned(),
                _ => text[..text.len() / 2].to_owned(),
            };
            gate.write_config(&bad);
            gate.signal("HUP");
            refused += 1;
            wait_count(&gate, REFUSED, refused).await;
        }
        gate.configure(plan(to, price));
        // Most by the signal; some are noticed.
        if round % 5 != 4 {
            gate.signal("HUP");
        }
        wait_count(&gate, OK, round + 1).await;
    }
    load.go_on(20).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.closes, 0, "a reload closes no connection");
    assert!(tally.streams > 0 && one.count() > 20 && three.count() > 20, "{tally:?}");
    // Each was charged by the price of the very configuration that says where it went.
    let of = |upstream: &Upstream| {
        upstream.seen().iter().filter(|seen| seen.target.starts_with("/data/")).count() as u64
    };
    assert_eq!(tally.answers, of(&one) + of(&three));
    gate.wait_used(&token, of(&one) + 3 * of(&three) + EVENTS as u64 * tally.streams).await;
    let events = gate.events();
    assert_eq!(gate.metric(REFUSED).await, refused);
    assert!(events.matches("the configuration is refused").count() >= 5, "{events}");
    assert!(
        events.contains("proxy.yaml:1:12: upstreams: expected at least one"),
        "each mistake has its place: {events}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_keeps_the_configuration_it_began_with() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    let mut gate = plan(&old, 1).start().await;
    let token = gate.token(json!({})).await;
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {} HTTP/1.1\r\nHost: x\r\nX-Test: ticks=60\r\n\r\n", token.on("/events/x"));
    connection.write(line.as_bytes()).await.unwrap();
    assert_eq!(connection.read_head().await.unwrap().status, 200);
    // Its route is gone, and its upstream.
    let other = "\n  - {path: /data/**, upstream: datasets, access: core, credits: 2}\n";
    gate.configure(Plan::new(&new).routes(other));
    gate.signal("HUP");
    wait_count(&gate, OK, 1).await;
    let refused = gate.ask(Ask::get(&token.on("/events/x"))).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "no_route"));
    let answer = gate.ask(Ask::get(&token.on("/data/x"))).await;
    assert_eq!(answer.status, 200);
    let mut events = 0;
    loop {
        let chunk = connection.read_chunk().await.expect("the stream goes on");
        if chunk.is_empty() {
            break;
        }
        events += String::from_utf8_lossy(&chunk).matches("data: {\"price\"").count();
    }
    assert_eq!(events, 60);
    gate.wait_used(&token, 62).await;
    assert_eq!((old.count(), new.count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_new_process_is_named_and_the_rest_is_taken() {
    let upstream = Upstream::start().await;
    let mut gate = plan(&upstream, 1).start().await;
    let token = gate.token(json!({})).await;
    gate.configure(plan(&upstream, 4).extra("policies: 1000\noutage: {grace: 1m}"));
    gate.signal("HUP");
    wait_count(&gate, OK, 1).await;
    let answer = gate.ask(Ask::get(&token.on("/data/x"))).await;
    assert_eq!(answer.header("x-credits-used"), Some("4"));
    let events = gate.events();
    assert!(events.contains("keys=outage.grace, policies"), "{events}");
    // A fleet can be compared by the digest of the file.
    let digest = sha256(&fs::read(gate.path("proxy.yaml")).unwrap());
    let metrics = gate.metrics().await;
    assert!(
        metrics.contains(&format!("tollgate_config_info{{sha256=\"{}\"}} 1", &digest[..12])),
        "{metrics}"
    );
    assert_eq!(metrics.matches("tollgate_config_info{").count(), 1);
    assert_eq!(gate.metric("tollgate_config_last_reload_successful").await, 1);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sees_a_config_map_swapped_and_a_secret_replaced() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let mut gate = plan(&one, 1).start().await;
    let token = gate.token(json!({})).await;
    // As Kubernetes does it: the file is a link through a link to a folder, which is swapped.
    for (folder, upstream, price) in [("v1", &one, 1), ("v2", &two, 5)] {
        fs::create_dir(gate.path(folder)).unwrap();
        fs::write(gate.path(folder).join("proxy.yaml"), plan(upstream, price).yaml()).unwrap();
    }
    let relink = |to: &str, name: &str| {
        symlink(to, gate.path("link.new")).unwrap();
        fs::rename(gate.path("link.new"), gate.path(name)).unwrap();
    };
    relink("v1", "..data");
    relink("..data/proxy.yaml", "proxy.yaml");
    wait_count(&gate, OK, 1).await;
    relink("v2", "..data");
    wait_for("the new upstream", || async {
        assert_eq!(gate.ask(Ask::get(&token.on("/data/x"))).await.status, 200);
        two.count() > 0
    })
    .await;
    // A bad file is refused until it is mended; nobody has to send a signal.
    let ok = gate.metric(OK).await;
    gate.write_config(&format!("{}master_key: file:key\n", plan(&two, 6).yaml()));
    wait_count(&gate, REFUSED, 1).await;
    assert_eq!(gate.metric("tollgate_config_last_reload_successful").await, 0);
    let events = gate.events();
    assert!(events.contains("master_key: the secret's file"), "{events}");
    let key = gate.path("key");
    fs::write(&key, "0".repeat(64)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    gate.signal("HUP");
    wait_count(&gate, OK, ok + 1).await;
    // A file that the configuration names belongs to it.
    let ok = gate.metric(OK).await;
    fs::write(gate.path("key.new"), "1".repeat(64)).unwrap();
    fs::set_permissions(gate.path("key.new"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(gate.path("key.new"), &key).unwrap();
    wait_count(&gate, OK, ok + 1).await;
    assert!(gate.events().contains("keys=master_key"), "{}", gate.events());
}
