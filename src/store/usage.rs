//! What is counted, and usage as it is kept: by hour, in days that go away after a time. What both stores share of it.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::UsageRow;
use crate::ledger::{Counter, period_end, period_start};
use crate::policy::{Credits, PerPool, Period};

/// What is counted of a token or of an account, all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// What is used and leased, for each pool.
    pub counters: PerPool<Counter>,
    /// Of what is used, the credits that count so only because a node has not come back, for each pool.
    pub stranded: PerPool<Credits>,
    /// When the token was last charged, by the store's clock, in whole seconds: the moment that was counted, or the end of
    /// the hour it was charged in, where that was counted later. `None`: never, or this is an account.
    pub last_used: Option<Timestamp>,
    /// The same for when it was last refused.
    pub last_refused: Option<Timestamp>,
    /// The store's clock.
    pub at: Timestamp,
}

impl Counted {
    /// Of an account's counters with what is stranded of them, as both stores keep them.
    pub(super) fn new(kept: &PerPool<(Counter, Credits)>, at: Timestamp) -> Self {
        let PerPool { core, premium } = *kept;
        Self {
            counters: PerPool { core: core.0, premium: premium.0 },
            stranded: PerPool { core: core.1, premium: premium.1 },
            last_used: None,
            last_refused: None,
            at,
        }
    }

    /// The same of a token, with when it was seen. What was counted before that was kept was counted for leases: the
    /// hour of the last one is known.
    pub(super) fn of_token(kept: &PerPool<(Counter, Credits)>, seen: Seen, at: Timestamp) -> Self {
        let counted = Self::new(kept, at);
        let PerPool { core, premium } = &counted.counters;
        let hours = [core, premium].into_iter().filter(|counter| counter.ever.used > 0);
        let last_hour = hours.map(|counter| counter.hour.start).max();
        let time = |second: i64| Timestamp::from_second(second).ok();
        let last_used = seen.used.or(last_hour).and_then(time);
        Self { last_used, last_refused: seen.refused.and_then(time), ..counted }
    }
}

/// When a token was seen last: seconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// When it was last charged.
    pub(super) used: Option<i64>,
    /// When it was last refused.
    pub(super) refused: Option<i64>,
}

/// The last second of the latest of these hours.
pub(super) fn last_second(hours: impl IntoIterator<Item = i64>) -> Option<i64> {
    hours.into_iter().max().map(|hour| hour.saturating_add(3599))
}

/// How long a store keeps what is of no use to a request any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Usage and refusals, counted from the end of their day.
    pub usage: Duration,
    /// Leases that expired: for so long their node can come back and say what was really spent
    /// (`lease.reclaim_window`).
    pub stranded: Duration,
    /// The most signatures remembered at once, so that none is good twice. The embedded store counts them all (about
    /// 60 bytes each); in Redis each second of `x-iex-date` may have a sixteenth of them (about 110 bytes each).
    pub signatures: usize,
}

impl Default for Retention {
    /// 400 days of usage, a day to come back in, four million signatures.
    fn default() -> Self {
        Self {
            usage: Duration::from_hours(400 * 24),
            stranded: Duration::from_hours(24),
            signatures: 4_000_000,
        }
    }
}

/// How long a settled lease is remembered, so that a copy of its reserve that is still under way grants nothing. No
/// connection holds a call back for so long: of one that was thrown away the system gives up sending sooner. A settle that
/// comes even later finds no lease and counts nothing.
pub(super) const CLOSED_FOR: Duration = Duration::from_mins(2);

/// How long a lease is remembered that was settled without having been granted. That is rare: its reserve was lost, or is
/// late, or was refused after it had been sent twice.
pub(super) const UNKNOWN_FOR: Duration = Duration::from_hours(1);

/// Whose refusals are nobody's, in names of keys.
pub(super) const NOBODY: &str = "-";

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// When the day around a time began: seconds since the epoch.
pub(super) fn day_of(seconds: i64) -> i64 {
    seconds.div_euclid(DAY).saturating_mul(DAY)
}

/// When the month around a day began, and when it ends: seconds since the epoch.
pub(super) fn month_of(day: i64) -> (i64, i64) {
    let day = Timestamp::from_second(day).unwrap_or_default();
    let end = period_end(Period::Month, day).unwrap_or(Timestamp::MAX);
    (period_start(Period::Month, day).as_second(), end.as_second())
}

/// A day's name: `yyyymmdd`.
pub(super) fn day_name(day: i64) -> String {
    let date = TimeZone::UTC.to_datetime(Timestamp::from_second(day).unwrap_or_default()).date();
    format!("{:04}{:02}{:02}", date.year(), date.month(), date.day())
}

