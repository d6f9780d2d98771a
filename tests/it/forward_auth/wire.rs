//! The wire form itself: every proxy's way to ask, what contradicts, who may ask, settlement.

use serde_json::json;

use super::{AUTHZ, DATA};
use crate::harness::client::{Answer, Ask};
use crate::harness::evidence;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::signed::signer::{HOST, Signer, date};

const PRICES: &str = r#"
  - {path: "/flat/**", upstream: datasets, access: core, credits: 2}
  - {path: "/bytes/**", upstream: datasets, access: core, credits: 1, per_kilobyte: 2, max_credits: 50}
  - {path: "/records/**", upstream: datasets, access: core, credits: 0, per_record: 3}
  - {path: "/stated/**", upstream: datasets, access: core, credits: 4, from_header: X-Price}
  - {path: "/signed/**", upstream: datasets, access: core, signed: true, operations: {POST: read}}
  - {path: "/lenient/**", upstream: datasets, access: core, signed: true, signature_body: lenient, operations: {POST: read}}
"#;

/// A proxy's way to ask about a request of a client at 203.0.113.9.
type Form = fn(&str, &str) -> Ask;

type Headers<'h> = &'h [(&'h str, &'h str)];

/// As nginx is told to.
fn nginx(method: &str, target: &str) -> Ask {
    Ask::get("/authz")
        .header("X-Original-URI", target)
        .header("X-Original-Method", method)
        .header("X-Forwarded-For", "203.0.113.9")
}

/// As Traefik's `forwardAuth` sends it (`trustForwardHeader: false`).
fn traefik(method: &str, target: &str) -> Ask {
    Ask::get("/authz")
        .header("X-Forwarded-Method", method)
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "data.example")
        .header("X-Forwarded-Uri", target)
        .header("X-Forwarded-For", "203.0.113.9")
}

/// As Envoy's HTTP `ext_authz` sends it, with `path_prefix: /authz`.
fn envoy(method: &str, target: &str) -> Ask {
    Ask::new(method, &format!("/authz{target}"))
        .header("Host", "data.example")
        .header("Content-Length", "0")
        .header("X-Forwarded-For", "203.0.113.9")
}

const FORMS: [Form; 3] = [nginx, traefik, envoy];

async fn gate(extra: &str) -> (Upstream, Gate) {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).routes(PRICES).extra(extra).start().await;
    (upstream, gate)
}

async fn ask(gate: &Gate, ask: Ask) -> Answer {
    let answer = ask.send(gate.authz()).await;
    evidence::assert_sealed("an answer to another proxy", format!("{answer:?}").as_bytes());
    answer
}

/// What differs from one answer to the next.
fn compared(answer: &Answer) -> (u16, Vec<(String, String)>, serde_json::Value) {
    let varies = ["date", "x-request-id", "connection", "content-length", "retry-after", "ratelimit"];
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !varies.contains(&name.as_str()))
        .collect();
    headers.sort();
    let mut body = if answer.body.is_empty() { json!({}) } else { answer.json() };
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    (answer.status, headers, body)
}

