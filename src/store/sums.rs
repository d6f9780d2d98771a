//! Sums of what all tokens of an account used, so that a report over a year reads sums and not each token's hours.
//!
//! Owns what sums there are and how they are added up; pure. The stores write sums in the very step that writes the cells
//! (settle, refusals), so both always agree. There are sums by hour; of each day; and by token and by data set, of each day
//! and of each month. A day, or a month, that had usage before there were sums has none that can be trusted; its cells are read
//! instead ([`Plan`] says what is read from where).

use std::collections::{BTreeMap, HashMap};

use super::usage::{DAY, Hours, day_of, month_of};
use super::{UsageCell, UsageRow};
use crate::policy::cost::MAX_CREDITS;
use crate::policy::{Operation, PerPool, Pool, TokenId};

/// What sums of usage are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grain {
    /// By hour and operation.
    Hour,
    /// By day and operation.
    Day,
    /// By data set.
    Dataset,
    /// By token.
    Token,
}

/// What one sum is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SumOf {
    /// Of an hour or a day.
    Time {
        /// When it began: seconds since the epoch.
        start: i64,
        /// What was done.
        operation: Operation,
    },
    /// Of a data set; empty where the route names none.
    Dataset(String),
    /// Of a token.
    Token(TokenId),
}

/// Responses that were charged, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedSum {
    /// What it is of.
    pub of: SumOf,
    /// From which pool.
    pub pool: Pool,
    /// How many responses.
    pub requests: u64,
    /// What they cost.
    pub credits: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Requests that were refused, added up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedSum {
    /// When the hour (with [`Grain::Hour`]) or the day began: seconds since the epoch.
    pub start: i64,
    /// The refusal's code.
    pub code: String,
    /// How many.
    pub count: u64,
}

/// Usage and refusals, added up; each in order, and only where there was something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// What was used.
    pub used: Vec<UsedSum>,
    /// What was refused.
    pub refused: Vec<RefusedSum>,
}

/// Requests, credits, bytes.
pub(super) type Figures = [u64; 3];

/// Adds one figure to another. The end is the same in both stores; Redis counts in doubles.
pub(super) fn plus(held: u64, more: u64) -> u64 {
    held.saturating_add(more).min(MAX_CREDITS)
}

fn add(held: &mut Figures, more: Figures) {
    for (held, more) in held.iter_mut().zip(more) {
        *held = plus(*held, more);
    }
}

/// Which sums by name: of tokens, or of data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Of tokens.
    Tokens,
    /// Of data sets.
    Datasets,
}

impl Names {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Tokens, Self::Datasets];

    /// Their name in names of keys.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Datasets => "datasets",
        }
    }

    /// Those that a grain is told by.
    pub(super) fn of(grain: Grain) -> Option<Self> {
        match grain {
            Grain::Hour | Grain::Day => None,
            Grain::Dataset => Some(Self::Datasets),
            Grain::Token => Some(Self::Tokens),
        }
    }
}

/// Where a day's usage is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In the cells and refusals of each token.
    Cells,
    /// In the sums by hour.
    Hours,
    /// In the sums of the day.
    Day,
    /// In the sums by name.
    Names,
}

/// Where a day's usage, and its refusals, are read; `complete`: its sums hold all of it.
pub(super) fn sources(grain: Grain, hours: Hours, day: i64, complete: bool) -> (Source, Source) {
    let whole = hours.hold_day(day);
    match (grain, whole) {
        _ if !complete => (Source::Cells, Source::Cells),
        (Grain::Hour, _) | (Grain::Day | Grain::Dataset, false) => (Source::Hours, Source::Hours),
        (Grain::Token, false) => (Source::Cells, Source::Hours),
        (Grain::Day, true) => (Source::Day, Source::Day),
        (Grain::Dataset | Grain::Token, true) => (Source::Names, Source::Day),
    }
}

