//! Which usage is asked for: the page's query, read and written. Pure.

use std::fmt::Write as _;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::admin::parse_usage_time;
use crate::console::form::Form;
use crate::policy::{Pool, TokenId};

/// What is shown side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Hour,
    Day,
    Month,
    Dataset,
    Operation,
    Token,
}

impl By {
    pub(super) const ALL: [Self; 6] =
        [Self::Hour, Self::Day, Self::Month, Self::Dataset, Self::Operation, Self::Token];

    /// The name in addresses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Dataset => "dataset",
            Self::Operation => "operation",
            Self::Token => "token",
        }
    }

    /// The name for people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Hour => "Hour",
            Self::Day => "Day",
            Self::Month => "Month",
            Self::Dataset => "Data set",
            Self::Operation => "Operation",
            Self::Token => "Token",
        }
    }

    /// Whether it is a stretch of time.
    pub(super) fn is_time(self) -> bool {
        matches!(self, Self::Hour | Self::Day | Self::Month)
    }

    /// What the admin API has rows by: months are added up from days.
    pub(super) fn in_api(self) -> Self {
        if self == Self::Month { Self::Day } else { self }
    }

    /// For how many days this can be shown side by side.
    fn most_days(self) -> Option<i64> {
        match self {
            Self::Hour => Some(14),
            Self::Day => Some(400),
            Self::Month => Some(3_660),
            _ => None,
        }
    }
}

/// A stretch of time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Day,
    Week,
    ThirtyDays,
    ThisMonth,
    Year,
}

impl Last {
    pub(super) const ALL: [Self; 5] = [Self::Day, Self::Week, Self::ThirtyDays, Self::ThisMonth, Self::Year];

    /// The name in addresses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::ThirtyDays => "30d",
            Self::ThisMonth => "month",
            Self::Year => "year",
        }
    }

    /// The name for people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Day => "Last 24 hours",
            Self::Week => "7 days",
            Self::ThirtyDays => "30 days",
            Self::ThisMonth => "This month",
            Self::Year => "Year",
        }
    }

    /// What of it is best shown by.
    pub(super) fn by(self) -> By {
        match self {
            Self::Day => By::Hour,
            Self::Week | Self::ThirtyDays | Self::ThisMonth => By::Day,
            Self::Year => By::Month,
        }
    }

    fn range(self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let today = TimeZone::UTC.to_datetime(now).date();
        let tomorrow = midnight(today.tomorrow().ok()?)?;
        let back = |days: i64| midnight(today.checked_sub(Span::new().days(days)).ok()?);
        Some(match self {
            Self::Day => {
                let hour = Timestamp::from_second(now.as_second().div_euclid(3600) * 3600).ok()?;
                let end = hour.checked_add(SignedDuration::from_hours(1)).ok()?;
                (end.checked_sub(SignedDuration::from_hours(24)).ok()?, end)
            }
            Self::Week => (back(6)?, tomorrow),
            Self::ThirtyDays => (back(29)?, tomorrow),
            Self::ThisMonth => (midnight(today.first_of_month())?, tomorrow),
            Self::Year => {
                let first = today.first_of_month().checked_sub(Span::new().months(11)).ok()?;
                (midnight(first)?, tomorrow)
            }
        })
    }
}

fn midnight(date: Date) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
}

fn day_of(at: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(at).date()
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Of one token; `None`: of all.
    pub(super) token: Option<TokenId>,
    /// The stretch of time, if it is one that ends now.
    pub(super) last: Option<Last>,
    /// Its begin.
    pub(super) from: Timestamp,
    /// Its end, which is no part of it.
    pub(super) to: Timestamp,
    pub(super) by: By,
    /// From one pool; `None`: from both.
    pub(super) pool: Option<Pool>,
    /// Which page of the table.
    pub(super) page: usize,
}

impl Asked {
    /// What is shown when nobody asks for anything.
    pub(super) fn by_default(now: Timestamp) -> Self {
        let last = Last::ThirtyDays;
        let (from, to) = last.range(now).unwrap_or((now, now));
        Self { token: None, last: Some(last), from, to, by: last.by(), pool: None, page: 1 }
    }

