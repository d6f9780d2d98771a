//! What the commands say when something is wrong, and their exit codes.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::tool::{command, config, run, run_in};
use crate::admin::desk::{Desk, FIRST_ID, SECRET};
use crate::admin::moody_store::Mood;

#[test]
fn a_command_line_that_makes_no_sense_is_misuse() {
    let desk = Desk::start();
    let table: [&[&str]; 43] = [
        &[],
        &["fly"],
        &["token"],
        &["token", "create", "--type", "public"],
        &["token", "create", "--dataset", "CARS"],
        &["token", "create", "--dataset", "MY/CARS:fly"],
        &["token", "create", "--core-credit-limit", "100/week"],
        &["token", "create", "--core-credit-limit", "-1/day"],
        &["token", "create", "--rate-limit", "50"],
        &["token", "create", "--burst", "5"],
        &["token", "create", "--burst", "x", "--rate-limit", "5/s"],
        &["token", "create", "--expires-in", "90"],
        &["token", "create", "--expires-in", "99999999999d"],
        &["token", "create", "--expires-in", "90d", "--expires-at", "2199-01-01T00:00:00Z"],
        &["token", "create", "--expires-at", "tomorrow"],
        &["token", "create", "--core-access", "maybe"],
        &["token", "create", "--domain-mode", "off"],
        &["token", "create", "--no-expiry"],
        &["token", "show"],
        &["token", "show", "tok_1"],
        &["token", "show", SECRET],
        &["token", "edit", FIRST_ID],
        &["token", "edit", FIRST_ID, "--status", "revoked"],
        &["token", "edit", FIRST_ID, "--dataset", "MY/CARS", "--clear-datasets"],
        &["token", "edit", FIRST_ID, "--rate-limit", "5/s", "--no-rate-limit"],
        &["token", "edit", FIRST_ID, "--nickname", "x", "--if-version", "one"],
        &["token", "rotate", FIRST_ID, "--grace", "soon"],
        &["account", "edit"],
        &["account", "edit", "--core-budget", "5/day", "--no-core-budget"],
        &["account", "edit", "--core-budget", "5/day", "--wait=soon"],
        &["token", "usage", FIRST_ID, "--by", "week"],
        &["token", "usage", FIRST_ID, "--by", "token"],
        &["token", "usage", FIRST_ID, "--from", "yesterday"],
        &["token", "usage", FIRST_ID, "--csv", "--json"],
        &["usage", "--by", "pool"],
        &["usage", "--to", "2026-02-30"],
        &["usage", "--csv", "--json"],
        &["usage", FIRST_ID],
        &["nodes", "all"],
        &["explain"],
        &["explain", "/x", "--client", "localhost"],
        &["explain", "/x", "--header", "no colon"],
        &["completions", "cmd"],
    ];
    for args in table {
        let done = run(&desk, args);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}: {done:?}");
        assert!(!done.err.is_empty(), "{args:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    for url in ["127.0.0.1:8081", "ftp://127.0.0.1", "http://me:pw@127.0.0.1"] {
        run_in(folder.path(), &["token", "list", "--admin", url]).expect(2);
    }
    let tokens = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert_eq!((tokens["tokens"].as_array().unwrap().len(), &tokens["tokens"][0]["version"]), (1, &json!(1)));
    assert!(desk.asked.lock().is_empty());
}

