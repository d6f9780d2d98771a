//! The embedded store, with troubles to order: unreachable, silent, or holding a record nobody can read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tollgate::ledger::lease::Reserved;
use tollgate::policy::record::Account;
use tollgate::policy::signature::SigningSecret;
use tollgate::policy::{AccountId, Credits, Policy, Pool, Token, TokenDigest, TokenId};
use tollgate::store::embedded::EmbeddedStore;
use tollgate::store::people::{Member, MemberId, MemberWritten, Session, SessionDigest};
use tollgate::store::trail::{Asked, Note, Traced};
use tollgate::store::{
    AccountSecrets, Counted, Event, Grain, LeaseId, LeaseKey, Listed, NodeReport, Paced, RefusalCell,
    Remembered, Reserve, Settlement, Sighting, Store, StoreError, StoredToken, UsageRow, UsageSums, Written,
};

/// How the store behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    Well,
    /// It cannot be reached.
    Down,
    /// It never answers.
    Silent,
    /// The record of this token cannot be read.
    Unreadable(TokenId),
    /// It takes writes, yet cannot tell how far the nodes are.
    Blind,
    /// It answers, yet takes no notes that stand alone.
    Blank,
    /// It takes writes, yet never answers how far the nodes are.
    Mute,
}

/// The embedded store, with a mood.
pub(crate) struct MoodyStore {
    inner: EmbeddedStore,
    mood: Mutex<Mood>,
    kept_waiting: AtomicUsize,
    looks: AtomicUsize,
    asked_for_nodes: AtomicUsize,
}

const WHY: &str = "the field `status` is `sleepy`";

impl MoodyStore {
    pub(crate) fn new(inner: EmbeddedStore) -> Self {
        Self {
            inner,
            mood: Mutex::new(Mood::Well),
            kept_waiting: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            asked_for_nodes: AtomicUsize::new(0),
        }
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// How many have asked it in vain.
    pub(crate) fn kept_waiting(&self) -> usize {
        self.kept_waiting.load(Ordering::SeqCst)
    }

    /// How often somebody has asked for the nodes.
    pub(crate) fn asked_for_nodes(&self) -> usize {
        self.asked_for_nodes.load(Ordering::SeqCst)
    }

    /// How often somebody has asked how far the nodes are.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Down => Err(StoreError::Unavailable("connection refused by 10.1.2.3".to_owned())),
            Mood::Silent => {
                self.kept_waiting.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
            Mood::Well | Mood::Unreadable(_) | Mood::Blind | Mood::Mute | Mood::Blank => Ok(()),
        }
    }

    /// What somebody gets who asks how far the nodes are.
    async fn looking(&self) -> Result<(), StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Blind => Err(StoreError::Unavailable("reset by 10.1.2.3".to_owned())),
            Mood::Mute => std::future::pending().await,
            _ => self.ready().await,
        }
    }

    fn spoil(&self, listed: &mut [Listed]) {
        for entry in listed {
            if let Listed::Token(token) = entry
                && self.is_unreadable(&token.policy.id)
            {
                *entry = Listed::Unreadable { id: token.policy.id.clone(), why: WHY.to_owned() };
            }
        }
    }

    fn is_unreadable(&self, id: &TokenId) -> bool {
        *self.mood.lock() == Mood::Unreadable(id.clone())
    }
}

#[async_trait]
impl Store for MoodyStore {
    async fn find_token(&self, digest: &TokenDigest) -> Result<Option<Policy>, StoreError> {
        self.ready().await?;
        self.inner.find_token(digest).await
    }

