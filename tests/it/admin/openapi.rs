//! The description of the API: checked in, complete, and true.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tollgate::policy::Pool;

use super::books;
use super::desk::Desk;

#[test]
fn the_checked_in_description_is_the_one_made_from_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = tollgate::admin::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "openapi.json is out of date; run UPDATE_OPENAPI=1 cargo nextest run openapi");
}

fn served() -> Value {
    Desk::start().raw("GET", "/openapi.json", &[], b"").expect(200).json()
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let api = served();
    let mut used = BTreeSet::new();
    let mut rest = vec![&api];
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(api.pointer(pointer).is_some(), "{reference}");
                    used.insert(reference.rsplit('/').next().unwrap().to_owned());
                }
                rest.extend(members.values());
            }
            Value::Array(entries) => rest.extend(entries),
            _ => {}
        }
    }
    let schemas: BTreeSet<_> = api["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(used, schemas);
}

#[test]
fn every_operation_says_who_may_call_and_what_may_come_back() {
    let api = served();
    assert_eq!(api["components"]["securitySchemes"]["secret_token"]["scheme"], "bearer");
    assert_eq!(api["security"], json!([{"secret_token": []}]));
    let mut operations = Vec::new();
    let mut ids = BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push(format!("{} {path}", method.to_uppercase()));
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{method} {path} has no summary");
            let id = operation["operationId"].as_str().unwrap_or_default();
            assert!(!id.is_empty() && ids.insert(id.to_owned()), "{method} {path} shares its id {id}");
            if path.starts_with("/v1/") {
                assert_eq!(operation["security"], Value::Null, "{method} {path} is open");
                for status in ["400", "401", "403", "503"] {
                    let problem = &operation["responses"][status]["content"]["application/problem+json"];
                    assert_eq!(
                        problem["schema"]["$ref"], "#/components/schemas/Problem",
                        "{method} {path} {status}"
                    );
                }
            } else {
                assert_eq!(operation["security"], json!([{}]), "{method} {path} is closed");
            }
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let named = operation["parameters"].as_array().unwrap().iter().any(|parameter| {
                    parameter["in"] == "path" && parameter["name"] == name.trim_end_matches('}')
                });
                assert!(named, "{method} {path} does not describe {name}");
            }
        }
    }
    operations.sort_unstable();
    assert_eq!(
        operations,
        [
            "DELETE /v1/members/{id}",
            "DELETE /v1/tokens/{id}",
            "GET /healthz",
            "GET /metrics",
            "GET /openapi.json",
            "GET /readyz",
            "GET /v1/account",
            "GET /v1/audit",
            "GET /v1/datasets",
            "GET /v1/members",
            "GET /v1/members/{id}",
            "GET /v1/nodes",
            "GET /v1/tokens",
            "GET /v1/tokens/{id}",
            "GET /v1/tokens/{id}/usage",
            "GET /v1/usage",
            "PATCH /v1/account",
            "PATCH /v1/members/{id}",
            "PATCH /v1/tokens",
            "PATCH /v1/tokens/{id}",
            "POST /v1/backup",
            "POST /v1/explain",
            "POST /v1/members",
            "POST /v1/members/{id}/invite",
            "POST /v1/tokens",
            "POST /v1/tokens/import",
            "POST /v1/tokens/{id}/reveal",
            "POST /v1/tokens/{id}/rotate",
            "POST /v1/tokens/{id}/signing-secret",
        ]
    );
}

