//! Numbers and times as people read them.

use jiff::Timestamp;

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One of a thing, or many: `1 node`, `2 nodes`.
pub(super) fn counted(number: u64, one: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {one}{end}", grouped(number))
}

/// Bytes in the largest unit that leaves at least 1.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = number;
    while scaled >= 10_240 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{} {}", grouped(scaled), UNITS.get(unit).unwrap_or(&""))
}

/// A timestamp of the API as date and time to the minute, in UTC.
pub(super) fn moment(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// The day of a timestamp of the API, in UTC.
pub(super) fn day(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// How long ago something was.
pub(super) fn ago(text: &str, now: Timestamp) -> String {
    let Ok(at) = text.parse::<Timestamp>() else { return text.to_owned() };
    let seconds = u64::try_from(now.as_second().saturating_sub(at.as_second())).unwrap_or(0);
    match seconds {
        0..60 => "just now".to_owned(),
        60..3_600 => format!("{} ago", counted(seconds / 60, "minute")),
        3_600..86_400 => format!("{} ago", counted(seconds / 3_600, "hour")),
        86_400..2_592_000 => format!("{} ago", counted(seconds / 86_400, "day")),
        _ => day(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits_and_scales_bytes() {
        let table = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in table {
            assert_eq!(grouped(number), text);
        }
        let table = [(0, "0 B"), (10_239, "10,239 B"), (10_240, "10 KiB"), (u64::MAX, "16,777,215 TiB")];
        for (number, text) in table {
            assert_eq!(bytes(number), text);
        }
        assert_eq!((counted(1, "node"), counted(2, "node")), ("1 node".to_owned(), "2 nodes".to_owned()));
    }

    #[test]
    fn tells_times_as_people_do() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let table = [
            ("2026-11-24T11:59:30Z", "just now"),
            ("2026-11-24T12:00:30Z", "just now"),
            ("2026-11-24T11:59:00Z", "1 minute ago"),
            ("2026-11-24T06:00:00Z", "6 hours ago"),
            ("2026-11-20T12:00:00Z", "4 days ago"),
            ("2025-11-20T12:00:00Z", "2025-11-20"),
            ("nonsense", "nonsense"),
        ];
        for (at, text) in table {
            assert_eq!(ago(at, now), text, "{at}");
        }
        assert_eq!(moment("2026-11-24T11:59:30.25Z"), "2026-11-24 11:59");
    }
}
