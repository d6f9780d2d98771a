//! The store of a single node: one file, no server.
//!
//! Owns the file and its one writer. It runs [`crate::ledger::take`] as it stands. Writes are queued to a thread
//! that commits many of them with one `fsync` (`writer`); none is acknowledged before it is on the disk, so what
//! a caller was told survives `kill -9`. Reads use snapshots and never wait for the writer; they are short, and are
//! made where they are asked for. Steps of a write are in `steps`, tables and encoding in `tables`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::record::{TokenRecord, edited, policy_fields, token_name};
use super::seal::Sealer;
use super::{Charge, LeaseId, Listed, Settlement, Store, StoreError, StoredToken, Written};
use crate::ledger::{Counter, Taken};
use crate::policy::record::Account;
use crate::policy::{AccountId, PerPool, Policy, Token, TokenDigest, TokenId};

mod file;
mod reads;
mod steps;
mod tables;
mod writer;

pub use file::OpenError;

use file::StoreFile;
use steps::Rotation;
use writer::Writer;

/// The clock of an embedded store: all its periods, throttles and graces go by it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// Any other clock, as tests need it.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(clock))
    }

    fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A store in one file. Dropping it waits until everything that was queued is written.
#[derive(Debug)]
pub struct EmbeddedStore {
    file: Arc<StoreFile>,
    writer: Writer,
    sealer: Option<Sealer>,
    clock: Clock,
}

impl EmbeddedStore {
    /// Opens the file, or makes it (mode 0600) and its folder. One process at a time can have it open. A file that
    /// is no store, or a damaged one, is left as it is.
    pub fn open(path: &Path, sealer: Option<Sealer>, clock: Clock) -> Result<Self, OpenError> {
        let file = Arc::new(StoreFile::open(path)?);
        let writer =
            Writer::start(Arc::clone(&file), clock.clone()).map_err(|source| OpenError::Thread { source })?;
        Ok(Self { file, writer, sealer, clock })
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn find_token(&self, digest: &TokenDigest) -> Result<Option<Policy>, StoreError> {
        let now = self.clock.now();
        self.file.read(|reads| reads.find_token(digest, now))
    }

    async fn get_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        let record = self.file.read(|reads| reads.token(account, id))?;
        Ok(record.map(TokenRecord::into_stored))
    }

    async fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.file.read(|reads| reads.list_tokens(account, after, limit))
    }

    async fn create_token(&self, policy: &Policy, value: &Token) -> Result<(), StoreError> {
        let record = TokenRecord::new(self.sealer.as_ref(), policy, value)?;
        self.writer.run(move |tables, _| tables.create_token(&record)).await
    }

    async fn put_policy(&self, policy: &Policy) -> Result<Written, StoreError> {
        let name = token_name(&policy.account, &policy.id);
        let fields = edited(policy_fields(policy), &super::record::TOKEN_FIELDS);
        let version = policy.version;
        self.writer.run(move |tables, _| tables.put_token(&name, fields, version)).await
    }

    async fn rotate_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        value: &Token,
        grace: Duration,
    ) -> Result<Written, StoreError> {
        let kept = super::record::Kept::new(self.sealer.as_ref(), id, value)?;
        let (account, id) = (account.clone(), id.clone());
        let rotation = Rotation { account, id, version, value: value.clone(), kept, grace };
        self.writer.run(move |tables, now| tables.rotate_token(rotation, now)).await
    }

    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError> {
        let Some(record) = self.file.read(|reads| reads.token(account, id))? else { return Ok(None) };
        Ok(Some(record.reveal(self.sealer.as_ref())?))
    }

    async fn mark_seen_in_browser(
        &self,
        account: &AccountId,
        id: &TokenId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let name = token_name(account, id);
        self.writer.run(move |tables, _| tables.mark_seen_in_browser(&name, at)).await
    }

    async fn get_account(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        self.file.read(|reads| reads.account(id))
    }

    async fn create_account(
        &self,
        account: &Account,
        first: &Policy,
        value: &Token,
    ) -> Result<bool, StoreError> {
        let record = TokenRecord::new(self.sealer.as_ref(), first, value)?;
        let account = account.clone();
        self.writer.run(move |tables, _| tables.create_account(&account, &record)).await
    }

    async fn put_account(&self, account: &Account) -> Result<Written, StoreError> {
        let account = account.clone();
        self.writer.run(move |tables, _| tables.put_account(&account)).await
    }

    async fn take(&self, charge: &Charge) -> Result<Taken, StoreError> {
        let charge = charge.clone();
        self.writer.run(move |tables, now| tables.take(&charge, now)).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        let settlements = settlements.to_vec();
        self.writer.run(move |tables, now| tables.settle(&settlements, now)).await
    }

    async fn token_usage(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<(PerPool<Counter>, Timestamp), StoreError> {
        let now = self.clock.now();
        let used = self.file.read(|reads| reads.usage(|pool| tables::used_by_token(account, id, pool)))?;
        Ok((used, now))
    }

    async fn account_usage(&self, account: &AccountId) -> Result<(PerPool<Counter>, Timestamp), StoreError> {
        let now = self.clock.now();
        let used = self.file.read(|reads| reads.usage(|pool| tables::used_by_account(account, pool)))?;
        Ok((used, now))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.file.read(|_| Ok(()))
    }
}

/// The number a lease is kept under.
fn lease_key(lease: LeaseId) -> u128 {
    lease.0.0
}
