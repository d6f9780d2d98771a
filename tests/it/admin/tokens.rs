//! The life of a token: made, read, edited, rotated, revealed, revoked.

use serde_json::{Value, json};
use tollgate::policy::{AccountId, Pool, TokenId};
use tollgate::store::Store;

use super::books;
use super::desk::{Desk, FIRST_ID, SECRET};

fn path(token: &Value) -> String {
    format!("/v1/tokens/{}", token["id"].as_str().unwrap())
}

fn is_token(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|hex| {
        hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[test]
fn a_new_token_has_the_documented_fields_and_defaults() {
    let desk = Desk::start();
    let bearer = format!("Bearer {SECRET}");
    // No body at all is a body without fields.
    let answer = desk.raw("POST", "/v1/tokens", &[("Authorization", &bearer)], b"").expect(201);
    let token = answer.json();
    assert_eq!(answer.header("location"), path(&token));
    assert_eq!(answer.header("etag"), "\"1\"");
    assert_eq!(answer.header("cache-control"), "no-store");
    let names: Vec<_> = token.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "id",
            "type",
            "token",
            "nickname",
            "status",
            "created_at",
            "expires_at",
            "signed_requests",
            "replay_protection",
            "core_access",
            "premium_access",
            "datasets",
            "allowed_domains",
            "domain_mode",
            "credit_limit",
            "rate_limit",
            "seen_in_browser_at",
            "version"
        ]
    );
    assert!(is_token(token["token"].as_str().unwrap(), "pk_"), "{token}");
    assert!(TokenId::parse(token["id"].as_str().unwrap()).is_some());
    let made: jiff::Timestamp = token["created_at"].as_str().unwrap().parse().unwrap();
    assert!(made.duration_until(jiff::Timestamp::now()).as_secs().abs() < 60);
    let mut rest = token;
    for name in ["id", "token", "created_at"] {
        rest.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(
        rest,
        json!({"type": "publishable", "nickname": "", "status": "active", "expires_at": null,
               "signed_requests": false, "replay_protection": true, "core_access": true,
               "premium_access": false, "datasets": [],
               "allowed_domains": [], "domain_mode": "enforce", "credit_limit": {"core": null, "premium": null},
               "rate_limit": null, "seen_in_browser_at": null, "version": 1})
    );
}

#[test]
fn a_secret_token_is_shown_when_it_is_made_and_then_only_revealed() {
    let desk = Desk::start();
    let token = desk.create(json!({"type": "secret", "nickname": "Ops"}));
    let value = token["token"].as_str().unwrap().to_owned();
    assert!(is_token(&value, "sk_"));
    for (method, target, body) in [
        ("GET", path(&token), Value::Null),
        ("GET", "/v1/tokens".to_owned(), Value::Null),
        ("PATCH", path(&token), json!({"nickname": "Operations"})),
        ("DELETE", path(&token), Value::Null),
        ("GET", path(&token), Value::Null),
    ] {
        let answer = desk.call(method, &target, body).expect(200);
        assert!(!answer.text.contains(&value) && !answer.text.contains(SECRET), "{method} {target}");
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {target}");
    }
    assert_eq!(desk.read(token["id"].as_str().unwrap())["token"], Value::Null);
    let revealed = desk.call("POST", &format!("{}/reveal", path(&token)), Value::Null).expect(200);
    assert_eq!(revealed.json(), json!({"token": value}));
    assert_eq!(revealed.header("cache-control"), "no-store");
    let unasked = desk.call("POST", &format!("{}/reveal", path(&token)), json!({"x": 1})).expect(422);
    assert_eq!(unasked.pointers(), ["/x"]);
}

#[test]
fn a_publishable_token_is_shown_wherever_it_is_read() {
    let desk = Desk::start();
    let token = desk.create(json!({}));
    assert_eq!(desk.read(token["id"].as_str().unwrap())["token"], token["token"]);
    let listed = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert_eq!(listed["tokens"][1]["token"], token["token"]);
    let edited = desk.call("PATCH", &path(&token), json!({"nickname": "x"})).expect(200).json();
    assert_eq!(edited["token"], token["token"]);
}

#[test]
fn a_rotation_gives_a_new_value_under_the_same_id_and_policy() {
    let desk = Desk::start();
    let token = desk.create(json!({"type": "secret", "nickname": "Ops", "premium_access": true}));
    let lets_in = |value: &Value| {
        let bearer = format!("Bearer {}", value["token"].as_str().unwrap());
        desk.raw("GET", "/v1/account", &[("Authorization", &bearer)], b"").status
    };
    let rotate = format!("{}/rotate", path(&token));
    let second = desk.call("POST", &rotate, json!({"grace": "24h"})).expect(200);
    assert_eq!(
        (second.header("etag").as_str(), second.header("cache-control").as_str()),
        ("\"2\"", "no-store")
    );
    let second = second.json();
    assert_eq!((lets_in(&token), lets_in(&second)), (200, 200), "both work in the grace time");
    let third = desk.call("POST", &rotate, Value::Null).expect(200).json();
    assert_eq!((lets_in(&second), lets_in(&third)), (401, 200), "without a grace the old value ends at once");
    assert_eq!(lets_in(&token), 200, "and an earlier one keeps the grace it was given");
    for (name, value) in token.as_object().unwrap() {
        if !["token", "version"].contains(&name.as_str()) {
            assert_eq!(&third[name], value, "{name}");
        }
    }
    assert_eq!(third["version"], 3);
    let revealed = desk.call("POST", &format!("{}/reveal", path(&token)), Value::Null).expect(200).json();
    assert_eq!(revealed["token"], third["token"]);

    for (body, pointers) in [
        (json!({"grace": 5}), vec!["/grace"]),
        (json!({"grace": "5"}), vec!["/grace"]),
        (json!({"grace": "-5s"}), vec!["/grace"]),
        (json!({"grace": "367d"}), vec!["/grace"]),
        (json!({"graze": "5s", "grace": ""}), vec!["/graze", "/grace"]),
    ] {
        assert_eq!(desk.call("POST", &rotate, body.clone()).expect(422).pointers(), pointers, "{body}");
    }
    assert_eq!(lets_in(&third), 200, "a refused rotation rotated");
}

#[test]
fn a_mark_of_a_leak_is_shown_and_goes_with_the_leaked_value() {
    let desk = Desk::start();
    let token = desk.create(json!({"type": "secret"}));
    let id = TokenId::parse(token["id"].as_str().unwrap()).unwrap();
    let seen: jiff::Timestamp = "2026-11-24T06:00:00Z".parse().unwrap();
    desk.block_on(desk.store.mark_seen_in_browser(&AccountId::default_account(), &id, seen)).unwrap();
    let read = || desk.read(id.as_str())["seen_in_browser_at"].clone();
    assert_eq!(read(), "2026-11-24T06:00:00Z");
    let edited = desk.call("PATCH", &path(&token), json!({"nickname": "x"})).expect(200).json();
    assert_eq!(
        (&edited["seen_in_browser_at"], read()),
        (&json!("2026-11-24T06:00:00Z"), edited["seen_in_browser_at"].clone())
    );
    let rotated = desk.call("POST", &format!("{}/rotate", path(&token)), Value::Null).expect(200).json();
    assert_eq!((&rotated["seen_in_browser_at"], read()), (&Value::Null, Value::Null));
}

#[test]
fn a_revoked_token_stays_revoked() {
    let desk = Desk::start();
    let token = desk.create(json!({"nickname": "x"}));
    let first = desk.call("DELETE", &path(&token), Value::Null).expect(200);
    assert_eq!((first.json()["status"].as_str(), first.header("etag").as_str()), (Some("revoked"), "\"2\""));
    let again = desk.call("DELETE", &path(&token), Value::Null).expect(200);
    assert_eq!(again.header("etag"), "\"2\"", "revoking twice is revoking once");
    for status in ["active", "disabled"] {
        let answer = desk.call("PATCH", &path(&token), json!({"status": status})).expect(409);
        assert_eq!(answer.code(), "token_revoked");
    }
    let answer = desk.call("POST", &format!("{}/rotate", path(&token)), Value::Null).expect(409);
    assert_eq!(answer.code(), "token_revoked");
    let renamed =
        desk.call("PATCH", &path(&token), json!({"nickname": "gone", "status": "revoked"})).expect(200);
    assert_eq!(renamed.json()["nickname"], "gone");
    assert_eq!(desk.read(token["id"].as_str().unwrap())["status"], "revoked");
}

#[test]
fn the_last_usable_secret_token_cannot_be_lost() {
    let desk = Desk::start();
    let first = json!({"id": FIRST_ID});
    let ways = [
        ("DELETE", Value::Null),
        ("PATCH", json!({"status": "disabled"})),
        ("PATCH", json!({"signed_requests": true})),
        ("PATCH", json!({"allowed_domains": ["www.example.com"]})),
    ];
    let assert_kept = |why: &str| {
        for (method, body) in &ways {
            let answer = desk.call(method, &path(&first), body.clone()).expect(409);
            assert_eq!(answer.code(), "last_secret_token", "{why}: {method} {body}");
            assert!(answer.json()["detail"].as_str().unwrap().contains("rotate"), "it says what to do");
        }
        assert_eq!(desk.read(FIRST_ID)["status"], "active");
    };
    assert_kept("there is no other");
    desk.create(json!({}));
    let disabled = desk.create(json!({"type": "secret", "status": "disabled"}));
    let bound = desk.create(json!({"type": "secret", "allowed_domains": ["www.example.com"]}));
    assert_kept("the others are of no use for it");
    desk.call("DELETE", &path(&bound), Value::Null).expect(200);
    desk.call("PATCH", &path(&first), json!({"nickname": "still here"})).expect(200);
    desk.call("PATCH", &path(&disabled), json!({"status": "active"})).expect(200);
    desk.call("DELETE", &path(&first), Value::Null).expect(200);
    desk.call("GET", "/v1/account", Value::Null).expect(401);
}

#[test]
fn reading_a_token_tells_what_it_has_used() {
    let desk = Desk::start();
    let token = desk.create(json!({"credit_limit": {"core": {"credits": 100, "period": "day"},
                                                    "premium": {"credits": 5, "period": "none"}}}));
    let free = desk.create(json!({}));
    let spend = |token: &Value, pool, cost| {
        let cell = books::cell(books::hour(jiff::Timestamp::now()), "", cost);
        books::spend(&desk, token["id"].as_str().unwrap(), pool, vec![cell]);
    };
    spend(&token, Pool::Core, 30);
    spend(&token, Pool::Premium, 5);
    spend(&free, Pool::Core, 7);
    books::lease(&desk, token["id"].as_str().unwrap(), Pool::Core, 12);
    let usage = desk.read(token["id"].as_str().unwrap())["usage"].clone();
    let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
    let resets = usage["core"]["resets_at"].as_str().unwrap().to_owned();
    assert!(
        resets.starts_with(&today.tomorrow().unwrap().to_string()) || resets.starts_with(&today.to_string())
    );
    assert_eq!(
        usage,
        json!({"core": {"used": 30, "leased": 12, "stranded": 0, "remaining": 58, "period": "day",
                        "resets_at": resets},
               "premium": {"used": 5, "leased": 0, "stranded": 0, "remaining": 0, "period": "none",
                           "resets_at": null}})
    );
    let usage = desk.read(free["id"].as_str().unwrap())["usage"].clone();
    assert_eq!((&usage["core"]["used"], &usage["core"]["remaining"]), (&json!(7), &Value::Null));
    assert_eq!(usage["core"]["period"], "month");
    let account = desk.call("GET", "/v1/account", Value::Null).expect(200).json();
    assert_eq!(
        (&account["usage"]["core"]["used"], &account["usage"]["premium"]["used"]),
        (&json!(37), &json!(5))
    );
    assert_eq!(account["usage"]["core"]["leased"], 12);
    // A limit set below what is used leaves nothing, not less than nothing.
    let body = json!({"credit_limit": {"core": {"credits": 10}}});
    desk.call("PATCH", &path(&token), body).expect(200);
    assert_eq!(desk.read(token["id"].as_str().unwrap())["usage"]["core"]["remaining"], 0);
}
