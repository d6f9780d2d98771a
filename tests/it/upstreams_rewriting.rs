//! What a route changes on the way to its upstream and back: after all was judged, and never what the gate says.

use serde_json::json;

use crate::harness::client::Ask;
use crate::harness::evidence;
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

const ROUTES: &str = r#"
  - {path: "/{version}/data/{workspace}/{dataset}/**", upstream: datasets, access: dataset, dataset: "{workspace}/{dataset}", rewrite: {path: "/internal/{dataset}/of/{workspace}/{rest}"}}
  - {path: "/api/v2/**", upstream: datasets, access: core, rewrite: {strip_prefix: /api/v2}}
  - {path: "/old/**", upstream: datasets, access: core, rewrite: {strip_prefix: /old, add_prefix: /new/place}}
  - {path: "/keep/**", upstream: datasets, access: core, encoded_slash: keep, rewrite: {add_prefix: /in}}
  - path: "/headers/**"
    upstream: datasets
    access: core
    rewrite:
      host: "inner.example:81"
      request_headers: {set: {X-Plan: gold, Authorization: "${INNER_LOGIN}"}, remove: [Cookie, X-Test-Other]}
      response_headers: {set: {X-Served-By: data}, remove: [X-Powered-By]}
  - {path: "/**", upstream: datasets, access: core}
"#;

#[tokio::test]
async fn the_path_is_put_together_of_what_was_judged() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).routes(ROUTES).env("INNER_LOGIN", "Basic aW5uZXI6c2VjcmV0");
    let mut gate = plan.start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/*", "operations": ["read"]}]})).await;
    let value = &token.value;
    let table = [
        (format!("/v1/data/MY/A/k?token={value}&x=1"), "/internal/A/of/MY/k?x=1"),
        (format!("/v1/data/MY/A?token={value}"), "/internal/A/of/MY"),
        (format!("//v1///data/MY//A/?token={value}"), "/internal/A/of/MY/"),
        (format!("/v1/data/MY/A,B/k?token={value}"), "/internal/A,B/of/MY/k"),
        (format!("/v1/data/MY/A/%c3%a9?token={value}&u=/../../etc"), "/internal/A/of/MY/%C3%A9?u=/../../etc"),
        (format!("/v1/data/MY/A/%252e%252e/k?token={value}"), "/internal/A/of/MY/%252e%252e/k"),
        (format!("/api/v2/x/y?token={value}"), "/x/y"),
        (format!("/api/v2?token={value}&a"), "/?a"),
        (format!("/api/v2/?token={value}"), "/"),
        (format!("/old/x?token={value}"), "/new/place/x"),
        (format!("/old?token={value}"), "/new/place"),
        (format!("/keep/a%2f..%2fb?token={value}"), "/in/keep/a%2F..%2Fb"),
        (format!("/else?token={value}"), "/else"),
    ];
    for (sent, received) in table {
        let before = upstream.count();
        let answer = gate.ask(Ask::get(&sent)).await;
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        assert_eq!(upstream.seen()[before].target, received, "{sent}");
    }
    // What is judged is what the client asked for, not what the upstream gets.
    let before = upstream.count();
    for refused in ["/v1/data/OTHER/MY/k", "/v1/data/OTHER/A/..%2F..%2FMY/A", "/v1/data/MY/../OTHER/A"] {
        let status = gate.ask(Ask::get(&token.on(refused))).await.status;
        assert!(status == 403 || status == 400, "{refused}: {status}");
    }
    assert_eq!(upstream.count(), before);
}

#[tokio::test]
async fn headers_are_changed_and_the_gates_own_are_not() {
    let upstream = Upstream::start().await;
    let login = "Basic aW5uZXI6c2VjcmV0";
    let mut gate = Plan::new(&upstream).routes(ROUTES).env("INNER_LOGIN", login).start().await;
    let token = gate.token(json!({})).await;
    let ask = Ask::get("/headers/x")
        .header("Authorization", &format!("Bearer {}", token.value))
        .header("Cookie", "a=1")
        .header("X-Plan", "free")
        .header("X-Own", "kept")
        .header("X-Test", "header=X-Powered-By:secret-engine");
    let answer = gate.ask(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((answer.header("x-served-by"), answer.header("x-powered-by")), (Some("data"), None));
    assert!(answer.header("x-request-id").is_some());
    let seen = upstream.only();
    assert_eq!(seen.header("host"), Some("inner.example:81"));
    assert_eq!((seen.header("x-plan"), seen.header("cookie")), (Some("gold"), None));
    assert_eq!((seen.header("authorization"), seen.header("x-own")), (Some(login), Some("kept")));
    assert_eq!(seen.header("x-tollgate-token-id"), Some(token.id.as_str()));
    assert_eq!(seen.header("x-forwarded-host"), Some(gate.address.to_string().as_str()));
    let log = gate.events();
    assert!(!log.contains("aW5uZXI6c2VjcmV0"), "a value of the environment is in no log");
    evidence::assert_sealed("the upstream's request", format!("{seen:?}").as_bytes());
}
