//! What an upstream gets: the canonical target, no credentials, and who the request is from.
//!
//! Law 8: exactly the judged form is sent. Law 7: no header that may carry a credential is passed on, and anything
//! else with the shape of a token is masked.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;

use super::facts::Request;
use crate::policy::token::{contains_token, mask_tokens};
use crate::policy::{AccountId, TokenId};
use crate::telemetry::write_address;

/// Which headers tell an upstream of the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// None; what clients send is removed all the same.
    None,
    /// `X-Forwarded-For`, `-Host`, `-Proto`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// Both.
    Both,
}

/// Names that are never passed on as the client sent them, with `-` for `_`: some servers read `X_API_KEY` as
/// `X-API-Key`, so both spellings go.
const REMOVED: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-iex-date",
    "x-request-id",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "forwarded",
    "x-real-ip",
    // Rewriting headers of other servers: they would have the upstream act on another path than was judged.
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// Prefixes of such names.
const REMOVED_PREFIXES: &[&str] = &["x-tollgate", "x-forwarded"];

/// Framing and what is for one hop, spelt with `_`: servers that make variables of names would read them as the true
/// ones, which the gate has written or taken out itself.
const LOOK_ALIKES: &[&str] =
    &["content_length", "transfer_encoding", "proxy_connection", "keep_alive", "http2_settings"];

pub(super) fn is_removed(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    if memchr::memchr(b'_', name).is_some()
        && LOOK_ALIKES.iter().any(|alike| is_alike(name, alike.as_bytes()))
    {
        return true;
    }
    let begins = |pattern: &str| {
        let same = |(a, b): (&u8, &u8)| *a == *b || (*a == b'_' && *b == b'-');
        name.len() >= pattern.len() && name.iter().zip(pattern.as_bytes()).all(same)
    };
    // Almost every such name begins with one of four letters.
    matches!(name.first(), Some(b'a' | b'p' | b'x' | b'f'))
        && (REMOVED.iter().any(|removed| removed.len() == name.len() && begins(removed))
            || REMOVED_PREFIXES.iter().any(|prefix| begins(prefix)))
}

/// The same name, whichever of `-` and `_` stand in it.
fn is_alike(name: &[u8], pattern: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a == b || (*a == b'-' && *b == b'_');
    name.len() == pattern.len() && name.iter().zip(pattern).all(same)
}

/// Takes everything out of a request that must not reach an upstream.
pub(super) fn strip(upstream: &mut RequestHeader) -> pingora::Result<()> {
    if upstream.headers.keys().any(is_removed) {
        let removed: Vec<HeaderName> =
            upstream.headers.keys().filter(|name| is_removed(name)).cloned().collect();
        for name in &removed {
            upstream.remove_header(name);
        }
    }
    let tainted = |value: &HeaderValue| is_tainted(value.as_bytes());
    if !upstream.headers.values().any(tainted) {
        return Ok(());
    }
    let tainted: Vec<HeaderName> = upstream
        .headers
        .keys()
        .filter(|name| upstream.headers.get_all(*name).iter().any(tainted))
        .cloned()
        .collect();
    for name in tainted {
        let values: Vec<HeaderValue> = upstream.headers.get_all(&name).iter().cloned().collect();
        upstream.remove_header(&name);
        for value in values {
            let mut bytes = value.as_bytes().to_vec();
            mask_tokens(&mut bytes);
            // A token in percent-encoding cannot be masked in place; such a value goes as a whole.
            if holds_encoded_token(&bytes) {
                continue;
            }
            if let Ok(masked) = HeaderValue::from_bytes(&bytes) {
                upstream.append_header(name.clone(), masked)?;
            }
        }
    }
    Ok(())
}

/// What may make of a body less than the whole, or something that cannot be read.
pub(super) const PARTIAL: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::RANGE, header::IF_RANGE];

/// Asks for the whole body, uncompressed: something in it is to be counted, or it is cut where the credits end.
pub(super) fn ask_whole(upstream: &mut RequestHeader) {
    for name in PARTIAL {
        upstream.remove_header(&name);
    }
}

/// Whether a token stands in a value, plain or in percent-encoding.
pub(super) fn is_tainted(value: &[u8]) -> bool {
    contains_token(value) || holds_encoded_token(value)
}

fn holds_encoded_token(value: &[u8]) -> bool {
    let mut text = std::borrow::Cow::Borrowed(value);
    for _ in 0..2 {
        if !text.contains(&b'%') {
            return false;
        }
        text = percent_encoding::percent_decode(&text).collect::<Vec<u8>>().into();
        if contains_token(&text) {
            return true;
        }
    }
    false
}

