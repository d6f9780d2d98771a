//! A backup, as it is taken from a store that is in use.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;

use super::Shared;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use super::query::Query;
use crate::store::StoreError;
use crate::store::backup::Pieces;

/// What a backup is called.
const KIND: &str = "application/vnd.tollgate.backup";

/// Takes a backup: all that the embedded store holds at this moment. Only with its checksum at the end is it whole.
#[utoipa::path(post, path = "/v1/backup", operation_id = "take_backup", tag = "backup", responses(
    (status = 200, description = "The backup. Secret values are sealed in it.", content_type = "application/vnd.tollgate.backup",
     body = Vec<u8>),
    (status = 409, description = "The store is Redis: back it up by its own means.", body = ProblemBody,
     content_type = "application/problem+json"),
))]
pub(super) async fn take(
    caller: Caller,
    State(shared): State<Shared>,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_none()?;
    let (store, account) = (&shared.admin.store, &shared.admin.account);
    // Before it is taken, so that it holds this entry itself.
    let note = caller.note("store.backup", account, Vec::new());
    let Some(mut rest) = store.backup(account, &note).await? else {
        let detail = "This store is Redis, which has its own means: BGSAVE or an append-only file. The README says how to back \
                      it up and how to restore it.";
        return Err(Problem::new(StatusCode::CONFLICT, "backup_unsupported", detail));
    };
    let first = rest.recv().await;
    let first = first.ok_or_else(|| StoreError::Unavailable("the store's file cannot be read".to_owned()))?;
    tracing::info!(by = %caller.actor, "a backup is taken");
    let headers = [(header::CONTENT_TYPE, KIND), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Stream { first: Some(first), rest })).into_response())
}

/// The pieces as a body.
struct Stream {
    first: Option<Vec<u8>>,
    rest: Pieces,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |piece: Vec<u8>| Ok(Frame::data(Bytes::from(piece)));
        match self.first.take() {
            Some(first) => Poll::Ready(Some(frame(first))),
            None => self.rest.poll_recv(context).map(|piece| piece.map(frame)),
        }
    }
}
