//! `/{v}/data/…`, `/{v}/record/…` and `/{v}/time-series/…`: reading and writing records.
//!
//! It turns a path and a query into calls on `catalog`, and knows nothing of how records are kept (`dataset`) or chosen
//! (`select`).

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::catalog::{CORE, Catalog, Location};
use crate::dataset::{Dataset, Record, parse_records};
use crate::reply::{Failure, json_reply};
use crate::request::{Segments, Whole};
use crate::routes::Service;
use crate::select::{Query, QueryError, Selection};

/// The named segments of a data path.
#[derive(Debug, Deserialize)]
pub(crate) struct DataPath {
    workspace: String,
    dataset: String,
    key: Option<String>,
    subkey: Option<String>,
}

/// The named segments of a time-series path: a data path in the built-in workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct SeriesPath {
    id: String,
    key: Option<String>,
    subkey: Option<String>,
}

/// Answers of several data sets as one object, in the order they were asked for.
struct Batch<'a>(Vec<(String, Vec<Cow<'a, Record>>)>);

impl Serialize for Batch<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, rows)| (id, rows)))
    }
}

/// `GET /{v}/data/{workspace}/{dataset}[/{key}[/{subkey}]]`
pub(crate) async fn read(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<DataPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    answer(&service.catalog.read(), &path, raw.as_deref())
}

/// `GET /{v}/time-series/{id}[/{key}[/{subkey}]]`
pub(crate) async fn read_series(
    State(service): State<Arc<Service>>,
    Segments(SeriesPath { id, key, subkey }): Segments<SeriesPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let path = DataPath { workspace: CORE.to_owned(), dataset: id, key, subkey };
    answer(&service.catalog.read(), &path, raw.as_deref())
}

fn answer(catalog: &Catalog, path: &DataPath, raw: Option<&str>) -> Result<Response, Failure> {
    let query = Query::parse(raw);
    let separator = query.separator()?;
    let selection = Selection::parse(&query)?;
    let keys = split(path.key.as_deref(), separator);
    let subkeys = split(path.subkey.as_deref(), separator);
    let mut batch: Vec<(String, Vec<Cow<'_, Record>>)> = Vec::new();
    for id in split(Some(&path.dataset), separator) {
        let location = Location::new(&path.workspace, id);
        let set = catalog.get(&location).ok_or_else(|| no_dataset(&location))?;
        if batch.iter().all(|(known, _)| *known != location.id) {
            batch.push((location.id, selection.apply(set, &keys, &subkeys)?));
        }
    }
    match batch.as_slice() {
        [] => Err(no_dataset(&Location::new(&path.workspace, &path.dataset))),
        [(_, rows)] => Ok(json_reply(StatusCode::OK, rows)),
        _ => Ok(json_reply(StatusCode::OK, &Batch(batch))),
    }
}

fn split<'a>(segment: Option<&'a str>, separator: &str) -> Vec<&'a str> {
    segment.unwrap_or_default().split(separator).filter(|part| !part.is_empty()).collect()
}

/// `POST /{v}/record/{workspace}/{dataset}` and `POST /{v}/data/{workspace}/{dataset}`: writes records by their place.
pub(crate) async fn write(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<DataPath>,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let records = parse_records(parse_json(&body)?)?;
    let location = Location::new(&path.workspace, &path.dataset);
    let count = writable(&mut service.catalog.write(), &location)?.upsert(records)?;
    Ok(done(&format!("{} written to {}/{}", records_of(count), location.workspace, location.id)))
}

/// `PUT /{v}/data/{workspace}/{dataset}/{key}[/{subkey}]`: what is sent replaces what stands there.
pub(crate) async fn replace(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<DataPath>,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let records = parse_records(parse_json(&body)?)?;
    let location = Location::new(&path.workspace, &path.dataset);
    let key = path.key.as_deref().unwrap_or_default();
    let mut catalog = service.catalog.write();
    let count = writable(&mut catalog, &location)?.replace(key, path.subkey.as_deref(), records)?;
    Ok(done(&format!("{} now under {key}", records_of(count))))
}

/// `PATCH /{v}/data/{workspace}/{dataset}/{key}[/{subkey}]`: merges one object into each record that stands there.
pub(crate) async fn patch(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<DataPath>,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let Value::Object(change) = parse_json(&body)? else {
        return Err(Failure::NotJson { reason: "a JSON object was expected".to_owned() });
    };
    let location = Location::new(&path.workspace, &path.dataset);
    let key = path.key.as_deref().unwrap_or_default();
    let mut catalog = service.catalog.write();
    match writable(&mut catalog, &location)?.patch(key, path.subkey.as_deref(), &change)? {
        0 => Err(Failure::NoRecords { key: key.to_owned() }),
        count => Ok(done(&format!("{} changed under {key}", records_of(count)))),
    }
}

/// `DELETE /{v}/data/{workspace}/{dataset}/{key}[/{subkey}]`; `from`, `to` and `where` narrow it down.
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<DataPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let selection = Selection::parse(&Query::parse(raw.as_deref()))?;
    let location = Location::new(&path.workspace, &path.dataset);
    let key = path.key.as_deref().unwrap_or_default();
    let mut catalog = service.catalog.write();
    let set = writable(&mut catalog, &location)?;
    let date = set.schema.date.clone();
    if (selection.from.is_some() || selection.to.is_some()) && date.is_none() {
        return Err(QueryError::NoDate.into());
    }
    match set.remove(key, path.subkey.as_deref(), |record| selection.admits(date.as_deref(), record)) {
        0 => Err(Failure::NoRecords { key: key.to_owned() }),
        count => Ok(done(&format!("{} deleted from {key}", records_of(count)))),
    }
}

pub(crate) fn no_dataset(location: &Location) -> Failure {
    Failure::NoDataset { workspace: location.workspace.clone(), id: location.id.clone() }
}

/// The data set at a location, if it may be written to.
pub(crate) fn writable<'a>(
    catalog: &'a mut Catalog,
    location: &Location,
) -> Result<&'a mut Dataset, Failure> {
    match catalog.get_mut(location) {
        None => Err(no_dataset(location)),
        Some(set) if set.read_only => {
            Err(Failure::ReadOnly { workspace: location.workspace.clone(), id: location.id.clone() })
        }
        Some(set) => Ok(set),
    }
}

/// Reads a body as JSON whatever its content type says, since real clients send odd ones.
pub(crate) fn parse_json(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::NotJson { reason: error.to_string() })
}

pub(crate) fn done(message: &str) -> Response {
    json_reply(StatusCode::OK, &json!({"success": true, "message": message}))
}

fn records_of(count: usize) -> String {
    if count == 1 { "1 record".to_owned() } else { format!("{count} records") }
}
