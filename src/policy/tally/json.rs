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
        // Without an early end, so that the compiler uses vectors here too.
        let any = block.iter().fold(0, |any, byte| any | u8::from(*byte == b'\\'));
        let backslashes = if any == 0 { 0 } else { bits(block, |byte| byte == b'\\') };
        let escaped = self.escaped_bits(backslashes, len);
        let inside = prefix_xor(bits(block, |byte| byte == b'"') & !escaped) ^ self.in_string;
        self.in_string = 0u64.wrapping_sub(inside >> 63);
        let meaning = !inside & !escaped;
        // `[` and `{`, `]` and `}` differ in one bit.
        let brackets = bits(block, |byte| matches!(byte | 0x20, b'{' | b'}')) & meaning;
        if self.depth > u64::from(brackets.count_ones()) + 1 {
            self.walk::<false>(block, brackets, 0);
        } else {
            let commas = bits(block, |byte| byte == b',') & meaning;
            self.walk::<true>(block, brackets, commas);
        }
    }

    /// Goes from bracket to bracket and counts the commas of the array itself; where it cannot come up to them, without.
    fn walk<const COMMAS: bool>(&mut self, block: &[u8; BLOCK], mut brackets: u64, commas: u64) {
        let mut done = 0u64;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            let before = bit - 1;
            if COMMAS && self.depth == 1 {
                self.add(commas & before & !done);
            }
            done = before | bit;
            let byte = block.get(bit.trailing_zeros() as usize).copied().unwrap_or_default();
            // `[` and `{` have this bit, their partners have not.
            self.depth = if byte & 0x02 == 0 { self.depth - 1 } else { self.depth + 1 };
            if self.depth == 0 {
                // What comes after the array is not read.
                *self = Self { count: self.count, part: Part::Done, ..Self::default() };
                return;
            }
            brackets &= brackets - 1;
        }
        if COMMAS && self.depth == 1 {
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

/// A bit for each byte that is `wanted`, the first byte's lowest. Written so that the compiler uses vectors: each row of
/// eight bytes has a bit of its own, the rows are laid upon each other, and the square of eight times eight bits that
/// comes of it is turned about its diagonal.
#[inline]
fn bits(block: &[u8; BLOCK], wanted: impl Fn(u8) -> bool) -> u64 {
    let mut marks = [0u8; BLOCK];
    for ((mark, byte), weight) in marks.iter_mut().zip(block).zip(WEIGHTS.as_flattened()) {
        *mark = 0u8.wrapping_sub(u8::from(wanted(*byte))) & weight;
    }
    let (rows, _) = marks.as_chunks::<8>();
    transpose(rows.iter().fold(0, |square, row| square | u64::from_le_bytes(*row)))
}

/// The bit of each row.
const WEIGHTS: [[u8; 8]; BLOCK / 8] = [[1; 8], [2; 8], [4; 8], [8; 8], [16; 8], [32; 8], [64; 8], [128; 8]];

/// Turns a square of eight times eight bits about its diagonal (Warren, "Hacker's Delight", 7-3).
fn transpose(square: u64) -> u64 {
    let swap = |square: u64, by: u32, mask: u64| {
        let differ = (square ^ (square >> by)) & mask;
        square ^ differ ^ (differ << by)
    };
    let square = swap(square, 7, 0x00aa_00aa_00aa_00aa);
    let square = swap(square, 14, 0x0000_cccc_0000_cccc);
    swap(square, 28, 0x0000_0000_f0f0_f0f0)
}

/// Each bit becomes the xor of itself and all below it: ones from each opening quote up to its closing one.
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
