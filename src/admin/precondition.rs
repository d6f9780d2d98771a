//! Versions as entity tags: `ETag` on what is read, `If-Match` on what is written (RFC 9110, 8.8.3 and 13.1.1).
//!
//! Owns the retry, too: a write that names no version builds on whatever is stored, so a conflict with somebody else's
//! write is read again and tried again.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};

use super::problem::Problem;

/// How often a write that names no version is tried. Of several writers one gets through each time, so this is also
/// how many may write one record at once.
pub(super) const ATTEMPTS: usize = 64;

/// Which versions a write may build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Any: no header, or `*`.
    Any,
    /// One of these.
    Versions(Vec<u64>),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let values = parts.headers.get_all(header::IF_MATCH);
        let texts = values.iter().map(|value| value.to_str().ok()).collect::<Option<Vec<_>>>();
        texts.and_then(|texts| read(&texts)).ok_or_else(|| {
            let detail =
                "If-Match must be the ETag of the version to build on, like \"7\" (with quotes), or *.";
            Problem::new(StatusCode::BAD_REQUEST, "invalid_header", detail)
        })
    }
}

fn read(values: &[&str]) -> Option<IfMatch> {
    if values.is_empty() || values == ["*"] {
        return Some(IfMatch::Any);
    }
    let mut versions = Vec::new();
    for tag in values.iter().flat_map(|value| value.split(',')).map(str::trim) {
        // A weak tag is well formed, and never matches (RFC 9110, 13.1.1). So does one that names no version of ours.
        let (weak, tag) = tag.strip_prefix("W/").map_or((false, tag), |tag| (true, tag));
        let inner = tag.strip_prefix('"')?.strip_suffix('"').filter(|inner| !inner.contains('"'))?;
        versions.extend(inner.parse::<u64>().ok().filter(|version| !weak && version.to_string() == inner));
    }
    Some(IfMatch::Versions(versions))
}

impl IfMatch {
    /// Whether the write may build on `version`; if not, the answer to give.
    pub(super) fn check(&self, version: u64) -> Result<(), Problem> {
        match self {
            Self::Any => Ok(()),
            Self::Versions(versions) if versions.contains(&version) => Ok(()),
            Self::Versions(_) => Err(conflict(version)),
        }
    }

    /// Whether a write that came too late may be tried again: only if it named no version.
    pub(super) fn retry(&self, stored: u64) -> Result<(), Problem> {
        if *self == Self::Any { Ok(()) } else { Err(conflict(stored)) }
    }
}

fn conflict(stored: u64) -> Problem {
    let detail =
        format!("Somebody else wrote first: the stored version is {stored}. Read it again, then decide.");
    let (name, value) = etag(stored);
    Problem::new(StatusCode::PRECONDITION_FAILED, "version_conflict", detail).with_header(name, value)
}

/// The answer when [`ATTEMPTS`] writes in a row came too late.
pub(super) fn too_busy() -> Problem {
    let detail = "Too many others write the same record at this moment; nothing was changed. Try again.";
    Problem::new(StatusCode::CONFLICT, "version_conflict", detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// The `ETag` of a version.
pub(super) fn etag(version: u64) -> (HeaderName, HeaderValue) {
    // Quotes and digits are always a valid value.
    let value = HeaderValue::from_str(&format!("\"{version}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"0\""));
    (header::ETAG, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_entity_tags() {
        let versions = |list: &[u64]| Some(IfMatch::Versions(list.to_vec()));
        let table: [(&[&str], Option<IfMatch>); 12] = [
            (&[], Some(IfMatch::Any)),
            (&["*"], Some(IfMatch::Any)),
            (&["\"7\""], versions(&[7])),
            (&["\"7\", \"8\""], versions(&[7, 8])),
            (&["\"7\"", "\"8\""], versions(&[7, 8])),
            (&["W/\"7\""], versions(&[])),
            (&["\"07\""], versions(&[])),
            (&["\"x\""], versions(&[])),
            (&["7"], None),
            (&["\"7"], None),
            (&[""], None),
            (&["*", "\"7\""], None),
        ];
        for (values, expected) in table {
            assert_eq!(read(values), expected, "{values:?}");
        }
    }
}
