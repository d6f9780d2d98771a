//! What a client is told: the only place that chooses a status.
//!
//! One exhaustive `match` for each dialect turns a [`Denial`] into status, title, public sentence and headers. The standard
//! dialect is here, its body RFC 9457 `application/problem+json`; the original service's is in `iex`; the headers of
//! limits are in `limits`. A client gets the public sentence, never a cause, and nothing of its own request but
//! names that passed a strict grammar (law 7).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::{Pass, cors};
use crate::policy::domain::DomainRefusal;
use crate::policy::framing::BadFraming;
use crate::policy::{Denial, RateLimit};

mod iex;
pub(super) mod limits;
pub(super) mod told;

use told::Told;

/// What a 401 asks for (RFC 9110, 11.6.1).
const CHALLENGE: &str = "Bearer realm=\"tollgate\"";

/// A failure that is not the client's: the request was admitted, its upstream did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No server of the upstream could be reached, or it broke off before it answered.
    UpstreamUnavailable,
    /// The upstream took too long.
    UpstreamTimeout,
    /// The upstream has as many requests under way as it may have.
    UpstreamBusy,
    /// Every server of the upstream failed too often and is left alone for a while.
    UpstreamResting,
    /// The upstream compressed what is to be counted.
    EncodedResponse,
    /// The request could not be read to its end.
    BadRequest,
    /// The request's body came too slowly.
    RequestTimeout,
    /// A defect of the gate.
    Internal,
}

impl Failure {
    /// The failure's name in bodies, logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBusy => "upstream_busy",
            Self::UpstreamResting => "upstream_resting",
            Self::EncodedResponse => "upstream_encoded",
            Self::BadRequest => "bad_request",
            Self::RequestTimeout => "request_timeout",
            Self::Internal => "internal_error",
        }
    }
}

/// An answer of the gate itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The refusal's name.
    pub code: &'static str,
    /// A short summary, the same for every refusal of this name.
    pub title: &'static str,
    /// The public sentence: what happened, and what to do.
    pub detail: String,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    /// Headers besides.
    pub headers: Vec<(HeaderName, String)>,
}

/// How refusals are told, and which account endpoints there are (`clients.md`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 9457 problem documents.
    #[default]
    Standard,
    /// As the original service does: [`iex`].
    Iex,
}

/// The answer to a refused request, in a dialect.
pub fn answer_in(dialect: Dialect, denial: &Denial) -> Answer {
    match dialect {
        Dialect::Standard => answer(denial),
        Dialect::Iex => iex::answer(denial),
    }
}

/// The answer to a refused request, in the standard dialect.
pub fn answer(denial: &Denial) -> Answer {
    let (status, title, detail) = wording(denial);
    let retry_after = match denial {
        Denial::RateLimited { retry_after } | Denial::TooManyInvalidTokens { retry_after } => {
            Some(*retry_after)
        }
        Denial::CreditsExhausted { retry_after, .. } | Denial::BudgetExhausted { retry_after, .. } => {
            *retry_after
        }
        Denial::StoreUnavailable
        | Denial::ReplayMemoryFull
        | Denial::HeldBodiesFull
        | Denial::ShuttingDown => Some(Duration::from_secs(1)),
        _ => None,
    };
    let mut headers = Vec::new();
    if let Denial::MethodNotAllowed { allow } = denial {
        headers.push((header::ALLOW, allow.clone()));
    }
    if status == 401 {
        headers.push((header::WWW_AUTHENTICATE, CHALLENGE.to_owned()));
    }
    Answer { status, code: denial.code(), title, detail, retry_after, headers }
}

