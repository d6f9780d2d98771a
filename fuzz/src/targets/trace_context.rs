//! Any bytes as `traceparent` and `tracestate`: what is read is in the grammar, and what is passed on reads the same.

use http::{HeaderMap, HeaderValue};

use crate::policy::token::contains_token;
use crate::telemetry::traces::{TRACEPARENT, TRACESTATE, TraceParent, tracestate};

/// Checks one input: the first line is a `traceparent`, the others are lines of a `tracestate`.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    if let Some(parent) = TraceParent::parse(first) {
        let written = parent.to_header();
        assert_eq!(written.len(), 55);
        assert_eq!(TraceParent::parse(written.as_bytes()), Some(parent), "not its own header");
        // Nothing of a later version but what version 00 knows.
        assert_eq!(first[3..52], written.as_bytes()[3..52]);
        assert!(first.len() == written.len() || (!first.starts_with(b"00") && first[55] == b'-'));
        assert!(parent.trace.bytes() != &[0; 16] && parent.span.bytes() != &[0; 8]);
        assert!(parent.trace.random_part() < 1 << 56);
    }

    let mut headers = HeaderMap::new();
    for value in std::iter::once(first).filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(TRACEPARENT, value);
        assert_eq!(TraceParent::find(&headers), TraceParent::parse(first));
        headers.append(TRACEPARENT, HeaderValue::from_static(""));
        assert_eq!(TraceParent::find(&headers), None, "one of two");
    }
    for value in lines.filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(TRACESTATE, value);
    }
    let Some(state) = tracestate(&headers) else { return };
    let text = state.as_bytes();
    assert!((1..=4096).contains(&text.len()) && !contains_token(text));
    assert!(text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
    let members = text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    assert!(members.clone().all(|member| member.iter().filter(|byte| **byte == b'=').count() == 1));
    assert!((1..=32).contains(&members.count()));
    let alone = HeaderMap::from_iter([(TRACESTATE, state.clone())]);
    assert_eq!(tracestate(&alone), Some(state), "not its own header");
}
