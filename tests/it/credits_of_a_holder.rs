//! What a token's own holder is told of its credits: `GET /v1/credits`, and the headers of limits (`clients.md`,
//! "dialect: standard").

use serde_json::{Value, json};

use crate::harness::client::{Answer, Ask};
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::upstream::Upstream;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

async fn gate() -> (Upstream, Gate) {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    (upstream, gate)
}

async fn credits(gate: &Gate, token: &Token) -> Value {
    let answer =
        gate.ask(Ask::get("/v1/credits").header("Authorization", &format!("Bearer {}", token.value))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_holder_sees_what_is_left_at_once_and_pays_nothing_for_it() {
    let (upstream, mut gate) = gate().await;
    let token = gate
        .token(json!({"premium_access": true, "core_access": false,
            "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}],
            "credit_limit": {"core": {"credits": 10, "period": "day"}, "premium": null}}))
        .await;
    for _ in 0..3 {
        assert_eq!(gate.ask(Ask::get(&token.on("/v1/data/MY/CARS"))).await.status, 200);
    }
    assert_eq!(gate.ask(Ask::get(&token.on("/v1/premium/X"))).await.status, 200);
    let told = credits(&gate, &token).await;
    let core = &told["core"];
    assert_eq!((&core["used"], &core["remaining"]), (&json!(3), &json!(7)), "{told}");
    assert_eq!(core["limit"], json!({"credits": 10, "period": "day"}));
    let resets: jiff::Timestamp = core["resets_at"].as_str().expect("a time").parse().expect("RFC 3339");
    let wait = resets.duration_since(jiff::Timestamp::now());
    assert!(wait.is_positive() && wait <= jiff::SignedDuration::from_hours(24), "{told}");
    let premium = json!({"used": 5, "limit": null, "remaining": null, "resets_at": null});
    assert_eq!(told["premium"], premium);
    // It stays true when everything is settled, and asking was free.
    gate.wait_used(&token, 3).await;
    assert_eq!(credits(&gate, &token).await, told);
    assert_eq!(upstream.count(), 4);
    // The account's budget counts as well.
    let budget = json!({"budget": {"core": {"credits": 5, "period": "month"}}});
    assert_eq!(gate.admin("PATCH", "/v1/account", Some(budget)).await.status, 200);
    assert_eq!(credits(&gate, &token).await["core"]["remaining"], 2);
}

#[tokio::test]
async fn a_holder_is_judged_like_any_request() {
    let (upstream, mut gate) = gate().await;
    let unlimited = gate.token(json!({})).await;
    let page = gate.token(json!({"allowed_domains": ["www.example.com"]})).await;
    let throttled = gate.token(json!({"rate_limit": {"requests_per_second": 1, "burst": 1}})).await;
    let none = gate.token(limited(0)).await;
    let table: Vec<(&str, Ask, u16, &str)> = vec![
        ("no token", Ask::get("/v1/credits"), 401, "token_missing"),
        ("another page", Ask::get(&page.on("/v1/credits")), 403, "domain_denied"),
        ("another method", Ask::new("DELETE", &unlimited.on("/v1/credits")), 405, "method_not_allowed"),
        ("another path", Ask::get(&unlimited.on("/v2/credits")), 404, "no_route"),
    ];
    for (what, ask, status, code) in table {
        let answer = gate.ask(ask).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
    }
    assert_eq!(credits(&gate, &none).await["core"]["remaining"], 0);
    let mut statuses = Vec::new();
    for _ in 0..50 {
        statuses.push(gate.ask(Ask::get(&throttled.on("/v1/credits"))).await.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_route_of_the_file_is_not_shadowed() {
    let upstream = Upstream::start().await;
    let routes = "\n  - {path: \"/v1/**\", upstream: datasets, access: core}\n";
    let mut gate = Plan::new(&upstream).routes(routes).start().await;
    let token = gate.token(json!({})).await;
    assert_eq!(gate.ask(Ask::get(&token.on("/v1/credits"))).await.json(), json!({"ok": true}));
    assert_eq!(upstream.only().target, "/v1/credits");
    assert!(gate.events().contains("this route serves /v1/credits"), "{}", gate.events());
}

fn limits(answer: &Answer) -> [String; 2] {
    ["ratelimit-policy", "ratelimit"].map(|name| answer.header(name).unwrap_or("none").to_owned())
}

#[tokio::test]
async fn tells_the_limits_with_each_answer_and_with_the_refusal_they_led_to() {
    let (_upstream, mut gate) = gate().await;
    let both = json!({"rate_limit": {"requests_per_second": 1, "burst": 5},
        "credit_limit": {"core": {"credits": 100, "period": "hour"}}});
    let token = gate.token(both).await;
    let mut refused = None;
    for at in 0..50 {
        let answer = gate.ask(Ask::get(&token.on(DATA))).await;
        let [policy, left] = limits(&answer);
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(policy, "\"throttle\";q=5;w=5, \"credits\";q=100;w=3600");
        let (throttle, credits) = left.split_once(", ").expect("two items");
        // What is left of the burst in the fleet, not only what this node has taken ahead; a second may have gone by.
        let left_of_burst =
            throttle.strip_prefix("\"throttle\";r=").and_then(|rest| rest.strip_suffix(";t=1"));
        let left_of_burst: u32 = left_of_burst.and_then(|left| left.parse().ok()).expect("a number");
        assert!((4u32.saturating_sub(at)..5).contains(&left_of_burst), "{at}: {left}");
        assert!(credits.starts_with(&format!("\"credits\";r={};t=", 99 - at)), "{left}");
        assert_eq!(answer.header("x-credits-remaining"), Some((99 - at).to_string().as_str()));
    }
    let refused = refused.expect("a refusal");
    let [policy, left] = limits(&refused);
    assert_eq!((policy.as_str(), left.as_str()), ("\"throttle\";q=5;w=5", "\"throttle\";r=0;t=1"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let none = gate.token(json!({"credit_limit": {"core": {"credits": 0, "period": "none"}}})).await;
    let answer = gate.ask(Ask::get(&none.on(DATA))).await;
    assert_eq!(answer.status, 402);
    assert_eq!(limits(&answer), ["\"credits\";q=0", "\"credits\";r=0"]);
    let free = gate.token(json!({})).await;
    assert_eq!(limits(&gate.ask(Ask::get(&free.on(DATA))).await), ["none", "none"]);
}
