//! The account endpoints: true figures, and settings that act.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BAD, DATA, SECRET_NEEDED, gate};
use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Token};
use crate::harness::{evidence, wait_for};

async fn ask(gate: &Gate, path: &str) -> Value {
    let joiner = if path.contains('?') { '&' } else { '?' };
    let answer = gate.ask(Ask::get(&format!("{path}{joiner}token={}", gate.secret()))).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{path}");
    answer.json()
}

/// Posts with the token in the body and nowhere else.
async fn post(gate: &Gate, path: &str, mut fields: Value) -> Answer {
    fields["token"] = json!(gate.secret());
    gate.ask(Ask::new("POST", path).header("Content-Type", "application/json").body(fields.to_string())).await
}

async fn spend(gate: &Gate, token: &Token, path: &str, times: usize) {
    for _ in 0..times {
        assert_eq!(gate.ask(Ask::get(&token.on(path))).await.status, 200, "{path}");
    }
}

/// Asks with the token until it is refused; how many answers it had.
/// A refusal is taken for good when it has lasted longer than credits are on their way back (law 3).
async fn exhaust(gate: &Gate, token: &Token) -> (usize, String) {
    let (mut passed, mut refused) = (0, None);
    while passed < 100 {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        if answer.status == 200 {
            (passed, refused) = (passed + 1, None);
            continue;
        }
        let since = *refused.get_or_insert_with(Instant::now);
        if since.elapsed() > Duration::from_millis(500) {
            return (passed, format!("{} {}", answer.status, answer.text()));
        }
    }
    panic!("it is never refused");
}

#[tokio::test]
async fn tells_what_the_account_has_used_and_charges_nothing_for_it() {
    let (upstream, mut gate) = gate().await;
    let fields =
        json!({"premium_access": true, "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}]});
    let (one, two) = (gate.token(fields).await, gate.token(json!({})).await);
    let budget = json!({"budget": {"core": {"credits": 1000, "period": "month"}}});
    assert_eq!(gate.admin("PATCH", "/v1/account", Some(budget)).await.status, 200);
    spend(&gate, &one, DATA, 3).await;
    spend(&gate, &one, "/v1/data/MY/CARS", 2).await;
    spend(&gate, &one, "/v1/premium/X", 1).await;
    spend(&gate, &two, "/v1/ten/x", 1).await;
    let before = upstream.count();
    wait_for("the figures", || async { ask(&gate, "/v1/account/metadata").await["messagesUsed"] == 15 })
        .await;
    let created = gate.admin("GET", "/v1/account", None).await.json()["created_at"].clone();
    let created: jiff::Timestamp = created.as_str().unwrap().parse().unwrap();
    let expected = json!({
        "payAsYouGoEnabled": false, "effectiveDate": created.as_millisecond(), "subscriptionTermType": "monthly",
        "tierName": "default", "messageLimit": 1000, "messagesUsed": 15, "circuitBreaker": 1000,
        "creditLimit": 1000, "creditsUsed": 15,
    });
    assert_eq!(ask(&gate, "/v1/account/metadata").await, expected);
    let messages = ask(&gate, "/stable/account/usage/messages").await;
    let today = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    let expected = json!({
        "dailyUsage": {today: "15"}, "monthlyUsage": 15, "monthlyPayAsYouGo": 0,
        "tokenUsage": {one.id: "5", two.id: "10"}, "keyUsage": {"CORE/QUOTE": "3", "MY/CARS": "2", "OTHER": "10"},
    });
    assert_eq!(messages, expected);
    assert_eq!(ask(&gate, "/beta/account/usage/").await, json!({"messages": messages, "rules": []}));
    assert_eq!(ask(&gate, "/v1/account/usage/rules").await, json!([]));
    // Nothing of this went to the upstream, or was charged.
    assert_eq!(upstream.count(), before);
    assert_eq!(ask(&gate, "/v1/account/metadata").await["messagesUsed"], 15);
    assert!(gate.access_log().iter().any(|line| line["verdict"] == "answered"));
}

#[tokio::test]
async fn the_message_budget_is_the_accounts_budget() {
    let (_upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let answer = post(&gate, "/v1/account/messagebudget", json!({"totalMessages": 4})).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"overageCircuitBreaker": 4})));
    let breaker = "403 Your pay-as-you-go circuit breaker overage has been engaged".to_owned();
    assert_eq!(exhaust(&gate, &token).await, (4, breaker.clone()));
    // As the public clients ask: values and token in the query, a body that says nothing.
    let target = format!("/v1/account/messagebudget?totalMessages=6&token={}", gate.secret());
    let json = Ask::new("POST", &target).header("Content-Type", "application/json").body("[object Object]");
    let answer = gate.ask(json).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"overageCircuitBreaker": 6})));
    wait_for("the budget to act", || async { gate.ask(Ask::get(&token.on(DATA))).await.status == 200 }).await;
    assert_eq!(exhaust(&gate, &token).await, (1, breaker));
    let budget = &gate.admin("GET", "/v1/account", None).await.json()["budget"]["core"];
    assert_eq!(*budget, json!({"credits": 6, "period": "month"}));
}