#[expect(clippy::too_many_lines, reason = "one table: a sentence for each refusal")]
fn wording(denial: &Denial) -> (u16, &'static str, String) {
    let text = |status: u16, title: &'static str, detail: &str| (status, title, detail.to_owned());
    match denial {
        Denial::BadFraming(reason) => (framing_status(*reason), "Bad request framing", format!("{reason}.")),
        Denial::BadTarget(reason) => (400, "Bad request target", format!("{reason}.")),
        Denial::NoRoute => text(404, "No route", "No route of this gate serves this path."),
        Denial::MethodNotAllowed { allow } => {
            (405, "Method not allowed", format!("This path is served by {allow} only."))
        }
        Denial::TokenMissing => text(
            401,
            "Token missing",
            "Give an API token: as the query parameter `token`, as `Authorization: Bearer …` or as `X-API-Key`.",
        ),
        Denial::TokenAmbiguous => {
            text(400, "Token ambiguous", "The request carries two credentials that differ. Send exactly one.")
        }
        Denial::TokenInvalid => text(403, "Token invalid", "The API token is not valid."),
        Denial::TooManyInvalidTokens { .. } => text(
            429,
            "Too many invalid tokens",
            "Too many requests with invalid API tokens came from this address. Try again after the time in Retry-After.",
        ),
        Denial::TokenDisabled => text(403, "Token disabled", "The API token is disabled."),
        Denial::TokenRevoked => text(403, "Token revoked", "The API token was revoked."),
        Denial::TokenExpired => text(403, "Token expired", "The API token has expired."),
        Denial::PolicyUnreadable => text(
            403,
            "Policy unreadable",
            "What this token may do cannot be read, so nothing is let through. The operator has to mend its record.",
        ),
        Denial::SecretTokenLeaked => text(
            403,
            "Secret token in a browser",
            "A secret token must not be used from a browser. Use a publishable token, and rotate this one.",
        ),
        Denial::SignatureMissing => {
            text(401, "Signature missing", "This request needs a signature, and has none.")
        }
        Denial::SignatureInvalid(why) => {
            (403, "Signature invalid", format!("The signature is not valid: {why}."))
        }
        Denial::SignatureStale => text(
            403,
            "Signature stale",
            "The signature's x-iex-date is too far from the gate's clock. Sign each request when it is sent.",
        ),
        Denial::SignatureReplayed => text(
            403,
            "Signature replayed",
            "This signature was used before. Sign each request anew, a second later if nothing else differs.",
        ),
        Denial::ReplayMemoryFull => text(
            503,
            "Replay memory full",
            "The gate cannot remember more signatures at the moment, so it takes none. Try again.",
        ),
        Denial::ShuttingDown => text(503, "Shutting down", "This gate is about to stop. Try again."),
        Denial::HeldBodiesFull => text(
            503,
            "Held bodies full",
            "The gate holds as many bodies of signed requests back as it can at the moment. Try again.",
        ),
        Denial::BodyTooLarge { most } => {
            (413, "Body too large", format!("The body of this request may have {most} bytes here at most."))
        }
        Denial::DomainDenied(refusal) => (403, "Domain denied", domain_sentence(*refusal)),
        Denial::CoreDenied => text(403, "Core data denied", "The API token may not do this to core data."),
        Denial::PremiumDenied => {
            text(403, "Premium data denied", "The API token may not do this to premium data.")
        }
        Denial::DatasetDenied { dataset, operation } => {
            (403, "Data set denied", format!("The API token may not {operation} the data set {dataset}."))
        }
        Denial::SecretTokenRequired => {
            text(401, "Secret token required", "Only a secret token may ask for this.")
        }
        Denial::InvalidValues => text(
            400,
            "Invalid values",
            "The values of this request are missing, or not what this endpoint takes.",
        ),
        Denial::IdempotencyKeyInvalid => text(
            400,
            "Idempotency key invalid",
            "Send one Idempotency-Key of 1 to 255 printable ASCII characters, or none.",
        ),
        Denial::IdempotencyKeyReused => text(
            422,
            "Idempotency key reused",
            "This Idempotency-Key was used for another request. Use a new key for each request that is not a retry.",
        ),
        Denial::RateLimited { .. } => text(
            429,
            "Rate limited",
            "Too many requests with this API token. Try again after the time in Retry-After.",
        ),
        Denial::CreditsExhausted { retry_after, .. } => {
            (402, "Credits exhausted", exhausted("The API token has", *retry_after))
        }
        Denial::BudgetExhausted { retry_after, .. } => {
            (402, "Budget exhausted", exhausted("The account has", *retry_after))
        }
        Denial::StoreUnavailable => text(
            503,
            "Store unavailable",
            "The gate cannot reach its store at the moment, so it cannot tell what this token may do. Try again.",
        ),
    }
}

