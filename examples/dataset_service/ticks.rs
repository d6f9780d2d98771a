//! `/{v}/stocksUS1Second`: the shipped prices replayed as server-sent events, over and over.
//!
//! Ticks are made into text once, at the start, so that a thousand open streams hold no prices of their own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::dataset::{Dataset, Record};
use crate::reply::Failure;
use crate::routes::Service;
use crate::select::Query;

/// A longer wait between two ticks than an hour is a slip.
const LONGEST_INTERVAL: u64 = 3_600_000;

/// Per symbol the ticks in order of date, each a JSON object as text.
#[derive(Debug, Default)]
pub(crate) struct Ticks(BTreeMap<String, Arc<[String]>>);

impl Ticks {
    pub(crate) fn new(prices: &Dataset) -> Self {
        let mut ticks: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in prices.all() {
            if let Some(symbol) = record.get("symbol").and_then(Value::as_str) {
                ticks.entry(symbol.to_owned()).or_default().push(tick(record));
            }
        }
        Self(ticks.into_iter().map(|(symbol, texts)| (symbol, texts.into())).collect())
    }

    /// The ticks of these symbols, or of all if none is named.
    fn of(&self, symbols: &[String]) -> Result<Vec<Arc<[String]>>, Failure> {
        if symbols.is_empty() {
            return Ok(self.0.values().cloned().collect());
        }
        let one = |symbol: &String| {
            let found = self.0.get(&symbol.to_uppercase()).cloned();
            found.ok_or_else(|| Failure::NoSymbol { symbol: symbol.clone() })
        };
        symbols.iter().map(one).collect()
    }
}

fn tick(record: &Record) -> String {
    let field = |name: &str| record.get(name);
    json!({
        "symbol": field("symbol"), "latestPrice": field("close"), "date": field("date"),
        "open": field("open"), "high": field("high"), "low": field("low"), "volume": field("volume"),
    })
    .to_string()
}

/// `GET /{v}/stocksUS1Second?symbols=…[&interval=MS][&events=N]`
pub(crate) async fn stream(
    State(service): State<Arc<Service>>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let query = Query::parse(raw.as_deref());
    let series = service.ticks.of(&query.list("symbols")?)?;
    let interval = query.number("interval", 1)?.unwrap_or(1000).min(LONGEST_INTERVAL);
    let events = query.number("events", 1)?;
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    let body = Body::from_stream(replay(series, Duration::from_millis(interval), events));
    Ok((headers, body).into_response())
}

/// The first event comes at once; the last one, if `events` says so, ends the stream.
fn replay(
    series: Vec<Arc<[String]>>,
    interval: Duration,
    events: Option<u64>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let mut ticker = tokio::time::interval(interval);
    // A slow reader gets later events, not a burst of them.
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((series, ticker, 0_u64), move |(series, mut ticker, at)| async move {
        if events.is_some_and(|most| at >= most) {
            return None;
        }
        ticker.tick().await;
        Some((Ok(event(&series, at)), (series, ticker, at + 1)))
    })
}

/// One event with the tick number `at` of each symbol; a symbol with fewer ticks starts again sooner.
fn event(series: &[Arc<[String]>], at: u64) -> Bytes {
    let nth = |ticks: &Arc<[String]>| {
        let length = u64::try_from(ticks.len()).ok().filter(|length| *length > 0)?;
        ticks.get(usize::try_from(at % length).ok()?).cloned()
    };
    let ticks: Vec<String> = series.iter().filter_map(nth).collect();
    Bytes::from(format!("data: [{}]\n\n", ticks.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_again_when_the_prices_are_used_up() {
        let series: [Arc<[String]>; 2] = [["1".to_owned(), "2".to_owned()].into(), ["9".to_owned()].into()];
        let texts: Vec<Bytes> = (0..3).map(|at| event(&series, at)).collect();
        assert_eq!(texts, ["data: [1,9]\n\n", "data: [2,9]\n\n", "data: [1,9]\n\n"]);
    }
}
