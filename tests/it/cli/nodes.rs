//! `--wait` and `tollgate nodes`.

use serde_json::{Value, json};

use super::tokens::words;
use super::tool::run;
use crate::admin::books;
use crate::admin::desk::Desk;

/// Every command that can wait, on a token of its own.
fn commands(desk: &Desk) -> Vec<Vec<String>> {
    let id = || desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    let (edited, revoked, rotated) = (id(), id(), id());
    let all: [&[&str]; 5] = [
        &["token", "create", "--nickname", "new"],
        &["token", "edit", &edited, "--nickname", "edited"],
        &["token", "revoke", &revoked],
        &["token", "rotate", &rotated],
        &["account", "edit", "--core-budget", "9/day"],
    ];
    all.iter().map(|args| args.iter().map(|arg| (*arg).to_owned()).collect()).collect()
}

fn with<'a>(command: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    command.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn a_change_that_is_in_force_everywhere_is_said_to_be() {
    let desk = Desk::start();
    for number in 1..=3 {
        books::report(&desk, number, books::FAR_AHEAD);
    }
    for command in commands(&desk) {
        let done = run(&desk, &with(&command, &["--wait"])).expect(0);
        assert!(done.out.ends_with("In force on all 3 nodes.\n"), "{command:?}: {}", done.out);
        let silent = run(&desk, &with(&command, &[]));
        assert!(!silent.out.contains("In force"), "{command:?}: {}", silent.out);
    }
    for command in commands(&desk) {
        let json = run(&desk, &with(&command, &["--wait=1s", "--json"])).expect(0).json();
        assert_eq!((&json["receipt"]["in_force"], &json["receipt"]["nodes"]), (&json!(true), &json!(3)));
    }
    let alone = Desk::start();
    books::report(&alone, 1, books::FAR_AHEAD);
    let done = run(&alone, &["account", "edit", "--core-budget", "9/day", "--wait=5s"]).expect(0);
    assert!(done.out.ends_with("In force on the only node.\n"), "{}", done.out);
}

#[test]
fn nodes_that_lack_a_change_are_listed_and_the_command_fails() {
    let desk = Desk::start();
    books::report(&desk, 1, books::FAR_AHEAD);
    books::report(&desk, 2, 1);
    books::report(&desk, 3, 0);
    for command in commands(&desk) {
        let done = run(&desk, &with(&command, &["--wait=20ms"])).expect(1);
        assert!(!done.out.contains("In force"), "{command:?}: {}", done.out);
        let lines: Vec<_> = done.err.lines().filter(|line| !line.starts_with("note:")).collect();
        let epoch = books::epoch(&desk);
        let missing = |number: u64, at: u64| {
            let id = books::node_id(number);
            format!("  host-{number}/127.0.0.1:8080 ({id}) acts by epoch {at}, the change is epoch {epoch}")
        };
        assert_eq!(
            lines,
            [
                "the change is stored, but after 20ms it is not in force on 2 of 3 nodes:",
                &missing(2, 1),
                &missing(3, 0)
            ],
            "{command:?}"
        );
    }
    for command in commands(&desk) {
        let done = run(&desk, &with(&command, &["--wait=20ms", "--json"])).expect(1);
        assert_eq!(done.json()["receipt"]["missing"].as_array().unwrap().len(), 2, "{command:?}");
    }
    let tokens = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert!(tokens["tokens"].as_array().unwrap().iter().any(|token| token["nickname"] == "edited"));
    let alone = Desk::start();
    run(&alone, &["account", "edit", "--no-core-budget", "--wait=20ms"]).expect(1).says(&["no node said"]);
}

#[test]
fn the_nodes_are_listed() {
    let desk = Desk::start();
    let none = run(&desk, &["nodes"]).expect(0).out;
    assert!(none.starts_with("No node has reported"), "{none}");
    let epoch = books::epoch(&desk);
    books::report(&desk, 2, epoch);
    desk.create(json!({}));
    desk.call("PATCH", "/v1/account", json!({"budget": null})).expect(200);
    let now = books::epoch(&desk);
    books::report(&desk, 1, now);
    let shown = run(&desk, &["nodes"]).expect(0).out;
    assert_eq!(
        words(&shown, "NAME"),
        ["NAME", "NODE", "LIVE", "EPOCH", "IN", "STEP", "LEASED", "SEEN", "AT"]
    );
    let (at, last) = (epoch.to_string(), now.to_string());
    let row = |number: u64, rest: &[&str]| {
        let name = format!("host-{number}/127.0.0.1:8080");
        let found = words(&shown, &name);
        assert_eq!(found[1], books::node_id(number));
        assert_eq!(found[2..found.len() - 1], *rest, "{shown}");
    };
    row(1, &["yes", &last, "yes", "100"]);
    row(2, &["yes", &at, "no,", "the", "last", "change", "is", &last, "200"]);
    let json = run(&desk, &["nodes", "--json"]).expect(0).json();
    assert_eq!(json, desk.call("GET", "/v1/nodes", Value::Null).json());
}
