//! What goes back: JSON with one exact content type, and every failure with its status.
//!
//! The only module that chooses statuses. It must not know what was asked.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::dataset::RecordError;
use crate::select::QueryError;

/// Real clients compare this header as a string, so it is spelled in one place.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A JSON response.
pub(crate) fn json_reply(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(CONTENT_TYPE, JSON)], Body::from(body)).into_response(),
        // Cannot happen for maps with text keys; answered rather than panicked on.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Why a request was not answered with data.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no data set {workspace}/{id}")]
    NoDataset { workspace: String, id: String },
    #[error("no records under {key}")]
    NoRecords { key: String },
    #[error("no symbol {symbol}")]
    NoSymbol { symbol: String },
    #[error("nothing is served at this path")]
    NoRoute,
    #[error("this path does not take that method")]
    NoMethod,
    #[error("data set {workspace}/{id} exists already")]
    Exists { workspace: String, id: String },
    #[error("{workspace}/{id} is built in and cannot be changed")]
    ReadOnly { workspace: String, id: String },
    #[error("the body is not JSON: {reason}")]
    NotJson { reason: String },
    #[error("the body must be a JSON object that describes a data set: {reason}")]
    NotASchema { reason: &'static str },
    #[error("`{name}` in the path must be a whole number from {least} to {most}")]
    BadSegment { name: &'static str, least: u64, most: u64 },
    #[error("the path is not readable as UTF-8 once decoded")]
    BadPath,
    #[error("the body broke off")]
    BrokenBody,
    #[error("the body is longer than a write may be")]
    TooLong,
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Failure {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoDataset { .. } | Self::NoRecords { .. } | Self::NoSymbol { .. } | Self::NoRoute => {
                StatusCode::NOT_FOUND
            }
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Exists { .. } => StatusCode::CONFLICT,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ReadOnly { .. } => StatusCode::FORBIDDEN,
            Self::NotJson { .. }
            | Self::NotASchema { .. }
            | Self::BadSegment { .. }
            | Self::BadPath
            | Self::BrokenBody
            | Self::Query(_)
            | Self::Record(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        json_reply(self.status(), &json!({"error": self.to_string()}))
    }
}

/// The answer for a path that is served, but not with this method. The router has put `Allow` on it by then.
pub(crate) async fn no_method() -> Failure {
    Failure::NoMethod
}

pub(crate) async fn no_route() -> Failure {
    Failure::NoRoute
}
