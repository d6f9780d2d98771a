//! `dialect: iex`: refusals, headers and requests as the original service and its clients know them (`clients.md`).

use serde_json::{Value, json};

use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Plan, limited};
use crate::harness::upstream::Upstream;

mod account;
mod clients;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const SECRET_NEEDED: &str = "The secret key is required to access to requested endpoint.";
const BAD: &str = "You have supplied invalid values for this request";

async fn gate() -> (Upstream, Gate) {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).extra("dialect: iex").start().await;
    (upstream, gate)
}

/// A refusal is a plain sentence, and the upstream saw nothing of it.
fn assert_refused(upstream: &Upstream, answer: &Answer, status: u16, body: &str, what: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body), "{what}");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{what}");
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{what}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
    assert!(answer.header("iexcloud-credits-used").is_none(), "{what}");
    assert_eq!(upstream.count(), 0, "{what}: the upstream saw it");
}

#[tokio::test]
async fn tells_every_refusal_of_a_request_as_the_original_does() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let unknown = "pk_00000000000000000000000000000000";
    let invalid = "The API key provided is not valid.";
    let table: Vec<(&str, Ask, u16, &str)> = vec![
        (
            "missing",
            Ask::get(DATA),
            401,
            "An API key is required to access this data and no key was provided",
        ),
        ("unknown", Ask::get(&format!("{DATA}?token={unknown}")), 403, invalid),
        ("malformed", Ask::get(&format!("{DATA}?token=Tpk_1")), 403, invalid),
        ("bad target", Ask::get(&token.on("/v1/data/CORE/../x")), 400, BAD),
        ("no route", Ask::get(&token.on("/nowhere")), 404, "No route of this gate serves this path."),
        (
            "two that differ",
            Ask::get(&token.on(DATA)).header("X-API-Key", unknown),
            400,
            "The request carries two credentials that differ. Send exactly one.",
        ),
    ];
    for (what, ask, status, body) in table {
        assert_refused(&upstream, &gate.ask(ask).await, status, body, what);
    }
}

#[tokio::test]
async fn tells_a_signature_that_is_not_right_as_the_original_does() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"signed_requests": true})).await;
    let stale = format!(
        "IEX-HMAC-SHA256 Credential={}/20240115/iex_request, SignedHeaders=host;x-iex-date, Signature={}",
        token.value,
        "0".repeat(64)
    );
    for (what, authorization) in
        [("stale", stale.as_str()), ("no signature at all", "IEX-HMAC-SHA256 nonsense")]
    {
        let ask = Ask::get(&token.on(DATA)).header("x-iex-date", "20240115T123045Z");
        let answer = gate.ask(ask.header("Authorization", authorization)).await;
        assert_refused(&upstream, &answer, 403, "Hashed authorization is invalid", what);
    }
}

#[tokio::test]
async fn tells_every_refusal_of_a_policy_as_the_original_does() {
    let (upstream, mut gate) = gate().await;
    let no_leave = "The requested data requires permission to access.";
    let quota = "You have exceeded your allotted message quota. Please enable pay-as-you-go to regain access";
    let domain = "The referer in the request header is not allowed. Please check the associated domain(s) for this API key";
    let table: Vec<(&str, Value, &str, u16, &str)> = vec![
        ("disabled", json!({"status": "disabled"}), DATA, 403, "The provided API token has been disabled"),
        ("revoked", json!({"status": "revoked"}), DATA, 403, "The API key provided is not valid."),
        ("signed", json!({"signed_requests": true}), DATA, 401, "Hashed token authorization is required"),
        ("domain", json!({"allowed_domains": ["www.example.com"]}), DATA, 401, domain),
        ("no core", json!({"core_access": false}), DATA, 451, no_leave),
        ("no premium", json!({}), "/v1/premium/X", 451, no_leave),
        ("no grant", json!({}), "/v1/data/MY/CARS", 451, no_leave),
        ("no credits", limited(0), DATA, 402, quota),
    ];
    for (what, fields, path, status, body) in table {
        let token = gate.token(json!({})).await;
        if fields["status"] == "revoked" {
            let answer = gate.admin("DELETE", &format!("/v1/tokens/{}", token.id), None).await;
            assert!(answer.status < 300, "{}", answer.text());
        } else {
            gate.edit(&token, fields).await;
        }
        assert_refused(&upstream, &gate.ask(Ask::get(&token.on(path))).await, status, body, what);
        gate.wait_used(&token, 0).await;
    }
}

#[tokio::test]
async fn tells_of_throttle_and_budget_as_the_original_does() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"rate_limit": {"requests_per_second": 1, "burst": 1}})).await;
    let mut throttled = None;
    for _ in 0..50 {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        if answer.status != 200 {
            throttled = Some(answer);
            break;
        }
    }
    let throttled = throttled.expect("a refusal");
    assert_eq!((throttled.status, throttled.text().as_str()), (429, "Too Many Requests"));
    let budget = json!({"budget": {"core": {"credits": 0, "period": "month"}}});
    assert_eq!(gate.admin("PATCH", "/v1/account", Some(budget)).await.status, 200);
    let (other, before) = (gate.token(json!({})).await, upstream.count());
    let answer = gate.ask(Ask::get(&other.on(DATA))).await;
    let breaker = "Your pay-as-you-go circuit breaker overage has been engaged";
    assert_eq!((answer.status, answer.text().as_str(), upstream.count()), (403, breaker, before));
    // Failures are plain as well.
    let free = gate.ask(Ask::get(&other.on("/v1/free/x")).header("X-Test", "cut")).await;
    assert_eq!((free.status, free.header("content-type")), (502, Some("text/html; charset=utf-8")));
}

