//! Adds up the store's cells. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::range::By;
use crate::policy::{Operation, PerPool, Pool, TokenId};
use crate::store::{UsageCell, UsageRow};

/// What a row is about. Rows are sorted by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A day of the UTC calendar.
    Day(Date),
    /// The start of an hour.
    Hour(Timestamp),
    /// A data set; empty: none.
    Dataset(String),
    /// An operation.
    Operation(Operation),
    /// A token.
    Token(TokenId),
}

impl Key {
    fn of(by: By, token: TokenId, cell: &UsageCell) -> Self {
        let hour = || Timestamp::from_second(cell.hour).unwrap_or(Timestamp::UNIX_EPOCH);
        match by {
            By::Day => Self::Day(TimeZone::UTC.to_datetime(hour()).date()),
            By::Hour => Self::Hour(hour()),
            By::Dataset => Self::Dataset(cell.dataset.clone()),
            By::Operation => Self::Operation(cell.operation),
            By::Token => Self::Token(token),
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
    fn add(&mut self, cell: &UsageCell) {
        self.requests = self.requests.saturating_add(cell.requests);
        self.credits = self.credits.saturating_add(cell.credits);
        self.bytes = self.bytes.saturating_add(cell.bytes);
    }
}

/// All of it, added up.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What was used, by what was asked for.
    pub(super) used: BTreeMap<(Key, Pool), Sums>,
    /// How many were refused, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// All that was used.
    pub(super) totals: PerPool<Sums>,
}

impl Report {
    /// Adds up rows.
    pub(super) fn add_up(rows: impl IntoIterator<Item = UsageRow>, by: By) -> Self {
        let mut report = Self::default();
        for row in rows {
            match row {
                UsageRow::Used { token, pool, cell } => {
                    report.totals.get_mut(pool).add(&cell);
                    report.used.entry((Key::of(by, token, &cell), pool)).or_default().add(&cell);
                }
                UsageRow::Refused { code, count, .. } => {
                    let refused = report.refused.entry(code).or_default();
                    *refused = refused.saturating_add(count);
                }
            }
        }
        report
    }
}
