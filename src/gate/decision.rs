//! The decision about a request: the spec's "Order of checks", steps 1 to 10, in their order.

use http::HeaderName;
use jiff::Timestamp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::directory::Directory;
use super::facts::Request;
use super::line::Line;
use super::meter::Meter;
use super::own::{Desk, Endpoint, Form, Own, status};
use super::pass::Pass;
use super::reply::Dialect;
use super::signing::{SignedRequest, Signing};
use super::strangers::Strangers;
use super::visit::Trail;
use super::{Settings, cors};
use crate::ledger::idempotency::Key;
use crate::policy::credential::{CredentialProblem, Place, Presented, find_credential};
use crate::policy::domain::Page;
use crate::policy::route::{Errand, Route};
use crate::policy::signature::{BodyDigest, Checked, DATE_HEADER, RawRequest};
use crate::policy::target::{BadTarget, Target};
use crate::policy::{
    Denial, Facts, Note, OutsideBrowser, Policy, Token, TokenKind, Verdict, asks_for_signature, judge, query,
};

/// What a decision needs to ask.
pub(super) struct Judge<'g> {
    pub(super) settings: &'g Settings,
    pub(super) directory: &'g Arc<Directory>,
    pub(super) strangers: &'g Strangers,
    pub(super) meter: &'g Arc<Meter>,
    pub(super) signing: &'g Signing,
    pub(super) line: &'g Line,
    pub(super) own: &'g Own,
    /// How long a request waits for the store.
    pub(super) patience: std::time::Duration,
}

/// What is to be done with a request that was not refused.
#[expect(clippy::large_enum_variant, reason = "one a request, moved once; a box would cost an allocation")]
pub(super) enum Decision {
    /// Forward it.
    Pass(Pass),
    /// Answer its preflight with this route's methods.
    Preflight(Arc<Route>),
    /// Its signature can only be checked with its body: hold that back, unless it is longer than `most` bytes, and
    /// decide again. Nothing was counted or used up so far.
    AwaitBody { most: u64 },
    /// Say this, and what is worth telling about it.
    Answer(serde_json::Value, Vec<Note>),
}

/// A request's target and route, before anybody asked who sent it: steps 1 and 2, but for the method.
pub(super) struct Located<'g> {
    pub(super) route: &'g Arc<Route>,
    pub(super) target: Target,
    pub(super) query_tokens: Vec<Vec<u8>>,
    /// What the gate answers there itself.
    pub(super) own: Option<Endpoint>,
}

impl<'g> Judge<'g> {
    /// Decides about one request. `body` is known only where it was held back. `trail` keeps what was learned, however
    /// it ends.
    pub(super) async fn decide(
        &self,
        request: &Request<'_>,
        page: &Page,
        body: Option<&BodyDigest>,
        trail: &mut Trail,
    ) -> Result<Decision, Denial> {
        trail.client = request.client(&self.settings.trusted_proxies);
        let located = self.locate(request, trail)?;
        if cors::is_preflight(request) {
            return self.preflight(&located, page, trail).await;
        }
        let errand = located.route.errand(&located.target, request.method)?;
        note_errand(trail, &errand);
        if located.own.is_some_and(Endpoint::is_open) {
            return Ok(Decision::Answer(status(), Vec::new()));
        }
        let in_body = trail.form.as_ref().and_then(Form::token);
        let presented = credential(request, &located.query_tokens, in_body);
        let presented = presented.map_err(|denial| self.invalid(denial, trail.client))?;
        let found = self.find_policy(&presented.token, trail.client);
        let policy = trail.waits.of("token look-up", found).await?;
        trail.policy = Some(policy.clone());
        trail.from_browser = from_browser(request, &presented);
        let now = Timestamp::now();
        let signed = asks_for_signature(&errand, &policy);
        let signature = if signed {
            let checked = self.check_signature(request, &presented.token, &policy, errand.route, now);
            trail.waits.of("signing keys", checked).await
        } else {
            Err(Denial::SignatureMissing)
        };
        let facts = Facts {
            now,
            errand: &errand,
            page,
            client: trail.client,
            from_browser: trail.from_browser,
            leaked_secret: self.settings.leaked_secret,
            outside_browser: self.reports_outside_browser(request),
            signature: signature.as_ref().map_err(Denial::clone),
        };
        match judge(&facts, &policy) {
            Verdict::Deny(denial) => Err(denial),
            Verdict::Pass(permit) => {
                if signed {
                    let verified = match (signature?, body) {
                        (Checked::Verified(verified), _) => verified,
                        (Checked::Pending(pending), Some(body)) => pending.finish(body)?,
                        (Checked::Pending(_), None) => {
                            return Ok(Decision::AwaitBody { most: errand.route.max_signed_body });
                        }
                    };
                    trail.waits.of("signature use", self.signing.use_up(&verified, &policy, now)).await?;
                }
                match located.own {
                    None => {
                        let key = idempotency_key(request, &policy, &trail.wire)?;
                        let taken = Pass::take(self.meter, &policy, permit, &errand, key);
                        trail.waits.of("credits", taken).await.map(Decision::Pass)
                    }
                    Some(endpoint) => {
                        let desk = self.desk(trail.client);
                        let form = trail.form.as_ref();
                        let told = desk.answer(endpoint, &located.target, form, &policy).await?;
                        Ok(Decision::Answer(told, permit.notes().to_vec()))
                    }
                }
            }
        }
    }

    /// Step 5. An address that tried too many invalid tokens is not looked up for, but a token that is known here is known.
    async fn find_policy(&self, token: &Token, client: Option<IpAddr>) -> Result<Arc<Policy>, Denial> {
        let barred = || {
            let held_back = self.strangers.held_back(client, Instant::now());
            held_back.map(|retry_after| Denial::TooManyInvalidTokens { retry_after })
        };
        let found = self.directory.find_unless(token, barred).await;
        found.map_err(|denial| self.invalid(denial, client))
    }

