//! Signed requests (`signing.md`), end to end: real gates, on the embedded store and on Redis.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Ask};
use crate::harness::evidence;
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;

mod bodies;
mod replayed;
pub(crate) mod signer;

use signer::{Signer, date};

const SECRET: &str = "sk_fedcba9876543210fedcba9876543210";
const QUOTE: &str = "/v1/data/CORE/QUOTE/AAPL";
const KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

/// What signs for a whole account here.
fn plan(upstream: &Upstream) -> Plan {
    Plan::new(upstream).secret(SECRET)
}

/// A node of a fleet on this Redis.
fn on(redis: &RedisServer, upstream: &Upstream) -> Plan {
    // A loaded test machine answers late; a late answer is no outage here.
    plan(upstream)
        .store(&format!("url: \"{}\", timeout: 10s", redis.url()))
        .env("TOLLGATE_TEST_KEY", KEY)
        .extra("master_key: ${TOLLGATE_TEST_KEY}")
}

async fn embedded() -> (Upstream, Gate) {
    let upstream = Upstream::start().await;
    let gate = plan(&upstream).start().await;
    (upstream, gate)
}

async fn signing_secret(gate: &Gate, token: &Token) -> String {
    let made = gate.admin("POST", &format!("/v1/tokens/{}/signing-secret?wait=5s", token.id), None).await;
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()["signing_secret"].as_str().unwrap().to_owned()
}

/// A token whose requests must be signed; fields more or instead.
async fn signed_token(gate: &mut Gate, more: Value) -> Token {
    let mut fields = json!({"signed_requests": true});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gate.token(fields).await
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {}", answer.text());
}

#[tokio::test]
async fn a_request_passes_with_the_accounts_secret_and_with_the_tokens_own() {
    let redis = RedisServer::start();
    for on_redis in [false, true] {
        let upstream = Upstream::start().await;
        let plan = if on_redis { on(&redis, &upstream) } else { plan(&upstream) };
        let mut gate = plan.start().await;
        let token = signed_token(
            &mut gate,
            json!({"datasets": [{"dataset": "MY/*", "operations": ["read", "write"]}]}),
        )
        .await;
        let own = signing_secret(&gate, &token).await;
        let mut signatures = Vec::new();
        for secret in [SECRET, &own] {
            let batch = token.on(&format!("{QUOTE}?symbols=aapl,msft&types=quote&x=%7e"));
            let body = br#"[{"symbol":"AAPL","v":1}]"#;
            for request in [
                Signer::get(&token.on(QUOTE), &token.value, secret),
                Signer::get(&batch, &token.value, secret),
                Signer::post(&token.on("/v1/data/MY/CARS"), &token.value, secret, body),
            ] {
                let answer = gate.ask(request.ask()).await;
                assert_eq!(answer.status, 200, "{}: {}", request.target, answer.text());
                signatures.push(request.signature());
            }
        }
        for seen in upstream.seen() {
            let told = format!("{seen:?}");
            assert!(!told.contains(&token.value) && !told.contains("IEX-HMAC"), "{told}");
            assert_eq!(seen.header("x-iex-date"), None);
            assert_eq!(seen.header("x-tollgate-token-id"), Some(token.id.as_str()));
        }
        gate.wait_used(&token, 6).await;
        // Law 7: nothing that the gate writes holds a signature, in whatever form.
        let written = gate.events() + &gate.metrics().await + &format!("{:?}", gate.access_log());
        assert!(gate.access_log().len() >= 6, "{:?}", gate.access_log());
        assert!(signatures.iter().all(|signature| !written.contains(signature)), "{written}");
    }
}

#[tokio::test]
async fn a_port_in_host_may_be_signed_or_not() {
    let (_upstream, mut gate) = embedded().await;
    let token = signed_token(&mut gate, json!({})).await;
    let sent = gate.address.to_string();
    let bare = gate.address.ip().to_string();
    for (signed, expected) in [(sent.as_str(), 200), (&bare, 200), ("127.0.0.2", 403)] {
        let request =
            Signer { host: signed.to_owned(), ..Signer::get(&token.on(QUOTE), &token.value, SECRET) };
        let ask = Ask::get(&request.target)
            .header("x-iex-date", &request.date)
            .header("Authorization", &request.authorization());
        assert_eq!(gate.ask(ask).await.status, expected, "{signed}");
    }
}

