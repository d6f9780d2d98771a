//! Who is let in.

use serde_json::{Value, json};

use super::desk::{Desk, FIRST_ID, SECRET};
use super::moody_store::Mood;

/// Every call under `/v1`.
const CALLS: [(&str, &str); 15] = [
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("GET", "/v1/tokens/tok_00000000010000000000000001"),
    ("PATCH", "/v1/tokens/tok_00000000010000000000000001"),
    ("DELETE", "/v1/tokens/tok_00000000010000000000000001"),
    ("POST", "/v1/tokens/tok_00000000010000000000000001/rotate"),
    ("POST", "/v1/tokens/tok_00000000010000000000000001/reveal"),
    ("GET", "/v1/tokens/tok_00000000010000000000000001/usage"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/nodes"),
    ("GET", "/v1/account"),
    ("PATCH", "/v1/account"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/no/such/path"),
    ("PUT", "/v1/account"),
];

#[test]
fn every_call_under_v1_needs_a_secret_token() {
    let desk = Desk::start();
    for (method, path) in CALLS {
        let answer = desk.raw(method, path, &[], b"").expect(401);
        assert_eq!(answer.code(), "token_missing", "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
    }
    // Nobody was let in to revoke the one token there is.
    assert_eq!(desk.read(FIRST_ID)["status"], "active");
}

#[test]
fn what_is_no_secret_token_of_the_account_is_refused() {
    let desk = Desk::start();
    let publishable = desk.create(json!({}))["token"].as_str().unwrap().to_owned();
    let secret = |fields: Value| {
        let mut fields = fields;
        fields["type"] = json!("secret");
        let token = desk.create(fields);
        (token["id"].as_str().unwrap().to_owned(), token["token"].as_str().unwrap().to_owned())
    };
    let (revoked_id, revoked) = secret(json!({}));
    desk.call("DELETE", &format!("/v1/tokens/{revoked_id}"), Value::Null).expect(200);
    let (disabled_id, disabled) = secret(json!({}));
    desk.call("PATCH", &format!("/v1/tokens/{disabled_id}"), json!({"status": "disabled"})).expect(200);
    let (_, signed) = secret(json!({"signed_requests": true}));
    let (_, elsewhere) = secret(json!({"allowed_domains": ["203.0.113.0/24"]}));
    let unknown = "sk_ffffffffffffffffffffffffffffffff";
    // (Authorization, status, code)
    let table = [
        (format!("Bearer {publishable}"), 403, "secret_token_required"),
        (format!("Bearer {unknown}"), 401, "token_invalid"),
        (format!("Bearer {revoked}"), 401, "token_revoked"),
        (format!("Bearer {disabled}"), 401, "token_disabled"),
        (format!("Bearer {signed}"), 401, "signature_missing"),
        (format!("Bearer {elsewhere}"), 403, "domain_denied"),
        (format!("Bearer {}", SECRET.to_uppercase()), 401, "token_invalid"),
        (format!("Bearer {SECRET}0"), 401, "token_invalid"),
        (format!("Bearer {SECRET} {SECRET}"), 401, "token_invalid"),
        ("Bearer ".to_owned(), 401, "token_missing"),
        ("Bearer".to_owned(), 401, "token_missing"),
        (SECRET.to_owned(), 401, "token_missing"),
        (format!("Basic {SECRET}"), 401, "token_missing"),
        (format!("Bearer{SECRET}"), 401, "token_missing"),
    ];
    for (value, status, code) in &table {
        let answer = desk.raw("GET", "/v1/account", &[("Authorization", value)], b"");
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{value}");
        for token in [SECRET, &publishable, unknown, &revoked, &disabled, &signed, &elsewhere] {
            assert!(!answer.text.contains(token), "{value}");
        }
    }
    let twice = format!("Bearer {SECRET}");
    let answer = desk
        .raw("GET", "/v1/account", &[("Authorization", &twice), ("Authorization", &twice)], b"")
        .expect(401);
    assert_eq!(answer.code(), "token_ambiguous");
    // A token in the query is no credential here, where it would end in logs.
    desk.raw("GET", &format!("/v1/account?token={SECRET}"), &[], b"").expect(401);
}

#[test]
fn a_secret_token_lets_in_while_its_time_lasts_and_where_its_domains_allow() {
    let desk = Desk::start();
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
    let token = desk.create(json!({
        "type": "secret", "expires_at": later.to_string(), "allowed_domains": ["127.0.0.0/8"],
    }));
    let bearer = format!("bearer {}", token["token"].as_str().unwrap());
    let ask = || desk.raw("GET", "/v1/account", &[("Authorization", &bearer)], b"");
    ask().expect(200);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let refused = loop {
        let answer = ask();
        if answer.status != 200 {
            break answer;
        }
        assert!(std::time::Instant::now() < deadline, "it never expires");
    };
    assert!(jiff::Timestamp::now() >= later);
    assert_eq!((refused.status, refused.code().as_str()), (401, "token_expired"));
}

#[test]
fn trouble_with_the_store_is_503_and_tells_nothing_of_its_cause() {
    let desk = Desk::start();
    desk.mood(Mood::Down);
    for (method, path) in CALLS {
        let answer = desk.call(method, path, Value::Null).expect(503);
        assert_eq!(answer.code(), "store_unavailable", "{method} {path}");
        assert_eq!(answer.header("retry-after"), "1", "{method} {path}");
        assert!(!answer.text.contains("10.1.2.3"), "{}", answer.text);
    }
    desk.mood(Mood::Well);
    desk.call("GET", "/v1/account", Value::Null).expect(200);
}
