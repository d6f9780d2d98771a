//! Health, readiness, metrics, and the description of the API itself: open to everyone.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::problem::{Problem, ProblemBody};

/// How long the store may take to answer before the node counts as not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// How the node is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `ready`.
    status: &'static str,
    /// Tollgate's version.
    version: &'static str,
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses(
    (status = 200, description = "It is alive.", body = Health),
))]
pub(super) async fn healthz(State(shared): State<Shared>) -> Response {
    let health = Health { status: "ok", version: shared.admin.version };
    ([(header::CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

/// Whether the node can do its work: it has started, is not about to stop, and the store answers within a second.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "It is ready.", body = Health),
    (status = 503, description = "It is starting or stopping, or the store does not answer.", body = ProblemBody,
     content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(shared): State<Shared>) -> Result<Response, Problem> {
    if !*shared.admin.started.borrow() {
        let reason = "The node has not finished its start, or is about to stop.";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    }
    let reason = match tokio::time::timeout(READY_WITHIN, shared.admin.store.ping()).await {
        Ok(Ok(())) => {
            let health = Health { status: "ready", version: shared.admin.version };
            return Ok(([(header::CACHE_CONTROL, "no-store")], Json(health)).into_response());
        }
        Ok(Err(cause)) => {
            tracing::warn!(%cause, "not ready");
            "The store refuses to work or cannot be reached."
        }
        Err(_) => "The store did not answer within a second.",
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", reason)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses(
    (status = 200, description = "The metrics of this node.", body = String,
     content_type = "text/plain; version=0.0.4"),
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
