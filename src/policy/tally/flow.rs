//! A response as it flows: what it holds up to now, what that costs, and how much of the next chunk is paid for.

use super::{BodyKind, Tally};
use crate::policy::cost::{Credits, Rates, Seen};
use crate::policy::denial::Denial;

/// Counts one response and knows its price at any time. Some 90 bytes, no allocation: it is kept with each open stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    rates: Rates,
    tally: Tally,
    bytes: u64,
}

impl Flow {
    /// Nothing has gone out yet.
    pub fn new(rates: Rates, kind: BodyKind) -> Self {
        Self { rates, tally: Tally::new(kind), bytes: 0 }
    }

    /// What was seen up to now. Units are counted only as far as they can change the price.
    pub fn seen(&self) -> Seen {
        Seen { bytes: self.bytes, units: self.tally.units() }
    }

    /// What the response costs, if it ends here.
    pub fn price(&self) -> Credits {
        self.rates.of(self.seen())
    }

    /// What the response costs when so many bytes in all have gone out, if nothing more is counted in them.
    pub fn price_at(&self, bytes: u64) -> Credits {
        self.rates.of(Seen { bytes: self.bytes.max(bytes), units: self.tally.units() })
    }

    /// What must be in hand for what has gone out already: the price, and that of the event which has begun.
    pub fn due(&self) -> Credits {
        self.rates.of(Seen { bytes: self.bytes, units: self.tally.begun() })
    }

    /// What must be in hand so that at least one more byte of a stream can go out, whatever it begins.
    pub fn next_price(&self) -> Credits {
        let begins = u64::from(self.tally.is_between());
        let (bytes, units) = (self.bytes.saturating_add(1), self.tally.begun().saturating_add(begins));
        self.rates.of(Seen { bytes, units })
    }

    /// Whether it can be cut, and is charged as it flows.
    pub fn is_stream(&self) -> bool {
        self.tally.is_stream()
    }

    /// Whether nothing is cut in two by ending here.
    pub fn is_between(&self) -> bool {
        self.tally.is_between()
    }

    /// What goes out last when the gate ends the stream; `None`: just end.
    pub fn farewell(&self, denial: &Denial) -> Option<Vec<u8>> {
        self.tally.farewell(denial)
    }

    /// A chunk goes out whole.
    pub fn pass(&mut self, chunk: &[u8]) {
        if self.is_read() {
            self.tally.feed(chunk);
        }
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
    }

    /// Whether it matters what the body holds. Where units cost nothing, or the most is reached, only a stream has to be
    /// read, as it may be cut.
    fn is_read(&self) -> bool {
        self.is_stream() || (self.rates.counts_units() && !self.rates.is_most(self.price()))
    }

    /// How many bytes of a chunk may go out with so many credits in hand for the whole response, what it has cost until
    /// now included. They count as gone out. What is no stream goes out whole.
    ///
    /// It is the longest part that is paid for, but for this: it ends before the first event, line or message that is
    /// not, so that nothing of that is given away. If credits reach [`Flow::next_price`], at least one byte may go.
    pub fn admit(&mut self, chunk: &[u8], in_hand: Credits) -> usize {
        let mut whole = *self;
        whole.pass(chunk);
        if !self.is_stream() || whole.due() <= in_hand {
            *self = whole;
            return chunk.len();
        }
        if self.due() > in_hand {
            return 0;
        }
        let paid = self.part(chunk, in_hand);
        if !self.rates.counts_bytes() || paid.0.due() <= in_hand {
            *self = paid.0;
            return paid.1;
        }
        // Bytes cost too. What is due never falls as the part grows, so the longest one that is paid for is found by
        // halving. This is the way of the last chunk of a stream, not of each.
        let (mut fits, mut over) = (0, paid.1);
        let mut best = (*self, 0);
        while over - fits > 1 {
            let middle = fits.midpoint(over);
            let tried = self.part(chunk.get(..middle).unwrap_or_default(), in_hand);
            if tried.0.due() <= in_hand {
                best = tried;
                fits = middle;
            } else {
                over = middle;
            }
        }
        *self = best.0;
        best.1
    }

    /// The part of a chunk up to the first unit that is not paid for, bytes not counted, and its length.
    fn part(&self, chunk: &[u8], in_hand: Credits) -> (Self, usize) {
        let mut part = *self;
        let more = self.rates.units_within(in_hand).saturating_sub(self.tally.begun());
        let len = part.tally.feed_within(chunk, more);
        part.bytes = part.bytes.saturating_add(len as u64);
        (part, len)
    }
}
