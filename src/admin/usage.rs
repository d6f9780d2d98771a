//! What was used and refused in a stretch of time: of one token, or of all the account's.
//!
//! The store keeps cells by hour, and sums of all tokens'; `range` says which hours are asked for, `rows` adds them up.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use super::query::Query;
use super::schema;
use super::tokens::{self, Id};
use crate::store::{Grain, RefusedSum, StoreError, UsageSums, UsedSum};

mod range;
mod rows;

pub(super) use range::By;
use range::Range;
pub(crate) use range::parse_time;
use rows::{Key, Report, Sums, sums_of};

/// What was used and refused in a stretch of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageReport)]
pub(super) struct UsageReportView {
    /// Where the stretch begins: the start of an hour.
    #[schema(format = DateTime)]
    from: String,
    /// Where it ends: the start of the first hour that is not counted.
    #[schema(format = DateTime)]
    to: String,
    /// What the rows are by.
    #[schema(schema_with = schema::usage_by)]
    by: &'static str,
    /// What was used, in order; only where something was.
    rows: Vec<UsageRowView>,
    /// What was refused, by reason. Nothing was charged for it.
    refusals: Vec<RefusalView>,
    /// The same by time, in order; only with `refusals_by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals_by: Option<Vec<RefusalByTimeView>>,
    /// All rows together.
    totals: TotalsView,
}

/// What was used by one day, hour, month, data set, operation or token, from one pool.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = UsageRow)]
struct UsageRowView {
    /// The day (UTC); with `by=day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    day: Option<String>,
    /// When the hour began; with `by=hour`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    hour: Option<String>,
    /// The month (UTC), as `yyyy-mm`; with `by=month`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11")]
    month: Option<String>,
    /// The data set, empty where the route names none; with `by=dataset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    /// What was done; with `by=operation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::operation)]
    operation: Option<&'static str>,
    /// The token's id; with `by=token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    /// The pool that was drawn on.
    #[schema(schema_with = schema::pool)]
    pool: &'static str,
    /// Responses that were charged.
    requests: u64,
    /// What they cost.
    credits: u64,
    /// Bytes of their bodies.
    bytes: u64,
}

/// What was used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageSums)]
struct SumsView {
    /// Responses that were charged.
    requests: u64,
    /// What they cost.
    credits: u64,
    /// Bytes of their bodies.
    bytes: u64,
}

/// What was used, for each pool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageTotals)]
struct TotalsView {
    /// From core credits.
    core: SumsView,
    /// From premium credits.
    premium: SumsView,
}

/// Requests that were refused for one reason.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refusals)]
struct RefusalView {
    /// The refusal's code.
    #[schema(example = "domain_denied")]
    code: String,
    /// How many.
    count: u64,
}

/// Requests that were refused for one reason in one day, hour or month.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = RefusalsByTime)]
struct RefusalByTimeView {
    /// The day (UTC); with `refusals_by=day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    day: Option<String>,
    /// When the hour began; with `refusals_by=hour`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    hour: Option<String>,
    /// The month (UTC), as `yyyy-mm`; with `refusals_by=month`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11")]
    month: Option<String>,
    /// The refusal's code.
    #[schema(example = "domain_denied")]
    code: String,
    /// How many.
    count: u64,
}

impl RefusalByTimeView {
    fn new(key: &Key, code: String, count: u64) -> Self {
        let row = Self { code, count, ..Self::default() };
        match key {
            Key::Day(day) => Self { day: Some(day.to_string()), ..row },
            Key::Hour(hour) => Self { hour: Some(hour.to_string()), ..row },
            Key::Month(month) => Self { month: Some(month_text(*month)), ..row },
            Key::Dataset(_) | Key::Operation(_) | Key::Token(_) => row,
        }
    }
}

/// A month as `yyyy-mm`.
fn month_text(first: Date) -> String {
    format!("{:04}-{:02}", first.year(), first.month())
}

impl From<Sums> for SumsView {
    fn from(sums: Sums) -> Self {
        Self { requests: sums.requests, credits: sums.credits, bytes: sums.bytes }
    }
}

