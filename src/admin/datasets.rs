//! Data sets that could be granted: those the routes name, and those that were asked for lately.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::problem::Problem;
use super::query::Query;
use crate::store::UsageRow;

/// How far back usage is looked through.
const LATELY: Duration = Duration::from_hours(7 * 24);
/// The longest list; it is a help for people who type.
const MOST: usize = 500;

/// Data sets that could be granted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Datasets)]
pub(super) struct DatasetsView {
    /// In order of their names. `WORKSPACE/*` stands for all of a workspace, where a route serves any of it.
    #[schema(example = json!(["CORE/*", "MY/CARS"]))]
    datasets: Vec<String>,
}

/// Data sets that could be granted: those that the routes of this node name, and those used in the last seven days.
#[utoipa::path(get, path = "/v1/datasets", operation_id = "list_datasets", tag = "tokens", responses(
    (status = 200, description = "The data sets, 500 at most.", body = DatasetsView),
))]
pub(super) async fn list(_: Caller, State(shared): State<Shared>, query: Query) -> Result<Response, Problem> {
    query.allow_none()?;
    let now = (shared.admin.now)();
    let from = now.checked_sub(LATELY).unwrap_or(now);
    let rows = shared.admin.store.usage(&shared.admin.account, None, from, now).await?;
    let used = rows.into_iter().filter_map(|row| match row {
        UsageRow::Used { cell, .. } => Some(cell.dataset),
        UsageRow::Refused { .. } => None,
    });
    // A batch is counted under all its names together; nobody can grant that.
    let used = used.filter(|dataset| !dataset.is_empty() && !dataset.contains(','));
    let all: BTreeSet<String> = (shared.admin.datasets)().into_iter().chain(used).collect();
    let view = DatasetsView { datasets: all.into_iter().take(MOST).collect() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}