#[tokio::test]
async fn a_charged_answer_tells_what_it_cost_and_keeps_its_content_type() {
    let (_upstream, mut gate) = gate().await;
    let token = gate.token(json!({"premium_access": true})).await;
    // (path, upstream's status, core credits, premium credits)
    let table = [
        (DATA, 200, Some("1"), Some("0")),
        ("/v1/ten/x", 200, Some("10"), Some("0")),
        ("/v1/premium/X", 200, Some("0"), Some("5")),
        ("/v1/free/x", 200, None, None),
        (DATA, 500, None, None),
    ];
    for (path, status, core, premium) in table {
        let ask = Ask::get(&token.on(path)).header("X-Test", &format!("status={status}"));
        let answer = gate.ask(ask.header("Origin", "https://www.example.com")).await;
        assert_eq!(answer.status, status, "{path}");
        let told = ["credits", "messages"].map(|word| {
            let core = answer.header(&format!("iexcloud-{word}-used")).map(str::to_owned);
            (core, answer.header(&format!("iexcloud-premium-{word}-used")).map(str::to_owned))
        });
        let expected = (core.map(str::to_owned), premium.map(str::to_owned));
        assert_eq!(told, [expected.clone(), expected], "{path} {status}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{path}");
        let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
        assert_eq!(exposed.contains("iexcloud-premium-messages-used"), core.is_some(), "{exposed}");
    }
}

#[tokio::test]
async fn odd_requests_pass() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/*", "operations": ["read", "write"]}]})).await;
    let value = token.value.as_str();
    // (method, target with T for the token, content type, body, what the upstream saw)
    let table = [
        ("GET", "/v1/data/CORE/QUOTE/AAPL?token=T&limit=1", "", "", "/v1/data/CORE/QUOTE/AAPL?limit=1"),
        (
            "GET",
            "/v1/data/CORE/QUOTE/AAPL?a=1&token=T&limit=1",
            "",
            "",
            "/v1/data/CORE/QUOTE/AAPL?a=1&limit=1",
        ),
        ("GET", "/v1/data/CORE/QUOTE/AAPL?limit=1&&token=T", "", "", "/v1/data/CORE/QUOTE/AAPL?limit=1&"),
        ("GET", "/v1/data/CORE/QUOTE/AAPL?&token=T", "", "", "/v1/data/CORE/QUOTE/AAPL?"),
        ("GET", "/stable/data/CORE/QUOTE/AAPL/?token=T", "", "", "/stable/data/CORE/QUOTE/AAPL"),
        ("GET", "//beta//data/CORE/QUOTE/AAPL?token=T", "", "", "/beta/data/CORE/QUOTE/AAPL"),
        ("GET", "/latest/data/CORE/QUOTE/AAPL,MSFT?token=T", "", "", "/latest/data/CORE/QUOTE/AAPL,MSFT"),
        ("GET", "/v1/data/CORE/QUOTE/AAPL%2CMSFT?token=T", "", "", "/v1/data/CORE/QUOTE/AAPL%2CMSFT"),
        ("GET", "/v1/data/MY/CARS,BIKES/a,b?token=T", "", "", "/v1/data/MY/CARS,BIKES/a,b"),
        ("GET", "/v1/data/MY/CARS?token=T", "undefined", "", "/v1/data/MY/CARS"),
        ("POST", "/v1/data/MY/CARS?token=T", "application/json", "[object Object]", "/v1/data/MY/CARS"),
    ];
    for (method, target, content_type, body, expected) in table {
        let mut ask = Ask::new(method, &target.replace("=T", &format!("={value}"))).body(body);
        if !content_type.is_empty() {
            ask = ask.header("Content-Type", content_type);
        }
        let answer = gate.ask(ask).await;
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!(
            (answer.status, seen.target.trim_end_matches('?')),
            (200, expected.trim_end_matches('?')),
            "{target}"
        );
        assert_eq!(seen.header("content-type").unwrap_or_default(), content_type, "{target}");
        assert_eq!(seen.body_length, body.len(), "{target}");
    }
    assert_eq!(upstream.count(), table.len());
}

#[tokio::test]
async fn whoever_asks_to_close_is_told_that_it_closes() {
    let (_upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    for (target, status) in [(token.on(DATA), 200), (DATA.to_owned(), 401), ("/v1/status".to_owned(), 200)] {
        let mut connection = Connection::open(gate.address).await;
        let kept = connection.send(&Ask::get(&target)).await.expect("an answer");
        assert_eq!(
            (kept.status, kept.header("connection").unwrap_or("keep-alive")),
            (status, "keep-alive"),
            "{target}"
        );
        let closed =
            connection.send(&Ask::get(&target).header("Connection", "close")).await.expect("an answer");
        assert_eq!((closed.status, closed.header("connection")), (status, Some("close")), "{target}");
        assert_eq!(connection.read_some().await.expect("the end"), 0, "{target}");
    }
}

#[tokio::test]
async fn explain_tells_the_statuses_of_the_dialect() {
    let (_upstream, gate) = gate().await;
    let question = json!({"method": "GET", "target": DATA});
    let answer = gate.admin("POST", "/v1/explain", Some(question)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((&answer.json()["code"], &answer.json()["status"]), (&json!("token_missing"), &json!(401)));
    let account = json!({"method": "GET", "target": "/v1/status"});
    let answer = gate.admin("POST", "/v1/explain", Some(account)).await;
    assert_eq!(answer.json()["pass"], json!(true), "{}", answer.text());
}
