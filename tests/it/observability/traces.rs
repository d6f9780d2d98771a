//! Traces: continued, sampled, exported, and never in a request's way.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::Ask;
use crate::harness::collector::{OtlpCollector, SpanSeen};
use crate::harness::evidence;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::installed::{installed, run};
use crate::harness::upstream::Upstream;
use crate::harness::{wait_for, wait_long};

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Scene {
    upstream: Upstream,
    collector: OtlpCollector,
    gate: Gate,
    token: Token,
}

impl Scene {
    /// A gate whose traces go to a collector, with more keys for `tracing`.
    async fn begin(keys: &str, more: &str) -> Self {
        let (upstream, collector) = (Upstream::start().await, OtlpCollector::start().await);
        let tracing = format!("tracing: {{endpoint: \"http://{}\", {keys}}}", collector.address());
        let plan =
            Plan::new(&upstream).extra(&tracing).extra(more).env("COLLECTOR_KEY", "s3cret-of-the-collector");
        let mut gate = plan.start().await;
        let token = gate.token(json!({})).await;
        Self { upstream, collector, gate, token }
    }

    /// The spans of one trace, once its request's own is there.
    async fn spans_of(&self, trace: &str) -> Vec<SpanSeen> {
        let find = || -> Vec<SpanSeen> {
            self.collector.spans().into_iter().filter(|span| span.trace == trace).collect()
        };
        wait_long("the spans", || async { find().iter().any(|span| span.kind == 2) }).await;
        find()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for body in self.collector.bodies() {
            evidence::add("traces", &body);
            evidence::assert_sealed("traces", &body);
        }
    }
}

fn only(spans: &[SpanSeen], what: impl Fn(&SpanSeen) -> bool) -> &SpanSeen {
    let found: Vec<_> = spans.iter().filter(|span| what(span)).collect();
    assert_eq!(found.len(), 1, "{spans:#?}");
    found[0]
}

#[tokio::test]
async fn a_trace_is_continued_to_the_upstream_and_told_in_full() {
    let scene = Scene::begin("sample: 0, parent: always, service_name: edge", "").await;
    let target = format!("{}&symbols=secretly", scene.token.on(DATA));
    let ask = Ask::get(&target)
        .header("traceparent", KEPT)
        .header("tracestate", "a=b,c=d")
        .header("Host", "data.example:8080");
    let answer = scene.gate.ask(ask).await;
    assert_eq!(answer.status, 200);
    let spans = scene.spans_of(TRACE).await;
    let server = only(&spans, |span| span.kind == 2);
    assert_eq!((server.parent.as_str(), server.state.as_str()), ("00f067aa0ba902b7", "a=b,c=d"));
    assert_eq!(server.name, "GET /{version}/data/CORE/{dataset}/**");
    for (name, expected) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "/{version}/data/CORE/{dataset}/**"),
        ("url.path", DATA),
        ("url.scheme", "http"),
        ("server.address", "data.example"),
        ("server.port", "8080"),
        ("client.address", "127.0.0.1"),
        ("tollgate.request_id", answer.header("x-request-id").unwrap()),
        ("tollgate.token_id", &scene.token.id),
        ("tollgate.account", "default"),
        ("tollgate.code", "pass"),
        ("tollgate.pool", "core"),
        ("tollgate.credits", "1"),
    ] {
        assert_eq!(server.get(name), expected, "{name}");
    }
    assert_eq!(server.status, 0);
    assert_eq!(server.resource["service.name"], "edge");
    assert_eq!(server.resource["telemetry.sdk.language"], "rust");
    let judge = only(&spans, |span| span.name == "judge");
    assert_eq!((judge.kind, &judge.parent), (1, &server.id));
    // The first request with a token waits for the store twice: who is it, and a lease.
    for wait in ["token look-up", "credits"] {
        let wait = only(&spans, |span| span.name == wait);
        assert_eq!(wait.parent, judge.id);
        assert!(judge.start <= wait.start && wait.start < wait.end && wait.end <= judge.end, "{spans:#?}");
    }
    let client = only(&spans, |span| span.kind == 3);
    assert_eq!((&client.parent, client.name.as_str()), (&server.id, "GET"));
    assert_eq!(client.get("server.port"), scene.upstream.address().port().to_string());
    assert_eq!(
        (client.get("http.response.status_code"), client.get("tollgate.upstream")),
        ("200", "datasets")
    );
    assert!(judge.end <= client.start && client.end <= server.end && server.start <= judge.start);
    let seen = scene.upstream.only();
    assert_eq!(seen.header("traceparent"), Some(format!("00-{TRACE}-{}-01", client.id).as_str()));
    assert_eq!(seen.header("tracestate"), Some("a=b,c=d"));
    for span in &spans {
        assert!(span.attributes.values().all(|value| !value.contains("secretly")), "{span:?}");
    }
    // The second waits for nothing, and says so.
    let other = KEPT.replace(TRACE, "5bf92f3577b34da6a3ce929d0e0e4736");
    scene.gate.ask(Ask::get(&scene.token.on(DATA)).header("traceparent", &other)).await;
    let spans = scene.spans_of("5bf92f3577b34da6a3ce929d0e0e4736").await;
    assert_eq!(spans.len(), 3, "{spans:#?}");
    wait_for("the line of the log", || async {
        scene.gate.access_log().iter().any(|line| line["trace_id"] == TRACE)
    })
    .await;
}

