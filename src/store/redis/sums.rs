//! Sums of all tokens' usage: how they are read. The scripts that count cells write them.

use std::collections::HashMap;

use jiff::Timestamp;
use redis::{FromRedisValue, Pipeline, Value, cmd};

use super::Desk;
use super::answers::{self, strange, unreadable};
use super::cells::{parse_cell, parse_figures, parse_pool, parse_refusal};
use super::link::Again;
use crate::policy::{AccountId, Operation};
use crate::store::record::Fields;
use crate::store::sums::{Adding, Figures, Names, Plan, Source, sources};
use crate::store::usage::{DAY, Hours, month_of};
use crate::store::{Grain, StoreError, UsageSums};

/// How many days are read at once, so that each bunch stays within the timeout.
const BUNCH: usize = 64;
/// How many fields of hashes of names are read together.
const TOGETHER: u64 = 5000;
/// A hash with more fields is read piece by piece: nobody else's call is to wait for it.
const LONG: u64 = 20_000;
/// About how many fields a piece has.
const SCANNED: usize = 2000;
/// The field that says of sums whether they hold all.
const COMPLETE: &str = "complete";

/// A day's sums.
struct DaySums {
    day: i64,
    /// Whether anything was counted on that day.
    active: bool,
    of_day: Fields,
}

impl DaySums {
    fn is_complete(&self) -> bool {
        !self.active || self.of_day.get(COMPLETE).is_some_and(|complete| complete == "1")
    }
}

/// A hash of names, and whether its figures are to be added or taken away.
struct Named {
    key: String,
    more: bool,
}

impl Desk {
    pub(super) async fn read_sums(
        &self,
        account: &AccountId,
        grain: Grain,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<UsageSums, StoreError> {
        let now = self.now().await?;
        let hours = Hours::new(from, to, now, self.retention.usage);
        let days: Vec<i64> = hours.days().collect();
        let mut adding = Adding::new(grain);
        let (mut by_hour, mut by_cells, mut by_name) = (Vec::new(), Vec::new(), Vec::new());
        for bunch in days.chunks(BUNCH) {
            for sums in self.read_day_sums(account, bunch).await? {
                let (used, refused) = sources(grain, hours, sums.day, sums.is_complete());
                if used == Source::Day || refused == Source::Day {
                    let key = self.keys.sums_of_day(account, sums.day);
                    add_day(&sums, used == Source::Day, &key, &mut adding)?;
                }
                by_name.extend((used == Source::Names).then_some(sums.day));
                if sums.active && (used == Source::Hours || refused == Source::Hours) {
                    by_hour.push((sums.day, used == Source::Hours));
                }
                if sums.active && used == Source::Cells {
                    by_cells.push((sums.day, refused == Source::Cells));
                }
            }
        }
        for bunch in by_hour.chunks(BUNCH) {
            self.add_hours(account, bunch, hours, &mut adding).await?;
        }
        for (day, refused) in by_cells {
            let rows = self.read_hours(account, None, hours.of_day(day)).await?;
            adding.rows(rows, true, refused);
        }
        if let Some(names) = Names::of(grain) {
            self.add_names(account, names, &by_name, hours, &mut adding).await?;
        }
        Ok(adding.finish())
    }

    async fn read_day_sums(&self, account: &AccountId, days: &[i64]) -> Result<Vec<DaySums>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(days.len() * 2);
        let mut keys = Vec::with_capacity(days.len() * 2);
        for day in days {
            let (of_day, active) = (self.keys.sums_of_day(account, *day), self.keys.active(account, *day));
            pipeline.cmd("HGETALL").arg(&of_day).cmd("EXISTS").arg(&active);
            keys.extend([of_day, active]);
        }
        let mut answers = self.ask_all(&mut pipeline, &keys).await?.into_iter();
        let mut all = Vec::with_capacity(days.len());
        for (day, key) in days.iter().zip(keys.iter().step_by(2)) {
            let mut next = || answers.next().unwrap_or(Value::Nil);
            let of_day = answers::fields(next(), key)?.unwrap_or_default();
            all.push(DaySums { day: *day, of_day, active: answers::number(next(), "EXISTS")? == 1 });
        }
        Ok(all)
    }

