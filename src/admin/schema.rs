//! What OpenAPI says of the bodies that clients send, and of fields with a fixed set of names.
//!
//! Bodies are read field by field, so that every mistake is found (see [`super::fields`]); the types here only
//! describe them. A test holds that both know the same fields.

use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::policy::cost::{MAX_CREDITS, MAX_RATE};
use crate::policy::{DomainMode, Operation, Period, Pool, Status, TokenKind};

fn one_of(names: impl IntoIterator<Item = &'static str>) -> Object {
    let names: Vec<_> = names.into_iter().collect();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// A token's type.
pub(super) fn token_type() -> Object {
    one_of([TokenKind::Publishable, TokenKind::Secret].map(TokenKind::as_str))
}

/// A token's status.
pub(super) fn status() -> Object {
    one_of([Status::Active, Status::Disabled, Status::Revoked].map(Status::as_str))
}

fn settable_status() -> Object {
    one_of([Status::Active, Status::Disabled].map(Status::as_str))
}

/// A limit's period.
pub(super) fn period() -> Object {
    one_of(Period::ALL.map(Period::as_str))
}

/// What happens to requests from pages that no rule admits.
pub(super) fn domain_mode() -> Object {
    one_of([DomainMode::Enforce, DomainMode::Report].map(DomainMode::as_str))
}

/// Something that is done to a data set.
pub(super) fn operation() -> Object {
    one_of(Operation::ALL.map(Operation::as_str))
}

/// A list of operations.
pub(super) fn operations() -> utoipa::openapi::schema::Array {
    utoipa::openapi::schema::ArrayBuilder::new().items(operation()).min_items(Some(1)).build()
}

/// A pool.
pub(super) fn pool() -> Object {
    one_of(Pool::ALL.map(Pool::as_str))
}

/// What came of a check.
pub(super) fn outcome() -> Object {
    one_of(["passed", "refused", "noted", "not_reached"])
}

/// A number of credits.
pub(super) fn credits() -> Object {
    let most = usize::try_from(MAX_CREDITS).unwrap_or(usize::MAX);
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_usize)).maximum(Some(most)).build()
}

fn rate() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1_usize)).maximum(Some(MAX_RATE)).build()
}

/// The fields of a token that a client sets. An absent field keeps what is stored (a new token's default), `null` sets
/// the default (RFC 7396).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI; bodies are read field by field")]
#[schema(as = TokenFields)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenFields {
    /// Publishable unless said otherwise; it stays what it is.
    #[schema(schema_with = token_type)]
    r#type: Option<String>,
    /// A name for people: at most 200 characters, none of them a control character.
    #[schema(max_length = 200)]
    nickname: Option<String>,
    /// Whether the token may be used. `DELETE` revokes.
    #[schema(schema_with = settable_status)]
    status: Option<String>,
    /// From when on the token is refused; `null`: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Whether each request needs a signature.
    signed_requests: Option<bool>,
    /// Leave to read core data; `true` by default.
    core_access: Option<bool>,
    /// Leave to read premium data.
    premium_access: Option<bool>,
    /// Leave for single data sets. A list replaces the whole list.
    #[schema(max_items = 1000)]
    datasets: Option<Vec<super::tokens::GrantView>>,
    /// Pages that may use the token, empty: all. A list replaces the whole list.
    allowed_domains: Option<AllowedDomains>,
    /// What happens to requests from other pages.
    #[schema(schema_with = domain_mode)]
    domain_mode: Option<String>,
    /// Credits the token may use, for each pool; `null`: as many as the account has.
    credit_limit: Option<LimitsFields>,
    /// Requests the token may make in a time; `null`: any number.
    rate_limit: Option<RateFields>,
}

/// Rules of the form `[scheme://]host[:port][/path]`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = AllowedDomains)]
#[serde(untagged)]
pub(super) enum AllowedDomains {
    /// One rule an entry, at most 100.
    List(Vec<String>),
    /// All rules in one text, with spaces between them.
    Text(String),
}

/// Credits in a period, for each pool; `null`: no limit.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = LimitsFields)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFields {
    /// For core and data set routes.
    core: Option<LimitFields>,
    /// For premium routes.
    premium: Option<LimitFields>,
}

/// Credits in a period.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = LimitFields)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitFields {
    /// How many.
    #[schema(schema_with = credits)]
    credits: u64,
    /// In which stretch of time, by the UTC calendar.
    #[schema(schema_with = period)]
    period: String,
}

/// Never more than `burst + rate × t` requests in any stretch of time t.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = RateFields)]
#[serde(deny_unknown_fields)]
pub(super) struct RateFields {
    /// Requests per second.
    #[schema(schema_with = rate)]
    requests_per_second: u32,
    /// Requests that may come at once; as many as per second unless said otherwise.
    #[schema(schema_with = rate, required = false)]
    burst: u32,
}

/// How to rotate.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = RotateFields)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateFields {
    /// How long the old value still works; `0s` by default, at most `366d`.
    #[schema(example = "24h")]
    grace: Option<String>,
}

/// The fields of an account that a client sets.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = AccountFields)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountFields {
    /// Credits all tokens may use together, for each pool; `null`: any number.
    budget: Option<LimitsFields>,
}

/// A request to ask about.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = Question)]
#[serde(deny_unknown_fields)]
pub(super) struct QuestionFields {
    /// The method; `GET` by default.
    method: Option<String>,
    /// A path with its query, or a whole URL.
    #[schema(example = "/v1/data/CORE/QUOTES/AAPL")]
    target: String,
    /// Headers by name; each a text or a list of texts.
    #[schema(value_type = Option<Object>, example = json!({"Origin": "https://www.example.com"}))]
    headers: Option<()>,
    /// The client's own address.
    client: Option<String>,
    /// The token to judge by, instead of one that stands in the request.
    token_id: Option<String>,
}
