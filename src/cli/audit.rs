//! `tollgate audit`: who changed what, from what to what, when.

use std::io::IsTerminal as _;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::token::{grant, limit, plain};
use super::{Global, Output, table};

/// The largest page of the API.
const MAX_PAGE: usize = 500;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// How many entries, newest first
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one)]
    limit: usize,
    /// Only what was done to this: a token's id, a member's id, or the account's name
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// Only what this one did: a token's id, a member's id or name, or tollgate
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
}

fn at_least_one(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|number| *number > 0).ok_or("not a whole number from 1 on")
}

/// Asks page by page, and shows what came.
pub(super) fn run(global: &Global, args: &AuditArgs) -> anyhow::Result<Output> {
    let client = Client::new(global)?;
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let left = args.limit - entries.len();
        let mut query = vec![("limit", left.min(MAX_PAGE).to_string())];
        let filters = [("cursor", &cursor), ("target", &args.target), ("actor", &args.actor)];
        query.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        let mut page = client.call("GET", "/v1/audit", &Call { query, ..Call::default() })?;
        if let Some(Value::Array(more)) = page.get_mut("entries").map(Value::take) {
            entries.extend(more.into_iter().take(left));
        }
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || entries.len() >= args.limit {
            break;
        }
    }
    if global.json {
        return Output::json(&json!({"entries": entries, "next_cursor": cursor}));
    }
    let mut output = Output::text(show(&entries));
    if cursor.is_some() {
        output.notes.push("note: there are older entries; --limit shows more".to_owned());
    }
    Ok(output)
}

fn show(entries: &[Value]) -> String {
    if entries.is_empty() {
        return "Nothing was noted.\n".to_owned();
    }
    // On a terminal each change has its line; elsewhere each entry has.
    let between = if std::io::stdout().is_terminal() { "\n" } else { "; " };
    let lines = entries.iter().map(|entry| {
        let text = |name: &str| entry.get(name).map(plain).unwrap_or_default();
        let changes = entry.get("changes").and_then(Value::as_array).into_iter().flatten();
        let changes: Vec<_> = changes.map(|change| show_change(change, &text("action"))).collect();
        [time(&text("at")), who(entry.get("actor")), text("action"), text("target"), changes.join(between)]
    });
    table::rows(["TIME", "WHO", "ACTION", "TARGET", "CHANGES"], lines)
}

/// Whole seconds are enough to read; `--json` has the rest.
fn time(at: &str) -> String {
    let seconds = at.parse::<Timestamp>().ok().and_then(|at| Timestamp::from_second(at.as_second()).ok());
    seconds.map_or_else(|| at.to_owned(), |at| at.to_string())
}

fn who(actor: Option<&Value>) -> String {
    let text = |name: &str| actor.and_then(|actor| actor.get(name)).map(plain);
    text("name").or_else(|| text("id")).or_else(|| text("type")).unwrap_or_default()
}

/// A change as `field: from → to`; of what is new only what it is.
fn show_change(change: &Value, action: &str) -> String {
    let part = |name: &str| change.get(name).unwrap_or(&Value::Null);
    let field = plain(part("field")).trim_start_matches('/').replace('/', ".");
    let (from, to) = (part("from"), part("to"));
    let is_new = from.is_null() && [".create", ".rotate", ".invite"].iter().any(|end| action.ends_with(end));
    if is_new {
        return format!("{field}: {}", value(to));
    }
    format!("{field}: {} → {}", value(from), value(to))
}

/// A value as people read it, in the form that flags take it where there is one.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(self::value).collect::<Vec<_>>().join(" "),
        Value::Object(fields) if fields.contains_key("credits") => limit(Some(value)),
        Value::Object(fields) if fields.contains_key("dataset") => grant(value),
        Value::Object(fields) => match (fields.get("requests_per_second"), fields.get("burst")) {
            (Some(rate), Some(burst)) => format!("{rate}/s, burst {burst}"),
            _ => value.to_string(),
        },
        other => plain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_read_as_from_and_to() {
        let limit = json!({"credits": 100, "period": "day"});
        let rate = json!({"requests_per_second": 5, "burst": 9});
        let grants = json!([{"dataset": "MY/CARS", "operations": ["read", "write"]}]);
        let table = [
            ("token.edit", "/nickname", json!("a b"), json!(""), "nickname: a b → \"\""),
            ("token.edit", "/core_access", json!(true), json!(false), "core_access: true → false"),
            ("token.edit", "/credit_limit/core", Value::Null, limit, "credit_limit.core: none → 100/day"),
            ("token.edit", "/rate_limit", rate, Value::Null, "rate_limit: 5/s, burst 9 → none"),
            ("token.edit", "/datasets", json!([]), grants, "datasets: none → MY/CARS:read,write"),
            (
                "token.edit",
                "/allowed_domains",
                json!(["a.org", "b.org"]),
                json!([]),
                "allowed_domains: a.org b.org → none",
            ),
            ("token.create", "/type", Value::Null, json!("secret"), "type: secret"),
            ("token.rotate", "/grace", Value::Null, json!("24h"), "grace: 24h"),
            ("token.rotate", "/x", json!("a"), Value::Null, "x: a → none"),
            ("token.edit", "/new", Value::Null, json!({"some": [1]}), "new: none → {\"some\":[1]}"),
        ];
        for (action, field, from, to, expected) in table {
            assert_eq!(show_change(&json!({"field": field, "from": from, "to": to}), action), expected);
        }
    }

    #[test]
    fn who_is_a_name_or_else_an_id() {
        assert_eq!(who(Some(&json!({"type": "member", "id": "mem_1", "name": "Ada"}))), "Ada");
        assert_eq!(who(Some(&json!({"type": "token", "id": "tok_1"}))), "tok_1");
        assert_eq!(who(Some(&json!({"type": "tollgate"}))), "tollgate");
        assert_eq!(who(None), "");
    }
}
