//! Durations and sizes as people write them: a whole number and a unit, `250ms`, `1MiB`.
//!
//! The unit is required, so that a bare `250` is never taken for seconds by one reader and milliseconds by another.
//! The CLI reads its durations here too.

use std::time::Duration;

/// Why a text is not a number with a unit. The text itself is not repeated: whoever asked knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// Nothing stands before the unit, or it is not a whole number.
    #[error("write a whole number and a unit ({0})")]
    Number(&'static str),
    /// A number without a unit.
    #[error("a unit is missing ({0})")]
    NoUnit(&'static str),
    /// Another unit than those known.
    #[error("the unit is none of {0}")]
    UnknownUnit(&'static str),
    /// More than fits.
    #[error("the number is too large")]
    TooLarge,
}

type Unit = (&'static str, u64);

/// In milliseconds, largest first.
const DURATIONS: [Unit; 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const DURATION_NAMES: &str = "ms, s, m, h or d";

/// In bytes.
const SIZES: [Unit; 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const SIZE_NAMES: &str = "B, KB, MB, GB, KiB, MiB or GiB";

/// Reads a duration: `250ms`, `10s`, `5m`, `2h`, `90d`.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    parse_quantity(text, &DURATIONS, DURATION_NAMES).map(Duration::from_millis)
}

/// Reads a size in bytes: `512B`, `64KB` (1000 bytes each), `1MiB` (1024 × 1024 bytes).
pub fn parse_size(text: &str) -> Result<u64, BadQuantity> {
    parse_quantity(text, &SIZES, SIZE_NAMES)
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that leaves no rest; parts of a
/// millisecond are left out.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let fits = |(_, factor): &&Unit| millis != 0 && millis.is_multiple_of(u128::from(*factor));
    let (unit, factor) = DURATIONS.iter().find(fits).unwrap_or(&("s", 1_000));
    format!("{}{unit}", millis / u128::from(*factor))
}

/// Writes a size as [`parse_size`] reads it, in the largest unit that leaves no rest.
pub fn format_size(bytes: u64) -> String {
    let fits = |(_, factor): &&Unit| bytes != 0 && bytes.is_multiple_of(*factor);
    let (unit, factor) = SIZES.iter().rev().find(fits).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn parse_quantity(text: &str, units: &[Unit], names: &'static str) -> Result<u64, BadQuantity> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    if number.is_empty() || unit.starts_with(['.', '_']) {
        return Err(BadQuantity::Number(names));
    }
    if unit.is_empty() {
        return Err(BadQuantity::NoUnit(names));
    }
    let known = units.iter().find(|(name, _)| *name == unit.trim_start_matches(' '));
    let (_, factor) = known.ok_or(BadQuantity::UnknownUnit(names))?;
    let number: u64 = number.parse().map_err(|_| BadQuantity::TooLarge)?;
    number.checked_mul(*factor).ok_or(BadQuantity::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_with_a_unit() {
        let cases = [
            ("0ms", Ok(0)),
            ("250ms", Ok(250)),
            ("10s", Ok(10_000)),
            ("5m", Ok(300_000)),
            ("2h", Ok(7_200_000)),
            ("90d", Ok(7_776_000_000)),
            ("10 s", Ok(10_000)),
            ("", Err(BadQuantity::Number(DURATION_NAMES))),
            ("s", Err(BadQuantity::Number(DURATION_NAMES))),
            ("-1s", Err(BadQuantity::Number(DURATION_NAMES))),
            ("1.5s", Err(BadQuantity::Number(DURATION_NAMES))),
            ("1_000s", Err(BadQuantity::Number(DURATION_NAMES))),
            ("10", Err(BadQuantity::NoUnit(DURATION_NAMES))),
            ("10S", Err(BadQuantity::UnknownUnit(DURATION_NAMES))),
            ("1h30m", Err(BadQuantity::UnknownUnit(DURATION_NAMES))),
            ("10s ", Err(BadQuantity::UnknownUnit(DURATION_NAMES))),
            ("18446744073709551616ms", Err(BadQuantity::TooLarge)),
            ("18446744073709551615s", Err(BadQuantity::TooLarge)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn reads_sizes_with_a_unit() {
        let cases = [
            ("0B", Ok(0)),
            ("64KB", Ok(64_000)),
            ("1MB", Ok(1_000_000)),
            ("2GB", Ok(2_000_000_000)),
            ("64KiB", Ok(65_536)),
            ("1MiB", Ok(1_048_576)),
            ("1GiB", Ok(1_073_741_824)),
            ("1024", Err(BadQuantity::NoUnit(SIZE_NAMES))),
            ("1kb", Err(BadQuantity::UnknownUnit(SIZE_NAMES))),
            ("MiB", Err(BadQuantity::Number(SIZE_NAMES))),
            ("17179869184GiB", Err(BadQuantity::TooLarge)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn writes_durations_as_it_reads_them() {
        for text in ["0s", "1ms", "250ms", "1500ms", "10s", "90s", "5m", "36h", "2d"] {
            assert_eq!(parse_duration(text).map(format_duration), Ok(text.to_owned()));
        }
    }

    #[test]
    fn writes_sizes_as_it_reads_them() {
        for text in ["0B", "1B", "1000KiB", "64KiB", "1MiB", "3GiB", "64KB", "1025B"] {
            let size = parse_size(text);
            assert_eq!(size.map(format_size).and_then(|written| parse_size(&written)), size, "{text}");
        }
        assert_eq!((format_size(1 << 20), format_size(64_000)), ("1MiB".to_owned(), "64KB".to_owned()));
    }
}
