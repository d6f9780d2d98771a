//! Every refusal of the gate, told as it should be, and never seen by the upstream.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::upstream::Upstream;

async fn gate() -> (Upstream, Gate) {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    (upstream, gate)
}

/// A refusal is an RFC 9457 problem with this status and code, and the upstream saw nothing of it.
fn assert_refused(upstream: &Upstream, answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    let body = answer.json();
    assert_eq!(body["code"], code, "{what}");
    assert_eq!(body["status"], status, "{what}");
    assert_eq!(body["type"], format!("urn:tollgate:problem:{code}"), "{what}");
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{what}");
    for field in ["title", "detail"] {
        assert!(body[field].as_str().is_some_and(|text| text.len() > 5), "{what}: {body}");
    }
    assert_eq!(upstream.count(), 0, "{what}: the upstream saw it");
}

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

#[tokio::test]
async fn tells_every_refusal_of_a_credential() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let other = gate.token(json!({})).await;
    let unknown = "pk_00000000000000000000000000000000";
    let bearer = format!("Bearer {}", token.value);
    let table: Vec<(&str, Ask, u16, &str)> = vec![
        ("no credential", Ask::get(DATA), 401, "token_missing"),
        ("an empty one", Ask::get(&format!("{DATA}?token=")), 401, "token_missing"),
        ("an unknown one", Ask::get(&format!("{DATA}?token={unknown}")), 403, "token_invalid"),
        ("a malformed one", Ask::get(&format!("{DATA}?token=hello")), 403, "token_invalid"),
        (
            "an upper-case one",
            Ask::get(&format!("{DATA}?token={}", token.value.to_uppercase())),
            403,
            "token_invalid",
        ),
        (
            "one with more behind it",
            Ask::get(&format!("{DATA}?token={}0", token.value)),
            403,
            "token_invalid",
        ),
        ("a malformed bearer", Ask::get(DATA).header("Authorization", "Bearer x"), 403, "token_invalid"),
        ("basic credentials", Ask::get(DATA).header("Authorization", "Basic eDp5"), 401, "token_missing"),
        (
            "two that differ",
            Ask::get(&token.on(DATA)).header("X-API-Key", &other.value),
            400,
            "token_ambiguous",
        ),
        (
            "two in the query",
            Ask::get(&format!("{}&token={}", token.on(DATA), other.value)),
            400,
            "token_ambiguous",
        ),
        (
            "two in the query, one in disguise",
            Ask::get(&format!("{}&%74oken={}", token.on(DATA), other.value)),
            400,
            "token_ambiguous",
        ),
        (
            "a good and a malformed one",
            Ask::get(&token.on(DATA)).header("Authorization", "Bearer zzz"),
            400,
            "token_ambiguous",
        ),
        (
            "two API keys",
            Ask::get(DATA).header("X-API-Key", &token.value).header("X-API-Key", &other.value),
            400,
            "token_ambiguous",
        ),
        (
            "two bearers",
            Ask::get(DATA).header("Authorization", &bearer).header("Authorization", "Bearer x"),
            400,
            "token_ambiguous",
        ),
    ];
    for (what, ask, status, code) in table {
        let answer = gate.ask(ask).await;
        assert_refused(&upstream, &answer, status, code, what);
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{what}");
    }
}

#[tokio::test]
async fn tells_every_refusal_of_a_policy() {
    let (upstream, mut gate) = gate().await;
    let table: Vec<(&str, Value, &str, u16, &str)> = vec![
        ("disabled", json!({"status": "disabled"}), DATA, 403, "token_disabled"),
        ("signed", json!({"signed_requests": true}), DATA, 401, "signature_missing"),
        ("domain", json!({"allowed_domains": ["www.example.com"]}), DATA, 403, "domain_denied"),
        ("no core", json!({"core_access": false}), DATA, 403, "core_denied"),
        ("no premium", json!({}), "/v1/premium/X", 403, "premium_denied"),
        ("no grant", json!({}), "/v1/data/MY/CARS", 403, "dataset_denied"),
        ("signed route", json!({}), "/v1/signed/x", 401, "signature_missing"),
        ("no credits", limited(0), DATA, 402, "credits_exhausted"),
        ("too few credits", limited(9), "/v1/ten/x", 402, "credits_exhausted"),
    ];
    for (what, fields, path, status, code) in table {
        let token = gate.token(json!({})).await;
        gate.edit(&token, fields).await;
        let answer = gate.ask(Ask::get(&token.on(path))).await;
        assert_refused(&upstream, &answer, status, code, what);
        gate.wait_used(&token, 0).await;
    }
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["read"]}]})).await;
    let answer = gate.ask(Ask::new("DELETE", &token.on("/v1/data/MY/CARS/audi"))).await;
    assert_refused(&upstream, &answer, 403, "dataset_denied", "delete");
    assert!(answer.text().contains("delete the data set MY/CARS"), "{}", answer.text());
    let answer = gate.ask(Ask::get(&token.on("/v1/data/my/cars,bikes"))).await;
    assert_refused(&upstream, &answer, 403, "dataset_denied", "batch");
    assert!(answer.text().contains("my/bikes"), "{}", answer.text());
    let answer = gate.admin("DELETE", &format!("/v1/tokens/{}", token.id), None).await;
    assert!(answer.status < 300, "{}", answer.text());
    assert_refused(&upstream, &gate.ask(Ask::get(&token.on(DATA))).await, 403, "token_revoked", "revoked");
}