/// What is read of the sums by name: whole months, and days to be added or taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Months, by their beginnings.
    pub(super) months: Vec<i64>,
    /// Days that belong to no such month.
    pub(super) more: Vec<i64>,
    /// Days of such months that were not asked for.
    pub(super) less: Vec<i64>,
}

impl Plan {
    /// The shortest way to these days; `complete` says whether a month's sums hold all of it.
    pub(super) fn new(days: &[i64], hours: Hours, complete: impl Fn(i64) -> bool) -> Self {
        let mut months: BTreeMap<(i64, i64), Vec<i64>> = BTreeMap::new();
        for day in days {
            months.entry(month_of(*day)).or_default().push(*day);
        }
        let mut plan = Self::default();
        for ((start, end), days) in months {
            let all = std::iter::successors(Some(start), |day| Some(day + DAY)).take_while(|day| *day < end);
            let others: Vec<_> = all.filter(|day| !days.contains(day)).collect();
            // Nobody knows any more what a day had that is forgotten.
            let known = others.iter().all(|day| *day >= hours.oldest);
            if known && others.len() < days.len() && complete(start) {
                plan.months.push(start);
                plan.less.extend(others);
            } else {
                plan.more.extend(days);
            }
        }
        plan
    }
}

/// Sums while they are added up.
#[derive(Debug)]
pub(super) struct Adding {
    grain: Grain,
    times: BTreeMap<(i64, Operation, Pool), Figures>,
    names: PerPool<HashMap<String, Figures>>,
    refused: BTreeMap<(i64, String), u64>,
}

impl Adding {
    pub(super) fn new(grain: Grain) -> Self {
        let names = PerPool { core: HashMap::new(), premium: HashMap::new() };
        Self { grain, times: BTreeMap::new(), names, refused: BTreeMap::new() }
    }

    fn start(&self, hour: i64) -> i64 {
        if self.grain == Grain::Hour { hour } else { day_of(hour) }
    }

    /// Adds rows of cells: what was used, what was refused, or both.
    pub(super) fn rows(&mut self, rows: Vec<UsageRow>, used: bool, refused: bool) {
        for row in rows {
            match row {
                UsageRow::Used { token, pool, cell } if used && self.grain == Grain::Token => {
                    self.named(token.as_str(), pool, figures(&cell));
                }
                UsageRow::Used { pool, cell, .. } if used => self.hour(pool, &cell),
                UsageRow::Refused { hour, code, count, .. } if refused => self.refused(hour, code, count),
                UsageRow::Used { .. } | UsageRow::Refused { .. } => {}
            }
        }
    }

    /// Adds what all tokens used in an hour.
    pub(super) fn hour(&mut self, pool: Pool, cell: &UsageCell) {
        if self.grain == Grain::Dataset {
            self.named(&cell.dataset, pool, figures(cell));
        } else {
            self.time(cell.hour, cell.operation, pool, figures(cell));
        }
    }

    /// Adds what was used in an hour or a day.
    pub(super) fn time(&mut self, at: i64, operation: Operation, pool: Pool, figures: Figures) {
        add(self.times.entry((self.start(at), operation, pool)).or_default(), figures);
    }

    /// Adds what one token used, or what was used of one data set.
    pub(super) fn named(&mut self, name: &str, pool: Pool, figures: Figures) {
        let names = self.names.get_mut(pool);
        match names.get_mut(name) {
            Some(held) => add(held, figures),
            None => drop(names.insert(name.to_owned(), figures)),
        }
    }

    /// Takes away again what a month's sum has too much.
    pub(super) fn take_named(&mut self, name: &str, pool: Pool, figures: Figures) {
        if let Some(held) = self.names.get_mut(pool).get_mut(name) {
            for (held, less) in held.iter_mut().zip(figures) {
                *held = held.saturating_sub(less);
            }
        }
    }

    /// Adds what was refused in an hour or a day.
    pub(super) fn refused(&mut self, at: i64, code: String, count: u64) {
        let held = self.refused.entry((self.start(at), code)).or_default();
        *held = held.saturating_add(count);
    }