#[tokio::test]
async fn every_signature_that_is_not_right_is_refused_and_costs_nothing() {
    let (upstream, mut gate) = embedded().await;
    let token = signed_token(&mut gate, json!({})).await;
    let other = gate.token(json!({"core_access": true})).await;
    let own_of_other = signing_secret(&gate, &other).await;
    let on = token.on(QUOTE);
    let good = Signer::get(&on, &token.value, SECRET);
    let replaced = |name: &str, value: &str| {
        let mut ask = Ask::get(&on).header("Host", signer::HOST);
        for (known, own) in [("x-iex-date", &good.date), ("Authorization", &good.authorization())] {
            ask = ask.header(known, if known == name { value } else { own });
        }
        ask
    };
    let dated = |date: String| Signer { date, ..good.clone() }.ask();
    let by = |token: &str, secret: &str| Signer::get(&on, token, secret).ask();
    let sent_as = |method: &str, target: &str| {
        Ask::new(method, target)
            .header("Host", signer::HOST)
            .header("x-iex-date", &good.date)
            .header("Authorization", &good.authorization())
    };
    let invalid = (403, "signature_invalid");
    let stale = (403, "signature_stale");
    let table = [
        ("none at all", Ask::get(&on), (401, "signature_missing")),
        (
            "none, but of a browser's page",
            Ask::get(&on).header("Origin", "https://a.example"),
            (401, "signature_missing"),
        ),
        ("on a route that asks for one", Ask::get(&other.on("/v1/signed/a")), (401, "signature_missing")),
        ("another secret", by(&token.value, "sk_00000000000000000000000000000000"), invalid),
        ("another token's own secret", by(&token.value, &own_of_other), invalid),
        ("another token's name", by(&other.value, SECRET), invalid),
        ("another path", sent_as("GET", &token.on("/v1/data/CORE/QUOTE/MSFT")), invalid),
        ("a query more", sent_as("GET", &format!("{on}&x=1")), invalid),
        ("another method", sent_as("DELETE", &on), invalid),
        (
            "a signature of zeros",
            replaced("Authorization", &good.authorization().replace(&good.signature(), &"0".repeat(64))),
            invalid,
        ),
        (
            "upper-case digits",
            replaced(
                "Authorization",
                &good.authorization().replace(&good.signature(), &good.signature().to_uppercase()),
            ),
            invalid,
        ),
        ("no form at all", replaced("Authorization", "IEX-HMAC-SHA256 hello"), invalid),
        ("a date that is none", replaced("x-iex-date", "yesterday"), invalid),
        ("another date than was signed", replaced("x-iex-date", &date(1)), invalid),
        ("two dates", good.ask().header("x-iex-date", &good.date), invalid),
        ("two signatures", good.ask().header("Authorization", &good.authorization()), invalid),
        ("too old", dated(date(-303)), stale),
        ("of a time to come", dated(date(303)), stale),
        ("the vectors' own time", dated("20240115T123045Z".to_owned()), stale),
    ];
    for (what, ask, (status, code)) in table {
        let answer = gate.ask(ask).await;
        assert_refused(&answer, status, code, what);
        assert_eq!(upstream.count(), 0, "{what}: the upstream saw it");
    }
    assert_eq!(gate.ask(good.ask()).await.status, 200, "the one that all were made of");
    assert_eq!(
        gate.ask(Signer::get(&other.on("/v1/signed/a"), &other.value, SECRET).ask()).await.status,
        200
    );
    assert_eq!(gate.ask(Ask::get(&other.on(QUOTE))).await.status, 200, "needs none");
    gate.wait_used(&token, 1).await;
}