#[test]
fn a_refused_field_is_named_by_its_flag() {
    let desk = Desk::start();
    let long = "x".repeat(201);
    // (arguments, what is said)
    let table: [(&[&str], &[&str]); 7] = [
        (
            &["token", "create", "--nickname", &long, "--allowed-domain", "www.example.com *.com"],
            &["2 fields", "--nickname (/nickname)", "--allowed-domain (/allowed_domains/1)", "public suffix"],
        ),
        (
            &["token", "create", "--expires-at", "2001-01-01T00:00:00Z"],
            &["--expires-at or --expires-in (/expires_at)", "past"],
        ),
        (
            &["token", "create", "--rate-limit", "5/s", "--burst", "0"],
            &["--burst (/rate_limit/burst)", "1000000"],
        ),
        (
            &["token", "edit", FIRST_ID, "--burst", "5"],
            &["--rate-limit (/rate_limit/requests_per_second)", "is required"],
        ),
        (&["token", "rotate", FIRST_ID, "--grace", "400d"], &["--grace (/grace)", "366d"]),
        (&["token", "revoke", FIRST_ID, "--wait=2m"], &["--wait", "60s"]),
        (&["usage", "--from", "2026-11-24", "--to", "2026-11-23"], &["--to", "is before"]),
    ];
    for (args, pieces) in table {
        run(&desk, args).expect(1).says(pieces);
    }
    run(&desk, &["explain", "x", "--origin", "a\u{7f}"])
        .expect(1)
        .says(&["URL (/target)", "--origin (/headers/Origin/0)"]);
    run(&desk, &["token", "revoke", FIRST_ID]).expect(1).says(&["409 last_secret_token"]);
    run(&desk, &["token", "edit", FIRST_ID, "--nickname", "x", "--if-version", "7"])
        .expect(1)
        .says(&["412 version_conflict", "stored version is 1"]);
    run(&desk, &["token", "show", "tok_00000000020000000000000001"]).expect(1).says(&["404 token_not_found"]);
    desk.mood(Mood::Down);
    run(&desk, &["token", "list"]).expect(1).says(&["503 store_unavailable"]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut child = command(folder.path(), &["token", "list", "--admin", &url]);
    let done = child.env("TOLLGATE_SECRET_TOKEN", SECRET).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("is `tollgate serve` running?") && said.contains(&url), "{said}");
}

#[test]
fn something_else_at_the_address_is_told_apart() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    // A path of the admin API that answers no JSON stands for a server that is something else.
    let url = format!("{}/metrics?", desk.url);
    run_in(folder.path(), &["token", "list", "--admin", &url]).expect(2);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        // A command that calls somewhere else must fail the test, not hang it.
        listener.set_nonblocking(true).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if std::time::Instant::now() < deadline => std::thread::yield_now(),
                Err(why) => panic!("nobody called: {why}"),
            }
        };
        stream.set_nonblocking(false).unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        let answer =
            "HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nhi";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let mut child = command(folder.path(), &["token", "list", "--admin", &url]);
    let done = child.env("TOLLGATE_SECRET_TOKEN", SECRET).output().unwrap();
    server.join().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("is that the admin address?"), "{said}");
}

#[test]
fn a_token_that_does_not_let_in_is_traced_to_where_it_came_from() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let publishable = desk.create(json!({}))["token"].as_str().unwrap().to_owned();
    let unknown = "sk_ffffffffffffffffffffffffffffffff";
    // (token, what is said)
    let table: [(&str, &[&str]); 3] = [
        (unknown, &["TOLLGATE_SECRET_TOKEN", "401 token_invalid"]),
        (&publishable, &["TOLLGATE_SECRET_TOKEN", "publishable"]),
        ("sk_short", &["TOLLGATE_SECRET_TOKEN", "32 lowercase hex digits"]),
    ];
    for (token, pieces) in table {
        let mut child = command(folder.path(), &["token", "list", "--admin", &desk.url]);
        let done = child.env("TOLLGATE_SECRET_TOKEN", token).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{said}");
        for piece in pieces {
            assert!(said.contains(piece), "{piece}: {said}");
        }
        assert!(!said.contains(token), "{said}");
    }
    std::fs::write(folder.path().join("proxy.yaml"), config("127.0.0.1:1")).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/secret-token"), unknown).unwrap();
    let done = run_in(folder.path(), &["token", "list", "--admin", &desk.url]).expect(1);
    let done = done.says(&["state/secret-token", "401 token_invalid"]);
    assert!(!done.err.contains(unknown), "{}", done.err);
}
