//! Metrics: complete, explained, bounded.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::secure::Authority;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

/// The names in `# TYPE` lines.
fn families(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Everything in a text that looks like the name of one of our metrics.
pub(super) fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let names = text.split(word).filter(|word| word.starts_with("tollgate_") || word.starts_with("process_"));
    names.map(str::to_owned).collect()
}

/// The family a name belongs to: histograms are named by their parts.
fn family<'n>(name: &'n str, families: &BTreeSet<String>) -> &'n str {
    let part = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
    part.filter(|part| families.contains(*part)).unwrap_or(name)
}

fn series(metrics: &str) -> BTreeSet<String> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn gate() -> (Upstream, Gate, Token) {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({})).await;
    (upstream, gate, token)
}

/// The metrics of a gate that shows a certificate.
async fn with_a_certificate(upstream: &Upstream) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let [cert, key] = ["gate.pem", "gate.key"].map(|name| folder.path().join(name));
    Authority::new().sign("gate.test").write(&cert, &key);
    let tls = format!("tls: {{cert: \"{}\", key: \"{}\"}}", cert.display(), key.display());
    Plan::new(upstream).listener_extra(&tls).start().await.metrics().await
}

#[tokio::test]
async fn every_metric_named_anywhere_exists_and_every_one_that_exists_is_explained() {
    let (upstream, gate, token) = gate().await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    let mut told = families(&gate.metrics().await);
    told.extend(families(&with_a_certificate(&upstream).await));
    let readme = read("README.md");
    for (place, text) in [
        ("README.md", readme.clone()),
        ("the dashboard", read("deploy/observability/dashboard.json")),
        ("the rules", read("deploy/observability/alerts.yaml")),
        ("the tests of the rules", read("deploy/observability/alerts.test.yaml")),
    ] {
        let names = named(&text);
        assert!(names.len() > 15, "{place}: {names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !told.contains(family(name, &told))).collect();
        assert!(missing.is_empty(), "{place} names what no gate has: {missing:?}");
    }
    let explained = named(&readme);
    let silent: Vec<_> = told.difference(&explained).collect();
    assert!(silent.is_empty(), "README does not explain {silent:?}");
}

#[tokio::test]
async fn the_metrics_keep_to_prometheus_rules() {
    let (_upstream, gate, token) = gate().await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    let metrics = gate.metrics().await;
    let mut lint = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: scripts/setup test installs it");
    lint.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("its input");
    let told = lint.wait_with_output().expect("promtool's word");
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{out}{err}");
}

#[tokio::test]
async fn counts_what_happens() {
    let (_upstream, mut gate, token) = gate().await;
    let poor = gate.token(limited(1)).await;
    assert_eq!(gate.ask(Ask::new("POST", &token.on(DATA)).body("12345")).await.status, 403);
    for _ in 0..3 {
        assert_eq!(gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "bytes=100")).await.status, 200);
    }
    assert_eq!(gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=500")).await.status, 500);
    assert_eq!(gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "cut")).await.status, 502);
    assert_eq!(gate.ask(Ask::get(&poor.on(DATA))).await.status, 200);
    assert_eq!(gate.ask(Ask::get(&poor.on(DATA))).await.status, 402);
    let unknown = "pk_00000000000000000000000000000000";
    for _ in 0..2 {
        assert_eq!(gate.ask(Ask::get(&format!("{DATA}?token={unknown}"))).await.status, 403);
    }
    // The last request's own line is written after its answer.
    let route = "/{version}/data/CORE/{dataset}/**";
    let last =
        format!("tollgate_requests_total{{route=\"{route}\",status=\"4xx\",verdict=\"token_invalid\"}}");
    let (gate, last) = (&gate, last.as_str());
    wait_for("the last request to be counted", || async move { gate.metric(last).await == 2 }).await;
    let table = [
        ("tollgate_responses_total{method=\"GET\",status=\"2xx\"}", 4),
        ("tollgate_responses_total{method=\"GET\",status=\"5xx\"}", 2),
        ("tollgate_responses_total{method=\"POST\",status=\"4xx\"}", 1),
        ("tollgate_upstream_responses_total{status=\"2xx\",upstream=\"datasets\"}", 4),
        ("tollgate_upstream_responses_total{status=\"5xx\",upstream=\"datasets\"}", 1),
        ("tollgate_upstream_failures_total{failure=\"upstream_unavailable\",upstream=\"datasets\"}", 1),
        ("tollgate_credits_total{outcome=\"charged\",pool=\"core\"}", 4),
        ("tollgate_token_lookups_total{outcome=\"fetched\"}", 2),
        ("tollgate_store_line_cut", 0),
        ("tollgate_nodes{state=\"living\"}", 1),
        ("tollgate_nodes{state=\"silent\"}", 0),
        ("tollgate_journal_set_aside", 0),
        ("tollgate_requests_in_flight", 0),
        ("tollgate_build_info{version=\"0.1.0\"}", 1),
    ];
    for (line, expected) in table {
        wait_for(line, || async move { gate.metric(line).await == expected }).await;
    }
    let lookups = async |outcome: &str| {
        gate.metric(&format!("tollgate_token_lookups_total{{outcome=\"{outcome}\"}}")).await
    };
    // On a slow machine the second may come when the first is forgotten.
    assert_eq!(lookups("absent").await + lookups("known_absent").await, 2);
    assert!(gate.metric("tollgate_response_bytes_total").await >= 300);
    assert!(gate.metric("tollgate_store_duration_seconds_count{operation=\"reserve\"}").await >= 2);
    assert!(gate.metric("process_resident_memory_bytes").await > 1 << 20);
}

