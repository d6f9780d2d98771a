//! What the gate and the admin API ask of a store, and the two stores that answer.
//!
//! Owns the seam, not the storage: [`redis`] and [`embedded`] each implement [`Store`], held to one conformance
//! suite (`tests/it/store_conformance.rs`). Key names live in [`keys`], the record's fields in [`record`], sealing
//! in [`seal`]. A store knows no HTTP and no Pingora.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::ledger::lease::{Ask, Reserved};
use crate::policy::record::Account;
use crate::policy::signature::{Fingerprint, SigningSecret};
use crate::policy::{AccountId, Credits, Operation, Policy, Pool, Token, TokenDigest, TokenId};
use people::{Member, MemberId, MemberWritten, Session, SessionDigest};
use trail::{Asked, Note, Traced};

pub mod backup;
pub mod embedded;
pub mod keys;
pub mod people;
pub mod record;
pub mod redis;
pub mod seal;
pub(crate) mod shared_calls;
pub mod snapshot;
mod sums;
pub mod trail;
mod usage;

pub use sums::{Grain, RefusedSum, SumOf, UsageSums, UsedSum};
pub use usage::{Counted, Retention};

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

/// The name of one lease: a ULID. Every call about it names it, so each counts once however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub ulid::Ulid);

/// The name of a node: a ULID, kept in its `state_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub ulid::Ulid);

/// A lease, and what it is a lease of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The lease.
    pub lease: LeaseId,
    /// Whose budget counts.
    pub account: AccountId,
    /// Whose limit counts.
    pub token: TokenId,
    /// The pool.
    pub pool: Pool,
}

/// A request for a lease.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// The lease to make.
    pub key: LeaseKey,
    /// Who asks.
    pub node: NodeId,
    /// How much.
    pub ask: Ask,
    /// How long it lives without being renewed.
    pub life: Duration,
}

/// What a lease really paid for: the rest is given back.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The lease.
    pub key: LeaseKey,
    /// Credits used for good: the sum of the cells' credits.
    pub spent: Credits,
    /// The usage it paid for.
    pub cells: Vec<UsageCell>,
}

/// Usage of one data set by one operation in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageCell {
    /// When the hour began: seconds since the epoch.
    pub hour: i64,
    /// The data set; empty where the route names none.
    pub dataset: String,
    /// What was done.
    pub operation: Operation,
    /// How many responses.
    pub requests: u64,
    /// What they cost.
    pub credits: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Refusals of one token (or of none that is known) for one reason in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalCell {
    /// The token; `None`: nobody's.
    pub token: Option<TokenId>,
    /// When the hour began: seconds since the epoch.
    pub hour: i64,
    /// The refusal's code.
    pub code: &'static str,
    /// How many.
    pub count: u64,
}

/// One row of what was used or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageRow {
    /// Responses that were charged.
    Used {
        /// Whose.
        token: TokenId,
        /// From which pool.
        pool: Pool,
        /// What.
        cell: UsageCell,
    },
    /// Requests that were refused.
    Refused {
        /// Whose; `None`: nobody's.
        token: Option<TokenId>,
        /// When the hour began: seconds since the epoch.
        hour: i64,
        /// The refusal's code.
        code: String,
        /// How many.
        count: u64,
    },
}

/// How asking for passes of a throttle went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paced {
    /// The token has no rate limit.
    Unlimited,
    /// So many passes, at least one. All but the first must be used within `hold`, or be forgotten.
    Passes {
        /// How many.
        count: u32,
        /// For how long those after the first are good.
        hold: Duration,
        /// How many more could be had at once.
        remaining: u32,
    },
    /// None now.
    Wait {
        /// After how long there is one.
        retry_after: Duration,
    },
}

/// Something that happened in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A token's policy or value was changed.
    Policy {
        /// Which token.
        token: TokenId,
        /// Its version since.
        version: u64,
        /// The account's epoch since.
        epoch: u64,
    },
    /// The account was changed.
    Account {
        /// The account's epoch since.
        epoch: u64,
    },
    /// Somebody is out of credits that nodes hold.
    Recall {
        /// Of which token; `None`: of all of the account.
        token: Option<TokenId>,
        /// In which pool.
        pool: Pool,
    },
    /// Events may have been missed: the connection that brings them was lost and is back.
    Lost,
}

/// What a node said of itself. It stands for as long as the node may serve by what it knew then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its name.
    pub node: NodeId,
    /// The epoch it acts by: every change up to it is in force there.
    pub epoch: u64,
    /// When it said so, by the store's clock; ignored when reporting.
    pub seen_at: Timestamp,
    /// Credits it holds in open leases.
    pub leased: Credits,
    /// Where it can be found: its host name and first listener, for people.
    pub name: String,
}

impl NodeReport {
    /// What a node says of itself now; the store writes down when.
    pub fn new(node: NodeId, epoch: u64, leased: Credits, name: &str) -> Self {
        Self { node, epoch, seen_at: Timestamp::UNIX_EPOCH, leased, name: name.to_owned() }
    }

