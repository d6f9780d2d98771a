//! The fields of bodies: every mistake at once, each with its pointer; a write is all or nothing.

use serde_json::{Value, json};

use super::desk::{Desk, SECRET};

#[test]
fn every_wrong_field_is_named_by_its_pointer() {
    let desk = Desk::start();
    let long = "x".repeat(201);
    let rules: Vec<_> = (0..101).map(|n| format!("h{n}.example.com")).collect();
    let grants: Vec<_> =
        (0..1001).map(|n| json!({"dataset": format!("MY/D{n}"), "operations": ["read"]})).collect();
    let table: Vec<(Value, &[&str])> = vec![
        (json!([]), &[""]),
        (json!("x"), &[""]),
        (json!(7), &[""]),
        (json!({"nick": "x"}), &["/nick"]),
        (json!({"a/b~c": 1}), &["/a~1b~0c"]),
        (json!({"type": "public"}), &["/type"]),
        (json!({"type": 1}), &["/type"]),
        (json!({"nickname": 5}), &["/nickname"]),
        (json!({"nickname": long}), &["/nickname"]),
        (json!({"nickname": "a\u{7}b"}), &["/nickname"]),
        (json!({"nickname": "line\nbreak"}), &["/nickname"]),
        (json!({"nickname": format!("mine: {SECRET}")}), &["/nickname"]),
        (json!({"status": "revoked"}), &["/status"]),
        (json!({"status": "sleepy"}), &["/status"]),
        (json!({"status": true}), &["/status"]),
        (json!({"expires_at": "tomorrow"}), &["/expires_at"]),
        (json!({"expires_at": "2030-01-01"}), &["/expires_at"]),
        (json!({"expires_at": "2030-01-01T00:00:00"}), &["/expires_at"]),
        (json!({"expires_at": 1_900_000_000}), &["/expires_at"]),
        (json!({"expires_at": "2001-01-01T00:00:00Z"}), &["/expires_at"]),
        (json!({"signed_requests": "yes"}), &["/signed_requests"]),
        (json!({"core_access": 1}), &["/core_access"]),
        (json!({"premium_access": "true"}), &["/premium_access"]),
        (json!({"datasets": "MY/CARS"}), &["/datasets"]),
        (json!({"datasets": {"dataset": "MY/CARS"}}), &["/datasets"]),
        (json!({"datasets": ["MY/CARS"]}), &["/datasets/0"]),
        (json!({"datasets": [{}]}), &["/datasets/0/dataset", "/datasets/0/operations"]),
        (json!({"datasets": [{"dataset": "MY", "operations": ["read"]}]}), &["/datasets/0/dataset"]),
        (json!({"datasets": [{"dataset": "*/*", "operations": ["read"]}]}), &["/datasets/0/dataset"]),
        (json!({"datasets": [{"dataset": "MY/CARS", "operations": []}]}), &["/datasets/0/operations"]),
        (json!({"datasets": [{"dataset": "MY/CARS", "operations": "read"}]}), &["/datasets/0/operations"]),
        (json!({"datasets": [{"dataset": "MY/CARS", "operations": null}]}), &["/datasets/0/operations"]),
        (
            json!({"datasets": [
                {"dataset": "MY/CARS", "operations": ["read"]},
                {"dataset": "M Y", "operations": ["read", "fly", 7], "extra": 1},
            ]}),
            &[
                "/datasets/1/extra",
                "/datasets/1/operations/1",
                "/datasets/1/operations/2",
                "/datasets/1/dataset",
            ],
        ),
        (json!({"datasets": grants}), &["/datasets"]),
        (json!({"allowed_domains": 5}), &["/allowed_domains"]),
        (json!({"allowed_domains": rules}), &["/allowed_domains"]),
        (json!({"allowed_domains": rules.join(" ")}), &["/allowed_domains"]),
        (
            json!({"allowed_domains": ["www.example.com", "*.com", 3, "a b", "", "*", "evil*.example.com"]}),
            &[
                "/allowed_domains/1",
                "/allowed_domains/2",
                "/allowed_domains/3",
                "/allowed_domains/4",
                "/allowed_domains/5",
                "/allowed_domains/6",
            ],
        ),
        (json!({"allowed_domains": "www.example.com *.co.uk"}), &["/allowed_domains"]),
        (json!({"domain_mode": "off"}), &["/domain_mode"]),
        (json!({"credit_limit": 5}), &["/credit_limit"]),
        (json!({"credit_limit": {"Core": null}}), &["/credit_limit/Core"]),
        (json!({"credit_limit": {"core": 5}}), &["/credit_limit/core"]),
        (json!({"credit_limit": {"core": {"credits": 5}}}), &["/credit_limit/core/period"]),
        (json!({"credit_limit": {"core": {"period": "day"}}}), &["/credit_limit/core/credits"]),
        (
            json!({"credit_limit": {"core": {"credits": null, "period": "day"}}}),
            &["/credit_limit/core/credits"],
        ),
        (
            json!({"credit_limit": {"core": {"credits": -1, "period": "week"}, "premium": {"credits": 1.5, "x": 1}}}),
            &[
                "/credit_limit/core/credits",
                "/credit_limit/core/period",
                "/credit_limit/premium/x",
                "/credit_limit/premium/credits",
                "/credit_limit/premium/period",
            ],
        ),
        (
            json!({"credit_limit": {"core": {"credits": 9_007_199_254_740_992_u64, "period": "day"}}}),
            &["/credit_limit/core/credits"],
        ),
        (
            json!({"credit_limit": {"core": {"credits": "5", "period": "day"}}}),
            &["/credit_limit/core/credits"],
        ),
        (json!({"rate_limit": "50/s"}), &["/rate_limit"]),
        (json!({"rate_limit": {}}), &["/rate_limit/requests_per_second"]),
        (json!({"rate_limit": {"burst": 5}}), &["/rate_limit/requests_per_second"]),
        (
            json!({"rate_limit": {"requests_per_second": 0, "burst": 1_000_001}}),
            &["/rate_limit/requests_per_second", "/rate_limit/burst"],
        ),
        (json!({"rate_limit": {"requests_per_second": 5, "per": "s"}}), &["/rate_limit/per"]),
        (
            json!({"id": "x", "token": SECRET, "created_at": 1, "seen_in_browser_at": null, "version": 2, "usage": {}}),
            &["/id", "/token", "/created_at", "/seen_in_browser_at", "/version", "/usage"],
        ),
        (
            json!({"nickname": 1, "status": "x", "core_access": 0, "domain_mode": 1, "rate_limit": 1}),
            &["/nickname", "/status", "/core_access", "/domain_mode", "/rate_limit"],
        ),
        (json!({SECRET: 1}), &["/sk_********************************"]),
    ];
    for (body, pointers) in &table {
        let answer = desk.call("POST", "/v1/tokens", body.clone());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "invalid_fields"),
            "{body}: {}",
            answer.text
        );
        assert_eq!(answer.pointers(), *pointers, "{body}: {}", answer.text);
        assert!(!answer.text.contains(SECRET), "{}", answer.text);
        for error in answer.json()["errors"].as_array().unwrap() {
            assert!(error["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{}", answer.text);
        }
    }
    let tokens = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1, "a refused body made a token");
}

