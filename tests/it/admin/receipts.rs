//! Receipts: a write that waits is told whether it is in force on every node.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::books;
use super::desk::Desk;
use super::moody_store::Mood;

/// Every write, on a token of its own: method, path, body, status.
fn writes(desk: &Desk) -> Vec<(&'static str, String, Value, u16)> {
    let path = || format!("/v1/tokens/{}", desk.create(json!({}))["id"].as_str().unwrap());
    vec![
        ("POST", "/v1/tokens".to_owned(), json!({"nickname": "new"}), 201),
        ("PATCH", path(), json!({"nickname": "edited"}), 200),
        ("POST", format!("{}/rotate", path()), json!({}), 200),
        ("DELETE", path(), Value::Null, 200),
        (
            "PATCH",
            "/v1/account".to_owned(),
            json!({"budget": {"core": {"credits": 9, "period": "day"}}}),
            200,
        ),
    ]
}

fn wait_for_looks(desk: &Desk, looks: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while desk.store.looks() < looks {
        assert!(Instant::now() < deadline, "nobody looks at the nodes");
        thread::yield_now();
    }
}

#[test]
fn without_wait_there_is_no_receipt_and_no_look_at_the_nodes() {
    let desk = Desk::start();
    for (method, path, body, status) in writes(&desk) {
        let answer = desk.call(method, &path, body).expect(status).json();
        assert_eq!(answer.get("receipt"), None, "{method} {path}");
    }
    assert_eq!(desk.store.asked_for_nodes(), 0);
}

#[test]
fn nodes_that_are_in_step_are_not_waited_for() {
    let desk = Desk::start();
    for number in 1..=3 {
        books::report(&desk, number, books::FAR_AHEAD);
    }
    for (method, path, body, status) in writes(&desk) {
        let before = books::epoch(&desk);
        let started = Instant::now();
        let answer = desk.call(method, &format!("{path}?wait=60s"), body).expect(status).json();
        assert!(started.elapsed() < Duration::from_secs(20), "{method} {path}");
        let epoch = books::epoch(&desk);
        assert!(epoch > before || method == "POST", "{method} {path} moves the epoch");
        assert_eq!(
            answer["receipt"],
            json!({"epoch": epoch, "in_force": true, "nodes": 3, "missing": []}),
            "{method} {path}"
        );
    }
}

#[test]
fn a_node_that_lags_is_waited_for_until_it_catches_up() {
    let desk = Desk::start();
    books::report(&desk, 1, books::FAR_AHEAD);
    for (method, path, body, status) in writes(&desk) {
        books::report(&desk, 2, 0);
        let looks = desk.store.looks();
        let answer = thread::scope(|scope| {
            let call = scope.spawn(|| desk.call(method, &format!("{path}?wait=30s"), body));
            wait_for_looks(&desk, looks + 3);
            assert!(!call.is_finished(), "{method} {path} did not wait");
            let epoch = books::epoch(&desk);
            books::report(&desk, 2, epoch - 1);
            wait_for_looks(&desk, desk.store.looks() + 3);
            assert!(!call.is_finished(), "{method} {path} was content with an older epoch");
            books::report(&desk, 2, epoch);
            call.join().unwrap()
        });
        let receipt = &answer.expect(status).json()["receipt"];
        assert_eq!(
            receipt,
            &json!({"epoch": books::epoch(&desk), "in_force": true, "nodes": 2, "missing": []})
        );
    }
}

#[test]
fn what_others_change_meanwhile_is_not_waited_for() {
    let desk = Desk::start();
    let path = format!("/v1/tokens/{}", desk.create(json!({}))["id"].as_str().unwrap());
    books::report(&desk, 1, 0);
    let (epoch, answer) = thread::scope(|scope| {
        let call =
            scope.spawn(|| desk.call("PATCH", &format!("{path}?wait=30s"), json!({"nickname": "mine"})));
        wait_for_looks(&desk, 3);
        let epoch = books::epoch(&desk);
        desk.call("PATCH", "/v1/account", json!({"budget": null})).expect(200);
        assert!(books::epoch(&desk) > epoch);
        books::report(&desk, 1, epoch);
        (epoch, call.join().unwrap())
    });
    let receipt = answer.expect(200).json()["receipt"].clone();
    assert_eq!((&receipt["in_force"], &receipt["epoch"]), (&json!(true), &json!(epoch)));
}

