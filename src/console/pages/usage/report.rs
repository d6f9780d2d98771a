//! What the admin API tells of usage, put in order for a picture, a table and a file. Pure.

use std::collections::HashMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::asked::{Asked, By};
use crate::policy::Pool;

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Sums {
    pub(super) requests: u64,
    pub(super) credits: u64,
    pub(super) bytes: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.credits = self.credits.saturating_add(other.credits);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The admin API's report.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Report {
    rows: Vec<Row>,
    pub(super) refusals: Vec<Refusals>,
}

#[derive(Debug, Default, Deserialize)]
struct Row {
    #[serde(default)]
    day: Option<String>,
    #[serde(default)]
    hour: Option<String>,
    #[serde(default)]
    dataset: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    token_id: Option<String>,
    pool: String,
    #[serde(flatten)]
    sums: Sums,
}

/// Requests that were refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Refusals {
    pub(super) code: String,
    pub(super) count: u64,
}

/// One of those that are compared, or one stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The hour, day, month, data set, operation or token's id.
    pub(super) key: String,
    pub(super) core: Sums,
    pub(super) premium: Sums,
}

impl Line {
    pub(super) fn of(&self, pool: Pool) -> &Sums {
        match pool {
            Pool::Core => &self.core,
            Pool::Premium => &self.premium,
        }
    }

    /// From the pools that are asked for.
    pub(super) fn sums(&self, pool: Option<Pool>) -> Sums {
        let mut sums = Sums::default();
        for of in Pool::ALL.into_iter().filter(|of| pool.is_none_or(|pool| pool == *of)) {
            sums.add(self.of(of));
        }
        sums
    }
}

impl Report {
    /// A line for each that something was used by: stretches of time in their order, all else by credits, most first.
    pub(super) fn lines(&self, by: By) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for row in &self.rows {
            let key = row.key(by);
            let at = *places.entry(key.clone()).or_insert_with(|| {
                lines.push(Line { key, ..Line::default() });
                lines.len() - 1
            });
            if let Some(line) = lines.get_mut(at) {
                let sums =
                    if row.pool == Pool::Premium.as_str() { &mut line.premium } else { &mut line.core };
                sums.add(&row.sums);
            }
        }
        if by.is_time() {
            lines.sort_by(|a, b| a.key.cmp(&b.key));
        } else {
            let rank = |line: &Line| (line.sums(None).credits, line.sums(None).requests);
            lines.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.key.cmp(&b.key)));
        }
        lines
    }
}

impl Row {
    fn key(&self, by: By) -> String {
        let key = match by {
            By::Hour => &self.hour,
            By::Day => &self.day,
            By::Month => {
                return self.day.as_deref().and_then(|day| day.get(..7)).unwrap_or_default().to_owned();
            }
            By::Dataset => &self.dataset,
            By::Operation => &self.operation,
            By::Token => &self.token_id,
        };
        key.clone().unwrap_or_default()
    }
}

/// All of them together.
pub(super) fn total(lines: &[Line]) -> Line {
    let mut total = Line::default();
    for line in lines {
        total.core.add(&line.core);
        total.premium.add(&line.premium);
    }
    total
}

/// A stretch of time in a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// As the lines are named.
    pub(super) key: String,
    start: Timestamp,
}

/// All hours, days or months that are asked for, also those in which nothing was used.
pub(super) fn slots(asked: &Asked) -> Vec<Slot> {
    /// However long is asked for, no more than this.
    const MOST: usize = 10_000;
    let next = |slot: &Slot| {
        let start = match asked.by {
            By::Hour => slot.start.checked_add(SignedDuration::from_hours(1)).ok()?,
            _ => TimeZone::UTC.to_timestamp(next_day(slot.start, asked.by)?.at(0, 0, 0, 0)).ok()?,
        };
        (start < asked.to).then(|| Slot::at(start, asked.by))
    };
    let first = Slot::at(asked.from, asked.by);
    std::iter::successors(Some(first), next).take(MOST).collect()
}

fn next_day(at: Timestamp, by: By) -> Option<Date> {
    let date = TimeZone::UTC.to_datetime(at).date();
    if by == By::Month { date.last_of_month().tomorrow().ok() } else { date.tomorrow().ok() }
}

impl Slot {
    fn at(start: Timestamp, by: By) -> Self {
        let second = start.as_second();
        let floor = |unit: i64| Timestamp::from_second(second.div_euclid(unit) * unit).unwrap_or(start);
        let key = match by {
            By::Hour => floor(3600).to_string(),
            By::Month => start.strftime("%Y-%m").to_string(),
            _ => start.strftime("%Y-%m-%d").to_string(),
        };
        Self { key, start }
    }

