//! A token's policy and an account's budget, as the gate judges by them.
//!
//! Owns the fields and their defaults (`policy.md`, "Tokens"). How a record is kept is [`crate::store::record`]'s.

use jiff::Timestamp;

use super::cost::{Limit, PerPool, RateLimit};
use super::dataset::Grant;
use super::domain::DomainRules;
use super::token::{AccountId, TokenId, TokenKind};

/// The longest nickname, in characters.
pub const MAX_NICKNAME: usize = 200;

/// Whether a token may be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It may.
    Active,
    /// Not now; it can be made active again.
    Disabled,
    /// Never again.
    Revoked,
}

impl Status {
    /// The status's name in records and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }

    /// Reads the status's name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Revoked].into_iter().find(|status| status.as_str() == text)
    }
}

/// What happens to a request from a page that no rule admits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DomainMode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes; what would have been refused is counted and logged.
    Report,
}

impl DomainMode {
    /// The mode's name in records and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }

    /// Reads the mode's name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Report].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// All that decides what one token may do. The token's value is not part of it.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own in the record and the API")]
pub struct Policy {
    /// The token's public name.
    pub id: TokenId,
    /// Whose token it is.
    pub account: AccountId,
    /// Publishable or secret.
    pub kind: TokenKind,
    /// A name for people.
    pub nickname: String,
    /// Whether it may be used at all.
    pub status: Status,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Whether each request needs a signature.
    pub signed_requests: bool,
    /// Whether a signature is good only once.
    pub replay_protection: bool,
    /// Leave to read core data.
    pub core_access: bool,
    /// Leave to read premium data.
    pub premium_access: bool,
    /// Leave to read, write or delete single data sets.
    pub grants: Vec<Grant>,
    /// Pages that may use the token; empty: all.
    pub allowed_domains: DomainRules,
    /// What happens to requests from other pages.
    pub domain_mode: DomainMode,
    /// Credits the token may use, for each pool; `None`: as many as the account has.
    pub credit_limit: PerPool<Option<Limit>>,
    /// Requests the token may make in a time; `None`: any number.
    pub rate_limit: Option<RateLimit>,
    /// Goes up by one with each edit.
    pub version: u64,
    /// When a secret token was first seen coming from a browser; it has most likely leaked then.
    pub seen_in_browser_at: Option<Timestamp>,
}

impl Policy {
    /// A new token's policy: active, reads core data, no other leave, no limits.
    pub fn new(id: TokenId, account: AccountId, kind: TokenKind, created_at: Timestamp) -> Self {
        Self {
            id,
            account,
            kind,
            nickname: String::new(),
            status: Status::Active,
            created_at,
            expires_at: None,
            signed_requests: false,
            replay_protection: true,
            core_access: true,
            premium_access: false,
            grants: Vec::new(),
            allowed_domains: DomainRules::default(),
            domain_mode: DomainMode::Enforce,
            credit_limit: PerPool::default(),
            rate_limit: None,
            version: 1,
            seen_in_browser_at: None,
        }
    }
}

/// Whether an account pays as it goes (`clients.md`, "dialect: iex"). Nothing is judged by it: the budget alone counts. It
/// keeps what the core budget was before, for when it is switched off again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayAsYouGo {
    /// It does not: the core budget is the quota.
    #[default]
    Off,
    /// It does: the core budget, if there is one, is a circuit breaker above the quota.
    On {
        /// The core budget to go back to; `None`: any number.
        quota: Option<Limit>,
    },
}

/// An account: who the tokens belong to, and what they may use together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub id: AccountId,
    /// When it was made.
    pub created_at: Timestamp,
    /// Credits all tokens may use together, for each pool; `None`: any number.
    pub budget: PerPool<Option<Limit>>,
    /// Whether the core budget was lifted by switching pay-as-you-go on.
    pub pay_as_you_go: PayAsYouGo,
    /// Goes up by one with each edit.
    pub version: u64,
}