/// RFC 9112, 6.1: a coding that is not known is 501; RFC 9110, 10.1.1: an expectation that is not, 417.
fn framing_status(reason: BadFraming) -> u16 {
    match reason {
        BadFraming::Coding => 501,
        BadFraming::Expectation => 417,
        BadFraming::BareLineFeed
        | BadFraming::Both
        | BadFraming::Length
        | BadFraming::Host
        | BadFraming::Blank => 400,
    }
}

fn exhausted(who: &str, retry_after: Option<Duration>) -> String {
    let when = if retry_after.is_some() { " New ones come after the time in Retry-After." } else { "" };
    format!("{who} no credits left for this request.{when}")
}

fn domain_sentence(refusal: DomainRefusal) -> String {
    format!("The API token may not be used from here: {}.", refusal.as_str())
}

/// The answer when an admitted request came to nothing.
pub fn answer_failure(failure: Failure) -> Answer {
    let (status, title, detail, retry_after) = match failure {
        Failure::UpstreamUnavailable => {
            (502, "Upstream unavailable", "The data service behind the gate could not be reached.", Some(1))
        }
        Failure::UpstreamTimeout => {
            (504, "Upstream timeout", "The data service behind the gate took too long to answer.", Some(1))
        }
        Failure::UpstreamBusy => (
            503,
            "Upstream busy",
            "The data service behind the gate has as many requests under way as it takes. Try again. Nothing was charged.",
            Some(1),
        ),
        Failure::UpstreamResting => (
            503,
            "Upstream resting",
            "The data service behind the gate failed too often and is left alone for a while. Try again. Nothing was charged.",
            Some(1),
        ),
        Failure::EncodedResponse => (
            502,
            "Upstream encoded",
            "The data service behind the gate compressed its answer though it was asked not to, so it cannot be counted. Nothing was charged.",
            None,
        ),
        Failure::BadRequest => (400, "Bad request", "The request could not be read to its end.", None),
        Failure::RequestTimeout => (408, "Request timeout", "The request's body came too slowly.", None),
        Failure::Internal => {
            (500, "Internal error", "The gate failed. The operator finds more in its log.", None)
        }
    };
    Answer {
        status,
        code: failure.code(),
        title,
        detail: detail.to_owned(),
        retry_after: retry_after.map(Duration::from_secs),
        headers: Vec::new(),
    }
}

fn problem(answer: &Answer, request_id: &str) -> String {
    let body = serde_json::json!({
        "type": format!("urn:tollgate:problem:{}", answer.code),
        "title": answer.title,
        "status": answer.status,
        "detail": answer.detail,
        "code": answer.code,
        "request_id": request_id,
    });
    body.to_string()
}

/// A wait in whole seconds, rounded up: who comes back then is not told to wait again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// An answer as it goes out: its head, and its body as a text.
pub(super) type Rendered = (ResponseHeader, String);

/// An answer that tells of something gone wrong: as a problem, or as a plain sentence.
pub(super) fn render(
    dialect: Dialect,
    answer: &Answer,
    request_id: &str,
    origin: Option<&HeaderValue>,
) -> pingora::Result<Rendered> {
    let (content_type, body) = match dialect {
        Dialect::Standard => ("application/problem+json", problem(answer, request_id)),
        Dialect::Iex => (iex::CONTENT_TYPE, answer.detail.clone()),
    };
    let mut response = ResponseHeader::build(answer.status, Some(10))?;
    response.insert_header(header::CONTENT_TYPE, content_type)?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    response.insert_header("X-Request-Id", request_id)?;
    if let Some(wait) = answer.retry_after {
        response.insert_header(header::RETRY_AFTER, whole_seconds(wait).max(1))?;
    }
    for (name, value) in &answer.headers {
        response.insert_header(name.clone(), value.as_str())?;
    }
    cors::decorate(&mut response, origin)?;
    Ok((response, body))
}