    /// A node that has not reported for so long is silent: gone, or cut off and serving by what it knows.
    pub const SILENT_AFTER: Duration = Duration::from_secs(10);

    /// Which of these nodes live, in the same order. The last report of all stands for the store's clock: whoever asks
    /// has a node of its own that reports.
    pub fn living(reports: &[Self]) -> impl Iterator<Item = (&Self, bool)> {
        let last = reports.iter().map(|report| report.seen_at).max();
        let lives = move |report: &Self| {
            last.is_none_or(|last| last.duration_since(report.seen_at).unsigned_abs() < Self::SILENT_AFTER)
        };
        reports.iter().map(move |report| (report, lives(report)))
    }
}

/// A secret that signs for all tokens of its account.
#[derive(Debug, Clone)]
pub struct AccountSecret {
    /// The secret token whose value it is, or was.
    pub token_id: TokenId,
    /// The value.
    pub secret: SigningSecret,
    /// From when on it signs no more: the token's end, or that of a former value's grace. `None`: never by itself.
    pub until: Option<Timestamp>,
}

/// The secrets that sign for all tokens of an account: its secret tokens that may be used.
#[derive(Debug, Clone, Default)]
pub struct AccountSecrets {
    /// The secrets, oldest token first.
    pub secrets: Vec<AccountSecret>,
    /// Secret tokens whose values cannot be opened, and why. With these nobody can sign.
    pub unopened: Vec<(TokenId, seal::SealError)>,
}

/// A signature that was used, to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// What it is remembered by.
    pub fingerprint: Fingerprint,
    /// Its time (`x-iex-date`), in seconds since the epoch. One signature has one time.
    pub dated: i64,
    /// For how long it has to be remembered from now on.
    pub life: Duration,
    /// The name of this use, not 0: the same use may be told twice, where an answer was lost.
    pub nonce: u128,
}

/// Whether a signature was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// It was not; from now on it was.
    New,
    /// It was.
    Seen,
    /// Nobody knows: no more can be remembered, and none is forgotten before its time. It must not be let through.
    Full,
}

