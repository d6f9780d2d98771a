//! What is counted, and usage as it is kept: by hour, in days that go away after a time. What both stores share of it.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::UsageRow;
use crate::ledger::Counter;
use crate::policy::{Credits, PerPool};

/// What is counted of a token or of an account, all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// What is used and leased, for each pool.
    pub counters: PerPool<Counter>,
    /// Of what is used, the credits that count so only because a node has not come back, for each pool.
    pub stranded: PerPool<Credits>,
    /// The store's clock.
    pub at: Timestamp,
}

impl Counted {
    /// Of counters with what is stranded of them, as both stores keep them.
    pub(super) fn new(kept: &PerPool<(Counter, Credits)>, at: Timestamp) -> Self {
        let PerPool { core, premium } = *kept;
        Self {
            counters: PerPool { core: core.0, premium: premium.0 },
            stranded: PerPool { core: core.1, premium: premium.1 },
            at,
        }
    }
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

/// A day's name: `yyyymmdd`.
pub(super) fn day_name(day: i64) -> String {
    let date = TimeZone::UTC.to_datetime(Timestamp::from_second(day).unwrap_or_default()).date();
    format!("{:04}{:02}{:02}", date.year(), date.month(), date.day())
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
}

impl Hours {
    /// The hours from `from` to before `to`, without days that are forgotten, and without those that no node's clock
    /// can have reached.
    pub(super) fn new(from: Timestamp, to: Timestamp, now: Timestamp, retention: Duration) -> Self {
        let seconds = |time: Timestamp| time.as_second() + i64::from(time.subsec_nanosecond() > 0);
        let oldest = last_forgotten(now, retention) + DAY;
        Self { from: seconds(from).max(oldest), to: seconds(to).min(day_of(now.as_second()) + 3 * DAY) }
    }

    /// Whether an hour that begins then is one of them.
    pub(super) fn contain(&self, hour: i64) -> bool {
        (self.from..self.to).contains(&hour)
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
