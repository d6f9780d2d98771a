//! Lines of NDJSON.
//!
//! A record is a line with something on it; spaces, tabs and a carriage return before the line feed are nothing. A last
//! line without a line feed counts. A record counts as soon as it begins.

use memchr::memchr;

/// The count of lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lines {
    count: u64,
    /// Something stands on the line already.
    inside: bool,
}

impl Lines {
    pub(super) fn feed_within(&mut self, chunk: &[u8], more: u64) -> usize {
        let mut left = more;
        let mut at = 0;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            if self.inside {
                let Some(end) = memchr(b'\n', rest) else { return chunk.len() };
                self.inside = false;
                at += end + 1;
                continue;
            }
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            let Some(start) = rest.iter().position(|byte| !blank(byte)) else { return chunk.len() };
            at += start;
            if left == 0 {
                return at;
            }
            left -= 1;
            self.count = self.count.saturating_add(1);
            self.inside = true;
            // The byte that begins the record is no line feed.
            at += 1;
        }
        chunk.len()
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn is_between(&self) -> bool {
        !self.inside
    }
}