/// What the gate and the admin API ask of a store.
///
/// Each method is one atomic step: it happens whole or not at all. All may fail with
/// [`StoreError::Unavailable`]; those that read records also with [`StoreError::Unreadable`].
///
/// A write that somebody asked for takes a [`Note`], and adds it to the account's trail in the same step. Where nothing is
/// written (a conflict, a record that is missing, the same call again), nothing is noted.
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
    async fn create_token(&self, policy: &Policy, value: &Token, note: &Note) -> Result<(), StoreError>;

    /// Replaces a policy, if `policy.version` is the stored version; the new version is one more.
    async fn put_policy(&self, policy: &Policy, note: &Note) -> Result<Written, StoreError>;

    /// Gives a token a new value, if `version` is the stored version. The old value works for `grace` more; values
    /// from earlier rotations keep what grace they have.
    async fn rotate_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        value: &Token,
        grace: Duration,
        note: &Note,
    ) -> Result<Written, StoreError>;

    /// The value of a token, opened if it was sealed. `None`: no such token.
    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError>;

    /// Gives a token a signing secret, sealed, in the place of the one it may have; if `version` is the stored version. The
    /// new version is one more. Without a master key: [`seal::SealError::NoMasterKey`].
    async fn put_signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        secret: &SigningSecret,
        note: &Note,
    ) -> Result<Written, StoreError>;

    /// A token's own signing secret, opened. `None`: it has none, or there is no such token.
    async fn signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<Option<SigningSecret>, StoreError>;

    /// The secrets that sign for all tokens of an account. A record that cannot be read hides no others.
    async fn account_secrets(&self, account: &AccountId) -> Result<AccountSecrets, StoreError>;

    /// Remembers signatures, and says of each whether it was used before. Exactly one of all that come with one
    /// fingerprint, from wherever, is [`Remembered::New`], as long as the memory of it lasts.
    async fn remember_signatures(
        &self,
        account: &AccountId,
        sightings: &[Sighting],
    ) -> Result<Vec<Remembered>, StoreError>;

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
        note: &Note,
    ) -> Result<bool, StoreError>;

    /// Replaces an account's fields, if `account.version` is the stored version; the new version is one more.
    async fn put_account(&self, account: &Account, note: &Note) -> Result<Written, StoreError>;

    /// Adds to an account's trail what writes nothing else.
    async fn note(&self, account: &AccountId, note: &Note) -> Result<(), StoreError>;

    /// What an account's trail holds, newest first.
    async fn trail(&self, account: &AccountId, asked: &Asked) -> Result<Vec<Traced>, StoreError>;

    /// Leases credits of a token to a node: one atomic step for token limit and account budget, by the limits as they
    /// are stored at this moment and by the store's clock ([`crate::ledger::lease::reserve`]). Leases of the account
    /// whose time is over are closed first, a few at a call. Asked twice with one lease id, it leases once.
    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError>;

    /// Gives back what leases hold beyond `keep`.
    async fn shrink(&self, lease: &LeaseKey, keep: Credits) -> Result<(), StoreError>;

    /// Closes leases and counts the usage cells they paid for, and when each token was last charged; each once however
    /// often it is sent. Stranded leases get their true figure.
    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError>;

    /// Lets leases live on for `life`; for each, whether it is still open.
    async fn renew(&self, leases: &[LeaseKey], life: Duration) -> Result<Vec<bool>, StoreError>;

    /// Closes leases of the account whose time is over as spent in full; how many.
    async fn expire(&self, account: &AccountId) -> Result<u64, StoreError>;

    /// Asks the nodes to give back what they hold of a token and do not need ([`Event::Recall`]); with `token` none: of
    /// all tokens of the account.
    async fn recall(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        pool: Pool,
    ) -> Result<(), StoreError>;

    /// Takes up to `want` passes of a token's throttle, by the store's clock ([`crate::ledger::pace`]).
    async fn pace(&self, account: &AccountId, token: &TokenId, want: u32) -> Result<Paced, StoreError>;

    /// What happens in the store, for whoever wants to hear it. A receiver that lags has lost events, and must act as
    /// on [`Event::Lost`].
    fn events(&self) -> tokio::sync::broadcast::Receiver<Event>;

    /// The account's epoch: it goes up with each change of a policy, of a token's value or of the account. One that
    /// did not move says that no event was missed.
    async fn epoch(&self, account: &AccountId) -> Result<u64, StoreError>;

    /// Says that this node lives and up to which epoch it acts ([`NodeReport`]); kept for `life`, zero takes it back.
    async fn report_node(
        &self,
        account: &AccountId,
        report: &NodeReport,
        life: Duration,
    ) -> Result<(), StoreError>;

    /// The reports that stand.
    async fn nodes(&self, account: &AccountId) -> Result<Vec<NodeReport>, StoreError>;

    /// Counts refusals by reason, and when each token was last refused. Sent twice with one `batch`, it counts once.
    async fn count_refusals(
        &self,
        account: &AccountId,
        batch: LeaseId,
        cells: &[RefusalCell],
    ) -> Result<(), StoreError>;

    /// The usage of one token, or of all the account's tokens, in the hours from `from` to before `to`.
    async fn usage(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<UsageRow>, StoreError>;

    /// What is counted of a token.
    async fn token_usage(&self, account: &AccountId, id: &TokenId) -> Result<Counted, StoreError>;

    /// What is counted of an account: of all its tokens together.
    async fn account_usage(&self, account: &AccountId) -> Result<Counted, StoreError>;

    /// The members of an account, oldest first. There are few: whoever looks for a name goes through them. One that cannot
    /// be read is left out (and logged), and hides no others.
    async fn members(&self, account: &AccountId) -> Result<Vec<Member>, StoreError>;

    /// One member.
    async fn member(&self, account: &AccountId, id: &MemberId) -> Result<Option<Member>, StoreError>;

    /// Keeps a new member, as [`Member::version`] 1, and the note, in one step. [`MemberWritten::NameTaken`]: a member of
    /// that name (compared in lower case) exists, [`MemberWritten::Conflict`]: one of that id; nothing was changed.
    async fn create_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError>;

    /// Replaces a member, if `member.version` is the stored version; the new version is one more. The name stays unique.
    async fn put_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError>;

    /// Takes a member away, if `version` is the stored version. The member's sessions stay until they end: whoever finds one
    /// asks for the member.
    async fn remove_member(
        &self,
        account: &AccountId,
        id: &MemberId,
        version: u64,
        note: &Note,
    ) -> Result<MemberWritten, StoreError>;

    /// Remembers a session for `life` under the digest of its cookie.
    async fn put_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
        session: &Session,
        life: Duration,
    ) -> Result<(), StoreError>;

    /// The session with this digest; `None`: there is none (any more).
    async fn session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<Option<Session>, StoreError>;

    /// Forgets a session.
    async fn end_session(&self, account: &AccountId, digest: &SessionDigest) -> Result<(), StoreError>;

    /// Everything the store holds, as of one moment after the note was taken, in the form of [`backup`]. `None`: this store is
    /// backed up by its own means, and nothing was noted.
    async fn backup(&self, account: &AccountId, note: &Note) -> Result<Option<backup::Pieces>, StoreError> {
        let _ = (account, note);
        Ok(None)
    }

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Some tokens of an account, in the order of `ids`; those that are not there are left out.
    async fn get_tokens(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Listed>, StoreError>;

    /// An account's tokens, oldest first, behind the first `skip`, at most `limit`; and how many there are in all.
    async fn list_tokens_behind(
        &self,
        account: &AccountId,
        skip: usize,
        limit: usize,
    ) -> Result<(usize, Vec<Listed>), StoreError>;

    /// What is counted of some tokens, in the order of `ids`.
    async fn tokens_usage(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Counted>, StoreError>;

    /// What all the account's tokens used, and what was refused, in the hours from `from` to before `to`: the same as the
    /// rows of [`Store::usage`], added up, in the time that it takes to read the sums.
    async fn usage_sums(
        &self,
        account: &AccountId,
        grain: Grain,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<UsageSums, StoreError>;
}
