//! TLS and HTTP/2 to upstreams: who is believed, what is shown, and what of HTTP/2 arrives.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan, limited};
use crate::harness::secure::{Authority, Http2Upstream, acceptor, in_front_of};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const ROUTES: &str = "\n  - {path: \"/events/**\", upstream: datasets, access: core, credits: 0, per_event: 1}\n  - {path: \"/**\", upstream: datasets, access: core, operations: {POST: read}}\n";

/// Files of a test's own.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The authority in a file, as the inside of `tls`.
    fn trust(&self, authority: &Authority) -> String {
        authority.write(&self.path("ca.pem"));
        format!("ca: \"{}\"", self.path("ca.pem").display())
    }

    /// A certificate in files, as the inside of `tls`.
    fn show(&self, authority: &Authority) -> String {
        let (cert, key) = (self.path("gate.pem"), self.path("gate.key"));
        authority.sign("gate.internal").write(&cert, &key);
        format!("cert: \"{}\", key: \"{}\"", cert.display(), key.display())
    }
}

async fn gate_of(upstream: &Upstream, server: SocketAddr, keys: &str) -> Gate {
    Plan::new(upstream).servers(&[server]).routes(ROUTES).upstream_extra(keys).start().await
}

#[tokio::test]
async fn only_the_server_that_proves_its_name_is_believed() {
    let upstream = Upstream::start().await;
    let (files, ours, others) = (Files::new(), Authority::new(), Authority::new());
    let trust = files.trust(&ours);
    // (who shows what, what is asked for, what the log says where it is refused)
    let table = [
        (ours.sign("127.0.0.1"), String::new(), None),
        (ours.sign("data.internal"), ", server_name: data.internal".to_owned(), None),
        (others.sign("127.0.0.1"), String::new(), Some("UnknownIssuer")),
        (ours.sign("127.0.0.2"), String::new(), Some("not valid for name")),
        (ours.sign("data.internal"), ", server_name: other.internal".to_owned(), Some("not valid for name")),
        (ours.sign_expired("127.0.0.1"), String::new(), Some("expired")),
    ];
    for (identity, more, refused) in table {
        let server = in_front_of(upstream.address(), acceptor(&identity, None, &[])).await;
        let mut gate = gate_of(&upstream, server, &format!("tls: {{{trust}{more}}}")).await;
        let token = gate.token(json!({})).await;
        let before = upstream.count();
        let answer = gate.ask(Ask::get(&token.on("/x"))).await;
        match refused {
            None => {
                assert_eq!(answer.status, 200, "{}: {}", answer.text(), gate.events());
                // Its connection is used again.
                let connections = upstream.connections();
                assert_eq!(gate.ask(Ask::get(&token.on("/y"))).await.status, 200);
                assert_eq!((upstream.count(), upstream.connections()), (before + 2, connections));
                gate.wait_used(&token, 2).await;
            }
            Some(why) => {
                assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unavailable"));
                assert_eq!(upstream.count(), before, "nothing was sent");
                let events = gate.events();
                let line = events.lines().find(|line| line.contains("does not pass as the one it should be"));
                assert!(line.is_some_and(|line| line.contains(why)), "{why}: {events}");
                gate.wait_used(&token, 0).await;
            }
        }
    }
}

#[tokio::test]
async fn without_an_authority_of_its_own_only_the_systems_are_believed() {
    let upstream = Upstream::start().await;
    let server =
        in_front_of(upstream.address(), acceptor(&Authority::new().sign("127.0.0.1"), None, &[])).await;
    let mut gate = gate_of(&upstream, server, "tls: {}").await;
    let token = gate.token(json!({})).await;
    assert_eq!(gate.ask(Ask::get(&token.on("/x"))).await.status, 502);
    assert_eq!(upstream.count(), 0);
    // Whoever answers is believed only where that is asked for in so many words.
    let mut gate = gate_of(&upstream, server, "tls: {verify: false}").await;
    let token = gate.token(json!({})).await;
    assert_eq!(gate.ask(Ask::get(&token.on("/x"))).await.status, 200);
    assert!(gate.events().contains("verify: false: whoever answers"), "{}", gate.events());
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let upstream = Upstream::start().await;
    let (files, ours, others) = (Files::new(), Authority::new(), Authority::new());
    let server = in_front_of(upstream.address(), acceptor(&ours.sign("127.0.0.1"), Some(&ours), &[])).await;
    let trust = files.trust(&ours);
    let wrong = Files::new();
    for (shown, status) in [(String::new(), 502), (wrong.show(&others), 502), (files.show(&ours), 200)] {
        let shown = if shown.is_empty() { shown } else { format!(", {shown}") };
        let keys =
            format!("tls: {{{trust}{shown}}}, health: {{path: /health, interval: 20ms, unhealthy_after: 1}}");
        let mut gate = gate_of(&upstream, server, &keys).await;
        let token = gate.token(json!({})).await;
        let before = upstream.asked();
        assert_eq!(gate.ask(Ask::get(&token.on("/x"))).await.status, status);
        assert_eq!(upstream.asked() - before, usize::from(status == 200));
        // A check is made in the same way.
        let name = format!("tollgate_upstream_server_up{{server=\"{server}\",upstream=\"datasets\"}}");
        let up = format!("{name} {}", u8::from(status == 200));
        wait_for(&up, || async { gate.metrics().await.contains(&up) }).await;
    }
    assert!(upstream.seen().iter().any(|seen| seen.header("user-agent") == Some("tollgate-health")));
}

