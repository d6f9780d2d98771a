//! The elements of a JSON text whose value is an array.
//!
//! Read 64 bytes at a time: where the quotes, escapes, brackets and commas are becomes bits of a word, and strings are
//! masked out by a running xor (the way of Langdale and Lemire, "Parsing Gigabytes of JSON per Second"). No byte of a
//! text that is no array is looked at after its first.
//!
//! It is a count, not a check. Brackets, commas outside strings and quotes decide, and a backslash takes the meaning of
//! the byte after it wherever it stands. So a text that breaks off, or is no JSON, has a count too: one more than the
//! commas in the array, if anything stands in it. `[1,2,` is 3.

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

impl Elements {
    pub(super) fn feed(&mut self, chunk: &[u8]) {
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
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        for block in blocks {
            if self.part != Part::Inside {
                return;
            }
            self.take(block, BLOCK);
        }
        if self.part == Part::Inside && !tail.is_empty() {
            // Spaces change nothing, wherever they stand.
            let mut block = [b' '; BLOCK];
            for (to, from) in block.iter_mut().zip(tail) {
                *to = *from;
            }
            self.take(&block, tail.len());
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes a block of which `len` bytes are the text's.
    fn take(&mut self, block: &[u8; BLOCK], len: usize) {
        let escaped = self.escaped_bits(bits(block, b'\\', 0), len);
        let inside = prefix_xor(bits(block, b'"', 0) & !escaped) ^ self.in_string;
        self.in_string = 0u64.wrapping_sub(inside >> 63);
        // `[` and `{`, `]` and `}` differ in one bit.
        let meaning = !inside & !escaped;
        let opens = bits(block, b'{', 0x20) & meaning;
        let closes = bits(block, b'}', 0x20) & meaning;
        if self.depth > u64::from(closes.count_ones()) + 1 {
            // Deep within an element, whatever order the brackets stand in.
            self.depth += u64::from(opens.count_ones());
            self.depth -= u64::from(closes.count_ones());
            return;
        }
        self.walk(opens, closes, bits(block, b',', 0) & meaning);
    }

    /// Goes from bracket to bracket and counts the commas of the array itself.
    fn walk(&mut self, opens: u64, closes: u64, commas: u64) {
        let mut brackets = opens | closes;
        let mut done = 0u64;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            let before = bit - 1;
            if self.depth == 1 {
                self.add(commas & before & !done);
            }
            done = before | bit;
            self.depth = if opens & bit == 0 { self.depth - 1 } else { self.depth + 1 };
            if self.depth == 0 {
                // What comes after the array is not read.
                *self = Self { count: self.count, part: Part::Done, ..Self::default() };
                return;
            }
            brackets &= brackets - 1;
        }
        if self.depth == 1 {
            self.add(commas & !done);
        }
    }

    fn add(&mut self, commas: u64) {
        self.count = self.count.saturating_add(u64::from(commas.count_ones()));
    }

    /// Which bytes follow a backslash that counts: in a row of them every second one does.
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

/// A bit for each byte that is `wanted` once `fold` is set in it. Written so that the compiler uses vectors: eight bytes
/// each hold another bit, and a multiplication gathers them.
#[inline]
fn bits(block: &[u8; BLOCK], wanted: u8, fold: u8) -> u64 {
    const WEIGHTS: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
    const GATHER: u64 = 0x0101_0101_0101_0101;
    let (groups, _) = block.as_chunks::<8>();
    let mut marked = [[0u8; 8]; BLOCK / 8];
    for (marks, group) in marked.iter_mut().zip(groups) {
        for ((mark, byte), weight) in marks.iter_mut().zip(group).zip(WEIGHTS) {
            *mark = if byte | fold == wanted { weight } else { 0 };
        }
    }
    let gather = |found: u64, marks: &[u8; 8]| {
        (found >> 8) | (u64::from_le_bytes(*marks).wrapping_mul(GATHER) & (0xff << 56))
    };
    marked.iter().fold(0, gather)
}

/// Each bit becomes the xor of itself and all below it: ones from each opening quote up to its closing one.
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
