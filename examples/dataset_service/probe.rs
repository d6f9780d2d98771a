//! Paths that show how a proxy in front behaves: long bodies both ways, failures, slow answers, liveness.
//!
//! They touch no data. Bodies are streamed: memory does not grow with their length.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::reply::{Failure, json_reply};
use crate::request::Segments;

/// One chunk of a long body; longer bodies repeat it.
const BLOCK_LENGTH: usize = 64 * 1024;

/// The longest wait of `/slow`: ten minutes.
const LONGEST_WAIT: u64 = 600_000;

/// Byte `i` of every long body is byte `i % 65536` of this block, so a reader can check what came through.
static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let word = std::iter::repeat_with(|| {
        // Marsaglia's xorshift64: not compressible, the same everywhere.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    word.flatten().take(BLOCK_LENGTH).collect()
});

/// `GET /{v}/status`
pub(crate) async fn status() -> Response {
    json_reply(StatusCode::OK, &json!({"status": "up"}))
}

/// `GET /{v}/bytes/{n}`: a body of `n` bytes, with its length said ahead.
pub(crate) async fn bytes(Segments((_, length)): Segments<(String, String)>) -> Result<Response, Failure> {
    let length = parse_segment("n", &length, 0, u64::MAX)?;
    let chunks = stream::unfold(length, |left| async move {
        let take = left.min(u64::try_from(BLOCK_LENGTH).unwrap_or(u64::MAX));
        let chunk = BLOCK.slice(..usize::try_from(take).unwrap_or(BLOCK_LENGTH));
        (left > 0).then(|| (Ok::<_, Infallible>(chunk), left - take))
    });
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, length.to_string())];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// `POST /{v}/echo-length`: reads the body to its end and answers how long it was.
pub(crate) async fn echo_length(body: Body) -> Result<Response, Failure> {
    let mut chunks = body.into_data_stream();
    let mut length = 0_usize;
    while let Some(chunk) = chunks.next().await {
        length += chunk.map_err(|_| Failure::BrokenBody)?.len();
    }
    Ok(json_reply(StatusCode::OK, &json!({"length": length})))
}

/// `/{v}/fail/{status}`: answers that status. A status below 200 is not an answer but a notice before one, so none is sent.
pub(crate) async fn fail(Segments((_, status)): Segments<(String, String)>) -> Result<Response, Failure> {
    let code = parse_segment("status", &status, 200, 599)?;
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if matches!(code, 204 | 205 | 304) {
        return Ok(status.into_response());
    }
    Ok(json_reply(status, &json!({"status": code})))
}

/// `/{v}/slow/{ms}`: answers after that time.
pub(crate) async fn slow(Segments((_, wait)): Segments<(String, String)>) -> Result<Response, Failure> {
    let wait = parse_segment("ms", &wait, 0, LONGEST_WAIT)?;
    tokio::time::sleep(Duration::from_millis(wait)).await;
    Ok(json_reply(StatusCode::OK, &json!({"waited": wait})))
}

fn parse_segment(name: &'static str, text: &str, least: u64, most: u64) -> Result<u64, Failure> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or(Failure::BadSegment { name, least, most })
}
