//! Rows and pictures of usage, as the page shows them. Pure.

use std::fmt::Write as _;

use super::super::USAGE;
use super::asked::{Asked, By};
use super::report::{self, Line, Refusals, Slot};
use crate::console::chart::{Colour, Picture, Rank, Timeline, draw_ranks};
use crate::console::names::Names;
use crate::console::shape::{Limit, Limits, a_period};
use crate::console::words::{bytes, counted, grouped};
use crate::policy::Pool;

/// Rows of the table on a page.
const ROWS: usize = 31;
/// How many are compared in a picture.
pub(super) const RANKS: usize = 12;

/// A picture with its heading.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) picture: Picture,
    /// What its colours stand for: the style's name for each, and words.
    pub(super) key: Vec<(&'static str, String)>,
    /// What it leaves to words.
    pub(super) note: String,
}

/// A row of the table.
pub(super) struct Row {
    pub(super) name: String,
    /// Where more is told of it; empty: nowhere.
    pub(super) link: String,
    /// Credits from each pool that is shown.
    pub(super) credits: Vec<String>,
    pub(super) requests: String,
    pub(super) bytes: String,
}

impl Row {
    pub(super) fn of(asked: &Asked, line: &Line, names: &Names) -> Self {
        Self {
            name: name(asked.by, &line.key, names),
            link: link(asked, &line.key),
            ..Self::total(asked, line)
        }
    }

    pub(super) fn total(asked: &Asked, line: &Line) -> Self {
        let sums = line.sums(asked.pool);
        let credits = pools(asked).map(|pool| grouped(line.of(pool).credits));
        Self {
            name: "All".to_owned(),
            link: String::new(),
            credits: credits.collect(),
            requests: grouped(sums.requests),
            bytes: bytes(sums.bytes),
        }
    }
}

/// The pools that are shown.
pub(super) fn pools(asked: &Asked) -> impl Iterator<Item = Pool> + use<> {
    let wanted = asked.pool;
    Pool::ALL.into_iter().filter(move |pool| wanted.is_none_or(|wanted| wanted == *pool))
}

fn name(by: By, key: &str, names: &Names) -> String {
    match by {
        By::Hour => key.get(..16).unwrap_or(key).replace('T', " "),
        By::Token => names.get(key).cloned().unwrap_or_else(|| key.to_owned()),
        _ if key.is_empty() => "no data set".to_owned(),
        _ => key.to_owned(),
    }
}

/// Where more is told: of a month its days, of a day its hours, of a token its own usage.
fn link(asked: &Asked, key: &str) -> String {
    let days = |from: &str, to: &str, by: &str| {
        let of =
            |name: &str, value: Option<&str>| value.map_or(String::new(), |value| format!("&{name}={value}"));
        let token = asked.token.as_ref().map(crate::policy::TokenId::as_str);
        let pool = asked.pool.map(Pool::as_str);
        format!("{USAGE}?by={by}&from={from}&to={to}{}{}", of("token", token), of("pool", pool))
    };
    match asked.by {
        By::Day => days(key, key, "hour"),
        By::Month => {
            let last = format!("{key}-01").parse::<jiff::civil::Date>().map(jiff::civil::Date::last_of_month);
            last.map_or_else(|_| String::new(), |last| days(&format!("{key}-01"), &last.to_string(), "day"))
        }
        By::Token if crate::policy::TokenId::parse(key).is_some() => {
            let last = asked.last.filter(|_| asked.token.is_none());
            let by = last.map_or(By::Day, super::Last::by);
            Asked { token: crate::policy::TokenId::parse(key), by, page: 1, ..asked.clone() }.link(USAGE)
        }
        _ => String::new(),
    }
}