#[test]
fn nodes_that_never_catch_up_are_named_when_the_time_is_over_and_the_write_stands() {
    let desk = Desk::start();
    books::report(&desk, 3, 0);
    books::report(&desk, 2, books::FAR_AHEAD);
    books::report(&desk, 1, 1);
    for (method, path, body, status) in writes(&desk) {
        let started = Instant::now();
        let answer = desk.call(method, &format!("{path}?wait=250ms"), body).expect(status);
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(10), "{took:?}");
        assert!(answer.headers.get("warning").is_none());
        let missing = |number: u64, epoch: u64| {
            json!({"node": books::node_id(number), "name": format!("host-{number}/127.0.0.1:8080"),
                   "epoch": epoch, "silent": false})
        };
        let mut receipt = answer.json()["receipt"].clone();
        for node in receipt["missing"].as_array_mut().unwrap() {
            let seen = node.as_object_mut().unwrap().remove("seen_at").unwrap();
            let seen: jiff::Timestamp = seen.as_str().unwrap().parse().unwrap();
            assert!(jiff::Timestamp::now().duration_since(seen).as_secs() < 60);
        }
        assert_eq!(
            receipt,
            json!({"epoch": books::epoch(&desk), "in_force": false, "nodes": 3,
                   "missing": [missing(1, 1), missing(3, 0)]}),
            "{method} {path}"
        );
    }
    let account = desk.call("GET", "/v1/account", Value::Null).json();
    assert_eq!(account["budget"]["core"]["credits"], 9);
    let statuses = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert!(statuses["tokens"].as_array().unwrap().iter().any(|token| token["status"] == "revoked"));
}

#[test]
fn a_node_that_dies_is_not_waited_for_any_longer() {
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    books::report(&desk, 1, books::FAR_AHEAD);
    books::report_for(&desk, 2, 0, Duration::from_millis(500));
    let answer = desk.call("PATCH", &format!("/v1/tokens/{id}?wait=30s"), json!({"nickname": "x"}));
    let receipt = answer.expect(200).json()["receipt"].clone();
    assert_eq!((&receipt["in_force"], &receipt["nodes"]), (&json!(true), &json!(1)));
}

#[test]
fn where_no_node_says_so_nothing_is_called_in_force() {
    let desk = Desk::start();
    let answer = desk.call("PATCH", "/v1/account?wait=50ms", json!({"budget": null})).expect(200).json();
    let epoch = books::epoch(&desk);
    assert_eq!(answer["receipt"], json!({"epoch": epoch, "in_force": false, "nodes": 0, "missing": []}));
}

#[test]
fn a_token_that_was_revoked_before_gives_its_receipt_again() {
    let desk = Desk::start();
    let path = format!("/v1/tokens/{}", desk.create(json!({}))["id"].as_str().unwrap());
    desk.call("DELETE", &path, Value::Null).expect(200);
    let epoch = books::epoch(&desk);
    books::report(&desk, 1, epoch - 1);
    let late = desk.call("DELETE", &format!("{path}?wait=0s"), Value::Null).expect(200).json();
    assert_eq!((&late["receipt"]["in_force"], &late["receipt"]["epoch"]), (&json!(false), &json!(epoch)));
    books::report(&desk, 1, epoch);
    let done = desk.call("DELETE", &format!("{path}?wait=0s"), Value::Null).expect(200).json();
    assert_eq!((&done["receipt"]["in_force"], &done["receipt"]["epoch"]), (&json!(true), &json!(epoch)));
}

#[test]
fn a_write_stands_though_the_store_cannot_tell_how_far_the_nodes_are() {
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    books::report(&desk, 1, books::FAR_AHEAD);
    for (mood, nickname) in [(Mood::Blind, "one"), (Mood::Mute, "two")] {
        desk.mood(mood.clone());
        let started = Instant::now();
        let path = format!("/v1/tokens/{id}?wait=200ms");
        let answer = desk.call("PATCH", &path, json!({"nickname": nickname})).expect(200).json();
        assert!(started.elapsed() < Duration::from_secs(10), "{mood:?}");
        assert_eq!(
            answer["receipt"],
            json!({"epoch": null, "in_force": false, "nodes": 0, "missing": []}),
            "{mood:?}"
        );
        desk.mood(Mood::Well);
        assert_eq!(desk.read(&id)["nickname"], nickname, "{mood:?}");
    }
    // Trouble that passes while somebody waits does no harm.
    desk.mood(Mood::Blind);
    let looks = desk.store.looks();
    let path = format!("/v1/tokens/{id}?wait=30s");
    let answer = thread::scope(|scope| {
        let call = scope.spawn(|| desk.call("PATCH", &path, json!({"nickname": "three"})));
        wait_for_looks(&desk, looks + 3);
        assert!(!call.is_finished());
        desk.mood(Mood::Well);
        call.join().unwrap()
    });
    assert_eq!(answer.expect(200).json()["receipt"]["in_force"], json!(true));
}

#[test]
fn a_write_that_is_refused_waits_for_nothing() {
    let desk = Desk::start();
    books::report(&desk, 1, 0);
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    let started = Instant::now();
    for (body, headers, status) in [
        (json!({"nickname": 5}), &[][..], 422),
        (json!({"nickname": "x"}), &[("If-Match", "\"7\"")][..], 412),
    ] {
        desk.call_with("PATCH", &format!("/v1/tokens/{id}?wait=60s"), body, headers).expect(status);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(desk.store.asked_for_nodes(), 0);
}