#[tokio::test]
async fn a_key_of_another_certificate_stops_the_start() {
    let (files, ours) = (Files::new(), Authority::new());
    let shown = files.show(&ours);
    ours.sign("other.internal").write(&files.path("other.pem"), &files.path("gate.key"));
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "state_dir: ./state\nlisteners: [{{address: \"127.0.0.1:0\"}}]\naccess_log: off\n\
         upstreams: {{data: {{servers: [\"127.0.0.1:1\"], tls: {{{shown}}}}}}}\n\
         routes: [{{path: /, upstream: data, access: core}}]\n"
    );
    std::fs::write(directory.path().join("proxy.yaml"), text).expect("a file");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--config"])
        .arg(directory.path().join("proxy.yaml"))
        .output()
        .expect("the tollgate binary");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains("gate.key") && told.contains("upstream `data`"),
        "{told}"
    );
}

/// What is the same however HTTP/2 came about.
async fn speaks_http2(gate: &mut Gate, upstream: &Http2Upstream, scheme: &str) {
    let token = gate.token(json!({})).await;
    let mut tasks = Vec::new();
    for at in 0..10 {
        let (address, ask) = (gate.address, Ask::get(&token.on(&format!("/x/{at}?q=1"))));
        tasks.push(tokio::spawn(async move { ask.send(address).await }));
    }
    for task in tasks {
        let answer = task.await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }
    let body = "x".repeat(100_000);
    let echoed = gate.ask(Ask::new("POST", &token.on("/echo")).body(body.clone())).await;
    assert_eq!((echoed.status, echoed.body.len()), (200, body.len()), "{}", gate.events());
    let trailed = gate.ask(Ask::get(&token.on("/trailers"))).await;
    assert_eq!((trailed.status, trailed.text().as_str()), (200, "body"));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 12);
    for request in &seen {
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.uri().scheme_str(), Some(scheme));
        assert!(request.headers().contains_key("x-tollgate-token-id"));
        assert!(!format!("{request:?}").contains(&token.value));
    }
    assert!(seen.iter().any(|request| *request.body() == body.len()));
    assert!(upstream.connections() <= 10, "connections are shared");
    gate.wait_used(&token, 12).await;
}

/// A stream ends at its last credit, and only that stream.
async fn streams_end_one_by_one(gate: &mut Gate) {
    let (poor, rich) = (gate.token(limited(5)).await, gate.token(json!({})).await);
    let mut streams = Vec::new();
    for token in [&poor, &rich] {
        let mut connection = Connection::open(gate.address).await;
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
            token.on("/events/stream")
        );
        connection.write(head.as_bytes()).await.expect("sent");
        assert_eq!(connection.read_head().await.expect("a head").status, 200);
        streams.push(connection);
    }
    let mut text = String::new();
    loop {
        let chunk = streams[0].read_chunk().await.expect("in good order");
        if chunk.is_empty() {
            break;
        }
        text += &String::from_utf8_lossy(&chunk);
    }
    assert_eq!(
        text.matches("data: ").count() - text.matches("credits_exhausted").count().min(1),
        5,
        "{text}"
    );
    let mut after = String::new();
    while after.matches("data: ").count() < 20 {
        after += &String::from_utf8_lossy(&streams[1].read_chunk().await.expect("it goes on"));
    }
}

#[tokio::test]
async fn http2_is_agreed_on_over_tls() {
    let (files, ours) = (Files::new(), Authority::new());
    let trust = files.trust(&ours);
    let upstream = Http2Upstream::start(Some(acceptor(&ours.sign("127.0.0.1"), None, &["h2"]))).await;
    let plain = Upstream::start().await;
    let mut gate = gate_of(&plain, upstream.address, &format!("tls: {{{trust}}}, http2: true")).await;
    speaks_http2(&mut gate, &upstream, "https").await;
    streams_end_one_by_one(&mut gate).await;
    // One that does not speak it is spoken to as it likes.
    let old = in_front_of(plain.address(), acceptor(&ours.sign("127.0.0.1"), None, &["http/1.1"])).await;
    let mut gate = gate_of(&plain, old, &format!("tls: {{{trust}}}, http2: true")).await;
    let token = gate.token(json!({})).await;
    assert_eq!(gate.ask(Ask::get(&token.on("/x"))).await.status, 200);
    assert_eq!(plain.count(), 1);
}

#[tokio::test]
async fn http2_is_taken_for_granted_without_tls() {
    let upstream = Http2Upstream::start(None).await;
    let plain = Upstream::start().await;
    let keys = "http2: true, health: {path: /health, interval: 1h}";
    let mut gate = gate_of(&plain, upstream.address, keys).await;
    wait_for("a check", || async { upstream.seen().iter().any(|seen| seen.uri().path() == "/health") }).await;
    let name =
        format!("tollgate_upstream_server_up{{server=\"{}\",upstream=\"datasets\"}} 1", upstream.address);
    assert!(gate.metrics().await.contains(&name));
    let token = gate.token(json!({})).await;
    let trailed = gate.ask(Ask::get(&token.on("/trailers"))).await;
    assert_eq!((trailed.status, trailed.text().as_str()), (200, "body"));
    streams_end_one_by_one(&mut gate).await;
    assert_eq!(upstream.seen()[1].uri().scheme_str(), Some("http"));
}