#[tokio::test]
async fn each_way_to_ask_gets_what_the_gate_s_own_proxy_would_tell() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra(AUTHZ).extra("trusted_proxies: [127.0.0.0/8]").start().await;
    let good = gate.token(json!({})).await;
    let spent = gate.token(limited(0)).await;
    let pages = gate.token(json!({"allowed_domains": ["www.example.com"]})).await;
    let address = gate.token(json!({"allowed_domains": ["203.0.113.0/24"]})).await;
    let origin = ("Origin", "https://www.example.com");
    let preflight = [origin, ("Access-Control-Request-Method", "PUT")];
    let refused: &[(&str, String, Headers<'_>, u16)] = &[
        ("GET", DATA.to_owned(), &[origin], 401),
        ("GET", good.on("/nowhere"), &[], 404),
        ("DELETE", good.on(DATA), &[], 403),
        ("PURGE", good.on(DATA), &[], 405),
        ("GET", spent.on(DATA), &[origin], 402),
        ("GET", pages.on(DATA), &[("Origin", "https://evil.test")], 403),
        ("GET", format!("{DATA}?token={}&a=%zz", good.value), &[], 400),
    ];
    for form in FORMS {
        for (method, target, headers, status) in refused {
            let with = |ask: Ask| headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
            let told = ask(&gate, with(form(method, target))).await;
            let proxied =
                gate.ask(with(Ask::new(method, target).header("X-Forwarded-For", "203.0.113.9"))).await;
            assert_eq!(told.status, *status, "{method} {target}: {}", told.text());
            assert_eq!(compared(&told), compared(&proxied), "{method} {target}");
        }
        for (token, headers) in [(&good, &[][..]), (&pages, &[origin][..]), (&address, &[][..])] {
            let target = format!("/v1//data/CORE/%51UOTE?token={}&a=1", token.value);
            let question =
                headers.iter().fold(form("GET", &target), |ask, (name, value)| ask.header(name, value));
            let told = ask(&gate, question).await;
            assert_eq!(told.status, 204, "{}", told.text());
            assert_eq!(told.header("x-tollgate-uri"), Some("/v1/data/CORE/QUOTE?a=1"));
            assert_eq!(told.header("x-tollgate-token-id"), Some(token.id.as_str()));
            assert_eq!(told.header("x-tollgate-account"), Some("default"));
            assert_eq!(
                told.header("access-control-allow-origin"),
                headers.first().map(|(_, origin)| *origin)
            );
            assert!(told.header("x-credits-used").is_some() && told.header("x-tollgate-claim").is_none());
        }
        // Only what passes is 2xx. A preflight, and what the gate answers itself, has a path of its own.
        let question =
            preflight.iter().fold(form("OPTIONS", DATA), |ask, (name, value)| ask.header(name, value));
        let told = ask(&gate, question).await;
        assert_eq!((told.status, told.code().as_str()), (403, "authz_not_relayed"));
        let told = ask(&gate, form("GET", &good.on("/v1/credits"))).await;
        assert_eq!((told.status, told.code().as_str()), (403, "authz_not_relayed"));
    }
    let relayed = preflight
        .iter()
        .fold(Ask::new("OPTIONS", &format!("/answer{DATA}")), |ask, (name, value)| ask.header(name, value));
    let proxied =
        preflight.iter().fold(Ask::new("OPTIONS", DATA), |ask, (name, value)| ask.header(name, value));
    let (relayed, proxied) = (ask(&gate, relayed).await, gate.ask(proxied).await);
    assert_eq!((relayed.status, compared(&relayed)), (204, compared(&proxied)));
    let credits = ask(&gate, Ask::get(&format!("/answer{}", good.on("/v1/credits")))).await;
    assert_eq!(credits.status, 200, "{}", credits.text());
    let passing = ask(&gate, Ask::get(&format!("/answer{}", good.on(DATA)))).await;
    assert_eq!((passing.status, passing.code().as_str()), (404, "no_route"));

    gate.wait_used(&good, 3).await;
    gate.wait_used(&pages, 3).await;
    assert_eq!(upstream.count(), 0);
    // The log tells them as it tells those that the gate forwards itself.
    let passed = |log: Vec<serde_json::Value>| {
        log.into_iter().filter(|line| line["verdict"] == "pass").collect::<Vec<_>>()
    };
    wait_for("the log", || async { passed(gate.access_log()).len() == 9 }).await;
    for line in passed(gate.access_log()) {
        assert_eq!(
            (&line["method"], &line["credits"], &line["client"]),
            (&json!("GET"), &json!(1), &json!("203.0.113.9")),
            "{line}"
        );
    }
    let counted = gate.metric(r#"tollgate_requests_total{route="/{version}/data/CORE/{dataset}/**",status="2xx",verdict="pass"}"#).await;
    assert_eq!(counted, 9);
}

#[tokio::test]
async fn a_question_that_is_none_is_not_answered_with_leave() {
    let (_upstream, mut gate) = gate(AUTHZ).await;
    let token = gate.token(json!({})).await;
    let target = token.on("/flat/x");
    let table = [
        (Ask::get("/authz"), 400, "authz_incomplete"),
        (Ask::get("/authz").header("X-Original-URI", &target), 400, "authz_incomplete"),
        (nginx("GET", &target).header("X-Forwarded-Uri", "/free"), 400, "authz_contradiction"),
        (nginx("GET", &target).header("X-Original-Method", "POST"), 400, "authz_contradiction"),
        (envoy("GET", &target).header("X-Original-URI", "/free"), 400, "authz_contradiction"),
        (Ask::get("/authz?settle=later&settle=later"), 400, "authz_options"),
        (Ask::get("/authz?settel=later"), 400, "authz_options"),
        (Ask::get("/other"), 404, "authz_no_path"),
        (Ask::get("/authzz/flat"), 404, "authz_no_path"),
        (Ask::get("/settle?claim=x&status=200"), 405, "authz_method"),
        (Ask::new("POST", "/settle?claim=x&status=200"), 404, "authz_unknown_claim"),
        (Ask::new("POST", "/settle?claim=x"), 400, "authz_outcome"),
    ];
    for (question, status, code) in table {
        let answer = ask(&gate, question.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{question:?}");
    }
    assert_eq!(gate.used(&token).await, 0);
}

#[tokio::test]
async fn a_proxy_that_cannot_rewrite_gets_leave_only_for_what_is_in_its_one_form() {
    let (_upstream, mut gate) = gate(AUTHZ).await;
    let token = gate.token(json!({})).await;
    let plain = "/flat/x?a=1&b=%2f";
    // (target, status)
    let table = [
        (plain.to_owned(), 204),
        (token.on(plain), 400),
        ("/flat//x".to_owned(), 400),
        ("/flat/%78".to_owned(), 400),
        ("/flat/%c3%a4".to_owned(), 400),
        ("/flat/%C3%A4".to_owned(), 204),
    ];
    for (target, status) in table {
        let question = Ask::get("/authz?target=as-is")
            .header("X-Forwarded-Uri", &target)
            .header("X-Forwarded-Method", "GET")
            .header("Authorization", &format!("Bearer {}", token.value));
        let answer = ask(&gate, question).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(status == 204 || answer.code() == "bad_target", "{target}");
    }
    gate.wait_used(&token, 4).await;
}

#[tokio::test]
async fn only_who_is_trusted_may_ask() {
    let (_upstream, mut gate) = gate("authz: { address: 127.0.0.1:0, trusted: [192.0.2.0/24] }").await;
    let token = gate.token(json!({})).await;
    for path in ["/authz/flat/x", "/answer/flat/x", "/refusal", "/settle"] {
        let answer = ask(&gate, Ask::get(&token.on(path))).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "authz_untrusted"), "{path}");
    }
    assert!(gate.events().contains("authz.trusted does not name"));
}

