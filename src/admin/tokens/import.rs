//! Import: many tokens, one JSON object a line. All lines are read and judged before the first is written; each token is then
//! written by itself, with its entry in the trail.
//!
//! An import can be repeated: a token is known again by its id, by its value, or by a key from elsewhere (`import_key`), which
//! always leads to the same id. One that is as its line says already is left alone, whatever is to be done about those that
//! are not. [`mod@line`] reads a line, [`mod@plan`] says what is to be done about it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::many::{OutcomesView, all, all_told, read_terms};
use crate::admin::auth::Caller;
use crate::admin::problem::{FieldError, Problem, ProblemBody};
use crate::admin::query::{Query, WAIT};
use crate::admin::schema::ImportFields;
use crate::admin::{Shared, receipt};
use crate::policy::TokenId;

mod line;
mod plan;

use line::Line;
use plan::{OnConflict, Plan};

/// The largest body, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// The most lines of one call.
const MOST: usize = 1000;

/// How an import is to go.
#[derive(Debug, Clone, Copy)]
struct Terms {
    dry_run: bool,
    wait: Option<Duration>,
    on_conflict: OnConflict,
    keep_going: bool,
}

impl Terms {
    fn read(query: &Query) -> Result<Self, Problem> {
        let known = ["dry_run", "on_conflict", "keep_going", "wait"];
        let (dry_run, wait) = read_terms(query, &known)?;
        let mut errors = Vec::new();
        let names = "fail, skip or update";
        let on_conflict = query.read("on_conflict", names, OnConflict::parse, &mut errors);
        let keep_going = query.read("keep_going", "true or false", |text| text.parse().ok(), &mut errors);
        if !errors.is_empty() {
            return Err(Problem::parameters(errors));
        }
        let on_conflict = on_conflict.unwrap_or(OnConflict::Fail);
        Ok(Self { dry_run, wait, on_conflict, keep_going: keep_going.unwrap_or(false) })
    }
}

/// Makes tokens, and updates those that are there, from lines of JSON. Repeated, it does not make them twice.
#[utoipa::path(post, path = "/v1/tokens/import", operation_id = "import_tokens", tag = "tokens",
    request_body(content = ImportFields, content_type = "application/x-ndjson",
                 description = "One token a line: at most 1000 lines and 4 MiB."),
    params(
        ("dry_run" = Option<bool>, Query, description = "Whether only to tell what would be done."),
        ("on_conflict" = Option<String>, Query, description = "What to do about a token that is there and is not as its line \
            says: `fail` (by default) refuses the line, `skip` leaves the token, `update` edits it."),
        ("keep_going" = Option<bool>, Query, description = "Whether to write the other lines if some are refused; without it, \
            nothing is written then."),
        ("wait" = Option<String>, Query, description = WAIT),
    ),
    responses(
        (status = 200, description = "What came of each line, in their order.", body = OutcomesView),
        (status = 413, description = "There are more than 1000 lines, or more than 4 MiB.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON Lines.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(in crate::admin) async fn import(
    caller: Caller,
    State(shared): State<Shared>,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let terms = Terms::read(&query)?;
    let lines = read_lines(request).await?;
    let lines: Vec<_> =
        lines.iter().map(|(at, text)| (*at, Line::read(text, &shared.admin.account))).collect();
    let plans = plan_all(&shared, lines, terms).await?;
    let refused = plans.iter().any(|(_, plan)| matches!(plan, Plan::Refused { .. }));
    let write = !terms.dry_run && (terms.keep_going || !refused);
    let mut numbers = Vec::with_capacity(plans.len());
    let calls = plans.into_iter().map(|(number, plan)| {
        numbers.push(number);
        let (shared, caller) = (shared.clone(), caller.clone());
        async move {
            match (write, terms.dry_run) {
                (true, _) => plan.carry_out(&shared, &caller).await,
                (false, true) => plan.tell(),
                (false, false) => plan.leave(),
            }
        }
    });
    let mut outcomes = all_told(calls).await;
    for (outcome, number) in outcomes.iter_mut().zip(numbers) {
        outcome.line = Some(number);
    }
    let receipt = if write { receipt::collect(&shared, terms.wait).await } else { None };
    Ok(OutcomesView { dry_run: terms.dry_run, outcomes, receipt }.answer())
}

/// The lines that are not empty, with their numbers from 1.
async fn read_lines(request: Request) -> Result<Vec<(usize, String)>, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    let essence = kind.and_then(Result::ok).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let known = ["application/x-ndjson", "application/jsonl", "application/json"];
    if !known.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        let detail = "The body must be JSON Lines: Content-Type: application/x-ndjson.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let large = || {
        let detail = format!("An import has at most {MOST} lines and {MAX_BODY} bytes; send it in parts.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| large())?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "malformed_json", "The body is not UTF-8."))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let lines: Vec<_> = lines.map(|(at, line)| (at + 1, line.to_owned())).collect();
    if lines.len() > MOST { Err(large()) } else { Ok(lines) }
}

/// Says what is to be done about each line, by what is stored now.
async fn plan_all(
    shared: &Shared,
    lines: Vec<(usize, Result<Line, Vec<FieldError>>)>,
    terms: Terms,
) -> Result<Vec<(usize, Plan)>, Problem> {
    let owners = owners(shared, &lines).await?;
    let named = lines.iter().filter_map(|(_, line)| line.as_ref().ok()?.id.clone());
    let ids: HashSet<TokenId> = named.chain(owners.values().cloned()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let there = plan::read(shared, &ids).await?;
    let mut met: HashSet<TokenId> = HashSet::new();
    let mut values = HashSet::new();
    let mut plans = Vec::with_capacity(lines.len());
    for (number, line) in lines {
        let plan = match line {
            Ok(line) => {
                let twice = line.value.as_ref().is_some_and(|value| !values.insert(value.digest()))
                    || line.id.as_ref().or(owners.get(&number)).is_some_and(|id| !met.insert(id.clone()));
                if twice {
                    let error =
                        FieldError::at("", "is the same token as an earlier line; leave one of them out");
                    Plan::Refused { id: line.id, errors: vec![error] }
                } else {
                    plan::decide(shared, line, owners.get(&number), &there, terms.on_conflict)?
                }
            }
            Err(errors) => Plan::Refused { id: None, errors },
        };
        plans.push((number, plan));
    }
    Ok(plans)
}

/// Whose the values are that the lines bring along, by the lines' numbers.
async fn owners(
    shared: &Shared,
    lines: &[(usize, Result<Line, Vec<FieldError>>)],
) -> Result<HashMap<usize, TokenId>, Problem> {
    let values = lines.iter().filter_map(|(number, line)| {
        let digest = line.as_ref().ok()?.value.as_ref()?.digest();
        Some((*number, digest))
    });
    let calls = values.map(|(number, digest)| {
        let store = shared.admin.store.clone();
        async move { (number, store.find_token(&digest).await) }
    });
    let mut owners = HashMap::new();
    for (number, found) in all(calls).await.into_iter().flatten() {
        // What is another account's, nobody here is to learn of; the write refuses it.
        if let Some(policy) = found?.filter(|policy| policy.account == shared.admin.account) {
            owners.insert(number, policy.id);
        }
    }
    Ok(owners)
}
