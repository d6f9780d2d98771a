//! What the gate tells in the head of a response, and how it gets there.
//!
//! Fields are written as they stand on the wire. [`Told::put_into`] makes headers of them, for HTTP/2 and for whoever calls the
//! gate from a proxy of their own. Over Tollgate's own HTTP/1 connections they take the short way: an [`Appendix`] hands
//! them to the connection, which writes them behind the head that Pingora wrote. A header costs some 1,200 instructions in
//! Pingora's two maps, and a response has eight.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::HeaderName;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;

/// Names that are the gate's to write in every response that passes; an upstream's are taken out.
const OURS: [&str; 5] =
    ["x-credits-used", "x-credits-remaining", "x-request-id", "ratelimit", "ratelimit-policy"];

/// Fields of a head, each with its line end.
#[derive(Debug, Default)]
pub(in crate::gate) struct Told(String);

impl Told {
    /// Writes a field. The pieces are put together to its value; nothing in them may end a line.
    pub(in crate::gate) fn field(&mut self, name: &'static str, pieces: &[&str]) {
        self.field_by(name, |value| pieces.iter().for_each(|piece| value.push_str(piece)));
    }

    /// The same, with a value that is written piece by piece.
    pub(super) fn field_by(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        self.0.push_str(name);
        self.0.push_str(": ");
        let start = self.0.len();
        write(&mut self.0);
        debug_assert!(!self.0.split_at(start).1.contains(['\r', '\n', '\0']), "a value ends no line");
        self.0.push_str("\r\n");
    }

    /// Makes headers of the fields, beside those that are there.
    pub(in crate::gate) fn put_into(self, response: &mut ResponseHeader) -> pingora::Result<()> {
        let fields = Bytes::from(self.0);
        for line in fields.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(at) = memchr::memchr(b':', line) else { continue };
            let (name, value) = line.split_at(at);
            let value = value.strip_prefix(b": ").unwrap_or_default();
            response.append_header(fields.slice_ref(name), value)?;
        }
        Ok(())
    }
}

/// Takes out what an upstream said in the gate's name.
pub(in crate::gate) fn clear(response: &mut ResponseHeader) {
    let is_ours = |name: &HeaderName| {
        let name = name.as_str();
        matches!(name.as_bytes().first(), Some(b'x' | b'r')) && OURS.contains(&name)
    };
    // Nearly no upstream says any.
    if response.headers.keys().any(is_ours) {
        for name in OURS {
            response.remove_header(name);
        }
    }
}

/// Fields that a connection of HTTP/1 writes behind the next head. One belongs to each connection of Tollgate's own listeners.
///
/// It is filled when all is known of a response that passes, just before Pingora writes its head. A head that is written
/// instead of that one, because something failed between, gets none: see [`Appendix::withdraw`].
#[derive(Debug, Default)]
pub struct Appendix {
    filled: AtomicBool,
    told: Mutex<Told>,
}

impl Appendix {
    /// Has the fields written anew.
    pub(in crate::gate) fn fill(&self, write: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock();
        told.0.clear();
        write(&mut told);
        self.filled.store(true, Ordering::Release);
    }

    /// Has these fields written.
    #[cfg(test)]
    pub(crate) fn fill_with(&self, fields: &[(&'static str, &str)]) {
        self.fill(|told| {
            for (name, value) in fields {
                told.field(name, &[value]);
            }
        });
    }

    /// The head that the fields were for is not written.
    pub fn withdraw(&self) {
        self.filled.store(false, Ordering::Release);
    }

    /// Whether fields wait for a head.
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// The fields for a head that is written now; each ends with CR LF. They are handed out once.
    pub fn take<T>(&self, write: impl FnOnce(&[u8]) -> T) -> T {
        let told = self.told.lock();
        self.filled.store(false, Ordering::Release);
        write(told.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_headers_beside_those_that_are_there() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header("Vary", "Accept").unwrap();
        response.insert_header("X-Request-Id", "the upstream's").unwrap();
        response.insert_header("RateLimit", "the upstream's").unwrap();
        response.insert_header("X-Other", "stays").unwrap();
        clear(&mut response);
        let mut told = Told::default();
        told.field("X-Request-Id", &["0", "1"]);
        told.field("Vary", &["Origin"]);
        told.put_into(&mut response).unwrap();
        let mut wire = Vec::new();
        response.header_to_h1_wire(&mut wire);
        let wire = String::from_utf8(wire).unwrap();
        let mut lines: Vec<&str> = wire.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["Vary: Accept", "Vary: Origin", "X-Other: stays", "X-Request-Id: 01"]);
    }

    #[test]
    fn an_appendix_is_handed_out_once_and_not_after_it_was_withdrawn() {
        let appendix = Appendix::default();
        let fill = |text: &str| appendix.fill(|told| told.field("A", &[text]));
        assert!(!appendix.is_filled());
        fill("1");
        assert!(appendix.is_filled());
        assert_eq!(appendix.take(<[u8]>::to_vec), b"A: 1\r\n");
        assert!(!appendix.is_filled());
        fill("2");
        appendix.withdraw();
        assert!(!appendix.is_filled());
        fill("3");
        assert_eq!(appendix.take(<[u8]>::to_vec), b"A: 3\r\n");
    }
}
