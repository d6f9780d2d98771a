//! What the gate and the admin API ask of a store, and the two stores that answer.
//!
//! Owns the seam, not the storage: [`redis`] and [`embedded`] each implement [`Store`], held to one conformance
//! suite (`tests/it/store_conformance.rs`). Key names live in [`keys`], the record's fields in [`record`], sealing
//! in [`seal`]. A store knows no HTTP and no Pingora.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::ledger::{Counter, Taken};
use crate::policy::record::Account;
use crate::policy::{AccountId, Credits, PerPool, Policy, Pool, Token, TokenDigest, TokenId};

pub mod embedded;
pub mod keys;
pub mod record;
pub mod redis;
pub mod seal;

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached, did not answer in time, or refused to work. Told as 503, never as 401 to 403.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It answered with a record that cannot be read. Nothing is let through by such a record (law 9).
    #[error("the record {key} cannot be read: {why}")]
    Unreadable {
        /// The record's key, without any secret in it.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token's value cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] seal::SealError),
}

/// A token as the admin API sees it: its policy, and its value where that may be shown.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// What it may do.
    pub policy: Policy,
    /// The value: publishable tokens are kept in the clear, secret ones sealed.
    pub value: KeptValue,
}

/// How a token's value is kept.
#[derive(Debug, Clone)]
pub enum KeptValue {
    /// As it is: it is public (publishable tokens only).
    Clear(Token),
    /// Sealed; [`Store::reveal_token`] opens it.
    Sealed,
}

/// One entry of a list of tokens. A record that cannot be read does not hide the others.
#[derive(Debug, Clone)]
pub enum Listed {
    /// A token.
    Token(Box<StoredToken>),
    /// A record that cannot be read, and why.
    Unreadable {
        /// The token's id.
        id: TokenId,
        /// What is wrong with its record.
        why: String,
    },
}

/// How a write that names the version it builds on went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is stored, under this new version.
    Done {
        /// The version after the write.
        version: u64,
    },
    /// Somebody else wrote first; nothing was changed.
    Conflict {
        /// The version that is stored.
        version: u64,
    },
    /// There is no such record.
    Missing,
}

/// The name of one taking of credits: a ULID. A settlement names it, so each counts once however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub ulid::Ulid);

/// How long a taking that is not settled is known; after that it is spent in full (`ledger.md`). A lease's name is
/// never used again once it is settled.
const LEASE_LIFE: Duration = Duration::from_hours(24);

/// Credits to take for one request.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The name of this taking.
    pub lease: LeaseId,
    /// Whose budget counts.
    pub account: AccountId,
    /// Whose limit and rate count.
    pub token: TokenId,
    /// The pool.
    pub pool: Pool,
    /// How many.
    pub cost: Credits,
}

/// What a taking really cost: the rest is given back.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The taking, as it was asked for.
    pub charge: Charge,
    /// What was spent; at most what was taken.
    pub spent: Credits,
}

/// What the gate and the admin API ask of a store.
///
/// Each method is one atomic step: it happens whole or not at all. All may fail with
/// [`StoreError::Unavailable`]; those that read records also with [`StoreError::Unreadable`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The policy of the token with this digest; `None`: nobody's token.
    async fn find_token(&self, digest: &TokenDigest) -> Result<Option<Policy>, StoreError>;

    /// One token of an account.
    async fn get_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<StoredToken>, StoreError>;

    /// An account's tokens, oldest first, from behind `after`, at most `limit`.
    async fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError>;

    /// Keeps a new token: its policy (version as given), findable by its value's digest; secret values sealed.
    async fn create_token(&self, policy: &Policy, value: &Token) -> Result<(), StoreError>;

    /// Replaces a policy, if `policy.version` is the stored version; the new version is one more.
    async fn put_policy(&self, policy: &Policy) -> Result<Written, StoreError>;

    /// Gives a token a new value, if `version` is the stored version. The old value works for `grace` more; values
    /// from earlier rotations keep what grace they have.
    async fn rotate_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        value: &Token,
        grace: Duration,
    ) -> Result<Written, StoreError>;

    /// The value of a token, opened if it was sealed. `None`: no such token.
    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError>;

    /// Marks a secret token as seen coming from a browser, once: a later time does not replace an earlier one, and
    /// the version stays.
    async fn mark_seen_in_browser(
        &self,
        account: &AccountId,
        id: &TokenId,
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// An account.
    async fn get_account(&self, id: &AccountId) -> Result<Option<Account>, StoreError>;

    /// Makes an account with its first token; `false`: the account exists, nothing was changed.
    async fn create_account(
        &self,
        account: &Account,
        first: &Policy,
        value: &Token,
    ) -> Result<bool, StoreError>;

    /// Replaces an account's fields, if `account.version` is the stored version; the new version is one more.
    async fn put_account(&self, account: &Account) -> Result<Written, StoreError>;

    /// Takes a request's credits: throttle, then token limit and account budget together, by the store's clock and
    /// by the limits as they are stored at this moment. Asked twice with one lease id, it takes once.
    async fn take(&self, charge: &Charge) -> Result<Taken, StoreError>;

    /// Says what takings really cost; gives back the rest to the periods it was taken from. Sent twice, it counts
    /// once; of a taking that never reached the store it says nothing, and that is fine.
    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError>;

    /// The counters of a token, for each pool, as of the store's clock, which is given besides.
    async fn token_usage(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<(PerPool<Counter>, Timestamp), StoreError>;

    /// The counters of an account, for each pool, as of the store's clock, which is given besides.
    async fn account_usage(&self, account: &AccountId) -> Result<(PerPool<Counter>, Timestamp), StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
