//! The record: how a token and an account are kept. Raw fields to policy and back.
//!
//! Owns the one table of fields ([`TOKEN_FIELDS`], [`ACCOUNT_FIELDS`]): names, forms, units and what a new record
//! says. In Redis a record is a hash, in the embedded store the same fields are a JSON object. Every field is always
//! there; where there is nothing to say it is empty. So a field that is missing, unknown or bad makes the record
//! unreadable, and nothing is let through by it (law 9). Knows no store.
//!
//! A token's record:
//!
//! | field | form | unit | new | edited by `put` |
//! | --- | --- | --- | --- | --- |
//! | `id` | `tok_` + ULID, as in the key | | given | no |
//! | `account` | name, as in the key | | given | no |
//! | `type` | `publishable`, `secret` | | given | no |
//! | `nickname` | text | | empty | yes |
//! | `status` | `active`, `disabled`, `revoked` | | `active` | yes |
//! | `created_at` | RFC 3339 | time | given | no |
//! | `expires_at` | RFC 3339 or empty: never | time | empty | yes |
//! | `signed_requests` | `true`, `false` | | `false` | yes |
//! | `replay_protection` | `true`, `false`; may be missing in records from before there was one | | `true` | yes |
//! | `core_access` | `true`, `false` | | `true` | yes |
//! | `premium_access` | `true`, `false` | | `false` | yes |
//! | `datasets` | JSON: `[{"dataset": "MY/CARS", "operations": ["read"]}]` | | `[]` | yes |
//! | `allowed_domains` | JSON: `["www.example.com"]` | | `[]` | yes |
//! | `domain_mode` | `enforce`, `report` | | `enforce` | yes |
//! | `core_limit` | `100000/month`, `7` (ever) or empty: none | credits per period | empty | yes |
//! | `premium_limit` | as `core_limit` | credits per period | empty | yes |
//! | `rate` | 1 to 1000000 or empty: none | requests per second | empty | yes |
//! | `burst` | 1 to 1000000; empty if and only if `rate` is | requests | empty | yes |
//! | `version` | 1 to 2^53 - 1 | | `1` | one more |
//! | `seen_in_browser_at` | RFC 3339 or empty: never | time | empty | no; emptied by a rotation |
//! | `digest` | hex | SHA-256 of the value | given | no |
//! | `token` | the value; publishable tokens only, else empty | | given | no |
//! | `sealed` | the value sealed ([`super::seal`]); secret tokens only; empty: not kept | | given | no |
//! | `former` | JSON: `[{"digest": HEX, "until": µs, "sealed": …}]`, values still in their grace; secret ones sealed, since they sign | µs since the epoch | `[]` | no |
//! | `signing` | the token's own signing secret, sealed; empty: it has none; may be missing in records from before there was one | | empty | no; its own step |
//!
//! An account's record: `id`, `created_at`, `core_budget`, `premium_budget`, `version`, in the same forms, and
//! `core_quota`: empty while pay-as-you-go is off, else the core budget to go back to or `none`; may be missing in records
//! from before there was one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::seal::{SealError, Sealer};
use super::{AccountSecret, AccountSecrets, KeptValue, StoredToken};
use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, Policy, Status, Token, TokenDigest, TokenId, TokenKind};

mod read;
mod write;

pub(super) use read::{
    BadRecord, budget_field, limit_field, parse_account, parse_budget, parse_limit, parse_policy, parse_rate,
};
pub(super) use write::{account_fields, policy_fields, value_fields};

/// What may change a field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy {
    /// Nothing, once the record is made.
    Nothing,
    /// [`super::Store::put_policy`], [`super::Store::put_account`].
    Put,
    /// Its own step: counting versions, rotating, marking.
    Step,
}

/// Fields that came later, and what a record from before says by not having them.
pub const LATER_FIELDS: [(&str, &str); 3] =
    [("replay_protection", "true"), ("signing", ""), ("core_quota", "")];

