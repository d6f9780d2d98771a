//! The list of tokens: oldest first, in pages, a bad record among good ones.

use serde_json::Value;
use serde_json::json;
use tollgate::policy::TokenId;

use super::desk::{Desk, FIRST_ID};
use super::moody_store::Mood;

fn ids(page: &Value) -> Vec<String> {
    let tokens = page["tokens"].as_array().unwrap();
    tokens.iter().map(|token| token["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_hold_every_token_once_oldest_first() {
    let desk = Desk::start();
    let mut made = vec![FIRST_ID.to_owned()];
    for n in 0..12 {
        let token = desk.create(json!({"nickname": format!("token {n}")}));
        made.push(token["id"].as_str().unwrap().to_owned());
    }
    let whole = desk.call("GET", "/v1/tokens", Value::Null).expect(200).json();
    assert_eq!((ids(&whole), &whole["next_cursor"]), (made.clone(), &Value::Null));
    for limit in [1, 2, 5, 12, 13, 14, 500] {
        let mut seen = Vec::new();
        let mut target = format!("/v1/tokens?limit={limit}");
        loop {
            let page = desk.call("GET", &target, Value::Null).expect(200).json();
            assert!(ids(&page).len() <= limit && !ids(&page).is_empty(), "{limit}");
            seen.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            target = format!("/v1/tokens?limit={limit}&cursor={cursor}");
        }
        assert_eq!(seen, made, "{limit}");
    }
}

#[test]
fn a_cursor_goes_on_where_it_was_though_tokens_come_and_go() {
    let desk = Desk::start();
    let second = desk.create(json!({}));
    let page = desk.call("GET", "/v1/tokens?limit=2", Value::Null).expect(200).json();
    assert_eq!(page["next_cursor"], Value::Null);
    let third = desk.create(json!({}));
    let page = desk.call("GET", "/v1/tokens?limit=2", Value::Null).expect(200).json();
    desk.call("DELETE", &format!("/v1/tokens/{}", second["id"].as_str().unwrap()), Value::Null).expect(200);
    let fourth = desk.create(json!({}));
    let target = format!("/v1/tokens?cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = desk.call("GET", &target, Value::Null).expect(200).json();
    assert_eq!(ids(&rest), [third["id"].as_str().unwrap(), fourth["id"].as_str().unwrap()]);
}

#[test]
fn a_record_nobody_can_read_does_not_hide_the_others() {
    let desk = Desk::start();
    let second = desk.create(json!({}));
    let third = desk.create(json!({}));
    let id = second["id"].as_str().unwrap();
    desk.mood(Mood::Unreadable(TokenId::parse(id).unwrap()));
    let page = desk.call("GET", "/v1/tokens", Value::Null).expect(200).json();
    assert_eq!(ids(&page), [FIRST_ID, id, third["id"].as_str().unwrap()]);
    assert_eq!(
        page["tokens"][1],
        json!({"id": id, "status": "unreadable", "problem": "the field `status` is `sleepy`"})
    );
    let limited = desk.call("GET", "/v1/tokens?limit=2", Value::Null).expect(200).json();
    let target = format!("/v1/tokens?cursor={}", limited["next_cursor"].as_str().unwrap());
    assert_eq!(ids(&desk.call("GET", &target, Value::Null).json()), [third["id"].as_str().unwrap()]);
    for (method, suffix) in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")] {
        let answer = desk.call(method, &format!("/v1/tokens/{id}{suffix}"), Value::Null).expect(500);
        assert_eq!(answer.code(), "record_unreadable", "{method} {suffix}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("sleepy"));
    }
}
