//! What a body holds, counted while it flows: records, events, messages.
//!
//! Owns how each kind of body is read ([`BodyKind`]), where it may be cut, and the bytes that end it
//! ([`Tally::farewell`]). Chunks may end anywhere: the count is that of the whole. A tally is some 40 bytes, copies
//! nothing and allocates nothing. It must not know prices (but for [`Flow`], which puts a tally and
//! [`super::cost::Rates`] together) or sockets.
//!
//! To wire a response:
//!
//! 1. [`BodyKind::of`] its head, `Empty` if it can have no body. Where [`super::cost::Price::reads_body`], a response that
//!    is compressed all the same ([`is_encoded`]) cannot be counted, and must not go out.
//! 2. [`Flow::new`] with the route's rates. [`Flow::price`] is what the response costs up to now.
//! 3. For each chunk: [`Flow::pass`], if the credits are held or it is no stream; else [`Flow::admit`], with the credits in
//!    hand for this response, which says how many bytes may go out. If that is not all, get more
//!    ([`Flow::next_price`] tells how many are needed at least) and ask again with the rest of the chunk; if there are
//!    none, send [`Flow::farewell`] and end.
//! 4. A stream that waits with nothing more in hand than its price ends at once, not when the next event comes:
//!    [`Flow::is_between`] says that nothing is cut in two.

mod events;
mod farewell;
mod flow;
mod frames;
mod json;
mod kind;
mod lines;

pub use events::Events;
pub use farewell::reason;
pub use flow::Flow;
pub use frames::Frames;
pub use json::Elements;
pub use kind::{BodyKind, is_encoded};
pub use lines::Lines;

/// A count of what a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    /// The elements of a JSON array.
    Json(Elements),
    /// The lines of NDJSON.
    Lines(Lines),
    /// Server-sent events.
    Events(Events),
    /// Messages in WebSocket frames.
    Frames(Frames),
    /// One record, once there is a byte.
    Opaque(bool),
    /// Nothing.
    Empty,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(kind: BodyKind) -> Self {
        match kind {
            BodyKind::Json => Self::Json(Elements::default()),
            BodyKind::Lines => Self::Lines(Lines::default()),
            BodyKind::Events => Self::Events(Events::default()),
            BodyKind::Frames => Self::Frames(Frames::default()),
            BodyKind::Opaque => Self::Opaque(false),
            BodyKind::Empty => Self::Empty,
        }
    }

    /// Counts a chunk.
    pub fn feed(&mut self, chunk: &[u8]) {
        match self {
            Self::Json(elements) => elements.feed(chunk),
            Self::Opaque(any) => *any |= !chunk.is_empty(),
            Self::Empty => {}
            Self::Lines(_) | Self::Events(_) | Self::Frames(_) => {
                self.feed_within(chunk, u64::MAX);
            }
        }
    }

    /// Counts the part of a chunk that may go out while at most `more` units begin, and tells how long it is. It ends
    /// where the first unit that is not paid for would begin. What is no stream is not cut.
    pub fn feed_within(&mut self, chunk: &[u8], more: u64) -> usize {
        match self {
            Self::Lines(lines) => lines.feed_within(chunk, more),
            Self::Events(events) => events.feed_within(chunk, more),
            Self::Frames(frames) => frames.feed_within(chunk, more),
            Self::Json(_) | Self::Opaque(_) | Self::Empty => {
                self.feed(chunk);
                chunk.len()
            }
        }
    }

    /// Records or events up to now.
    pub fn units(&self) -> u64 {
        match self {
            Self::Json(elements) => elements.count(),
            Self::Lines(lines) => lines.count(),
            Self::Events(events) => events.count(),
            Self::Frames(frames) => frames.count(),
            Self::Opaque(any) => u64::from(*any),
            Self::Empty => 0,
        }
    }

    /// Records or events that must be paid for by now: the units, and the event that has begun.
    pub fn begun(&self) -> u64 {
        match self {
            Self::Events(events) => events.begun(),
            _ => self.units(),
        }
    }

    /// Whether it can be cut: events, lines and frames.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Lines(_) | Self::Events(_) | Self::Frames(_))
    }

    /// Whether nothing is cut in two by ending here.
    pub fn is_between(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.is_between(),
            Self::Events(events) => events.is_between(),
            Self::Frames(frames) => frames.is_between(),
            Self::Json(_) | Self::Opaque(_) | Self::Empty => false,
        }
    }
}

#[cfg(test)]
mod tests;
