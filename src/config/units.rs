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
