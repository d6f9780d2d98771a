//! The web console: everything the admin API can do, as pages.
//!
//! Owns the pages, their words and who is signed in to them; nothing of what they show or do. A page asks the admin API in
//! the same process ([`api`]), as the one who is signed in, so that one place validates, authorises and writes the trail.
//! Pages are rendered here and work without script; `assets/console.js` only adds comfort. `pages` has one file for each
//! page, `session` says who is there, `form` reads what was posted, `layout` is what all pages share.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Redirect, Response};
use axum::routing::get;
use jiff::Timestamp;

use crate::admin::Door;
use crate::policy::AccountId;
use crate::store::Store;

mod api;
mod assets;
mod chart;
mod form;
mod layout;
mod names;
mod notice;
mod pages;
mod session;
mod shape;
mod words;

/// The largest form, in bytes.
const MAX_FORM: usize = 512 * 1024;

/// What all pages share.
#[derive(Clone)]
struct Console {
    api: api::Api,
    door: Arc<Door>,
}

/// The console of an account, and behind it all that the admin API serves.
pub fn router(api: Router, store: Arc<dyn Store>, account: AccountId, now: fn() -> Timestamp) -> Router {
    let door = Arc::new(Door::new(store, account, now));
    let console = Console { api: api::Api::new(api.clone()), door };
    let pages = Router::new()
        .route("/", get(|| async { Redirect::to(pages::HOME) }))
        .route("/console", get(|| async { Redirect::to(pages::HOME) }))
        .merge(pages::table())
        .route("/console/assets/{name}", get(assets::serve))
        .layer(from_fn(secure))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(console);
    pages.fallback_service(api)
}

/// What a page may load: its own style and script, and nothing else from anywhere; nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The headers of every page (OWASP Secure Headers).
async fn secure(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