    /// All of it, in order.
    pub(super) fn finish(self) -> UsageSums {
        let sum =
            |of, pool, [requests, credits, bytes]: Figures| UsedSum { of, pool, requests, credits, bytes };
        let times = self.times.into_iter();
        let mut used: Vec<_> = times
            .map(|((start, operation, pool), figures)| sum(SumOf::Time { start, operation }, pool, figures))
            .collect();
        let PerPool { core, premium } = self.names;
        for (pool, names) in [(Pool::Core, core), (Pool::Premium, premium)] {
            for (name, figures) in names.into_iter().filter(|(_, figures)| *figures != [0; 3]) {
                let of = match self.grain {
                    Grain::Token => TokenId::parse(&name).map(SumOf::Token),
                    Grain::Dataset | Grain::Day | Grain::Hour => Some(SumOf::Dataset(name)),
                };
                used.extend(of.map(|of| sum(of, pool, figures)));
            }
        }
        used.sort_by(|one, other| (&one.of, one.pool).cmp(&(&other.of, other.pool)));
        let refused = self.refused.into_iter();
        let refused = refused.map(|((start, code), count)| RefusedSum { start, code, count }).collect();
        UsageSums { used, refused }
    }
}

fn figures(cell: &UsageCell) -> Figures {
    [cell.requests, cell.credits, cell.bytes]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;

    fn second(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn names(days: &[i64]) -> Vec<String> {
        days.iter().map(|day| super::super::usage::day_name(*day)).collect()
    }

    #[test]
    fn months_are_read_where_that_is_less() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = time("2026-11-24T12:00:00Z");
        // (from, to, kept for so many days, months that are complete, months, more, less)
        let table = [
            ("2026-10-01", "2026-11-01", 400, true, "20261001", 0, 0),
            ("2026-10-01", "2026-11-01", 400, false, "", 31, 0),
            ("2026-10-03", "2026-11-01", 400, true, "20261001", 0, 2),
            ("2026-10-03", "2026-10-12", 400, true, "", 9, 0),
            (
                "2025-11-25",
                "2026-11-25",
                400,
                true,
                "20251201 20260101 20260201 20260301 20260401 20260501 \
              20260601 20260701 20260801 20260901 20261001 20261101",
                6,
                6,
            ),
            // The first two days of October are forgotten.
            ("2026-10-01", "2026-11-01", 52, true, "", 29, 0),
        ];
        for (from, to, kept, complete, months, more, less) in table {
            let midnight = |date: &str| time(&format!("{date}T00:00:00Z"));
            let hours = Hours::new(midnight(from), midnight(to), now, Duration::from_hours(kept * 24));
            let days: Vec<_> = hours.days().collect();
            let plan = Plan::new(&days, hours, |_| complete);
            assert_eq!(names(&plan.months).join(" "), months, "{from} {to}");
            assert_eq!((plan.more.len(), plan.less.len()), (more, less), "{from} {to}");
        }
    }

    #[test]
    fn what_a_month_has_too_much_is_taken_away() {
        let mut adding = Adding::new(Grain::Dataset);
        adding.named("MY/A", Pool::Core, [5, 50, 500]);
        adding.named("MY/B", Pool::Core, [1, 10, 100]);
        adding.take_named("MY/A", Pool::Core, [2, 20, 200]);
        adding.take_named("MY/B", Pool::Core, [1, 10, 100]);
        let day = second("2026-11-24T00:00:00Z");
        adding.refused(day + 7200, "no_route".to_owned(), 2);
        adding.refused(day, "no_route".to_owned(), 3);
        let sums = adding.finish();
        let of = SumOf::Dataset("MY/A".to_owned());
        assert_eq!(sums.used, [UsedSum { of, pool: Pool::Core, requests: 3, credits: 30, bytes: 300 }]);
        assert_eq!(sums.refused, [RefusedSum { start: day, code: "no_route".to_owned(), count: 5 }]);
    }
}