#[tokio::test]
async fn checks_are_made_in_the_order_of_the_specification() {
    let (upstream, mut gate) = embedded().await;
    let token =
        signed_token(&mut gate, json!({"core_access": false, "allowed_domains": ["www.example.com"]})).await;
    let on = token.on(QUOTE);
    let from = |page: &str| Signer::get(&on, &token.value, SECRET).ask().header("Origin", page);
    assert_refused(&gate.ask(Ask::get(&on)).await, 401, "signature_missing", "before the domain");
    assert_refused(
        &gate.ask(from("https://other.example")).await,
        403,
        "domain_denied",
        "after the signature",
    );
    assert_refused(&gate.ask(from("https://www.example.com")).await, 403, "core_denied", "after the domain");
    gate.edit(&token, json!({"status": "disabled"})).await;
    let answer = gate.ask(Ask::get(&on)).await;
    assert_refused(&answer, 403, "token_disabled", "before the signature");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_refusal_uses_no_signature_up() {
    let (upstream, mut gate) = embedded().await;
    let token = signed_token(&mut gate, json!({"core_access": false})).await;
    let request = Signer::get(&token.on(QUOTE), &token.value, SECRET).ask();
    for _ in 0..2 {
        assert_refused(&gate.ask(request.clone()).await, 403, "core_denied", "while it has no access");
    }
    gate.edit(&token, json!({"core_access": true})).await;
    assert_eq!(gate.ask(request).await.status, 200, "the same signature");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_new_signing_secret_takes_the_place_of_the_old_one_on_every_node_at_once() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut nodes = vec![on(&redis, &upstream).start().await, on(&redis, &upstream).start().await];
    let token = signed_token(&mut nodes[0], json!({})).await;
    let mut secrets = vec![signing_secret(&nodes[0], &token).await];
    let mut number = 0;
    let mut passes = async |node: &Gate, secret: &str| {
        number += 1;
        let target = token.on(&format!("{QUOTE}?n={number}"));
        let answer = node.ask(Signer::get(&target, &token.value, secret).ask()).await;
        if answer.status != 200 {
            assert_refused(&answer, 403, "signature_invalid", secret);
        }
        answer.status == 200
    };
    for _ in 0..3 {
        secrets.push(signing_secret(&nodes[1], &token).await);
        let [.., old, new] = secrets.as_slice() else { unreachable!() };
        for node in &nodes {
            assert!(passes(node, new).await && passes(node, SECRET).await);
            assert!(!passes(node, old).await, "the old secret still signs");
        }
    }
    // So does an account's secret token: made, it signs; revoked, it does not.
    let made = nodes[0].admin("POST", "/v1/tokens?wait=5s", Some(json!({"type": "secret"}))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let (id, value) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    for node in &nodes {
        assert!(passes(node, value).await, "a new secret token");
    }
    let revoked = nodes[0].admin("DELETE", &format!("/v1/tokens/{id}?wait=5s"), None).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    for node in &nodes {
        assert!(!passes(node, value).await, "a revoked secret token still signs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sign_prints_for_curl_passes_the_gate() {
    let (upstream, mut gate) = embedded().await;
    let token =
        signed_token(&mut gate, json!({"datasets": [{"dataset": "MY/*", "operations": ["write"]}]})).await;
    std::fs::write(gate.path("body.json"), r#"[{"symbol":"AAPL","v":1}]"#).unwrap();
    let url = |path: &str| format!("http://{}{path}", gate.address);
    let get: &[&str] = &[];
    let post: &[&str] = &["--method", "POST", "--body-file", "body.json"];
    for (url, args) in [
        (url(&token.on(&format!("{QUOTE}?a=[1]&b=%20"))), get),
        (url("/v1/data/CORE/QUOTE/A%7EB"), get),
        (url(&token.on("/v1/data/MY/CARS")), post),
    ] {
        let run = |program: &str, args: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(args).current_dir(gate.path("")).env("TOLLGATE_SECRET_TOKEN", SECRET);
            command.env("TOLLGATE_TOKEN", &token.value).env("NO_PROXY", "*");
            let done = command.output().unwrap();
            assert!(done.status.success(), "{done:?}");
            String::from_utf8(done.stdout).unwrap()
        };
        let tollgate = env!("CARGO_BIN_EXE_tollgate");
        let printed = run(tollgate, &[["sign", "--curl", &url].as_slice(), args].concat());
        let told = tokio::task::block_in_place(|| run("sh", &["-c", &format!("{} -sS", printed.trim_end())]));
        assert_eq!(told, "{\"ok\":true}", "{printed}");
    }
    assert_eq!(upstream.count(), 3);
    assert_eq!(upstream.seen()[2].body_length, 25);
}

#[tokio::test]
async fn explain_tells_of_a_signature_what_it_can_know() {
    let (upstream, mut gate) = embedded().await;
    let token =
        signed_token(&mut gate, json!({"datasets": [{"dataset": "MY/*", "operations": ["write"]}]})).await;
    let get = Signer::get(&token.on(QUOTE), &token.value, SECRET);
    let by_id = Signer::get(QUOTE, &token.value, SECRET);
    let wrong = Signer { secret: "sk_00000000000000000000000000000000".to_owned(), ..get.clone() };
    let post = Signer::post(&token.on("/v1/data/MY/CARS"), &token.value, SECRET, b"[]");
    let stale = Signer { date: date(-400), ..post.clone() };
    let question = |request: &Signer, named: bool, signed: bool| {
        let mut headers = json!({"Host": request.host});
        if signed {
            headers["x-iex-date"] = json!(request.date);
            headers["Authorization"] = json!(request.authorization());
        }
        let mut question = json!({"method": request.method, "target": request.target, "headers": headers});
        if named {
            question["token_id"] = json!(token.id);
        }
        question
    };
    let table = [
        ("right", question(&get, false, true), true, "noted", Some("signature_right")),
        ("asked twice", question(&get, false, true), true, "noted", Some("signature_right")),
        ("by its id", question(&by_id, true, true), true, "noted", Some("signature_right")),
        ("with a body", question(&post, false, true), true, "noted", Some("signature_needs_body")),
        ("none", question(&get, false, false), false, "refused", Some("signature_missing")),
        ("wrong", question(&wrong, false, true), false, "refused", Some("signature_invalid")),
        ("stale", question(&stale, false, true), false, "refused", Some("signature_stale")),
    ];
    for (what, question, passes, outcome, code) in table {
        let answer = gate.admin("POST", "/v1/explain", Some(question)).await;
        evidence::assert_sealed("explain", &answer.body);
        let told = answer.json();
        let checks = told["checks"].as_array().unwrap_or_else(|| panic!("{what}: {told}"));
        let check = checks.iter().find(|check| check["check"] == "signature").unwrap();
        assert_eq!(told["pass"], passes, "{what}: {told}");
        assert_eq!((&check["outcome"], &check["code"]), (&json!(outcome), &json!(code)), "{what}: {told}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(gate.ask(get.ask()).await.status, 200, "asking used nothing up");
}
