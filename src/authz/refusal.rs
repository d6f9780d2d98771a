//! Answers for the client, packed into a header: for a proxy that, asking, understands 2xx, 401 and 403 alone and drops
//! bodies (nginx's `auth_request`).
//!
//! With `?refuse=403` it is told 403, `X-Tollgate-Status` (the true status) and `X-Tollgate-Refusal` (status, headers and
//! body in percent-encoding). It then has `/refusal` answer its client, giving that header back. Nothing is kept here, and
//! nothing is decided twice.

use std::fmt::Write;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::{bare, relayed};

const PACKED: HeaderName = HeaderName::from_static("x-tollgate-refusal");
const STATUS: HeaderName = HeaderName::from_static("x-tollgate-status");
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// A refusal as a proxy gets it that knows 403 only.
pub(super) fn pack(answer: &http::Response<String>) -> Response {
    let mut text = answer.status().as_str().to_owned();
    for (name, value) in answer.headers() {
        if let (Ok(value), true) = (value.to_str(), *name != header::CONTENT_LENGTH) {
            // Writing into memory does not fail.
            let _ = write!(text, "\n{name}: {value}");
        }
    }
    let _ = write!(text, "\n\n{}", answer.body());
    let packed = HeaderValue::try_from(utf8_percent_encode(&text, ENCODED).to_string());
    let mut response = bare(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(STATUS, answer.status().as_u16().into());
    if let Ok(packed) = packed {
        headers.insert(PACKED, packed);
    }
    if let Some(id) = answer.headers().get("x-request-id") {
        headers.insert("x-request-id", id.clone());
    }
    response
}

/// The refusal as the client gets it. Without one it is a plain 403: then something else in the proxy refused.
pub(super) fn unpack(headers: &HeaderMap) -> Response {
    let packed = headers.get(PACKED).and_then(|packed| parse(packed.as_bytes()));
    packed.map_or_else(|| bare(StatusCode::FORBIDDEN), |answer| relayed(answer.map(String::from)))
}

fn parse(packed: &[u8]) -> Option<http::Response<String>> {
    let text = percent_decode(packed).decode_utf8().ok()?;
    let (head, body) = text.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let status = StatusCode::from_bytes(lines.next()?.as_bytes()).ok()?;
    let mut answer = http::Response::new(body.to_owned());
    *answer.status_mut() = status;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        let (name, value) =
            (HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
        answer.headers_mut().append(name, value);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again() {
        let answer = http::Response::builder()
            .status(402)
            .header("Content-Type", "application/problem+json")
            .header("Vary", "Origin")
            .header("Vary", "Accept")
            .header("RateLimit", r#""credits";r=0;t=9"#)
            .body("{\"detail\": \"100 % … used\"}\n\nmore".to_owned())
            .unwrap();
        let packed = pack(&answer);
        assert_eq!(
            (packed.status().as_u16(), packed.headers()["x-tollgate-status"].to_str().unwrap()),
            (403, "402")
        );
        let again = parse(packed.headers()[PACKED].as_bytes()).unwrap();
        assert_eq!(
            (again.status(), again.headers(), again.body()),
            (answer.status(), answer.headers(), answer.body())
        );
    }

    #[test]
    fn what_was_not_packed_is_a_plain_refusal() {
        for packed in [None, Some(""), Some("402"), Some("9\n\n"), Some("402%0Aa%0A%0A"), Some("%FF")] {
            let mut headers = HeaderMap::new();
            if let Some(packed) = packed {
                headers.insert(PACKED, packed.parse().unwrap_or(HeaderValue::from_static("x")));
            }
            assert_eq!(unpack(&headers).status(), 403, "{packed:?}");
        }
    }
}
