//! Paths of pages, as rules compare them.
//!
//! Owns the one form of a page's path and what "continues" means. A page's path is not a request target: the server
//! of another site decides what it means, so odd ones are not refused as targets are, they only match no rule.

use crate::policy::target::{has_dot_segment, push_escaped, push_plain, read_escape};

/// Brings the path of a parsed URL to the form that rules compare: escapes only where they are needed, hex digits in
/// upper case. A `%` that starts no escape stands for itself.
pub(super) fn normalize(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' => out.push('/'),
            b'%' => {
                let mut ahead = bytes.clone();
                if let Some(value) = read_escape(&mut ahead) {
                    push_escaped(&mut out, value);
                    bytes = ahead;
                } else {
                    push_escaped(&mut out, b'%');
                }
            }
            _ => push_plain(&mut out, byte),
        }
    }
    out
}

/// Whether a page's path equals the rule's path or continues it after a `/`. Both are normalized.
///
/// A page's path that climbs with `..` behind an encoded slash continues nothing: its server may take it elsewhere.
pub(super) fn continues(page: &str, rule: &str) -> bool {
    let rest = page.strip_prefix(rule);
    rest.is_some_and(|rest| rest.is_empty() || rule.ends_with('/') || rest.starts_with('/'))
        && !has_dot_segment(page)
}
