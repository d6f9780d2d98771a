//! Whether a request says in one way where it ends and whose it is (RFC 9112, 3.2, 6.1 to 6.3).
//!
//! The parser before us refuses what is plainly broken. This room refuses what several readers could take in several
//! ways, lest whoever stands in front of or behind the gate takes it in another: request smuggling. It knows header
//! lines only; which bytes they were read from is the gate's.

use http::{HeaderMap, HeaderValue, Version, header};

use super::byte_set::{ByteSet, byte_set};

/// Why a request's end, or its host, is not certain. Each is a public sentence, and carries nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadFraming {
    /// A line of the head ends without a carriage return.
    #[error("each line of a request's head must end in CR LF")]
    BareLineFeed,
    /// `Content-Length` beside `Transfer-Encoding`.
    #[error("a request has Content-Length or Transfer-Encoding, never both")]
    Both,
    /// `Content-Length` twice, a list, a sign, leading zeros, too large to be a length.
    #[error("Content-Length must be there once at most, as a plain number")]
    Length,
    /// A coding besides `chunked`, or that one twice.
    #[error("the only Transfer-Encoding taken is `chunked`")]
    Coding,
    /// An `Expect` that is not `100-continue`.
    #[error("the only Expect taken is `100-continue`")]
    Expectation,
    /// No `Host`, several, or one that is no `host[:port]`.
    #[error("Host must be there once, as a host and perhaps a port")]
    Host,
    /// A value with a blank at its end or its start, which HTTP/1 would take off.
    #[error("no header's value may begin or end with a blank")]
    Blank,
}

/// As [`check`], of a request over HTTP/2. Its fields are read by their lengths, so that a value can hold what no other server
/// would see in it (RFC 9113, 8.2.1); its `:authority` becomes the upstream's `Host`.
pub fn check_http2(headers: &HeaderMap, authority: Option<&[u8]>) -> Result<(), BadFraming> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = headers.values().map(HeaderValue::as_bytes);
    if values.any(|value| is_blank(value.first()) || is_blank(value.last())) {
        return Err(BadFraming::Blank);
    }
    if authority.is_some_and(|authority| !is_host(authority)) {
        return Err(BadFraming::Host);
    }
    check(Version::HTTP_2, headers, false)
}

/// Looks at the framing and the host of a request. `both`: whether its head had `Content-Length` besides
/// `Transfer-Encoding`, which the parser before us may have taken out.
pub fn check(version: Version, headers: &HeaderMap, both: bool) -> Result<(), BadFraming> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        if both || headers.contains_key(header::CONTENT_LENGTH) {
            return Err(BadFraming::Both);
        }
        let coding = only(headers, header::TRANSFER_ENCODING).ok_or(BadFraming::Coding)?;
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(BadFraming::Coding);
        }
    } else if headers.contains_key(header::CONTENT_LENGTH) {
        let length = only(headers, header::CONTENT_LENGTH).ok_or(BadFraming::Length)?;
        if !is_plain_number(length.as_bytes()) {
            return Err(BadFraming::Length);
        }
    }
    if headers.contains_key(header::EXPECT) {
        let expect = only(headers, header::EXPECT).ok_or(BadFraming::Expectation)?;
        if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(BadFraming::Expectation);
        }
    }
    match (only(headers, header::HOST), headers.contains_key(header::HOST)) {
        (Some(host), _) if is_host(host.as_bytes()) => Ok(()),
        // Over HTTP/2 the authority stands elsewhere.
        (None, false) if version >= Version::HTTP_2 => Ok(()),
        _ => Err(BadFraming::Host),
    }
}

/// The value of a header that is there once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Digits without a leading zero, at most 2^63 - 1: servers count bodies in 64 bits with a sign.
fn is_plain_number(text: &[u8]) -> bool {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.is_some() && text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"))
}