    /// Reads a query. What cannot be taken is told in sentences, all of it.
    pub(super) fn read(query: &Form, now: Timestamp) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let mut asked = Self::by_default(now);
        asked.token =
            choice(query, "token", "a token's id, tok_ and 26 characters", &mut errors, TokenId::parse);
        let named = |text: &str| Last::ALL.into_iter().find(|last| last.as_str() == text);
        let last = choice(query, "last", "24h, 7d, 30d, month or year", &mut errors, named);
        let last = last.filter(|last| still_so(query, *last, now));
        asked.read_range(query, last, now, &mut errors);
        let named = |text: &str| By::ALL.into_iter().find(|by| by.as_str() == text);
        let by = choice(query, "by", "hour, day, month, dataset, operation or token", &mut errors, named);
        // One token by tokens would be one row.
        let by = by.filter(|by| *by != By::Token || asked.token.is_none());
        asked.by = by.unwrap_or_else(|| asked.last.map_or(By::Day, Last::by));
        let named = |text: &str| Pool::ALL.into_iter().find(|pool| pool.as_str() == text);
        asked.pool = choice(query, "pool", "core or premium", &mut errors, named);
        asked.page = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(1).max(1);
        if errors.is_empty() {
            errors.extend(asked.too_long());
        }
        if errors.is_empty() { Ok(asked) } else { Err(errors) }
    }

    fn read_range(&mut self, query: &Form, last: Option<Last>, now: Timestamp, errors: &mut Vec<String>) {
        if let Some(last) = last {
            self.last = Some(last);
            (self.from, self.to) = last.range(now).unwrap_or((self.from, self.to));
            return;
        }
        let expected = "a date like 2026-11-24";
        let from = choice(query, "from", expected, errors, parse_usage_time);
        let to = choice(query, "to", expected, errors, parse_end);
        if from.is_none() && to.is_none() {
            return;
        }
        self.last = None;
        if let Some(to) = to {
            self.to = to;
        }
        let thirty_days = SignedDuration::from_hours(30 * 24);
        self.from = from.or_else(|| self.to.checked_sub(thirty_days).ok()).unwrap_or(self.to);
        if errors.is_empty() && self.from >= self.to {
            errors.push("The first day must not be after the last one.".to_owned());
        }
    }

    fn too_long(&self) -> Option<String> {
        let most = self.by.most_days()?;
        let days = self.to.duration_since(self.from).as_hours() / 24;
        let other = if self.by == By::Hour { "by day" } else { "by month, or a shorter time" };
        (days > most).then(|| {
            let unit = self.by.as_str();
            format!("By {unit}, at most {most} days can be shown; these are {days}. Choose {other}.")
        })
    }

    /// The first day, for a form.
    pub(super) fn first_day(&self) -> Date {
        day_of(self.from)
    }

    /// The last day, for a form.
    pub(super) fn last_day(&self) -> Date {
        let inside = self.to.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(self.to);
        day_of(inside.max(self.from))
    }

    /// Its address: `/console/usage`, or one of the downloads.
    pub(super) fn link(&self, path: &str) -> String {
        let mut link = format!("{path}?by={}", self.by.as_str());
        let mut add = |name: &str, value: &str| {
            let value = utf8_percent_encode(value, QUERY);
            let _ = write!(link, "&{name}={value}");
        };
        match self.last {
            Some(last) => add("last", last.as_str()),
            None if midnight(self.first_day()) == Some(self.from)
                && parse_end(&self.last_day().to_string()) == Some(self.to) =>
            {
                add("from", &self.first_day().to_string());
                add("to", &self.last_day().to_string());
            }
            None => {
                add("from", &self.from.to_string());
                add("to", &self.to.to_string());
            }
        }
        if let Some(token) = &self.token {
            add("token", token.as_str());
        }
        if let Some(pool) = self.pool {
            add("pool", pool.as_str());
        }
        if self.page > 1 {
            add("page", &self.page.to_string());
        }
        link
    }

    /// Where the admin API answers it.
    pub(super) fn api_path(&self) -> String {
        let of =
            self.token.as_ref().map_or_else(|| "/v1/usage".to_owned(), |id| format!("/v1/tokens/{id}/usage"));
        format!("{of}?from={}&to={}&by={}", self.from, self.to, self.by.in_api().as_str())
    }

    /// The name of a file with it, without its ending.
    pub(super) fn file_name(&self) -> String {
        format!("tollgate-usage-{}-to-{}-by-{}", self.first_day(), self.last_day(), self.by.as_str())
    }

    /// The stretch of time, in words.
    pub(super) fn range_text(&self) -> String {
        match self.last {
            Some(Last::Day) => "in the last 24 hours".to_owned(),
            _ if self.first_day() == self.last_day() => format!("on {}", self.first_day()),
            _ => format!("from {} to {}", self.first_day(), self.last_day()),
        }
    }
}

/// What may stay as it is in a query.
const QUERY: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The end of a day, or a time.
fn parse_end(text: &str) -> Option<Timestamp> {
    match text.parse::<Date>() {
        Ok(date) if text.len() == 10 => parse_usage_time(&date.tomorrow().ok()?.to_string()),
        _ => parse_usage_time(text),
    }
}

