//! A plain request goes to its upstream without Pingora's machinery, and nobody can tell by what comes of it: the upstream
//! gets the same, the client is told the same, the same is charged and logged.
//!
//! Each row is asked twice: plainly, and with `TE: trailers`, which is for one hop alone and makes a request one that is not
//! plain.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::upstream::{Seen, Upstream};
use crate::harness::wait_for;

/// How long all of an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

/// What an upstream got, but for what is another for each request.
fn received(seen: &Seen) -> Vec<(String, String)> {
    let mut all = seen.headers.clone();
    all.retain(|(name, _)| name != "X-Request-Id");
    all.push((":method".to_owned(), seen.method.clone()));
    all.push((":target".to_owned(), seen.target.clone()));
    all.sort();
    all
}

/// What a client was told, but for what is another for each request.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let value = |name: &str, value: &str| match name.to_ascii_lowercase().as_str() {
        "date" | "x-request-id" | "x-credits-used" => "…".to_owned(),
        _ => value.to_owned(),
    };
    let mut all: Vec<_> =
        answer.headers.iter().map(|(name, text)| (name.clone(), value(name, text))).collect();
    all.sort();
    let id = answer.header("x-request-id").unwrap_or("none");
    (answer.status, all, answer.text().replace(id, "…"))
}

/// What the access log says of the last request, but for what is another for each request.
fn logged(line: &Value) -> Value {
    let mut line = line.clone();
    for name in ["time", "request_id", "total_ms", "gate_ms", "upstream_ms", "server", "bytes_in"] {
        line.as_object_mut().unwrap().remove(name);
    }
    line
}

struct Both {
    upstream: Upstream,
    gate: Gate,
    token: Token,
    /// Requests so far.
    asked: Cell<usize>,
}

impl Both {
    async fn start(plan: impl FnOnce(&Upstream) -> Plan) -> Self {
        let upstream = Upstream::start().await;
        let mut gate = plan(&upstream).start().await;
        let token = gate.token(json!({"datasets": [{"dataset": "CORE/*", "operations": ["read"]}]})).await;
        Self { upstream, gate, token, asked: Cell::new(0) }
    }

    async fn ask_plainly(&self, ask: Ask) -> Answer {
        self.asked.update(|asked| asked + 1);
        self.gate.ask(ask).await
    }

    /// Asks both ways, and finds that nobody can tell.
    async fn ask(&self, what: &str, ask: Ask) -> Answer {
        let (mut got, mut answers) = (Vec::new(), Vec::new());
        for ask in [ask.clone(), ask.header("TE", "trailers")] {
            let before = self.upstream.count();
            answers.push(self.ask_plainly(ask).await);
            got.push(self.upstream.seen()[before..].iter().map(received).collect::<Vec<_>>());
        }
        assert_eq!(got[0], got[1], "{what}: what the upstream got");
        assert!(!got[0].is_empty(), "{what}: the upstream was asked; {}", answers[0].text());
        assert_eq!(told(&answers[0]), told(&answers[1]), "{what}: what the client was told");
        let ids: Vec<&str> = answers.iter().filter_map(|answer| answer.header("x-request-id")).collect();
        let lines = || {
            let mut log = self.gate.access_log();
            log.retain(|line| ids.contains(&line["request_id"].as_str().unwrap_or_default()));
            log
        };
        wait_for(&format!("{what}: two lines"), || async { lines().len() == 2 }).await;
        let log = lines();
        let [direct, long] = log.as_slice() else { unreachable!() };
        assert_eq!(logged(direct), logged(long), "{what}: the log");
        answers.swap_remove(0)
    }

    /// All that was charged for what was asked, and nothing else, is counted.
    async fn settle(&self) {
        let requests = self.asked.get();
        let lines = || self.gate.access_log();
        wait_for(&format!("{requests} lines"), || async { lines().len() == requests }).await;
        let charged = |line: &Value| line["credits"].as_u64().unwrap();
        self.gate.wait_used(&self.token, lines().iter().map(charged).sum()).await;
    }
}

