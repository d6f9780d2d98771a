//! What an upstream gets, and what a client gets back: laws 7 and 8.

use std::collections::HashSet;

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::evidence;
use crate::harness::gate::{Gate, Plan};
use crate::harness::upstream::{Seen, Upstream};

async fn gate() -> (Upstream, Gate) {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    (upstream, gate)
}

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

fn assert_sealed(seen: &[Seen]) {
    let text = format!("{seen:?}");
    evidence::add("upstream", text.as_bytes());
    evidence::assert_sealed("the upstream's requests", text.as_bytes());
}

#[tokio::test]
async fn law_7_sealed() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let value = &token.value;
    let encoded = format!("p%6B{}", &value[2..]);
    let asks = [
        Ask::get(&token.on(DATA)),
        Ask::get(&format!("{DATA}?%74oken={value}&a=1")),
        Ask::get(&format!("{DATA}?a=1&token={encoded}&b=2")),
        Ask::get(DATA).header("Authorization", &format!("Bearer {value}")),
        Ask::get(DATA).header("authorization", &format!("bEARER   {value}")),
        Ask::get(DATA).header("X-API-Key", value).header("X_API_KEY", value),
        Ask::get(&token.on(DATA)).header("Referer", &format!("https://a.example/?token={value}")),
        Ask::get(&token.on(DATA)).header("Referer", &format!("https://a.example/?token={encoded}")),
        Ask::get(&token.on(DATA)).header("Cookie", &format!("token={value}; other=1")),
        Ask::get(&token.on(DATA)).header("X-Request-Id", value),
        Ask::get(&token.on(DATA)).header("User-Agent", &format!("app/{value}")),
        Ask::get(&token.on(DATA)).header("X-Tollgate-Token-Id", value),
        Ask::get(&token.on(DATA)).header("Proxy-Authorization", &format!("Bearer {value}")),
        Ask::get(&token.on(DATA)).header("Host", &format!("{value}.example")),
        Ask::get(&token.on(DATA))
            .header("X-Forwarded-For", value)
            .header("Forwarded", &format!("for={value}")),
        Ask::get(&token.on(DATA)).header("X-Forwarded-Host", value),
    ];
    let expected = asks.len();
    for ask in asks {
        let answer = gate.ask(ask.clone()).await;
        assert_eq!(answer.status, 200, "{ask:?}: {}", answer.text());
        let headers = format!("{:?}", answer.headers);
        evidence::assert_sealed("the answer's headers", headers.as_bytes());
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), expected);
    assert_sealed(&seen);
    assert!(seen.iter().all(|seen| seen.header("x-tollgate-token-id") == Some(&token.id)));
    // Refusals, too, say nothing of what they were given; the harness looks into each body, log and metric.
    for ask in [
        Ask::get(&format!("/v1/nowhere/{value}?token={value}")),
        Ask::get(&format!("{DATA}/{value}?token={value}")),
        Ask::new(value, &token.on(DATA)),
        Ask::get(&token.on(DATA)).header("Origin", &format!("https://{value}.example")),
        Ask::get(&token.on(DATA)).header("X-Test", "cut"),
        Ask::get(&token.on(DATA)).header(value, value),
    ] {
        let answer = gate.ask(ask).await;
        evidence::assert_sealed("an answer", &answer.body);
        evidence::assert_sealed("an answer's headers", format!("{:?}", answer.headers).as_bytes());
    }
    // The secret token is sealed in the store, and no file but its own holds it.
    let secret = gate.secret();
    let mut open = vec![gate.path("state")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("the state directory") {
            let entry = entry.expect("an entry");
            if entry.path().is_dir() {
                open.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).expect("a file");
            let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert_eq!(holds, entry.file_name() == "secret-token", "{:?}", entry.path());
        }
    }
}

#[tokio::test]
async fn the_first_secret_token_and_the_master_key_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_upstream, gate) = gate().await;
    for (name, mode) in [("state", 0o700), ("state/secret-token", 0o600), ("state/master-key", 0o600)] {
        let found = std::fs::metadata(gate.path(name)).expect("a file").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let secret = gate.secret();
    assert!(gate.events().contains("state/secret-token"), "it says where the token is");
    assert!(!gate.events().contains(&secret), "but not what it is");
}

