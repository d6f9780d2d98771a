//! The elements of a JSON text whose value is an array.
//!
//! Read 64 bytes at a time: where the quotes, escapes, brackets and commas are becomes bits of a word, and strings are
//! masked out by a running xor (the way of Langdale and Lemire, "Parsing Gigabytes of JSON per Second"). Whatever vectors
//! the machine has are used (`fearless_simd`: it looks once, and takes the `unsafe` out of it). Brackets are not walked
//! through one by one, but near the end of the array. No byte of a text that is no array is looked at after its first.
//!
//! It is a count, not a check. Brackets, commas outside strings and quotes decide, and a backslash takes the meaning of
//! the byte after it wherever it stands. So a text that breaks off, or is no JSON, has a count too: one more than the
//! commas in the array, if anything stands in it. `[1,2,` is 3.

use fearless_simd::{Level, Simd, SimdBase, SimdFrom, SimdMask, dispatch, u8x64};

/// The count of elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Elements {
    count: u64,
    depth: u64,
    /// All ones within a string.
    in_string: u64,
    /// 1 if the next byte is escaped.
    escaped: u64,
    part: Part,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// Nothing but white space so far, or a byte order mark.
    #[default]
    Before,
    /// Nothing but white space in the array so far.
    Opened,
    Inside,
    /// The array has ended, or there is none.
    Done,
}

const BLOCK: usize = 64;

/// Where in a block these bytes are: a bit for each byte, the first byte's lowest.
#[derive(Clone, Copy)]
struct Marks {
    quotes: u64,
    backslashes: u64,
    opens: u64,
    closes: u64,
    commas: u64,
}

impl Elements {
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.feed_by(Level::new(), chunk);
    }

    /// The same, with no vectors beyond these.
    pub(super) fn feed_by(&mut self, level: Level, chunk: &[u8]) {
        let mut rest = chunk;
        while let (Part::Before | Part::Opened, Some((byte, after))) = (self.part, rest.split_first()) {
            match (self.part, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n') | (Part::Before, 0xef | 0xbb | 0xbf) => {}
                (Part::Before, b'[') => (self.part, self.depth) = (Part::Opened, 1),
                (Part::Opened, b']') => self.part = Part::Done,
                (Part::Before, _) => (self.part, self.count) = (Part::Done, 1),
                _ => {
                    (self.part, self.count) = (Part::Inside, 1);
                    // This byte is the first of an element, and is read as such.
                    break;
                }
            }
            rest = after;
        }
        if self.part == Part::Inside {
            let now = *self;
            *self = dispatch!(level, simd => now.after(simd, rest));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What it is after more of the text. By value, so that it stays in registers.
    #[expect(clippy::inline_always, reason = "else it would be compiled without the vectors that were found")]
    #[inline(always)]
    fn after<S: Simd>(mut self, simd: S, text: &[u8]) -> Self {
        let (blocks, tail) = text.as_chunks::<BLOCK>();
        for block in blocks {
            self.take(Marks::of(simd, block), BLOCK);
            if self.part != Part::Inside {
                return self;
            }
        }
        if !tail.is_empty() {
            // Spaces change nothing, wherever they stand.
            let mut block = [b' '; BLOCK];
            for (to, from) in block.iter_mut().zip(tail) {
                *to = *from;
            }
            self.take(Marks::of(simd, &block), tail.len());
        }
        self
    }

    /// Takes a block of which `len` bytes are the text's.
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn take(&mut self, marks: Marks, len: usize) {
        let escaped = self.escaped_bits(marks.backslashes, len);
        let inside = prefix_xor(marks.quotes & !escaped) ^ self.in_string;
        self.in_string = 0u64.wrapping_sub(inside >> 63);
        let meaning = !inside & !escaped;
        let (opens, closes) = (marks.opens & meaning, marks.closes & meaning);
        let commas = marks.commas & meaning;
        // A closing bracket that an opening one comes just before borrows from itself, and is gone. So the depth never
        // falls by more than are left.
        let falls = ones(closes.wrapping_sub(opens) & closes);
        if self.depth <= falls {
            return self.walk(opens, closes, commas);
        }
        if self.depth <= falls + 1 {
            self.count = self.count.saturating_add(self.commas_between(opens, closes, commas));
        }
        self.depth = self.depth + ones(opens) - ones(closes);
    }

    /// How many commas of a block are the array's own.
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn commas_between(&self, opens: u64, closes: u64, commas: u64) -> u64 {
        let brackets = opens | closes;
        let first = brackets & brackets.wrapping_neg();
        let mut count = if self.depth == 1 { ones(commas & first.wrapping_sub(1)) } else { 0 };
        // Behind an opening bracket none is the array's. A closing one borrows all bits up to the next opening one.
        let mut behind = commas & (opens.wrapping_sub(closes) | closes) & !opens;
        while behind != 0 {
            let before = (behind & behind.wrapping_neg()) - 1;
            count += u64::from(self.depth + ones(opens & before) == ones(closes & before) + 1);
            behind &= behind - 1;
        }
        count
    }

    /// Goes from bracket to bracket: the array may end in this block.
    #[cold]
    fn walk(&mut self, opens: u64, closes: u64, commas: u64) {
        let mut brackets = opens | closes;
        let mut done = 0u64;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            let before = bit - 1;
            if self.depth == 1 {
                self.count = self.count.saturating_add(ones(commas & before & !done));
            }
            done = before | bit;
            self.depth = if closes & bit == 0 { self.depth + 1 } else { self.depth - 1 };
            if self.depth == 0 {
                // What comes after the array is not read.
                *self = Self { count: self.count, part: Part::Done, ..Self::default() };
                return;
            }
            brackets &= brackets - 1;
        }
        if self.depth == 1 {
            self.count = self.count.saturating_add(ones(commas & !done));
        }
    }

    /// Which bytes follow a backslash that counts: in a row of them every second one does.
    #[inline(always)]
    fn escaped_bits(&mut self, backslashes: u64, len: usize) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        if backslashes == 0 {
            let escaped = self.escaped;
            self.escaped = 0;
            return escaped;
        }
        let backslashes = backslashes & !self.escaped;
        let follows = (backslashes << 1) | self.escaped;
        let odd_starts = backslashes & !EVEN & !follows;
        let (even_rows, carried) = odd_starts.overflowing_add(backslashes);
        let escaped = (EVEN ^ (even_rows << 1)) & follows;
        // A row that reaches the end of the text's part escapes the first byte of the next.
        self.escaped = if len == BLOCK { u64::from(carried) } else { (escaped >> len) & 1 };
        escaped
    }
}

impl Marks {
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn of<S: Simd>(simd: S, block: &[u8; BLOCK]) -> Self {
        let bytes = u8x64::simd_from(simd, *block);
        let find = |bytes: u8x64<S>, byte| bytes.simd_eq(u8x64::splat(simd, byte)).to_bitmask();
        // `[` and `{`, `]` and `}` differ in one bit.
        let folded = bytes | u8x64::splat(simd, 0x20);
        Self {
            quotes: find(bytes, b'"'),
            backslashes: find(bytes, b'\\'),
            opens: find(folded, b'{'),
            closes: find(folded, b'}'),
            commas: find(bytes, b','),
        }
    }
}

#[expect(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn ones(bits: u64) -> u64 {
    u64::from(bits.count_ones())
}

/// Each bit becomes the xor of itself and all below it: ones from each opening quote up to its closing one.
#[expect(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