/// The fields of a token's record, as in the table above.
pub const TOKEN_FIELDS: [(&str, ChangedBy); 25] = [
    ("id", ChangedBy::Nothing),
    ("account", ChangedBy::Nothing),
    ("type", ChangedBy::Nothing),
    ("nickname", ChangedBy::Put),
    ("status", ChangedBy::Put),
    ("created_at", ChangedBy::Nothing),
    ("expires_at", ChangedBy::Put),
    ("signed_requests", ChangedBy::Put),
    ("replay_protection", ChangedBy::Put),
    ("core_access", ChangedBy::Put),
    ("premium_access", ChangedBy::Put),
    ("datasets", ChangedBy::Put),
    ("allowed_domains", ChangedBy::Put),
    ("domain_mode", ChangedBy::Put),
    ("core_limit", ChangedBy::Put),
    ("premium_limit", ChangedBy::Put),
    ("rate", ChangedBy::Put),
    ("burst", ChangedBy::Put),
    ("version", ChangedBy::Step),
    ("seen_in_browser_at", ChangedBy::Step),
    ("digest", ChangedBy::Step),
    ("token", ChangedBy::Step),
    ("sealed", ChangedBy::Step),
    ("former", ChangedBy::Step),
    ("signing", ChangedBy::Step),
];

/// The fields of an account's record.
pub const ACCOUNT_FIELDS: [(&str, ChangedBy); 6] = [
    ("id", ChangedBy::Nothing),
    ("created_at", ChangedBy::Nothing),
    ("core_budget", ChangedBy::Put),
    ("premium_budget", ChangedBy::Put),
    ("core_quota", ChangedBy::Put),
    ("version", ChangedBy::Step),
];

/// A record's raw fields.
pub(super) type Fields = BTreeMap<String, String>;

/// The fields of `all` that a put writes.
pub(super) fn edited(all: Fields, table: &[(&str, ChangedBy)]) -> Fields {
    let put = |name: &str| table.iter().any(|(field, by)| *field == name && *by == ChangedBy::Put);
    all.into_iter().filter(|(name, _)| put(name)).collect()
}

/// A value that a rotation replaced, in its grace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Former {
    /// The value's digest.
    pub(super) digest: TokenDigest,
    /// From when on it is nobody's token.
    pub(super) until: Timestamp,
    /// The value, sealed, if it is secret and was kept: while it is in its grace, it signs.
    pub(super) sealed: Option<String>,
}

/// What is kept of a token's present value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kept {
    /// The value itself: it is public.
    Clear(Token),
    /// The value, sealed.
    Sealed(String),
    /// Only its digest, for want of a master key.
    Nothing,
}

/// A token's record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TokenRecord {
    /// What it may do.
    pub(super) policy: Policy,
    /// Finds its present value.
    pub(super) digest: TokenDigest,
    /// What is kept of its present value.
    pub(super) kept: Kept,
    /// Former values in their grace; those that are over may still be listed.
    pub(super) former: Vec<Former>,
    /// Its own signing secret, sealed.
    pub(super) signing: Option<String>,
}

impl Kept {
    /// How `value` is kept: publishable values in the clear, secret ones sealed or not at all.
    pub(super) fn new(sealer: Option<&Sealer>, id: &TokenId, value: &Token) -> Result<Self, SealError> {
        match (value.kind(), sealer) {
            (TokenKind::Publishable, _) => Ok(Self::Clear(value.clone())),
            (TokenKind::Secret, Some(sealer)) => sealer.seal(id, value).map(Self::Sealed),
            (TokenKind::Secret, None) => Ok(Self::Nothing),
        }
    }
}

impl TokenRecord {
    /// A new token's record.
    pub(super) fn new(sealer: Option<&Sealer>, policy: &Policy, value: &Token) -> Result<Self, SealError> {
        let kept = Kept::new(sealer, &policy.id, value)?;
        let digest = value.digest();
        Ok(Self { policy: policy.clone(), digest, kept, former: Vec::new(), signing: None })
    }

