//! Sums of all tokens' usage: how they are read. The steps that count cells write them.

use std::ops::Bound;

use redb::ReadOnlyTable;

use super::super::sums::{Adding, Names, Plan, Source, sources};
use super::super::usage::{DAY, Hours};
use super::super::{Grain, UsageCell, UsageSums};
use super::reads::{Reads, parse_what};
use super::tables::{
    BEHIND_COMPLETE, BY_DAY, BY_HOUR, DAY_COMPLETE, DAYS, MONTH_COMPLETE, REFUSED, SUMS, Stopped, SumKey,
    by_name, by_name_of_month, unreadable,
};
use crate::policy::{AccountId, Operation, Pool};

type Days = ReadOnlyTable<(i64, &'static str, &'static str), ()>;

fn bad() -> Stopped {
    unreadable("of sums of usage", &"it names no pool or operation").into()
}

/// The entries of one account, of a kind of sums, that began at these times.
fn each<V: redb::Value + 'static>(
    table: &ReadOnlyTable<SumKey, V>,
    kind: &'static str,
    account: &AccountId,
    times: std::ops::Range<i64>,
    mut add: impl FnMut(i64, &str, V::SelfType<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    if times.is_empty() {
        return Ok(());
    }
    let begin = Bound::Included((kind, times.start, account.as_str(), ""));
    let end = Bound::Excluded((kind, times.end, "", ""));
    for entry in table.range((begin, end))? {
        let (key, value) = entry?;
        let (_, at, whose, what) = key.value();
        if whose == account.as_str() {
            add(at, what, value.value())?;
        }
    }
    Ok(())
}

impl Reads {
    pub(super) fn sums(&self, account: &AccountId, grain: Grain, hours: Hours) -> Result<UsageSums, Stopped> {
        let days = self.0.open_table(DAYS)?;
        let mut adding = Adding::new(grain);
        let mut by_name = Vec::new();
        for day in hours.days() {
            let complete = days.get((day, account.as_str(), DAY_COMPLETE))?.is_some();
            let active = complete || any_counted(&days, account, day)?;
            let (used, refused) = sources(grain, hours, day, complete || !active);
            by_name.extend((used == Source::Names).then_some(day));
            if !active {
                continue;
            }
            let of_day = hours.of_day(day);
            if used == Source::Cells {
                adding.rows(self.usage(account, None, of_day)?, true, refused == Source::Cells);
            }
            self.add_times(account, of_day, day, (used, refused), &mut adding)?;
        }
        if let Some(names) = Names::of(grain) {
            self.add_names(account, names, &by_name, hours, &mut adding)?;
        }
        Ok(adding.finish())
    }

    /// Adds what was used and refused on a day, by hour or as a whole.
    fn add_times(
        &self,
        account: &AccountId,
        hours: Hours,
        day: i64,
        (used, refused): (Source, Source),
        adding: &mut Adding,
    ) -> Result<(), Stopped> {
        let (sums, refusals) = (self.0.open_table(SUMS)?, self.0.open_table(REFUSED)?);
        if used == Source::Hours {
            each(&sums, BY_HOUR, account, hours.from..hours.to, |hour, what, [requests, credits, bytes]| {
                let (pool, operation, dataset) = parse_what(what).ok_or_else(bad)?;
                let dataset = dataset.to_owned();
                adding.hour(pool, &UsageCell { hour, dataset, operation, requests, credits, bytes });
                Ok(())
            })?;
        }
        if used == Source::Day {
            each(&sums, BY_DAY, account, day..day + DAY, |day, what, figures| {
                let (pool, operation) = what.split_once('/').ok_or_else(bad)?;
                let operation = Operation::parse(operation).ok_or_else(bad)?;
                adding.time(day, operation, parse_pool(pool)?, figures);
                Ok(())
            })?;
        }
        let (kind, times) = match refused {
            Source::Hours => (BY_HOUR, hours.from..hours.to),
            Source::Day => (BY_DAY, day..day + DAY),
            Source::Cells | Source::Names => return Ok(()),
        };
        each(&refusals, kind, account, times, |at, code, count| {
            adding.refused(at, code.to_owned(), count);
            Ok(())
        })
    }

    /// Adds whole days by name.
    fn add_names(
        &self,
        account: &AccountId,
        names: Names,
        days: &[i64],
        hours: Hours,
        adding: &mut Adding,
    ) -> Result<(), Stopped> {
        let (of_days, sums) = (self.0.open_table(DAYS)?, self.0.open_table(SUMS)?);
        let complete = |month| {
            let complete = of_days.get((month, account.as_str(), MONTH_COMPLETE));
            complete.is_ok_and(|complete| complete.is_some())
        };
        let plan = Plan::new(days, hours, complete);
        let months = plan.months.iter().map(|month| (by_name_of_month(names), *month, true));
        let more = plan.more.iter().map(|day| (by_name(names), *day, true));
        // Behind the others: what is taken away must be there.
        let less = plan.less.iter().map(|day| (by_name(names), *day, false));
        for (kind, at, more) in months.chain(more).chain(less) {
            each(&sums, kind, account, at..at + 1, |_, what, figures| {
                let (pool, name) = what.split_once('/').ok_or_else(bad)?;
                let pool = parse_pool(pool)?;
                if more {
                    adding.named(name, pool, figures);
                } else {
                    adding.take_named(name, pool, figures);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn parse_pool(text: &str) -> Result<Pool, Stopped> {
    Pool::ALL.into_iter().find(|pool| pool.as_str() == text).ok_or_else(bad)
}

/// Whether there are cells or refusals of a day.
fn any_counted(days: &Days, account: &AccountId, day: i64) -> Result<bool, Stopped> {
    let account = account.as_str();
    let first = days.range((day, account, BEHIND_COMPLETE)..)?.next().transpose()?;
    Ok(first.is_some_and(|(key, _)| matches!(key.value(), (at, whose, _) if at == day && whose == account)))
}
