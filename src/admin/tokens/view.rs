//! A token as the API shows it (`interface.md`, "Admin API").

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::limits::{LimitsView, UsageView};
use crate::admin::receipt::ReceiptView;
use crate::admin::schema;
use crate::policy::{Grant, Operation, Policy, RateLimit};
use crate::store::{Counted, KeptValue, Listed, StoredToken};

/// Leave to do something with a data set, or with all of a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grant)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct GrantView {
    /// `WORKSPACE/DATASET` or `WORKSPACE/*`.
    #[schema(example = "MY/CARS")]
    dataset: String,
    /// What may be done.
    #[schema(schema_with = schema::operations)]
    operations: Vec<&'static str>,
}

impl From<&Grant> for GrantView {
    fn from(grant: &Grant) -> Self {
        let operations = grant.operations().iter().map(Operation::as_str).collect();
        Self { dataset: grant.dataset(), operations }
    }
}

/// Never more than `burst + rate × t` requests in any stretch of time t.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimit)]
pub(in crate::admin) struct RateView {
    /// Requests per second.
    requests_per_second: u32,
    /// Requests that may come at once.
    burst: u32,
}

impl From<RateLimit> for RateView {
    fn from(rate: RateLimit) -> Self {
        Self { requests_per_second: rate.requests_per_second, burst: rate.burst }
    }
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own in the API")]
#[expect(clippy::option_option, reason = "\"not told\" and \"never\" are two things")]
pub(in crate::admin) struct TokenView {
    /// Its public name: what logs, metrics and upstreams see.
    #[schema(example = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    id: String,
    /// Publishable or secret.
    #[schema(schema_with = schema::token_type)]
    r#type: &'static str,
    /// Its value. A secret token's is only here in the answer that made it; later, reveal shows it.
    #[schema(required)]
    token: Option<String>,
    /// A name for people.
    nickname: String,
    /// Whether it may be used.
    #[schema(schema_with = schema::status)]
    status: &'static str,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// From when on it is refused; `null`: never.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// Whether each request needs a signature.
    signed_requests: bool,
    /// Whether a signature is good only once.
    replay_protection: bool,
    /// Leave to read core data.
    core_access: bool,
    /// Leave to read premium data.
    premium_access: bool,
    /// Leave for single data sets.
    datasets: Vec<GrantView>,
    /// Pages that may use it; empty: all.
    allowed_domains: Vec<String>,
    /// What happens to requests from other pages.
    #[schema(schema_with = schema::domain_mode)]
    domain_mode: &'static str,
    /// Credits it may use, for each pool.
    credit_limit: LimitsView,
    /// Requests it may make in a time; `null`: any number.
    #[schema(required)]
    rate_limit: Option<RateView>,
    /// When a secret token was first seen coming from a browser: it has most likely leaked then. Rotate it.
    #[schema(required, format = DateTime)]
    seen_in_browser_at: Option<String>,
    /// Goes up by one with each edit; the `ETag` in quotes.
    version: u64,
    /// What is used; only when one token is read, and in lists with `usage=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageView>,
    /// When it was last charged, `null`: never; only beside `usage`. A node tells of it within seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Option<String>>,
    /// When a request with it was last refused, `null`: never; only beside `usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_refused_at: Option<Option<String>>,
    /// Whether the change is in force everywhere; only in answers to `?wait=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptView>,
}

impl TokenView {
    /// Shows a token, with its value if that is given.
    pub(in crate::admin) fn new(policy: &Policy, value: Option<String>) -> Self {
        Self {
            id: policy.id.to_string(),
            r#type: policy.kind.as_str(),
            token: value,
            nickname: policy.nickname.clone(),
            status: policy.status.as_str(),
            created_at: policy.created_at.to_string(),
            expires_at: policy.expires_at.map(|at| at.to_string()),
            signed_requests: policy.signed_requests,
            replay_protection: policy.replay_protection,
            core_access: policy.core_access,
            premium_access: policy.premium_access,
            datasets: policy.grants.iter().map(GrantView::from).collect(),
            allowed_domains: policy.allowed_domains.iter().map(|rule| rule.as_str().to_owned()).collect(),
            domain_mode: policy.domain_mode.as_str(),
            credit_limit: LimitsView::from(&policy.credit_limit),
            rate_limit: policy.rate_limit.map(RateView::from),
            seen_in_browser_at: policy.seen_in_browser_at.map(|at| at.to_string()),
            version: policy.version,
            usage: None,
            last_used_at: None,
            last_refused_at: None,
            receipt: None,
        }
    }

    /// Shows a stored token: with its value if that is public.
    pub(in crate::admin) fn stored(token: &StoredToken) -> Self {
        Self::new(&token.policy, public_value(&token.value))
    }

    /// Adds what is used, and when the token was last seen.
    pub(in crate::admin) fn with_usage(mut self, counted: &Counted, policy: &Policy) -> Self {
        self.usage = Some(UsageView::new(counted, &policy.credit_limit));
        self.last_used_at = Some(counted.last_used.map(|at| at.to_string()));
        self.last_refused_at = Some(counted.last_refused.map(|at| at.to_string()));
        self
    }

    /// Adds whether the change is in force everywhere, if somebody asked.
    pub(in crate::admin) fn with_receipt(mut self, receipt: Option<ReceiptView>) -> Self {
        self.receipt = receipt;
        self
    }
}

/// The value of a publishable token; `None` for a secret one.
pub(super) fn public_value(value: &KeptValue) -> Option<String> {
    match value {
        KeptValue::Clear(token) => Some(token.expose().to_owned()),
        KeptValue::Sealed => None,
    }
}

/// A token whose record cannot be read. Nothing is let through by it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnreadableToken)]
pub(in crate::admin) struct UnreadableView {
    /// Its public name.
    id: String,
    /// Always `unreadable`.
    status: &'static str,
    /// What is wrong with the record.
    problem: String,
}

/// An entry of the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedToken)]
#[serde(untagged)]
pub(in crate::admin) enum ListedView {
    /// A token.
    Token(Box<TokenView>),
    /// A record that cannot be read.
    Unreadable(UnreadableView),
}

impl From<&Listed> for ListedView {
    fn from(listed: &Listed) -> Self {
        match listed {
            Listed::Token(token) => Self::Token(Box::new(TokenView::stored(token))),
            Listed::Unreadable { id, why } => Self::Unreadable(UnreadableView {
                id: id.to_string(),
                status: "unreadable",
                problem: crate::admin::problem::quote(why),
            }),
        }
    }
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenPage)]
pub(in crate::admin) struct PageView {
    /// Oldest first.
    pub(super) tokens: Vec<ListedView>,
    /// What to give as `cursor` for the next page; `null`: this is the last one.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
    /// How many tokens there are in all that match; only with `q`, `status`, `type` or `offset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<usize>,
}

/// A token's value.
#[derive(Serialize, ToSchema)]
#[schema(as = RevealedToken)]
pub(in crate::admin) struct RevealedView {
    /// The value.
    pub(super) token: String,
}

/// A signing secret.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningSecret)]
pub(in crate::admin) struct SigningSecretView {
    /// The token it signs for.
    #[schema(example = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    pub(super) id: String,
    /// The secret. It is shown only here.
    pub(super) signing_secret: String,
    /// The token's version now.
    pub(super) version: u64,
    /// Whether the change is in force everywhere; only in answers to `?wait=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<ReceiptView>,
}
