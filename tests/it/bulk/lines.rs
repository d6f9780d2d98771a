//! Export and import of JSON Lines.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tollgate::policy::Token;
use tollgate::store::Store as _;

use super::{file, fill, listed, noted, others, parse, with};
use crate::admin::desk::{Desk, FIRST_ID, SECRET};
use crate::cli::tool::run;

#[test]
fn what_is_exported_can_be_imported_elsewhere_values_and_all() {
    let (here, there) = (Desk::start(), Desk::start());
    let ids = fill(&here);
    let exported = run(&here, &["token", "export", "--with-values"]).expect(0);
    let tokens = parse(&exported.out);
    assert_eq!(tokens.len(), 5, "{}", exported.out);
    assert_eq!(tokens[0]["token"], SECRET);
    assert_eq!(noted(&here, "token.reveal").len(), 2, "each value that is told is noted");

    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "tokens.jsonl", &exported.out);
    let done = with(&there, &["token", "import"], &path, &["--json"]).expect(0).json();
    // The first secret token has the same id and value on every desk.
    assert_eq!((&done["created"], &done["unchanged"]), (&json!(4), &json!(1)), "{done}");
    assert_eq!(others(&listed(&there)), others(&listed(&here)));
    for token in &tokens {
        let value = Token::parse(token["token"].as_str().unwrap().as_bytes()).unwrap();
        let found = there.block_on(there.store.find_token(&value.digest())).unwrap().unwrap();
        assert_eq!(found.id.as_str(), token["id"].as_str().unwrap());
    }
    let notes = noted(&there, "token.import");
    assert_eq!(notes.len(), 4);
    let mut targets: Vec<_> = notes.iter().map(|note| note["target"].as_str().unwrap()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ids);
    assert_eq!(notes[0]["actor"]["id"], FIRST_ID);

    // Again, nothing happens.
    let done = with(&there, &["token", "import"], &path, &["--json"]).expect(0).json();
    assert_eq!((&done["created"], &done["unchanged"]), (&json!(0), &json!(5)), "{done}");
    assert_eq!(noted(&there, "token.import").len(), 4);
}

#[test]
fn an_export_tells_what_was_asked_and_no_secret_by_itself() {
    let desk = Desk::start();
    fill(&desk);
    let all = run(&desk, &["token", "export"]).expect(0).says(&["2 secret tokens", "--with-values"]);
    assert!(!all.out.contains("sk_"), "{}", all.out);
    assert_eq!(parse(&all.out), listed(&desk));
    assert!(noted(&desk, "token.reveal").is_empty());
    let some =
        run(&desk, &["token", "export", "--search", "all of", "--status", "disabled", "--usage"]).expect(0);
    let some = parse(&some.out);
    assert_eq!((some.len(), &some[0]["nickname"]), (1, &json!("All of it")));
    assert_eq!(some[0]["usage"]["core"]["used"], 0);
    run(&desk, &["token", "export", "--status", "gone"]).expect(2);
}

#[test]
fn all_mistakes_are_told_before_anything_is_written() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"import_key": "a", "nickname": "A"}

{"import_key": "b", "credit_limit": {"core": {"credits": -1, "period": "month"}}, "domain_mode": "maybe"}
{"nickname": "nobody"}
{"import_key": "c"
{"import_key": "a", "nickname": "A again"}
{"id": "tok_00000000010000000000000001", "type": "publishable"}
"#;
    let path = file(&folder, "tokens.jsonl", text);
    let mapping = folder.path().join("mapping.jsonl");
    let mapping = mapping.to_str().unwrap();
    for more in [["--mapping", mapping].as_slice(), &["--dry-run"]] {
        let done = with(&desk, &["token", "import"], &path, more).expect(1);
        let done = done.says(&[
            "line 3 /credit_limit/core/credits: ",
            "line 3 /domain_mode: ",
            "line 4: has none of `id`, `token` and `import_key`",
            "line 5: is not JSON",
            "line 6: is the same token as entry 1",
            "line 7 /type: ",
        ]);
        assert!(done.out.contains("5 refused"), "{}", done.out);
        assert_eq!(listed(&desk).len(), 1, "{done:?}");
    }
    // What can be taken is taken if one wants that.
    let done = with(&desk, &["token", "import"], &path, &["--keep-going", "--mapping", mapping]).expect(1);
    assert!(done.out.contains("1 created, 5 refused"), "{}", done.out);
    assert_eq!(listed(&desk).len(), 2);
}

#[test]
fn new_values_go_to_a_mapping_that_only_its_owner_can_read() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        &folder,
        "t.jsonl",
        "{\"import_key\": \"k1\", \"nickname\": \"N\"}\n{\"import_key\": \"k2\", \"type\": \"secret\"}\n",
    );
    with(&desk, &["token", "import"], &path, &[]).expect(2).says(&["2 tokens get new values", "--mapping"]);
    assert_eq!(listed(&desk).len(), 1);
    let at = folder.path().join("m.jsonl");
    let mapping = at.to_str().unwrap();
    with(&desk, &["token", "import"], &path, &["--mapping", mapping]).expect(0);
    assert_eq!(at.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let rows = parse(&std::fs::read_to_string(&at).unwrap());
    assert_eq!((rows.len(), &rows[0]["name"]), (2, &json!("N")));
    for row in &rows {
        let value = Token::parse(row["token"].as_str().unwrap().as_bytes()).unwrap();
        let found = desk.block_on(desk.store.find_token(&value.digest())).unwrap().unwrap();
        assert_eq!(found.id.as_str(), row["id"].as_str().unwrap());
    }
    // A mapping is never written over; another run tells the public values again.
    with(&desk, &["token", "import"], &path, &["--mapping", mapping])
        .expect(1)
        .says(&["cannot make the mapping"]);
    let second = folder.path().join("m2.jsonl");
    with(&desk, &["token", "import"], &path, &["--mapping", second.to_str().unwrap()]).expect(0);
    let again = parse(&std::fs::read_to_string(&second).unwrap());
    assert_eq!((&again[0]["token"], &again[1]["token"]), (&rows[0]["token"], &Value::Null));
    assert_eq!(listed(&desk).len(), 3);
}

