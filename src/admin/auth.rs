//! Who may use the admin API: an active, unexpired secret token of the account, as `Authorization: Bearer sk_…`, or a
//! session of the console.
//!
//! The middleware here guards every path under `/v1`, also those that lead nowhere. A handler takes the [`Caller`] as
//! an argument, so one that somehow runs without the middleware is refused all the same (law 9).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::Shared;
use super::problem::Problem;
use crate::policy::domain::Page;
use crate::policy::{AccountId, DomainMode, Policy, Status, Token, TokenDigest, TokenKind};
use crate::store::people::Role;
use crate::store::trail::Actor;
use crate::store::{Store, StoreError};

/// Who asks, and what they may do. A session of the console brings one along in the request's extensions, where nothing
/// that came over the wire can put one; every other request shows a secret token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who asks.
    pub(crate) actor: Actor,
    /// What they may do; a secret token may do everything.
    pub(crate) role: Role,
    /// From where they ask.
    pub(crate) client: Option<IpAddr>,
}

impl Caller {
    /// A viewer sees everything but secrets, and changes nothing.
    fn check_may(&self, request: &Request) -> Result<(), Problem> {
        let looks = request.method().is_safe() || request.uri().path() == EXPLAIN;
        if self.role == Role::Admin || looks {
            return Ok(());
        }
        let detail = "A viewer sees everything but secrets, and changes nothing; an admin can do this.";
        Err(Problem::new(StatusCode::FORBIDDEN, "role_denied", detail))
    }
}

/// Asks what would be, and changes nothing.
const EXPLAIN: &str = "/v1/explain";

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| refuse("token_missing", MISSING))
    }
}

const MISSING: &str = "This call needs a secret token of the account: Authorization: Bearer sk_….";
pub(super) const INVALID: &str = "The token in Authorization is not a secret token of this account.";

/// Lets requests under `/v1` by only with a secret token, and those for the metrics where that is wished; all other
/// paths are open.
pub(super) async fn require_secret_token(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let metrics = path == "/metrics" && !shared.admin.metrics_open;
    if path != "/v1" && !path.starts_with("/v1/") && !metrics {
        return next.run(request).await;
    }
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let brought = request.extensions().get::<Caller>().cloned();
    let caller = match brought {
        Some(caller) => Ok(caller),
        None => authenticate(&shared, request.headers(), client).await,
    };
    match caller.and_then(|caller| caller.check_may(&request).map(|()| caller)) {
        Ok(caller) => {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            request.extensions_mut().insert(caller.clone());
            let response = next.run(request).await;
            if !method.is_safe() {
                let status = response.status().as_u16();
                let path = super::problem::quote(&path);
                tracing::info!(by = %caller.actor, client = caller.client.map(tracing::field::display), %method, path, status, "admin call");
            }
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn authenticate(
    shared: &Shared,
    headers: &HeaderMap,
    client: Option<SocketAddr>,
) -> Result<Caller, Problem> {
    let admin = &shared.admin;
    let invalid = || admin.guard.invalid(admin.guard.client(client, headers), Instant::now());
    let token = Token::parse(read_bearer(headers)?).ok_or_else(invalid)?;
    if token.kind() == TokenKind::Publishable {
        let detail = "A publishable token cannot use the admin API; use a secret token (sk_…).";
        return Err(Problem::new(StatusCode::FORBIDDEN, "secret_token_required", detail));
    }
    let address = client.map(|address| address.ip());
    let found = find_secret(&*admin.store, &admin.account, &token.digest()).await?;
    let policy = found.ok_or_else(invalid)?;
    check_admits(&policy, (admin.now)(), headers, address)?;
    Ok(Caller { actor: Actor::Token(policy.id), role: Role::Admin, client: address })
}

/// The account's secret token with this digest.
pub(super) async fn find_secret(
    store: &dyn Store,
    account: &AccountId,
    digest: &TokenDigest,
) -> Result<Option<Policy>, StoreError> {
    let found = store.find_token(digest).await?;
    Ok(found.filter(|policy| policy.account == *account && policy.kind == TokenKind::Secret))
}

fn page_of(headers: &HeaderMap) -> Page {
    let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    Page::read(&all(header::ORIGIN), &all(header::REFERER))
}

/// Whether a token that was admitted once still is. A page that was opened from the address bar or a bookmark names none;
/// where the rules speak of pages, that is no reason to end a session.
pub(super) fn still_admits(
    policy: &Policy,
    now: Timestamp,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> bool {
    let names_none = page_of(headers).is_absent() && policy.allowed_domains.name_pages();
    let admitted = check_admits(policy, now, headers, address).is_ok();
    admitted || (names_none && check_usable(policy, now).is_ok())
}

/// Whether a secret token may be used now, by a request with these headers that comes from there.
pub(super) fn check_admits(
    policy: &Policy,
    now: Timestamp,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Result<(), Problem> {
    check_usable(policy, now)?;
    let page = page_of(headers);
    let admitted = policy.allowed_domains.admit(&page, address);
    if admitted.is_err() && policy.domain_mode == DomainMode::Enforce {
        let detail = "The allowed domains of this secret token do not admit this request.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "domain_denied", detail));
    }
    Ok(())
}

fn check_usable(policy: &Policy, now: Timestamp) -> Result<(), Problem> {
    match policy.status {
        Status::Active => {}
        Status::Disabled => return Err(refuse("token_disabled", "This secret token is disabled.")),
        Status::Revoked => return Err(refuse("token_revoked", "This secret token was revoked.")),
    }
    if policy.expires_at.is_some_and(|expiry| now >= expiry) {
        return Err(refuse("token_expired", "This secret token has expired."));
    }
    if policy.signed_requests {
        // The admin API takes bearers only (`interface.md`). Such a token signs requests to the gate; nobody who has
        // caught it may do anything here.
        let detail = "This secret token only works with signed requests, which the admin API does not take.";
        return Err(refuse("signature_missing", detail));
    }
    Ok(())
}

/// Whether the admin API would surely let this token in, now and from anywhere.
pub(super) fn opens_admin_api(policy: &Policy, now: Timestamp) -> bool {
    policy.kind == TokenKind::Secret
        && check_usable(policy, now).is_ok()
        && (policy.allowed_domains.is_empty() || policy.domain_mode == DomainMode::Report)
}

/// What stands where a token should.
fn read_bearer(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| refuse("token_missing", MISSING))?;
    if values.next().is_some() {
        return Err(refuse("token_ambiguous", "The header Authorization came twice."));
    }
    let (scheme, rest) = value
        .as_bytes()
        .split_at_checked(b"Bearer ".len())
        .ok_or_else(|| refuse("token_missing", MISSING))?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(refuse("token_missing", MISSING));
    }
    Ok(rest.trim_ascii())
}

pub(super) fn refuse(code: &'static str, detail: &str) -> Problem {
    let challenge: HeaderName = header::WWW_AUTHENTICATE;
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
        .with_header(challenge, HeaderValue::from_static("Bearer"))
}