/// Whatever clients make up, no new series comes of it.
#[tokio::test]
async fn a_flood_of_made_up_paths_methods_and_tokens_makes_no_series() {
    let (_upstream, gate, token) = gate().await;
    let hostile = |number: u32| -> Vec<Ask> {
        let made_up = format!("pk_{number:032x}");
        vec![
            Ask::get(&format!("/{number}/made/up?token={}", token.value)),
            Ask::get(&format!("/v{number}/data/CORE/DATA{number}/x?token={made_up}")),
            Ask::get(&token.on(&format!("/v{number}/data/CORE/DATA{number}/x"))),
            Ask::get(&token.on(&format!("/v1/data/WS{number}/DATA{number}/x"))),
            Ask::new(&format!("VERB{number}"), &token.on(DATA)),
            Ask::new("DELETE", &token.on(&format!("/v1/data/CORE/D{number}/x"))),
            Ask::get(&format!("/{number}/%zz")),
            Ask::get(DATA).header("X-API-Key", &format!("{number}")),
            Ask::get(&token.on(DATA)).header("Host", &format!("host{number}.example")),
            Ask::get(&token.on(DATA)).header("X-Test", &format!("status={}", 200 + number % 4)),
        ]
    };
    for ask in hostile(0) {
        let answer = gate.ask(ask).await;
        assert!(answer.status < 500, "{}", answer.text());
    }
    let settled = "tollgate_requests_in_flight";
    wait_for("the first round", || async { gate.metric(settled).await == 0 }).await;
    let before = series(&gate.metrics().await);
    for number in 1..80 {
        for ask in hostile(number) {
            gate.ask(ask).await;
        }
    }
    wait_for("the flood to end", || async { gate.metric(settled).await == 0 }).await;
    let after = series(&gate.metrics().await);
    let fresh: Vec<_> = after.difference(&before).collect();
    // A call that the store had not been asked for before may be among them; its name is ours.
    let ours = |line: &&&String| line.starts_with("tollgate_store_");
    assert!(fresh.iter().all(|line| ours(&line)), "{fresh:?}");
    assert!(before.len() > 200, "{}", before.len());
}