    /// Counts a refusal that says that a token is nobody's, and says so otherwise to who has tried too many.
    fn invalid(&self, denial: Denial, client: Option<IpAddr>) -> Denial {
        if denial != Denial::TokenInvalid {
            return denial;
        }
        let now = Instant::now();
        if let Some(retry_after) = self.strangers.held_back(client, now) {
            return Denial::TooManyInvalidTokens { retry_after };
        }
        self.strangers.failed(client, now);
        denial
    }

    /// Whether nothing says that a browser made the request, where the operator wants that reported.
    pub(super) fn reports_outside_browser(&self, request: &Request<'_>) -> bool {
        const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
        let signals = [http::header::ORIGIN, http::header::REFERER, SEC_FETCH_SITE];
        self.settings.outside_browser == OutsideBrowser::Report
            && !signals.iter().any(|name| request.headers.contains_key(name))
    }

    /// Step 6, as far as that is possible without the body.
    pub(super) async fn check_signature(
        &self,
        request: &Request<'_>,
        token: &Token,
        policy: &Policy,
        route: &Route,
        now: Timestamp,
    ) -> Result<Checked, Denial> {
        let authorization = request.values(http::header::AUTHORIZATION);
        let dates = request.values(http::HeaderName::from_static(DATE_HEADER));
        let raw = RawRequest {
            method: request.method.as_str(),
            target: request.target,
            host: request.host(),
            authorization: &authorization,
            dates: &dates,
        };
        let request = SignedRequest { raw, token, has_body: request.has_body };
        self.signing.check(&request, policy, route, now, self.settings.signature_max_skew).await
    }

    /// Steps 1 and 2: the canonical target without its token, and the route that serves it.
    pub(super) fn locate(&self, request: &Request<'_>, trail: &mut Trail) -> Result<Located<'g>, Denial> {
        let mut target = Target::parse(request.target, request.host()).map_err(Denial::BadTarget)?;
        let (query_tokens, rest) = query::take_tokens(target.query());
        target.set_query(rest);
        if target.holds_token() {
            return Err(Denial::BadTarget(BadTarget::TokenInTarget));
        }
        if self.settings.dialect == Dialect::Iex {
            target.drop_trailing_slash();
        }
        trail.wire = target.to_wire();
        let (at, route, own) = self.own.find(&self.settings.routes, &target)?;
        trail.route = Some((at, route.clone()));
        Ok(Located { route, target, query_tokens, own })
    }

    fn desk(&self, client: Option<IpAddr>) -> Desk<'g> {
        Desk { line: self.line, meter: self.meter, patience: self.patience, client }
    }

    /// Step 3. A preflight carries no token in its headers; if one is in the query, its allowed domains decide.
    async fn preflight(
        &self,
        located: &Located<'g>,
        page: &Page,
        trail: &mut Trail,
    ) -> Result<Decision, Denial> {
        match find_credential(&located.query_tokens, &[], &[]) {
            Err(CredentialProblem::Missing) => {}
            Err(problem) => return Err(self.invalid(denial_of(problem), trail.client)),
            Ok(presented) => {
                let policy = self.find_policy(&presented.token, trail.client).await?;
                trail.policy = Some(policy.clone());
                check_domain(&policy, page, trail.client)?;
            }
        }
        Ok(Decision::Preflight(located.route.clone()))
    }
}

/// The request's `Idempotency-Key`, for this token and this target.
fn idempotency_key(request: &Request<'_>, policy: &Policy, wire: &str) -> Result<Option<Key>, Denial> {
    const NAME: HeaderName = HeaderName::from_static("idempotency-key");
    if !request.headers.contains_key(NAME) {
        return Ok(None);
    }
    Key::parse(&request.values(NAME), &policy.id, request.method.as_str(), wire).map(Some)
}

fn check_domain(policy: &Policy, page: &Page, client: Option<IpAddr>) -> Result<(), Denial> {
    match policy.allowed_domains.admit(page, client) {
        Err(refusal) if policy.domain_mode == crate::policy::DomainMode::Enforce => {
            Err(Denial::DomainDenied(refusal))
        }
        _ => Ok(()),
    }
}

/// Keeps what a request asks for.
pub(super) fn note_errand(trail: &mut Trail, errand: &Errand<'_>) {
    trail.datasets.clone_from(&errand.datasets);
    trail.operation = Some(errand.operation);
}

/// Step 4: exactly one credential. One in the body of an account request counts as one in `X-API-Key`.
pub(super) fn credential(
    request: &Request<'_>,
    query_tokens: &[Vec<u8>],
    in_body: Option<&[u8]>,
) -> Result<Presented, Denial> {
    let authorization = request.values(http::header::AUTHORIZATION);
    let mut api_keys = request.values(http::HeaderName::from_static("x-api-key"));
    api_keys.extend(in_body);
    find_credential(query_tokens, &authorization, &api_keys).map_err(denial_of)
}

fn denial_of(problem: CredentialProblem) -> Denial {
    match problem {
        CredentialProblem::Missing => Denial::TokenMissing,
        CredentialProblem::Ambiguous => Denial::TokenAmbiguous,
        CredentialProblem::Invalid => Denial::TokenInvalid,
    }
}

/// A browser shows itself by an `Origin`, a secret token in a query by its place (`policy.md`, "Tokens").
pub(super) fn from_browser(request: &Request<'_>, presented: &Presented) -> bool {
    request.headers.contains_key(http::header::ORIGIN)
        || (presented.place == Place::Query && presented.token.kind() == TokenKind::Secret)
}
