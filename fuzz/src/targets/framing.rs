//! Any header lines: what counts as framed ends in one way, whoever reads it.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::policy::framing::{check as framing, check_http2};

/// Checks one input: header lines.
pub fn check(data: &[u8]) {
    let (mut headers, mut untrimmed) = (HeaderMap::new(), HeaderMap::new());
    for line in data.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        // Over HTTP/2 nobody takes blanks off.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            untrimmed.append(name, value);
        }
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    // The host stands in `:authority` there.
    let authority = untrimmed.get(header::HOST).cloned();
    if check_http2(&untrimmed, authority.as_ref().map(HeaderValue::as_bytes)).is_ok() {
        let same = untrimmed.values().all(|value| value.as_bytes().trim_ascii() == value.as_bytes());
        assert!(same, "HTTP/1 would see another value");
        untrimmed.remove(header::HOST);
        untrimmed.extend(authority.map(|authority| (header::HOST, authority)));
        if untrimmed.contains_key(header::HOST) {
            assert_eq!(framing(Version::HTTP_11, &untrimmed, false), Ok(()), "refused over HTTP/1");
        }
    }
    if framing(Version::HTTP_11, &headers, false).is_err() {
        return;
    }
    let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let (lengths, codings) = (all(header::CONTENT_LENGTH), all(header::TRANSFER_ENCODING));
    assert!(lengths.len() + codings.len() <= 1, "framed twice");
    for length in lengths {
        let text = std::str::from_utf8(length).expect("digits");
        assert_eq!(text.parse::<i64>().expect("a number").to_string(), text);
    }
    assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked")));
    assert!(all(header::EXPECT).iter().all(|expect| expect.eq_ignore_ascii_case(b"100-continue")));
    let hosts = all(header::HOST);
    let [host] = hosts[..] else { panic!("{} hosts", hosts.len()) };
    assert!(!host.is_empty() && host.iter().all(|byte| byte.is_ascii_graphic()));
    assert!(!host.iter().any(|byte| b"/?#@\\,\"<>".contains(byte)));
}
