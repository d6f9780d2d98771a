//! `/{v}/datasets/…`: listing, describing, creating, changing and removing data sets.
//!
//! A data set's description is `{"id", "key", "subkey", "date", "idField"}`: its name, and the fields that place a
//! record. Records are `data`'s business.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::{CORE, Location};
use crate::data::{done, no_dataset, parse_json, writable};
use crate::dataset::{Dataset, Record, Schema};
use crate::reply::{Failure, json_reply};
use crate::request::{Segments, Whole};
use crate::routes::Service;
use crate::select::Query;

/// The named segments of a data set path.
#[derive(Debug, Deserialize)]
pub(crate) struct SetPath {
    workspace: String,
    dataset: Option<String>,
}

impl SetPath {
    fn location(&self) -> Location {
        Location::new(&self.workspace, self.dataset.as_deref().unwrap_or_default())
    }
}

/// `GET /{v}/datasets/{workspace}[?limit=N]`
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<SetPath>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let limit = Query::parse(raw.as_deref()).number("limit", 1)?.unwrap_or(u64::MAX);
    let catalog = service.catalog.read();
    let sets = catalog.list(&path.workspace).take(usize::try_from(limit).unwrap_or(usize::MAX));
    let told: Vec<Value> = sets.map(|(at, set)| set.describe(&at.workspace, &at.id)).collect();
    Ok(json_reply(StatusCode::OK, &told))
}

/// `GET /{v}/time-series`: the data sets that can be read as time series.
pub(crate) async fn inventory(State(service): State<Arc<Service>>) -> Response {
    let catalog = service.catalog.read();
    let told: Vec<Value> = catalog.list(CORE).map(|(at, set)| set.describe(&at.workspace, &at.id)).collect();
    json_reply(StatusCode::OK, &told)
}

/// `GET /{v}/datasets/{workspace}/{dataset}`
pub(crate) async fn describe(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<SetPath>,
) -> Result<Response, Failure> {
    let location = path.location();
    let catalog = service.catalog.read();
    let set = catalog.get(&location).ok_or_else(|| no_dataset(&location))?;
    Ok(json_reply(StatusCode::OK, &set.describe(&location.workspace, &location.id)))
}

/// `POST /{v}/datasets/{workspace}`: the body names the new data set.
pub(crate) async fn create(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<SetPath>,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let wish = parse_wish(&body)?;
    let Some(id) = ["id", "datasetId", "name"].iter().find_map(|name| wish.get(*name)?.as_str()) else {
        return Err(Failure::NotASchema { reason: "`id` is missing" });
    };
    let location = Location::new(&path.workspace, id);
    add(&service, location, &wish)
}

/// `POST /{v}/datasets/{workspace}/{dataset}`: creates it, or changes the one that is there, as some clients do.
pub(crate) async fn create_or_change(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<SetPath>,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    let wish = parse_wish(&body)?;
    let location = path.location();
    let exists = service.catalog.read().get(&location).is_some();
    if exists { reshape(&service, &location, &wish) } else { add(&service, location, &wish) }
}

/// `PATCH /{v}/datasets/{workspace}/{dataset}`: changes which fields place a record.
pub(crate) async fn change(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<SetPath>,
    Whole(body): Whole,
) -> Result<Response, Failure> {
    reshape(&service, &path.location(), &parse_wish(&body)?)
}

/// `DELETE /{v}/datasets/{workspace}/{dataset}`
pub(crate) async fn remove(
    State(service): State<Arc<Service>>,
    Segments(path): Segments<SetPath>,
) -> Result<Response, Failure> {
    let location = path.location();
    let mut catalog = service.catalog.write();
    writable(&mut catalog, &location)?;
    catalog.remove(&location);
    Ok(done(&format!("{}/{} deleted", location.workspace, location.id)))
}

fn add(service: &Service, location: Location, wish: &Record) -> Result<Response, Failure> {
    if location.workspace == CORE {
        return Err(Failure::ReadOnly { workspace: location.workspace, id: location.id });
    }
    if ![&location.workspace, &location.id].into_iter().all(|name| is_name(name)) {
        return Err(Failure::NotASchema { reason: "names are 1 to 64 letters, digits, `_` or `-`" });
    }
    let set = Dataset::new(shape(&Schema::new("key", None, None, None), wish)?);
    let told = set.describe(&location.workspace, &location.id);
    if service.catalog.write().add(location.clone(), set) {
        Ok(json_reply(StatusCode::CREATED, &told))
    } else {
        Err(Failure::Exists { workspace: location.workspace, id: location.id })
    }
}

/// Puts every record into its new place. Nothing changes if one has none, or if two would fall into one.
fn reshape(service: &Service, location: &Location, wish: &Record) -> Result<Response, Failure> {
    let mut catalog = service.catalog.write();
    let set = writable(&mut catalog, location)?;
    let mut reshaped = Dataset::new(shape(&set.schema, wish)?);
    reshaped.upsert(set.all().cloned().collect())?;
    if reshaped.len() < set.len() {
        return Err(Failure::NotASchema { reason: "two records would fall into one place" });
    }
    *set = reshaped;
    Ok(json_reply(StatusCode::OK, &set.describe(&location.workspace, &location.id)))
}

fn parse_wish(body: &[u8]) -> Result<Record, Failure> {
    match parse_json(body)? {
        Value::Object(wish) => Ok(wish),
        _ => Err(Failure::NotASchema { reason: "it is something else" }),
    }
}

/// The old schema with what the wish names put over it; `null` takes an optional field away.
fn shape(old: &Schema, wish: &Record) -> Result<Schema, Failure> {
    let optional = |name: &str, old: Option<&String>| match wish.get(name) {
        None => Ok(old.cloned()),
        Some(Value::Null) => Ok(None),
        Some(Value::String(field)) if !field.is_empty() => Ok(Some(field.clone())),
        Some(_) => Err(Failure::NotASchema { reason: "`key`, `subkey`, `date`, `idField` name a field" }),
    };
    let Some(key) = optional("key", Some(&old.key))? else {
        return Err(Failure::NotASchema { reason: "`key` cannot be null" });
    };
    Ok(Schema {
        key,
        subkey: optional("subkey", old.subkey.as_ref())?,
        date: optional("date", old.date.as_ref())?,
        id: optional("idField", old.id.as_ref())?,
    })
}

/// No commas and the like: a name that can be split would be a batch.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