    /// What stands below it in a picture; nothing for hours within a day when there are many.
    fn mark(&self, by: By) -> String {
        match by {
            By::Hour if self.start.as_second().rem_euclid(86_400) != 0 => {
                self.start.strftime("%H:00").to_string()
            }
            By::Month => self.start.strftime("%b %Y").to_string(),
            _ => self.start.strftime("%-d %b").to_string(),
        }
    }
}

/// The slots with something written below them: at most so many, evenly, days at midnight.
pub(super) fn marks(slots: &[Slot], by: By, most: usize) -> Vec<(usize, String)> {
    let steps: &[usize] =
        if by == By::Hour { &[1, 2, 3, 6, 12, 24, 48, 96, 168] } else { &[1, 2, 3, 7, 14, 28, 56] };
    let fits = |step: &&usize| slots.len().div_ceil(**step) <= most;
    let step = steps.iter().find(fits).copied().unwrap_or_else(|| slots.len().div_ceil(most.max(1)).max(1));
    let hour = |slot: &Slot| usize::try_from(slot.start.as_second().rem_euclid(86_400) / 3600).unwrap_or(0);
    let shift = match (by, slots.first()) {
        (By::Hour, Some(first)) => (24 - hour(first)) % step.min(24),
        _ => 0,
    };
    slots.iter().enumerate().skip(shift).step_by(step).map(|(at, slot)| (at, slot.mark(by))).collect()
}

/// The values of a pool in all slots; 0 where nothing was used.
pub(super) fn values(slots: &[Slot], lines: &[Line], pool: Pool) -> Vec<u64> {
    let known: HashMap<&str, u64> =
        lines.iter().map(|line| (line.key.as_str(), line.of(pool).credits)).collect();
    slots.iter().map(|slot| known.get(slot.key.as_str()).copied().unwrap_or(0)).collect()
}

/// The report as a file for programs.
pub(super) fn to_json(
    asked: &Asked,
    lines: &[Line],
    refusals: &[Refusals],
    names: &HashMap<String, String>,
) -> Value {
    let mut rows = Vec::new();
    for line in lines {
        for pool in used_pools(asked, line) {
            let sums = line.of(pool);
            let name = names.get(&line.key).filter(|_| asked.by == By::Token);
            let cells = [(column(asked.by), json!(line.key))].into_iter();
            let cells = cells.chain(name.map(|name| ("name", json!(name)))).chain([
                ("pool", json!(pool.as_str())),
                ("requests", json!(sums.requests)),
                ("credits", json!(sums.credits)),
                ("bytes", json!(sums.bytes)),
            ]);
            rows.push(Value::Object(cells.map(|(name, cell)| (name.to_owned(), cell)).collect()));
        }
    }
    let refusals: Vec<_> =
        refusals.iter().map(|refused| json!({ "code": refused.code, "count": refused.count })).collect();
    json!({
        "from": asked.from.to_string(), "to": asked.to.to_string(), "by": asked.by.as_str(),
        "token_id": asked.token.as_ref().map(ToString::to_string), "rows": rows, "refusals": refusals,
    })
}

/// The report as a table for spreadsheets: what was used, or what was refused.
pub(super) fn to_csv(asked: &Asked, lines: &[Line], names: &HashMap<String, String>) -> String {
    let by_token = asked.by == By::Token;
    let mut csv = super::csv::Csv::default();
    let name = by_token.then_some("name");
    csv.row([column(asked.by)].into_iter().chain(name).chain(["pool", "requests", "credits", "bytes"]));
    for line in lines {
        for pool in used_pools(asked, line) {
            let sums = line.of(pool);
            let numbers = [sums.requests, sums.credits, sums.bytes].map(|number| number.to_string());
            let name = by_token.then(|| names.get(&line.key).map_or("", String::as_str));
            let start = [line.key.as_str()].into_iter().chain(name).chain([pool.as_str()]);
            csv.row(start.chain(numbers.iter().map(String::as_str)));
        }
    }
    csv.into_text()
}

/// What was refused, as a table for spreadsheets.
pub(super) fn refusals_to_csv(refusals: &[Refusals]) -> String {
    let mut csv = super::csv::Csv::default();
    csv.row(["reason", "requests"]);
    for refused in refusals {
        csv.row([refused.code.as_str(), &refused.count.to_string()]);
    }
    csv.into_text()
}

fn column(by: By) -> &'static str {
    if by == By::Token { "token_id" } else { by.as_str() }
}

fn used_pools<'a>(asked: &'a Asked, line: &'a Line) -> impl Iterator<Item = Pool> + 'a {
    let wanted = |pool: &Pool| asked.pool.is_none_or(|wanted| wanted == *pool);
    Pool::ALL.into_iter().filter(wanted).filter(|pool| *line.of(*pool) != Sums::default())
}

#[cfg(test)]
mod tests;
