//! `tollgate member`.

use serde_json::Value;

use super::tool::run;
use crate::admin::desk::Desk;

#[test]
fn members_are_invited_listed_edited_and_removed() {
    let desk = Desk::start();
    let none = run(&desk, &["member", "list"]).expect(0);
    assert!(none.out.starts_with("There are no members yet"), "{}", none.out);
    let invited = run(&desk, &["member", "invite", "Ada L", "--role", "admin"]).expect(0);
    let link = invited.out.trim_end().to_owned();
    let path = link.strip_prefix(&desk.url).expect(&link);
    assert!(
        desk.raw("GET", path, &[], b"").expect(200).text.contains("Ada L"),
        "the link leads to the console"
    );
    let id = path.split('/').nth(3).unwrap().to_owned();
    let invited = invited.says(&["Ada L", &id, "once"]);
    assert!(!invited.err.contains(path), "{}", invited.err);
    let viewer = run(&desk, &["member", "invite", "Grace", "--json"]).expect(0).json();
    assert_eq!(
        (&viewer["role"], &viewer["status"]),
        (&"viewer".into(), &"invited".into()),
        "the least by default"
    );

    let list = run(&desk, &["member", "list"]).expect(0).out;
    let lines: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "NAME", "ROLE", "STATUS", "CREATED", "AT"]);
    assert_eq!(lines[1][..5], [id.as_str(), "Ada", "L", "admin", "invited"]);
    assert_eq!(lines.len(), 3);
    let json = run(&desk, &["member", "list", "--json"]).expect(0).json();
    assert_eq!(json, desk.call("GET", "/v1/members", Value::Null).json());

    let edited = run(&desk, &["member", "edit", &id, "--role", "viewer", "--name", "Ada"]).expect(0).out;
    assert!(
        edited.contains("viewer") && edited.contains("Ada") && edited.contains("invited until"),
        "{edited}"
    );
    let renewed = run(&desk, &["member", "link", &id, "--if-version", "2"]).expect(0).out;
    assert!(renewed.trim_end().starts_with(&format!("{}/console/join/{id}/", desk.url)), "{renewed}");
    assert_ne!(renewed.trim_end(), link);
    desk.raw("GET", path, &[], b"").expect(410);
    let removed = run(&desk, &["member", "remove", &id]).expect(0);
    assert_eq!(removed.out, format!("Ada ({id}) is removed\n"));
    let left = desk.call("GET", "/v1/members", Value::Null).json();
    assert_eq!(left["members"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_done_to_members_is_told() {
    let desk = Desk::start();
    run(&desk, &["member", "invite", "Ada"]).expect(0);
    run(&desk, &["member", "invite", "ADA"]).expect(1).says(&["name"]);
    run(&desk, &["member", "invite", "x", "--role", "root"]).expect(2).says(&["admin", "viewer"]);
    let nobody = "mem_00000000010000000000000001";
    run(&desk, &["member", "remove", nobody]).expect(1).says(&["no member"]);
    run(&desk, &["member", "edit", nobody]).expect(2).says(&["--name or --role"]);
    run(&desk, &["member", "link", "Ada"]).expect(2).says(&["not a member's id", "tollgate member list"]);
    let id =
        desk.call("GET", "/v1/members", Value::Null).json()["members"][0]["id"].as_str().unwrap().to_owned();
    run(&desk, &["member", "remove", &id, "--if-version", "9"]).expect(1).says(&["version"]);
}