#[tokio::test]
async fn what_is_not_well_formed_begins_a_new_trace() {
    let scene = Scene::begin("sample: 1", "").await;
    let bad = [
        KEPT.to_uppercase(),
        KEPT.replacen("00", "ff", 1),
        format!("{KEPT}-x"),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
        "nonsense".to_owned(),
    ];
    for parent in &bad {
        let ask = Ask::get(&scene.token.on(DATA)).header("traceparent", parent).header("tracestate", "a=b");
        assert_eq!(scene.gate.ask(ask).await.status, 200);
    }
    let twice = Ask::get(&scene.token.on(DATA)).header("traceparent", KEPT).header("traceparent", KEPT);
    assert_eq!(scene.gate.ask(twice).await.status, 200);
    let none = Ask::get(&scene.token.on(DATA)).header("tracestate", "a=b");
    assert_eq!(scene.gate.ask(none).await.status, 200);
    for seen in scene.upstream.seen() {
        let parent = seen.header("traceparent").expect("a trace").to_owned();
        assert!(parent.len() == 55 && !parent.contains(TRACE) && parent.ends_with("-03"), "{parent}");
        assert_eq!(seen.header("tracestate"), None);
        assert_eq!(
            seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("traceparent")).count(),
            1
        );
        let spans = scene.spans_of(&parent[3..35]).await;
        assert_eq!(only(&spans, |span| span.kind == 2).parent, "");
    }
    // A state that is not well formed goes; its trace stays.
    let ask = Ask::get(&scene.token.on(DATA)).header("traceparent", KEPT).header("tracestate", "A=b");
    scene.gate.ask(ask).await;
    let seen = scene.upstream.seen();
    let last = seen.last().expect("a request");
    assert!(last.header("traceparent").is_some_and(|parent| parent.contains(TRACE)));
    assert_eq!(last.header("tracestate"), None);
}

#[tokio::test]
async fn only_a_parent_whose_word_counts_decides_what_is_kept() {
    for (keys, trusted, kept) in [
        ("sample: 0", "[]", false),
        ("sample: 0", "[127.0.0.1]", true),
        ("sample: 0, parent: never", "[127.0.0.1]", false),
    ] {
        let scene = Scene::begin(keys, &format!("trusted_proxies: {trusted}")).await;
        let ask = Ask::get(&scene.token.on(DATA)).header("traceparent", KEPT);
        assert_eq!(scene.gate.ask(ask).await.status, 200);
        let told = scene.upstream.only().header("traceparent").expect("a trace").to_owned();
        assert!(told.starts_with(&format!("00-{TRACE}-")), "{told}");
        assert_eq!(told.ends_with("-01"), kept, "{keys} {trusted}: {told}");
        if kept {
            scene.spans_of(TRACE).await;
        }
    }
}

