//! The query string of a read: which records of a data set are wanted, in what order, with which fields.
//!
//! It must not know HTTP beyond the query's text. The records themselves are in `dataset`; `read` puts both together.

use std::borrow::Cow;
use std::cmp::Reverse;

use jiff::civil::Date;
use serde_json::Value;

use crate::dataset::{Dataset, Record, text_of};

/// Why a query cannot be answered; all are the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("`{name}` is given twice")]
    Twice { name: &'static str },
    #[error("`{name}` must be a whole number of {least} or more")]
    NotANumber { name: &'static str, least: u64 },
    #[error("`{name}` must be a date, YYYY-MM-DD")]
    NotADate { name: &'static str },
    #[error("`sort` must be asc or desc")]
    BadSort,
    #[error("`where` must be field:value")]
    BadWhere,
    #[error("`first` and `last` exclude each other")]
    FirstAndLast,
    #[error("`batchSeparator` must be 1 to 8 characters, no letter or digit")]
    BadSeparator,
    #[error("this data set has no date to select by")]
    NoDate,
    #[error("`range` must be like 5d, 2w, 1m, 1y, or ytd or max")]
    BadRange,
    #[error("`types` may name quote and chart, not {name}")]
    BadType { name: String },
}

/// The decoded parameters of a query string. An empty value counts as absent, as clients send `range=&last=`.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned();
        Self(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may stand once. Two are an error: a gate in front might have judged the other one.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<&str>, QueryError> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(QueryError::Twice { name }),
            (first, _) => Ok(first),
        }
    }

    pub(crate) fn number(&self, name: &'static str, least: u64) -> Result<Option<u64>, QueryError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if number >= least => Ok(Some(number)),
            _ => Err(QueryError::NotANumber { name, least }),
        }
    }

    pub(crate) fn list(&self, name: &'static str) -> Result<Vec<String>, QueryError> {
        let text = self.one(name)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    /// What separates the items of a batch: a comma, or what `batchSeparator` says instead.
    pub(crate) fn separator(&self) -> Result<&str, QueryError> {
        let text = self.one("batchSeparator")?.unwrap_or(",");
        let fits = text.chars().count() <= 8 && !text.chars().any(char::is_alphanumeric);
        if fits { Ok(text) } else { Err(QueryError::BadSeparator) }
    }
}

/// Reads `YYYY-MM-DD` or `YYYYMMDD`.
pub(crate) fn parse_date(text: &str) -> Option<Date> {
    let shaped =
        matches!(text.len(), 8 | 10) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if shaped { text.parse().ok() } else { None }
}

/// How many of the records are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Take {
    #[default]
    All,
    /// Per key that was asked for; over the whole data set if none was.
    First(usize),
    Last(usize),
    /// Over the whole answer.
    Limit(usize),
}

/// What a read asks for. The default is everything, in the data set's own order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    take: Take,
    pub(crate) from: Option<Date>,
    pub(crate) to: Option<Date>,
    descending: Option<bool>,
    fields: Vec<String>,
    equals: Vec<(String, String)>,
}

