//! The admin API: tokens, the account, usage, nodes, the trail, members, `explain`, health and metrics (`interface.md`, "Admin API").
//!
//! Owns the route table, who may call, how JSON is read and written, and the OpenAPI description, which is made from
//! the handlers. It asks the [`Store`] and the gate's [`Explainer`]; it knows no Pingora and no particular store.
//! `tokens`, `account`, `usage`, `nodes`, `audit`, `people`, `explain` and `health` are one file for each resource; `auth` guards `/v1`;
//! `guard` counts wrong tokens; `people::door` is where members get in to the console;
//! `changes` says what is written down of a write; `catalogue` is what a search for tokens looks through;
//! `problem` is the one road from an error to an answer; `fields` reads bodies; `receipt` waits until a write is in force
//! everywhere.

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, ListenerExt};
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
mod guard;
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
pub use guard::{ClientOf, Guard};
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
    /// Who counts wrong tokens.
    pub guard: Guard,
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
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = stop.send(());
    });
    drained(server.into_future(), stopped).await
}

/// As [`serve`], over connections that are encrypted: a browser's cookies are then kept to such.
pub async fn serve_encrypted(
    listener: impl axum::serve::Listener<Addr = SocketAddr>,
    router: axum::Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router.layer(axum::middleware::from_fn(say_encrypted));
    let service = service.into_make_service_with_connect_info::<Peer>();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(Encrypted(listener), service).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = stop.send(());
    });
    drained(server.into_future(), stopped).await
}

/// An answer for what was just made, with where it is.
fn created(mut response: Response, location: &str) -> Response {
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = axum::http::HeaderValue::from_str(location) {
        response.headers_mut().insert(axum::http::header::LOCATION, location);
    }
    response
}

async fn drained(
    server: impl Future<Output = std::io::Result<()>>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> std::io::Result<()> {
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

/// The other end of an encrypted connection.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

/// A listener whose connections are encrypted.
struct Encrypted<L>(L);

impl<L: axum::serve::Listener> axum::serve::Listener for Encrypted<L> {
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl<L: axum::serve::Listener<Addr = SocketAddr>> Connected<IncomingStream<'_, Encrypted<L>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Encrypted<L>>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Says what only the connection knows: whose it is, and that it is encrypted.
async fn say_encrypted(mut request: Request, next: axum::middleware::Next) -> Response {
    if let Some(ConnectInfo(Peer(address))) = request.extensions().get::<ConnectInfo<Peer>>().copied() {
        request.extensions_mut().insert(ConnectInfo(address));
    }
    let name = axum::http::HeaderName::from_static("x-forwarded-proto");
    request.headers_mut().insert(name, axum::http::HeaderValue::from_static("https"));
    next.run(request).await
}
