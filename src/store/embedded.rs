//! The store of a single node: one file, no server.
//!
//! Owns the file and its one writer. It runs the steps of [`crate::ledger::lease`] and [`crate::ledger::pace`] as they
//! stand. Writes are queued to a thread
//! that commits many of them with one `fsync` (`writer`); none is acknowledged before it is on the disk, so what
//! a caller was told survives `kill -9`. Reads use snapshots and never wait for the writer; they are short, and are
//! made where they are asked for. Steps of a write are in `steps`, tables and encoding in `tables`. Used signatures are
//! remembered beside the file, in `signatures`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use tokio::sync::broadcast;

use super::backup::{Header, Pieces};
use super::people::{Member, MemberId, MemberWritten, Session, SessionDigest};
use super::record::{TokenRecord, token_name};
use super::seal::{SealError, Sealer};
use super::trail::{Asked, Note, Traced};
use super::usage::{Hours, sort};
use super::{
    AccountSecrets, Counted, Event, Grain, LeaseId, LeaseKey, Listed, NodeReport, Paced, RefusalCell,
    Remembered, Reserve, Retention, Settlement, Sighting, Store, StoreError, StoredToken, UsageRow,
    UsageSums, Written,
};
use crate::ledger::lease::Reserved;
use crate::policy::record::Account;
use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, Credits, Policy, Pool, Token, TokenDigest, TokenId};

mod copy;
mod file;
mod kept;
mod nodes;
mod reads;
mod signatures;
mod steps;
mod sums;
mod tables;
mod writer;

pub use copy::CopyError;
pub use file::OpenError;

use file::StoreFile;
use nodes::Nodes;
use signatures::Signatures;
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

    /// The time, in whole microseconds, as it is kept.
    fn now(&self) -> Timestamp {
        let now = (self.0)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
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
    retention: Retention,
    events: broadcast::Sender<Event>,
    nodes: Nodes,
    signatures: Signatures,
}

/// How many events may wait for whoever is slow to hear them.
const EVENTS: usize = 4096;

impl EmbeddedStore {
    /// Opens the file, or makes it (mode 0600) and its folder. One process at a time can have it open. A file that
    /// is no store, or a damaged one, is left as it is.
    pub fn open(path: &Path, sealer: Option<Sealer>, clock: Clock) -> Result<Self, OpenError> {
        Self::open_keeping(path, sealer, clock, Retention::default())
    }

    /// As [`EmbeddedStore::open`], with times of one's own after which things are forgotten.
    pub fn open_keeping(
        path: &Path,
        sealer: Option<Sealer>,
        clock: Clock,
        retention: Retention,
    ) -> Result<Self, OpenError> {
        let file = Arc::new(StoreFile::open(path)?);
        let (events, _) = broadcast::channel(EVENTS);
        let writer = Writer::start(Arc::clone(&file), clock.clone(), retention, events.clone())
            .map_err(|source| OpenError::Thread { source })?;
        let signatures = Signatures::open(path, retention.signatures, clock.now())?;
        let nodes = Nodes::default();
        Ok(Self { file, writer, sealer, clock, retention, events, nodes, signatures })
    }
}

/// Whether a file is not there, or is a store with nothing in it. Fails where another process has it open.
pub fn is_blank(path: &Path) -> Result<bool, OpenError> {
    if !path.exists() {
        return Ok(true);
    }
    let damaged = |why: StoreError| OpenError::Damaged { path: path.to_owned(), why: why.to_string() };
    StoreFile::open(path)?.read(reads::Reads::is_blank).map_err(damaged)
}

