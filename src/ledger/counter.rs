//! Calendar periods, and a counter that knows what was used in the current one of each.
//!
//! A counter counts for every period at once, so a limit that is set, or changed from day to month, acts at once
//! on what was really used.

use jiff::{SignedDuration, Timestamp, Unit, civil::DateTime, tz::TimeZone};

use crate::policy::cost::MAX_CREDITS;
use crate::policy::{Credits, Period};

/// When the period around `now` began: UTC, by the calendar. [`Period::None`] began with the epoch.
pub fn period_start(period: Period, now: Timestamp) -> Timestamp {
    let civil = TimeZone::UTC.to_datetime(now);
    let start = match period {
        Period::Hour => civil.date().at(civil.hour(), 0, 0, 0),
        Period::Day => civil.date().at(0, 0, 0, 0),
        Period::Month => civil.date().first_of_month().at(0, 0, 0, 0),
        Period::None => return Timestamp::UNIX_EPOCH,
    };
    to_timestamp(start).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When the period around `now` ends and the next begins; `None`: never.
pub fn period_end(period: Period, now: Timestamp) -> Option<Timestamp> {
    let start = period_start(period, now);
    match period {
        Period::Hour => start.checked_add(SignedDuration::from_hours(1)).ok(),
        Period::Day => start.checked_add(SignedDuration::from_hours(24)).ok(),
        Period::Month => {
            let date = TimeZone::UTC.to_datetime(start).date();
            let next = date.checked_add(jiff::Span::new().months(1)).ok()?;
            to_timestamp(next.at(0, 0, 0, 0))
        }
        Period::None => None,
    }
}

fn to_timestamp(civil: DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(civil).ok()
}

/// What was used in one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// When the period began, in seconds since the epoch.
    pub start: i64,
    /// What was used since, for good.
    pub used: u64,
    /// What nodes hold of it and may still spend.
    pub leased: u64,
}

/// What was used, in the current period of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The current hour.
    pub hour: Slot,
    /// The current day.
    pub day: Slot,
    /// The current month.
    pub month: Slot,
    /// Since the beginning.
    pub ever: Slot,
}

impl Counter {
    fn slot(&self, period: Period) -> &Slot {
        match period {
            Period::Hour => &self.hour,
            Period::Day => &self.day,
            Period::Month => &self.month,
            Period::None => &self.ever,
        }
    }

    fn slot_mut(&mut self, period: Period) -> &mut Slot {
        match period {
            Period::Hour => &mut self.hour,
            Period::Day => &mut self.day,
            Period::Month => &mut self.month,
            Period::None => &mut self.ever,
        }
    }

    /// What was used in the period around `now`.
    pub fn used(&self, period: Period, now: Timestamp) -> Credits {
        let slot = self.slot(period);
        // A clock that steps back does not bring an older period, and its credits, back.
        Credits(if slot.start >= period_start(period, now).as_second() { slot.used } else { 0 })
    }

    /// What nodes hold, in the period around `now`.
    pub fn leased(&self, period: Period, now: Timestamp) -> Credits {
        let slot = self.slot(period);
        Credits(if slot.start >= period_start(period, now).as_second() { slot.leased } else { 0 })
    }

    /// What counts against a limit: used and leased together.
    pub fn committed(&self, period: Period, now: Timestamp) -> Credits {
        Credits(self.used(period, now).0.saturating_add(self.leased(period, now).0))
    }

    /// Counts `credits` as leased at `now`.
    pub fn lease(&mut self, credits: Credits, now: Timestamp) {
        for period in Period::ALL {
            let start = period_start(period, now).as_second();
            let slot = self.slot_mut(period);
            if slot.start < start {
                *slot = Slot { start, used: 0, leased: 0 };
            }
            slot.leased = slot.leased.saturating_add(credits.0).min(MAX_CREDITS);
        }
    }

    /// Ends the lease of `held` credits granted at `taken_at`, of which `spent` are used for good. Counts in the
    /// periods it was granted in, where those are still the current ones.
    pub fn unlease(&mut self, held: Credits, spent: Credits, taken_at: Timestamp) {
        self.each_of(taken_at, |slot| {
            slot.leased = slot.leased.saturating_sub(held.0);
            slot.used = slot.used.saturating_add(spent.0).min(MAX_CREDITS);
        });
    }

    /// Puts the true figure in place of one that was counted as `counted` for good.
    pub fn correct(&mut self, counted: Credits, spent: Credits, taken_at: Timestamp) {
        self.each_of(taken_at, |slot| {
            slot.used = slot.used.saturating_sub(counted.0).saturating_add(spent.0).min(MAX_CREDITS);
        });
    }

    fn each_of(&mut self, taken_at: Timestamp, change: impl Fn(&mut Slot)) {
        for period in Period::ALL {
            let start = period_start(period, taken_at).as_second();
            let slot = self.slot_mut(period);
            // A period that is over keeps no books.
            if slot.start == start {
                change(slot);
            }
        }
    }

    /// Counts `credits` as used at `now`.
    pub fn add(&mut self, credits: Credits, now: Timestamp) {
        for period in Period::ALL {
            let start = period_start(period, now).as_second();
            let slot = self.slot_mut(period);
            if slot.start < start {
                *slot = Slot { start, used: 0, leased: 0 };
            }
            // The same end as the Redis store's, which counts in doubles.
            slot.used = slot.used.saturating_add(credits.0).min(MAX_CREDITS);
        }
    }

    /// Gives `credits` back to the periods they were taken in, where those are still the current ones.
    pub fn give_back(&mut self, credits: Credits, taken_at: Timestamp) {
        for period in Period::ALL {
            let start = period_start(period, taken_at).as_second();
            let slot = self.slot_mut(period);
            // A period that is over keeps no books: what was taken in it stays spent.
            if slot.start == start {
                slot.used = slot.used.saturating_sub(credits.0);
            }
        }
    }
}

/// Whole seconds from `now` to `then`, rounded up; at least one.
pub(super) fn seconds_until(then: Timestamp, now: Timestamp) -> u64 {
    let left = then.duration_since(now);
    let whole = left.round(Unit::Second).unwrap_or(left).as_secs();
    let whole = if SignedDuration::from_secs(whole) < left { whole + 1 } else { whole };
    u64::try_from(whole).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn periods_follow_the_calendar_in_utc() {
        // (period, now, start, end)
        let table = [
            (Period::Hour, "2026-11-24T07:59:59.9Z", "2026-11-24T07:00:00Z", Some("2026-11-24T08:00:00Z")),
            (Period::Day, "2026-11-24T00:00:00Z", "2026-11-24T00:00:00Z", Some("2026-11-25T00:00:00Z")),
            (Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", Some("2027-01-01T00:00:00Z")),
            (Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", Some("2028-03-01T00:00:00Z")),
            (Period::Month, "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", Some("2026-04-01T00:00:00Z")),
            (Period::None, "2026-03-01T00:00:00Z", "1970-01-01T00:00:00Z", None),
        ];
        for (period, now, start, end) in table {
            assert_eq!(period_start(period, at(now)), at(start), "{period:?} {now}");
            assert_eq!(period_end(period, at(now)), end.map(at), "{period:?} {now}");
        }
    }
}
