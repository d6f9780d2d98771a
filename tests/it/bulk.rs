//! Many tokens at once: export, import, one edit of many, backup and restore. The real binary, on both stores.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::admin::desk::{Desk, FIRST_ID};
use crate::cli::tool::{Done, run};

mod backups;
mod edits;
mod lines;
mod nodes;

/// A file of a test's own.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a command about a file.
fn with(desk: &Desk, words: &[&str], path: &Path, more: &[&str]) -> Done {
    run(desk, &[words, &[path.to_str().unwrap()], more].concat())
}

/// What an export prints, by id.
fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Entries of the trail with this action, newest first.
fn noted(desk: &Desk, action: &str) -> Vec<Value> {
    let trail = desk.call("GET", "/v1/audit?limit=500", Value::Null).expect(200).json();
    let entries = trail["entries"].as_array().unwrap();
    entries.iter().filter(|entry| entry["action"] == action).cloned().collect()
}

/// All tokens of a desk.
fn listed(desk: &Desk) -> Vec<Value> {
    let page = desk.call("GET", "/v1/tokens?limit=500", Value::Null).expect(200).json();
    page["tokens"].as_array().unwrap().clone()
}

/// Tokens with something in every field.
fn fill(desk: &Desk) -> Vec<String> {
    let made = [
        json!({"nickname": "Plain"}),
        json!({
            "nickname": "All of it", "status": "disabled", "expires_at": "2199-01-01T00:00:00Z", "signed_requests": true,
            "replay_protection": false, "core_access": false, "premium_access": true,
            "datasets": [{"dataset": "MY/CARS", "operations": ["read", "write"]}],
            "allowed_domains": ["www.example.com", "203.0.113.0/24"], "domain_mode": "report",
            "credit_limit": {"core": {"credits": 100_000, "period": "month"}, "premium": {"credits": 7, "period": "none"}},
            "rate_limit": {"requests_per_second": 50, "burst": 100},
        }),
        json!({"nickname": "Secret", "type": "secret"}),
        json!({"nickname": "Gone"}),
    ];
    let ids: Vec<String> =
        made.into_iter().map(|fields| desk.create(fields)["id"].as_str().unwrap().to_owned()).collect();
    desk.call("DELETE", &format!("/v1/tokens/{}", ids[3]), Value::Null).expect(200);
    ids
}

/// A token without what only its store can know.
fn portable(token: &Value) -> Value {
    let mut token = token.clone();
    token.as_object_mut().unwrap().remove("version");
    token
}

fn others(tokens: &[Value]) -> Vec<Value> {
    tokens.iter().filter(|token| token["id"] != FIRST_ID).map(portable).collect()
}