    /// Adds days by their hours; of those without `true` only what was refused.
    async fn add_hours(
        &self,
        account: &AccountId,
        days: &[(i64, bool)],
        hours: Hours,
        adding: &mut Adding,
    ) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(days.len());
        let keys: Vec<_> = days.iter().map(|(day, _)| self.keys.sums_by_hour(account, *day)).collect();
        for key in &keys {
            pipeline.cmd("HGETALL").arg(key);
        }
        let answers = self.ask_all(&mut pipeline, &keys).await?;
        for (((day, used), key), answer) in days.iter().zip(&keys).zip(answers) {
            for (field, value) in answers::fields(answer, key)?.unwrap_or_default() {
                add_hour(&field, &value, (*day, *used), hours, adding)
                    .ok_or_else(|| unreadable(key, &"it holds what is no sum"))?;
            }
        }
        Ok(())
    }

    /// Adds whole days by name.
    async fn add_names(
        &self,
        account: &AccountId,
        names: Names,
        days: &[i64],
        hours: Hours,
        adding: &mut Adding,
    ) -> Result<(), StoreError> {
        let mut months: Vec<i64> = days.iter().map(|day| month_of(*day).0).collect();
        months.dedup();
        let keys: Vec<_> =
            months.iter().map(|month| self.keys.sums_of_month(account, names, *month)).collect();
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in &keys {
            pipeline.cmd("HGET").arg(key).arg(COMPLETE);
        }
        let answers = if keys.is_empty() { Vec::new() } else { self.ask_all(&mut pipeline, &keys).await? };
        let is_one = |answer: &Value| String::from_redis_value_ref(answer).is_ok_and(|text| text == "1");
        let complete: Vec<_> = months
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| is_one(answer))
            .map(|(month, _)| *month)
            .collect();
        let plan = Plan::new(days, hours, |month| complete.contains(&month));
        let of = |key, more| Named { key, more };
        let of_days = |day: &i64| self.keys.sums_by_name(account, names, *day);
        let of_months = |month: &i64| self.keys.sums_of_month(account, names, *month);
        let mut named: Vec<_> = plan.months.iter().map(|month| of(of_months(month), true)).collect();
        named.extend(plan.more.iter().map(|day| of(of_days(day), true)));
        // Behind the others: what is taken away must be there.
        named.extend(plan.less.iter().map(|day| of(of_days(day), false)));
        self.read_named(named, adding).await
    }

    /// Reads hashes of names, in their order: short ones together, a long one piece by piece.
    async fn read_named(&self, named: Vec<Named>, adding: &mut Adding) -> Result<(), StoreError> {
        let keys: Vec<_> = named.iter().map(|named| named.key.clone()).collect();
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in &keys {
            pipeline.cmd("HLEN").arg(key);
        }
        let lengths = if keys.is_empty() { Vec::new() } else { self.ask_all(&mut pipeline, &keys).await? };
        let (mut together, mut fields) = (Vec::new(), 0);
        for (named, length) in named.into_iter().zip(lengths) {
            let length = answers::number(length, "HLEN")?;
            if length == 0 {
                continue;
            }
            if fields + length > TOGETHER {
                self.read_whole(&std::mem::take(&mut together), adding).await?;
                fields = 0;
            }
            if length > LONG {
                self.read_long(&named, adding).await?;
            } else {
                fields += length;
                together.push(named);
            }
        }
        self.read_whole(&together, adding).await
    }

    async fn read_whole(&self, named: &[Named], adding: &mut Adding) -> Result<(), StoreError> {
        if named.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = named.iter().map(|named| named.key.clone()).collect();
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in &keys {
            pipeline.cmd("HGETALL").arg(key);
        }
        let answers = self.ask_all(&mut pipeline, &keys).await?;
        for (named, answer) in named.iter().zip(answers) {
            let fields = Vec::<(String, String)>::from_redis_value(answer);
            let fields = fields.map_err(|_| unreadable(&named.key, &"it holds what is not UTF-8"))?;
            named.add(fields, adding)?;
        }
        Ok(())
    }

    async fn read_long(&self, named: &Named, adding: &mut Adding) -> Result<(), StoreError> {
        type Page = (String, Vec<(String, String)>);
        let (mut cursor, mut fields) = ("0".to_owned(), HashMap::new());
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(&named.key).arg(&cursor).arg("COUNT").arg(SCANNED);
            let answer = self.link.ask(scan, Again::Yes).await;
            let answer = answer.map_err(|failure| failure.into_store_error(&named.key))?;
            let (next, page) = Page::from_redis_value(answer).map_err(|_| strange("HSCAN"))?;
            // A hash that grows meanwhile may tell a field twice.
            fields.extend(page);
            if next == "0" {
                return named.add(fields, adding);
            }
            cursor = next;
        }
    }
}

impl Named {
    fn add(
        &self,
        fields: impl IntoIterator<Item = (String, String)>,
        adding: &mut Adding,
    ) -> Result<(), StoreError> {
        for (field, value) in fields {
            if field == COMPLETE {
                continue;
            }
            let pool = field.split_once('|').and_then(|(pool, name)| Some((parse_pool(pool)?, name)));
            let (Some((pool, name)), Some(figures)) = (pool, parse_figures(&value)) else {
                return Err(unreadable(&self.key, &"it holds what is no sum"));
            };
            if self.more {
                adding.named(name, pool, figures);
            } else {
                adding.take_named(name, pool, figures);
            }
        }
        Ok(())
    }
}

/// Adds a whole day: what was refused, and if told what was used.
fn add_day(sums: &DaySums, used: bool, key: &str, adding: &mut Adding) -> Result<(), StoreError> {
    let mut add = |field: &str, value: &str| {
        let (what, of) = field.split_once('|')?;
        if what == "refused" {
            adding.refused(sums.day, of.to_owned(), value.parse().ok()?);
        } else if used {
            let figures: Figures = parse_figures(value)?;
            adding.time(sums.day, Operation::parse(of)?, parse_pool(what)?, figures);
        }
        Some(())
    };
    for (field, value) in sums.of_day.iter().filter(|(field, _)| *field != COMPLETE) {
        add(field, value).ok_or_else(|| unreadable(key, &"it holds what is no sum"))?;
    }
    Ok(())
}

/// Adds one field of a day's sums by hour.
fn add_hour(
    field: &str,
    value: &str,
    (day, used): (i64, bool),
    hours: Hours,
    adding: &mut Adding,
) -> Option<()> {
    debug_assert_eq!(day % DAY, 0, "a day begins at midnight");
    let (hour, rest) = field.split_once('|')?;
    if let Some(code) = rest.strip_prefix("refused|") {
        let (hour, code, count) = parse_refusal(&format!("{hour}|{code}"), value, day)?;
        if hours.contain(hour) {
            adding.refused(hour, code, count);
        }
    } else {
        let (pool, cell) = parse_cell(field, value, day)?;
        if used && hours.contain(cell.hour) {
            adding.hour(pool, &cell);
        }
    }
    Some(())
}