/// Bytes of a registered name: unreserved, sub-delimiters but the comma, escapes.
static HOST: ByteSet = byte_set!(byte => byte.is_ascii_alphanumeric()
    || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='));

/// `host[:port]` in the bytes that a host may have (RFC 3986, 3.2.2), an address in brackets included.
fn is_host(text: &[u8]) -> bool {
    let is_port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        let (address, after) = rest.split_at(end);
        let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        return !address.is_empty()
            && address.iter().all(is_part)
            && match after.strip_prefix(b"]").unwrap_or_default() {
                [] => true,
                [b':', port @ ..] => is_port(port),
                _ => false,
            };
    }
    let mut parts = text.splitn(2, |byte| *byte == b':');
    let name = parts.next().unwrap_or_default();
    !name.is_empty() && HOST.has_all(name) && parts.next().is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    #[test]
    fn a_request_says_in_one_way_where_it_ends() {
        use BadFraming::{Both, Coding, Expectation, Host, Length};
        // (header lines beside a good Host, outcome)
        let table: &[(Lines, Result<(), BadFraming>)] = &[
            (&[], Ok(())),
            (&[("content-length", "0")], Ok(())),
            (&[("content-length", "42")], Ok(())),
            (&[("content-length", "9223372036854775807")], Ok(())),
            (&[("content-length", "9223372036854775808")], Err(Length)),
            (&[("content-length", "42"), ("content-length", "42")], Err(Length)),
            (&[("content-length", "42, 42")], Err(Length)),
            (&[("content-length", "042")], Err(Length)),
            (&[("content-length", "+42")], Err(Length)),
            (&[("content-length", "")], Err(Length)),
            (&[("transfer-encoding", "chunked")], Ok(())),
            (&[("transfer-encoding", "CHUNKED")], Ok(())),
            (&[("transfer-encoding", "gzip, chunked")], Err(Coding)),
            (&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")], Err(Coding)),
            (&[("transfer-encoding", "chunked"), ("content-length", "1")], Err(Both)),
            (&[("expect", "100-Continue")], Ok(())),
            (&[("expect", "200-ok")], Err(Expectation)),
            (&[("expect", "100-continue"), ("expect", "100-continue")], Err(Expectation)),
            (&[("host", "b")], Err(Host)),
        ];
        for (lines, outcome) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("a"));
            for (name, value) in *lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(check(Version::HTTP_11, &headers, false), *outcome, "{lines:?}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(check(Version::HTTP_2, &headers, false), Ok(()));
        assert_eq!(check(Version::HTTP_11, &headers, false), Err(Host));
        headers.insert(header::HOST, HeaderValue::from_static("a"));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert_eq!(check(Version::HTTP_11, &headers, true), Err(Both));
    }

    #[test]
    fn a_host_is_a_host_and_perhaps_a_port() {
        for host in
            ["a", "a.example:8080", "127.0.0.1", "[::1]", "[::1]:443", "a_b", "xn--bcher-kva.example", "a:"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a\\b",
            "a:b",
            "a:1:2",
            "a:123456",
            "[::1",
            "[]",
            "[g]",
            "[::1]x",
            "b\u{fc}cher",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn over_http2_a_value_is_what_others_would_see_and_the_authority_is_a_host() {
        use BadFraming::{Blank, Host, Length};
        // (authority, header lines, outcome)
        let table: &[(Option<&str>, Lines, Result<(), BadFraming>)] = &[
            (Some("a.test"), &[], Ok(())),
            (Some("a.test:8080"), &[("x-a", "1 2")], Ok(())),
            (Some("[2001:db8::1]:80"), &[("x-a", "")], Ok(())),
            (None, &[("host", "a.test")], Ok(())),
            (Some("a.test,b.test"), &[], Err(Host)),
            (Some("a.test:8a"), &[], Err(Host)),
            (Some("a@b.test"), &[], Err(Host)),
            (Some("a.test"), &[("host", "a.test,b.test")], Err(Host)),
            (Some("a.test"), &[("x-a", " 1")], Err(Blank)),
            (Some("a.test"), &[("x-a", "1\t")], Err(Blank)),
            (Some("a.test"), &[("x-a", " ")], Err(Blank)),
            (Some("a.test"), &[("content-length", "05")], Err(Length)),
        ];
        for (authority, lines, outcome) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let told = check_http2(&headers, authority.map(str::as_bytes));
            assert_eq!(told, *outcome, "{authority:?} {lines:?}");
        }
    }
}