    async fn get_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        self.ready().await?;
        if self.is_unreadable(id) {
            return Err(StoreError::Unreadable { key: format!("token:{id}"), why: WHY.to_owned() });
        }
        self.inner.get_token(account, id).await
    }

    async fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.ready().await?;
        let mut listed = self.inner.list_tokens(account, after, limit).await?;
        self.spoil(&mut listed);
        Ok(listed)
    }

    async fn create_token(&self, policy: &Policy, value: &Token, note: &Note) -> Result<(), StoreError> {
        self.ready().await?;
        self.inner.create_token(policy, value, note).await
    }

    async fn put_policy(&self, policy: &Policy, note: &Note) -> Result<Written, StoreError> {
        self.ready().await?;
        self.inner.put_policy(policy, note).await
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
        self.ready().await?;
        self.inner.rotate_token(account, id, version, value, grace, note).await
    }

    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError> {
        self.ready().await?;
        self.inner.reveal_token(account, id).await
    }

    async fn put_signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        secret: &SigningSecret,
        note: &Note,
    ) -> Result<Written, StoreError> {
        self.ready().await?;
        self.inner.put_signing_secret(account, id, version, secret, note).await
    }

    async fn signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<Option<SigningSecret>, StoreError> {
        self.ready().await?;
        self.inner.signing_secret(account, id).await
    }

    async fn account_secrets(&self, account: &AccountId) -> Result<AccountSecrets, StoreError> {
        self.ready().await?;
        self.inner.account_secrets(account).await
    }

    async fn remember_signatures(
        &self,
        account: &AccountId,
        sightings: &[Sighting],
    ) -> Result<Vec<Remembered>, StoreError> {
        self.ready().await?;
        self.inner.remember_signatures(account, sightings).await
    }

    async fn mark_seen_in_browser(
        &self,
        account: &AccountId,
        id: &TokenId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.inner.mark_seen_in_browser(account, id, at).await
    }

    async fn get_account(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        self.ready().await?;
        self.inner.get_account(id).await
    }

    async fn create_account(
        &self,
        account: &Account,
        first: &Policy,
        value: &Token,
        note: &Note,
    ) -> Result<bool, StoreError> {
        self.inner.create_account(account, first, value, note).await
    }

    async fn put_account(&self, account: &Account, note: &Note) -> Result<Written, StoreError> {
        self.ready().await?;
        self.inner.put_account(account, note).await
    }

    async fn note(&self, account: &AccountId, note: &Note) -> Result<(), StoreError> {
        self.ready().await?;
        if *self.mood.lock() == Mood::Blank {
            return Err(StoreError::Unavailable("reset by 10.1.2.3".to_owned()));
        }
        self.inner.note(account, note).await
    }

    async fn trail(&self, account: &AccountId, asked: &Asked) -> Result<Vec<Traced>, StoreError> {
        self.ready().await?;
        self.inner.trail(account, asked).await
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        self.inner.reserve(reserve).await
    }

    async fn shrink(&self, lease: &LeaseKey, keep: Credits) -> Result<(), StoreError> {
        self.inner.shrink(lease, keep).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        self.inner.settle(settlements).await
    }

    async fn renew(&self, leases: &[LeaseKey], life: Duration) -> Result<Vec<bool>, StoreError> {
        self.inner.renew(leases, life).await
    }

    async fn expire(&self, account: &AccountId) -> Result<u64, StoreError> {
        self.inner.expire(account).await
    }

    async fn recall(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        pool: Pool,
    ) -> Result<(), StoreError> {
        self.inner.recall(account, token, pool).await
    }

    async fn pace(&self, account: &AccountId, token: &TokenId, want: u32) -> Result<Paced, StoreError> {
        self.inner.pace(account, token, want).await
    }

    fn events(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.inner.events()
    }

    async fn epoch(&self, account: &AccountId) -> Result<u64, StoreError> {
        self.looking().await?;
        self.inner.epoch(account).await
    }

    async fn report_node(
        &self,
        account: &AccountId,
        report: &NodeReport,
        life: Duration,
    ) -> Result<(), StoreError> {
        self.inner.report_node(account, report, life).await
    }

    async fn nodes(&self, account: &AccountId) -> Result<Vec<NodeReport>, StoreError> {
        self.asked_for_nodes.fetch_add(1, Ordering::SeqCst);
        self.looking().await?;
        self.inner.nodes(account).await
    }

    async fn count_refusals(
        &self,
        account: &AccountId,
        batch: LeaseId,
        cells: &[RefusalCell],
    ) -> Result<(), StoreError> {
        self.inner.count_refusals(account, batch, cells).await
    }

    async fn usage(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.ready().await?;
        self.inner.usage(account, token, from, to).await
    }

    async fn token_usage(&self, account: &AccountId, id: &TokenId) -> Result<Counted, StoreError> {
        self.ready().await?;
        self.inner.token_usage(account, id).await
    }

    async fn account_usage(&self, account: &AccountId) -> Result<Counted, StoreError> {
        self.ready().await?;
        self.inner.account_usage(account).await
    }

    async fn members(&self, account: &AccountId) -> Result<Vec<Member>, StoreError> {
        self.ready().await?;
        self.inner.members(account).await
    }

    async fn member(&self, account: &AccountId, id: &MemberId) -> Result<Option<Member>, StoreError> {
        self.ready().await?;
        self.inner.member(account, id).await
    }

    async fn create_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        self.ready().await?;
        self.inner.create_member(account, member, note).await
    }

    async fn put_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        self.ready().await?;
        self.inner.put_member(account, member, note).await
    }

    async fn remove_member(
        &self,
        account: &AccountId,
        id: &MemberId,
        version: u64,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        self.ready().await?;
        self.inner.remove_member(account, id, version, note).await
    }

    async fn put_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
        session: &Session,
        life: Duration,
    ) -> Result<(), StoreError> {
        self.ready().await?;
        self.inner.put_session(account, digest, session, life).await
    }

    async fn session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<Option<Session>, StoreError> {
        self.ready().await?;
        self.inner.session(account, digest).await
    }

    async fn end_session(&self, account: &AccountId, digest: &SessionDigest) -> Result<(), StoreError> {
        self.ready().await?;
        self.inner.end_session(account, digest).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ready().await?;
        self.inner.ping().await
    }

    async fn get_tokens(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Listed>, StoreError> {
        self.ready().await?;
        let mut listed = self.inner.get_tokens(account, ids).await?;
        self.spoil(&mut listed);
        Ok(listed)
    }

    async fn list_tokens_behind(
        &self,
        account: &AccountId,
        skip: usize,
        limit: usize,
    ) -> Result<(usize, Vec<Listed>), StoreError> {
        self.ready().await?;
        let (total, mut listed) = self.inner.list_tokens_behind(account, skip, limit).await?;
        self.spoil(&mut listed);
        Ok((total, listed))
    }

    async fn tokens_usage(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Counted>, StoreError> {
        self.ready().await?;
        self.inner.tokens_usage(account, ids).await
    }

    async fn usage_sums(
        &self,
        account: &AccountId,
        grain: Grain,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<UsageSums, StoreError> {
        self.ready().await?;
        self.inner.usage_sums(account, grain, from, to).await
    }
}
