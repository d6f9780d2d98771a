//! `cors`: what browsers are told (`policy.md`, "CORS").

use std::time::Duration;

use http::HeaderName;

use super::reader::{Item, Keys, Read};

/// What browsers are told in answer to a preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The request headers that a page may send: names in lower case, or the start of names followed by `*`.
    pub allow_headers: Vec<String>,
    /// How long a browser may keep the answer.
    pub max_age: Duration,
}

/// What common client libraries send, and what the gate itself reads.
const ALLOW_HEADERS: [&str; 15] = [
    "accept",
    "accept-language",
    "authorization",
    "cache-control",
    "content-language",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "last-event-id",
    "range",
    "x-api-key",
    "x-iex-date",
    "x-*",
];

impl Default for Cors {
    fn default() -> Self {
        let allow_headers = ALLOW_HEADERS.iter().map(|name| (*name).to_owned()).collect();
        Self { allow_headers, max_age: Duration::from_mins(10) }
    }
}

impl Cors {
    /// Whether a page may send a header of this name, whatever the case of its letters.
    pub fn allows(&self, header: &str) -> bool {
        self.allow_headers.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => header.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
            None => header.eq_ignore_ascii_case(pattern),
        })
    }
}

/// Reads a header's name, or the start of names followed by `*`; gives it in lower case.
fn parse_pattern(text: &str) -> Option<String> {
    let start = text.strip_suffix('*').unwrap_or(text);
    let name = HeaderName::from_bytes(start.as_bytes()).is_ok() && !start.contains('*');
    (name || text == "*").then(|| text.to_ascii_lowercase())
}

pub(super) const KEYS: Keys = Keys { known: &["allow_headers", "max_age"], later: &[] };

/// A day: what browsers keep at most.
const LONGEST: Duration = Duration::from_hours(24);

pub(super) fn read(item: &Item<'_>) -> Read<Cors> {
    let fields = item.fields(&KEYS, "a mapping of `allow_headers` and `max_age`")?;
    let default = Cors::default();
    let allow_headers = fields.or("allow_headers", default.allow_headers, |item| {
        item.list_of("a list of header names", |item| {
            item.parse("a header's name such as x-api-key, or the start of names such as x-*", parse_pattern)
        })
    });
    let max_age = fields.or("max_age", default.max_age, |item| item.duration(Duration::ZERO..=LONGEST));
    Ok(Cors { allow_headers: allow_headers?, max_age: max_age? })
}
