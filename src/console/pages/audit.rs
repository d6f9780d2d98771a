//! **Audit**: who changed what, from what to what, when. Newest first; nobody can change it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::{AUDIT, HOME, PEOPLE, USAGE};
use crate::console::Console;
use crate::console::form::Form;
use crate::console::layout::{Failure, Frame, page};
use crate::console::names::{self, Names};
use crate::console::session::Visitor;
use crate::policy::TokenId;
use crate::policy::token::contains_token;

mod change;

/// Entries on a page.
const ENTRIES: usize = 30;
/// The longest filter, in characters.
const MAX_FILTER: usize = 200;

#[derive(Deserialize)]
struct Page {
    entries: Vec<Entry>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    action: String,
    #[serde(default)]
    at: String,
    #[serde(default)]
    actor: Option<Actor>,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    target: String,
    #[serde(default)]
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Actor {
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

/// Somebody or something, and where more is told of it; nowhere: empty.
struct Linked {
    name: String,
    link: String,
    /// What to filter by.
    id: String,
}

/// One entry on the page.
struct Row {
    id: String,
    at: String,
    action: &'static str,
    /// What the API calls it.
    code: String,
    who: Linked,
    client: String,
    target: Linked,
    /// Where nothing but the target's changes is shown.
    only: String,
    /// Field, from, to; what it became is all there is to tell of something new.
    changes: Vec<(String, String, String)>,
    is_new: bool,
    /// Whether it was done to the one who did it.
    is_own: bool,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    errors: Vec<String>,
    rows: Vec<Row>,
    target: String,
    actor: String,
    older: Option<String>,
    is_first: bool,
    newest: String,
}

/// `GET /console/audit`
pub(crate) async fn show(
    visitor: Visitor,
    State(console): State<Console>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let mut template = AuditPage {
        frame: visitor.frame("Audit", "audit"),
        errors: Vec::new(),
        rows: Vec::new(),
        target: query.text("target").to_owned(),
        actor: query.text("actor").to_owned(),
        older: None,
        is_first: query.text("cursor").is_empty(),
        newest: String::new(),
    };
    if let Some(why) = refuse_filters(&template.target, &template.actor) {
        template.errors.push(why);
        (template.target, template.actor) = (String::new(), String::new());
        return Ok(page(StatusCode::BAD_REQUEST, &template));
    }
    template.newest = address(AUDIT, &template.target, &template.actor, None);
    let mut path = address("/v1/audit", &template.target, &template.actor, query.get("cursor"));
    let joiner = if path.contains('?') { '&' } else { '?' };
    let _ = write!(path, "{joiner}limit={ENTRIES}");
    let found = match console.api.get::<Page>(&visitor.caller, &path).await {
        Ok(found) => found,
        Err(refusal) if refusal.status() == StatusCode::BAD_REQUEST => {
            template.errors.extend(refusal.errors.into_iter().map(|error| error.detail));
            return Ok(page(StatusCode::BAD_REQUEST, &template));
        }
        Err(refusal) => return Err(Failure::of(&visitor, refusal)),
    };
    let next = found.next_cursor.as_deref();
    template.older = next.map(|cursor| address(AUDIT, &template.target, &template.actor, Some(cursor)));
    let names = names_in(&console, &visitor, &found.entries).await;
    template.rows = found.entries.into_iter().map(|entry| row(entry, &names)).collect();
    Ok(page(StatusCode::OK, &template))
}

/// A filter stands in an address, and a token never may.
fn refuse_filters(target: &str, actor: &str) -> Option<String> {
    for (name, text) in [("target", target), ("actor", actor)] {
        if contains_token(text.as_bytes()) {
            return Some(format!("“{name}” holds a token's value. Use the token's id, tok_…"));
        }
        if text.chars().count() > MAX_FILTER {
            return Some(format!("“{name}” is longer than {MAX_FILTER} characters."));
        }
    }
    None
}

fn address(path: &str, target: &str, actor: &str, cursor: Option<&str>) -> String {
    let mut address = path.to_owned();
    for (name, value) in [("target", target), ("actor", actor), ("cursor", cursor.unwrap_or_default())] {
        if !value.is_empty() {
            let joiner = if address.contains('?') { '&' } else { '?' };
            let _ = write!(address, "{joiner}{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
    }
    address
}

/// What tokens and members in these entries are called now.
async fn names_in(console: &Console, visitor: &Visitor, entries: &[Entry]) -> Names {
    let actors = entries.iter().filter_map(|entry| entry.actor.as_ref()?.id.as_deref());
    let targets = entries.iter().map(|entry| entry.target.as_str());
    let ids: BTreeSet<_> = actors.chain(targets).collect();
    let tokens: Vec<_> = ids.iter().copied().filter(|id| TokenId::parse(id).is_some()).collect();
    let mut names = names::of(console, visitor, &tokens).await;
    if ids.iter().any(|id| id.starts_with("mem_")) {
        names.extend(names::of_members(console, visitor).await);
    }
    names
}

fn row(entry: Entry, names: &Names) -> Row {
    let who = entry.actor.map_or_else(
        || Linked { name: String::new(), link: String::new(), id: String::new() },
        |actor| match (actor.r#type.as_str(), actor.id) {
            ("tollgate", _) => {
                Linked { name: "Tollgate".to_owned(), link: String::new(), id: "tollgate".to_owned() }
            }
            (_, Some(id)) => {
                Linked { name: actor.name.unwrap_or_else(|| called(&id, names)), link: link(&id), id }
            }
            (_, None) => {
                Linked { name: actor.name.unwrap_or_default(), link: String::new(), id: String::new() }
            }
        },
    );
    let is_new = matches!(entry.action.as_str(), "token.create" | "member.invite" | "session.begin");
    let tell = |change: Change| {
        let (from, to) = (change::tell(&change.from), change::tell(&change.to));
        (change::field(&change.field), from, to)
    };
    Row {
        is_own: who.id == entry.target,
        only: address(AUDIT, &entry.target, "", None),
        at: to_the_second(&entry.at),
        action: action(&entry.action),
        client: entry.client.unwrap_or_default(),
        target: Linked { name: called(&entry.target, names), link: link(&entry.target), id: entry.target },
        changes: entry.changes.into_iter().map(tell).collect(),
        is_new,
        who,
        id: entry.id,
        code: entry.action,
    }
}

fn to_the_second(at: &str) -> String {
    at.parse::<Timestamp>().map_or_else(|_| at.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn called(id: &str, names: &Names) -> String {
    names.get(id).cloned().unwrap_or_else(|| id.to_owned())
}

/// Where more is told of something.
fn link(id: &str) -> String {
    if TokenId::parse(id).is_some() {
        format!("{HOME}/{id}")
    } else if id.starts_with("mem_") {
        format!("{PEOPLE}#{id}")
    } else if id.is_empty() {
        String::new()
    } else {
        format!("{USAGE}#budget")
    }
}

/// What was done, in words; nothing, where there are none for it yet.
fn action(code: &str) -> &'static str {
    match code {
        "token.create" => "Created",
        "token.edit" | "member.edit" => "Changed",
        "token.revoke" => "Revoked",
        "token.rotate" => "Rotated",
        "token.reveal" => "Revealed",
        "token.signing_secret" => "Made a signing secret for",
        "account.edit" => "Changed account",
        "member.invite" => "Invited",
        "member.link" => "Made a new link for",
        "member.accept" => "Took up the invitation of",
        "member.passphrase" => "Changed the passphrase of",
        "member.remove" => "Removed",
        "session.begin" => "Signed in",
        "session.end" => "Signed out",
        "session.refused" => "Was not let in as",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[test]
    fn an_entry_says_who_did_what_to_what() {
        let names = Names::from([(ID.to_owned(), "Customer XYZ".to_owned())]);
        let table = [
            (json!({ "type": "tollgate" }), "Tollgate", "", "tollgate"),
            (
                json!({ "type": "token", "id": ID }),
                "Customer XYZ",
                "/console/tokens/tok_01ARZ3NDEKTSV4RRFFQ69G5FAV",
                ID,
            ),
            (
                json!({ "type": "member", "id": "mem_1", "name": "Ada" }),
                "Ada",
                "/console/people#mem_1",
                "mem_1",
            ),
        ];
        for (actor, name, link, id) in table {
            let entry = json!({
                "id": "1-0", "at": "2026-11-24T10:00:00Z", "actor": actor, "client": "127.0.0.1", "action": "token.edit",
                "target": ID, "changes": [{ "field": "/core_access", "from": true, "to": false }],
            });
            let row = row(serde_json::from_value(entry).unwrap(), &names);
            assert_eq!((row.who.name.as_str(), row.who.link.as_str(), row.who.id.as_str()), (name, link, id));
            assert_eq!(
                (row.action, row.target.name.as_str(), row.at.as_str()),
                ("Changed", "Customer XYZ", "2026-11-24 10:00:00")
            );
            assert_eq!(row.changes, [("core access".to_owned(), "on".to_owned(), "off".to_owned())]);
        }
        let unreadable =
            row(serde_json::from_value(json!({ "id": "1-0", "action": "unreadable" })).unwrap(), &names);
        assert_eq!(
            (unreadable.action, unreadable.code.as_str(), unreadable.target.link.as_str()),
            ("", "unreadable", "")
        );
        assert_eq!(link("default"), "/console/usage#budget");
    }

    #[test]
    fn a_filter_never_holds_a_token() {
        let secret = format!("sk_{}", "0".repeat(32));
        let why = refuse_filters(&secret, "").unwrap();
        assert!(why.contains("tok_") && !why.contains("000"), "{why}");
        assert!(refuse_filters("", &"x".repeat(201)).is_some());
        assert_eq!(refuse_filters(ID, "Ada Lovelace"), None);
        assert_eq!(
            address(AUDIT, ID, "A & B", Some("1-0")),
            format!("{AUDIT}?target={}&actor=A%20%26%20B&cursor=1%2D0", ID.replace('_', "%5F"))
        );
    }
}
