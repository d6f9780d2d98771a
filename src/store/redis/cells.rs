//! Usage and refusals: how they are written and read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use redis::{FromRedisValue, Pipeline, Value, cmd};

use super::Desk;
use super::answers::{self, strange, unreadable};
use super::link::{Again, Failure};
use crate::policy::{AccountId, Operation, Pool, TokenId};
use crate::store::record::Fields;
use crate::store::sums::{Figures, Names};
use crate::store::usage::{DAY, Hours, NOBODY, day_of, last_second, month_of, sort};
use crate::store::{LeaseId, RefusalCell, StoreError, UsageCell, UsageRow};

/// How many days of tokens are read at once, so that each bunch stays within the timeout.
const BUNCH: usize = 128;
/// How long a batch of refusals is remembered, ms.
const BATCH_MS: u32 = 3_600_000;

fn hour_of_day(hour: i64) -> i64 {
    hour.rem_euclid(DAY) / 3600
}

/// The parts of a cell's field in its day, `HH|pool|operation|dataset`.
pub(super) fn cell_parts(pool: Pool, cell: &UsageCell) -> [String; 4] {
    let hour = format!("{:02}", hour_of_day(cell.hour));
    [hour, pool.as_str().to_owned(), cell.operation.to_string(), cell.dataset.clone()]
}

fn parse_hour(text: &str, day: i64) -> Option<i64> {
    let hour = text.parse::<i64>().ok().filter(|hour| text.len() == 2 && (0..24).contains(hour))?;
    Some(day + hour * 3600)
}

pub(super) fn parse_pool(text: &str) -> Option<Pool> {
    Pool::ALL.into_iter().find(|known| known.as_str() == text)
}

/// Reads `requests credits bytes`.
pub(super) fn parse_figures(text: &str) -> Option<Figures> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    let figures = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(figures)
}

pub(super) fn parse_cell(field: &str, value: &str, day: i64) -> Option<(Pool, UsageCell)> {
    let mut parts = field.splitn(4, '|');
    let hour = parse_hour(parts.next()?, day)?;
    let pool = parse_pool(parts.next()?)?;
    let operation = Operation::parse(parts.next()?)?;
    let dataset = parts.next()?.to_owned();
    let [requests, credits, bytes] = parse_figures(value)?;
    Some((pool, UsageCell { hour, dataset, operation, requests, credits, bytes }))
}

pub(super) fn parse_refusal(field: &str, value: &str, day: i64) -> Option<(i64, String, u64)> {
    let (hour, code) = field.split_once('|')?;
    Some((parse_hour(hour, day)?, code.to_owned(), value.parse().ok()?))
}

/// One token's (or nobody's) day.
struct OfDay {
    day: i64,
    whose: String,
}

impl Desk {
    pub(super) async fn run_count_refusals(
        &self,
        account: &AccountId,
        batch: LeaseId,
        cells: &[RefusalCell],
    ) -> Result<(), StoreError> {
        let mut days: BTreeMap<(i64, &str), Vec<&RefusalCell>> = BTreeMap::new();
        for cell in cells {
            let whose = cell.token.as_ref().map_or(NOBODY, TokenId::as_str);
            days.entry((day_of(cell.hour), whose)).or_default().push(cell);
        }
        let mut keys = vec![self.keys.batch(account, batch), self.keys.seen(account)];
        let kept_for = self.retention.usage.as_micros().to_string();
        let mut args = vec![BATCH_MS.to_string(), kept_for, self.clock_text()];
        for ((day, whose), cells) in days {
            keys.extend([self.keys.refusals(account, whose, day), self.keys.active(account, day)]);
            keys.extend([self.keys.sums_by_hour(account, day), self.keys.sums_of_day(account, day)]);
            keys.extend(Names::ALL.map(|names| self.keys.sums_of_month(account, names, day)));
            let last_second = last_second(cells.iter().map(|cell| cell.hour)).unwrap_or(day);
            args.extend([(day + DAY).to_string(), month_of(day).1.to_string(), whose.to_owned()]);
            args.extend([last_second.to_string(), cells.len().to_string()]);
            for cell in cells {
                let hour = format!("{:02}", hour_of_day(cell.hour));
                args.extend([hour, cell.code.to_owned(), cell.count.to_string()]);
            }
        }
        let answer = self.run(&self.scripts.refusals, &keys, args, Again::Yes).await?;
        answers::number(answer, "refusals.lua").map(drop)
    }

    pub(super) async fn read_usage(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let now = self.now().await?;
        let hours = Hours::new(from, to, now, self.retention.usage);
        let mut rows = self.read_hours(account, token, hours).await?;
        sort(&mut rows);
        Ok(rows)
    }

    /// The same, in no order.
    pub(super) async fn read_hours(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        hours: Hours,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let days: Vec<i64> = hours.days().collect();
        let wanted = match token {
            Some(token) => {
                let of_day = |day: &i64| OfDay { day: *day, whose: token.to_string() };
                days.iter().map(of_day).collect()
            }
            None => self.active(account, &days).await?,
        };
        let mut rows = Vec::new();
        for bunch in wanted.chunks(BUNCH) {
            self.read_days(account, bunch, hours, &mut rows).await?;
        }
        Ok(rows)
    }

