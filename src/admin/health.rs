//! Health, readiness, metrics, and the description of the API itself: open to everyone.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::problem::{Problem, ProblemBody};

/// How long the store may take to answer before the node counts as not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// How the node is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, `ready`, or `degraded`: it serves known tokens from what it has, without its store.
    status: &'static str,
    /// Tollgate's version.
    version: &'static str,
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses(
    (status = 200, description = "It is alive.", body = Health),
))]
pub(super) async fn healthz(State(shared): State<Shared>) -> Response {
    healthy("ok", &shared)
}

/// What readiness is about.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Readiness {
    /// `required` (the default), or `optional`: a node that has started is ready without its store as well, since it goes
    /// on serving known tokens (law 6). Balancers should ask so: a store that is down is down for all nodes.
    #[serde(default)]
    #[param(inline)]
    store: StoreNeed,
}

/// Whether a node without its store is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StoreNeed {
    /// It is not.
    #[default]
    Required,
    /// It is, once it has started.
    Optional,
}

/// Whether the node can do its work: it has started, is not about to stop, and the store answers within a second.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), params(Readiness), responses(
    (status = 200, description = "It is ready.", body = Health),
    (status = 400, description = "`store` is neither `required` nor `optional`.", body = ProblemBody,
     content_type = "application/problem+json"),
    (status = 503, description = "It is starting or stopping, or the store does not answer.", body = ProblemBody,
     content_type = "application/problem+json"),
))]
pub(super) async fn readyz(
    State(shared): State<Shared>,
    asked: Result<Query<Readiness>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = asked.map_err(|_| {
        let reason = "`/readyz` knows `store=required` and `store=optional`, and nothing else.";
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    })?;
    if !*shared.admin.started.borrow() {
        return Err(not_ready("not_ready", "The node has not finished its start, or is about to stop."));
    }
    let reason = match tokio::time::timeout(READY_WITHIN, shared.admin.store.ping()).await {
        Ok(Ok(())) => return Ok(healthy("ready", &shared)),
        Ok(Err(cause)) => {
            tracing::warn!(%cause, "the store does not answer");
            "The store refuses to work or cannot be reached."
        }
        Err(_) => "The store did not answer within a second.",
    };
    match asked.store {
        StoreNeed::Required => Err(not_ready("store_unavailable", reason)),
        StoreNeed::Optional => Ok(healthy("degraded", &shared)),
    }
}

fn healthy(status: &'static str, shared: &Shared) -> Response {
    let health = Health { status, version: shared.admin.version };
    ([(header::CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

fn not_ready(code: &'static str, reason: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, reason)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

/// Metrics in Prometheus' text format; with `admin.metrics: secret` they need a secret token like `/v1`.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses(
    (status = 200, description = "The metrics of this node.", body = String,
     content_type = "text/plain; version=0.0.4"),
    (status = 401, description = "`admin.metrics: secret`, and no secret token.", body = ProblemBody,
     content_type = "application/problem+json"),
))]
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let text = (shared.admin.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()), responses(
    (status = 200, description = "The OpenAPI description of the admin API.", body = Object),
))]
pub(super) async fn openapi_json() -> Response {
    Json(super::openapi()).into_response()
}
