//! `per_item`: where a request names its items, and how many they are.

use super::super::query;
use super::super::target::{BadTarget, Target, decode};
use super::template::PathTemplate;
use super::{Route, is_separator};

/// Where the items of a request stand. Items are separated by commas, encoded or not, and by the separator that the
/// request names itself where the route lets it; empty ones are none. The same item twice is two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Items {
    /// In a query parameter; if it stands several times, all of it counts.
    Query(String),
    /// In a segment of the path, by its position.
    Segment(usize),
}

impl Items {
    /// In the segment that the path calls by this name.
    pub fn segment(name: &str, path: &PathTemplate) -> Option<Self> {
        path.position(name).map(Self::Segment)
    }
}

impl Route {
    /// How many items a request has; at least 1: what names no item still asks for something. 1 without `per_item`.
    pub fn items(&self, target: &Target) -> Result<u64, BadTarget> {
        let Some(items) = &self.items else { return Ok(1) };
        let separator = self.separator(target)?;
        let count = |text: &[u8]| {
            text.split(|byte| is_separator(*byte, separator)).filter(|item| !item.is_empty()).count()
        };
        let found: usize = match items {
            Items::Query(name) => query::values(target.query(), name).iter().map(|value| count(value)).sum(),
            Items::Segment(at) => {
                let segment = target.segments().nth(*at).unwrap_or_default();
                count(decode(segment).ok_or(BadTarget::NotUtf8)?.as_bytes())
            }
        };
        Ok(u64::try_from(found).unwrap_or(u64::MAX).max(1))
    }
}