/// Sends an answer that tells of something gone wrong.
pub(super) async fn send(
    dialect: Dialect,
    session: &mut Session,
    answer: &Answer,
    request_id: &str,
    origin: Option<&HeaderValue>,
) -> pingora::Result<()> {
    write(session, render(dialect, answer, request_id, origin)?).await
}

/// What a preflight is told.
pub(super) struct Preflight<'p> {
    pub(super) methods: String,
    pub(super) headers: String,
    pub(super) max_age: Duration,
    pub(super) request_id: &'p str,
    pub(super) origin: Option<&'p HeaderValue>,
}

/// The answer to a preflight; it has no body.
pub(super) fn render_preflight(preflight: &Preflight<'_>) -> pingora::Result<ResponseHeader> {
    let mut response = ResponseHeader::build(204, Some(8))?;
    cors::decorate(&mut response, preflight.origin)?;
    response.remove_header(&header::ACCESS_CONTROL_EXPOSE_HEADERS);
    response.insert_header(
        header::VARY,
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    )?;
    response.insert_header("X-Request-Id", preflight.request_id)?;
    if preflight.origin.is_some() {
        response.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, preflight.methods.as_str())?;
        response.insert_header(header::ACCESS_CONTROL_MAX_AGE, preflight.max_age.as_secs())?;
        if !preflight.headers.is_empty() {
            response.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, preflight.headers.as_str())?;
        }
    }
    Ok(response)
}

/// Sends the answer to a preflight.
pub(super) async fn send_preflight(session: &mut Session, preflight: &Preflight<'_>) -> pingora::Result<()> {
    session.write_response_header(Box::new(render_preflight(preflight)?), true).await
}

/// Tells of a response that passes: credits and limits, which request it answers, and who may read it. What the upstream
/// said of that is taken out of its head.
pub(super) fn tell(told: &mut Told, response: &mut ResponseHeader, pass: &Pass, passing: &Passing<'_>) {
    told::clear(response);
    limits::tell(told, &pass.standing(), passing.rate);
    let charged = pass.charged();
    let is_priced = passing.dialect == Dialect::Iex && charged.0 > 0;
    if is_priced {
        iex::tell(told, response, pass.permit().pool(), charged);
    }
    told.field("X-Request-Id", &[passing.request_id]);
    cors::tell(told, response, passing.origin, is_priced);
}

/// What is told of a request that passes, besides its credits.
pub(super) struct Passing<'p> {
    pub(super) dialect: Dialect,
    pub(super) rate: Option<RateLimit>,
    pub(super) request_id: &'p str,
    pub(super) origin: Option<&'p HeaderValue>,
}

/// What the gate itself has to say, in JSON.
pub(super) fn render_json(
    body: &serde_json::Value,
    request_id: &str,
    origin: Option<&HeaderValue>,
) -> pingora::Result<Rendered> {
    let body = body.to_string();
    let mut response = ResponseHeader::build(200, Some(8))?;
    // One client compares this as a text.
    response.insert_header(header::CONTENT_TYPE, "application/json; charset=utf-8")?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    response.insert_header("X-Request-Id", request_id)?;
    cors::decorate(&mut response, origin)?;
    Ok((response, body))
}

/// Sends what the gate itself has to say, in JSON.
pub(super) async fn send_json(
    session: &mut Session,
    body: &serde_json::Value,
    request_id: &str,
    origin: Option<&HeaderValue>,
) -> pingora::Result<()> {
    write(session, render_json(body, request_id, origin)?).await
}

async fn write(session: &mut Session, (response, body): Rendered) -> pingora::Result<()> {
    let head = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(response), head).await?;
    if !head {
        session.write_response_body(Some(body.into()), true).await?;
    }
    Ok(())
}