/// The name of the month around a day: `yyyymm`.
pub(super) fn month_name(day: i64) -> String {
    let mut name = day_name(day);
    name.truncate(6);
    name
}

/// The day after which a day's usage is over: those up to this one are forgotten.
pub(super) fn last_forgotten(now: Timestamp, retention: Duration) -> i64 {
    let kept = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    day_of(now.as_second().saturating_sub(kept).max(i64::MIN / 2) - DAY)
}

/// The hours of a question that can have an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hours {
    /// The first second in which an hour may begin.
    pub(super) from: i64,
    /// The first in which it may not.
    pub(super) to: i64,
    /// The first day that is kept.
    pub(super) oldest: i64,
}

impl Hours {
    /// The hours from `from` to before `to`, without days that are forgotten, and without those that no node's clock
    /// can have reached.
    pub(super) fn new(from: Timestamp, to: Timestamp, now: Timestamp, retention: Duration) -> Self {
        let seconds = |time: Timestamp| time.as_second() + i64::from(time.subsec_nanosecond() > 0);
        let oldest = last_forgotten(now, retention) + DAY;
        let to = seconds(to).min(day_of(now.as_second()) + 3 * DAY);
        Self { from: seconds(from).max(oldest), to, oldest }
    }

    /// Whether an hour that begins then is one of them.
    pub(super) fn contain(&self, hour: i64) -> bool {
        (self.from..self.to).contains(&hour)
    }

    /// Whether all hours of a day are among them.
    pub(super) fn hold_day(&self, day: i64) -> bool {
        self.from <= day && self.to >= day.saturating_add(DAY)
    }

    /// Those of them that are in one day.
    pub(super) fn of_day(&self, day: i64) -> Self {
        Self { from: self.from.max(day), to: self.to.min(day.saturating_add(DAY)), ..*self }
    }

    /// The days they are in, by their beginnings.
    pub(super) fn days(&self) -> impl Iterator<Item = i64> + use<> {
        let (from, to) = (self.from, self.to);
        std::iter::successors(Some(day_of(from)), |day| Some(day + DAY))
            .take_while(move |day| from < to && *day < to)
    }
}

/// Puts rows in order: by hour, what was used before what was refused.
pub(super) fn sort(rows: &mut [UsageRow]) {
    rows.sort_by_cached_key(|row| match row {
        UsageRow::Used { token, pool, cell } => {
            let what = format!("{} {} {}", pool.as_str(), cell.operation, cell.dataset);
            (cell.hour, 0, Some(token.clone()), what)
        }
        UsageRow::Refused { token, hour, code, .. } => (*hour, 1, token.clone(), code.clone()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_have_names() {
        for (text, name) in [("2026-11-24T23:59:59Z", "20261124"), ("1970-01-01T00:00:00Z", "19700101")] {
            assert_eq!(day_name(day_of(time(text).as_second())), name);
        }
    }

    #[test]
    fn months_follow_the_calendar() {
        for (day, start, end) in [
            ("2026-11-24T00:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let (begins, ends) = (time(start).as_second(), time(end).as_second());
            assert_eq!(month_of(time(day).as_second()), (begins, ends), "{day}");
        }
    }

    #[test]
    fn hours_are_those_asked_for_that_are_kept() {
        let now = time("2026-11-24T12:30:00Z");
        let day = Duration::from_hours(24);
        let hours = |from, to| Hours::new(time(from), time(to), now, 2 * day);
        let some = hours("2026-11-24T05:00:00.5Z", "2026-11-24T07:00:00Z");
        assert!(!some.contain(time("2026-11-24T05:00:00Z").as_second()));
        assert!(some.contain(time("2026-11-24T06:00:00Z").as_second()));
        assert!(!some.contain(time("2026-11-24T07:00:00Z").as_second()));
        let all = hours("1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z");
        let days: Vec<_> = all.days().map(day_name).collect();
        assert_eq!(days, ["20261122", "20261123", "20261124", "20261125", "20261126"]);
        // A day is kept until its end is longer ago than the retention.
        assert_eq!(day_name(last_forgotten(time("2026-11-24T23:59:59Z"), 2 * day)), "20261121");
        assert_eq!(day_name(last_forgotten(time("2026-11-25T00:00:00Z"), 2 * day)), "20261122");
        assert_eq!(hours("2026-11-24T07:00:00Z", "2026-11-24T05:00:00Z").days().count(), 0);
    }
}
