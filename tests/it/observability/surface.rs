//! What answers, and to whom: the paths that are meant to, and nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::client::Ask;
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

/// What servers, frameworks and languages are known to leave open.
const LEFT_OPEN: &[&str] = &[
    "/debug",
    "/debug/",
    "/debug/pprof/",
    "/debug/pprof/heap",
    "/debug/pprof/profile",
    "/debug/vars",
    "/debug/requests",
    "/pprof",
    "/profile",
    "/heap",
    "/heapdump",
    "/threads",
    "/stack",
    "/trace",
    "/traces",
    "/tasks",
    "/console/debug",
    "/console/config",
    "/console/env",
    "/status",
    "/server-status",
    "/nginx_status",
    "/stub_status",
    "/health",
    "/livez",
    "/actuator",
    "/actuator/env",
    "/env",
    "/.env",
    "/.git/HEAD",
    "/config",
    "/config.yaml",
    "/proxy.yaml",
    "/state/secret-token",
    "/logs",
    "/log",
    "/stats",
    "/stats/prometheus",
    "/metrics/",
    "/metrics/x",
    "/metrics.json",
    "/healthz/",
    "/-/reload",
    "/-/quit",
    "/reload",
    "/shutdown",
    "/quitquitquit",
    "/version",
    "/info",
    "/swagger.json",
    "/swagger-ui",
    "/docs",
    "/openapi.yaml",
    "/graphql",
    "/phpinfo.php",
];

/// What answers on the admin address without any credential.
const OPEN: &[&str] = &["/healthz", "/readyz", "/metrics", "/openapi.json"];

#[tokio::test]
async fn nothing_but_what_is_meant_to_answers_on_the_admin_address() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let bearer = format!("Bearer {}", gate.secret());
    for path in LEFT_OPEN {
        for method in ["GET", "POST", "TRACE", "OPTIONS"] {
            let ask = Ask::new(method, path);
            let open = ask.clone().send(gate.admin).await;
            assert!(matches!(open.status, 404 | 405), "{method} {path}: {}", open.status);
            let known = ask.header("Authorization", &bearer).send(gate.admin).await;
            assert!(
                matches!(known.status, 404 | 405),
                "{method} {path} with a secret token: {}",
                known.status
            );
        }
    }
    for path in OPEN {
        assert_eq!(Ask::get(path).send(gate.admin).await.status, 200, "{path}");
        assert_eq!(Ask::new("POST", path).body("x").send(gate.admin).await.status, 405, "{path}");
    }
    // Everything that the description lists is either in the list above or asks who is there.
    let described = Ask::get("/openapi.json").send(gate.admin).await.json();
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 10);
    for path in paths.keys().filter(|path| !OPEN.contains(&path.as_str())) {
        let path = path.replace(['{', '}'], "x");
        let answer = Ask::get(&path).send(gate.admin).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    assert_eq!(Ask::get("/v1/anything").send(gate.admin).await.status, 401);
    // The console shows its door and its looks, and nothing else to who is not signed in.
    for page in ["tokens", "usage", "explain", "nodes", "audit", "people"] {
        let answer = Ask::get(&format!("/console/{page}")).send(gate.admin).await;
        assert!(matches!(answer.status, 303 | 401 | 403), "{page}: {}", answer.status);
    }
}

#[tokio::test]
async fn the_address_for_requests_serves_routes_and_nothing_of_its_own() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let own =
        ["/metrics", "/healthz", "/readyz", "/openapi.json", "/v1/tokens", "/v1/nodes", "/console", "/"];
    for path in LEFT_OPEN.iter().chain(&own) {
        for method in ["GET", "POST"] {
            let answer = gate.ask(Ask::new(method, path)).await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "no_route"), "{method} {path}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

/// What is open to whoever gets there holds nothing of anybody's.
#[tokio::test]
async fn what_is_open_tells_no_token_name_or_secret() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let (nickname, workspace) = (format!("Zebra {unique}"), format!("WS{unique}"));
    let token = gate
        .token(json!({"nickname": nickname, "datasets": [{"dataset": format!("{workspace}/CARS"), "operations": ["read"]}],
                      "allowed_domains": [format!("d{unique}.example")]}))
        .await;
    let page = format!("https://d{unique}.example");
    let path = format!("/v1/data/{workspace}/CARS/1");
    assert_eq!(gate.ask(Ask::get(&token.on(&path)).header("Origin", &page)).await.status, 200);
    assert_eq!(
        gate.ask(Ask::get(&token.on(&path)).header("Origin", "https://evil.example")).await.status,
        403
    );
    let secret = gate.secret();
    assert_eq!(
        gate.ask(Ask::get(DATA).header("Authorization", &format!("Bearer {secret}"))).await.status,
        200
    );
    let (unique, master) =
        (unique.to_string(), std::fs::read_to_string(gate.path("state/master-key")).unwrap());
    for open in OPEN {
        let text = Ask::get(open).send(gate.admin).await.text();
        for told in [&unique, &token.id, &token.value, &secret, master.trim()] {
            assert!(!text.contains(told), "{open} tells {told}");
        }
    }
}

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

#[tokio::test]
async fn metrics_can_be_kept_for_who_has_a_secret_token() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).admin_extra("metrics: secret").start().await;
    let token = gate.token(json!({})).await;
    let with = |token: &str| Ask::get("/metrics").header("Authorization", &format!("Bearer {token}"));
    assert_eq!(Ask::get("/metrics").send(gate.admin).await.status, 401);
    assert_eq!(with(&token.value).send(gate.admin).await.status, 403);
    let answer = with(&gate.secret()).send(gate.admin).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("tollgate_build_info"));
    assert_eq!(Ask::get("/healthz").send(gate.admin).await.status, 200);
}
