//! The trail: who changed what, from what to what, when.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use super::query::Query;
use super::schema;
use crate::store::StoreError;
use crate::store::trail::{Actor, Asked, Change, Entry, EntryId, Traced};

/// The largest page.
const MAX_PAGE: usize = 500;
/// The page when nobody says how large.
const DEFAULT_PAGE: usize = 100;
/// How many entries are read at once in search of one actor's.
const STEP: usize = 1000;
/// How often, for one page.
const STEPS: usize = 10;

/// Who did something.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Actor)]
struct ActorView {
    /// The holder of a secret token, a member, or Tollgate itself.
    #[schema(schema_with = schema::actor_type)]
    r#type: &'static str,
    /// The token's or the member's id.
    #[schema(example = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The member's name at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl From<&Actor> for ActorView {
    fn from(actor: &Actor) -> Self {
        let (r#type, id, name) = match actor {
            Actor::Token(id) => ("token", Some(id.to_string()), None),
            Actor::Member { id, name } => ("member", Some(id.to_string()), Some(name.clone())),
            Actor::Tollgate => ("tollgate", None, None),
        };
        Self { r#type, id, name }
    }
}

/// What was changed of one field.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
pub(super) struct ChangeView {
    /// The field, as a JSON pointer into the resource. `/grace` is a rotation's: how long the old value works.
    #[schema(example = "/credit_limit/core")]
    field: String,
    /// What it was; `null`: nothing.
    #[schema(example = json!({"credits": 1000, "period": "month"}))]
    from: Value,
    /// What it is since; `null`: nothing.
    to: Value,
}

impl From<Change> for ChangeView {
    fn from(Change { field, from, to }: Change) -> Self {
        Self { field, from, to }
    }
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Entry)]
struct EntryView {
    /// Its place: later entries come behind, in order of its two numbers.
    #[schema(example = "1795500000123-0")]
    id: String,
    /// When, by the store's clock.
    #[schema(format = DateTime)]
    at: String,
    /// Who did it.
    actor: ActorView,
    /// From which address it was asked.
    #[schema(required)]
    client: Option<String>,
    /// What was done.
    #[schema(example = "token.edit")]
    action: String,
    /// To what: a token's id, a member's id, an account's name.
    #[schema(example = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    target: String,
    /// What that changed; of a new token: its type, and all that is not as by default. No secret is ever among it.
    changes: Vec<ChangeView>,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let changes = entry.changes.into_iter();
        Self {
            id: entry.id.to_string(),
            at: entry.at.to_string(),
            actor: ActorView::from(&entry.actor),
            client: entry.client.map(|client| client.to_string()),
            action: entry.action,
            target: entry.target,
            changes: changes.map(ChangeView::from).collect(),
        }
    }
}

/// An entry that cannot be read: a newer Tollgate wrote it, or it is damaged.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnreadableEntry)]
struct UnreadableView {
    /// Its place.
    id: String,
    /// Always `unreadable`.
    action: &'static str,
}

/// An entry of the trail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrailEntry)]
#[serde(untagged)]
enum TracedView {
    /// What was done.
    Entry(Box<EntryView>),
    /// An entry that cannot be read.
    Unreadable(UnreadableView),
}

impl From<Traced> for TracedView {
    fn from(traced: Traced) -> Self {
        match traced {
            Traced::Entry(entry) => Self::Entry(Box::new(EntryView::from(*entry))),
            Traced::Unreadable { id } => {
                Self::Unreadable(UnreadableView { id: id.to_string(), action: "unreadable" })
            }
        }
    }
}

/// A page of the trail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrailPage)]
pub(super) struct PageView {
    /// Newest first.
    entries: Vec<TracedView>,
    /// What to give as `cursor` for the next page; `null`: this is the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Who changed what, from what to what, when: newest first, in pages. Entries are written in the same step as what they
/// tell of, and are never changed.
///
/// Creating, editing, revoking and rotating tokens, signing secrets, revealed values and edits of the account are noted; so
/// are invitations, edits and removals of members, and who signed in to the console, out of it, or in vain.
/// Each version of a token or of the account has its entry: an edit that sets what was set already has one without changes.
/// A call that was refused, or came too late, has none.
#[utoipa::path(get, path = "/v1/audit", operation_id = "list_trail", tag = "audit",
    params(
        ("limit" = Option<usize>, Query, description = "Entries in a page, 1 to 500; 100 by default.",
         minimum = 1, maximum = 500),
        ("cursor" = Option<String>, Query, description = "The page's `next_cursor` of before."),
        ("target" = Option<String>, Query, description = "Only what was done to this: a token's id, a member's id, \
                                                          the account's name."),
        ("actor" = Option<String>, Query, description = "Only what this one did: a token's id, a member's id or name, \
                                                         `tollgate`. A page then goes through 10,000 entries at most, \
                                                         so it may hold few or none and yet have a `next_cursor`."),
    ),
    responses(
        (status = 200, description = "A page.", body = PageView),
        (status = 400, description = "A parameter cannot be taken.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn list(_: Caller, State(shared): State<Shared>, query: Query) -> Result<Response, Problem> {
    let mut errors = query.allow(&["limit", "cursor", "target", "actor"]);
    let in_range = |text: &str| text.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
    let limit = query.read("limit", "a whole number from 1 to 500", in_range, &mut errors);
    let before = query.read("cursor", "the `next_cursor` of an earlier page", EntryId::parse, &mut errors);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let target = query.read("target", "a token's id, a member's id or the account's name", some, &mut errors);
    let actor = query.read("actor", "a token's id, a member's id or name, or tollgate", some, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::parameters(errors));
    }
    let asked = Asked { before, limit: limit.unwrap_or(DEFAULT_PAGE), target };
    let (entries, next) = gather(&shared, asked, actor.as_deref()).await?;
    let page = PageView {
        entries: entries.into_iter().map(TracedView::from).collect(),
        next_cursor: next.map(|next| next.to_string()),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(page)).into_response())
}

/// The entries of a page, and behind which one there may be more.
async fn gather(
    shared: &Shared,
    mut asked: Asked,
    actor: Option<&str>,
) -> Result<(Vec<Traced>, Option<EntryId>), StoreError> {
    let limit = asked.limit;
    // One more than the page holds tells whether there is another page.
    asked.limit = if actor.is_some() { STEP } else { limit + 1 };
    let mut found = Vec::new();
    for _ in 0..STEPS {
        let page = shared.admin.store.trail(&shared.admin.account, &asked).await?;
        let is_last = page.len() < asked.limit;
        for traced in page {
            let id = traced.id();
            if actor.is_none_or(|actor| is_by(&traced, actor)) {
                if found.len() == limit {
                    return Ok((found, asked.before));
                }
                found.push(traced);
            }
            asked.before = Some(id);
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, asked.before))
}

fn is_by(traced: &Traced, actor: &str) -> bool {
    let Traced::Entry(entry) = traced else { return false };
    entry.actor.id() == actor || matches!(&entry.actor, Actor::Member { name, .. } if name == actor)
}