#[tokio::test]
async fn law_8_what_was_judged_is_what_is_sent() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/*", "operations": ["read"]}]})).await;
    let value = &token.value;
    // (sent, received by the upstream)
    let table = [
        (format!("/v1/data/CORE/QUOTE?token={value}"), "/v1/data/CORE/QUOTE"),
        (format!("/v1/data/CORE/QUOTE/?token={value}"), "/v1/data/CORE/QUOTE/"),
        (format!("//v1//data/CORE///QUOTE?token={value}"), "/v1/data/CORE/QUOTE"),
        (format!("/v1/data/CORE/%51UOTE/%61?token={value}"), "/v1/data/CORE/QUOTE/a"),
        (format!("/v1/data/CORE/QUOTE/%c3%a9?token={value}"), "/v1/data/CORE/QUOTE/%C3%A9"),
        (format!("/v1/data/CORE/QUOTE/%7euser?token={value}"), "/v1/data/CORE/QUOTE/~user"),
        (format!("/v1/data/CORE/QUOTE/a%252fb?token={value}"), "/v1/data/CORE/QUOTE/a%252fb"),
        (format!("/v1/data/MY/A,B/k1,k2?token={value}"), "/v1/data/MY/A,B/k1,k2"),
        (format!("/v1/data/MY/A%2CB?token={value}"), "/v1/data/MY/A%2CB"),
        (format!("/v1/keep/X/a%2fb?token={value}"), "/v1/keep/X/a%2Fb"),
        (format!("/v1/data/CORE/QUOTE?token={value}&last=5"), "/v1/data/CORE/QUOTE?last=5"),
        (format!("/v1/data/CORE/QUOTE?last=5&token={value}"), "/v1/data/CORE/QUOTE?last=5"),
        (format!("/v1/data/CORE/QUOTE?a=1&token={value}&b=2"), "/v1/data/CORE/QUOTE?a=1&b=2"),
        (format!("/v1/data/CORE/QUOTE?limit=1&&token={value}"), "/v1/data/CORE/QUOTE?limit=1&"),
        (format!("/v1/data/CORE/QUOTE?token={value}&token={value}&x"), "/v1/data/CORE/QUOTE?x"),
        (
            format!("/v1/data/CORE/QUOTE?q=%e2%82%ac+%20&Token=1&tokens=2&%74oken={value}&z=a/b?c"),
            "/v1/data/CORE/QUOTE?q=%e2%82%ac+%20&Token=1&tokens=2&z=a/b?c",
        ),
    ];
    for (sent, received) in table {
        let before = upstream.count();
        let answer = gate.ask(Ask::get(&sent)).await;
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        assert_eq!(upstream.seen()[before].target, received, "{sent}");
    }
    let absolute = format!("http://{}/v1/data/CORE/QUOTE?token={value}", gate.address);
    assert_eq!(gate.ask(Ask::get(&absolute)).await.status, 200);
    assert_eq!(upstream.seen().last().expect("a request").target, "/v1/data/CORE/QUOTE");
    assert_sealed(&upstream.seen());
}

#[tokio::test]
async fn the_upstream_learns_who_asks_and_nothing_a_client_made_up() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let ask = Ask::new("POST", &token.on("/v1/free/x"))
        .header("X-Tollgate-Token-Id", "tok_forged")
        .header("X-Tollgate-Account", "forged")
        .header("X_Tollgate_Account", "forged")
        .header("X-Request-Id", "forged")
        .header("X-Forwarded-For", "198.51.100.1")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=198.51.100.1")
        .header("X-HTTP-Method-Override", "DELETE")
        .header("X-HTTP-Method", "DELETE")
        .header("X-Method-Override", "DELETE")
        .header("X-Original-URL", "/admin")
        .header("X-Rewrite-URL", "/admin")
        .header("Connection", "X-Tollgate-Account")
        .header("X-Own", "kept")
        .header("Content-Type", "undefined")
        .header("Host", "api.example");
    // Core access reads; writing needs the secret token here.
    let secret = gate.secret();
    let ask = ask.header("Accept", "*/*").body("[object Object]");
    let refused = gate.ask(ask.clone()).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let ask = Ask::new("POST", "/v1/free/x")
        .header("Authorization", &format!("Bearer {secret}"))
        .header("X-Tollgate-Account", "forged")
        .header("X_Tollgate_Account", "forged")
        .header("X-Request-Id", "forged")
        .header("X-Forwarded-For", "198.51.100.1")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=198.51.100.1")
        .header("X-HTTP-Method-Override", "DELETE")
        .header("X-Original-URL", "/admin")
        .header("Connection", "X-Tollgate-Account")
        .header("X-Own", "kept")
        .header("Content-Type", "undefined")
        .header("Host", "api.example")
        .body("[object Object]");
    let answer = gate.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.only();
    assert_eq!((seen.method.as_str(), seen.body_length), ("POST", 15));
    assert_eq!(seen.header("x-tollgate-account"), Some("default"));
    assert!(seen.header("x-tollgate-token-id").is_some_and(|id| id.starts_with("tok_")));
    assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("api.example"));
    assert_eq!(seen.header("host"), Some("api.example"));
    assert_eq!((seen.header("x-own"), seen.header("content-type")), (Some("kept"), Some("undefined")));
    let text = format!("{:?}", seen.headers);
    assert!(!text.contains("forged") && !text.contains("198.51.100.1") && !text.contains("DELETE"), "{text}");
    assert!(!text.contains("/admin"), "{text}");
    assert_sealed(&upstream.seen());
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_nobody_else() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra("trusted_proxies: [127.0.0.1/32]").start().await;
    let token = gate.token(json!({"allowed_domains": ["203.0.113.0/24"]})).await;
    let from = |address: &str| Ask::get(&token.on(DATA)).header("X-Forwarded-For", address);
    assert_eq!(gate.ask(from("198.51.100.7")).await.status, 403);
    assert_eq!(gate.ask(from("203.0.113.9, 198.51.100.7")).await.status, 403);
    assert_eq!(upstream.count(), 0);
    assert_eq!(gate.ask(from("198.51.100.7, 203.0.113.9")).await.status, 200);
    let seen = upstream.only();
    assert_eq!(seen.header("x-forwarded-for"), Some("198.51.100.7, 203.0.113.9, 127.0.0.1"));
    crate::harness::wait_for("the log", || async { gate.access_log().len() == 3 }).await;
    assert!(gate.access_log().iter().any(|line| line["status"] == 200 && line["client"] == "203.0.113.9"));
}