#[tokio::test]
async fn what_goes_to_the_upstream_is_the_same_either_way() {
    let both = Both::start(Plan::new).await;
    let plain = Ask::get(&both.token.on(DATA));
    both.ask("plain", plain.clone()).await;
    both.ask("again", plain.clone()).await;
    assert_eq!(both.upstream.connections(), 2, "one of each way, and both are kept");
    let token = both.token.value.as_str();
    let bearer = format!("Bearer {token}");
    let referer = format!("https://a.example/?token={token}");
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("a bearer", &[("authorization", &bearer)]),
        (
            "a browser's",
            &[
                ("Accept", "text/html, */*"),
                ("Accept-Encoding", "gzip, br"),
                ("Cookie", "a=1; b=2"),
                ("If-None-Match", "\"x\""),
                ("Connection", "keep-alive"),
                ("sec-ch-ua", "\"Chromium\";v=\"140\""),
                ("Cache-Control", "no-cache"),
            ],
        ),
        ("the last on its connection", &[("Connection", "Close")]),
        ("a connection's own field", &[("Connection", "X-Mine"), ("X-Mine", "1")]),
        ("the same name twice", &[("X-Twice", "1"), ("x-twice", "2"), ("X-Other", "3"), ("X-TWICE", "4")]),
        ("cookies in pieces", &[("Cookie", "a=1"), ("Cookie", "b=2")]),
        ("a token where none should be", &[("Referer", &referer), ("User-Agent", token)]),
        (
            "others' words",
            &[
                ("X-Forwarded-For", "203.0.113.9"),
                ("Forwarded", "for=203.0.113.9"),
                ("X_Forwarded_Host", "evil.example"),
                ("X-Tollgate-Account", "other"),
                ("X-Request-Id", "mine"),
                ("X-Original-URL", "/other"),
            ],
        ),
        ("a host of its own", &[("Host", "data.example:8443")]),
        ("an empty value", &[("X-Empty", "")]),
        ("latin", &[("X-Latin", "caf\u{e9}")]),
        ("a trace", &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]),
        ("no body", &[("Content-Length", "0")]),
        ("a range", &[("Range", "bytes=0-3")]),
        ("keeping alive", &[("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")]),
    ];
    for (what, headers) in rows {
        let with = |ask: Ask, (name, value): &(&str, &str)| ask.header(name, value);
        let ask = headers.iter().fold(plain.clone(), with);
        assert_eq!(both.ask(what, ask).await.status, 200, "{what}");
    }
    let target = both.token.on("/v1/data/CORE/%51UOTE/a%252fb/%c3%a9?x=%e2%82%ac&y='");
    both.ask("a target in another form", Ask::get(&target)).await;
    both.settle().await;
}

