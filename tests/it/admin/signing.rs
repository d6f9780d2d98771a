//! Signing secrets, and what a token says of signatures.

use serde_json::{Value, json};
use tollgate::policy::{AccountId, TokenId};
use tollgate::store::Store;

use super::desk::Desk;

fn path(token: &Value) -> String {
    format!("/v1/tokens/{}", token["id"].as_str().unwrap())
}

#[test]
fn a_signing_secret_is_shown_once_and_signs_from_then_on() {
    let desk = Desk::start();
    let token = desk.create(json!({"signed_requests": true}));
    let place = format!("{}/signing-secret", path(&token));
    let mut secrets = Vec::new();
    for version in [2, 3] {
        let made = desk.call("POST", &place, Value::Null).expect(200);
        assert_eq!(made.header("etag"), format!("\"{version}\""));
        assert_eq!(made.header("cache-control"), "no-store");
        let made = made.json();
        assert_eq!((&made["id"], &made["version"]), (&token["id"], &json!(version)));
        let secret = made["signing_secret"].as_str().unwrap().to_owned();
        assert!(secret.len() == 35 && secret.starts_with("ss_"), "{secret}");
        secrets.push(secret);
    }
    assert_ne!(secrets[0], secrets[1]);
    let id = TokenId::parse(token["id"].as_str().unwrap()).unwrap();
    let kept = desk.block_on(desk.store.signing_secret(&AccountId::default_account(), &id)).unwrap().unwrap();
    assert_eq!(kept.expose(), secrets[1], "the newer one counts");
    for target in [path(&token), "/v1/tokens".to_owned()] {
        let shown = desk.call("GET", &target, Value::Null).expect(200).text;
        assert!(secrets.iter().all(|secret| !shown.contains(&secret[3..])), "{shown}");
    }
}

#[test]
fn a_signing_secret_is_refused_where_it_makes_no_sense() {
    let desk = Desk::start();
    let token = desk.create(json!({}));
    let place = format!("{}/signing-secret", path(&token));
    let stale = desk.call_with("POST", &place, Value::Null, &[("if-match", "\"7\"")]).expect(412);
    assert_eq!(stale.code(), "version_conflict");
    desk.call_with("POST", &place, Value::Null, &[("if-match", "\"1\"")]).expect(200);
    let fields = desk.call("POST", &place, json!({"secret": "mine"})).expect(422);
    assert_eq!(fields.pointers(), ["/secret"]);
    let waited = desk.call("POST", &format!("{place}?wait=1ms"), Value::Null).expect(200).json();
    assert!(waited["receipt"].is_object(), "{waited}");
    desk.call("DELETE", &path(&token), Value::Null).expect(200);
    assert_eq!(desk.call("POST", &place, Value::Null).expect(409).code(), "token_revoked");
    let nobody = "/v1/tokens/tok_00000000010000000000000009/signing-secret";
    assert_eq!(desk.call("POST", nobody, Value::Null).expect(404).code(), "token_not_found");
    desk.call("GET", &place, Value::Null).expect(405);
}

#[test]
fn replay_protection_is_on_unless_somebody_says_otherwise() {
    let desk = Desk::start();
    let token = desk.create(json!({}));
    assert_eq!(token["replay_protection"], true);
    for (patch, expected) in [(json!(false), false), (Value::Null, true)] {
        let patch = json!({"replay_protection": patch});
        let edited = desk.call("PATCH", &path(&token), patch).expect(200).json();
        assert_eq!(edited["replay_protection"], expected);
    }
    let refused = desk.call("PATCH", &path(&token), json!({"replay_protection": "off"})).expect(422);
    assert_eq!(refused.pointers(), ["/replay_protection"]);
    assert_eq!(desk.create(json!({"replay_protection": false}))["replay_protection"], false);
}