/// The names of a schema's properties.
fn properties(api: &Value, schema: &str) -> BTreeSet<String> {
    let schema = &api["components"]["schemas"][schema];
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn bodies_take_exactly_the_fields_that_are_described() {
    let desk = Desk::start();
    let api = desk.raw("GET", "/openapi.json", &[], b"").expect(200).json();
    for (schema, method, path, besides) in [
        (
            "TokenFields",
            "POST",
            "/v1/tokens",
            &["id", "token", "created_at", "seen_in_browser_at", "version", "usage", "receipt"][..],
        ),
        ("AccountFields", "PATCH", "/v1/account", &[]),
        ("RotateFields", "POST", "/v1/tokens/tok_00000000010000000000000001/rotate", &[]),
        ("Question", "POST", "/v1/explain", &[]),
        ("MemberFields", "POST", "/v1/members", &[]),
        ("MemberEdit", "PATCH", "/v1/members/mem_00000000010000000000000001", &[]),
    ] {
        assert_eq!(api["components"]["schemas"][schema]["additionalProperties"], json!(false), "{schema}");
        let refused = desk.call(method, path, json!({"no such field": 1})).expect(422);
        let detail = refused.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
        let known = detail.rsplit("known here are ").next().unwrap();
        let known: BTreeSet<_> = known.split(", ").map(str::to_owned).collect();
        let mut described = properties(&api, schema);
        described.extend(besides.iter().map(|name| (*name).to_owned()));
        assert_eq!(known, described, "{schema}");
    }
}

#[test]
fn answers_hold_exactly_the_fields_that_are_described() {
    let desk = Desk::start();
    let api = desk.raw("GET", "/openapi.json", &[], b"").expect(200).json();
    let token = desk.create(json!({
        "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}],
        "credit_limit": {"core": {"credits": 1, "period": "day"}}, "rate_limit": {"requests_per_second": 1},
    }));
    let id = token["id"].as_str().unwrap();
    let hour = books::hour(jiff::Timestamp::now());
    books::spend(&desk, id, Pool::Core, vec![books::cell(hour, "MY/CARS", 1)]);
    books::refuse(&desk, Some(id), hour, "no_route", 1);
    books::report(&desk, 1, 0);
    let token = desk.read(id);
    let account = desk.call("GET", "/v1/account", Value::Null).json();
    let explanation = desk.call("POST", "/v1/explain", json!({"target": "/"})).json();
    let problem = desk.call("POST", "/v1/tokens", json!({"x": 1})).json();
    let wait = |path: &str| desk.call("PATCH", &format!("{path}?wait=1ms"), json!({})).expect(200).json();
    let edited = [wait(&format!("/v1/tokens/{id}")), wait("/v1/account")];
    let nodes = desk.call("GET", "/v1/nodes", Value::Null).json();
    let usage = |by: &str| desk.call("GET", &format!("/v1/usage?by={by}"), Value::Null).expect(200).json();
    let reports = [
        "day&refusals_by=day",
        "hour&refusals_by=hour",
        "month&refusals_by=month",
        "dataset",
        "operation",
        "token",
    ]
    .map(usage);
    let trail = desk.call("GET", &format!("/v1/audit?target={id}"), Value::Null).expect(200).json();
    let entry = trail["entries"].as_array().unwrap().last().unwrap();
    let member =
        desk.call("POST", "/v1/members", json!({"name": "Ada", "role": "viewer"})).expect(201).json();
    let rows = reports.each_ref().map(|report| &report["rows"][0]);
    let by_time = [0, 1, 2].map(|at: usize| &reports[at]["refusals_by"][0]);
    // A field that is only sometimes there is in one of several answers.
    for (schema, answers) in [
        ("Token", &[&token, &edited[0]][..]),
        ("Grant", &[&token["datasets"][0]]),
        ("Limits", &[&token["credit_limit"]]),
        ("Limit", &[&token["credit_limit"]["core"]]),
        ("RateLimit", &[&token["rate_limit"]]),
        ("Usage", &[&token["usage"]]),
        ("PoolUsage", &[&token["usage"]["core"]]),
        ("Account", &[&account, &edited[1]]),
        ("Receipt", &[&edited[0]["receipt"]]),
        ("MissingNode", &[&edited[1]["receipt"]["missing"][0]]),
        ("Nodes", &[&nodes]),
        ("Node", &[&nodes["nodes"][0]]),
        ("UsageReport", &[&reports[0]]),
        ("UsageRow", &rows),
        ("UsageTotals", &[&reports[0]["totals"]]),
        ("UsageSums", &[&reports[0]["totals"]["core"]]),
        ("Refusals", &[&reports[0]["refusals"][0]]),
        ("RefusalsByTime", &by_time),
        ("TokenPage", &[&desk.call("GET", "/v1/tokens?offset=0", Value::Null).json()]),
        ("TrailPage", &[&trail]),
        ("Entry", &[entry]),
        ("Actor", &[&entry["actor"], &json!({"name": ""})]),
        ("Change", &[&entry["changes"][0]]),
        ("Datasets", &[&desk.call("GET", "/v1/datasets", Value::Null).json()]),
        ("Members", &[&desk.call("GET", "/v1/members", Value::Null).json()]),
        ("Member", &[&member]),
        ("MemberLink", &[&member["invitation"]]),
        ("Explanation", &[&explanation]),
        ("ExplanationStep", &[&explanation["checks"][0]]),
        ("Problem", &[&problem]),
    ] {
        let found: BTreeSet<_> =
            answers.iter().flat_map(|answer| answer.as_object().unwrap().keys().cloned()).collect();
        assert_eq!(found, properties(&api, schema), "{schema}");
    }
}