/// Which rows of how many are shown.
#[derive(Default)]
pub(super) struct Pages {
    pub(super) text: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// The rows of the page that is asked for.
pub(super) fn cut<'a, 'l>(asked: &Asked, lines: &'a [&'l Line]) -> (Pages, &'a [&'l Line]) {
    let count = lines.len().div_ceil(ROWS).max(1);
    let page = asked.page.min(count);
    let first = (page - 1) * ROWS;
    let last = (first + ROWS).min(lines.len());
    let shown = lines.get(first..last).unwrap_or_default();
    if count == 1 {
        return (Pages::default(), shown);
    }
    let link = |page| format!("{}#numbers", Asked { page, ..asked.clone() }.link(USAGE));
    let pages = Pages {
        text: format!("{} to {} of {}", first + 1, last, lines.len()),
        before: (page > 1).then(|| link(page - 1)),
        after: (page < count).then(|| link(page + 1)),
    };
    (pages, shown)
}

/// All of it, in a few numbers.
pub(super) struct Totals(pub(super) Vec<(String, String)>);

impl Totals {
    pub(super) fn of(asked: &Asked, total: &Line, refusals: &[Refusals]) -> Self {
        let sums = total.sums(asked.pool);
        let credits =
            pools(asked).map(|pool| (format!("{} credits", title(pool)), grouped(total.of(pool).credits)));
        let refused = refusals.iter().fold(0, |sum: u64, refused| sum.saturating_add(refused.count));
        let rest = [
            ("Charged requests".to_owned(), grouped(sums.requests)),
            ("Sent".to_owned(), bytes(sums.bytes)),
            ("Refused requests".to_owned(), grouped(refused)),
        ];
        Self(credits.chain(rest).collect())
    }
}

pub(super) fn title(pool: Pool) -> &'static str {
    match pool {
        Pool::Core => "Core",
        Pool::Premium => "Premium",
    }
}

fn colour(pool: Pool) -> Colour {
    match pool {
        Pool::Core => Colour::Core,
        Pool::Premium => Colour::Premium,
    }
}

fn limit_of(limits: &Limits, pool: Pool) -> Option<&Limit> {
    match pool {
        Pool::Core => limits.core.as_ref(),
        Pool::Premium => limits.premium.as_ref(),
    }
}

/// Credits over time, a picture for each pool. One that nothing is drawn from is shown only where it is asked for.
pub(super) fn over_time(asked: &Asked, lines: &[Line], limits: &Limits, limit_name: &str) -> Vec<Chart> {
    let slots = report::slots(asked);
    let drawn = |pool: &Pool| {
        *pool == Pool::Core || asked.pool.is_some() || lines.iter().any(|line| line.of(*pool).requests > 0)
    };
    let chart = |pool: Pool| pool_over_time(asked, lines, &slots, pool, limit_of(limits, pool), limit_name);
    pools(asked).filter(drawn).map(chart).collect()
}

fn pool_over_time(
    asked: &Asked,
    lines: &[Line],
    slots: &[Slot],
    pool: Pool,
    limit: Option<&Limit>,
    limit_name: &str,
) -> Chart {
    let values = report::values(slots, lines, pool);
    let unit = asked.by.as_str();
    let title = format!("{} credits by {unit}", title(pool));
    let sum = values.iter().fold(0, |sum: u64, value| sum.saturating_add(*value));
    let most = values.iter().zip(slots).max_by_key(|(value, _)| **value).filter(|(value, _)| **value > 0);
    let most = most.map_or_else(String::new, |(value, slot)| {
        format!(", most in the {unit} {} with {}", name(asked.by, &slot.key, &Names::new()), grouped(*value))
    });
    let fits = limit.filter(|limit| limit.period == unit);
    let words =
        limit.map(|limit| format!("{limit_name}: {} {}", grouped(limit.credits), a_period(&limit.period)));
    let mut label = format!("{title} {}: {} in all{most}.", asked.range_text(), grouped(sum));
    if let Some(words) = &words {
        let _ = write!(label, " {words}.");
    }
    let timeline = Timeline {
        label: &label,
        values: &values,
        colour: colour(pool),
        marks: [report::marks(slots, asked.by, 13), report::marks(slots, asked.by, 4)],
        limit: fits.map(|limit| limit.credits),
    };
    let in_sight = timeline.limit_in_sight().is_some();
    let note = match (&words, fits) {
        (Some(_), Some(_)) if in_sight => String::new(),
        (Some(words), Some(_)) => format!("{words}; far above what was used, so no line is drawn."),
        (Some(words), None) => format!("{words}. {}", whereabouts(limit)),
        (None, _) => String::new(),
    };
    let key = match &words {
        Some(words) if in_sight => {
            vec![(pool.as_str(), self::title(pool).to_owned()), ("limit", words.clone())]
        }
        _ => Vec::new(),
    };
    Chart { picture: timeline.draw(), title, key, note }
}