/// Over HTTP/2 a cookie may come in pieces, which are one field everywhere else (RFC 9113, 8.2.3).
pub(super) fn join_cookies(upstream: &mut RequestHeader) -> pingora::Result<()> {
    let pieces: Vec<&[u8]> =
        upstream.headers.get_all(header::COOKIE).iter().map(header::HeaderValue::as_bytes).collect();
    if pieces.len() < 2 {
        return Ok(());
    }
    let whole = pieces.join(b"; ".as_slice());
    upstream.insert_header(header::COOKIE, whole)
}

/// Who a forwarded request is from.
pub(super) struct Sender<'a> {
    pub(super) token: &'a TokenId,
    pub(super) account: &'a AccountId,
    pub(super) request_id: &'a str,
}

/// Where the gate writes fields of its own; each takes the place of what stood there by that name.
pub(super) trait Fields {
    /// Writes one.
    fn field(&mut self, name: &'static str, value: &[u8]) -> pingora::Result<()>;
}

impl Fields for RequestHeader {
    fn field(&mut self, name: &'static str, value: &[u8]) -> pingora::Result<()> {
        self.insert_header(name, value)
    }
}

/// Says who the request is from.
pub(super) fn introduce(upstream: &mut impl Fields, sender: &Sender<'_>) -> pingora::Result<()> {
    upstream.field("X-Tollgate-Token-Id", sender.token.as_str().as_bytes())?;
    upstream.field("X-Tollgate-Account", sender.account.as_str().as_bytes())?;
    upstream.field("X-Request-Id", sender.request_id.as_bytes())
}

/// Says which client and which host the request was for. Entries of trusted proxies are kept, others are not.
pub(super) fn trace(
    upstream: &mut impl Fields,
    request: &Request<'_>,
    trusted: bool,
    how: Forwarded,
) -> pingora::Result<()> {
    let Some(peer) = request.peer() else { return Ok(()) };
    let scheme = if request.encrypted { "https" } else { "http" };
    let host = request.host().unwrap_or_default();
    let mut masked = Vec::new();
    let host = if contains_token(host) {
        masked.extend_from_slice(host);
        mask_tokens(&mut masked);
        masked.as_slice()
    } else {
        host
    };
    let host = std::str::from_utf8(host).unwrap_or_default();
    if matches!(how, Forwarded::XForwarded | Forwarded::Both) {
        let kept = |name: &'static str| {
            let value = trusted.then(|| request.headers.get(name)).flatten();
            value.and_then(|value| value.to_str().ok()).filter(|value| !contains_token(value.as_bytes()))
        };
        let mut chain = Vec::with_capacity(48);
        if trusted {
            let entries = request.headers.get_all("x-forwarded-for").iter();
            for entry in entries.filter(|value| !contains_token(value.as_bytes())) {
                if let Ok(entry) = entry.to_str() {
                    chain.extend_from_slice(entry.as_bytes());
                    chain.extend_from_slice(b", ");
                }
            }
        }
        write_address(&mut chain, peer);
        upstream.field("X-Forwarded-For", &chain)?;
        upstream.field("X-Forwarded-Host", kept("x-forwarded-host").unwrap_or(host).as_bytes())?;
        upstream.field("X-Forwarded-Proto", kept("x-forwarded-proto").unwrap_or(scheme).as_bytes())?;
    }
    if matches!(how, Forwarded::Rfc7239 | Forwarded::Both) {
        let node = match peer {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let earlier = request.headers.get_all(header::FORWARDED).iter();
        let earlier = earlier.filter(|value| trusted && !contains_token(value.as_bytes()));
        let mut chain: Vec<String> =
            earlier.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        let quoted = host.replace(['"', '\\'], "");
        chain.push(format!("for={node};host=\"{quoted}\";proto={scheme}"));
        upstream.field("Forwarded", chain.join(", ").as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_credential_or_override_reaches_the_upstream() {
        let token = "pk_0123456789abcdef0123456789abcdef";
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "X-API-Key",
            "X_API_KEY",
            "x-api_key",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X_Http_Method_Override",
            "X-Tollgate-Token-Id",
            "X-Tollgate-Other",
            "X_Tollgate_Token_Id",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Forwarded-Anything",
            "Forwarded",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Request-Id",
            "Content_Length",
            "Transfer_Encoding",
            "transfer_encoding",
            "Proxy_Connection",
        ] {
            request.append_header(name, "x").unwrap();
        }
        request.append_header("Referer", format!("https://a.example/?token={token}&x=1")).unwrap();
        request.append_header("Cookie", format!("t={token}")).unwrap();
        request.append_header("Cookie", "u=1").unwrap();
        request.append_header("X-Note", format!("p%6B_{}", &token[3..])).unwrap();
        request.append_header("Accept", "*/*").unwrap();
        strip(&mut request).unwrap();
        let left: Vec<String> = request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let stars = "*".repeat(32);
        let mut expected = vec![
            "accept: */*".to_owned(),
            format!("cookie: t=pk_{stars}"),
            "cookie: u=1".to_owned(),
            format!("referer: https://a.example/?token=pk_{stars}&x=1"),
        ];
        let mut left = left;
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }
}
