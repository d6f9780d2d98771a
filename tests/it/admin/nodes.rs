//! The nodes that live.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::books;
use super::desk::Desk;
use super::moody_store::Mood;

#[test]
fn nodes_are_listed_by_name_with_how_far_they_are() {
    let desk = Desk::start();
    let none = desk.call("GET", "/v1/nodes", Value::Null).expect(200).json();
    assert_eq!(none, json!({"epoch": books::epoch(&desk), "nodes": []}));
    desk.create(json!({}));
    desk.call("PATCH", "/v1/account", json!({"budget": null})).expect(200);
    let epoch = books::epoch(&desk);
    assert!(epoch > none["epoch"].as_u64().unwrap(), "an edit moves the epoch");
    books::report(&desk, 3, epoch);
    books::report(&desk, 1, epoch - 1);
    books::report(&desk, 2, epoch + 1);
    let answer = desk.call("GET", "/v1/nodes", Value::Null).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let mut nodes = answer.json();
    for node in nodes["nodes"].as_array_mut().unwrap() {
        let seen: jiff::Timestamp = node["seen_at"].as_str().unwrap().parse().unwrap();
        assert!(seen.duration_until(jiff::Timestamp::now()).as_secs().abs() < 60, "by the store's clock");
        node.as_object_mut().unwrap().remove("seen_at");
    }
    let node = |number: u64, at: u64, in_step: bool| {
        json!({"node": books::node_id(number), "name": format!("host-{number}/127.0.0.1:8080"), "epoch": at,
               "in_step": in_step, "live": true, "leased": number * 100})
    };
    let all = [node(1, epoch - 1, false), node(2, epoch + 1, true), node(3, epoch, true)];
    assert_eq!(nodes, json!({"epoch": epoch, "nodes": all}));
}

#[test]
fn a_node_that_says_nothing_any_more_is_not_listed() {
    let desk = Desk::start();
    books::report(&desk, 1, 1);
    books::report_for(&desk, 2, 1, Duration::from_millis(300));
    let names = || {
        let nodes = desk.call("GET", "/v1/nodes", Value::Null).expect(200).json();
        let nodes = nodes["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["node"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while names() != [books::node_id(1)] {
        assert!(Instant::now() < deadline, "it is still listed: {:?}", names());
    }
    desk.mood(Mood::Blind);
    let answer = desk.call("GET", "/v1/nodes", Value::Null).expect(503);
    assert_eq!(answer.code(), "store_unavailable");
}
