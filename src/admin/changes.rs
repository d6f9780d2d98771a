//! What is written down of a write: who asked, and which fields went from what to what, as the API shows them.
//!
//! Owns the words of the trail for tokens; how an account's fields are told, the store's trail knows, since the gate tells
//! of them too.

use std::fmt::Display;

use serde_json::Value;

use super::auth::Caller;
use super::tokens::{SETTABLE, TokenView};
use crate::policy::{Policy, Pool};
use crate::store::trail::{Change, Note};

impl Caller {
    /// What is to be written down of something that this caller does.
    pub(super) fn note(&self, action: &'static str, target: &impl Display, changes: Vec<Change>) -> Note {
        Note { actor: self.actor.clone(), client: self.client, action, target: target.to_string(), changes }
    }
}

/// What an edit changes of a token.
pub(super) fn of_edit(before: &Policy, after: &Policy) -> Vec<Change> {
    let (before, after) = (shown(before), shown(after));
    let change = |field: String| {
        let (from, to) = (at(&before, &field), at(&after, &field));
        (from != to).then_some(Change { field, from, to })
    };
    pointers().filter_map(change).collect()
}

/// What a new token has: its type, and all that is not as in a `blank` one.
pub(super) fn of_creation(blank: &Policy, made: &Policy) -> Vec<Change> {
    let kind = Change { field: "/type".to_owned(), from: Value::Null, to: Value::from(made.kind.as_str()) };
    let others = of_edit(blank, made).into_iter().map(|change| Change { from: Value::Null, ..change });
    std::iter::once(kind).chain(others).collect()
}

/// What a new value changes: nothing that may be told but how long the old one works (`grace`, as it was given), and that
/// nobody has seen the new one in a browser.
pub(super) fn of_rotation(before: &Policy, grace: &str) -> Vec<Change> {
    let seen = before.seen_in_browser_at.map(|at| Change {
        field: "/seen_in_browser_at".to_owned(),
        from: Value::from(at.to_string()),
        to: Value::Null,
    });
    let grace = Change { field: "/grace".to_owned(), from: Value::Null, to: Value::from(grace) };
    std::iter::once(grace).chain(seen).collect()
}

/// The token in the API's own form, without its value.
fn shown(policy: &Policy) -> Value {
    serde_json::to_value(TokenView::new(policy, None)).unwrap_or_default()
}

fn at(view: &Value, pointer: &str) -> Value {
    view.pointer(pointer).cloned().unwrap_or_default()
}

/// The fields, as JSON pointers; limits by pool.
fn pointers() -> impl Iterator<Item = String> {
    SETTABLE.into_iter().flat_map(|name| match name {
        "credit_limit" => Pool::ALL.map(|pool| format!("/credit_limit/{}", pool.as_str())).to_vec(),
        name => vec![format!("/{name}")],
    })
}
