//! What OpenAPI says of the bodies that clients send, and of fields with a fixed set of names.
//!
//! Bodies are read field by field, so that every mistake is found (see [`super::fields`]); the types here only
//! describe them. A test holds that both know the same fields.

use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};

use super::usage::By;
use crate::policy::cost::{MAX_CREDITS, MAX_RATE};
use crate::policy::{DomainMode, Operation, Period, Pool, Status, TokenKind};
use crate::store::people::Role;

/// A field with a fixed set of names.
fn one_of(about: &str, names: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    let names: Vec<_> = names.into_iter().collect();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).description(Some(about))
}

/// The same, or `null`.
fn one_of_or_null(about: &str, names: impl IntoIterator<Item = &'static str>) -> Object {
    let names: Vec<_> = names.into_iter().map(Some).chain([None]).collect();
    let types = SchemaType::Array(vec![Type::String, Type::Null]);
    one_of(about, []).schema_type(types).enum_values(Some(names)).build()
}

const KINDS: [TokenKind; 2] = [TokenKind::Publishable, TokenKind::Secret];
const MODES: [DomainMode; 2] = [DomainMode::Enforce, DomainMode::Report];

/// A token's type.
pub(super) fn token_type() -> Object {
    one_of("Publishable tokens may stand in web pages.", KINDS.map(TokenKind::as_str)).build()
}

fn token_type_or_null() -> Object {
    one_of_or_null("Publishable unless said otherwise; it stays what it is.", KINDS.map(TokenKind::as_str))
}

/// A token's status.
pub(super) fn status() -> Object {
    let all = [Status::Active, Status::Disabled, Status::Revoked];
    one_of("Whether it may be used.", all.map(Status::as_str)).build()
}

fn settable_status_or_null() -> Object {
    let all = [Status::Active, Status::Disabled];
    one_of_or_null("Whether the token may be used. `DELETE` revokes.", all.map(Status::as_str))
}

/// A limit's period.
pub(super) fn period() -> Object {
    let about = "The stretch of time after which the count starts anew, by the UTC calendar; `none`: never.";
    one_of(about, Period::ALL.map(Period::as_str)).build()
}

/// What happens to requests from pages that no rule admits.
pub(super) fn domain_mode() -> Object {
    one_of("What happens to requests from other pages.", MODES.map(DomainMode::as_str)).build()
}

fn domain_mode_or_null() -> Object {
    let about = "What happens to requests from other pages; `enforce` by default.";
    one_of_or_null(about, MODES.map(DomainMode::as_str))
}

/// Something that is done to a data set, or `null`.
pub(super) fn operation_or_null() -> Object {
    one_of_or_null("What it does to the data sets.", Operation::ALL.map(Operation::as_str))
}

/// What kind of actor did something.
pub(super) fn actor_type() -> Object {
    one_of("The holder of a secret token, a member, or Tollgate itself.", ["token", "member", "tollgate"])
        .build()
}

/// What a member may do.
pub(super) fn role() -> Object {
    let about = "An admin may do everything; a viewer sees everything but secrets, and changes nothing.";
    one_of(about, [Role::Admin, Role::Viewer].map(Role::as_str)).build()
}

/// How far a member is.
pub(super) fn member_status() -> Object {
    let about = "`active`: has a passphrase. `invited`: has a link that can be taken up. `lapsed`: the link's time is \
                 over; a new one is needed.";
    one_of(about, ["active", "invited", "lapsed"]).build()
}

/// A list of operations.
pub(super) fn operations() -> Array {
    let item = one_of("What may be done.", Operation::ALL.map(Operation::as_str));
    ArrayBuilder::new().items(item).min_items(Some(1)).build()
}

/// Something that is done to a data set.
pub(super) fn operation() -> Object {
    one_of("What was done.", Operation::ALL.map(Operation::as_str)).build()
}

/// A pool.
pub(super) fn pool() -> Object {
    one_of("The pool that was drawn on.", Pool::ALL.map(Pool::as_str)).build()
}

/// What a usage report's rows are by.
pub(super) fn usage_by() -> Object {
    one_of("What the rows are by.", By::OF_ACCOUNT.map(By::as_str)).build()
}

