//! W3C Trace Context, level 2: who a trace is, as `traceparent` and `tracestate` say it.
//!
//! Read strictly: what is not exactly in the grammar is no context, and the trace begins anew. Pure.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::token::contains_token;

/// The header that names trace and parent.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header in which tracing systems keep words of their own.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The most members of a `tracestate`, and the most of its bytes that are passed on; the recommendation asks for 512.
const MEMBERS: usize = 32;
const STATE_BYTES: usize = 4096;

/// A trace's name: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span's name: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// A new trace, named by a request's id: its last ten bytes are random, as the `random` flag promises.
    pub fn of_request(id: ulid::Ulid) -> Self {
        Self(if id.0 == 0 { 1_u128 } else { id.0 }.to_be_bytes())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes that are random by the recommendation: the right-most seven.
    pub fn random_part(&self) -> u64 {
        u64::try_from(u128::from_be_bytes(self.0) & 0x00ff_ffff_ffff_ffff).unwrap_or_default()
    }
}

impl SpanId {
    /// A new one.
    pub fn generate() -> Self {
        // The lower 80 bits of an ULID are random.
        let bits = u64::try_from(ulid::Ulid::generate().0 & u128::from(u64::MAX)).unwrap_or_default();
        Self(bits.max(1).to_be_bytes())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// Whether the caller keeps this trace.
    pub sampled: bool,
    /// Whether the trace's name is random in its last seven bytes.
    pub random: bool,
}

fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    // Upper case is not in the grammar.
    let lower = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

impl TraceParent {
    /// Reads one. A version later than 00 is read as far as 00 goes, as the recommendation asks.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let dash = |at: usize| text.get(at) == Some(&b'-');
        if !(dash(2) && dash(35) && dash(52)) {
            return None;
        }
        let [version] = read_hex::<1>(text.get(..2)?)?;
        let whole = match version {
            0xff => false,
            0 => text.len() == LENGTH,
            _ => text.len() == LENGTH || dash(LENGTH),
        };
        let trace = read_hex::<16>(text.get(3..35)?)?;
        let span = read_hex::<8>(text.get(36..52)?)?;
        let [flags] = read_hex::<1>(text.get(53..LENGTH)?)?;
        let named = trace != [0; 16] && span != [0; 8];
        (whole && named).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 != 0,
            random: flags & 2 != 0,
        })
    }

    /// The one that a request's headers hold; `None`: there is none, or more than one, or it is not well formed.
    pub fn find(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// As a header, in version 00.
    pub fn to_header(self) -> String {
        let flags = u8::from(self.sampled) | (u8::from(self.random) << 1);
        format!("00-{}-{}-{flags:02x}", self.trace, self.span)
    }
}

/// The `tracestate` of a request as one value; `None`: there is none, or it is not well formed, or holds a token.
pub(super) fn find_tracestate(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut state = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        if !state.is_empty() {
            state.push(b',');
        }
        state.extend_from_slice(value.as_bytes());
    }
    (!state.is_empty() && is_tracestate(&state) && !contains_token(&state))
        .then(|| HeaderValue::from_bytes(&state).ok())
        .flatten()
}

fn is_tracestate(text: &[u8]) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for member in text.split(|byte| *byte == b',') {
        let member = trim(member);
        if member.is_empty() {
            continue;
        }
        let Some(equals) = memchr::memchr(b'=', member) else { return false };
        let (key, value) = member.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return false;
        }
        keys.push(key);
    }
    !keys.is_empty() && keys.len() <= MEMBERS && text.len() <= STATE_BYTES
}

fn trim(text: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !space(byte)).map_or(start, |at| at + 1);
    text.get(start..end).unwrap_or_default()
}

fn is_key(key: &[u8]) -> bool {
    let first = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let more = |byte: &u8| first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.first().is_some_and(first) && key.len() <= 256 && key.iter().all(more)
}

fn is_value(value: &[u8]) -> bool {
    let graphic = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.last() != Some(&b' ') && value.iter().all(graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_exactly_what_is_in_the_grammar() {
        let long = format!("{GOOD}-00");
        let later = GOOD.replacen("00", "cc", 1);
        let table: &[(&str, Option<(bool, bool)>)] = &[
            (GOOD, Some((true, false))),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some((false, false))),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", Some((true, true))),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", Some((true, true))),
            (&later, Some((true, false))),
            (&format!("{later}-more"), Some((true, false))),
            (&format!("{later}more"), None),
            (&format!("{later}."), None),
            (&long, None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-011", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            ("0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("", None),
        ];
        for (text, expected) in table {
            let read = TraceParent::parse(text.as_bytes());
            assert_eq!(read.map(|read| (read.sampled, read.random)), *expected, "{text}");
        }
        let read = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(read.to_header(), GOOD);
        assert_eq!(TraceParent::parse(later.as_bytes()).unwrap().to_header(), GOOD);
    }

    #[test]
    fn a_state_is_passed_on_whole_or_not_at_all() {
        let state = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACESTATE, HeaderValue::from_str(value).unwrap());
            }
            find_tracestate(&headers).map(|value| value.to_str().unwrap().to_owned())
        };
        let (long, too_long) = ("v".repeat(256), "v".repeat(257));
        let many = |count: usize| (0..count).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",");
        for good in ["a=b", "0@x=1 2", "a/b-c*d_e=!", "a=b, c=d", "a=b,,c=d", &format!("a={long}"), &many(32)]
        {
            assert_eq!(state(&[good]).as_deref(), Some(good), "{good}");
        }
        assert_eq!(state(&["a=b", "c=d"]).as_deref(), Some("a=b,c=d"));
        let token = format!("a=pk_{}", "0".repeat(32));
        for bad in [
            "",
            "a",
            "=b",
            "a=",
            "A=b",
            "a=b=c",
            "a=b,a=c",
            "a b=c",
            "_a=b",
            &format!("a={too_long}"),
            &many(33),
            &token,
            ",",
        ] {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn ids_are_new_and_never_zero() {
        let (one, other) = (SpanId::generate(), SpanId::generate());
        assert!(one != other && one.bytes() != &[0; 8]);
        assert_ne!(TraceId::of_request(ulid::Ulid(0)).bytes(), &[0; 16]);
    }
}
