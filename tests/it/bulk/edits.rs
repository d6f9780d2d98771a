//! `token edit --all`.

use serde_json::json;

use super::{listed, noted};
use crate::admin::desk::{Desk, FIRST_ID};
use crate::cli::tool::run;

const EDIT: [&str; 5] = ["token", "edit", "--all", "--rate-limit", "50/s"];

fn rates(desk: &Desk) -> usize {
    let fifty =
        |token: &serde_json::Value| token["rate_limit"] == json!({"requests_per_second": 50, "burst": 50});
    listed(desk).iter().filter(|token| fifty(token)).count()
}

#[test]
fn shows_what_would_be_changed_and_asks_before_it_is() {
    let desk = Desk::start();
    for n in 0..3 {
        desk.create(json!({"nickname": format!("shop {n}")}));
    }
    let gone = desk.create(json!({}));
    desk.call("DELETE", &format!("/v1/tokens/{}", gone["id"].as_str().unwrap()), json!(null)).expect(200);
    let shown = run(&desk, &[EDIT.as_slice(), &["--dry-run"]].concat()).expect(0).out;
    assert!(shown.starts_with("4 tokens match (1 of them secret): 4 would be edited"), "{shown}");
    assert!(shown.contains("1 revoked tokens are left out"), "{shown}");
    let line = shown.lines().find(|line| line.starts_with("/rate_limit")).unwrap();
    assert!(line.contains("null") && line.contains("\"burst\":50") && line.ends_with('4'), "{line}");
    assert_eq!(rates(&desk), 0);
    // Nobody can be asked here.
    run(&desk, &EDIT).expect(2).says(&["--yes"]);
    assert_eq!(rates(&desk), 0);
    run(&desk, &["token", "edit", "--all", "--yes"]).expect(2).says(&["nothing to change"]);
    run(&desk, &["token", "edit", FIRST_ID, "--yes", "--rate-limit", "1/s"]).expect(2);
    run(&desk, &["token", "edit", "--rate-limit", "1/s"]).expect(2);
}

#[test]
fn edits_those_that_were_chosen_once_and_notes_each() {
    let desk = Desk::start();
    for n in 0..3 {
        desk.create(json!({"nickname": format!("shop {n}")}));
    }
    let chosen = [
        EDIT.as_slice(),
        &["--search", "shop", "--if-type", "publishable", "--if-status", "active", "--yes"],
    ]
    .concat();
    let done = run(&desk, &chosen).expect(0).out;
    assert_eq!(done, "3 tokens edited, 0 were so already, 0 refused, 0 failed.\n");
    assert_eq!((rates(&desk), noted(&desk, "token.edit").len()), (3, 3));
    let again = run(&desk, &[chosen.as_slice(), &["--json"]].concat()).expect(0).json();
    assert_eq!((&again["updated"], &again["unchanged"]), (&json!(0), &json!(3)), "{again}");
    assert_eq!(noted(&desk, "token.edit").len(), 3);
}

#[test]
fn what_cannot_be_edited_is_told_and_the_rest_is_done() {
    let desk = Desk::start();
    desk.create(json!({"nickname": "shop"}));
    let args = ["token", "edit", "--all", "--status", "disabled", "--yes"];
    let done = run(&desk, &args).expect(1).says(&[FIRST_ID, "last secret token"]);
    assert!(done.out.starts_with("1 tokens edited") && done.out.contains("1 refused"), "{}", done.out);
    let states: Vec<_> = listed(&desk).iter().map(|token| token["status"].clone()).collect();
    assert_eq!(states, [json!("active"), json!("disabled")]);
}