    /// Whether a value with this digest is this token's at `now`.
    pub(super) fn answers_to(&self, digest: &TokenDigest, now: Timestamp) -> bool {
        self.digest == *digest
            || self.former.iter().any(|former| former.digest == *digest && now < former.until)
    }

    /// The token as the admin API sees it.
    pub(super) fn into_stored(self) -> StoredToken {
        let value = match self.kept {
            Kept::Clear(token) => KeptValue::Clear(token),
            Kept::Sealed(_) | Kept::Nothing => KeptValue::Sealed,
        };
        StoredToken { policy: self.policy, value }
    }

    /// The token's value, opened if it is sealed.
    pub(super) fn reveal(&self, sealer: Option<&Sealer>) -> Result<Token, SealError> {
        match (&self.kept, sealer) {
            (Kept::Clear(token), _) => Ok(token.clone()),
            (_, None) => Err(SealError::NoMasterKey),
            (Kept::Nothing, Some(_)) => Err(SealError::NotKept),
            (Kept::Sealed(text), Some(sealer)) => {
                let token = sealer.open(&self.policy.id, text)?;
                if token.digest() == self.digest { Ok(token) } else { Err(SealError::WrongKey) }
            }
        }
    }

    /// The token's own signing secret, opened; `None`: it has none.
    pub(super) fn signing_secret(&self, sealer: Option<&Sealer>) -> Result<Option<SigningSecret>, SealError> {
        let Some(sealed) = &self.signing else { return Ok(None) };
        let sealer = sealer.ok_or(SealError::NoMasterKey)?;
        sealer.open_signing(&self.policy.id, sealed).map(Some)
    }

    /// Adds what this token's own values sign for the whole account, at `now`: nothing, unless it is a secret token that
    /// may be used.
    pub(super) fn sign_for_account(&self, sealer: Option<&Sealer>, now: Timestamp, all: &mut AccountSecrets) {
        let Policy { id, kind, status, expires_at, .. } = &self.policy;
        if *kind != TokenKind::Secret || *status != Status::Active || expires_at.is_some_and(|end| now >= end)
        {
            return;
        }
        let mut add = |opened: Result<Token, SealError>, until: Option<Timestamp>| match opened {
            Ok(token) => {
                let (token_id, secret) = (id.clone(), SigningSecret::of_token(&token));
                all.secrets.push(AccountSecret { token_id, secret, until });
            }
            Err(why) => all.unopened.push((id.clone(), why)),
        };
        add(self.reveal(sealer), *expires_at);
        for former in self.former.iter().filter(|former| now < former.until) {
            if let (Some(sealed), Some(sealer)) = (&former.sealed, sealer) {
                let until = expires_at.map_or(former.until, |end| end.min(former.until));
                add(sealer.open(id, sealed), Some(until));
            }
        }
    }

    /// Gives the token a new value. The present one works until `until`, if that is still to come at `now`.
    pub(super) fn rotate(&mut self, value: &Token, kept: Kept, until: Timestamp, now: Timestamp) {
        self.former.retain(|former| now < former.until && former.digest != value.digest());
        if now < until && self.digest != value.digest() {
            let sealed = match &self.kept {
                Kept::Sealed(sealed) => Some(sealed.clone()),
                Kept::Clear(_) | Kept::Nothing => None,
            };
            self.former.push(Former { digest: self.digest, until, sealed });
        }
        self.digest = value.digest();
        self.kept = kept;
        self.policy.version += 1;
        // What was seen in a browser was the value that is replaced now.
        self.policy.seen_in_browser_at = None;
    }
}

/// The key of a token's record in messages of the embedded store; Redis has its own names ([`super::keys`]).
pub(super) fn token_name(account: &AccountId, id: &TokenId) -> String {
    format!("{account}/{id}")
}

#[cfg(test)]
mod tests;
