//! `tollgate audit`.

use serde_json::{Value, json};

use super::tokens::words;
use super::tool::run;
use crate::admin::desk::{Desk, FIRST_ID};

#[test]
fn the_trail_is_shown_newest_first_with_from_and_to() {
    let desk = Desk::start();
    let id = desk.create(json!({"nickname": "old"}))["id"].as_str().unwrap().to_owned();
    let edit = ["token", "edit", &id, "--nickname", "new", "--core-credit-limit", "100/day"];
    run(&desk, &edit).expect(0);
    run(&desk, &["token", "rotate", &id, "--grace", "2h"]).expect(0);
    run(&desk, &["token", "reveal", &id]).expect(0);
    run(&desk, &["account", "edit", "--core-budget", "5/month"]).expect(0);
    run(&desk, &["token", "revoke", &id]).expect(0);
    let shown = run(&desk, &["audit"]).expect(0);
    let (header, lines) = shown.out.split_once('\n').unwrap();
    assert_eq!(header.split_whitespace().collect::<Vec<_>>(), ["TIME", "WHO", "ACTION", "TARGET", "CHANGES"]);
    let told: Vec<_> = lines
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let at: jiff::Timestamp = words.next().unwrap().parse().unwrap();
            assert!(at.duration_until(jiff::Timestamp::now()).as_secs().abs() < 60, "{line}");
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("{FIRST_ID} token.revoke {id} status: active → revoked"),
            format!("{FIRST_ID} account.edit default budget.core: none → 5/month"),
            format!("{FIRST_ID} token.reveal {id}"),
            format!("{FIRST_ID} token.rotate {id} grace: 2h"),
            format!("{FIRST_ID} token.edit {id} nickname: old → new; credit_limit.core: none → 100/day"),
            format!("{FIRST_ID} token.create {id} type: publishable; nickname: old"),
            "tollgate test.write a test".to_owned(),
        ]
    );
    assert_eq!(shown.err, "");
}

#[test]
fn entries_are_limited_and_filtered() {
    let desk = Desk::start();
    let ids: Vec<_> = (0..3).map(|_| desk.create(json!({}))["id"].as_str().unwrap().to_owned()).collect();
    let two = run(&desk, &["audit", "--limit", "2"]).expect(0).says(&["older entries", "--limit"]);
    assert_eq!(two.out.lines().count(), 3, "{}", two.out);
    assert!(two.out.contains(&ids[2]) && two.out.contains(&ids[1]), "{}", two.out);
    let one = run(&desk, &["audit", "--target", &ids[0]]).expect(0);
    assert_eq!((one.out.lines().count(), one.err.as_str()), (2, ""), "{}", one.out);
    assert!(one.out.contains(&ids[0]), "{}", one.out);
    let own = run(&desk, &["audit", "--actor", "tollgate"]).expect(0);
    assert_eq!(words(&own.out, "20")[1..], ["tollgate", "test.write", "a", "test"]);
    assert_eq!(run(&desk, &["audit", "--target", "nobody"]).expect(0).out, "Nothing was noted.\n");
    let json = run(&desk, &["audit", "--json", "--limit", "2"]).expect(0).json();
    assert_eq!(json, desk.call("GET", "/v1/audit?limit=2", Value::Null).expect(200).json());
    for wrong in ["0", "-1", "x"] {
        run(&desk, &["audit", &format!("--limit={wrong}")]).expect(2).says(&["not a whole number from 1 on"]);
    }
}

/// More than one page of the API holds.
#[test]
fn as_many_entries_as_asked_for_are_fetched() {
    let desk = Desk::start();
    let path = format!("/v1/tokens/{FIRST_ID}");
    for number in 0..510 {
        desk.call("PATCH", &path, json!({"nickname": number.to_string()})).expect(200);
    }
    let json = run(&desk, &["audit", "--json", "--limit", "505"]).expect(0).json();
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 505);
    assert_eq!(entries[504]["changes"][0]["to"], "5");
    assert!(json["next_cursor"].is_string());
    let all = run(&desk, &["audit", "--json", "--limit", "10000"]).expect(0).json();
    assert_eq!((all["entries"].as_array().unwrap().len(), &all["next_cursor"]), (511, &Value::Null));
}
