//! Forward-auth: other proxies ask the gate (`deploy/forward-auth`). Real nginx, Caddy and `HAProxy` with the files that are
//! shipped; for Traefik and Envoy the wire form that they send.

use serde_json::json;

use crate::harness::client::{Answer, Ask};
use crate::harness::evidence;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

mod hosts;
mod wire;

use hosts::{Host, Kind};

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const AUTHZ: &str = "authz: { address: 127.0.0.1:0 }";

/// A proxy, the gate it asks, and the service behind it.
struct World {
    kind: Kind,
    upstream: Upstream,
    gate: Gate,
    host: Host,
}

impl World {
    async fn start(kind: Kind) -> Self {
        Self::start_with(kind, AUTHZ, |text| text).await
    }

    async fn start_with(kind: Kind, extra: &str, edit: fn(String) -> String) -> Self {
        let upstream = Upstream::start().await;
        let gate = Plan::new(&upstream).extra(extra).start().await;
        let host = Host::start(kind, &gate, &upstream, edit).await;
        Self { kind, upstream, gate, host }
    }

    async fn ask(&self, ask: Ask) -> Answer {
        let answer = ask.send(self.host.address).await;
        if answer.status >= 400 {
            evidence::add("error-bodies", &answer.body);
        }
        evidence::assert_sealed("an answer", format!("{answer:?}").as_bytes());
        answer
    }
}

/// What is served, and what the service sees of it: the canonical target, no token anywhere, who asked.
async fn serves(world: &mut World) {
    let token =
        world.gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    let value = token.value.clone();
    let bearer = format!("Bearer {value}");
    let asks = [
        (Ask::get(&token.on(&format!("{DATA}?a=1"))), format!("{DATA}?a=1")),
        (Ask::get(&format!("{DATA}?%74oken={value}&b=%2F&c")), format!("{DATA}?b=%2F&c")),
        (
            Ask::get(&format!("{DATA}?a={{http.request.host}}&token={value}")),
            format!("{DATA}?a={{http.request.host}}"),
        ),
        (
            Ask::get("/v1//data/CORE/%51UOTE/A%c3%a4").header("Authorization", &bearer),
            "/v1/data/CORE/QUOTE/A%C3%A4".into(),
        ),
        (Ask::get(DATA).header("X-API-Key", &value), DATA.to_owned()),
        (
            Ask::get(&token.on(DATA)).header("Referer", &format!("https://a.example/?token={value}")),
            DATA.to_owned(),
        ),
        (Ask::get(&token.on(DATA)).header("Cookie", &format!("t={value}")), DATA.to_owned()),
        (Ask::get(&token.on(DATA)).header("X-Tollgate-Token-Id", "tok_forged"), DATA.to_owned()),
        (Ask::new("HEAD", &token.on(DATA)), DATA.to_owned()),
    ];
    let count = asks.len() as u64;
    for (ask, target) in asks {
        let before = world.upstream.count();
        let answer = world.ask(ask.clone()).await;
        assert_eq!(answer.status, 200, "{:?} {ask:?}: {}", world.kind, answer.text());
        let seen = world.upstream.seen();
        assert_eq!(seen.len(), before + 1, "{ask:?}");
        let seen = &seen[before];
        // Caddy spells braces in its own way. It does not take them for its placeholders.
        let braces = seen.target.replace("%7B", "{").replace("%7D", "}");
        let spelled = if world.kind == Kind::Caddy { &braces } else { &seen.target };
        assert_eq!(*spelled, target, "{:?} {ask:?}", world.kind);
        evidence::assert_sealed("the upstream's requests", format!("{seen:?}").as_bytes());
        assert_eq!(seen.header("x-tollgate-token-id"), Some(token.id.as_str()), "{ask:?}");
        assert!(seen.header("authorization").is_none() && seen.header("x-api-key").is_none());
        assert_eq!(answer.header("x-request-id"), seen.header("x-request-id"), "{answer:?}");
        assert!(answer.header("x-credits-used").is_some(), "{answer:?}");
    }
    world.gate.wait_used(&token, count).await;

    let write = Ask::new("POST", &token.on("/v1/data/MY/CARS")).header("X-Test", "echo").body("[1, 2, 3]");
    let answer = world.ask(write).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "[1, 2, 3]"));
    world.gate.wait_used(&token, count + 1).await;
}