/// A pool, or `null`.
pub(super) fn pool_or_null() -> Object {
    one_of_or_null("The pool it draws on.", Pool::ALL.map(Pool::as_str))
}

/// What came of a check.
pub(super) fn outcome() -> Object {
    let about = "What came of it; `noted`: it passes, with something to tell.";
    one_of(about, ["passed", "refused", "noted", "not_reached"]).build()
}

fn whole(about: &str, least: u64, most: u64) -> Object {
    let (least, most) = (usize::try_from(least).ok(), usize::try_from(most).ok());
    let number = ObjectBuilder::new().schema_type(Type::Integer).description(Some(about));
    number.minimum(least).maximum(most).build()
}

/// A number of credits.
pub(super) fn credits() -> Object {
    whole("How many credits.", 0, MAX_CREDITS)
}

fn rate() -> Object {
    whole("Requests per second.", 1, u64::from(MAX_RATE))
}

fn burst() -> Object {
    let about = "Requests that may come at once; as many as per second unless said otherwise.";
    whole(about, 1, u64::from(MAX_RATE))
}

/// The fields of a token that a client sets. An absent field keeps what is stored (a new token's default), `null` sets
/// the default (RFC 7396).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI; bodies are read field by field")]
#[schema(as = TokenFields)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenFields {
    /// Publishable unless said otherwise; it stays what it is.
    #[schema(schema_with = token_type_or_null)]
    r#type: Option<String>,
    /// A name for people: at most 200 characters, none of them a control character.
    #[schema(max_length = 200)]
    nickname: Option<String>,
    /// Whether the token may be used. `DELETE` revokes.
    #[schema(schema_with = settable_status_or_null)]
    status: Option<String>,
    /// From when on the token is refused; `null`: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Whether each request needs a signature.
    signed_requests: Option<bool>,
    /// Whether a signature is good only once; `true` by default. Off for clients that retry with the same one.
    replay_protection: Option<bool>,
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
    #[schema(schema_with = domain_mode_or_null)]
    domain_mode: Option<String>,
    /// Credits the token may use, for each pool; `null`: as many as the account has.
    credit_limit: Option<LimitsFields>,
    /// Requests the token may make in a time; `null`: any number.
    rate_limit: Option<RateFields>,
}

/// One edit of many tokens.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI; bodies are read field by field")]
#[schema(as = EditManyFields)]
#[serde(deny_unknown_fields)]
pub(super) struct EditManyFields {
    /// Which tokens.
    #[schema(max_items = 500, example = json!(["tok_01ARZ3NDEKTSV4RRFFQ69G5FAV"]))]
    ids: Vec<String>,
    /// What to set of each: a merge patch, as for one.
    fields: TokenFields,
}

/// A line of an import: a token as the list shows it, or less: beside these fields it has those of `TokenFields`. What is absent is as by default in a new token, and stays as
/// it is in one that is there. What only the store can know (`version`, `usage`, when it was last used) is not read. A token that is
/// revoked or over can come along.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI; bodies are read field by field")]
#[schema(as = ImportFields)]
pub(super) struct ImportFields {
    /// The token's id. One of `id`, `token` and `import_key` must be there: by it a repeated import knows the token.
    #[schema(example = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    id: Option<String>,
    /// Its value; absent or `null`: a new one is made.
    token: Option<String>,
    /// A name that the token has elsewhere. The same name always leads to the same token of this account.
    #[schema(max_length = 200, example = "kong/alice/key-auth/0")]
    import_key: Option<String>,
    /// When it was made; now unless said otherwise.
    #[schema(format = DateTime)]
    created_at: Option<String>,
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
    #[schema(schema_with = burst, required = false)]
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

/// A new member.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = MemberFields)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberFields {
    /// What the member signs in with: at most 200 characters, none of them a control character; unique, without regard
    /// to case.
    #[schema(min_length = 1, max_length = 200, example = "ada@example.com")]
    name: String,
    /// What the member may do.
    #[schema(schema_with = role)]
    role: String,
}

/// An edit of a member: what is absent stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a body to OpenAPI")]
#[schema(as = MemberEdit)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberEdit {
    /// What the member signs in with.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(default)]
    name: String,
    /// What the member may do.
    #[schema(schema_with = role)]
    #[serde(default)]
    role: String,
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