impl Selection {
    pub(crate) fn parse(query: &Query) -> Result<Self, QueryError> {
        let date = |name: &'static str| match query.one(name)? {
            None => Ok(None),
            Some(text) => parse_date(text).map(Some).ok_or(QueryError::NotADate { name }),
        };
        let descending = match query.one("sort")? {
            None => None,
            Some(word) if word.eq_ignore_ascii_case("asc") => Some(false),
            Some(word) if word.eq_ignore_ascii_case("desc") => Some(true),
            Some(_) => return Err(QueryError::BadSort),
        };
        let equal = |text: &str| match text.split_once(':') {
            Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
            _ => Err(QueryError::BadWhere),
        };
        Ok(Self {
            take: parse_take(query)?,
            from: date("from")?,
            to: date("to")?,
            descending,
            fields: query.list("filter")?,
            equals: query.all("where").map(equal).collect::<Result<_, _>>()?,
        })
    }

    /// Narrows the selection to the latest `count` records of each key.
    pub(crate) fn last(mut self, count: usize) -> Self {
        self.take = Take::Last(count);
        self
    }

    /// The records of `set` that are wanted: under `keys` (all, if empty), under `subkeys` of each (all, if empty).
    pub(crate) fn apply<'a>(
        &self,
        set: &'a Dataset,
        keys: &[&str],
        subkeys: &[&str],
    ) -> Result<Vec<Cow<'a, Record>>, QueryError> {
        if (self.from.is_some() || self.to.is_some()) && set.schema.date.is_none() {
            return Err(QueryError::NoDate);
        }
        let date = set.schema.date.as_deref();
        let wanted = |record: &&Record| self.admits(date, record);
        let mut rows: Vec<&Record> = Vec::new();
        if keys.is_empty() {
            rows.extend(self.cut(date, set.all().filter(wanted).collect()));
        }
        for key in keys {
            let found = if subkeys.is_empty() {
                set.under(key, None).filter(wanted).collect()
            } else {
                subkeys.iter().flat_map(|subkey| set.under(key, Some(subkey))).filter(wanted).collect()
            };
            rows.extend(self.cut(date, found));
        }
        if let Some(descending) = self.descending {
            sort(&mut rows, date.unwrap_or(&set.schema.key), descending);
        }
        if let Take::Limit(count) = self.take {
            rows.truncate(count);
        }
        Ok(rows.into_iter().map(|record| self.project(record)).collect())
    }

    /// Does the record pass the dates and the equalities?
    pub(crate) fn admits(&self, date: Option<&str>, record: &Record) -> bool {
        let inside = (self.from.is_none() && self.to.is_none())
            || date.and_then(|field| record.get(field)?.as_str()).and_then(parse_date).is_some_and(|day| {
                self.from.is_none_or(|from| day >= from) && self.to.is_none_or(|to| day <= to)
            });
        inside && self.equals.iter().all(|(field, value)| equals(record.get(field), value))
    }

    /// Keeps the first or last records by date (by their order, where there is no date).
    fn cut<'a>(&self, date: Option<&str>, mut rows: Vec<&'a Record>) -> Vec<&'a Record> {
        if let (Take::First(_) | Take::Last(_), Some(date)) = (self.take, date) {
            sort(&mut rows, date, false);
        }
        match self.take {
            Take::First(count) => rows.truncate(count),
            Take::Last(count) => drop(rows.drain(..rows.len().saturating_sub(count))),
            Take::All | Take::Limit(_) => {}
        }
        rows
    }

    pub(crate) fn project<'a>(&self, record: &'a Record) -> Cow<'a, Record> {
        if self.fields.is_empty() {
            return Cow::Borrowed(record);
        }
        let kept = self.fields.iter().filter_map(|field| Some((field.clone(), record.get(field)?.clone())));
        Cow::Owned(kept.collect())
    }
}

fn parse_take(query: &Query) -> Result<Take, QueryError> {
    let count = |name| Ok(query.number(name, 1)?.map(|number| usize::try_from(number).unwrap_or(usize::MAX)));
    // Clients add `limit=1` to a query that also says `first`, so `limit` yields to the other two.
    Ok(match (count("first")?, count("last")?, count("limit")?) {
        (Some(_), Some(_), _) => return Err(QueryError::FirstAndLast),
        (Some(first), None, _) => Take::First(first),
        (None, Some(last), _) => Take::Last(last),
        (None, None, Some(limit)) => Take::Limit(limit),
        (None, None, None) => Take::All,
    })
}

/// Numbers by value, anything else by its text without regard to case; an absent field equals the word `null`.
fn equals(found: Option<&Value>, wanted: &str) -> bool {
    let same_text = |text: &str| text.eq_ignore_ascii_case(wanted);
    match found {
        None | Some(Value::Null) => same_text("null"),
        Some(Value::Number(number)) => number.as_f64() == wanted.parse().ok(),
        Some(value) => text_of(value).is_some_and(|text| same_text(&text)),
    }
}