#[tokio::test]
async fn pay_as_you_go_lifts_the_quota_and_puts_it_back() {
    let (_upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let budget = json!({"budget": {"core": {"credits": 3, "period": "day"}}});
    assert_eq!(gate.admin("PATCH", "/v1/account", Some(budget.clone())).await.status, 200);
    assert_eq!(exhaust(&gate, &token).await.0, 3);
    let answer = post(&gate, "/v1/account/payasyougo", json!({"allow": true})).await;
    assert_eq!((answer.status, &answer.json()["payAsYouGoEnabled"]), (200, &json!(true)));
    wait_for("the quota to be lifted", || async { gate.ask(Ask::get(&token.on(DATA))).await.status == 200 })
        .await;
    let metadata = ask(&gate, "/v1/account/metadata").await;
    assert_eq!((&metadata["payAsYouGoEnabled"], &metadata["messageLimit"]), (&json!(true), &json!(3)));
    // The circuit breaker stops it again, above the quota.
    assert_eq!(post(&gate, "/v1/account/messagebudget", json!({"totalMessages": 8})).await.status, 200);
    let (_, refusal) = exhaust(&gate, &token).await;
    assert!(refusal.contains("circuit breaker"), "{refusal}");
    wait_for("the figures", || async {
        ask(&gate, "/v1/account/usage/messages").await["monthlyPayAsYouGo"] == 5
    })
    .await;
    let target = format!("/v1/account/messagebudget?allow=False&token={}", gate.secret());
    assert_eq!(gate.ask(Ask::new("POST", &target)).await.status, 200);
    assert_eq!(
        gate.admin("GET", "/v1/account", None).await.json()["budget"]["core"],
        budget["budget"]["core"]
    );
    assert_eq!(ask(&gate, "/v1/account/metadata").await["payAsYouGoEnabled"], false);
    gate.stop();
    gate.start_again().await;
    assert_eq!(ask(&gate, "/v1/account/metadata").await["messageLimit"], 3);
    the_trail_tells_it(&mut gate).await;
}

/// Whoever holds a secret token edits the account here: that is noted as in the admin API, and still there after a restart.
async fn the_trail_tells_it(gate: &mut Gate) {
    let trail = gate.admin("GET", "/v1/audit", None).await.json();
    let entries = trail["entries"].as_array().unwrap();
    let first = entries.last().unwrap();
    assert_eq!((&first["action"], &first["actor"]), (&json!("token.create"), &json!({"type": "tollgate"})));
    let changes = json!([
        {"field": "/account", "from": null, "to": "default"},
        {"field": "/type", "from": null, "to": "secret"},
        {"field": "/nickname", "from": null, "to": "First secret token"},
    ]);
    assert_eq!(first["changes"], changes);
    let (quota, breaker) = (json!({"credits": 3, "period": "day"}), json!({"credits": 8, "period": "month"}));
    let core = |from: &Value, to: &Value| json!({"field": "/budget/core", "from": from, "to": to});
    let pays = |to: bool| json!({"field": "/pay_as_you_go", "from": !to, "to": to});
    let expected = [
        json!([core(&breaker, &quota), pays(false)]),
        json!([core(&Value::Null, &breaker)]),
        json!([core(&quota, &Value::Null), pays(true)]),
        json!([core(&Value::Null, &quota)]),
    ];
    let edits: Vec<_> = entries.iter().filter(|entry| entry["action"] == "account.edit").collect();
    assert_eq!(edits.iter().map(|edit| edit["changes"].clone()).collect::<Vec<_>>(), expected);
    for edit in edits {
        let by = (&edit["actor"]["id"], &edit["client"], &edit["target"]);
        assert_eq!(by, (&first["target"], &json!("127.0.0.1"), &json!("default")), "{edit}");
    }
    assert!(!trail.to_string().contains(&gate.secret()), "{trail}");
}

#[tokio::test]
async fn account_endpoints_need_a_secret_token_and_values_they_take() {
    let (upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let missing = "An API key is required to access this data and no key was provided";
    let get = |path: &str| Ask::get(&token.on(path));
    let secret = gate.secret();
    let body = |path: &str, text: String| Ask::new("POST", path).body(text);
    let long =
        format!("{{\"token\": \"{secret}\", \"totalMessages\": 1, \"x\": \"{}\"}}", "x".repeat(20_000));
    let table = [
        ("publishable", get("/v1/account/metadata"), 401, SECRET_NEEDED),
        ("publishable", get("/v1/account/usage/messages"), 401, SECRET_NEEDED),
        (
            "publishable",
            body(&token.on("/v1/account/payasyougo"), "{\"allow\": true}".to_owned()),
            401,
            SECRET_NEEDED,
        ),
        ("no token", Ask::get("/v1/account/metadata"), 401, missing),
        ("no token", body("/v1/account/messagebudget", "{\"totalMessages\": 1}".to_owned()), 401, missing),
        ("a body that is too long", body("/v1/account/messagebudget", long), 401, missing),
        (
            "a token in the body of a GET",
            Ask::get("/v1/account/metadata").body(format!("{{\"token\": \"{secret}\"}}")),
            401,
            missing,
        ),
        (
            "a token in the body of another POST",
            body("/v1/data/MY/CARS", format!("{{\"token\": \"{secret}\"}}")),
            401,
            missing,
        ),
        ("no value", body("/v1/account/payasyougo", format!("{{\"token\": \"{secret}\"}}")), 400, BAD),
        (
            "a bad value",
            body("/v1/account/messagebudget", format!("{{\"token\": \"{secret}\", \"totalMessages\": -1}}")),
            400,
            BAD,
        ),
        (
            "two tokens that differ",
            body(
                &token.on("/v1/account/payasyougo"),
                format!("{{\"token\": \"{secret}\", \"allow\": true}}"),
            ),
            400,
            "The request carries two credentials that differ. Send exactly one.",
        ),
    ];
    for (what, ask, status, text) in table {
        let answer = gate.ask(ask).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{what}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(gate.admin("GET", "/v1/account", None).await.json()["budget"]["core"], Value::Null);
}

#[tokio::test]
async fn the_body_of_an_account_request_does_not_run_into_the_next_request() {
    let (_upstream, mut gate) = gate().await;
    let token = gate.token(json!({})).await;
    let mut connection = Connection::open(gate.address).await;
    for total in [5, 6] {
        let body = json!({"token": gate.secret(), "totalMessages": total}).to_string();
        let answer =
            connection.send(&Ask::new("POST", "/v1/account/messagebudget").body(body)).await.unwrap();
        assert_eq!(answer.json(), json!({"overageCircuitBreaker": total}));
        let answer = connection.send(&Ask::get(&token.on(DATA))).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    evidence::assert_sealed("the access log", format!("{:?}", gate.access_log()).as_bytes());
}

#[tokio::test]
async fn bodies_come_in_pieces_or_never() {
    let (upstream, gate) = gate().await;
    let head = "POST /v1/account/messagebudget HTTP/1.1\r\nHost: x\r\n";
    let body = json!({"token": gate.secret(), "totalMessages": 5}).to_string();
    let (one, two) = body.split_at(20);
    let mut connection = Connection::open(gate.address).await;
    let chunks = format!("{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len());
    connection.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes()).await.unwrap();
    assert_eq!(connection.read(false).await.unwrap().json(), json!({"overageCircuitBreaker": 5}));
    // Half a body: the gate waits for some seconds, does without, and closes.
    let mut connection = Connection::open(gate.address).await;
    connection.write(format!("{head}Content-Length: {}\r\n\r\n{one}", body.len()).as_bytes()).await.unwrap();
    let answer = connection.read(false).await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_page_may_ask_before_it_posts() {
    let (upstream, gate) = gate().await;
    let preflight = Ask::new("OPTIONS", "/v1/account/payasyougo")
        .header("Origin", "https://www.example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type");
    let answer = gate.ask(preflight).await;
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some("POST")));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn anybody_may_ask_whether_it_is_up() {
    let (upstream, gate) = gate().await;
    let answer = gate.ask(Ask::get("/v1/status")).await;
    let told = answer.json();
    let now = jiff::Timestamp::now().as_millisecond();
    assert_eq!((answer.status, &told["status"]), (200, &json!("up")));
    assert!(told["version"].as_str().is_some_and(|version| !version.is_empty()), "{told}");
    assert!(told["time"].as_i64().is_some_and(|time| (now - time).abs() < 60_000), "{told}");
    let head = gate.ask(Ask::new("HEAD", "/stable/status/")).await;
    assert_eq!((head.status, head.body.len(), upstream.count()), (200, 0, 0));
}