#[tokio::test]
async fn a_token_ends_when_its_time_is_over() {
    let (_upstream, mut gate) = gate().await;
    let soon = jiff::Timestamp::now() + std::time::Duration::from_millis(1500);
    let token = gate.token(json!({"expires_at": soon.to_string()})).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    crate::harness::wait_for("the token to expire", || async {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        answer.status == 403 && answer.code() == "token_expired"
    })
    .await;
    assert!(jiff::Timestamp::now() >= soon);
}

#[tokio::test]
async fn tells_when_waiting_helps() {
    let (upstream, mut gate) = gate().await;
    let hourly = json!({"credit_limit": {"core": {"credits": 0, "period": "hour"}}});
    let hourly = gate.token(hourly).await;
    let answer = gate.ask(Ask::get(&hourly.on(DATA))).await;
    assert_refused(&upstream, &answer, 402, "credits_exhausted", "hourly");
    let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=3600).contains(&wait), "{wait}");
    let never = gate.token(json!({"credit_limit": {"core": {"credits": 0, "period": "none"}}})).await;
    let answer = gate.ask(Ask::get(&never.on(DATA))).await;
    assert_refused(&upstream, &answer, 402, "credits_exhausted", "never");
    assert_eq!(answer.header("retry-after"), None);
}

#[tokio::test]
async fn throttles_a_token_to_its_rate() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"rate_limit": {"requests_per_second": 1, "burst": 3}})).await;
    for _ in 0..3 {
        assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    }
    let answer = gate.ask(Ask::get(&token.on(DATA))).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(upstream.count(), 3);
}

#[tokio::test]
async fn an_account_budget_binds_all_its_tokens_together() {
    let (upstream, mut gate) = gate().await;
    let (one, two) = (gate.token(json!({})).await, gate.token(json!({})).await);
    let budget = json!({"budget": {"core": {"credits": 3, "period": "month"}}});
    assert_eq!(gate.admin("PATCH", "/v1/account", Some(budget)).await.status, 200);
    let mut passed = 0;
    for token in [&one, &two, &one, &two] {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        if answer.status == 200 {
            passed += 1;
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (402, "budget_exhausted"));
            assert!(answer.header("retry-after").is_some());
        }
    }
    assert_eq!((passed, upstream.count()), (3, 3));
}

#[tokio::test]
async fn law_9_closed_by_default() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    for (what, ask, status, code) in [
        ("no route", Ask::get(&token.on("/")), 404, "no_route"),
        ("no such path", Ask::get(&token.on("/v1/other")), 404, "no_route"),
        ("case matters", Ask::get(&token.on("/v1/DATA/CORE/X")), 404, "no_route"),
        ("a path cut short", Ask::get(&token.on("/v1/data/CORE")), 404, "no_route"),
        ("another method", Ask::new("PROPFIND", &token.on(DATA)), 405, "method_not_allowed"),
        ("options without a preflight", Ask::new("OPTIONS", &token.on(DATA)), 405, "method_not_allowed"),
        ("trace", Ask::new("TRACE", &token.on(DATA)), 405, "method_not_allowed"),
        ("a method in lower case", Ask::new("get", &token.on(DATA)), 405, "method_not_allowed"),
    ] {
        let answer = gate.ask(ask).await;
        assert_refused(&upstream, &answer, status, code, what);
        let allow = answer.header("allow");
        assert_eq!(allow.is_some(), status == 405, "{what}");
        assert!(
            allow.is_none_or(|allow| allow == "GET, HEAD, POST, PUT, PATCH, DELETE"),
            "{what}: {allow:?}"
        );
    }
}