#[tokio::test]
async fn the_upstreams_answer_comes_back_as_it_is() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"credit_limit": {"core": {"credits": 10, "period": "day"}}})).await;
    let answer = gate.ask(Ask::get(&token.on(DATA))).await;
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.text(), "{\"ok\":true}");
    assert_eq!(answer.header("x-credits-used"), Some("1"));
    assert_eq!(answer.header("x-credits-remaining"), Some("9"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"credits\";q=10;w=86400"));
    assert!(answer.header("ratelimit").is_some_and(|value| value.starts_with("\"credits\";r=9;t=")));
    let answer = gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "header=X-Credits-Used:999")).await;
    assert_eq!(answer.header("x-credits-used"), Some("2"));
    let answer = gate.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=404")).await;
    assert_eq!((answer.status, answer.text().as_str()), (404, "{\"ok\":true}"));
    assert_eq!(answer.header("x-credits-used"), Some("2"), "a failure is given back");
    assert_eq!(answer.header("x-credits-remaining"), Some("8"));
    let closing = gate.ask(Ask::get(&token.on(DATA)).header("Connection", "close")).await;
    assert_eq!(closing.header("connection"), Some("close"));
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn servers_take_turns_connections_are_kept_and_a_dead_server_is_passed_over() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let mut gate = Plan::new(&one).servers(&[one.address(), two.address()]).start().await;
    let token = gate.token(json!({})).await;
    let mut connection = crate::harness::client::Connection::open(gate.address).await;
    for _ in 0..20 {
        assert_eq!(connection.send(&Ask::get(&token.on(DATA))).await.expect("an answer").status, 200);
    }
    assert_eq!((one.count(), two.count()), (10, 10));
    assert!(one.connections() <= 2 && two.connections() <= 2, "{} {}", one.connections(), two.connections());

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let mut gate = Plan::new(&one).servers(&[free, one.address()]).start().await;
    let token = gate.token(json!({})).await;
    for _ in 0..6 {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    gate.wait_used(&token, 6).await;
}

