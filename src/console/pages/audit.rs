//! **Audit**: who changed what, from what to what, when; newest first.

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use crate::console::Console;
use crate::console::form::Form;
use crate::console::layout::{Failure, Frame, page};
use crate::console::session::Visitor;
use crate::console::words;

#[derive(Deserialize)]
struct Trail {
    entries: Vec<Entry>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    at: String,
    #[serde(default)]
    actor: Actor,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    changes: Vec<Change>,
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Change {
    field: String,
    from: Value,
    to: Value,
}

impl Entry {
    fn is_unreadable(&self) -> bool {
        self.action == "unreadable"
    }

    fn who(&self) -> String {
        let Actor { r#type, id, name } = &self.actor;
        name.clone().or_else(|| id.clone()).unwrap_or_else(|| r#type.clone())
    }

    /// What was done, in words.
    fn act(&self) -> String {
        let known = [
            ("token.create", "created a token"),
            ("token.edit", "edited a token"),
            ("token.revoke", "revoked a token"),
            ("token.rotate", "rotated a token"),
            ("token.reveal", "revealed a secret token"),
            ("token.signing_secret", "made a signing secret"),
            ("account.edit", "edited the account"),
            ("member.invite", "invited a member"),
            ("member.edit", "edited a member"),
            ("member.remove", "removed a member"),
            ("member.accept", "took up an invitation"),
            ("member.passphrase", "changed a passphrase"),
            ("session.begin", "signed in"),
            ("session.end", "signed out"),
            ("session.refused", "was refused at the door"),
        ];
        let found = known.iter().find(|(name, _)| *name == self.action);
        found.map_or_else(|| self.action.clone(), |(_, words)| (*words).to_owned())
    }

    /// The page of what it is about.
    fn link(&self) -> Option<String> {
        self.target.starts_with("tok_").then(|| format!("/console/tokens/{}", encoded(&self.target)))
    }
}

impl Change {
    fn name(&self) -> String {
        self.field.trim_start_matches('/').replace('/', " ").replace('_', " ")
    }

    fn before(&self) -> String {
        said(&self.from)
    }

    fn after(&self) -> String {
        said(&self.to)
    }
}

/// A value of the API, as people read it.
fn said(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::String(text) if text.is_empty() => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), words::grouped),
        Value::Array(values) if values.is_empty() => "nothing".to_owned(),
        Value::Array(values) => values.iter().map(said).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            if let (Some(credits), Some(period)) = (fields.get("credits"), fields.get("period")) {
                return format!("{} credits a {}", said(credits), said(period)).replace(" a none", " in all");
            }
            if let (Some(dataset), Some(operations)) = (fields.get("dataset"), fields.get("operations")) {
                return format!("{} - {}", said(dataset), said(operations));
            }
            let fields =
                fields.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), said(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string().replace("%5F", "_").replace("%2D", "-")
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    entries: Vec<Entry>,
    target: String,
    actor: String,
    later: Option<String>,
    is_first: bool,
}

/// `GET /console/audit`
pub(crate) async fn list(
    visitor: Visitor,
    State(console): State<Console>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let (target, actor, cursor) = (query.text("target"), query.text("actor"), query.text("cursor"));
    let filters: String = [("target", target), ("actor", actor)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("&{name}={}", encoded(value)))
        .collect();
    let mut path = format!("/v1/audit?limit=50{filters}");
    if !cursor.is_empty() {
        path.push_str(&format!("&cursor={}", encoded(cursor)));
    }
    let trail = console.api.get::<Trail>(&visitor.caller, &path).await;
    let trail = trail.map_err(|refusal| Failure::of(&visitor, refusal))?;
    let later =
        trail.next_cursor.map(|cursor| format!("/console/audit?cursor={}{filters}", encoded(&cursor)));
    let template = AuditPage {
        frame: visitor.frame("Audit", "audit"),
        entries: trail.entries,
        target: target.to_owned(),
        actor: actor.to_owned(),
        later,
        is_first: cursor.is_empty(),
    };
    Ok(page(StatusCode::OK, &template))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_said_as_people_read_them() {
        let table = [
            (json!(null), "nothing"),
            (json!(""), "nothing"),
            (json!([]), "nothing"),
            (json!(true), "on"),
            (json!(100_000), "100,000"),
            (json!(["a.test", "b.test"]), "a.test, b.test"),
            (json!({"credits": 1000, "period": "month"}), "1,000 credits a month"),
            (json!({"credits": 5, "period": "none"}), "5 credits in all"),
            (json!([{"dataset": "MY/CARS", "operations": ["read", "write"]}]), "MY/CARS - read, write"),
            (json!({"requests_per_second": 5, "burst": 9}), "requests per second 5, burst 9"),
        ];
        for (value, text) in table {
            assert_eq!(said(&value), text, "{value}");
        }
    }
}
