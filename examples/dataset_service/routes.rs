//! The route table, and what every handler shares.
//!
//! Each path is also served with a slash at its end, since real clients put one before the query.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, any, get, post};
use parking_lot::RwLock;

use crate::catalog::{CORE, Catalog, Location};
use crate::dataset::RecordError;
use crate::ticks::Ticks;
use crate::{data, datasets, probe, reply, stock, ticks};

/// The longest body of a write; streamed bodies (`echo-length`) have no limit.
const LONGEST_WRITE: usize = 16 * 1024 * 1024;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) catalog: RwLock<Catalog>,
    pub(crate) ticks: Ticks,
}

impl Service {
    /// The service with its shipped data, before anybody wrote.
    pub(crate) fn shipped() -> Result<Arc<Self>, RecordError> {
        let catalog = Catalog::shipped()?;
        let prices = catalog.get(&Location::new(CORE, "HISTORICAL_PRICES"));
        let ticks = prices.map(Ticks::new).unwrap_or_default();
        Ok(Arc::new(Self { catalog: RwLock::new(catalog), ticks }))
    }
}

/// Everything the service answers.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let records = || get(data::read).put(data::replace).patch(data::patch).delete(data::delete);
    let set = get(datasets::describe)
        .post(datasets::create_or_change)
        .patch(datasets::change)
        .delete(datasets::remove);
    let table: [(&str, MethodRouter<Arc<Service>>); 22] = [
        ("/{v}/data/{workspace}/{dataset}", get(data::read).post(data::write)),
        ("/{v}/data/{workspace}/{dataset}/{key}", records()),
        ("/{v}/data/{workspace}/{dataset}/{key}/{subkey}", records()),
        ("/{v}/record/{workspace}/{dataset}", post(data::write)),
        ("/{v}/datasets/{workspace}", get(datasets::list).post(datasets::create)),
        ("/{v}/datasets/{workspace}/{dataset}", set),
        ("/{v}/time-series", get(datasets::inventory)),
        ("/{v}/time-series/{id}", get(data::read_series)),
        ("/{v}/time-series/{id}/{key}", get(data::read_series)),
        ("/{v}/time-series/{id}/{key}/{subkey}", get(data::read_series)),
        ("/{v}/stock/{symbol}/quote", get(stock::quote)),
        ("/{v}/stock/{symbol}/chart", get(stock::chart)),
        ("/{v}/stock/{symbol}/chart/{range}", get(stock::chart)),
        ("/{v}/stock/{symbol}/chart/date/{date}", get(stock::chart)),
        ("/{v}/stock/{symbol}/batch", get(stock::batch)),
        ("/{v}/stock/market/batch", get(stock::market_batch)),
        ("/{v}/stocksUS1Second", get(ticks::stream)),
        ("/{v}/bytes/{n}", get(probe::bytes)),
        ("/{v}/fail/{status}", any(probe::fail)),
        ("/{v}/slow/{ms}", any(probe::slow)),
        ("/{v}/echo-length", post(probe::echo_length).put(probe::echo_length)),
        ("/{v}/status", get(probe::status)),
    ];
    table
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, methods.clone()).route(&format!("{path}/"), methods)
        })
        .layer(DefaultBodyLimit::max(LONGEST_WRITE))
        .fallback(reply::no_route)
        .method_not_allowed_fallback(reply::no_method)
        .with_state(service)
}