/// Asks, to settle later; the claim.
async fn claim(gate: &Gate, token: &Token, path: &str) -> String {
    let question = Ask::get("/authz?settle=later")
        .header("X-Original-URI", &token.on(path))
        .header("X-Original-Method", "GET");
    let answer = ask(gate, question).await;
    assert_eq!(answer.status, 204, "{path}: {}", answer.text());
    answer.header("x-tollgate-claim").expect("a claim").to_owned()
}

#[tokio::test]
async fn a_claim_is_settled_once_by_what_the_response_was() {
    let (_upstream, mut gate) = gate(AUTHZ).await;
    // (path, outcome, what it costs)
    let table = [
        ("/flat/x", "&status=200&bytes=10", 2),
        ("/flat/x", "&status=304", 2),
        ("/flat/x", "&status=404", 0),
        ("/flat/x", "&status=502", 0),
        ("/flat/x", "&status=000", 0),
        ("/bytes/x", "&status=200&bytes=2001", 7),
        ("/bytes/x", "&status=200&bytes=900000", 50),
        ("/bytes/x", "&status=500&bytes=2001", 0),
        // Untold: what is held.
        ("/bytes/x", "&status=200", 50),
        ("/records/x", "&status=200&bytes=1&units=5", 15),
        ("/records/x", "&status=200&bytes=1&units=0", 0),
        ("/records/x", "&status=200&bytes=1", 3),
        ("/stated/x", "&status=200&credits=9", 9),
        ("/stated/x", "&status=200&credits=0", 0),
        ("/stated/x", "&status=200&credits=", 4),
        ("/stated/x", "&status=200", 4),
    ];
    for (path, outcome, cost) in table {
        let token = gate.token(json!({})).await;
        let claim = claim(&gate, &token, path).await;
        let settle = || Ask::new("POST", &format!("/settle?claim={claim}{outcome}"));
        let settled = ask(&gate, settle()).await;
        assert_eq!(settled.status, 204, "{path} {outcome}: {}", settled.text());
        assert_eq!(settled.header("x-tollgate-charged"), Some(cost.to_string().as_str()), "{path} {outcome}");
        let again = ask(&gate, settle()).await;
        assert_eq!((again.status, again.code().as_str()), (404, "authz_unknown_claim"));
        gate.wait_used(&token, cost).await;
    }
    // A claim is no other's.
    let token = gate.token(json!({})).await;
    let claim = claim(&gate, &token, "/flat/x").await;
    let forged = format!("{}{}", &claim[..16], "0".repeat(32));
    let answer = ask(&gate, Ask::new("POST", &format!("/settle?claim={forged}&status=500"))).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "authz_unknown_claim"));
}