/// Stable: records with the same date keep their order, also when descending.
fn sort(rows: &mut [&Record], field: &str, descending: bool) {
    let text = |record: &Record| record.get(field).and_then(text_of).unwrap_or_default();
    if descending {
        rows.sort_by_cached_key(|record| Reverse(text(record)));
    } else {
        rows.sort_by_cached_key(|record| text(record));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::{Schema, parse_records};

    fn set() -> Dataset {
        let mut set = Dataset::new(Schema::new("symbol", Some("date"), Some("date"), None));
        let rows = json!([
            {"symbol": "A", "date": "2020-01-01", "close": 1.5, "up": true},
            {"symbol": "A", "date": "2020-01-02", "close": 2, "up": false},
            {"symbol": "A", "date": "2020-01-03", "close": 3, "up": true},
            {"symbol": "B", "date": "2020-01-02", "close": 20, "up": null},
            {"symbol": "B", "date": "2020-01-04", "close": 40},
        ]);
        set.upsert(parse_records(rows).unwrap()).unwrap();
        set
    }

    fn closes(query: &str, keys: &[&str], subkeys: &[&str]) -> Vec<f64> {
        let selection = Selection::parse(&Query::parse(Some(query))).unwrap();
        let set = set();
        let rows = selection.apply(&set, keys, subkeys).unwrap();
        rows.iter().map(|row| row["close"].as_f64().unwrap()).collect()
    }

    /// Query, keys, subkeys, and the closes they select.
    type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static [f64]);

    #[test]
    fn selects_by_each_filter() {
        let cases: &[Case] = &[
            ("", &[], &[], &[1.5, 2.0, 3.0, 20.0, 40.0]),
            ("", &["b", "A"], &[], &[20.0, 40.0, 1.5, 2.0, 3.0]),
            ("", &["A"], &["2020-01-03", "2020-01-01"], &[3.0, 1.5]),
            ("", &["C"], &[], &[]),
            ("last=1", &["A", "B"], &[], &[3.0, 40.0]),
            ("last=2", &[], &[], &[3.0, 40.0]),
            ("first=1", &["A", "B"], &[], &[1.5, 20.0]),
            ("first=2&limit=1", &["A"], &[], &[1.5, 2.0]),
            ("limit=2", &["A", "B"], &[], &[1.5, 2.0]),
            ("from=2020-01-02", &[], &[], &[2.0, 3.0, 20.0, 40.0]),
            ("from=20200102&to=20200103", &[], &[], &[2.0, 3.0, 20.0]),
            ("sort=desc", &[], &[], &[40.0, 3.0, 2.0, 20.0, 1.5]),
            ("sort=ASC", &["B", "A"], &[], &[1.5, 20.0, 2.0, 3.0, 40.0]),
            ("sort=desc&last=2", &["A"], &[], &[3.0, 2.0]),
            ("where=close:2.0", &[], &[], &[2.0]),
            ("where=symbol:b&where=close:40", &[], &[], &[40.0]),
            ("where=up:TRUE", &[], &[], &[1.5, 3.0]),
            ("where=up:null", &[], &[], &[20.0, 40.0]),
            ("where=close:two", &[], &[], &[]),
            ("last=&sort=&unknown=%00&&", &["B"], &[], &[20.0, 40.0]),
        ];
        for (query, keys, subkeys, expected) in cases {
            assert_eq!(closes(query, keys, subkeys), *expected, "{query} {keys:?} {subkeys:?}");
        }
    }

    #[test]
    fn keeps_only_the_fields_named_in_the_order_named() {
        let selection = Selection::parse(&Query::parse(Some("filter=close,,symbol,nothing"))).unwrap();
        let set = set();
        let rows = selection.apply(&set, &["B"], &["2020-01-04"]).unwrap();
        assert_eq!(serde_json::to_string(&rows).unwrap(), r#"[{"close":40,"symbol":"B"}]"#);
    }

    #[test]
    fn refuses_bad_values_with_the_parameter_they_stand_in() {
        let cases = [
            ("last=0", QueryError::NotANumber { name: "last", least: 1 }),
            ("first=-1", QueryError::NotANumber { name: "first", least: 1 }),
            ("limit=ten", QueryError::NotANumber { name: "limit", least: 1 }),
            ("first=1&last=1", QueryError::FirstAndLast),
            ("last=1&last=2", QueryError::Twice { name: "last" }),
            ("l%61st=1&last=1", QueryError::Twice { name: "last" }),
            ("from=yesterday", QueryError::NotADate { name: "from" }),
            ("from=2020-02-30", QueryError::NotADate { name: "from" }),
            ("to=2020-1-1", QueryError::NotADate { name: "to" }),
            ("sort=up", QueryError::BadSort),
            ("where=close", QueryError::BadWhere),
            ("where=:2", QueryError::BadWhere),
        ];
        for (query, expected) in cases {
            let found = Selection::parse(&Query::parse(Some(query)));
            assert_eq!(found.err(), Some(expected), "{query}");
        }
    }

    #[test]
    fn refuses_dates_where_the_data_set_has_none() {
        let set = Dataset::new(Schema::new("make", None, None, None));
        let selection = Selection::parse(&Query::parse(Some("to=2020-01-01"))).unwrap();
        assert_eq!(selection.apply(&set, &[], &[]).err(), Some(QueryError::NoDate));
    }

    #[test]
    fn takes_the_separator_of_a_batch_from_the_query() {
        let separator = |raw| Query::parse(raw).separator().map(str::to_owned);
        assert_eq!(separator(None).as_deref(), Ok(","));
        assert_eq!(separator(Some("batchSeparator=%7C")).as_deref(), Ok("|"));
        assert_eq!(separator(Some("batchSeparator=a")), Err(QueryError::BadSeparator));
        let twice = separator(Some("batchSeparator=,&batchSeparator=%7C"));
        assert_eq!(twice, Err(QueryError::Twice { name: "batchSeparator" }));
    }
}
