//! One edit of many tokens. Each token is written by itself, with its own version check and its own entry in the trail; what
//! came of each is told, so a caller whose call broke off sends it again.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::{Act, change, fields, find, last_secret};
use crate::admin::audit::ChangeView;
use crate::admin::auth::Caller;
use crate::admin::body::Body;
use crate::admin::fields::{Field, Problems};
use crate::admin::precondition::IfMatch;
use crate::admin::problem::{FieldError, Problem, ProblemBody};
use crate::admin::query::{Query, WAIT};
use crate::admin::receipt::ReceiptView;
use crate::admin::schema::EditManyFields;
use crate::admin::{Shared, changes, receipt};
use crate::policy::{Policy, TokenId};

/// The most tokens of one call.
const MOST: usize = 500;
/// How many of a call's tokens are written at once.
pub(super) const AT_ONCE: usize = 64;

/// What came of one token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenOutcome)]
pub(in crate::admin) struct OutcomeView {
    /// Which line of the body it stood in; only of an import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    /// The token's id; `null`: it has none, since its line cannot be read.
    #[schema(required)]
    pub(super) id: Option<String>,
    /// What was done: `created`, `updated`, `unchanged` (it is so already), `skipped` (it is there, and is to stay as it is),
    /// `refused` (see `errors`), `failed` (the store did not answer; send it again), `not_done` (others were refused).
    #[schema(example = "created")]
    pub(super) outcome: &'static str,
    /// The value, where it is public or was just made; only of an import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// Whether the value is a new one: it did not come with the line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) new_value: bool,
    /// The version that is stored now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    /// What is changed, or would be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<ChangeView>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<FieldError>,
}

