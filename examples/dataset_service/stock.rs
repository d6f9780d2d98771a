//! `/{v}/stock/…`: quotes and charts in the shapes that market-data clients expect, over the same prices as `CORE`.
//!
//! It only reads. Which records are wanted is still `select`'s work.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Span;
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::catalog::{CORE, Catalog, Location};
use crate::data::no_dataset;
use crate::dataset::{Dataset, Record};
use crate::reply::{Failure, json_reply};
use crate::request::Segments;
use crate::routes::Service;
use crate::select::{Query, QueryError, Selection, parse_date};

/// The named segments of a stock path.
#[derive(Debug, Deserialize)]
pub(crate) struct StockPath {
    symbol: String,
    range: Option<String>,
    date: Option<String>,
}

/// `GET /{v}/stock/{symbol}/quote`
pub(crate) async fn quote(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<StockPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let selection = Selection::parse(&Query::parse(raw.as_deref()))?;
    let catalog = service.catalog.read();
    let record = quote_of(&catalog, &path.symbol)?;
    Ok(json_reply(StatusCode::OK, &selection.project(record)))
}

/// `GET /{v}/stock/{symbol}/chart[/{range}]` and `…/chart/date/{date}`; the range may also stand in the query.
pub(crate) async fn chart(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<StockPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let query = Query::parse(raw.as_deref());
    let mut selection = Selection::parse(&query)?;
    if let Some(text) = &path.date {
        let date = parse_date(text).ok_or(QueryError::NotADate { name: "date" })?;
        (selection.from, selection.to) = (Some(date), Some(date));
    }
    if let Some(count) = query.number("chartLast", 1)? {
        selection = selection.last(usize::try_from(count).unwrap_or(usize::MAX));
    }
    let range = path.range.as_deref().or(query.one("range")?);
    let catalog = service.catalog.read();
    Ok(json_reply(StatusCode::OK, &chart_of(&catalog, &path.symbol, range, selection)?))
}

/// `GET /{v}/stock/market/batch?symbols=…&types=…`: by symbol, then by type; unknown symbols are left out.
pub(crate) async fn market_batch(
    State(service): State<Arc<Service>>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let query = Query::parse(raw.as_deref());
    let catalog = service.catalog.read();
    let mut told = Map::new();
    for symbol in query.list("symbols")? {
        match batch_of(&catalog, &symbol, &query) {
            Ok(parts) => drop(told.insert(symbol.to_uppercase(), Value::Object(parts))),
            Err(Failure::NoSymbol { .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(json_reply(StatusCode::OK, &told))
}

/// `GET /{v}/stock/{symbol}/batch?types=…`
pub(crate) async fn batch(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<StockPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let parts = batch_of(&service.catalog.read(), &path.symbol, &Query::parse(raw.as_deref()))?;
    Ok(json_reply(StatusCode::OK, &parts))
}

/// In a batch `last` is for other types than these two (news, say), so it does not cut the chart.
fn batch_of(catalog: &Catalog, symbol: &str, query: &Query) -> Result<Map<String, Value>, Failure> {
    let mut parts = Map::new();
    let mut types = query.list("types")?;
    if types.is_empty() {
        types.push("quote".to_owned());
    }
    for name in types {
        let value = match name.as_str() {
            "quote" => json!(quote_of(catalog, symbol)?),
            "chart" => json!(chart_of(catalog, symbol, query.one("range")?, Selection::default())?),
            _ => return Err(QueryError::BadType { name }.into()),
        };
        parts.insert(name, value);
    }
    Ok(parts)
}

fn core<'a>(catalog: &'a Catalog, id: &str) -> Result<&'a Dataset, Failure> {
    let location = Location::new(CORE, id);
    catalog.get(&location).ok_or_else(|| no_dataset(&location))
}

fn no_symbol(symbol: &str) -> Failure {
    Failure::NoSymbol { symbol: symbol.to_owned() }
}

fn quote_of<'a>(catalog: &'a Catalog, symbol: &str) -> Result<&'a Record, Failure> {
    core(catalog, "QUOTE")?.under(symbol, None).next().ok_or_else(|| no_symbol(symbol))
}

/// Without any range or date: the last month, as the original service does.
fn chart_of<'a>(
    catalog: &'a Catalog,
    symbol: &str,
    range: Option<&str>,
    mut selection: Selection,
) -> Result<Vec<Cow<'a, Record>>, Failure> {
    let set = core(catalog, "HISTORICAL_PRICES")?;
    let days: Vec<Date> =
        set.under(symbol, None).filter_map(|record| parse_date(record.get("date")?.as_str()?)).collect();
    if days.is_empty() {
        return Err(no_symbol(symbol));
    }
    let dated = selection.from.is_some() || selection.to.is_some();
    let since =
        first_day(range.unwrap_or(if dated { "max" } else { "1m" }), &days).ok_or(QueryError::BadRange)?;
    selection.from = selection.from.max(Some(since));
    Ok(selection.apply(set, &[symbol], &[])?)
}

/// The day a range begins. `5d` is five trading days; weeks, months and years go by the calendar; all reach back from the
/// latest of the days there are.
fn first_day(range: &str, days: &[Date]) -> Option<Date> {
    let range = range.to_ascii_lowercase();
    let (&earliest, &latest) = (days.first()?, days.last()?);
    let (unit_at, _) = range.char_indices().next_back()?;
    let (count, unit) = range.split_at_checked(unit_at)?;
    let count = || count.parse::<u32>().ok().filter(|count| *count > 0);
    let span = match (range.as_str(), unit) {
        ("max", _) => return Some(earliest),
        ("ytd", _) => return Some(latest.first_of_year()),
        (_, "d") => {
            let back = usize::try_from(count()?).ok()? - 1;
            return Some(days.iter().rev().nth(back).copied().unwrap_or(earliest));
        }
        (_, "w") => Span::new().try_weeks(count()?),
        (_, "m") => Span::new().try_months(count()?),
        (_, "y") => Span::new().try_years(count()?),
        _ => return None,
    };
    latest.checked_sub(span.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(range: Option<&str>, raw: &str) -> Result<Vec<String>, Failure> {
        let catalog = Catalog::shipped().unwrap();
        let selection = Selection::parse(&Query::parse(Some(raw))).unwrap();
        let rows = chart_of(&catalog, "ibm", range, selection)?;
        Ok(rows.iter().map(|row| row["date"].as_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn charts_reach_back_from_the_latest_day() {
        let cases = [
            (None, "", "2013-02-01", 20),
            (Some("5d"), "", "2013-02-25", 5),
            (Some("5d"), "last=2", "2013-02-28", 2),
            (Some("900d"), "", "2011-03-01", 504),
            (Some("1W"), "", "2013-02-22", 6),
            (Some("1y"), "", "2012-03-01", 251),
            (Some("ytd"), "", "2013-01-02", 41),
            (Some("max"), "", "2011-03-01", 504),
            (Some("max"), "last=3", "2013-02-27", 3),
            (None, "from=2012-12-24&to=2012-12-26", "2012-12-24", 2),
            (Some("1m"), "from=2013-02-25", "2013-02-25", 5),
        ];
        for (range, raw, first, count) in cases {
            let rows = rows(range, raw).unwrap();
            assert_eq!((rows[0].as_str(), rows.len()), (first, count), "{range:?} {raw}");
        }
    }

    #[test]
    fn refuses_ranges_it_does_not_know() {
        for range in ["m", "0d", "-1d", "1x", "1é", "99999999y", "next-week"] {
            assert_eq!(rows(Some(range), "").err(), Some(QueryError::BadRange.into()), "{range}");
        }
    }
}
