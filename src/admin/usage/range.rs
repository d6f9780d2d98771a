//! Which hours a report is about, and what its rows are by.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use crate::admin::problem::{FieldError, Problem};
use crate::admin::query::Query;

/// About `from`, for the description.
pub(super) const ABOUT_FROM: &str = "The first moment that counts: a time as in RFC 3339 (rounded down to its hour) or a \
                                     date (UTC). By default 30 days before `to`.";
/// About `to`, for the description.
pub(super) const ABOUT_TO: &str = "The first moment that does not count any more: a time (rounded up to the next hour) \
                                   or a date (UTC). By default the end of today.";

const EXPECTED_TIME: &str = "a date like 2026-11-24 or a time like 2026-11-24T06:00:00Z";
/// About `refusals_by`, for the description.
pub(super) const ABOUT_REFUSALS_BY: &str =
    "By what refusals are broken down, in `refusals_by`: `day`, `hour` or `month`.";
/// How many days a report is about when nobody says.
const DEFAULT_DAYS: i64 = 30;
const HOUR: i64 = 3600;

/// What rows are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum By {
    /// A day of the UTC calendar.
    Day,
    /// An hour.
    Hour,
    /// A month of the UTC calendar.
    Month,
    /// A data set.
    Dataset,
    /// An operation.
    Operation,
    /// A token.
    Token,
}

impl By {
    /// What one token's usage can be shown by.
    pub(super) const OF_TOKEN: [Self; 5] =
        [Self::Day, Self::Hour, Self::Month, Self::Dataset, Self::Operation];
    /// What the account's usage can be shown by.
    pub(in crate::admin) const OF_ACCOUNT: [Self; 6] =
        [Self::Day, Self::Hour, Self::Month, Self::Dataset, Self::Operation, Self::Token];
    /// What refusals can be shown by.
    pub(super) const OF_REFUSALS: [Self; 3] = [Self::Day, Self::Hour, Self::Month];

    /// The name in the API.
    pub(in crate::admin) fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Month => "month",
            Self::Dataset => "dataset",
            Self::Operation => "operation",
            Self::Token => "token",
        }
    }
}

/// Whole hours, and what rows are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The start of the first hour.
    pub(super) from: Timestamp,
    /// The end of the last hour; not before `from`.
    pub(super) to: Timestamp,
    /// What rows are by.
    pub(super) by: By,
    /// By what refusals are broken down; `None`: they are not.
    pub(super) refusals_by: Option<By>,
}

impl Range {
    /// Reads `from`, `to`, `by` and `refusals_by`. Usage is kept by the hour, so times are rounded outward to whole ones.
    pub(super) fn read(query: &Query, known: &[By], now: Timestamp) -> Result<Self, Problem> {
        let mut errors = query.allow(&["from", "to", "by", "refusals_by"]);
        let mut time = |name| query.read(name, EXPECTED_TIME, parse_time, &mut errors);
        let (from, to) = (time("from"), time("to"));
        let mut one_of = |name, known: &[By]| {
            let names = known.iter().map(|by| by.as_str()).collect::<Vec<_>>().join(", ");
            let which = |text: &str| known.iter().copied().find(|by| by.as_str() == text);
            query.read(name, &format!("one of {names}"), which, &mut errors)
        };
        let (by, refusals_by) = (one_of("by", known), one_of("refusals_by", &By::OF_REFUSALS));
        let end = to.or_else(|| end_of_day(now)).unwrap_or(Timestamp::MAX);
        let begin = from.or_else(|| days_before(end)).unwrap_or(Timestamp::MIN);
        if errors.is_empty() {
            errors.extend(wrong_order(begin, end, to.is_none()));
        }
        match (floor(begin), ceil(end)) {
            (Some(from), Some(to)) if errors.is_empty() => {
                Ok(Self { from, to, by: by.unwrap_or(By::Day), refusals_by })
            }
            _ => Err(Problem::parameters(errors)),
        }
    }
}

