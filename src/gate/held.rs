//! Holds a request's body back until its signature can be checked, and gives it on afterwards.
//!
//! The whole body is read before a server is connected, bounded by the route's `max_signed_body`, and hashed on the
//! way. Then the session is left as if nobody had read anything, so that whatever proxy the gate is part of forwards
//! it as any other body, with the framing the client chose. Up to 64 KiB Pingora's own buffer for retries does that. A
//! longer body is put in front of its connection again (`again`).

use std::time::Duration;

use bytes::BytesMut;
use http::header;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use crate::policy::Denial;
use crate::policy::signature::{BodyDigest, BodyHash};

mod again;

/// What Pingora's buffer for retries holds (`BODY_BUF_LIMIT`).
const RETRY_BUFFER: u64 = 64 * 1024;
/// How long, and how much, is still read of a body that was refused.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 8 << 20);

/// Reads a request's body to its end, and hashes it. The inner error: it is longer than `most` bytes.
///
/// # Errors
/// The client left, or what it sends is no body.
pub(super) async fn hold(session: &mut Session, most: u64) -> Result<Result<BodyDigest, Denial>> {
    let header = session.req_header();
    let announced = header.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let expects = header.headers.get(header::EXPECT);
    let expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let downstream = session.as_downstream_mut();
    // Only over HTTP/1 can a longer body be given on again.
    let most = if downstream.as_http1().is_some() { most } else { most.min(RETRY_BUFFER) };
    let mut hash = match BodyHash::begin(most, announced) {
        Ok(hash) => hash,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    if expects {
        downstream.write_continue_response().await.map_err(Error::into_down)?;
    }
    downstream.enable_retry_buffering();
    let mut body = BytesMut::new();
    while let Some(piece) = downstream.read_request_body().await.map_err(Error::into_down)? {
        if let Err(refusal) = hash.update(&piece) {
            return Ok(Err(refusal.into()));
        }
        body.extend_from_slice(&piece);
    }
    if downstream.retry_buffer_truncated() {
        again::read_again(downstream, &body).await?;
    }
    Ok(Ok(hash.finish()))
}

/// A body was refused before its end. A client that is still sending would find its connection reset and never read the
/// answer, so what it sends is read for a while, and dropped.
pub(super) async fn linger(session: &mut Session) {
    let (time, most) = LINGER;
    let drain = async {
        let mut read = 0;
        while let Ok(Some(piece)) = session.as_downstream_mut().read_request_body().await {
            read += piece.len();
            if read > most {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(time, drain).await;
}

fn broken<T>(what: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InternalError, what)
}

#[cfg(test)]
mod tests;