/// Where a limit that is no line here can be seen.
fn whereabouts(limit: Option<&Limit>) -> String {
    match limit.map(|limit| limit.period.as_str()) {
        Some(period @ ("hour" | "day" | "month")) => format!("It is a line in the picture by {period}."),
        _ => "It counts all that was ever used, so it is no line in a picture over time.".to_owned(),
    }
}

/// Data sets, operations or tokens beside each other; `None`: there are none.
pub(super) fn compared(asked: &Asked, lines: &[Line], names: &Names) -> Option<Chart> {
    let mut wanted: Vec<&Line> = lines.iter().filter(|line| line.sums(asked.pool).requests > 0).collect();
    wanted.sort_by_key(|line| std::cmp::Reverse(line.sums(asked.pool).credits));
    let parts =
        |line: &Line| pools(asked).map(|pool| (line.of(pool).credits, colour(pool))).collect::<Vec<_>>();
    let mut ranks: Vec<Rank> = wanted
        .iter()
        .take(RANKS)
        .map(|line| Rank { name: name(asked.by, &line.key, names), parts: parts(line) })
        .collect();
    let first = ranks.first()?.name.clone();
    let what = asked.by.title().to_lowercase();
    if let Some(others) = wanted.get(RANKS..).filter(|others| !others.is_empty()) {
        let others: Vec<Line> = others.iter().map(|line| (*line).clone()).collect();
        let name = format!("{} more", grouped(others.len() as u64));
        ranks.push(Rank { name, parts: parts(&report::total(&others)) });
    }
    let title = format!("Credits by {what}");
    let most = wanted.first().map_or(0, |line| line.sums(asked.pool).credits);
    let label = format!(
        "{title} {}: {}, most by {first} with {}.",
        asked.range_text(),
        counted(wanted.len() as u64, &what),
        grouped(most)
    );
    let key = pools(asked).map(|pool| (pool.as_str(), self::title(pool).to_owned())).collect::<Vec<_>>();
    let key = if key.len() > 1 { key } else { Vec::new() };
    Some(Chart { picture: draw_ranks(&label, &ranks), title, key, note: String::new() })
}

fn by_count(refusals: &[Refusals]) -> Vec<&Refusals> {
    let mut sorted: Vec<_> = refusals.iter().filter(|refused| refused.count > 0).collect();
    sorted.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.code.cmp(&b.code)));
    sorted
}

/// Refusals by reason; `None`: nothing was refused.
pub(super) fn refused(refusals: &[Refusals]) -> Option<Chart> {
    let sorted = by_count(refusals);
    let most = sorted.first()?;
    let rank = |refused: &&Refusals| Rank {
        name: refused.code.replace('_', " "),
        parts: vec![(refused.count, Colour::Refused)],
    };
    let ranks: Vec<_> = sorted.iter().take(RANKS).map(rank).collect();
    let label = format!("Refused requests by reason, most for {} with {}.", most.code, grouped(most.count));
    let title = "Refused requests by reason".to_owned();
    Some(Chart { picture: draw_ranks(&label, &ranks), title, key: Vec::new(), note: String::new() })
}

/// The same as rows of a table.
pub(super) fn refusal_rows(refusals: &[Refusals]) -> Vec<(String, String)> {
    by_count(refusals).into_iter().map(|refused| (refused.code.clone(), grouped(refused.count))).collect()
}

/// A token's limits as sentences.
pub(super) fn limits_in_words(limits: &Limits) -> Vec<String> {
    let words = |pool: Pool| match limit_of(limits, pool) {
        Some(limit) => {
            format!("{} limit: {} credits {}.", title(pool), grouped(limit.credits), a_period(&limit.period))
        }
        None => format!("No limit of {} credits.", pool.as_str()),
    };
    Pool::ALL.map(words).into()
}