#[tokio::test]
async fn one_log_line_a_request_tells_what_was_decided() {
    let (_upstream, mut gate) = gate().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["read"]}]})).await;
    let passed = gate.ask(Ask::get(&token.on("/v1/data/MY/CARS/audi"))).await;
    let refused = gate.ask(Ask::get(&token.on("/v1/data/MY/BIKES"))).await;
    let lost = gate.ask(Ask::get("/v1/data/MY/BIKES")).await;
    crate::harness::wait_for("the log", || async { gate.access_log().len() == 3 }).await;
    let log = gate.access_log();
    let line = |answer: &crate::harness::client::Answer| {
        let id = answer.header("x-request-id").expect("an id");
        log.iter().find(|line| line["request_id"] == id).expect("a line").clone()
    };
    let line_passed = line(&passed);
    assert_eq!(line_passed["route"], "/{version}/data/{workspace}/{dataset}/**");
    assert_eq!(line_passed["datasets"], json!(["MY/CARS"]));
    assert_eq!(line_passed["token_id"], token.id.as_str());
    assert_eq!((&line_passed["verdict"], &line_passed["status"]), (&json!("pass"), &json!(200)));
    assert_eq!((&line_passed["credits"], &line_passed["pool"]), (&json!(1), &json!("core")));
    assert_eq!((&line_passed["operation"], &line_passed["upstream"]), (&json!("read"), &json!("datasets")));
    assert_eq!(line_passed["bytes_out"], 11);
    for timing in ["total_ms", "gate_ms", "upstream_ms"] {
        assert!(line_passed[timing].as_f64().is_some_and(|ms| ms > 0.0), "{timing} {line_passed}");
    }
    let line_refused = line(&refused);
    assert_eq!((&line_refused["verdict"], &line_refused["status"]), (&json!("dataset_denied"), &json!(403)));
    assert_eq!((&line_refused["credits"], &line_refused["upstream"]), (&json!(0), &json!(null)));
    assert_eq!(line(&lost)["token_id"], json!(null));

    let route = "/{version}/data/{workspace}/{dataset}/**";
    for (verdict, status, count) in
        [("pass", "2xx", 1), ("dataset_denied", "4xx", 1), ("token_missing", "4xx", 1)]
    {
        let line =
            format!("tollgate_requests_total{{route=\"{route}\",status=\"{status}\",verdict=\"{verdict}\"}}");
        assert_eq!(gate.metric(&line).await, count, "{line}");
    }
    assert_eq!(gate.metric("tollgate_credits_total{outcome=\"charged\",pool=\"core\"}").await, 1);
}

#[tokio::test]
async fn each_answer_on_a_connection_tells_its_own_fields_once() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"credit_limit": {"core": {"credits": 1000, "period": "month"}}})).await;
    let good = || Ask::get(&token.on(DATA)).header("Origin", "https://app.example");
    let told = ["X-Credits-Used", "X-Credits-Remaining", "RateLimit", "RateLimit-Policy"];
    // (request, status, whether credits are told)
    let table = [
        (good(), 200, true),
        (good().header("X-Test", "header=X-Credits-Used:999"), 200, true),
        (good().header("X-Test", "header=X-Request-Id:theirs"), 200, true),
        (good().header("X-Test", "header=Access-Control-Allow-Origin:*"), 200, true),
        (Ask::get("/v1/nowhere"), 404, false),
        (good().header("X-Test", "status=500"), 500, true),
        (Ask::new("HEAD", &token.on(DATA)).header("Origin", "https://app.example"), 200, true),
        (Ask::get(DATA), 401, false),
        (good(), 200, true),
        (good().header("X-Test", "cut"), 502, false),
    ];
    let mut connection = Connection::open(gate.address).await;
    let mut ids = HashSet::new();
    for (ask, status, tells) in table {
        let answer = connection.send(&ask).await.expect("an answer");
        assert_eq!(answer.status, status, "{ask:?}: {}", answer.text());
        let values = |name: &str| -> Vec<String> {
            let found = answer.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).collect()
        };
        let id = values("X-Request-Id");
        assert!(id.len() == 1 && ids.insert(id[0].clone()) && id[0].len() == 26, "{ask:?}: {id:?}");
        for name in told {
            assert_eq!(values(name).len(), usize::from(tells), "{ask:?}: {name}");
        }
        assert_ne!(values("X-Credits-Used"), ["999"], "{ask:?}");
        assert_eq!(values("Vary"), ["Origin"], "{ask:?}");
        if tells {
            assert_eq!(values("Access-Control-Allow-Origin"), ["https://app.example"], "{ask:?}");
        }
    }
    // The last one was tried twice: the kept connection could have been closed just then.
    assert_eq!(upstream.count(), 9);
}