#[tokio::test]
async fn refusals_and_failures_are_told_as_such() {
    let scene = Scene::begin("sample: 1, client_address: false", "").await;
    let trace = |number: u32| format!("{number:032x}");
    let parent = |number: u32| format!("00-{}-00f067aa0ba902b7-01", trace(number));
    let unknown = "pk_00000000000000000000000000000000";
    let refused = Ask::get(&format!("{DATA}?token={unknown}")).header("traceparent", &parent(1));
    assert_eq!(scene.gate.ask(refused).await.status, 403);
    let failed = Ask::get(&scene.token.on(DATA)).header("X-Test", "cut").header("traceparent", &parent(2));
    assert_eq!(scene.gate.ask(failed).await.status, 502);
    let bad = Ask::get(&format!("/v1/%zz?token={unknown}")).header("traceparent", &parent(3));
    assert_eq!(scene.gate.ask(bad).await.status, 400);
    let hostile = Ask::new("SK_0123456789ABCDEF0123456789ABCDEF", &format!("/x/{unknown}"))
        .header("Host", &format!("{unknown}.example"))
        .header("traceparent", &parent(4));
    assert!(scene.gate.ask(hostile).await.status >= 400);
    let spans = scene.spans_of(&trace(1)).await;
    let server = only(&spans, |span| span.kind == 2);
    assert_eq!(
        (server.get("tollgate.code"), server.get("http.response.status_code")),
        ("token_invalid", "403")
    );
    assert_eq!((server.status, server.get("client.address"), server.get("tollgate.token_id")), (0, "", ""));
    assert!(spans.iter().all(|span| span.kind != 3));
    let spans = scene.spans_of(&trace(2)).await;
    let server = only(&spans, |span| span.kind == 2);
    assert_eq!((server.status, server.get("error.type")), (2, "upstream_unavailable"));
    assert_eq!(server.get("tollgate.credits"), "0");
    let clients: Vec<_> = spans.iter().filter(|span| span.kind == 3).collect();
    assert!(!clients.is_empty() && clients.iter().all(|span| span.status == 2), "{spans:#?}");
    assert_eq!(
        scene.spans_of(&trace(3)).await.iter().filter(|span| !span.get("url.path").is_empty()).count(),
        0
    );
    let spans = scene.spans_of(&trace(4)).await;
    let server = only(&spans, |span| span.kind == 2);
    assert_eq!(
        (server.name.as_str(), server.get("http.request.method"), server.get("server.address")),
        ("OTHER", "_OTHER", "")
    );
    let events = scene.gate.events();
    let line =
        events.lines().find(|line| line.contains("came to nothing")).expect("a line about the failure");
    assert!(line.contains(&format!("trace_id={}", trace(2))), "{line}");
}

