//! Takes a request's body in: its type, its size, its syntax. What its fields mean is [`super::fields`]' to read.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;

use super::problem::{Problem, quote};

/// The largest body, in bytes.
pub(super) const MAX_BODY: usize = 256 * 1024;

/// How long a body may take to arrive: it is small, and whoever is slower holds a connection for nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

mod strict;

/// A JSON body. An absent one is an empty object, for every field has a default.
#[derive(Debug)]
pub(super) struct Body(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_patch = request.method() == Method::PATCH;
        let is_json = has_json_type(request.headers(), is_patch);
        let arrived = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state)).await;
        let arrived = arrived.map_err(|_| {
            let detail = format!("The body did not arrive within {} s.", PATIENCE.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_slow", detail)
        })?;
        let bytes = arrived.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let detail = format!("A body has at most {MAX_BODY} bytes.");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
            } else {
                Problem::new(StatusCode::BAD_REQUEST, "body_broken", "The body did not arrive whole.")
            }
        })?;
        if bytes.is_empty() {
            return Ok(Self(Value::Object(serde_json::Map::new())));
        }
        if !is_json {
            let detail = "The body must be JSON: Content-Type: application/json.";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        strict::parse(&bytes).map(Self).map_err(|error| malformed(&error))
    }
}

fn has_json_type(headers: &HeaderMap, is_patch: bool) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (is_patch && essence.eq_ignore_ascii_case("application/merge-patch+json"))
}

fn malformed(error: &serde_json::Error) -> Problem {
    // The message is the parser's own and may repeat a piece of the body; the place is what helps.
    let detail = format!(
        "The body is not JSON: {} (line {}, column {}).",
        reason(error),
        error.line(),
        error.column()
    );
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", detail)
}

fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    quote(text.split(" at line ").next().unwrap_or_default())
}
