//! Any text as a kept member and a kept session: what can be read is written back as it was read.

use crate::store::{member_text, session_text};

const ID: &str = "mem_01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// Checks one input.
pub fn check(data: &[u8]) {
    if let Some((written, _)) = member_text(ID, data) {
        assert_eq!(member_text(ID, written.as_bytes()).map(|(text, _)| text), Some(written));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(written) = session_text(text) {
        assert_eq!(session_text(&written), Some(written));
    }
}