/// A form carries the chosen stretch along, and its days in two fields: whoever changes a day wants that day.
fn still_so(query: &Form, last: Last, now: Timestamp) -> bool {
    let Some((from, to)) = last.range(now) else { return false };
    let range = Asked { last: Some(last), from, to, ..Asked::by_default(now) };
    [("from", range.first_day()), ("to", range.last_day())]
        .into_iter()
        .all(|(name, day)| query.text(name).is_empty() || query.text(name) == day.to_string())
}

/// A field that may be left out.
fn choice<T>(
    query: &Form,
    name: &str,
    expected: &str,
    errors: &mut Vec<String>,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let text = query.get(name).filter(|text| !text.is_empty())?;
    let value = read(text);
    if value.is_none() {
        // What was given is not said again: it may be the value of a token.
        errors.push(format!("“{name}” must be {expected}."));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-24T10:20:30Z";

    fn read(query: &str) -> Result<Asked, Vec<String>> {
        Asked::read(&Form::parse(query.as_bytes()), NOW.parse().unwrap())
    }

    #[test]
    fn stretches_end_with_this_hour_or_this_day() {
        let table = [
            ("", "2026-10-26T00:00:00Z", "2026-11-25T00:00:00Z", By::Day),
            ("last=24h", "2026-11-23T11:00:00Z", "2026-11-24T11:00:00Z", By::Hour),
            ("last=7d", "2026-11-18T00:00:00Z", "2026-11-25T00:00:00Z", By::Day),
            ("last=month", "2026-11-01T00:00:00Z", "2026-11-25T00:00:00Z", By::Day),
            ("last=year", "2025-12-01T00:00:00Z", "2026-11-25T00:00:00Z", By::Month),
            ("from=2026-11-01&to=2026-11-02", "2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z", By::Day),
            ("from=2026-11-01", "2026-11-01T00:00:00Z", "2026-11-25T00:00:00Z", By::Day),
            ("to=2026-11-01&by=token", "2026-10-03T00:00:00Z", "2026-11-02T00:00:00Z", By::Token),
            (
                "from=2026-11-01T06:00:00Z&to=2026-11-01T07:00:00Z&by=hour",
                "2026-11-01T06:00:00Z",
                "2026-11-01T07:00:00Z",
                By::Hour,
            ),
            (
                "last=7d&from=2026-11-18&to=2026-11-24",
                "2026-11-18T00:00:00Z",
                "2026-11-25T00:00:00Z",
                By::Day,
            ),
            (
                "last=7d&from=2026-11-20&to=2026-11-24",
                "2026-11-20T00:00:00Z",
                "2026-11-25T00:00:00Z",
                By::Day,
            ),
        ];
        for (query, from, to, by) in table {
            let asked = read(query).unwrap();
            assert_eq!(
                (asked.from.to_string().as_str(), asked.to.to_string().as_str(), asked.by),
                (from, to, by),
                "{query}"
            );
        }
    }

    #[test]
    fn a_link_leads_back_to_the_same() {
        for query in [
            "",
            "last=24h&by=hour",
            "last=year&by=dataset&pool=premium&page=3",
            "from=2026-11-01&to=2026-11-02&by=hour&token=tok_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "from=2026-11-01T06:00:00Z&to=2026-11-01T09:30:00Z&by=operation",
        ] {
            let asked = read(query).unwrap();
            let link = asked.link("/console/usage");
            let again = link.split_once('?').unwrap().1;
            assert_eq!(read(again).unwrap(), asked, "{link}");
        }
    }

    #[test]
    fn says_what_cannot_be_taken_without_saying_it_again() {
        let secret = format!("sk_{}", "0".repeat(32));
        let table = [
            (format!("token={secret}"), "a token's id"),
            ("by=week".to_owned(), "hour, day, month"),
            ("from=yesterday".to_owned(), "a date"),
            ("from=2026-02-30".to_owned(), "a date"),
            ("to=9999-12-31".to_owned(), "a date"),
            ("pool=gold".to_owned(), "core or premium"),
            ("last=decade".to_owned(), "24h"),
            ("from=2026-11-24&to=2026-11-23".to_owned(), "first day"),
            ("last=30d&by=hour".to_owned(), "at most 14 days"),
            ("from=2020-01-01&to=2026-11-23&by=day".to_owned(), "by month"),
        ];
        for (query, told) in table {
            let errors = read(&query).unwrap_err().join(" ");
            assert!(errors.contains(told) && !errors.contains(&secret), "{query}: {errors}");
        }
        assert_eq!(read("by=week&pool=gold").unwrap_err().len(), 2);
        assert_eq!(read("page=nonsense").unwrap().page, 1);
    }

    #[test]
    fn one_token_is_not_shown_by_tokens() {
        assert_eq!(read("by=token&token=tok_01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap().by, By::Day);
    }
}