impl OutcomeView {
    /// What came of a token, and nothing more to tell.
    pub(super) fn new(outcome: &'static str, id: Option<&TokenId>) -> Self {
        Self {
            line: None,
            id: id.map(TokenId::to_string),
            outcome,
            token: None,
            new_value: false,
            version: None,
            changes: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Refused, or the store did not answer.
    pub(super) fn of_problem(problem: Problem, id: Option<&TokenId>) -> Self {
        let store = problem.status() == StatusCode::SERVICE_UNAVAILABLE;
        let errors = problem.into_errors("");
        Self { errors, ..Self::new(if store { "failed" } else { "refused" }, id) }
    }
}

/// What came of all tokens of a call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenOutcomes)]
pub(in crate::admin) struct OutcomesView {
    /// Nothing was written.
    pub(super) dry_run: bool,
    /// One for each line, in their order; of an edit one for each token.
    pub(super) outcomes: Vec<OutcomeView>,
    /// Whether the changes are in force everywhere; only in answers to `?wait=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<ReceiptView>,
}

impl OutcomesView {
    pub(super) fn answer(self) -> Response {
        ([(header::CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

/// What is to be done to which tokens.
struct Edit {
    ids: Vec<TokenId>,
    fields: Value,
}

/// Edits some tokens, all in the same way, by a merge patch. Each is written for itself.
#[utoipa::path(patch, path = "/v1/tokens", operation_id = "edit_tokens", tag = "tokens", request_body = EditManyFields,
    params(
        ("dry_run" = Option<bool>, Query, description = "Whether only to tell what would be changed."),
        ("wait" = Option<String>, Query, description = WAIT),
    ),
    responses(
        (status = 200, description = "What came of each token.", body = OutcomesView),
        (status = 422, description = "The fields cannot be taken for any token; nothing was changed.",
         body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(in crate::admin) async fn edit_many(
    caller: Caller,
    State(shared): State<Shared>,
    query: Query,
    Body(body): Body,
) -> Result<Response, Problem> {
    let (dry_run, wait) = read_terms(&query, &["dry_run", "wait"])?;
    let edit = read(&body)?;
    let fields = std::sync::Arc::new(edit.fields);
    let calls = edit.ids.into_iter().map(|id| {
        let (shared, caller, fields) = (shared.clone(), caller.clone(), fields.clone());
        async move {
            let done = edit_one(&shared, &caller, &id, &fields, dry_run).await;
            done.unwrap_or_else(|problem| OutcomeView::of_problem(problem, Some(&id)))
        }
    });
    let outcomes = all_told(calls).await;
    let receipt = if dry_run { None } else { receipt::collect(&shared, wait).await };
    Ok(OutcomesView { dry_run, outcomes, receipt }.answer())
}

async fn edit_one(
    shared: &Shared,
    caller: &Caller,
    id: &TokenId,
    patch: &Value,
    dry_run: bool,
) -> Result<OutcomeView, Problem> {
    let now = (shared.admin.now)();
    let before = find(shared, id).await?.policy;
    let after = fields::merge(patch, &before, now)?;
    let changes = changes::of_edit(&before, &after);
    let mut view = OutcomeView::new("unchanged", Some(id));
    view.version = Some(before.version);
    if changes.is_empty() {
        return Ok(view);
    }
    view.outcome = "updated";
    if dry_run {
        last_secret::keep_one(shared, &before, &after).await?;
    } else {
        // What is written builds on what is stored by then, whatever was looked at.
        let edited = |policy: &Policy| fields::merge(patch, policy, now);
        let act = Act { caller, action: "token.edit" };
        view.version = Some(change(shared, act, id, &IfMatch::Any, edited).await?.0);
    }
    view.changes = changes.into_iter().map(ChangeView::from).collect();
    Ok(view)
}

/// Reads `dry_run` and `wait`, beside the other parameters that are known.
pub(super) fn read_terms(query: &Query, known: &[&str]) -> Result<(bool, Option<Duration>), Problem> {
    let mut errors = query.allow(known);
    let dry_run = query.read("dry_run", "true or false", |text| text.parse().ok(), &mut errors);
    let wait = query.wait(&mut errors);
    if errors.is_empty() { Ok((dry_run.unwrap_or(false), wait)) } else { Err(Problem::parameters(errors)) }
}

fn read(body: &Value) -> Result<Edit, Problem> {
    let mut problems = Problems::default();
    let (mut ids, mut fields) = (Vec::new(), Value::Object(Map::new()));
    if let Some(object) = Field::root(body).object(&["ids", "fields"], &mut problems) {
        let expected = "a list of tokens' ids";
        let list = object.required("ids", expected, &mut problems);
        let list = list.and_then(|field| field.list(expected, MOST, &mut problems));
        for entry in list.unwrap_or_default() {
            ids.extend(entry.choice("a token's id", TokenId::parse, &mut problems));
        }
        let expected = "an object with the fields to set";
        if let Some(field) = object.required("fields", expected, &mut problems)
            && field.open_object(&mut problems).is_some()
        {
            fields = field.value().clone();
        }
    }
    if problems.count() > 0 {
        return Err(Problem::fields(problems.into_errors()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(Edit { ids, fields })
}

/// Waits for all of them, some at a time; what came of them is in the order of the calls. `None`: the call panicked, which was
/// reported where it happened.
pub(super) async fn all<F, T>(calls: impl Iterator<Item = F>) -> Vec<Option<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut done = Vec::new();
    let mut running: VecDeque<JoinHandle<T>> = VecDeque::new();
    for call in calls {
        if running.len() == AT_ONCE
            && let Some(first) = running.pop_front()
        {
            done.push(first.await.ok());
        }
        running.push_back(tokio::spawn(call));
    }
    for next in running {
        done.push(next.await.ok());
    }
    done
}

/// The same for calls that tell what came of a token.
pub(super) async fn all_told<F>(calls: impl Iterator<Item = F>) -> Vec<OutcomeView>
where
    F: Future<Output = OutcomeView> + Send + 'static,
{
    let unknown = || OutcomeView::new("failed", None);
    all(calls).await.into_iter().map(|told| told.unwrap_or_else(unknown)).collect()
}
