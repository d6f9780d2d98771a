//! Path templates (`/{version}/data/{dataset}/**`) and data set templates (`{workspace}/{query.id}`).

use std::fmt;

/// Why a template is refused in `proxy.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// A path must start with a slash.
    #[error("a path starts with `/`")]
    NoSlash,
    /// `//`, or a slash at the end.
    #[error("a path has no empty segment; to serve all below a path, end it with `/**`")]
    EmptySegment,
    /// `**` elsewhere than at the end.
    #[error("`**` stands only as the last segment")]
    TailInside,
    /// Braces that do not enclose exactly one segment's name.
    #[error("`{0}` is not a segment; use a literal or `{{name}}`")]
    BadSegment(String),
    /// A name used twice.
    #[error("`{{{0}}}` stands twice in the path")]
    Twice(String),
    /// A name that the path does not have.
    #[error("`{{{0}}}` is not a segment of the path; it has {1}")]
    UnknownName(String, String),
    /// Braces that do not close, or close nothing.
    #[error("braces do not match; use `{{name}}` or `{{query.NAME}}`")]
    Braces,
    /// The result can never be `WORKSPACE/DATASET`.
    #[error("a data set is written WORKSPACE/DATASET; this template has {0} slashes instead of one")]
    NotADataset(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Name(String),
}

/// The paths a route serves: literals, `{name}` for one segment, a final `/**` for this path and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
    tail: bool,
}

impl PathTemplate {
    /// Reads a path template.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let rest = text.strip_prefix('/').ok_or(BadTemplate::NoSlash)?;
        let (rest, tail) = match rest.strip_suffix("**") {
            Some("") => ("", true),
            Some(rest) => (rest.strip_suffix('/').ok_or(BadTemplate::TailInside)?, true),
            None => (rest, false),
        };
        let mut segments = Vec::new();
        for part in rest.split('/').filter(|_| !rest.is_empty()) {
            let segment = parse_segment(part)?;
            if let Segment::Name(name) = &segment
                && segments.contains(&segment)
            {
                return Err(BadTemplate::Twice(name.clone()));
            }
            segments.push(segment);
        }
        Ok(Self { text: text.to_owned(), segments, tail })
    }

    /// Whether the segments of a canonical path are served.
    pub(super) fn matches(&self, path: &[&str]) -> bool {
        let fits = |segment: &Segment, part: &&str| match segment {
            Segment::Literal(text) => text == part,
            Segment::Name(_) => !part.is_empty(),
        };
        // The root path is one empty segment, and serves the empty template.
        let path = if self.segments.is_empty() && path == [""] { &[] } else { path };
        (path.len() == self.segments.len() || (self.tail && path.len() > self.segments.len()))
            && self.segments.iter().zip(path).all(|(segment, part)| fits(segment, part))
    }

    /// How many segments stand before the tail.
    pub(super) fn fixed_len(&self) -> usize {
        self.segments.len()
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether there is a final `/**`.
    pub fn has_tail(&self) -> bool {
        self.tail
    }

    /// Whether two templates serve exactly the same paths, whatever their names are.
    pub fn same_paths(&self, other: &Self) -> bool {
        let alike = |pair: (&Segment, &Segment)| match pair {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Name(_), Segment::Name(_)) => true,
            _ => false,
        };
        self.tail == other.tail
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// Whether the first segments are exactly these literals.
    pub(super) fn begins_with(&self, literals: &[&str]) -> bool {
        self.segments.len() >= literals.len()
            && self
                .segments
                .iter()
                .zip(literals)
                .all(|(segment, literal)| matches!(segment, Segment::Literal(text) if text == literal))
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.segments.iter().position(|segment| matches!(segment, Segment::Name(n) if n == name))
    }

    fn names(&self) -> String {
        let names = self.segments.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(format!("{{{name}}}")),
            Segment::Literal(_) => None,
        });
        let names: Vec<_> = names.collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn parse_segment(part: &str) -> Result<Segment, BadTemplate> {
    if part.is_empty() {
        return Err(BadTemplate::EmptySegment);
    }
    if part == "**" {
        return Err(BadTemplate::TailInside);
    }
    if let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return if is_name(name) {
            Ok(Segment::Name(name.to_owned()))
        } else {
            Err(BadTemplate::BadSegment(part.to_owned()))
        };
    }
    // A literal is compared with the canonical path, so it must stand in canonical form itself.
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@".contains(&b);
    if !part.bytes().all(fine) || part == "." || part == ".." {
        return Err(BadTemplate::BadSegment(part.to_owned()));
    }
    Ok(Segment::Literal(part.to_owned()))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Segment(usize),
    Query(String),
}

/// How a request names its data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetTemplate {
    text: String,
    pieces: Vec<Piece>,
}

impl DatasetTemplate {
    /// Reads `{workspace}/{dataset}`, `CORE/{query.id}` and the like, for routes of `path`.
    pub fn parse(text: &str, path: &PathTemplate) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from_open) = rest.split_at(open);
            let inside = from_open.strip_prefix('{').ok_or(BadTemplate::Braces)?;
            let (name, after) = inside.split_once('}').ok_or(BadTemplate::Braces)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name.strip_prefix("query.") {
                Some("") => return Err(BadTemplate::Braces),
                Some(param) => Piece::Query(param.to_owned()),
                None => Piece::Segment(
                    path.position(name)
                        .ok_or_else(|| BadTemplate::UnknownName(name.to_owned(), path.names()))?,
                ),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let slash = |piece: &Piece| match piece {
            Piece::Text(text) => text.matches('/').count(),
            Piece::Segment(_) | Piece::Query(_) => 0,
        };
        match pieces.iter().map(slash).sum() {
            1 => Ok(Self { text: text.to_owned(), pieces }),
            // One placeholder alone may carry the whole id, as in `{query.id}`.
            0 if matches!(pieces.as_slice(), [Piece::Query(_)]) => Ok(Self { text: text.to_owned(), pieces }),
            slashes => Err(BadTemplate::NotADataset(slashes)),
        }
    }

    /// What could be granted of it; `None` where the request names the workspace.
    pub(super) fn grantable(&self) -> Option<String> {
        let Some(Piece::Text(first)) = self.pieces.first() else { return None };
        let (workspace, rest) = first.split_once('/')?;
        let whole = self.pieces.len() == 1 && !rest.is_empty();
        Some(if whole { first.clone() } else { format!("{workspace}/*") })
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

impl fmt::Display for DatasetTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
