//! One file for each page.

use axum::Router;
use axum::routing::{get, post};

use super::Console;

mod audit;
mod explain;
mod nodes;
mod people;
mod sign_in;
mod token;
mod tokens;
mod usage;

/// The first page of whoever is signed in.
pub(super) const HOME: &str = "/console/tokens";
/// What was used.
pub(super) const USAGE: &str = "/console/usage";
/// Who changed what.
pub(super) const AUDIT: &str = "/console/audit";
/// Who may come in.
pub(super) const PEOPLE: &str = "/console/people";
/// Where one signs in.
pub(super) const SIGN_IN: &str = "/console/sign-in";

/// All pages.
pub(super) fn table() -> Router<Console> {
    Router::new()
        .route(SIGN_IN, get(sign_in::show).post(sign_in::enter))
        .route("/console/sign-out", post(sign_in::leave))
        .route("/console/passphrase", get(sign_in::show_passphrase).post(sign_in::change_passphrase))
        .route("/console/join/{id}/{secret}", get(sign_in::show_invitation).post(sign_in::accept_invitation))
        .route(HOME, get(tokens::list).post(tokens::create))
        .route("/console/tokens/new", get(tokens::ask_new))
        .route("/console/tokens/check-domains", get(token::domains::check))
        .route("/console/tokens/{id}", get(token::show).post(token::save))
        .route("/console/tokens/{id}/reveal", post(token::values::reveal))
        .route("/console/tokens/{id}/rotate", post(token::values::rotate))
        .route("/console/tokens/{id}/signing-secret", post(token::values::make_signing_secret))
        .route("/console/tokens/{id}/status", post(token::values::set_status))
        .route("/console/tokens/{id}/revoke", get(token::values::ask_revoke).post(token::values::revoke))
        .route(USAGE, get(usage::show))
        .route("/console/usage.csv", get(usage::download_csv))
        .route("/console/usage.json", get(usage::download_json))
        .route("/console/usage/budget", post(usage::budget::save))
        .route("/console/explain", get(explain::show).post(explain::ask))
        .route("/console/nodes", get(nodes::show))
        .route(AUDIT, get(audit::show))
        .route(PEOPLE, get(people::list).post(people::invite))
        .route("/console/people/{id}/role", post(people::set_role))
        .route("/console/people/{id}/invite", post(people::renew))
        .route("/console/people/{id}/remove", get(people::ask_remove).post(people::remove))
}