fn wrong_order(from: Timestamp, to: Timestamp, open: bool) -> Option<FieldError> {
    let (name, detail) = if open { ("from", "is later than today") } else { ("to", "is before `from`") };
    (to < from).then(|| FieldError::parameter(name, detail))
}

/// Reads a time, or a date: its midnight.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    // Within these years every rounding has somewhere to go.
    let known = |at: &Timestamp| (0..=9998).contains(&TimeZone::UTC.to_datetime(*at).year());
    let time =
        if text.len() == "2026-11-24".len() { midnight(text.parse().ok()?)? } else { text.parse().ok()? };
    Some(time).filter(known)
}

fn midnight(date: Date) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
}

fn end_of_day(now: Timestamp) -> Option<Timestamp> {
    midnight(TimeZone::UTC.to_datetime(now).date().tomorrow().ok()?)
}

/// So many days before `to`, at a midnight if `to` is one.
fn days_before(to: Timestamp) -> Option<Timestamp> {
    let then = TimeZone::UTC.to_datetime(to).checked_sub(Span::new().days(DEFAULT_DAYS)).ok()?;
    TimeZone::UTC.to_timestamp(then).ok()
}

/// The start of the hour around `at`.
fn floor(at: Timestamp) -> Option<Timestamp> {
    let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
    Timestamp::from_second(second.div_euclid(HOUR) * HOUR).ok()
}

/// The first start of an hour that is not before `at`.
fn ceil(at: Timestamp) -> Option<Timestamp> {
    let start = floor(at)?;
    if start == at { Some(at) } else { start.checked_add(SignedDuration::from_secs(HOUR)).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn rounds_to_whole_hours_outward() {
        for (at, down, up) in [
            ("2026-11-24T06:00:00Z", "2026-11-24T06:00:00Z", "2026-11-24T06:00:00Z"),
            ("2026-11-24T06:00:00.000000001Z", "2026-11-24T06:00:00Z", "2026-11-24T07:00:00Z"),
            ("2026-11-24T06:59:59.999Z", "2026-11-24T06:00:00Z", "2026-11-24T07:00:00Z"),
            ("2026-12-31T23:30:00Z", "2026-12-31T23:00:00Z", "2027-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"),
            ("1969-12-31T22:59:59.5Z", "1969-12-31T22:00:00Z", "1969-12-31T23:00:00Z"),
        ] {
            assert_eq!((floor(time(at)), ceil(time(at))), (Some(time(down)), Some(time(up))), "{at}");
        }
    }

    #[test]
    fn reads_dates_and_times_and_nothing_else() {
        for (text, read) in [
            ("2026-11-24", Some("2026-11-24T00:00:00Z")),
            ("2026-11-24T06:00:00Z", Some("2026-11-24T06:00:00Z")),
            ("2026-11-24T06:00:00+01:00", Some("2026-11-24T05:00:00Z")),
            ("2026-02-30", None),
            ("2026-11-24T06:00:00", None),
            ("20261124", None),
            ("2026-W48-2", None),
            ("20261124T1", None),
            ("9999-01-01", None),
            ("yesterday", None),
            ("1790000000", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), read.map(time), "{text}");
        }
    }

    #[test]
    fn thirty_days_end_with_today() {
        for (now, from, to) in [
            ("2026-11-24T10:20:30Z", "2026-10-26T00:00:00Z", "2026-11-25T00:00:00Z"),
            ("2026-11-24T00:00:00Z", "2026-10-26T00:00:00Z", "2026-11-25T00:00:00Z"),
            ("2028-03-01T23:59:59Z", "2028-02-01T00:00:00Z", "2028-03-02T00:00:00Z"),
        ] {
            let end = end_of_day(time(now)).unwrap();
            assert_eq!((days_before(end), end), (Some(time(from)), time(to)), "{now}");
        }
    }
}