#[test]
fn a_token_that_is_there_is_refused_left_or_edited_as_was_asked() {
    let desk = Desk::start();
    let made = desk.create(json!({"nickname": "Before", "premium_access": true}));
    let (id, value) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let by_id = file(&folder, "id.jsonl", &format!("{{\"id\": \"{id}\", \"nickname\": \"After\"}}\n"));
    let by_value =
        file(&folder, "value.jsonl", &format!("{{\"token\": \"{value}\", \"nickname\": \"After\"}}\n"));
    for path in [&by_id, &by_value] {
        with(&desk, &["token", "import"], path, &[]).expect(1).says(&["line 1", id, "differs in /nickname"]);
        let done = with(&desk, &["token", "import"], path, &["--on-conflict", "skip"]).expect(0);
        assert!(done.out.contains("1 skipped"), "{}", done.out);
    }
    let shown =
        with(&desk, &["token", "import"], &by_value, &["--on-conflict", "update", "--dry-run"]).expect(0);
    assert!(shown.out.contains("/nickname: \"Before\" → \"After\""), "{}", shown.out);
    assert_eq!(desk.read(id)["version"], 1);
    let done = with(&desk, &["token", "import"], &by_value, &["--on-conflict", "update"]).expect(0);
    assert!(done.out.contains("1 updated"), "{}", done.out);
    let now = desk.read(id);
    assert_eq!((&now["nickname"], &now["premium_access"]), (&json!("After"), &json!(true)), "absent keeps");
    assert_eq!(noted(&desk, "token.import")[0]["changes"][0]["to"], "After");

    // Somebody else's value, and a value that the token does not have.
    let other = desk.create(json!({}));
    let foreign = json!({"id": other["id"], "token": value});
    let changed = json!({"id": id, "token": format!("pk_{}", "5".repeat(32))});
    for line in [foreign, changed] {
        let path = file(&folder, "wrong.jsonl", &line.to_string());
        with(&desk, &["token", "import"], &path, &["--on-conflict", "update"])
            .expect(1)
            .says(&["line 1 /token"]);
    }
}

#[test]
fn what_is_over_or_revoked_comes_along_and_a_revoked_token_does_not_come_back() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let value = format!("pk_{}", "7".repeat(32));
    let text = format!(
        "{{\"token\": \"{value}\", \"status\": \"revoked\", \"created_at\": \"2020-01-01T00:00:00Z\"}}\n\
         {{\"token\": \"pk_{}\", \"expires_at\": \"2021-01-01T00:00:00Z\"}}\n",
        "8".repeat(32)
    );
    let path = file(&folder, "old.jsonl", &text);
    with(&desk, &["token", "import"], &path, &[]).expect(0);
    with(&desk, &["token", "import"], &path, &[]).expect(0);
    let tokens = others(&listed(&desk));
    assert_eq!(
        (&tokens[0]["status"], &tokens[0]["created_at"]),
        (&json!("revoked"), &json!("2020-01-01T00:00:00Z"))
    );
    assert_eq!(tokens[1]["expires_at"], "2021-01-01T00:00:00Z");
    let path = file(&folder, "back.jsonl", &format!("{{\"token\": \"{value}\", \"status\": \"active\"}}"));
    with(&desk, &["token", "import"], &path, &["--on-conflict", "update"])
        .expect(1)
        .says(&["cannot come back"]);
}

#[test]
fn an_import_from_the_standard_input_is_judged_and_written_too() {
    use std::io::Write as _;
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let mut command =
        crate::cli::tool::command(folder.path(), &["token", "import", "-", "--admin", &desk.url]);
    command.env("TOLLGATE_SECRET_TOKEN", SECRET).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let line = format!("{{\"token\": \"pk_{}\"}}", "9".repeat(32));
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(listed(&desk).len(), 2);
}

#[test]
fn the_api_writes_nothing_of_a_call_with_a_mistake_unless_told() {
    let desk = Desk::start();
    let body = "{\"import_key\": \"a\"}\n\n{\"import_key\": \"b\", \"rate_limit\": 5}\n";
    let send = |query: &str, kind: &str, body: &str| {
        let bearer = format!("Bearer {SECRET}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
        desk.raw("POST", &format!("/v1/tokens/import{query}"), &headers, body.as_bytes())
    };
    let kind = "application/x-ndjson";
    let told = send("", kind, body).expect(200).json();
    let outcomes: Vec<_> =
        told["outcomes"].as_array().unwrap().iter().map(|it| (&it["line"], &it["outcome"])).collect();
    assert_eq!(outcomes, [(&json!(1), &json!("not_done")), (&json!(3), &json!("refused"))], "{told}");
    assert_eq!(told["outcomes"][1]["errors"][0]["pointer"], "/rate_limit");
    assert_eq!(listed(&desk).len(), 1);
    let told = send("?keep_going=true", kind, body).expect(200).json();
    assert_eq!(told["outcomes"][0]["outcome"], "created", "{told}");
    assert_eq!(listed(&desk).len(), 2);
    send("?on_conflict=overwrite", kind, body).expect(400);
    send("", "text/plain", body).expect(415);
    send("", kind, &"{\"import_key\": \"a\"}\n".repeat(1001)).expect(413);
}
