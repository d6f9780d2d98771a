//! Tokens as people read them.

use serde_json::Value;

use crate::cli::table;

/// A value without quotes; nothing for `null`.
pub(in crate::cli) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A limit in the form that flags take it.
pub(in crate::cli) fn limit(limit: Option<&Value>) -> String {
    let Some(limit) = limit.filter(|limit| limit.is_object()) else { return "no limit".to_owned() };
    let part = |name: &str| limit.get(name).map(plain).unwrap_or_default();
    match part("period").as_str() {
        "none" => part("credits"),
        period => format!("{}/{period}", part("credits")),
    }
}

/// What is used, a line for each pool.
pub(in crate::cli) fn usage_table(usage: Option<&Value>) -> String {
    let field = |pool: &str, name: &str| usage.and_then(|usage| usage.get(pool)?.get(name));
    let lines = ["core", "premium"].map(|pool| {
        let text = |name: &str| field(pool, name).map(plain);
        let or = |name: &str, absent: &str| {
            text(name).filter(|text| !text.is_empty()).unwrap_or_else(|| absent.to_owned())
        };
        [
            pool.to_owned(),
            or("used", "?"),
            or("leased", "?"),
            or("stranded", "?"),
            or("remaining", "no limit"),
            or("period", "?"),
            or("resets_at", "never"),
        ]
    });
    table::rows(["POOL", "USED", "LEASED", "STRANDED", "REMAINING", "PERIOD", "RESETS AT"], lines)
}

/// All tokens, a line each.
pub(super) fn list(tokens: &[Value]) -> String {
    let lines = tokens.iter().map(|token| {
        let text = |name: &str| token.get(name).map(plain).unwrap_or_default();
        if let Some(problem) = token.get("problem") {
            let problem = plain(problem);
            return [
                text("id"),
                String::new(),
                text("status"),
                problem,
                String::new(),
                String::new(),
                String::new(),
            ];
        }
        let value = if text("type") == "secret" { "(secret)".to_owned() } else { text("token") };
        let expires = Some(text("expires_at")).filter(|at| !at.is_empty());
        [
            text("id"),
            text("type"),
            status(token),
            text("nickname"),
            value,
            limit(token.get("credit_limit").and_then(|limits| limits.get("core"))),
            expires.unwrap_or_else(|| "never".to_owned()),
        ]
    });
    table::rows(["ID", "TYPE", "STATUS", "NICKNAME", "TOKEN", "CORE CREDITS", "EXPIRES"], lines)
}

fn status(token: &Value) -> String {
    let status = token.get("status").map(plain).unwrap_or_default();
    let leaked = token.get("seen_in_browser_at").is_some_and(|at| !at.is_null());
    if leaked { format!("{status}, seen in a browser") } else { status }
}

/// One token, a line for each field.
pub(super) fn token(token: &Value) -> String {
    let text = |name: &str| token.get(name).map(plain).unwrap_or_default();
    let or =
        |name: &str, absent: &str| Some(text(name)).filter(|t| !t.is_empty()).unwrap_or(absent.to_owned());
    let within = |outer: &str, name: &str| token.get(outer).and_then(|value| value.get(name));
    let list = |name: &str, show: fn(&Value) -> String| {
        let list = token.get(name).and_then(Value::as_array);
        list.map(|list| list.iter().map(show).collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    let rate = match (within("rate_limit", "requests_per_second"), within("rate_limit", "burst")) {
        (Some(rate), Some(burst)) => format!("{rate}/s, burst {burst}"),
        _ => "no limit".to_owned(),
    };
    let domains = Some(list("allowed_domains", plain)).filter(|list| !list.is_empty());
    let mut shown = table::pairs([
        ("id", text("id")),
        ("type", text("type")),
        ("token", or("token", "(sealed; `tollgate token reveal` shows it)")),
        ("nickname", text("nickname")),
        ("status", status(token)),
        ("created", text("created_at")),
        ("expires", or("expires_at", "never")),
        ("signed requests", text("signed_requests")),
        ("replay protection", switch(&text("replay_protection"))),
        ("core access", text("core_access")),
        ("premium access", text("premium_access")),
        ("data sets", list("datasets", grant)),
        ("allowed domains", domains.unwrap_or_else(|| "all".to_owned())),
        ("domain mode", text("domain_mode")),
        ("core credits", limit(within("credit_limit", "core"))),
        ("premium credits", limit(within("credit_limit", "premium"))),
        ("rate limit", rate),
        ("version", text("version")),
    ]);
    if let Some(usage) = token.get("usage") {
        shown.push('\n');
        shown.push_str(&usage_table(Some(usage)));
    }
    shown
}

fn switch(flag: &str) -> String {
    match flag {
        "true" => "on".to_owned(),
        "false" => "off".to_owned(),
        other => other.to_owned(),
    }
}

/// A grant in the form that flags take it.
pub(in crate::cli) fn grant(grant: &Value) -> String {
    let operations = grant.get("operations").and_then(Value::as_array);
    let operations: Vec<_> = operations.into_iter().flatten().map(plain).collect();
    format!("{}:{}", grant.get("dataset").map(plain).unwrap_or_default(), operations.join(","))
}
