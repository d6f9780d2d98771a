//! Which kind of body a response has, by what its head says.

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// `application/json` and its kin: an array counts its elements, anything else is one record.
    Json,
    /// Newline-delimited JSON: each line with something on it is a record.
    Lines,
    /// `text/event-stream`.
    Events,
    /// WebSocket, after 101.
    Frames,
    /// Anything else: one record, if there is a byte.
    Opaque,
    /// No body: a response to `HEAD`, 204, 304.
    Empty,
}

/// The types of newline-delimited JSON in use; none is registered.
const LINES: [&str; 7] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/stream+json",
];

impl BodyKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Json, Self::Lines, Self::Events, Self::Frames, Self::Opaque, Self::Empty];

    /// The kind of a body by its `Content-Type`; `is_websocket` after a 101 that upgrades to `websocket`.
    pub fn of(content_type: Option<&[u8]>, is_websocket: bool) -> Self {
        if is_websocket {
            return Self::Frames;
        }
        let text = content_type.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let name = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "text/event-stream" => Self::Events,
            name if LINES.contains(&name) => Self::Lines,
            "application/json" | "text/json" => Self::Json,
            name if name.ends_with("+json") => Self::Json,
            _ => Self::Opaque,
        }
    }

    /// Whether a body of this kind flows without a natural end, and is charged as it flows.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Lines | Self::Events | Self::Frames)
    }
}

/// Whether `Content-Encoding` says that the body is not what it stands for: `gzip`, `br` and the like.
pub fn is_encoded<'v>(content_encoding: impl IntoIterator<Item = &'v [u8]>) -> bool {
    let mut codings = content_encoding.into_iter().flat_map(|value| value.split(|byte| *byte == b','));
    codings.any(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    })
}
