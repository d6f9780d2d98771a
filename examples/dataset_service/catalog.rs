//! The shelf of all data sets, by workspace and id, and the data that is shipped with the service.
//!
//! It must not know HTTP. What a data set holds and how it is written is `dataset`'s business.

use std::collections::BTreeMap;

use serde_json::{Number, Value, json};

use crate::dataset::{Dataset, Record, RecordError, Schema};

const PRICES: &str = include_str!("../data/prices.csv");
const CARS: &str = include_str!("../data/cars.csv");
const WEATHER: &str = include_str!("../data/weather.csv");

/// Names of the companies at the time of the shipped prices.
const COMPANIES: [(&str, &str); 5] = [
    ("AAPL", "Apple Inc."),
    ("FB", "Facebook, Inc."),
    ("GOOG", "Google Inc."),
    ("IBM", "International Business Machines Corporation"),
    ("MSFT", "Microsoft Corporation"),
];

/// The built-in workspace; it is read-only.
pub(crate) const CORE: &str = "CORE";

/// Workspace and id of a data set, in upper case, since ids compare without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    pub(crate) workspace: String,
    pub(crate) id: String,
}

impl Location {
    pub(crate) fn new(workspace: &str, id: &str) -> Self {
        Self { workspace: workspace.to_uppercase(), id: id.to_uppercase() }
    }
}

/// All data sets.
#[derive(Debug, Default)]
pub(crate) struct Catalog(BTreeMap<Location, Dataset>);

impl Catalog {
    /// The catalog as it stands at the start: the shipped data and nothing written yet.
    pub(crate) fn shipped() -> Result<Self, RecordError> {
        let prices = parse_csv(PRICES);
        let dated = |key| Schema::new(key, Some("date"), Some("date"), None);
        let sets = [
            (CORE, "QUOTE", Schema::new("symbol", None, Some("date"), None), quotes(&prices)),
            (CORE, "HISTORICAL_PRICES", dated("symbol"), prices),
            ("MY", "CARS", Schema::new("make", Some("model"), None, Some("id")), parse_csv(CARS)),
            ("MY", "WEATHER", dated("location"), parse_csv(WEATHER)),
        ];
        let mut catalog = Self::default();
        for (workspace, id, schema, records) in sets {
            let mut set = Dataset::new(schema);
            set.upsert(records)?;
            set.read_only = workspace == CORE;
            catalog.0.insert(Location::new(workspace, id), set);
        }
        Ok(catalog)
    }

    pub(crate) fn get(&self, location: &Location) -> Option<&Dataset> {
        self.0.get(location)
    }

    pub(crate) fn get_mut(&mut self, location: &Location) -> Option<&mut Dataset> {
        self.0.get_mut(location)
    }

    /// Adds a new data set. Answers false, and adds nothing, where one stands already.
    pub(crate) fn add(&mut self, location: Location, set: Dataset) -> bool {
        if self.0.contains_key(&location) {
            return false;
        }
        self.0.insert(location, set);
        true
    }

    pub(crate) fn remove(&mut self, location: &Location) {
        self.0.remove(location);
    }

    /// The data sets of a workspace; none, for a workspace nobody has used yet.
    pub(crate) fn list(&self, workspace: &str) -> impl Iterator<Item = (&Location, &Dataset)> {
        let workspace = workspace.to_uppercase();
        self.0.iter().filter(move |(location, _)| location.workspace == workspace)
    }
}

/// Reads the shipped CSV files: a header, no quotes (`data/make.py` sees to that), an empty cell for null.
fn parse_csv(text: &str) -> Vec<Record> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let record =
        |line: &str| names.iter().map(|name| (*name).to_owned()).zip(line.split(',').map(cell)).collect();
    lines.filter(|line| !line.is_empty()).map(record).collect()
}

fn cell(text: &str) -> Value {
    let number = text.parse::<i64>().map(Number::from).ok();
    let number = number.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    match number {
        _ if text.is_empty() => Value::Null,
        Some(number) => Value::Number(number),
        None => Value::from(text),
    }
}

/// The latest price of each symbol, with its change since the trading day before. Wants prices in order of symbol and date.
fn quotes(prices: &[Record]) -> Vec<Record> {
    let same = |one: &Record, two: &Record| one.get("symbol") == two.get("symbol");
    prices.chunk_by(same).filter_map(|days| Some(quote(days.last()?, days.iter().rev().nth(1)?))).collect()
}

fn quote(day: &Record, before: &Record) -> Record {
    let field = |name: &str| day.get(name).cloned().unwrap_or_default();
    let number = |record: &Record, name: &str| record.get(name).and_then(Value::as_f64).unwrap_or_default();
    let (close, previous) = (number(day, "close"), number(before, "close"));
    let symbol = field("symbol");
    let company = COMPANIES.iter().find(|(known, _)| symbol == *known).map(|(_, name)| name);
    let value = json!({
        "symbol": symbol,
        "companyName": company,
        "currency": "USD",
        "latestPrice": field("close"),
        "latestSource": "Close",
        "date": field("date"),
        "open": field("open"),
        "high": field("high"),
        "low": field("low"),
        "close": field("close"),
        "volume": field("volume"),
        "previousClose": previous,
        "change": round(close - previous),
        "changePercent": round((close - previous) / previous),
    });
    match value {
        Value::Object(record) => record,
        _ => Record::new(),
    }
}

/// To five decimals, so that a difference of two prices does not show its binary tail.
fn round(number: f64) -> f64 {
    (number * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ships_every_record_of_every_file() {
        let catalog = Catalog::shipped().unwrap();
        let cases = [
            ("core", "Quote", 5, PRICES),
            ("CORE", "historical_prices", 2212, PRICES),
            ("my", "cars", 234, CARS),
            ("MY", "WEATHER", 2922, WEATHER),
        ];
        for (workspace, id, records, file) in cases {
            let set = catalog.get(&Location::new(workspace, id)).unwrap();
            assert_eq!(set.len(), records, "{id}: two records fell into one place, or some are missing");
            assert!(id == "Quote" || file.lines().count() == records + 1, "{id}");
        }
    }

    #[test]
    fn quotes_the_last_close_and_its_change_since_the_day_before() {
        let catalog = Catalog::shipped().unwrap();
        let set = catalog.get(&Location::new(CORE, "QUOTE")).unwrap();
        let quote = set.under("aapl", None).next().unwrap();
        assert_eq!(quote["date"], "2013-03-01");
        assert_eq!(quote["latestPrice"], 430.47);
        assert_eq!(quote["previousClose"], 441.4);
        assert_eq!(quote["change"], -10.93);
        assert_eq!(quote["companyName"], "Apple Inc.");
    }

    #[test]
    fn reads_cells_as_numbers_texts_or_null() {
        assert_eq!(
            [cell("12"), cell("-1.50"), cell("a4"), cell("")],
            [12.into(), (-1.5).into(), "a4".into(), Value::Null]
        );
    }
}