impl UsageReportView {
    fn new(range: &Range, report: Report) -> Self {
        let rows = report.used.into_iter().map(|((key, pool), sums)| {
            let Sums { requests, credits, bytes } = sums;
            let row =
                UsageRowView { pool: pool.as_str(), requests, credits, bytes, ..UsageRowView::default() };
            match key {
                Key::Day(day) => UsageRowView { day: Some(day.to_string()), ..row },
                Key::Hour(hour) => UsageRowView { hour: Some(hour.to_string()), ..row },
                Key::Month(month) => UsageRowView { month: Some(month_text(month)), ..row },
                Key::Dataset(dataset) => UsageRowView { dataset: Some(dataset), ..row },
                Key::Operation(operation) => UsageRowView { operation: Some(operation.as_str()), ..row },
                Key::Token(id) => UsageRowView { token_id: Some(id.to_string()), ..row },
            }
        });
        let refusals_by = report.refused_by.map(|refused_by| {
            let row = |((key, code), count): ((Key, String), u64)| RefusalByTimeView::new(&key, code, count);
            refused_by.into_iter().map(row).collect()
        });
        Self {
            from: range.from.to_string(),
            to: range.to.to_string(),
            by: range.by.as_str(),
            rows: rows.collect(),
            refusals: report.refused.into_iter().map(|(code, count)| RefusalView { code, count }).collect(),
            refusals_by,
            totals: TotalsView { core: report.totals.core.into(), premium: report.totals.premium.into() },
        }
    }
}

/// What one token has used, and what it was refused, in a stretch of time.
#[utoipa::path(get, path = "/v1/tokens/{id}/usage", operation_id = "read_token_usage", tag = "usage",
    params(
        ("id" = String, Path, description = "The token's id."),
        ("from" = Option<String>, Query, description = range::ABOUT_FROM),
        ("to" = Option<String>, Query, description = range::ABOUT_TO),
        ("by" = Option<String>, Query, description = "What the rows are by: `day` (the default), `hour`, `month`, \
                                                      `dataset` or `operation`."),
        ("refusals_by" = Option<String>, Query, description = range::ABOUT_REFUSALS_BY),
    ),
    responses(
        (status = 200, description = "What was used and refused.", body = UsageReportView),
        (status = 404, description = "No such token.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn of_token(
    _: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
) -> Result<Response, Problem> {
    let range = Range::read(&query, &By::OF_TOKEN, (shared.admin.now)())?;
    tokens::find(&shared, &id).await?;
    let Range { from, to, by, .. } = range;
    let rows = if from < to {
        shared.admin.store.usage(&shared.admin.account, Some(&id), from, to).await?
    } else {
        Vec::new()
    };
    let sums = sums_of(rows, by);
    Ok(show(&range, &sums.used, &sums.refused))
}

/// What all the account's tokens have used, and what was refused, in a stretch of time.
#[utoipa::path(get, path = "/v1/usage", operation_id = "read_usage", tag = "usage",
    params(
        ("from" = Option<String>, Query, description = range::ABOUT_FROM),
        ("to" = Option<String>, Query, description = range::ABOUT_TO),
        ("by" = Option<String>, Query, description = "What the rows are by: `day` (the default), `hour`, `month`, \
                                                      `dataset`, `operation` or `token`."),
        ("refusals_by" = Option<String>, Query, description = range::ABOUT_REFUSALS_BY),
    ),
    responses(
        (status = 200, description = "What was used and refused; requests without a known token are among the \
                                      refusals.", body = UsageReportView),
    ))]
pub(super) async fn of_account(
    _: Caller,
    State(shared): State<Shared>,
    query: Query,
) -> Result<Response, Problem> {
    let range = Range::read(&query, &By::OF_ACCOUNT, (shared.admin.now)())?;
    if range.from >= range.to {
        return Ok(show(&range, &[], &[]));
    }
    let (used, refused) = grains(&range);
    let sums = sums(&shared, used, &range).await?;
    if refused == used {
        return Ok(show(&range, &sums.used, &sums.refused));
    }
    let refusals = self::sums(&shared, refused, &range).await?;
    Ok(show(&range, &sums.used, &refusals.refused))
}

/// By what the store is to tell what was used, and what was refused.
fn grains(range: &Range) -> (Grain, Grain) {
    let by_hour = range.refusals_by == Some(By::Hour);
    let used = match range.by {
        By::Hour => Grain::Hour,
        By::Day | By::Month | By::Operation if by_hour => Grain::Hour,
        By::Day | By::Month | By::Operation => Grain::Day,
        By::Dataset => Grain::Dataset,
        By::Token => Grain::Token,
    };
    (used, if by_hour { Grain::Hour } else { used })
}

async fn sums(shared: &Shared, grain: Grain, range: &Range) -> Result<UsageSums, StoreError> {
    shared.admin.store.usage_sums(&shared.admin.account, grain, range.from, range.to).await
}

fn show(range: &Range, used: &[UsedSum], refused: &[RefusedSum]) -> Response {
    let view = UsageReportView::new(range, Report::add_up(used, refused, range.by, range.refusals_by));
    ([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response()
}