#[tokio::test]
async fn refuses_what_has_no_canonical_form() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/*", "operations": ["read"]}]})).await;
    for path in [
        "/v1/data/CORE/../MY/X",
        "/v1/data/CORE/%2e%2e/MY/X",
        "/v1/data/CORE/%2E./X",
        "/v1/data/CORE/./X",
        "/v1/data/CORE/X/..;/Y",
        "/v1/data/CORE/X%2fY",
        "/v1/data/CORE/X%5cY",
        "/v1/data/CORE/X\\Y",
        "/v1/data/CORE/X%00",
        "/v1/data/CORE/X%0d%0aY",
        "/v1/data/CORE/X%",
        "/v1/data/CORE/X%4",
        "/v1/data/CORE/X%zz",
        "/v1/data/CORE/X#y",
        "/v1/data/MY/A%20B",
        "/v1/data/MY/AxB?batchSeparator=x",
        "v1/data/CORE/X",
        "*",
        "http://other.example/v1/data/CORE/X",
        "ftp://other.example/v1/data/CORE/X",
    ] {
        let answer = gate.ask(Ask::get(&token.on(path))).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        if !answer.body.is_empty() {
            assert_refused(&upstream, &answer, 400, "bad_target", path);
        }
        assert_eq!(upstream.count(), 0, "{path}");
    }
    let inside = format!("/v1/data/CORE/{}", token.value);
    let beside = format!("{}&apikey={}", token.on(DATA), token.value);
    let disguised = format!("{}&apikey=%70{}", token.on(DATA), &token.value[1..]);
    for target in [token.on(&inside), beside, disguised] {
        assert_refused(&upstream, &gate.ask(Ask::get(&target)).await, 400, "bad_target", "a token elsewhere");
    }
}

#[tokio::test]
async fn answers_a_head_request_without_a_body() {
    let (upstream, gate) = gate().await;
    let mut connection = Connection::open(gate.address).await;
    let refused = connection.send(&Ask::new("HEAD", DATA)).await.expect("an answer");
    assert_eq!((refused.status, refused.body.len()), (401, 0));
    assert!(refused.header("content-length").is_some());
    // The connection is in step: the next answer on it is a whole one.
    let next = connection.send(&Ask::get(DATA)).await.expect("an answer");
    assert_refused(&upstream, &next, 401, "token_missing", "after HEAD");
}

#[tokio::test]
async fn a_refused_body_does_not_upset_the_connection() {
    let (upstream, gate) = gate().await;
    let ask = Ask::new("POST", DATA).header("Content-Type", "application/json").body(vec![b'x'; 100_000]);
    let answer = gate.ask(ask).await;
    assert_refused(&upstream, &answer, 401, "token_missing", "a body");
}

fn secret(gate: &Gate) -> Token {
    Token { id: String::new(), value: gate.secret() }
}

#[tokio::test]
async fn a_secret_token_from_a_browser_is_answered_and_flagged() {
    let (upstream, gate) = gate().await;
    let token = secret(&gate);
    let bearer = format!("Bearer {}", token.value);
    let asks = [
        (Ask::get(DATA).header("Authorization", &bearer), 0),
        (Ask::get(DATA).header("Authorization", &bearer).header("Origin", "https://a.example"), 1),
        (Ask::get(&token.on(DATA)), 2),
    ];
    for (ask, flagged) in asks {
        assert_eq!(gate.ask(ask).await.status, 200);
        assert_eq!(gate.metric("tollgate_secret_from_browser_total").await, flagged);
    }
    assert_eq!(upstream.count(), 3);
    crate::harness::wait_for("the mark", || async {
        let tokens = gate.admin("GET", "/v1/tokens", None).await.json();
        tokens["tokens"][0]["seen_in_browser_at"].is_string()
    })
    .await;
    assert!(gate.events().contains("most likely leaked"));
}

#[tokio::test]
async fn a_publishable_token_outside_a_browser_is_reported_where_the_operator_wants_it() {
    let upstream = Upstream::start().await;
    for (extra, counted) in [("", 0), ("publishable_outside_browser: report", 1)] {
        let mut gate = Plan::new(&upstream).extra(extra).start().await;
        let token = gate.token(json!({})).await;
        let signals = [None, Some(("Origin", "https://a.example")), Some(("Sec-Fetch-Site", "same-origin"))];
        for signal in signals {
            let ask = Ask::get(&token.on(DATA));
            let ask = signal.into_iter().fold(ask, |ask, (name, value)| ask.header(name, value));
            assert_eq!(gate.ask(ask).await.status, 200);
        }
        assert_eq!(gate.metric("tollgate_publishable_outside_browser_total").await, counted, "{extra}");
        crate::harness::wait_for("the log", || async { gate.access_log().len() == 3 }).await;
        let noted = |line: &serde_json::Value| line["notes"] == json!(["publishable_outside_browser"]);
        assert_eq!(gate.access_log().iter().filter(|line| noted(line)).count() as u64, counted);
    }
}

#[tokio::test]
async fn a_secret_token_from_a_browser_is_refused_where_the_operator_wants_it() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).extra("leaked_secret: refuse").start().await;
    let answer = gate.ask(Ask::get(&secret(&gate).on(DATA))).await;
    assert_refused(&upstream, &answer, 403, "secret_token_leaked", "a secret token in a query");
}
