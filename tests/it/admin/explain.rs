//! `POST /v1/explain`: the question reaches the gate whole, and its answer the asker.

use std::net::IpAddr;

use serde_json::{Value, json};
use tollgate::policy::TokenId;

use super::desk::{Desk, FIRST_ID, SECRET};
use super::moody_store::Mood;

#[test]
fn a_question_reaches_the_gate_as_it_was_asked() {
    let desk = Desk::start();
    let body = json!({
        "method": "GET", "target": "https://gate.example/v1/data/CORE/QUOTES?last=1",
        "headers": {"Origin": "https://www.example.com", "X-Forwarded-For": ["192.0.2.1", "192.0.2.2"]},
        "client": "2001:db8::1", "token_id": FIRST_ID,
    });
    let answer = desk.call("POST", "/v1/explain", body).expect(200);
    assert_eq!(
        answer.json(),
        json!({
            "pass": true, "status": 200, "code": null, "detail": null, "route": "/v1/data/CORE/{dataset}/**",
            "token_id": FIRST_ID, "datasets": ["CORE/QUOTES"], "operation": "read", "pool": "core", "price": "1", "credits": 1,
            "checks": [{"check": "target", "outcome": "passed", "code": null, "detail": null},
                       {"check": "domain", "outcome": "passed", "code": null, "detail": null}],
        })
    );
    let asked = desk.asked.lock();
    let question = &asked[0];
    assert_eq!(
        (question.method.as_str(), question.target.as_str()),
        ("GET", "https://gate.example/v1/data/CORE/QUOTES?last=1")
    );
    let headers: Vec<_> =
        question.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("Origin", "https://www.example.com"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-For", "192.0.2.2")
        ]
    );
    assert_eq!(question.client, Some("2001:db8::1".parse::<IpAddr>().unwrap()));
    assert_eq!(question.token_id.as_ref().map(TokenId::as_str), Some(FIRST_ID));
}

#[test]
fn a_refusal_is_explained_without_the_token_that_was_asked_with() {
    let desk = Desk::start();
    let body = json!({"method": "POST", "target": format!("/v1/x?token={SECRET}")});
    let answer = desk.call("POST", "/v1/explain", body).expect(200);
    assert_eq!(answer.json()["pass"], false);
    assert_eq!(answer.json()["checks"][1]["outcome"], "refused");
    assert!(!answer.text.contains(SECRET), "{}", answer.text);
    assert!(answer.text.contains("token=sk_*"), "{}", answer.text);
    assert!(desk.asked.lock()[0].target.contains(SECRET), "the gate itself must see it");
}

#[test]
fn questions_that_make_no_sense_are_refused_field_by_field() {
    let desk = Desk::start();
    let target = json!("/v1/x");
    let table: [(Value, &[&str]); 11] = [
        (json!({}), &["/target"]),
        (json!({"target": "v1/x"}), &["/target"]),
        (json!({"target": "ftp://x/"}), &["/target"]),
        (json!({"target": 5}), &["/target"]),
        (json!({"target": target, "method": "G T"}), &["/method"]),
        (json!({"target": target, "client": "localhost"}), &["/client"]),
        (json!({"target": target, "token_id": SECRET}), &["/token_id"]),
        (json!({"target": target, "headers": ["Origin"]}), &["/headers"]),
        (
            json!({"target": target, "headers": {"Or igin": "x", "Authorization": [SECRET, format!("{SECRET}\n")]}}),
            &["/headers/Or igin", "/headers/Authorization/1"],
        ),
        (json!({"target": target, "url": "x"}), &["/url"]),
        (json!({"method": 1, "client": 1, "headers": 1}), &["/method", "/target", "/client", "/headers"]),
    ];
    for (body, pointers) in table {
        let answer = desk.call("POST", "/v1/explain", body.clone()).expect(422);
        let mut found = answer.pointers();
        let mut expected = pointers.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{body}");
        assert!(!answer.text.contains(SECRET), "{}", answer.text);
    }
    assert!(desk.asked.lock().is_empty(), "the gate was asked all the same");
    desk.mood(Mood::Down);
    desk.call("POST", "/v1/explain", json!({"target": "/"})).expect(503);
}