#[tokio::test]
async fn without_tracing_the_headers_go_on_as_they_came() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({})).await;
    let ask = Ask::get(&token.on(DATA)).header("traceparent", KEPT).header("tracestate", "a=b");
    assert_eq!(gate.ask(ask).await.status, 200);
    let seen = upstream.only();
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (Some(KEPT), Some("a=b")));
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    assert_eq!(upstream.seen()[1].header("traceparent"), None);
    wait_for("both lines", || async { gate.access_log().len() >= 2 }).await;
    let log = gate.access_log();
    assert_eq!((&log[0]["trace_id"], log[1].get("trace_id")), (&json!(TRACE), None));
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_spans_and_never_a_request() {
    let scene =
        Scene::begin("sample: 1, timeout: 200ms, headers: {x-api-key: \"${COLLECTOR_KEY}\"}", "").await;
    scene.collector.answer_with(400);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(scene.gate.ask(Ask::get(&scene.token.on(DATA))).await.status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
    let gate = &scene.gate;
    let failed = "tollgate_trace_spans_total{outcome=\"failed\"}";
    wait_long("spans to be lost", || async { gate.metric(failed).await >= 60 }).await;
    assert!(scene.collector.heads().iter().all(|head| head.contains("s3cret-of-the-collector")));
    assert!(scene.collector.heads()[0].starts_with("POST /v1/traces HTTP/1.1\r\n"));
    let warned = |events: &str| events.lines().filter(|line| line.contains("does not take spans")).count();
    assert_eq!(warned(&gate.events()), 1);
    assert!(!gate.events().contains("s3cret"));
    scene.collector.answer_with(200);
    assert_eq!(gate.ask(Ask::get(&scene.token.on(DATA))).await.status, 200);
    wait_long("spans to be taken again", || async { !scene.collector.spans().is_empty() }).await;
    wait_for("that to be said", || async { gate.events().contains("takes spans again") }).await;
}

// Stopping a gate blocks a thread, and the collector has to answer meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_sent_is_sent_at_the_stop() {
    let mut scene = Scene::begin("sample: 1", "").await;
    let ask = Ask::get(&scene.token.on(DATA)).header("traceparent", KEPT);
    assert_eq!(scene.gate.ask(ask).await.status, 200);
    scene.gate.stop();
    let spans = scene.collector.spans();
    assert!(spans.iter().any(|span| span.trace == TRACE && span.kind == 2), "{spans:#?}");
}

/// What is written by hand is what the official classes read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_classes_read_what_is_exported() {
    let mut scene = Scene::begin("sample: 1", "").await;
    let poor = scene.gate.token(limited(0)).await;
    scene
        .gate
        .ask(Ask::get(&scene.token.on(DATA)).header("traceparent", KEPT).header("tracestate", "a=b"))
        .await;
    scene.gate.ask(Ask::get(&scene.token.on(DATA)).header("X-Test", "cut")).await;
    scene.gate.ask(Ask::get(&poor.on(DATA))).await;
    scene.gate.stop();
    let folder = installed("otlp", |folder| {
        run(Command::new("python3").args(["-m", "venv", "."]).current_dir(folder));
        let install =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "opentelemetry-proto==1.27.0"];
        run(Command::new("bin/python").args(install).current_dir(folder));
    });
    let work = tempfile::tempdir().expect("a directory");
    for (number, body) in scene.collector.bodies().iter().enumerate() {
        std::fs::write(work.path().join(format!("{number}.bin")), body).expect("a body");
    }
    let script = "\
import glob, json, sys
from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
def check(message):
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.message_type:
            for inner in (value if isinstance(value, (list,)) or hasattr(value, '__len__') else [value]):
                check(inner)
spans = []
for name in glob.glob(sys.argv[1] + '/*.bin'):
    request = ExportTraceServiceRequest.FromString(open(name, 'rb').read())
    check(request)
    for resource in MessageToDict(request)['resourceSpans']:
        for scope in resource['scopeSpans']:
            spans += scope['spans']
print(json.dumps(spans))
";
    let told = run(Command::new(folder.join("bin/python")).args(["-c", script]).arg(work.path()));
    let read: Vec<serde_json::Value> = serde_json::from_str(&told).expect("JSON");
    let ours = scene.collector.spans();
    assert_eq!(read.len(), ours.len());
    for kind in ["SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_INTERNAL"] {
        assert!(read.iter().any(|span| span["kind"] == kind), "{kind}");
    }
    assert!(read.iter().any(|span| span["status"]["code"] == "STATUS_CODE_ERROR"));
    assert!(read.iter().any(|span| span["traceState"] == "a=b"));
    let remote = |span: &serde_json::Value| span["kind"] == "SPAN_KIND_SERVER" && span["flags"] == 0x301;
    assert!(read.iter().any(remote), "{told}");
    for span in &read {
        let time = |name: &str| span[name].as_str().expect("a time").parse::<u64>().expect("a time");
        let (start, end) = (time("startTimeUnixNano"), time("endTimeUnixNano"));
        assert!(start <= end && start > 1_700_000_000_000_000_000, "{span}");
    }
}
