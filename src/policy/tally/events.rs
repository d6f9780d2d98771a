//! Server-sent events, by the rules of the event stream (WHATWG HTML, 9.2.6 "Interpreting an event stream").
//!
//! An event is a block of lines with a `data` field among them, ended by an empty line; CR, LF and CRLF each end a line.
//! Comments, blocks without data, and a block that the end of the stream cuts off are no events. A byte order mark at the
//! very start is nothing.

use memchr::memchr2;

/// The count of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    count: u64,
    line: Line,
    /// The block has a line that is no comment, or the start of one.
    begun: bool,
    /// The block has a `data` field.
    data: bool,
    /// The byte before was CR, so an LF now ends nothing more.
    after_cr: bool,
}

/// Where in a line the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    /// At the start of the stream, or so many bytes into its byte order mark.
    #[default]
    First,
    Mark(u8),
    /// At the start of a line.
    Start,
    /// In a name that is the start of `data` so far, and so long.
    Name(u8),
    /// Where nothing matters but the line's end.
    Rest,
    Comment,
}

impl Events {
    pub(super) fn feed_within(&mut self, chunk: &[u8], more: u64) -> usize {
        let mut left = more;
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            let after_cr = std::mem::take(&mut self.after_cr);
            if after_cr && byte == b'\n' {
                at += 1;
                continue;
            }
            if matches!(self.line, Line::Rest | Line::Comment) {
                let rest = chunk.get(at..).unwrap_or_default();
                let Some(end) = memchr2(b'\n', b'\r', rest) else { return chunk.len() };
                self.after_cr = rest.get(end) == Some(&b'\r');
                self.line = Line::Start;
                at += end + 1;
                continue;
            }
            let starts = matches!(self.line, Line::First | Line::Start);
            let opens = starts && !self.begun && !matches!(byte, b'\n' | b'\r' | b':');
            if opens {
                if left == 0 {
                    // This byte was only looked at.
                    self.after_cr = after_cr;
                    return at;
                }
                left -= 1;
                self.begun = true;
            }
            if starts && chunk.get(at..).is_some_and(|rest| rest.starts_with(b"data:")) {
                // Most lines of most streams.
                (self.data, self.line) = (true, Line::Rest);
                at += b"data:".len();
                continue;
            }
            let counted = self.count;
            let was_begun = self.begun;
            self.step(byte);
            // A block that was no event, or a byte order mark, costs nothing: what it took is free again.
            if was_begun && !self.begun && self.count == counted {
                left = left.saturating_add(1);
            }
            at += 1;
        }
        chunk.len()
    }

    /// Takes a byte of a line's beginning or name.
    fn step(&mut self, byte: u8) {
        const NAME: &[u8] = b"data";
        self.line = match (self.line, byte) {
            (Line::First, 0xef) => Line::Mark(1),
            (Line::Mark(1), 0xbb) => Line::Mark(2),
            (Line::Mark(2), 0xbf) => {
                self.begun = false;
                Line::Start
            }
            (Line::First | Line::Start, b'\n' | b'\r') => {
                self.end_block();
                Line::Start
            }
            (_, b'\n' | b'\r') => {
                self.data |= self.line == Line::Name(4);
                Line::Start
            }
            (Line::First | Line::Start, b':') => Line::Comment,
            (Line::First | Line::Start, b'd') => Line::Name(1),
            (Line::Name(4), b':') => {
                self.data = true;
                Line::Rest
            }
            (Line::Name(matched), byte) if NAME.get(usize::from(matched)) == Some(&byte) => {
                Line::Name(matched + 1)
            }
            _ => Line::Rest,
        };
        self.after_cr = byte == b'\r';
    }

    fn end_block(&mut self) {
        if std::mem::take(&mut self.data) {
            self.count = self.count.saturating_add(1);
        }
        self.begun = false;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn begun(&self) -> u64 {
        self.count.saturating_add(u64::from(self.begun))
    }

    pub(super) fn is_between(&self) -> bool {
        !self.begun && matches!(self.line, Line::First | Line::Start)
    }
}
