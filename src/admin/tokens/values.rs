//! A token's value: a new one (rotate), and the sealed one shown (reveal); a secret that signs for it. The answers here hold secrets, so nobody
//! may keep them: `Cache-Control: no-store`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::view::{RevealedView, SigningSecretView};
use super::{Id, TokenView, etag, find, fresh, show_changed};
use crate::admin::Shared;
use crate::admin::auth::Caller;
use crate::admin::body::Body;
use crate::admin::changes;
use crate::admin::fields::{Field, Problems};
use crate::admin::precondition::{ATTEMPTS, IfMatch, too_busy};
use crate::admin::problem::{Problem, ProblemBody};
use crate::admin::query::{Query, WAIT};
use crate::admin::receipt;
use crate::admin::schema::RotateFields;
use crate::config::units::parse_duration;
use crate::policy::{Policy, Status, TokenId};
use crate::store::{StoredToken, Written};

/// The longest grace of a replaced value.
const MAX_GRACE: Duration = Duration::from_hours(366 * 24);

/// Gives a token a new value under the same id and policy. The old value works for the grace time.
#[utoipa::path(post, path = "/v1/tokens/{id}/rotate", operation_id = "rotate_token", tag = "tokens", request_body = Option<RotateFields>,
    params(
        ("id" = String, Path, description = "The token's id."),
        ("wait" = Option<String>, Query, description = WAIT),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The token with its new value, for a secret token only this once.",
         body = TokenView, headers(("ETag" = String, description = "Its version in quotes."))),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "The token is revoked.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "The grace time cannot be taken.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(in crate::admin) async fn rotate(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Problem> {
    let wait = query.allow_wait()?;
    let grace = read_grace(&body)?;
    let as_given = body.get("grace").and_then(Value::as_str).unwrap_or("0s");
    for _ in 0..ATTEMPTS {
        let detail = "A revoked token cannot get a new value. Create a new token.";
        let stored = find_unrevoked(&shared, &id, &if_match, detail).await?;
        let version = stored.policy.version;
        let value = fresh::value(stored.policy.kind)?;
        let note = caller.note("token.rotate", &id, changes::of_rotation(&stored.policy, as_given));
        let account = &shared.admin.account;
        match shared.admin.store.rotate_token(account, &id, version, &value, grace, &note).await? {
            Written::Done { version } => {
                // Only the old value was seen in a browser; the store forgets it with the rotation.
                let policy = Policy { version, seen_in_browser_at: None, ..stored.policy };
                let view = TokenView::new(&policy, Some(value.expose().to_owned()));
                return Ok(show_changed(&shared, wait, version, view).await);
            }
            Written::Conflict { version } => if_match.retry(version)?,
            Written::Missing => return Err(Problem::no_token()),
        }
    }
    Err(too_busy())
}

/// Makes a signing secret for a token, in the place of the one it may have, and shows it: only this once. Requests of the
/// token can be signed with it, as with the account's secret tokens.
#[utoipa::path(post, path = "/v1/tokens/{id}/signing-secret", operation_id = "make_signing_secret", tag = "tokens",
    params(
        ("id" = String, Path, description = "The token's id."),
        ("wait" = Option<String>, Query, description = WAIT),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The signing secret.", body = SigningSecretView,
         headers(("ETag" = String, description = "The token's version in quotes."))),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "The token is revoked, or there is no master key to seal the secret with.",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(in crate::admin) async fn make_signing_secret(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Problem> {
    let wait = query.allow_wait()?;
    refuse_fields(&body)?;
    for _ in 0..ATTEMPTS {
        let detail = "A revoked token cannot get a signing secret. Create a new token.";
        let stored = find_unrevoked(&shared, &id, &if_match, detail).await?;
        let secret = fresh::signing_secret()?;
        let (account, version) = (&shared.admin.account, stored.policy.version);
        let note = caller.note("token.signing_secret", &id, Vec::new());
        match shared.admin.store.put_signing_secret(account, &id, version, &secret, &note).await? {
            Written::Done { version } => {
                tracing::info!(by = %caller.actor, token_id = %id, "a signing secret was made");
                let view = SigningSecretView {
                    id: id.to_string(),
                    signing_secret: secret.expose().to_owned(),
                    version,
                    receipt: receipt::collect(&shared, wait).await,
                };
                let no_store = [(header::CACHE_CONTROL, "no-store")];
                return Ok((no_store, [etag(version)], Json(view)).into_response());
            }
            Written::Conflict { version } => if_match.retry(version)?,
            Written::Missing => return Err(Problem::no_token()),
        }
    }
    Err(too_busy())
}

/// The token as it is stored, in the version that the client builds on; `detail` is for one that is revoked.
async fn find_unrevoked(
    shared: &Shared,
    id: &TokenId,
    if_match: &IfMatch,
    detail: &str,
) -> Result<StoredToken, Problem> {
    let stored = find(shared, id).await?;
    if_match.check(stored.policy.version)?;
    if stored.policy.status == Status::Revoked {
        return Err(Problem::new(StatusCode::CONFLICT, "token_revoked", detail));
    }
    Ok(stored)
}

/// Refuses a body with any field.
fn refuse_fields(body: &Value) -> Result<(), Problem> {
    let mut problems = Problems::default();
    Field::root(body).object(&[], &mut problems);
    if problems.count() > 0 {
        return Err(Problem::fields(problems.into_errors()));
    }
    Ok(())
}

fn read_grace(body: &Value) -> Result<Duration, Problem> {
    let mut problems = Problems::default();
    let object = Field::root(body).object(&["grace"], &mut problems);
    let field = object.and_then(|object| object.field("grace")).and_then(Field::unless_null);
    let expected = "a duration with its unit, like 0s, 30m, 24h or 90d, at most 366d";
    let read = |text: &str| parse_duration(text).ok().filter(|grace| *grace <= MAX_GRACE);
    let grace = field.map(|field| field.choice(expected, read, &mut problems));
    if problems.count() > 0 {
        return Err(Problem::fields(problems.into_errors()));
    }
    Ok(grace.flatten().unwrap_or_default())
}

/// Shows a token's value.
#[utoipa::path(post, path = "/v1/tokens/{id}/reveal", operation_id = "reveal_token", tag = "tokens",
    params(("id" = String, Path, description = "The token's id.")),
    responses(
        (status = 200, description = "The value.", body = RevealedView),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "The value cannot be opened, and why.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(in crate::admin) async fn reveal(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    Body(body): Body,
) -> Result<Response, Problem> {
    query.allow_none()?;
    refuse_fields(&body)?;
    let value = shared.admin.store.reveal_token(&shared.admin.account, &id).await?;
    let value = value.ok_or_else(Problem::no_token)?;
    // Before it is shown: what cannot be noted is not revealed.
    let note = caller.note("token.reveal", &id, Vec::new());
    shared.admin.store.note(&shared.admin.account, &note).await?;
    tracing::info!(by = %caller.actor, token_id = %id, "a token's value was revealed");
    let view = RevealedView { token: value.expose().to_owned() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}
