//! What a handler takes from a request, so that even an unreadable path or too long a body is answered in JSON.
//!
//! Queries are `select`'s; statuses are `reply`'s.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

use crate::reply::Failure;

/// The named segments of the path, percent-decoded.
#[derive(Debug)]
pub(crate) struct Segments<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(segments) = Path::from_request_parts(parts, state).await.map_err(|_| Failure::BadPath)?;
        Ok(Self(segments))
    }
}

/// The whole body of a write, whatever its content type.
#[derive(Debug)]
pub(crate) struct Whole(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Bytes::from_request(request, state).await.map(Self).map_err(refuse)
    }
}

fn refuse(rejection: BytesRejection) -> Failure {
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::TooLong,
        _ => Failure::BrokenBody,
    }
}
