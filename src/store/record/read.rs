//! From raw fields to policy. Every mistake names its field, and no message holds a token's text.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;

use super::{ACCOUNT_FIELDS, ChangedBy, Fields, Former, Kept, LATER_FIELDS, TOKEN_FIELDS, TokenRecord};
use crate::policy::cost::{MAX_CREDITS, MAX_RATE};
use crate::policy::domain::DomainRules;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::token::mask_tokens;
use crate::policy::{
    AccountId, DomainMode, Grant, Limit, PerPool, Policy, Pool, RateLimit, Status, Token, TokenDigest,
    TokenId, TokenKind,
};

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub(in crate::store) struct BadRecord {
    field: String,
    why: String,
}

impl BadRecord {
    /// The field says something it must not.
    pub(in crate::store) fn new(field: &str, why: impl fmt::Display) -> Self {
        let mask = |text: String| {
            let mut bytes = text.into_bytes();
            mask_tokens(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self { field: mask(field.to_owned()), why: mask(why.to_string()) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    dataset: String,
    operations: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFormer {
    digest: String,
    until: i64,
    #[serde(default)]
    sealed: String,
}

/// What a record says by not having a field that came later.
fn later(field: &str) -> Option<&'static str> {
    LATER_FIELDS.iter().find(|(name, _)| *name == field).map(|(_, text)| *text)
}

/// Reads fields by name.
struct Reader<'f>(&'f Fields);

impl<'f> Reader<'f> {
    /// A reader of fields that are exactly those of the table.
    fn new(fields: &'f Fields, table: &[(&str, ChangedBy)]) -> Result<Self, BadRecord> {
        let is_missing = |name: &str| !fields.contains_key(name) && later(name).is_none();
        if let Some((missing, _)) = table.iter().find(|(name, _)| is_missing(name)) {
            return Err(BadRecord::new(missing, "is missing"));
        }
        let unknown = fields.keys().find(|name| !table.iter().any(|(known, _)| known == name));
        unknown
            .map_or(Ok(Self(fields)), |name| Err(BadRecord::new(name, "is not a field that is known here")))
    }

    fn text(&self, field: &str) -> Result<&'f str, BadRecord> {
        let found = self.0.get(field).map(String::as_str).or_else(|| later(field));
        found.ok_or_else(|| BadRecord::new(field, "is missing"))
    }

    fn read<T>(
        &self,
        field: &str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<T, BadRecord> {
        parse(self.text(field)?).ok_or_else(|| BadRecord::new(field, format_args!("is not {expected}")))
    }

    fn maybe<T>(
        &self,
        field: &str,
        read: impl Fn(&Self) -> Result<T, BadRecord>,
    ) -> Result<Option<T>, BadRecord> {
        if self.text(field)?.is_empty() { Ok(None) } else { read(self).map(Some) }
    }

    fn flag(&self, field: &str) -> Result<bool, BadRecord> {
        self.read(field, |text| text.parse().ok(), "true or false")
    }

    fn time(&self, field: &str) -> Result<Timestamp, BadRecord> {
        self.read(field, |text| text.parse().ok(), "a time by RFC 3339")
    }

    fn version(&self) -> Result<u64, BadRecord> {
        let parse = |text: &str| text.parse().ok().filter(|version| (1..=MAX_CREDITS).contains(version));
        self.read("version", parse, "a version from 1 to 2^53 - 1")
    }

    fn limit(&self, field: &str) -> Result<Option<Limit>, BadRecord> {
        self.maybe(field, |fields| {
            let limit = Limit::parse(fields.text(field)?);
            limit.map_err(|problem| BadRecord::new(field, format_args!("is not a limit: {problem}")))
        })
    }

    /// A record from before there was pay-as-you-go says nothing of it.
    fn quota(&self) -> Result<PayAsYouGo, BadRecord> {
        if self.text("core_quota")? == "none" {
            return Ok(PayAsYouGo::On { quota: None });
        }
        let quota = self.limit("core_quota")?;
        Ok(quota.map_or(PayAsYouGo::Off, |limit| PayAsYouGo::On { quota: Some(limit) }))
    }

    fn requests(&self, field: &str) -> Result<Option<u32>, BadRecord> {
        let parse = |text: &str| text.parse().ok().filter(|requests| (1..=MAX_RATE).contains(requests));
        self.maybe(field, |fields| fields.read(field, parse, "a number from 1 to 1000000"))
    }

    fn rate(&self) -> Result<Option<RateLimit>, BadRecord> {
        match (self.requests("rate")?, self.requests("burst")?) {
            (None, None) => Ok(None),
            (Some(requests_per_second), Some(burst)) => Ok(Some(RateLimit { requests_per_second, burst })),
            (Some(_), None) => Err(BadRecord::new("burst", "is empty, and `rate` is not")),
            (None, Some(_)) => Err(BadRecord::new("rate", "is empty, and `burst` is not")),
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<T, BadRecord> {
        let read = serde_json::from_str(self.text(field)?);
        read.map_err(|problem| BadRecord::new(field, format_args!("is not of its form: {problem}")))
    }

    fn grants(&self) -> Result<Vec<Grant>, BadRecord> {
        let raw: Vec<RawGrant> = self.json("datasets")?;
        let grant = |raw: &RawGrant| Grant::new(&raw.dataset, raw.operations.iter().map(String::as_str));
        let grants: Result<Vec<_>, _> = raw.iter().map(grant).collect();
        // Many policies are in memory, most with one grant.
        let shrunk = grants.map(|mut grants| {
            grants.shrink_to_fit();
            grants
        });
        shrunk.map_err(|problem| BadRecord::new("datasets", format_args!("holds a bad grant: {problem}")))
    }

    fn domains(&self) -> Result<DomainRules, BadRecord> {
        let raw: Vec<String> = self.json("allowed_domains")?;
        DomainRules::parse(raw.iter().map(String::as_str)).map_err(|(at, problem)| {
            BadRecord::new("allowed_domains", format_args!("holds a bad rule, number {}: {problem}", at + 1))
        })
    }

    fn kept(&self, kind: TokenKind) -> Result<Kept, BadRecord> {
        let sealed = self.text("sealed")?;
        match (kind, self.text("token")?, sealed) {
            (TokenKind::Secret, "", "") => Ok(Kept::Nothing),
            (TokenKind::Secret, "", _) => Ok(Kept::Sealed(sealed.to_owned())),
            (TokenKind::Secret, ..) => {
                Err(BadRecord::new("token", "is not empty: a secret token in the clear"))
            }
            (TokenKind::Publishable, _, "") => {
                let parse = |text: &str| Token::parse(text.as_bytes()).filter(|token| token.kind() == kind);
                self.read("token", parse, "a publishable token").map(Kept::Clear)
            }
            (TokenKind::Publishable, ..) => {
                Err(BadRecord::new("sealed", "is not empty: publishable tokens are clear"))
            }
        }
    }

    fn former(&self) -> Result<Vec<Former>, BadRecord> {
        let raw: Vec<RawFormer> = self.json("former")?;
        let former = |raw: &RawFormer| {
            let digest = TokenDigest::parse_hex(&raw.digest)?;
            let sealed = Some(raw.sealed.clone()).filter(|sealed| !sealed.is_empty());
            Some(Former { digest, until: Timestamp::from_microsecond(raw.until).ok()?, sealed })
        };
        let read: Option<_> = raw.iter().map(former).collect();
        read.ok_or_else(|| BadRecord::new("former", "holds what is no digest or no time"))
    }

    fn policy(&self) -> Result<Policy, BadRecord> {
        Ok(Policy {
            id: self.read("id", TokenId::parse, "a token's id")?,
            account: self.read("account", AccountId::parse, "an account's name")?,
            kind: self.read("type", TokenKind::parse, "publishable or secret")?,
            nickname: self.text("nickname")?.to_owned(),
            status: self.read("status", Status::parse, "active, disabled or revoked")?,
            created_at: self.time("created_at")?,
            expires_at: self.maybe("expires_at", |fields| fields.time("expires_at"))?,
            signed_requests: self.flag("signed_requests")?,
            replay_protection: self.flag("replay_protection")?,
            core_access: self.flag("core_access")?,
            premium_access: self.flag("premium_access")?,
            grants: self.grants()?,
            allowed_domains: self.domains()?,
            domain_mode: self.read("domain_mode", DomainMode::parse, "enforce or report")?,
            credit_limit: PerPool { core: self.limit("core_limit")?, premium: self.limit("premium_limit")? },
            rate_limit: self.rate()?,
            version: self.version()?,
            seen_in_browser_at: self
                .maybe("seen_in_browser_at", |fields| fields.time("seen_in_browser_at"))?,
        })
    }
}

/// Reads the fields of a policy alone, as [`super::policy_fields`] wrote them.
pub(in crate::store) fn parse_policy(fields: &Fields) -> Result<Policy, BadRecord> {
    Reader(fields).policy()
}

impl TokenRecord {
    /// Reads the raw form. The record must say of itself what its key says of it.
    pub(in crate::store) fn parse(
        fields: &Fields,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<Self, BadRecord> {
        let fields = Reader::new(fields, &TOKEN_FIELDS)?;
        let policy = fields.policy()?;
        if policy.id != *id {
            return Err(BadRecord::new("id", "is not the one in the record's key"));
        }
        if policy.account != *account {
            return Err(BadRecord::new("account", "is not the one in the record's key"));
        }
        let kept = fields.kept(policy.kind)?;
        let digest = fields.read("digest", TokenDigest::parse_hex, "a digest")?;
        if matches!(&kept, Kept::Clear(token) if token.digest() != digest) {
            return Err(BadRecord::new("digest", "is not the digest of `token`"));
        }
        let signing = fields.text("signing")?;
        let signing = Some(signing.to_owned()).filter(|sealed| !sealed.is_empty());
        Ok(Self { policy, digest, kept, former: fields.former()?, signing })
    }
}

/// What a token may draw from a pool. Reads no other field: a reserve reads as little as it must.
pub(in crate::store) fn parse_limit(fields: &Fields, pool: Pool) -> Result<Option<Limit>, BadRecord> {
    Reader(fields).limit(limit_field(pool))
}

/// How fast a token's requests may come. Reads no other field.
pub(in crate::store) fn parse_rate(fields: &Fields) -> Result<Option<RateLimit>, BadRecord> {
    Reader(fields).rate()
}

/// What an account may draw from a pool. Reads no other field.
pub(in crate::store) fn parse_budget(fields: &Fields, pool: Pool) -> Result<Option<Limit>, BadRecord> {
    Reader(fields).limit(budget_field(pool))
}

/// The field with a token's limit of a pool.
pub(in crate::store) fn limit_field(pool: Pool) -> &'static str {
    match pool {
        Pool::Core => "core_limit",
        Pool::Premium => "premium_limit",
    }
}

/// The field with an account's budget of a pool.
pub(in crate::store) fn budget_field(pool: Pool) -> &'static str {
    match pool {
        Pool::Core => "core_budget",
        Pool::Premium => "premium_budget",
    }
}

/// Reads the raw form of an account.
pub(in crate::store) fn parse_account(fields: &Fields, id: &AccountId) -> Result<Account, BadRecord> {
    let fields = Reader::new(fields, &ACCOUNT_FIELDS)?;
    let account = Account {
        id: fields.read("id", AccountId::parse, "an account's name")?,
        created_at: fields.time("created_at")?,
        budget: PerPool { core: fields.limit("core_budget")?, premium: fields.limit("premium_budget")? },
        pay_as_you_go: fields.quota()?,
        version: fields.version()?,
    };
    if account.id == *id {
        Ok(account)
    } else {
        Err(BadRecord::new("id", "is not the one in the record's key"))
    }
}
