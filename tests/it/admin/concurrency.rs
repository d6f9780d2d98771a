//! Many writers at once: no edit is lost, and a writer that names its version is told when it is late.

use std::thread;

use serde_json::{Value, json};

use super::desk::{Desk, FIRST_ID};

#[test]
fn if_match_decides_whether_a_write_happens() {
    let desk = Desk::start();
    let token = desk.create(json!({}));
    let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
    let rotate = format!("{path}/rotate");
    desk.call("PATCH", &path, json!({"nickname": "two"})).expect(200);
    // (method, path, body)
    let writes = [
        ("PATCH", path.as_str(), json!({"nickname": "late"})),
        ("POST", rotate.as_str(), json!({})),
        ("DELETE", path.as_str(), Value::Null),
    ];
    for (method, target, body) in &writes {
        for tag in ["\"1\"", "\"3\"", "W/\"2\"", "\"x\"", "\"1\", \"3\""] {
            let answer = desk.call_with(method, target, body.clone(), &[("If-Match", tag)]).expect(412);
            assert_eq!(
                (answer.code().as_str(), answer.header("etag").as_str()),
                ("version_conflict", "\"2\""),
                "{method} {tag}"
            );
        }
        for tag in ["2", "\"2", "", "two"] {
            let answer = desk.call_with(method, target, body.clone(), &[("If-Match", tag)]).expect(400);
            assert_eq!(answer.code(), "invalid_header", "{method} {tag}");
        }
    }
    assert_eq!(desk.read(token["id"].as_str().unwrap())["version"], 2);
    let mut version = 2;
    for (method, target, body) in writes {
        for tag in [format!("\"{version}\""), "*".to_owned()] {
            if method == "DELETE" && tag == "*" {
                continue;
            }
            let answer = desk.call_with(method, target, body.clone(), &[("If-Match", &tag)]).expect(200);
            version += 1;
            assert_eq!(answer.header("etag"), format!("\"{version}\""), "{method} {tag}");
        }
    }
    let account = [("If-Match", "\"1\"")];
    desk.call_with("PATCH", "/v1/account", json!({"budget": null}), &account).expect(200);
    desk.call_with("PATCH", "/v1/account", json!({"budget": null}), &account).expect(412);
}

#[test]
fn concurrent_edits_that_name_their_version_all_arrive() {
    const WRITERS: usize = 8;
    const EDITS: usize = 5;
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{id}");
    let late: usize = thread::scope(|scope| {
        let write = |writer: usize| {
            let mut late = 0;
            for edit in 0..EDITS {
                loop {
                    let token = desk.read(&id);
                    let mut datasets = token["datasets"].as_array().unwrap().clone();
                    datasets.push(json!({"dataset": format!("W{writer}/E{edit}"), "operations": ["read"]}));
                    let tag = format!("\"{}\"", token["version"]);
                    let body = json!({"datasets": datasets});
                    let answer = desk.call_with("PATCH", &path, body, &[("If-Match", &tag)]);
                    match answer.status {
                        200 => break,
                        412 => late += 1,
                        other => panic!("{other}: {}", answer.text),
                    }
                }
            }
            late
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    let token = desk.read(&id);
    let mut names: Vec<_> =
        token["datasets"].as_array().unwrap().iter().map(|grant| grant["dataset"].to_string()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), WRITERS * EDITS, "{late} were told they were late");
    assert_eq!(token["version"], 1 + WRITERS * EDITS);
}

#[test]
fn concurrent_edits_of_different_fields_all_arrive_without_a_version() {
    const EDITS: usize = 10;
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{id}");
    let writers: [fn(usize) -> Value; 6] = [
        |n| json!({"nickname": format!("name {n}")}),
        |n| json!({"datasets": [{"dataset": format!("MY/D{n}"), "operations": ["read"]}]}),
        |n| json!({"allowed_domains": [format!("h{n}.example.com")]}),
        |n| json!({"credit_limit": {"core": {"credits": n, "period": "day"}}}),
        |n| json!({"credit_limit": {"premium": {"credits": n, "period": "hour"}}}),
        |n| json!({"rate_limit": {"requests_per_second": n + 1, "burst": n + 2}}),
    ];
    thread::scope(|scope| {
        for writer in writers {
            let (desk, path) = (&desk, &path);
            scope.spawn(move || {
                for n in 0..EDITS {
                    desk.call("PATCH", path, writer(n)).expect(200);
                }
            });
        }
    });
    let token = desk.read(&id);
    let n = EDITS - 1;
    assert_eq!(token["version"], 1 + writers.len() * EDITS);
    assert_eq!(token["nickname"], format!("name {n}"));
    assert_eq!(token["datasets"][0]["dataset"], format!("MY/D{n}"));
    assert_eq!(token["allowed_domains"][0], format!("h{n}.example.com"));
    assert_eq!(
        token["credit_limit"],
        json!({"core": {"credits": n, "period": "day"}, "premium": {"credits": n, "period": "hour"}})
    );
    assert_eq!(token["rate_limit"], json!({"requests_per_second": n + 1, "burst": n + 2}));
}

#[test]
fn of_two_secret_tokens_revoked_at_once_one_stays() {
    let desk = Desk::start();
    for _ in 0..10 {
        let pair = [desk.create(json!({"type": "secret"})), desk.create(json!({"type": "secret"}))];
        let bearer = format!("Bearer {}", pair[0]["token"].as_str().unwrap());
        // Both are asked for by the one token that is not among them, which then steps aside.
        desk.raw(
            "PATCH",
            &format!("/v1/tokens/{FIRST_ID}"),
            &[("Authorization", &bearer), ("Content-Type", "application/json")],
            br#"{"status": "disabled"}"#,
        )
        .expect(200);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let revoke = |token: &Value| {
                let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
                let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
                desk.raw("DELETE", &path, &[("Authorization", &bearer)], b"").status
            };
            let all: Vec<_> = pair.iter().map(|token| scope.spawn(move || revoke(token))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(statuses.iter().filter(|status| **status == 200).count() == 1, "{statuses:?}");
        let kept = &pair[statuses.iter().position(|status| *status == 409).unwrap()];
        let bearer = format!("Bearer {}", kept["token"].as_str().unwrap());
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        desk.raw("PATCH", &format!("/v1/tokens/{FIRST_ID}"), &headers, br#"{"status": "active"}"#)
            .expect(200);
        desk.call("DELETE", &format!("/v1/tokens/{}", kept["id"].as_str().unwrap()), Value::Null).expect(200);
    }
}
