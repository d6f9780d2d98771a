//! Spans as they are kept until they are sent.

use std::borrow::Cow;
use std::time::Instant;

use http::HeaderValue;

use super::context::{SpanId, TraceId};

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within the gate.
    Internal,
    /// A request of a client.
    Server,
    /// A request to an upstream.
    Client,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(u64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// One span. No attribute may hold a token (law 7): whoever makes one takes only what is ours, from a closed set, or
/// passed a strict grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its name.
    pub id: SpanId,
    /// Whose child it is.
    pub parent: Option<SpanId>,
    /// What people read.
    pub name: Cow<'static, str>,
    /// What it is of.
    pub kind: Kind,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// What is told of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it ended in a failure.
    pub failed: bool,
}

/// All spans of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace they belong to.
    pub id: TraceId,
    /// The words of other tracing systems that came along.
    pub state: Option<HeaderValue>,
    /// The spans.
    pub spans: Vec<Span>,
}