#[tokio::test]
async fn what_a_route_or_an_upstream_changes_is_changed_either_way() {
    const ROUTES: &str = "
  - path: /v1/data/{workspace}/{dataset}/**
    upstream: datasets
    access: dataset
    dataset: \"{workspace}/{dataset}\"
    credits: 0
    per_record: 1
    rewrite:
      path: /in/{dataset}/{rest}
      host: inner.example
      request_headers: {set: {X-Set: here, User-Agent: gate}, remove: [X-Secret, Referer]}
      response_headers: {set: {X-From: inner}, remove: [Server]}
";
    let plan = |upstream: &Upstream| Plan::new(upstream).routes(ROUTES);
    let both = Both::start(plan).await;
    let ask = Ask::get(&both.token.on(DATA))
        .header("x-secret", "1")
        .header("X-SET", "theirs")
        .header("user-agent", "x");
    let ask = ask.header("Accept-Encoding", "gzip").header("Range", "bytes=0-1").header("X-Test", "json=7");
    let answer = both.ask("a rewrite", ask).await;
    assert_eq!((answer.status, answer.header("x-from")), (200, Some("inner")));
    let seen = both.upstream.seen()[0].clone();
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/in/QUOTE/AAPL", Some("inner.example")));
    assert_eq!((seen.header("x-set"), seen.header("x-secret")), (Some("here"), None));
    assert_eq!(both.gate.access_log()[0]["credits"], 7);
    both.settle().await;

    let plan = |upstream: &Upstream| Plan::new(upstream).upstream_extra("host: server");
    let both = Both::start(plan).await;
    both.ask("the server's own name", Ask::get(&both.token.on(DATA))).await;
    let host = both.upstream.address().to_string();
    assert_eq!(both.upstream.seen()[0].header("host"), Some(host.as_str()));
}

/// Answers as servers give them, and as none should: (what, the bytes, whether the connection ends).
const ANSWERS: &[(&str, &str, bool)] = &[
    ("nothing", "HTTP/1.1 204 No Content\r\n\r\n", false),
    ("an empty body", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
    (
        "not modified, and a length",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
        false,
    ),
    ("a refusal", "HTTP/1.1 404 Nowhere To Be Found\r\nContent-Length: 2\r\n\r\nno", false),
    ("an error", "HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\nno", false),
    ("an unknown status", "HTTP/1.1 299 Strange\r\nContent-Length: 2\r\n\r\nok", false),
    ("no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", false),
    ("cases", "HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\nx-MiXeD: 1\r\nX-Mixed: 2\r\n\r\nok", false),
    (
        "cookies",
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
        false,
    ),
    (
        "chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        false,
    ),
    (
        "trailers",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        false,
    ),
    ("until the end", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it", true),
    ("nothing until the end", "HTTP/1.1 200 OK\r\n\r\n", true),
    ("of old", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
    ("of old, kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", false),
    ("the last", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", true),
    ("the last, silently", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
    (
        "hints",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        false,
    ),
    ("go on", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
    (
        "a length beside chunks",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        false,
    ),
    ("one length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", true),
    ("no length", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", true),
    ("less than it said", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", true),
    ("chunks that break off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", true),
    (
        "chunks that are none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
        true,
    ),
    (
        "another answer behind",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale",
        false,
    ),
    (
        "another answer behind chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale",
        false,
    ),
    (
        "another answer behind none",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale",
        false,
    ),
    (
        "a change of protocol",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        true,
    ),
    ("no HTTP", "SSH-2.0-OpenSSH_9.9\r\n", true),
    ("a head without an end", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", true),
    ("a field without a name", "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nok", true),
    ("a blank before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", false),
    ("a field in two lines", "HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\nContent-Length: 2\r\n\r\nok", false),
    ("nothing at all", "", true),
];

#[tokio::test]
async fn what_an_upstream_answers_is_told_the_same_either_way() {
    let both = Both::start(Plan::new).await;
    let ask = Ask::get(&both.token.on(DATA));
    for (what, bytes, ends) in ANSWERS {
        let name = if *ends { "raw-end" } else { "raw" };
        both.upstream.behave(Some(&format!("{name}={bytes}")));
        both.ask_once_each(what, &ask).await;
        // What stood behind an answer is nobody's.
        both.upstream.behave(None);
        for _ in 0..2 {
            let answer = both.ask(&format!("after {what}"), ask.clone()).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "{\"ok\":true}"), "after {what}");
        }
    }
    both.settle().await;
}

impl Both {
    /// Asks both ways, each on a connection of its own, and compares all that comes until the answer's or the connection's end.
    async fn ask_once_each(&self, what: &str, ask: &Ask) {
        let mut all = Vec::new();
        for ask in [ask.clone(), ask.clone().header("TE", "trailers")] {
            let ask = ask.header("Connection", "close");
            self.asked.update(|asked| asked + 1);
            let came = tokio::time::timeout(PATIENCE, answers(self.gate.address, &ask)).await;
            all.push(came.unwrap_or_else(|_| panic!("{what}: no answer")));
        }
        assert_eq!(all[0], all[1], "{what}");
    }
}

/// All answers to one request, the interim ones too.
async fn answers(address: SocketAddr, ask: &Ask) -> Vec<String> {
    let mut connection = Connection::open(address).await;
    connection.write(&ask.to_bytes(address)).await.expect("sent");
    let mut all = Vec::new();
    loop {
        let Ok(head) = connection.read_head().await else { break };
        let is_interim = head.status < 200;
        let answer = if is_interim { Ok(head) } else { connection.read_rest(head, false).await };
        // How much comes of a body that breaks off is nothing to rely on.
        let Ok(answer) = answer else { break };
        all.push(format!("{:?}", told(&answer)));
        if !is_interim {
            break;
        }
    }
    all
}

#[tokio::test]
async fn long_and_slow_answers_come_whole_either_way() {
    let both = Both::start(Plan::new).await;
    for mood in ["bytes=3000000", "bytes=1461", "json=20000", "lines=500", "events=20", "ticks=10"] {
        let ask = Ask::get(&both.token.on(DATA)).header("X-Test", mood);
        let answer = both.ask(mood, ask).await;
        assert_eq!(answer.status, 200, "{mood}");
    }
    both.settle().await;
}

#[tokio::test]
async fn answers_that_come_a_byte_at_a_time_are_read_either_way() {
    let both = Both::start(Plan::new).await;
    for (what, bytes, _) in ANSWERS.iter().filter(|(_, _, ends)| !ends) {
        both.upstream.behave(Some(&format!("slow={bytes}")));
        both.ask_once_each(what, &Ask::get(&both.token.on(DATA))).await;
    }
    both.upstream.behave(None);
    both.ask("then", Ask::get(&both.token.on(DATA))).await;
    both.settle().await;
}

#[tokio::test]
async fn a_connection_that_its_server_closes_while_it_is_idle_costs_nobody_a_request() {
    let both = Both::start(Plan::new).await;
    let ask = Ask::get(&both.token.on(DATA));
    for round in 0..20 {
        both.upstream.behave(Some("raw-end=HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        assert_eq!(both.ask_plainly(ask.clone()).await.status, 200, "{round}");
        both.upstream.behave(None);
        assert_eq!(both.ask_plainly(ask.clone()).await.status, 200, "{round}");
    }
    both.settle().await;
}

#[tokio::test]
async fn a_client_that_leaves_lets_go_of_the_upstream_and_pays_nothing() {
    let both = Both::start(Plan::new).await;
    let ask = Ask::get(&both.token.on(DATA)).header("X-Test", "hang");
    for _ in 0..3 {
        let mut connection = Connection::open(both.gate.address).await;
        let before = both.upstream.count();
        connection.write(&ask.to_bytes(both.gate.address)).await.expect("sent");
        both.asked.update(|asked| asked + 1);
        wait_for("the upstream to be asked", || async { both.upstream.count() > before }).await;
        drop(connection);
    }
    // The gate writes a request's line once it has let go of it.
    wait_for("three lines", || async { both.gate.access_log().len() == 3 }).await;
    assert!(both.gate.access_log().iter().all(|line| line["status"] == 0 && line["credits"] == 0));
    both.settle().await;
}

#[tokio::test]
async fn an_upstream_that_fails_is_told_of_the_same_way() {
    let plan = |upstream: &Upstream| Plan::new(upstream).upstream_extra("read_timeout: 300ms");
    let both = Both::start(plan).await;
    let ask = |mood: &str| Ask::get(&both.token.on(DATA)).header("X-Test", mood);
    assert_eq!(both.ask("silence", ask("hang")).await.status, 504);
    for mood in ["cut", "cut-body", "half=3", "stall=10"] {
        both.ask_once_each(mood, &ask(mood)).await;
    }
    assert_eq!(both.ask("then", ask("")).await.status, 200);
    both.settle().await;
}
