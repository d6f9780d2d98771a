//! Adds up what the store tells. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::range::By;
use crate::policy::{Operation, PerPool, Pool, TokenId};
use crate::store::{RefusedSum, SumOf, UsageCell, UsageRow, UsageSums, UsedSum};

/// What a row is about. Rows are sorted by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A day of the UTC calendar.
    Day(Date),
    /// The start of an hour.
    Hour(Timestamp),
    /// The first day of a month of the UTC calendar.
    Month(Date),
    /// A data set; empty: none.
    Dataset(String),
    /// An operation.
    Operation(Operation),
    /// A token.
    Token(TokenId),
}

impl Key {
    /// What a sum is added to; `None`: it is not of that kind.
    fn of(by: By, sum: &SumOf) -> Option<Self> {
        match (by, sum) {
            (By::Day | By::Hour | By::Month, SumOf::Time { start, .. }) => Self::of_time(by, *start),
            (By::Operation, SumOf::Time { operation, .. }) => Some(Self::Operation(*operation)),
            (By::Dataset, SumOf::Dataset(dataset)) => Some(Self::Dataset(dataset.clone())),
            (By::Token, SumOf::Token(token)) => Some(Self::Token(token.clone())),
            _ => None,
        }
    }

    /// The day, hour or month around a time.
    fn of_time(by: By, start: i64) -> Option<Self> {
        let time = Timestamp::from_second(start).unwrap_or(Timestamp::UNIX_EPOCH);
        let date = || TimeZone::UTC.to_datetime(time).date();
        match by {
            By::Day => Some(Self::Day(date())),
            By::Hour => Some(Self::Hour(time)),
            By::Month => Some(Self::Month(date().first_of_month())),
            By::Dataset | By::Operation | By::Token => None,
        }
    }
}

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Responses that were charged.
    pub(super) requests: u64,
    /// What they cost.
    pub(super) credits: u64,
    /// Bytes of their bodies.
    pub(super) bytes: u64,
}

impl Sums {
    fn add(&mut self, sum: &UsedSum) {
        self.requests = self.requests.saturating_add(sum.requests);
        self.credits = self.credits.saturating_add(sum.credits);
        self.bytes = self.bytes.saturating_add(sum.bytes);
    }
}

/// All of it, added up.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What was used, by what was asked for.
    pub(super) used: BTreeMap<(Key, Pool), Sums>,
    /// How many were refused, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// The same by time, where that was asked for.
    pub(super) refused_by: Option<BTreeMap<(Key, String), u64>>,
    /// All that was used.
    pub(super) totals: PerPool<Sums>,
}

impl Report {
    /// Adds up sums: what was used, and what was refused, each from where it is told finely enough.
    pub(super) fn add_up(used: &[UsedSum], refused: &[RefusedSum], by: By, refusals_by: Option<By>) -> Self {
        let mut report = Self { refused_by: refusals_by.map(|_| BTreeMap::new()), ..Self::default() };
        for sum in used {
            report.totals.get_mut(sum.pool).add(sum);
            if let Some(key) = Key::of(by, &sum.of) {
                report.used.entry((key, sum.pool)).or_default().add(sum);
            }
        }
        for RefusedSum { start, code, count } in refused {
            let add = |held: &mut u64| *held = held.saturating_add(*count);
            add(report.refused.entry(code.clone()).or_default());
            let key = refusals_by.and_then(|by| Key::of_time(by, *start));
            if let (Some(key), Some(refused_by)) = (key, &mut report.refused_by) {
                add(refused_by.entry((key, code.clone())).or_default());
            }
        }
        report
    }
}

/// One token's rows as sums, each of its own hour.
pub(super) fn sums_of(rows: Vec<UsageRow>, by: By) -> UsageSums {
    let mut sums = UsageSums::default();
    for row in rows {
        match row {
            UsageRow::Used { pool, cell, .. } => {
                let UsageCell { hour, dataset, operation, requests, credits, bytes } = cell;
                let of = match by {
                    By::Dataset => SumOf::Dataset(dataset),
                    _ => SumOf::Time { start: hour, operation },
                };
                sums.used.push(UsedSum { of, pool, requests, credits, bytes });
            }
            UsageRow::Refused { hour, code, count, .. } => {
                sums.refused.push(RefusedSum { start: hour, code, count });
            }
        }
    }
    sums
}
