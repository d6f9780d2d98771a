//! Tokens: create, read, edit, revoke. The list of them, and the search, are in [`list`], their values (rotate, reveal) in
//! [`values`], what is done to many of them at once in [`import`] and [`many`].

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::auth::Caller;
use super::body::Body;
use super::changes;
use super::precondition::{ATTEMPTS, IfMatch, etag, too_busy};
use super::problem::{Problem, ProblemBody};
use super::query::{Query, WAIT};
use super::receipt;
use super::schema::TokenFields;
use super::{Shared, created};
use crate::policy::{Policy, Status, TokenId};
use crate::store::{StoredToken, Written};

mod fields;
mod fresh;
pub(super) mod import;
mod last_secret;
pub(super) mod list;
pub(super) mod many;
pub(super) mod values;
mod view;

pub(super) use fields::SETTABLE;
pub(super) use fresh::{Fresh, random};
use view::public_value;
pub(super) use view::{GrantView, TokenView};

/// The token's id in the path. What is no id is nobody's.
#[derive(Debug)]
pub(super) struct Id(pub(super) TokenId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map_err(|_| Problem::no_token())?;
        TokenId::parse(&text.0).map(Self).ok_or_else(Problem::no_token)
    }
}

/// Makes a token. Every field has a default; the answer shows the value, for a secret token only this once.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens", request_body = TokenFields,
    params(("wait" = Option<String>, Query, description = WAIT)),
    responses(
        (status = 201, description = "The new token.", body = TokenView,
         headers(("Location" = String, description = "Where it is."),
                 ("ETag" = String, description = "Its version in quotes."))),
        (status = 422, description = "Some fields cannot be taken; all of them are named.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(shared): State<Shared>,
    query: Query,
    Body(body): Body,
) -> Result<Response, Problem> {
    let wait = query.allow_wait()?;
    let now = (shared.admin.now)();
    let kind = fields::read_kind(&body);
    // A time in whole seconds reads better, and the id keeps the milliseconds.
    let created_at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let blank = Policy::new(shared.fresh.id(now)?, shared.admin.account.clone(), kind, created_at);
    let policy = fields::merge(&body, &blank, now)?;
    let value = fresh::value(kind)?;
    let note = caller.note("token.create", &policy.id, changes::of_creation(&blank, &policy));
    shared.admin.store.create_token(&policy, &value, &note).await?;
    let location = format!("/v1/tokens/{}", policy.id);
    let view = TokenView::new(&policy, Some(value.expose().to_owned()));
    Ok(created(show_changed(&shared, wait, policy.version, view).await, &location))
}

/// One token, with what it has used.
#[utoipa::path(get, path = "/v1/tokens/{id}", operation_id = "read_token", tag = "tokens",
    params(("id" = String, Path, description = "The token's id.")),
    responses(
        (status = 200, description = "The token.", body = TokenView,
         headers(("ETag" = String, description = "Its version in quotes."))),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn read(
    _: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_none()?;
    let stored = find(&shared, &id).await?;
    let counted = shared.admin.store.token_usage(&shared.admin.account, &id).await?;
    Ok(show(stored.policy.version, TokenView::stored(&stored).with_usage(&counted, &stored.policy)))
}

/// Edits a token by a merge patch: absent keeps, `null` sets the default.
#[utoipa::path(patch, path = "/v1/tokens/{id}", operation_id = "edit_token", tag = "tokens",
    request_body(content((TokenFields = "application/json"), (TokenFields = "application/merge-patch+json"))),
    params(
        ("id" = String, Path, description = "The token's id."),
        ("wait" = Option<String>, Query, description = WAIT),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The token as it is now.", body = TokenView,
         headers(("ETag" = String, description = "Its version in quotes."))),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "The token is revoked, or is the account's last usable secret token.",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "Some fields cannot be taken; all of them are named.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn edit(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Problem> {
    let wait = query.allow_wait()?;
    let now = (shared.admin.now)();
    let edited = |policy: &Policy| fields::merge(&body, policy, now);
    let act = Act { caller: &caller, action: "token.edit" };
    let (version, view) = change(&shared, act, &id, &if_match, edited).await?;
    Ok(show_changed(&shared, wait, version, view).await)
}

/// Revokes a token, for good. Its record stays, so that its usage stays known. Revoked again, nothing happens.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "revoke_token", tag = "tokens",
    params(
        ("id" = String, Path, description = "The token's id."),
        ("wait" = Option<String>, Query, description = WAIT),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The revoked token.", body = TokenView),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "It is the account's last usable secret token.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let wait = query.allow_wait()?;
    let revoked = |policy: &Policy| Ok(Policy { status: Status::Revoked, ..policy.clone() });
    let act = Act { caller: &caller, action: "token.revoke" };
    let (version, view) = change(&shared, act, &id, &if_match, revoked).await?;
    Ok(show_changed(&shared, wait, version, view).await)
}

/// Who does what.
#[derive(Clone, Copy)]
struct Act<'a> {
    caller: &'a Caller,
    action: &'static str,
}

/// Writes what `edit` makes of a token. A write that is too late is tried again on what is stored then, if the
/// client did not name the version it builds on. The version since, and the token.
async fn change(
    shared: &Shared,
    act: Act<'_>,
    id: &TokenId,
    if_match: &IfMatch,
    edit: impl Fn(&Policy) -> Result<Policy, Problem>,
) -> Result<(u64, TokenView), Problem> {
    for _ in 0..ATTEMPTS {
        let stored = find(shared, id).await?;
        if_match.check(stored.policy.version)?;
        let mut policy = edit(&stored.policy)?;
        if policy.status == Status::Revoked && policy == stored.policy {
            return Ok((policy.version, TokenView::stored(&stored)));
        }
        // Held until the write is done, so that two secret tokens cannot vouch for each other and both go.
        let _retiring = last_secret::keep_one(shared, &stored.policy, &policy).await?;
        let note = act.caller.note(act.action, id, changes::of_edit(&stored.policy, &policy));
        match shared.admin.store.put_policy(&policy, &note).await? {
            Written::Done { version } => {
                policy.version = version;
                return Ok((version, TokenView::new(&policy, public_value(&stored.value))));
            }
            Written::Conflict { version } => if_match.retry(version)?,
            Written::Missing => return Err(Problem::no_token()),
        }
    }
    Err(too_busy())
}

pub(super) async fn find(shared: &Shared, id: &TokenId) -> Result<StoredToken, Problem> {
    shared.admin.store.get_token(&shared.admin.account, id).await?.ok_or_else(Problem::no_token)
}

/// Shows a token that was just written, with the receipt if one was asked for.
async fn show_changed(shared: &Shared, wait: Option<Duration>, version: u64, view: TokenView) -> Response {
    show(version, view.with_receipt(receipt::collect(shared, wait).await))
}

fn show(version: u64, view: TokenView) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], [etag(version)], Json(view)).into_response()
}