#[test]
fn a_wrong_edit_changes_nothing_at_all() {
    let desk = Desk::start();
    let token = desk.create(json!({"nickname": "before", "allowed_domains": ["www.example.com"]}));
    let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
    let body = json!({"nickname": "after", "allowed_domains": [], "rate_limit": {"requests_per_second": 0}});
    let answer = desk.call("PATCH", &path, body).expect(422);
    assert_eq!(answer.pointers(), ["/rate_limit/requests_per_second"]);
    for (body, pointer) in [
        (json!({"type": "secret"}), "/type"),
        (json!({"status": "revoked"}), "/status"),
        (json!({"version": 1}), "/version"),
    ] {
        assert_eq!(desk.call("PATCH", &path, body).expect(422).pointers(), [pointer]);
    }
    let mut after = desk.read(token["id"].as_str().unwrap());
    for name in ["usage", "last_used_at", "last_refused_at"] {
        assert!(after.as_object_mut().unwrap().remove(name).is_some(), "{name}");
    }
    assert_eq!(after, token);
}

#[test]
fn a_merge_patch_keeps_what_is_absent_and_resets_what_is_null() {
    let desk = Desk::start();
    let full = json!({
        "nickname": "Customer XYZ", "status": "disabled", "expires_at": "2199-01-01T00:00:00Z",
        "signed_requests": true, "core_access": false, "premium_access": true,
        "datasets": [{"dataset": "MY/CARS", "operations": ["read", "write"]}],
        "allowed_domains": "www.example.com  *.example.org", "domain_mode": "report",
        "credit_limit": {"core": {"credits": 100, "period": "month"}, "premium": {"credits": 0, "period": "none"}},
        "rate_limit": {"requests_per_second": 50},
    });
    let token = desk.create(full.clone());
    let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
    let mut expected = full;
    expected["allowed_domains"] = json!(["www.example.com", "*.example.org"]);
    expected["rate_limit"]["burst"] = json!(50);
    let assert_holds = |token: &Value, expected: &Value| {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&token[name], value, "{name}");
        }
    };
    assert_holds(&token, &expected);
    // (the patch, what then differs)
    let steps = [
        (json!({}), json!({})),
        (json!({"nickname": "Ä".repeat(200)}), json!({"nickname": "Ä".repeat(200)})),
        (
            json!({"credit_limit": {"core": {"credits": 7}}}),
            json!({"credit_limit": {"core": {"credits": 7, "period": "month"},
                                     "premium": {"credits": 0, "period": "none"}}}),
        ),
        (
            json!({"credit_limit": {"core": {"period": "hour"}, "premium": null}}),
            json!({"credit_limit": {"core": {"credits": 7, "period": "hour"}, "premium": null}}),
        ),
        (
            json!({"rate_limit": {"burst": 90}}),
            json!({"rate_limit": {"requests_per_second": 50, "burst": 90}}),
        ),
        (
            json!({"rate_limit": {"requests_per_second": 10}}),
            json!({"rate_limit": {"requests_per_second": 10, "burst": 90}}),
        ),
        (
            json!({"rate_limit": {"burst": null}}),
            json!({"rate_limit": {"requests_per_second": 10, "burst": 10}}),
        ),
        (json!({"datasets": []}), json!({"datasets": []})),
        (
            json!({"nickname": null, "status": null, "expires_at": null, "signed_requests": null,
                   "core_access": null, "premium_access": null, "datasets": null, "allowed_domains": null,
                   "domain_mode": null, "credit_limit": null, "rate_limit": null, "type": null}),
            json!({"nickname": "", "status": "active", "expires_at": null, "signed_requests": false,
                   "core_access": true, "premium_access": false, "datasets": [], "allowed_domains": [],
                   "domain_mode": "enforce", "credit_limit": {"core": null, "premium": null}, "rate_limit": null}),
        ),
    ];
    for (at, (patch, differs)) in steps.into_iter().enumerate() {
        for (name, value) in differs.as_object().unwrap() {
            expected[name] = value.clone();
        }
        let answer = desk.call("PATCH", &path, patch).expect(200);
        assert_holds(&answer.json(), &expected);
        assert_eq!(answer.json()["version"], at + 2);
        assert_holds(&desk.read(token["id"].as_str().unwrap()), &expected);
    }
}