#[tokio::test]
async fn what_nobody_settles_is_charged_in_time_and_when_the_gate_stops() {
    let (_upstream, mut gate) =
        gate("authz: { address: 127.0.0.1:0, settle_within: 1s }\nshutdown_grace: 0s").await;
    let (token, late) = (gate.token(limited(10)).await, gate.token(json!({})).await);
    for _ in 0..5 {
        claim(&gate, &token, "/flat/x").await;
    }
    // All is held: nothing more passes meanwhile, nor afterwards.
    let more = ask(&gate, nginx("GET", &token.on("/flat/x"))).await;
    assert_eq!((more.status, more.code().as_str()), (402, "credits_exhausted"));
    gate.wait_used(&token, 10).await;

    claim(&gate, &late, "/flat/x").await;
    gate.stop();
    gate.start_again().await;
    gate.wait_used(&late, 2).await;
}

#[tokio::test]
async fn charges_are_exact_however_many_ask_at_once() {
    let (_upstream, mut gate) = gate(AUTHZ).await;
    let token = gate.token(limited(20)).await;
    let asked = (0..50).map(|at| {
        let (address, form) = (gate.authz(), FORMS[at % FORMS.len()]);
        let question = form("GET", &token.on("/flat/x"));
        tokio::spawn(async move { question.send(address).await.status })
    });
    let mut passed = 0;
    for answer in asked.collect::<Vec<_>>() {
        passed += u32::from(answer.await.expect("an answer") == 204);
    }
    assert_eq!(passed, 10);
    gate.wait_used(&token, 20).await;
}

#[tokio::test]
async fn signed_requests_pass_where_no_body_is_to_be_checked() {
    let (_upstream, mut gate) = gate(AUTHZ).await;
    let token = gate.token(json!({})).await;
    let secret = gate.admin("POST", &format!("/v1/tokens/{}/signing-secret?wait=5s", token.id), None).await;
    let secret = secret.json()["signing_secret"].as_str().expect("a secret").to_owned();
    let question = |signer: &Signer| {
        nginx(&signer.method, &signer.target)
            .header("Host", HOST)
            .header("x-iex-date", &signer.date)
            .header("Authorization", &signer.authorization())
    };
    let signer = |method: &str, path: &str, at: i64| {
        let signer = Signer::get(&format!("{path}?b=2&token={}", token.value), &token.value, &secret);
        Signer { method: method.to_owned(), date: date(at), ..signer }
    };
    let get = signer("GET", "/signed/x", 0);
    // (question, status, code)
    let table = [
        (question(&get), 204, ""),
        (question(&get), 403, "signature_replayed"),
        (
            question(&Signer {
                secret: "sk_0123456789abcdef0123456789abcdef".to_owned(),
                ..signer("GET", "/signed/x", 1)
            }),
            403,
            "signature_invalid",
        ),
        (question(&signer("GET", "/signed/x", -400)), 403, "signature_stale"),
        (
            question(&signer("GET", "/signed/x", 2)).header("X-Original-Content-Length", "3"),
            413,
            "body_too_large",
        ),
        // Its body is with the other proxy, so its hash cannot be told.
        (question(&signer("POST", "/signed/x", 3)), 413, "body_too_large"),
        (question(&signer("POST", "/signed/x", 4)).header("X-Original-Content-Length", "0"), 204, ""),
        (question(&signer("POST", "/lenient/x", 5)).header("X-Original-Content-Length", "3"), 204, ""),
    ];
    for (at, (question, status, code)) in table.into_iter().enumerate() {
        let answer = ask(&gate, question).await;
        let told = if answer.status == 204 { String::new() } else { answer.code() };
        assert_eq!((answer.status, told.as_str()), (status, code), "{at}");
    }
}
