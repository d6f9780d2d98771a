//! Sets of bytes, looked up in a table: a text is checked at one load a byte.

/// A set of bytes.
pub(crate) struct ByteSet([bool; 256]);

impl ByteSet {
    /// No byte.
    pub(crate) const NONE: Self = Self([false; 256]);

    /// With one byte more, where it is in.
    #[expect(clippy::indexing_slicing, reason = "a byte is always within the table")]
    pub(crate) const fn with(mut self, byte: u8, is_in: bool) -> Self {
        self.0[byte as usize] = is_in;
        self
    }

    /// Whether a byte is in it.
    pub(crate) fn has(&self, byte: u8) -> bool {
        // A byte is always within the table.
        self.0.get(usize::from(byte)).copied().unwrap_or(false)
    }

    /// Whether all bytes of a text are in it.
    pub(crate) fn has_all(&self, text: &[u8]) -> bool {
        text.iter().all(|byte| self.has(*byte))
    }
}

/// A [`ByteSet`] made when the program is compiled: `byte_set!(byte => byte.is_ascii_graphic())`.
macro_rules! byte_set {
    ($byte:ident => $is_in:expr) => {{
        let mut set = $crate::policy::byte_set::ByteSet::NONE;
        let mut $byte: u8 = 0;
        loop {
            set = set.with($byte, $is_in);
            if $byte == u8::MAX {
                break;
            }
            $byte += 1;
        }
        set
    }};
}

pub(crate) use byte_set;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_bytes_of_its_rule_and_no_others() {
        const SET: ByteSet = byte_set!(byte => byte.is_ascii_digit() || byte == 0 || byte == u8::MAX);
        for byte in 0..=u8::MAX {
            assert_eq!(SET.has(byte), byte.is_ascii_digit() || byte == 0 || byte == u8::MAX, "{byte}");
        }
        assert!(SET.has_all(b"0123456789"));
        assert!(!SET.has_all(b"12a"));
    }
}
