//! The nodes, and by which change each acts.

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
use crate::store::NodeReport;

/// The nodes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(super) struct NodesView {
    /// Goes up with each change of a token or of the account.
    epoch: u64,
    /// By their names.
    nodes: Vec<NodeView>,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeView {
    /// Its id, kept in its `state_dir`.
    #[schema(example = "01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    node: String,
    /// Where it can be found: its host name and first listener.
    #[schema(example = "gate-1/127.0.0.1:8080")]
    name: String,
    /// Every change up to this epoch is in force there.
    epoch: u64,
    /// Whether that is every change there is.
    in_step: bool,
    /// Whether it was heard lately. One that is silent is gone, or cut off and serving by what it knows.
    live: bool,
    /// When it last said so, by the store's clock.
    #[schema(format = DateTime)]
    seen_at: String,
    /// Credits it holds, counted but not spent.
    leased: u64,
}

/// The nodes, and by which change each acts.
#[utoipa::path(get, path = "/v1/nodes", operation_id = "list_nodes", tag = "nodes", responses(
    (status = 200, description = "The nodes.", body = NodesView),
))]
pub(super) async fn list(_: Caller, State(shared): State<Shared>, query: Query) -> Result<Response, Problem> {
    query.allow_none()?;
    // The epoch first: a node that has acted on a later change is in step all the same.
    let epoch = shared.admin.store.epoch(&shared.admin.account).await?;
    let mut reports = shared.admin.store.nodes(&shared.admin.account).await?;
    reports.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
    let nodes = NodeReport::living(&reports).map(|(report, live)| NodeView {
        node: report.node.0.to_string(),
        name: report.name.clone(),
        epoch: report.epoch,
        in_step: report.epoch >= epoch,
        live,
        seen_at: report.seen_at.to_string(),
        leased: report.leased.0,
    });
    let view = NodesView { epoch, nodes: nodes.collect() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}