/// Every kind of refusal reaches the client as the gate's own proxy tells it, and the service sees nothing.
async fn refuses(world: &mut World) {
    let gate = &mut world.gate;
    let good = gate.token(json!({})).await;
    let spent = gate.token(limited(0)).await;
    let slow = gate.token(json!({"rate_limit": {"requests_per_second": 1, "burst": 1}})).await;
    let disabled = gate.token(json!({"status": "disabled"})).await;
    let pages = gate.token(json!({"allowed_domains": ["www.example.com"]})).await;
    let addresses = gate.token(json!({"allowed_domains": ["203.0.113.0/24"]})).await;
    let signed = gate.token(json!({"signed_requests": true})).await;
    let unknown = Token { id: String::new(), value: "pk_00000000000000000000000000000000".to_owned() };
    let evil = "https://www.example.com.evil.test";
    let table = [
        (Ask::get(DATA), 401, "token_missing", Some("www-authenticate")),
        (Ask::get(&unknown.on(DATA)), 403, "token_invalid", None),
        (Ask::get(&good.on(DATA)).header("X-API-Key", &unknown.value), 400, "token_ambiguous", None),
        (Ask::get(&good.on("/nowhere")), 404, "no_route", None),
        (Ask::new("TRACE", &good.on(DATA)), 405, "method_not_allowed", Some("allow")),
        (Ask::get(&good.on("/v1/data/CORE/A%5cB")), 400, "bad_target", None),
        (Ask::get(&disabled.on(DATA)), 403, "token_disabled", None),
        (Ask::get(&signed.on(DATA)), 401, "signature_missing", None),
        (Ask::get(&pages.on(DATA)), 403, "domain_denied", None),
        (Ask::get(&pages.on(DATA)).header("Origin", evil), 403, "domain_denied", None),
        // What a client says of its own address is not believed.
        (Ask::get(&addresses.on(DATA)).header("X-Forwarded-For", "203.0.113.9"), 403, "domain_denied", None),
        (Ask::get(&good.on("/v1/premium/X")), 403, "premium_denied", None),
        (Ask::get(&good.on("/v1/data/MY/CARS")), 403, "dataset_denied", None),
        (Ask::new("POST", &good.on("/v1/data/MY/CARS")).body("[]"), 403, "dataset_denied", None),
        (Ask::get(&spent.on(DATA)), 402, "credits_exhausted", Some("ratelimit-policy")),
    ];
    let before = world.upstream.count();
    for (ask, status, code, header) in table {
        if ask_is_beyond(world.kind, code) {
            continue;
        }
        let answer = world.ask(ask.clone()).await;
        assert_eq!(answer.status, status, "{:?} {ask:?}: {}", world.kind, answer.text());
        assert_eq!(answer.code(), code, "{ask:?}");
        assert_eq!(answer.json()["status"], status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"), "{answer:?}");
        assert!(header.is_none_or(|name| answer.header(name).is_some()), "{header:?}: {answer:?}");
        assert_eq!(world.upstream.count(), before, "{ask:?}");
    }
    assert_eq!(world.ask(Ask::get(&slow.on(DATA))).await.status, 200);
    let mut limited = world.ask(Ask::get(&slow.on(DATA))).await;
    while limited.status == 200 {
        // A loaded machine may take a second between the two.
        limited = world.ask(Ask::get(&slow.on(DATA))).await;
    }
    assert_eq!((limited.status, limited.code().as_str()), (429, "rate_limited"));
    assert!(limited.header("retry-after").is_some() && limited.header("ratelimit").is_some());

    let page = Ask::get(&pages.on(DATA)).header("Referer", "https://www.example.com/app");
    assert_eq!(world.ask(page).await.status, 200);
    for token in [&good, &spent, &disabled] {
        assert_eq!(world.gate.used(token).await, 0);
    }
}

/// What a proxy refuses by itself, or does not pass on as the client sent it.
fn ask_is_beyond(kind: Kind, code: &str) -> bool {
    // nginx answers TRACE with a 405 of its own.
    kind == Kind::Nginx && code == "method_not_allowed"
}

/// Browsers: preflights are answered without a token, and answers are readable for the admitted origin.
async fn answers_browsers(world: &mut World) {
    let token = world.gate.token(json!({"allowed_domains": ["www.example.com"]})).await;
    let origin = "https://www.example.com";
    let preflight = |target: &str| {
        Ask::new("OPTIONS", target)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "Content-Type, X-Tollgate-Evil")
    };
    let before = world.upstream.count();
    for target in [DATA, &token.on(DATA)] {
        let answer = world.ask(preflight(target)).await;
        assert_eq!(answer.status, 204, "{:?} {}", world.kind, answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-headers"), Some("content-type"));
        assert!(
            answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST"))
        );
        assert!(answer.header("access-control-max-age").is_some());
    }
    let nowhere = world.ask(preflight("/nowhere")).await;
    assert_eq!((nowhere.status, nowhere.code().as_str()), (404, "no_route"));
    assert_eq!(world.upstream.count(), before, "a preflight reached the service");

    let ask = Ask::get(&token.on(DATA)).header("Origin", origin);
    let answer = world.ask(ask.header("X-Test", "header=Access-Control-Allow-Origin:*")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
    assert_eq!(
        answer
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("access-control-allow-origin"))
            .count(),
        1
    );
    assert!(
        answer.header("access-control-expose-headers").is_some_and(|names| names.contains("X-Credits-Used"))
    );
    let refused = world.ask(Ask::get(DATA).header("Origin", origin)).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(origin)));

    // What the gate answers itself.
    let credits = world.ask(Ask::get(&token.on("/v1/credits")).header("Origin", origin)).await;
    assert_eq!(credits.status, 200, "{:?} {}", world.kind, credits.text());
    assert!(credits.json().is_object());
}