    /// Whose usage or refusals there are on these days.
    async fn active(&self, account: &AccountId, days: &[i64]) -> Result<Vec<OfDay>, StoreError> {
        let mut active = Vec::new();
        for bunch in days.chunks(BUNCH) {
            let mut pipeline = Pipeline::with_capacity(bunch.len());
            let keys: Vec<_> = bunch.iter().map(|day| self.keys.active(account, *day)).collect();
            for key in &keys {
                pipeline.cmd("SMEMBERS").arg(key);
            }
            let answers = self.ask_all(&mut pipeline, &keys).await?;
            for (day, answer) in bunch.iter().zip(answers) {
                let whose = BTreeSet::<String>::from_redis_value(answer).map_err(|_| strange("SMEMBERS"))?;
                active.extend(whose.into_iter().map(|whose| OfDay { day: *day, whose }));
            }
        }
        Ok(active)
    }

    async fn read_days(
        &self,
        account: &AccountId,
        wanted: &[OfDay],
        hours: Hours,
        rows: &mut Vec<UsageRow>,
    ) -> Result<(), StoreError> {
        let keys_of = |OfDay { day, whose }: &OfDay| {
            [self.keys.cells(account, whose, *day), self.keys.refusals(account, whose, *day)]
        };
        let keys: Vec<_> = wanted.iter().flat_map(keys_of).collect();
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in &keys {
            pipeline.cmd("HGETALL").arg(key);
        }
        let mut answers = self.ask_all(&mut pipeline, &keys).await?.into_iter();
        for (of_day, keys) in wanted.iter().zip(keys.chunks(2)) {
            let [of_cells, of_refusals] = keys else { continue };
            let mut next = |key| answers::fields(answers.next().unwrap_or(Value::Nil), key);
            let (cells, refusals) = (next(of_cells)?, next(of_refusals)?);
            read_cells(of_day, &cells.unwrap_or_default(), of_cells, hours, rows)?;
            read_refusals(of_day, &refusals.unwrap_or_default(), of_refusals, hours, rows)?;
        }
        Ok(())
    }

    /// Sends commands, one for each key, and gets their answers.
    pub(super) async fn ask_all(
        &self,
        pipeline: &mut Pipeline,
        keys: &[String],
    ) -> Result<Vec<Value>, StoreError> {
        pipeline.ignore_errors();
        let answers = self.link.send(pipeline, Again::Yes).await;
        let answers = answers.map_err(|failure| failure.into_store_error(""))?;
        let pairs = answers.into_iter().zip(keys);
        pairs
            .map(|(answer, key)| answer.map_err(|error| Failure::from(error).into_store_error(key)))
            .collect()
    }

    pub(super) async fn now(&self) -> Result<Timestamp, StoreError> {
        let answer = self.ask(cmd("TIME"), Again::Yes).await?;
        self.time(answer)
    }
}

fn read_cells(
    of_day: &OfDay,
    fields: &Fields,
    key: &str,
    hours: Hours,
    rows: &mut Vec<UsageRow>,
) -> Result<(), StoreError> {
    for (field, value) in fields {
        let token = TokenId::parse(&of_day.whose);
        let cell = parse_cell(field, value, of_day.day);
        let (Some(token), Some((pool, cell))) = (token, cell) else {
            return Err(unreadable(key, &"it holds what is no usage"));
        };
        if hours.contain(cell.hour) {
            rows.push(UsageRow::Used { token, pool, cell });
        }
    }
    Ok(())
}

fn read_refusals(
    of_day: &OfDay,
    fields: &Fields,
    key: &str,
    hours: Hours,
    rows: &mut Vec<UsageRow>,
) -> Result<(), StoreError> {
    for (field, value) in fields {
        let token = TokenId::parse(&of_day.whose);
        let refusal = parse_refusal(field, value, of_day.day);
        let refusal = refusal.filter(|_| token.is_some() || of_day.whose == NOBODY);
        let (hour, code, count) = refusal.ok_or_else(|| unreadable(key, &"it holds what is no refusal"))?;
        if hours.contain(hour) {
            rows.push(UsageRow::Refused { token, hour, code, count });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_fields_and_nothing_else() {
        let cell = UsageCell {
            hour: 86_400 + 7 * 3600,
            dataset: "MY/A|B".to_owned(),
            operation: Operation::Write,
            requests: 1,
            credits: 2,
            bytes: 3,
        };
        let field = cell_parts(Pool::Premium, &cell).join("|");
        assert_eq!(field, "07|premium|write|MY/A|B");
        assert_eq!(parse_cell(&field, "1 2 3", 86_400), Some((Pool::Premium, cell)));
        let bad = [
            ("7|core|read|", "1 2 3"),
            ("24|core|read|", "1 2 3"),
            ("07|gold|read|", "1 2 3"),
            ("07|core|peek|", "1 2 3"),
            ("07|core|read", "1 2 3"),
            ("07|core|read|", "1 2"),
            ("07|core|read|", "1 2 3 4"),
            ("07|core|read|", "1 2 x"),
        ];
        for (field, value) in bad {
            assert_eq!(parse_cell(field, value, 0), None, "{field} {value}");
        }
        assert_eq!(
            parse_refusal("23|origin_denied", "4", 0),
            Some((23 * 3600, "origin_denied".to_owned(), 4))
        );
        assert_eq!(parse_refusal("23", "4", 0), None);
    }
}
