//! The account: its budget, and what its tokens have used together.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::body::Body;
use super::fields::{Field, Problems};
use super::limits::{LimitsView, UsageView, merge_limits};
use super::precondition::{ATTEMPTS, IfMatch, etag, too_busy};
use super::problem::{Problem, ProblemBody};
use super::query::{Query, WAIT};
use super::receipt::{self, ReceiptView};
use super::schema::AccountFields;
use crate::policy::record::Account;
use crate::store::trail::account_changes;
use crate::store::{Counted, Written};

/// The account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub(super) struct AccountView {
    /// Its name.
    id: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Credits all tokens may use together, for each pool; `null`: any number.
    budget: LimitsView,
    /// Goes up by one with each edit; the `ETag` in quotes.
    version: u64,
    /// What all tokens have used together.
    usage: UsageView,
    /// Whether the change is in force everywhere; only in answers to `?wait=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptView>,
}

/// The account, with what its tokens have used.
#[utoipa::path(get, path = "/v1/account", operation_id = "read_account", tag = "account", responses(
    (status = 200, description = "The account.", body = AccountView,
     headers(("ETag" = String, description = "Its version in quotes."))),
))]
pub(super) async fn read(_: Caller, State(shared): State<Shared>, query: Query) -> Result<Response, Problem> {
    query.allow_none()?;
    let account = find(&shared).await?;
    Ok(show(&account, &used(&shared).await?, None))
}

/// Edits the account by a merge patch: absent keeps, `null` takes a budget away.
#[utoipa::path(patch, path = "/v1/account", operation_id = "edit_account", tag = "account",
    request_body(content((AccountFields = "application/json"), (AccountFields = "application/merge-patch+json"))),
    params(
        ("wait" = Option<String>, Query, description = WAIT),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The account as it is now.", body = AccountView,
         headers(("ETag" = String, description = "Its version in quotes."))),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "Some fields cannot be taken; all of them are named.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn edit(
    caller: Caller,
    State(shared): State<Shared>,
    query: Query,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Problem> {
    let wait = query.allow_wait()?;
    for _ in 0..ATTEMPTS {
        let stored = find(&shared).await?;
        if_match.check(stored.version)?;
        let mut account = merge(&body, &stored)?;
        // Asked before the write: what is written must not be answered with an error.
        let used = used(&shared).await?;
        let note = caller.note("account.edit", &account.id, account_changes(&stored, &account));
        match shared.admin.store.put_account(&account, &note).await? {
            Written::Done { version } => {
                account.version = version;
                return Ok(show(&account, &used, receipt::collect(&shared, wait).await));
            }
            Written::Conflict { version } => if_match.retry(version)?,
            Written::Missing => return Err(no_account()),
        }
    }
    Err(too_busy())
}

fn merge(body: &Value, stored: &Account) -> Result<Account, Problem> {
    let mut problems = Problems::default();
    let mut account = stored.clone();
    if let Some(object) = Field::root(body).object(&["budget"], &mut problems) {
        merge_limits(object.field("budget"), &mut account.budget, &mut problems);
    }
    if problems.count() > 0 { Err(Problem::fields(problems.into_errors())) } else { Ok(account) }
}

async fn find(shared: &Shared) -> Result<Account, Problem> {
    shared.admin.store.get_account(&shared.admin.account).await?.ok_or_else(no_account)
}

fn no_account() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "account_not_found", "The store does not know this account.")
}

async fn used(shared: &Shared) -> Result<Counted, Problem> {
    Ok(shared.admin.store.account_usage(&shared.admin.account).await?)
}

fn show(account: &Account, used: &Counted, receipt: Option<ReceiptView>) -> Response {
    let view = AccountView {
        id: account.id.to_string(),
        created_at: account.created_at.to_string(),
        budget: LimitsView::from(&account.budget),
        version: account.version,
        usage: UsageView::new(used, &account.budget),
        receipt,
    };
    ([(header::CACHE_CONTROL, "no-store")], [etag(account.version)], Json(view)).into_response()
}