/// Where the proxy settles: what came to nothing is given back, and the log says what came of each.
async fn settles(world: &mut World) {
    let token = world.gate.token(limited(5)).await;
    for _ in 0..20 {
        let failed = world.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=500")).await;
        assert_eq!(failed.status, 500, "{}", failed.text());
    }
    for _ in 0..3 {
        assert_eq!(world.ask(Ask::get(&token.on(DATA)).header("X-Test", "bytes=1234")).await.status, 200);
    }
    world.gate.wait_used(&token, 3).await;
    let lines = || {
        let log = world.gate.access_log();
        let mine = log.into_iter().filter(|line| line["token_id"] == token.id.as_str());
        mine.collect::<Vec<_>>()
    };
    wait_for("the log", || async { lines().len() == 23 }).await;
    for (line, status) in lines().iter().zip([500_u64; 20].into_iter().chain([200; 3])) {
        let charged = u64::from(status == 200);
        let bytes = if charged == 1 { 1234 } else { 11 };
        assert_eq!(
            (&line["status"], &line["credits"], &line["bytes_out"]),
            (&json!(status), &json!(charged), &json!(bytes)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn nginx_serves_and_refuses_as_the_gate_decides() {
    let mut world = World::start(Kind::Nginx).await;
    serves(&mut world).await;
    refuses(&mut world).await;
    answers_browsers(&mut world).await;
    settles(&mut world).await;
}

#[tokio::test]
async fn haproxy_serves_and_refuses_as_the_gate_decides() {
    let mut world = World::start(Kind::Haproxy).await;
    serves(&mut world).await;
    refuses(&mut world).await;
    answers_browsers(&mut world).await;
    settles(&mut world).await;
    let token = world.gate.token(json!({})).await;
    world.gate.kill();
    assert_eq!(
        (world.ask(Ask::get(&token.on(DATA))).await.status, world.upstream.count()),
        (503, world.upstream.count())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_serves_and_refuses_as_the_gate_decides() {
    let mut world = World::start(Kind::Caddy).await;
    serves(&mut world).await;
    refuses(&mut world).await;
    answers_browsers(&mut world).await;
    // It cannot settle, so what fails is charged as well.
    let token = world.gate.token(limited(2)).await;
    for expected in [500, 200, 402] {
        assert_eq!(
            world.ask(Ask::get(&token.on(DATA)).header("X-Test", &format!("status={expected}"))).await.status,
            expected
        );
    }
    world.gate.wait_used(&token, 2).await;
    let before = world.upstream.count();
    world.gate.kill();
    assert_eq!((world.ask(Ask::get(&token.on(DATA))).await.status, world.upstream.count()), (502, before));
}

#[tokio::test]
async fn nginx_charges_at_the_check_where_nobody_settles() {
    let edit = |text: String| text.replace("&settle=later", "").replace("post_action /_tollgate/settle;", "");
    let mut world = World::start_with(Kind::Nginx, AUTHZ, edit).await;
    let token = world.gate.token(limited(2)).await;
    for expected in [500, 500, 402] {
        assert_eq!(
            world.ask(Ask::get(&token.on(DATA)).header("X-Test", "status=500")).await.status,
            expected
        );
    }
    world.gate.wait_used(&token, 2).await;
}

#[tokio::test]
async fn nginx_lets_nothing_by_when_the_gate_is_gone() {
    let mut world = World::start(Kind::Nginx).await;
    let token = world.gate.token(json!({})).await;
    world.gate.kill();
    let answer = world.ask(Ask::get(&token.on(DATA))).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "gate_unavailable"));
    assert_eq!(world.upstream.count(), 0);
}
