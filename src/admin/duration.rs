//! Durations with a unit, as they stand in requests and on the command line: `250ms`, `2s`, `24h`, `1h30m`, `90d`.

use std::time::Duration;

/// What a duration looks like, for messages.
pub(crate) const EXPECTED: &str = "a duration with its unit, like 0s, 250ms, 30m, 24h, 90d or 1h30m";

/// Reads a duration: whole numbers, each with its unit (`ms`, `s`, `m`, `h`, `d`), the larger units first.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        if millis >= smallest {
            return None;
        }
        smallest = millis;
        let part = number.parse::<u64>().ok()?.checked_mul(millis)?;
        total = total.checked_add(Duration::from_millis(part))?;
        rest = tail;
    }
    (smallest != u64::MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_units_and_nothing_else() {
        let table = [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("2s", Some(2_000)),
            ("30m", Some(1_800_000)),
            ("24h", Some(86_400_000)),
            ("90d", Some(7_776_000_000)),
            ("1h30m", Some(5_400_000)),
            ("", None),
            ("0", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5h", None),
            ("1 h", None),
            (" 1h", None),
            ("1H", None),
            ("1w", None),
            ("30m1h", None),
            ("1s1s", None),
            ("18446744073709551615d", None),
            ("99999999999999999999s", None),
            ("1é", None),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
