//! The trail: who did what, from what to what; and that no secret is ever in it.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use super::desk::{Desk, FIRST_ID, SECRET};
use super::moody_store::Mood;

/// The whole trail, newest first.
fn trail(desk: &Desk) -> Vec<Value> {
    let page = desk.call("GET", "/v1/audit?limit=500", Value::Null).expect(200).json();
    assert_eq!(page["next_cursor"], Value::Null);
    page["entries"].as_array().unwrap().clone()
}

/// What was done since there were so many entries, oldest first: action, target and changes.
fn since(desk: &Desk, count: usize) -> Vec<(String, String, Value)> {
    let mut entries = trail(desk);
    entries.truncate(entries.len() - count);
    entries.reverse();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    entries.iter().map(|entry| (text(entry, "action"), text(entry, "target"), changes(entry))).collect()
}

/// `{"/field": [from, to]}`
fn changes(entry: &Value) -> Value {
    let changes = entry["changes"].as_array().unwrap();
    let pair = |change: &Value| {
        (change["field"].as_str().unwrap().to_owned(), json!([change["from"], change["to"]]))
    };
    changes.iter().map(pair).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn an_entry_says_who_did_what_from_where_and_when() {
    let desk = Desk::start();
    let secret = desk.create(json!({"type": "secret"}));
    let bearer = format!("Bearer {}", secret["token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let path = format!("/v1/tokens/{FIRST_ID}");
    desk.raw("PATCH", &path, &headers, b"{\"nickname\": \"mine\"}").expect(200);
    let answer = desk.call("GET", "/v1/audit?limit=1", Value::Null).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let entry = &answer.json()["entries"][0];
    let at: jiff::Timestamp = entry["at"].as_str().unwrap().parse().unwrap();
    assert!(at.duration_until(jiff::Timestamp::now()).as_secs().abs() < 60, "by the store's clock");
    let expected = json!({
        "id": entry["id"],
        "at": entry["at"],
        "actor": {"type": "token", "id": secret["id"]},
        "client": "127.0.0.1",
        "action": "token.edit",
        "target": FIRST_ID,
        "changes": [{"field": "/nickname", "from": "", "to": "mine"}],
    });
    assert_eq!(*entry, expected);
    let first = trail(&desk).pop().unwrap();
    assert_eq!((&first["actor"], &first["client"]), (&json!({"type": "tollgate"}), &Value::Null));
}

#[test]
fn every_field_is_told_from_what_to_what() {
    let desk = Desk::start();
    let before = trail(&desk).len();
    let set = json!({
        "nickname": "Shop",
        "expires_at": "2090-01-01T00:00:00Z",
        "signed_requests": true,
        "replay_protection": false,
        "core_access": false,
        "premium_access": true,
        "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}],
        "allowed_domains": ["www.example.com"],
        "domain_mode": "report",
        "credit_limit": {"core": {"credits": 10, "period": "day"}, "premium": {"credits": 3, "period": "none"}},
        "rate_limit": {"requests_per_second": 5, "burst": 9},
    });
    let made = desk.create(set.clone());
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/tokens/{id}");
    let bare: serde_json::Map<String, Value> =
        set.as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect();
    desk.call("PATCH", &path, bare.into()).expect(200);
    desk.call("PATCH", &path, json!({"status": "disabled"})).expect(200);
    desk.call("PATCH", &path, json!({"credit_limit": {"core": {"credits": 1, "period": "hour"}}}))
        .expect(200);
    desk.call("PATCH", &path, json!({"credit_limit": {"core": {"credits": 2}}, "status": "active"}))
        .expect(200);

    let pointer = |name: &str| format!("/{}", name.replace('.', "/"));
    let names = [
        "nickname",
        "expires_at",
        "signed_requests",
        "replay_protection",
        "core_access",
        "premium_access",
        "datasets",
        "allowed_domains",
        "domain_mode",
        "credit_limit.core",
        "credit_limit.premium",
        "rate_limit",
    ];
    let plain = desk.create(json!({}));
    let of = |to_set: bool| {
        let change = |name: &&str| {
            let (set, default) =
                (set.pointer(&pointer(name)).unwrap(), plain.pointer(&pointer(name)).unwrap());
            (pointer(name), if to_set { json!([null, set]) } else { json!([set, default]) })
        };
        names.iter().map(change).collect::<serde_json::Map<_, _>>()
    };
    let mut creation = of(true);
    creation.insert("/type".to_owned(), json!([null, "publishable"]));
    let told = since(&desk, before);
    let actions: Vec<_> = told.iter().map(|(action, target, _)| (action.as_str(), target == id)).collect();
    let edit = ("token.edit", true);
    assert_eq!(actions, [("token.create", true), edit, edit, edit, edit, ("token.create", false)]);
    assert_eq!(told[0].2, Value::from(creation));
    assert_eq!(told[1].2, Value::from(of(false)));
    assert_eq!(told[2].2, json!({"/status": ["active", "disabled"]}));
    let hourly = |credits: u64| json!({"credits": credits, "period": "hour"});
    assert_eq!(told[3].2, json!({"/credit_limit/core": [null, hourly(1)]}));
    let both = json!({"/credit_limit/core": [hourly(1), hourly(2)], "/status": ["disabled", "active"]});
    assert_eq!(told[4].2, both);
    assert_eq!(told[5].2, json!({"/type": [null, "publishable"]}), "as by default");
}

#[test]
fn all_that_can_be_done_to_a_token_or_the_account_is_noted() {
    let desk = Desk::start();
    let id = desk.create(json!({"type": "secret"}))["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{id}");
    let post = |what: &str, body: Value| desk.call("POST", &format!("{path}/{what}"), body).expect(200);
    let before = trail(&desk).len();
    post("rotate", json!({"grace": "24h"}));
    post("rotate", Value::Null);
    post("signing-secret", Value::Null);
    post("reveal", Value::Null);
    desk.call("PATCH", "/v1/account", json!({"budget": {"core": {"credits": 9, "period": "day"}}}))
        .expect(200);
    desk.call("PATCH", "/v1/account", json!({"budget": null})).expect(200);
    desk.call("DELETE", &path, Value::Null).expect(200);
    // Revoked again, nothing happens.
    desk.call("DELETE", &path, Value::Null).expect(200);
    // What is looked at only leaves nothing.
    for look in ["/v1/account", "/v1/tokens", &path, "/v1/usage", "/v1/nodes", "/v1/audit"] {
        desk.call("GET", look, Value::Null).expect(200);
    }
    desk.call("POST", "/v1/explain", json!({"target": "/v1/x", "token_id": id})).expect(200);
    let budget = json!({"credits": 9, "period": "day"});
    let entry = |action: &str, target: &str, changes: Value| (action.to_owned(), target.to_owned(), changes);
    let expected = [
        entry("token.rotate", &id, json!({"/grace": [null, "24h"]})),
        entry("token.rotate", &id, json!({"/grace": [null, "0s"]})),
        entry("token.signing_secret", &id, json!({})),
        entry("token.reveal", &id, json!({})),
        entry("account.edit", "default", json!({"/budget/core": [null, budget]})),
        entry("account.edit", "default", json!({"/budget/core": [budget, null]})),
        entry("token.revoke", &id, json!({"/status": ["active", "revoked"]})),
    ];
    assert_eq!(since(&desk, before), expected);
}

/// The version goes up, so there is an entry, too: each version has one.
#[test]
fn an_edit_that_changes_nothing_has_an_entry_without_changes() {
    let desk = Desk::start();
    let token = desk.create(json!({"nickname": "same"}));
    let id = token["id"].as_str().unwrap();
    let before = trail(&desk).len();
    desk.call("PATCH", &format!("/v1/tokens/{id}"), json!({"nickname": "same"})).expect(200);
    desk.call("PATCH", "/v1/account", json!({})).expect(200);
    assert_eq!(desk.read(id)["version"], 2);
    let expected = [("token.edit", id), ("account.edit", "default")]
        .map(|(action, target)| (action.to_owned(), target.to_owned(), json!({})));
    assert_eq!(since(&desk, before), expected);
}

#[test]
fn what_is_refused_or_late_leaves_no_entry() {
    let desk = Desk::start();
    let token = desk.create(json!({}));
    let id = token["id"].as_str().unwrap();
    let path = format!("/v1/tokens/{id}");
    let before = trail(&desk).len();
    let late = [("If-Match", "\"9\"")];
    for (method, at, body) in [
        ("PATCH", path.clone(), json!({"nickname": "late"})),
        ("POST", format!("{path}/rotate"), json!({})),
        ("POST", format!("{path}/signing-secret"), Value::Null),
        ("DELETE", path.clone(), Value::Null),
        ("PATCH", "/v1/account".to_owned(), json!({"budget": null})),
    ] {
        desk.call_with(method, &at, body, &late).expect(412);
    }
    desk.call("PATCH", &path, json!({"nickname": 7})).expect(422);
    desk.call("POST", "/v1/tokens", json!({"status": "asleep"})).expect(422);
    desk.call("POST", "/v1/tokens/tok_00000000000000000000000009/reveal", Value::Null).expect(404);
    desk.call("DELETE", &format!("/v1/tokens/{FIRST_ID}"), Value::Null).expect(409);
    desk.raw("DELETE", &path, &[], b"").expect(401);
    assert_eq!(trail(&desk).len(), before);
}

/// What cannot be noted is not shown.
#[test]
fn a_value_is_not_revealed_without_a_trace() {
    let desk = Desk::start();
    let reveal = format!("/v1/tokens/{FIRST_ID}/reveal");
    desk.mood(Mood::Blank);
    let refused = desk.call("POST", &reveal, Value::Null).expect(503);
    assert_eq!(refused.code(), "store_unavailable");
    assert!(!refused.text.contains(SECRET), "{}", refused.text);
    desk.mood(Mood::Well);
    assert_eq!(desk.call("POST", &reveal, Value::Null).expect(200).json()["token"], SECRET);
    let actions: Vec<_> = since(&desk, 1).into_iter().map(|(action, ..)| action).collect();
    assert_eq!(actions, ["token.reveal"]);
}

#[test]
fn no_secret_is_ever_in_the_trail() {
    let desk = Desk::start();
    let mut secrets = vec![SECRET.to_owned()];
    for kind in ["secret", "publishable"] {
        let token = desk.create(json!({"type": kind}));
        let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
        secrets.push(token["token"].as_str().unwrap().to_owned());
        let rotated = desk.call("POST", &format!("{path}/rotate"), json!({"grace": "1h"})).expect(200).json();
        secrets.push(rotated["token"].as_str().unwrap().to_owned());
        desk.call("POST", &format!("{path}/reveal"), Value::Null).expect(200);
        let signing = desk.call("POST", &format!("{path}/signing-secret"), Value::Null).expect(200).json();
        secrets.push(signing["signing_secret"].as_str().unwrap().to_owned());
        let grants = json!([{"dataset": "MY/CARS", "operations": ["read"]}]);
        desk.call("PATCH", &path, json!({"datasets": grants})).expect(200);
    }
    let text = desk.call("GET", "/v1/audit?limit=500", Value::Null).expect(200).text;
    assert!(text.contains("token.signing_secret") && text.contains("MY/CARS"), "{text}");
    for secret in secrets {
        assert!(!text.contains(&secret) && !text.contains(&secret[3..]), "{text}");
    }
}

#[test]
fn the_trail_is_read_in_pages_and_by_target_and_actor() {
    let desk = Desk::start();
    let other = desk.create(json!({"type": "secret"}));
    let other_id = other["id"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {}", other["token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    for number in 0..9 {
        let target = if number % 2 == 0 { FIRST_ID } else { &other_id };
        let body = json!({"nickname": number.to_string()}).to_string();
        if number % 3 == 0 {
            desk.raw("PATCH", &format!("/v1/tokens/{target}"), &headers, body.as_bytes()).expect(200);
        } else {
            desk.call("PATCH", &format!("/v1/tokens/{target}"), json!({"nickname": number.to_string()}))
                .expect(200);
        }
    }
    let all = trail(&desk);
    assert_eq!(all.len(), 11);
    for (filter, name) in [
        (String::new(), ""),
        (format!("&target={FIRST_ID}"), "target"),
        (format!("&target={other_id}"), "target"),
        (format!("&actor={FIRST_ID}"), "actor"),
        (format!("&actor={other_id}"), "actor"),
        (format!("&actor={other_id}&target={other_id}"), "both"),
        ("&actor=tollgate".to_owned(), "actor"),
        ("&actor=nobody".to_owned(), "actor"),
        ("&target=nobody".to_owned(), "target"),
    ] {
        let value = filter.rsplit('=').next().unwrap();
        let is_by = |entry: &Value| entry["actor"]["id"] == value || entry["actor"]["type"] == value;
        let wanted: Vec<_> = all
            .iter()
            .filter(|entry| match name {
                "target" => entry["target"] == value,
                "actor" => is_by(entry),
                "both" => entry["target"] == value && is_by(entry),
                _ => true,
            })
            .cloned()
            .collect();
        for limit in [1, 2, 4, 500] {
            let mut found = Vec::new();
            let mut cursor = String::new();
            loop {
                let path = format!("/v1/audit?limit={limit}{filter}{cursor}");
                let page = desk.call("GET", &path, Value::Null).expect(200).json();
                let entries = page["entries"].as_array().unwrap().clone();
                assert!(entries.len() <= limit);
                found.extend(entries);
                let Some(next) = page["next_cursor"].as_str() else { break };
                assert!(found.len() < wanted.len(), "{path}: the last page says that it is the last");
                cursor = format!("&cursor={next}");
            }
            assert_eq!(found, wanted, "{filter} in pages of {limit}");
        }
    }
    for wrong in [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=",
        "cursor=1",
        "target=",
        "actor=",
        "wait=1s",
        "limit=1&limit=1",
    ] {
        let answer = desk.call("GET", &format!("/v1/audit?{wrong}"), Value::Null).expect(400);
        assert_eq!(answer.pointers(), [wrong.split('=').next().unwrap()], "{wrong}");
    }
}

/// Each write that went through has its entry, and the entries tell an unbroken story.
#[test]
fn of_two_editors_at_once_every_write_is_told_and_no_other() {
    let desk = Desk::start();
    let token = desk.create(json!({"nickname": "start"}));
    let id = token["id"].as_str().unwrap();
    let path = format!("/v1/tokens/{id}");
    let before = trail(&desk).len();
    let done: Vec<Vec<String>> = thread::scope(|scope| {
        let write = |writer: &'static str| {
            let mut done = Vec::new();
            for number in 0..20 {
                let nickname = format!("{writer}{number}");
                let tag = format!("\"{}\"", desk.read(id)["version"]);
                // Every other write builds on whatever is stored.
                let tag = if number % 2 == 0 { tag } else { "*".to_owned() };
                let body = json!({"nickname": nickname});
                if desk.call_with("PATCH", &path, body, &[("If-Match", &tag)]).status == 200 {
                    done.push(nickname);
                }
            }
            done
        };
        let writers = ["a", "b"].map(|writer| scope.spawn(move || write(writer)));
        writers.map(|writer| writer.join().unwrap()).into()
    });
    let told = since(&desk, before);
    let mut nickname = json!("start");
    let mut names = BTreeSet::new();
    for (action, _, changes) in &told {
        let change = &changes["/nickname"];
        assert_eq!((action.as_str(), &change[0]), ("token.edit", &nickname), "{told:?}");
        nickname = change[1].clone();
        names.insert(nickname.as_str().unwrap().to_owned());
    }
    assert_eq!(names, done.into_iter().flatten().collect());
    assert_eq!(desk.read(id)["nickname"], nickname);
    assert_eq!(desk.read(id)["version"].as_u64().unwrap(), 1 + told.len() as u64);
}
