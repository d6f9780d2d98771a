//! Messages in WebSocket frames, as a server sends them (RFC 6455, 5.2).
//!
//! A message counts as soon as its first frame begins, however many frames it has. Control frames (close, ping, pong) are
//! no messages. Masked frames are read too: a client's, and a server's that breaks the rule.

/// The count of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frames {
    count: u64,
    part: Part,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// The first byte of a frame comes next.
    #[default]
    Opcode,
    /// The byte with the short length comes next.
    Length,
    /// So many bytes of the long length are to come; the length so far.
    LongLength { left: u8, length: u64, masked: bool },
    /// So many bytes of key and payload are to come.
    Payload(u64),
}

impl Frames {
    pub(super) fn feed_within(&mut self, chunk: &[u8], more: u64) -> usize {
        let mut budget = more;
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            self.part = match self.part {
                Part::Opcode => {
                    if begins_message(byte) {
                        if budget == 0 {
                            return at;
                        }
                        budget -= 1;
                        self.count = self.count.saturating_add(1);
                    }
                    Part::Length
                }
                Part::Length => {
                    let masked = byte & 0x80 != 0;
                    match byte & 0x7f {
                        126 => Part::LongLength { left: 2, length: 0, masked },
                        127 => Part::LongLength { left: 8, length: 0, masked },
                        length => payload(u64::from(length), masked),
                    }
                }
                Part::LongLength { left, length, masked } => {
                    let length = (length << 8) | u64::from(byte);
                    match left {
                        0 | 1 => payload(length, masked),
                        _ => Part::LongLength { left: left - 1, length, masked },
                    }
                }
                Part::Payload(left) => {
                    let here = chunk.len() - at;
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(here);
                    at += taken;
                    let left = left.saturating_sub(taken as u64);
                    self.part = if left == 0 { Part::Opcode } else { Part::Payload(left) };
                    continue;
                }
            };
            at += 1;
        }
        chunk.len()
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn is_between(&self) -> bool {
        self.part == Part::Opcode
    }
}

/// Whether a frame with this first byte is the first of a message: text, binary, and the opcodes kept for more such.
fn begins_message(byte: u8) -> bool {
    matches!(byte & 0x0f, 1..=7)
}

fn payload(length: u64, masked: bool) -> Part {
    match length.saturating_add(if masked { 4 } else { 0 }) {
        0 => Part::Opcode,
        left => Part::Payload(left),
    }
}
