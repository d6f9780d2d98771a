//! The admin API: tokens, the account, usage, nodes, the trail, members, `explain`, health and metrics (`interface.md`, "Admin API").
//!
//! Owns the route table, who may call, how JSON is read and written, and the OpenAPI description, which is made from
//! the handlers. It asks the [`Store`] and the gate's [`Explainer`]; it knows no Pingora and no particular store.
//! `tokens`, `account`, `usage`, `nodes`, `audit`, `people`, `explain` and `health` are one file for each resource; `auth` guards `/v1`;
//! `people::door` is where members get in to the console;
//! `changes` says what is written down of a write; `catalogue` is what a search for tokens looks through;
//! `problem` is the one road from an error to an answer; `fields` reads bodies; `receipt` waits until a write is in force
//! everywhere.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gate::explanation::Explainer;
use crate::policy::AccountId;
use crate::store::Store;

mod account;
mod audit;
mod auth;
mod backup;
mod body;
mod catalogue;
mod changes;
mod datasets;
mod description;
mod explain;
mod fields;
mod health;
mod limits;
mod nodes;
mod people;
mod precondition;
mod problem;
mod query;
mod receipt;
mod schema;
mod tokens;
mod usage;

pub(crate) use auth::Caller;
pub(crate) use body::PATIENCE as BODY_PATIENCE;
use catalogue::Catalogue;
pub(crate) use people::door::{Asker, Door, Entered, Refused};
use problem::Problem;
pub(crate) use usage::parse_time as parse_usage_time;

/// How long requests in flight may still take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What the admin API works with.
pub struct Admin {
    /// Where tokens and accounts are.
    pub store: Arc<dyn Store>,
    /// The account whose tokens these are.
    pub account: AccountId,
    /// Who says whether a request would pass.
    pub explainer: Arc<dyn Explainer>,
    /// Data sets that the routes name, for those who grant them ([`crate::policy::route::RouteTable::grantable`]).
    pub datasets: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The metrics of this node, in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether everybody who gets here may read them; else only who shows a secret token.
    pub metrics_open: bool,
    /// True while the node takes requests: from the end of its first start until it is told to stop.
    pub started: tokio::sync::watch::Receiver<bool>,
    /// The epoch that this node acts by: every change up to it is in force here.
    pub acts_by: tokio::sync::watch::Receiver<u64>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Tollgate's version.
    pub version: &'static str,
}

/// What all handlers share.
struct State {
    admin: Admin,
    fresh: tokens::Fresh,
    /// What a search for tokens looks through.
    catalogue: Catalogue,
    /// Held while a secret token is taken out of use.
    retiring: tokio::sync::Mutex<()>,
}

type Shared = Arc<State>;

/// The table of routes, and with it the description.
fn table() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(description::begin())
        .routes(routes!(tokens::list::list, tokens::create, tokens::many::edit_many))
        .routes(routes!(tokens::import::import))
        .routes(routes!(tokens::read, tokens::edit, tokens::revoke))
        .routes(routes!(tokens::values::rotate))
        .routes(routes!(tokens::values::reveal))
        .routes(routes!(tokens::values::make_signing_secret))
        .routes(routes!(datasets::list))
        .routes(routes!(usage::of_token))
        .routes(routes!(usage::of_account))
        .routes(routes!(account::read, account::edit))
        .routes(routes!(nodes::list))
        .routes(routes!(audit::list))
        .routes(routes!(backup::take))
        .routes(routes!(people::list, people::invite))
        .routes(routes!(people::read, people::edit, people::remove))
        .routes(routes!(people::renew))
        .routes(routes!(explain::explain))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi_json))
}

/// The description of the admin API, made from its code. `openapi.json` at the top of the repository is its copy.
pub fn openapi() -> utoipa::openapi::OpenApi {
    description::complete(table().into_openapi())
}

/// The admin API as a service.
pub fn router(admin: Admin) -> axum::Router {
    let catalogue = Catalogue::new(Arc::clone(&admin.store), admin.account.clone(), catalogue::MOST);
    let (fresh, retiring) = (tokens::Fresh::default(), tokio::sync::Mutex::new(()));
    let state = Arc::new(State { admin, fresh, catalogue, retiring });
    let (router, _) = table().split_for_parts();
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(wrong_path)
        .layer(from_fn_with_state(Arc::clone(&state), auth::require_secret_token))
        .layer(DefaultBodyLimit::max(body::MAX_BODY))
        .with_state(state)
}

async fn wrong_path() -> Response {
    let detail = "There is nothing at this path; GET /openapi.json lists what there is.";
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail).into_response()
}

async fn wrong_method(request: Request) -> Response {
    let detail = format!(
        "This path does not take {}; the header Allow lists what it takes.",
        problem::quote(request.method().as_str())
    );
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response()
}

/// Serves until `shutdown` is done, then lets requests in flight end, for a few seconds at most.
pub async fn serve(
    listener: std::net::TcpListener,
    router: axum::Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
        // Answers are small and whole; a delay to gather more would only cost time.
        let _ = stream.set_nodelay(true);
    });
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = stop.send(());
    });
    let drained = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(DRAIN).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = server => result,
        () = drained => Ok(()),
    }
}