/// Makes a store's file, which must not be there, of a backup: what the backup is, and how many rows it has. Where it fails,
/// what it made is no store.
pub fn restore(path: &Path, backup: impl std::io::BufRead) -> Result<(Header, u64), CopyError> {
    copy::read(path, backup)
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

    async fn create_token(&self, policy: &Policy, value: &Token, note: &Note) -> Result<(), StoreError> {
        let record = TokenRecord::new(self.sealer.as_ref(), policy, value)?;
        let note = note.clone();
        self.writer.run(move |tables, now| tables.create_token(&record, &note, now)).await
    }

    async fn put_policy(&self, policy: &Policy, note: &Note) -> Result<Written, StoreError> {
        let (policy, note) = (policy.clone(), note.clone());
        self.writer.run(move |tables, now| tables.put_policy(&policy, &note, now)).await
    }

    async fn rotate_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        value: &Token,
        grace: Duration,
        note: &Note,
    ) -> Result<Written, StoreError> {
        let kept = super::record::Kept::new(self.sealer.as_ref(), id, value)?;
        let (account, id) = (account.clone(), id.clone());
        let note = note.clone();
        let rotation = Rotation { account, id, version, value: value.clone(), kept, grace, note };
        self.writer.run(move |tables, now| tables.rotate_token(rotation, now)).await
    }

    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError> {
        let Some(record) = self.file.read(|reads| reads.token(account, id))? else { return Ok(None) };
        Ok(Some(record.reveal(self.sealer.as_ref())?))
    }

    async fn put_signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        secret: &SigningSecret,
        note: &Note,
    ) -> Result<Written, StoreError> {
        let sealer = self.sealer.as_ref().ok_or(SealError::NoMasterKey)?;
        let sealed = sealer.seal_signing(id, secret)?;
        let (account, id, note) = (account.clone(), id.clone(), note.clone());
        let put = move |tables: &mut steps::Tables<'_>, now| {
            tables.put_signing(&account, &id, version, sealed, &note, now)
        };
        self.writer.run(put).await
    }

    async fn signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<Option<SigningSecret>, StoreError> {
        let Some(record) = self.file.read(|reads| reads.token(account, id))? else { return Ok(None) };
        Ok(record.signing_secret(self.sealer.as_ref())?)
    }

    async fn account_secrets(&self, account: &AccountId) -> Result<AccountSecrets, StoreError> {
        let now = self.clock.now();
        self.file.read(|reads| reads.account_secrets(account, self.sealer.as_ref(), now))
    }

    async fn remember_signatures(
        &self,
        account: &AccountId,
        sightings: &[Sighting],
    ) -> Result<Vec<Remembered>, StoreError> {
        self.signatures.remember(account, sightings, self.clock.now())
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
        note: &Note,
    ) -> Result<bool, StoreError> {
        let record = TokenRecord::new(self.sealer.as_ref(), first, value)?;
        let (account, note) = (account.clone(), note.clone());
        self.writer.run(move |tables, now| tables.create_account(&account, &record, &note, now)).await
    }

    async fn put_account(&self, account: &Account, note: &Note) -> Result<Written, StoreError> {
        let (account, note) = (account.clone(), note.clone());
        self.writer.run(move |tables, now| tables.put_account(&account, &note, now)).await
    }

    async fn note(&self, account: &AccountId, note: &Note) -> Result<(), StoreError> {
        let (account, note) = (account.clone(), note.clone());
        self.writer.run(move |tables, now| tables.note(&account, &note, now)).await
    }

    async fn trail(&self, account: &AccountId, asked: &Asked) -> Result<Vec<Traced>, StoreError> {
        self.file.read(|reads| reads.trail(account, asked))
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        let (reserve, retention) = (reserve.clone(), self.retention);
        self.writer.run(move |tables, now| tables.reserve(&reserve, retention, now)).await
    }

    async fn shrink(&self, lease: &LeaseKey, keep: Credits) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.writer.run(move |tables, now| tables.shrink(&lease, keep, now)).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        let settlements = settlements.to_vec();
        self.writer.run(move |tables, now| tables.settle(&settlements, now)).await
    }

    async fn renew(&self, leases: &[LeaseKey], life: Duration) -> Result<Vec<bool>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let leases = leases.to_vec();
        self.writer.run(move |tables, now| tables.renew(&leases, life, now)).await
    }

    async fn expire(&self, account: &AccountId) -> Result<u64, StoreError> {
        let due = self.file.read(|reads| reads.any_expired(account, self.clock.now()))?;
        if !due {
            return Ok(0);
        }
        let (account, retention) = (account.clone(), self.retention);
        self.writer.run(move |tables, now| tables.expire(&account, retention, now)).await
    }

    async fn recall(&self, _: &AccountId, token: Option<&TokenId>, pool: Pool) -> Result<(), StoreError> {
        // Where nobody listens, nobody holds credits.
        let _ = self.events.send(Event::Recall { token: token.cloned(), pool });
        Ok(())
    }

    async fn pace(&self, account: &AccountId, token: &TokenId, want: u32) -> Result<Paced, StoreError> {
        let (account, token) = (account.clone(), token.clone());
        self.writer.run(move |tables, now| tables.pace(&account, &token, want, now)).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn epoch(&self, account: &AccountId) -> Result<u64, StoreError> {
        self.file.read(|reads| reads.epoch(account))
    }

    async fn report_node(
        &self,
        account: &AccountId,
        report: &NodeReport,
        life: Duration,
    ) -> Result<(), StoreError> {
        self.nodes.report(account, report, life, self.clock.now());
        Ok(())
    }

    async fn nodes(&self, account: &AccountId) -> Result<Vec<NodeReport>, StoreError> {
        Ok(self.nodes.alive(account, self.clock.now()))
    }

    async fn count_refusals(
        &self,
        account: &AccountId,
        batch: LeaseId,
        cells: &[RefusalCell],
    ) -> Result<(), StoreError> {
        if cells.is_empty() {
            return Ok(());
        }
        let (account, cells) = (account.clone(), cells.to_vec());
        self.writer.run(move |tables, now| tables.count_refusals(&account, batch, &cells, now)).await
    }

    async fn usage(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let hours = Hours::new(from, to, self.clock.now(), self.retention.usage);
        let mut rows = self.file.read(|reads| reads.usage(account, token, hours))?;
        sort(&mut rows);
        Ok(rows)
    }

    async fn token_usage(&self, account: &AccountId, id: &TokenId) -> Result<Counted, StoreError> {
        let counted = self.tokens_usage(account, std::slice::from_ref(id)).await?;
        let missing = || StoreError::Unavailable("the file told nothing of a token".to_owned());
        counted.into_iter().next().ok_or_else(missing)
    }

    async fn account_usage(&self, account: &AccountId) -> Result<Counted, StoreError> {
        let now = self.clock.now();
        let counters =
            self.file.read(|reads| reads.counters(|pool| tables::used_by_account(account, pool)))?;
        Ok(Counted::new(&counters, now))
    }

    async fn members(&self, account: &AccountId) -> Result<Vec<Member>, StoreError> {
        self.file.read(|reads| reads.members(account))
    }

    async fn member(&self, account: &AccountId, id: &MemberId) -> Result<Option<Member>, StoreError> {
        self.file.read(|reads| reads.member(account, id))
    }

    async fn create_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let (account, member, note) = (account.clone(), member.clone(), note.clone());
        self.writer.run(move |tables, now| tables.create_member(&account, &member, &note, now)).await
    }

    async fn put_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let (account, member, note) = (account.clone(), member.clone(), note.clone());
        self.writer.run(move |tables, now| tables.put_member(&account, &member, &note, now)).await
    }

    async fn remove_member(
        &self,
        account: &AccountId,
        id: &MemberId,
        version: u64,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let (account, id, note) = (account.clone(), id.clone(), note.clone());
        self.writer.run(move |tables, now| tables.remove_member(&account, &id, version, &note, now)).await
    }

    async fn put_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
        session: &Session,
        life: Duration,
    ) -> Result<(), StoreError> {
        let (account, digest, session) = (account.clone(), *digest, session.clone());
        self.writer.run(move |tables, now| tables.put_session(&account, &digest, &session, life, now)).await
    }

    async fn session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<Option<Session>, StoreError> {
        let now = self.clock.now();
        self.file.read(|reads| reads.session(account, digest, now))
    }

    async fn end_session(&self, account: &AccountId, digest: &SessionDigest) -> Result<(), StoreError> {
        let (account, digest) = (account.clone(), *digest);
        self.writer.run(move |tables, _| tables.end_session(&account, &digest)).await
    }

    async fn backup(&self, account: &AccountId, note: &Note) -> Result<Option<Pieces>, StoreError> {
        self.note(account, note).await?;
        Ok(Some(copy::start(Arc::clone(&self.file), self.clock.now())))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.file.read(|_| Ok(()))
    }

    async fn get_tokens(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Listed>, StoreError> {
        self.file.read(|reads| reads.tokens(account, ids))
    }

    async fn list_tokens_behind(
        &self,
        account: &AccountId,
        skip: usize,
        limit: usize,
    ) -> Result<(usize, Vec<Listed>), StoreError> {
        self.file.read(|reads| reads.list_tokens_behind(account, skip, limit))
    }

    async fn tokens_usage(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Counted>, StoreError> {
        let now = self.clock.now();
        self.file.read(|reads| reads.counted_of(account, ids, now))
    }

    async fn usage_sums(
        &self,
        account: &AccountId,
        grain: Grain,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<UsageSums, StoreError> {
        let hours = Hours::new(from, to, self.clock.now(), self.retention.usage);
        self.file.read(|reads| reads.sums(account, grain, hours))
    }
}
