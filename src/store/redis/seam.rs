//! The seam itself: what the gate and the admin API ask, told in Redis's terms.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use redis::{Pipeline, cmd};
use tokio::sync::broadcast;

use super::answers::{self, strange, unreadable};
use super::events::recall_text;
use super::link::Again;
use super::people::MemberWrite;
use super::{Account, RedisStore};
use crate::ledger::lease::Reserved;
use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, Credits, Policy, Pool, Token, TokenDigest, TokenId};
use crate::store::people::{Member, MemberId, MemberWritten, Session, SessionDigest};
use crate::store::record::{
    ACCOUNT_FIELDS, Kept, TOKEN_FIELDS, TokenRecord, account_fields, edited, parse_account, policy_fields,
};
use crate::store::trail::{Asked, Note, Traced};
use crate::store::{
    AccountSecrets, Counted, Event, Grain, LeaseId, LeaseKey, Listed, NodeReport, Paced, RefusalCell,
    Remembered, Reserve, Settlement, Sighting, Store, StoreError, StoredToken, UsageRow, UsageSums, Written,
};

#[async_trait]
impl Store for RedisStore {
    async fn find_token(&self, digest: &TokenDigest) -> Result<Option<Policy>, StoreError> {
        Ok(self.desk.owner(digest).await?.map(|record| record.policy))
    }

    async fn get_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        Ok(self.desk.token(account, id).await?.1.map(TokenRecord::into_stored))
    }

    async fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.desk.list(account, after, limit).await
    }

    async fn create_token(&self, policy: &Policy, value: &Token, note: &Note) -> Result<(), StoreError> {
        let record = TokenRecord::new(self.desk.sealer.as_ref(), policy, value)?;
        self.desk.create(None, &record, note).await.map(drop)
    }

    async fn put_policy(&self, policy: &Policy, note: &Note) -> Result<Written, StoreError> {
        let edits = edited(policy_fields(policy), &TOKEN_FIELDS);
        self.desk.run_put(&policy.account, Some(&policy.id), policy.version, edits, note).await
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
        let kept = Kept::new(self.desk.sealer.as_ref(), id, value)?;
        let (now, record) = self.desk.token(account, id).await?;
        let Some(before) = record else { return Ok(Written::Missing) };
        if before.policy.version != version {
            return Ok(Written::Conflict { version: before.policy.version });
        }
        let mut after = before.clone();
        after.rotate(value, kept, now.checked_add(grace).unwrap_or(Timestamp::MAX), now);
        self.desk.write_rotated(&before, &after, now, note).await
    }

    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError> {
        let Some(record) = self.desk.token(account, id).await?.1 else { return Ok(None) };
        Ok(Some(record.reveal(self.desk.sealer.as_ref())?))
    }

    async fn put_signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        secret: &SigningSecret,
        note: &Note,
    ) -> Result<Written, StoreError> {
        self.desk.run_put_signing_secret(account, id, version, secret, note).await
    }

    async fn signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<Option<SigningSecret>, StoreError> {
        let Some(record) = self.desk.token(account, id).await?.1 else { return Ok(None) };
        Ok(record.signing_secret(self.desk.sealer.as_ref())?)
    }

    async fn account_secrets(&self, account: &AccountId) -> Result<AccountSecrets, StoreError> {
        self.desk.read_account_secrets(account).await
    }

    async fn remember_signatures(
        &self,
        account: &AccountId,
        sightings: &[Sighting],
    ) -> Result<Vec<Remembered>, StoreError> {
        if sightings.is_empty() {
            return Ok(Vec::new());
        }
        self.desk.run_remember(account, sightings).await
    }

    async fn mark_seen_in_browser(
        &self,
        account: &AccountId,
        id: &TokenId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let args = vec!["seen_in_browser_at".to_owned(), at.to_string()];
        self.desk
            .run(&self.desk.scripts.mark, &[self.desk.keys.token(account, id)], args, Again::Yes)
            .await
            .map(drop)
    }

    async fn get_account(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        let key = self.desk.keys.account(id);
        let fields = self.desk.read_one(&key).await?.1;
        let parse = |fields| parse_account(&fields, id).map_err(|problem| unreadable(&key, &problem));
        fields.map(parse).transpose()
    }

    async fn create_account(
        &self,
        account: &Account,
        first: &Policy,
        value: &Token,
        note: &Note,
    ) -> Result<bool, StoreError> {
        let record = TokenRecord::new(self.desk.sealer.as_ref(), first, value)?;
        self.desk.create(Some(account), &record, note).await
    }

    async fn put_account(&self, account: &Account, note: &Note) -> Result<Written, StoreError> {
        let edits = edited(account_fields(account), &ACCOUNT_FIELDS);
        self.desk.run_put(&account.id, None, account.version, edits, note).await
    }

    async fn note(&self, account: &AccountId, note: &Note) -> Result<(), StoreError> {
        let keys = [self.desk.keys.trail(account), self.desk.keys.trail_of(account, &note.target)];
        let args = vec![self.desk.clock_text(), note.to_text()];
        // Noted twice it would look as if it was done twice.
        self.desk.run(&self.desk.scripts.note, &keys, args, Again::No).await.map(drop)
    }

    async fn trail(&self, account: &AccountId, asked: &Asked) -> Result<Vec<Traced>, StoreError> {
        let latest = match asked.before {
            None => "+".to_owned(),
            Some(before) => match before.before() {
                Some(latest) => latest.to_string(),
                None => return Ok(Vec::new()),
            },
        };
        // To Redis, none at most would mean all.
        if asked.limit == 0 {
            return Ok(Vec::new());
        }
        let mut keys = vec![self.desk.keys.trail(account)];
        keys.extend(asked.target.as_ref().map(|target| self.desk.keys.trail_of(account, target)));
        let args = vec![latest, asked.limit.to_string()];
        answers::traced(self.desk.run(&self.desk.scripts.traced, &keys, args, Again::Yes).await?)
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        self.desk.reserve(reserve).await
    }

    async fn shrink(&self, lease: &LeaseKey, keep: Credits) -> Result<(), StoreError> {
        self.desk.run_shrink(lease, keep).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        self.desk.run_settle(settlements).await
    }

    async fn renew(&self, leases: &[LeaseKey], life: Duration) -> Result<Vec<bool>, StoreError> {
        self.desk.run_renew(leases, life).await
    }

    async fn expire(&self, account: &AccountId) -> Result<u64, StoreError> {
        self.desk.run_expire(account).await
    }

    async fn recall(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        pool: Pool,
    ) -> Result<(), StoreError> {
        let mut publish = cmd("PUBLISH");
        publish.arg(self.desk.keys.events(account)).arg(recall_text(token, pool));
        self.desk.ask(publish, Again::Yes).await.map(drop)
    }

    async fn pace(&self, account: &AccountId, token: &TokenId, want: u32) -> Result<Paced, StoreError> {
        self.desk.pace(account, token, want).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.feed.subscribe()
    }

    async fn epoch(&self, account: &AccountId) -> Result<u64, StoreError> {
        let mut get = cmd("GET");
        let key = self.desk.keys.epoch(account);
        get.arg(&key);
        let answer =
            self.desk.link.ask(get, Again::Yes).await.map_err(|failure| failure.into_store_error(&key))?;
        answers::number(answer, "GET")
    }

    async fn report_node(
        &self,
        account: &AccountId,
        report: &NodeReport,
        life: Duration,
    ) -> Result<(), StoreError> {
        let args = vec![
            self.desk.clock_text(),
            report.node.0.to_string(),
            report.epoch.to_string(),
            report.leased.to_string(),
            life.as_micros().to_string(),
            report.name.clone(),
        ];
        self.desk
            .run(&self.desk.scripts.nodes, &[self.desk.keys.nodes(account)], args, Again::Yes)
            .await
            .map(drop)
    }

    async fn nodes(&self, account: &AccountId) -> Result<Vec<NodeReport>, StoreError> {
        let key = self.desk.keys.nodes(account);
        let args = vec![self.desk.clock_text()];
        let answer =
            self.desk.run(&self.desk.scripts.nodes, std::slice::from_ref(&key), args, Again::Yes).await?;
        answers::nodes(answer, &key)
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
        self.desk.run_count_refusals(account, batch, cells).await
    }

    async fn usage(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.desk.read_usage(account, token, from, to).await
    }

    async fn token_usage(&self, account: &AccountId, id: &TokenId) -> Result<Counted, StoreError> {
        let counted = self.desk.counted_of(account, std::slice::from_ref(id)).await?;
        counted.into_iter().next().ok_or_else(|| strange("HGETALL"))
    }

    async fn account_usage(&self, account: &AccountId) -> Result<Counted, StoreError> {
        self.desk.counted(|pool| self.desk.keys.used_by_account(account, pool)).await
    }

    async fn members(&self, account: &AccountId) -> Result<Vec<Member>, StoreError> {
        self.desk.read_members(account).await
    }

    async fn member(&self, account: &AccountId, id: &MemberId) -> Result<Option<Member>, StoreError> {
        self.desk.read_member(account, id).await
    }

    async fn create_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let write = MemberWrite { id: &member.id, built_on: None, member: Some(member) };
        self.desk.write_member(account, write, note).await
    }

    async fn put_member(
        &self,
        account: &AccountId,
        member: &Member,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let write = MemberWrite { id: &member.id, built_on: Some(member.version), member: Some(member) };
        self.desk.write_member(account, write, note).await
    }

    async fn remove_member(
        &self,
        account: &AccountId,
        id: &MemberId,
        version: u64,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let write = MemberWrite { id, built_on: Some(version), member: None };
        self.desk.write_member(account, write, note).await
    }

    async fn put_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
        session: &Session,
        life: Duration,
    ) -> Result<(), StoreError> {
        self.desk.write_session(account, digest, session, life).await
    }

    async fn session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<Option<Session>, StoreError> {
        self.desk.read_session(account, digest).await
    }

    async fn end_session(&self, account: &AccountId, digest: &SessionDigest) -> Result<(), StoreError> {
        self.desk.drop_session(account, digest).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.desk.ask(cmd("PING"), Again::Yes).await.map(drop)
    }

    async fn get_tokens(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Listed>, StoreError> {
        Ok(self.desk.listed(account, ids).await?.into_iter().flatten().collect())
    }

    async fn list_tokens_behind(
        &self,
        account: &AccountId,
        skip: usize,
        limit: usize,
    ) -> Result<(usize, Vec<Listed>), StoreError> {
        let key = self.desk.keys.tokens(account);
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ZCARD").arg(&key);
        pipeline.cmd("ZRANGEBYLEX").arg(&key).arg("-").arg("+");
        // All scores are one, so what is skipped costs no more than a step down the list.
        let skip = i64::try_from(skip).unwrap_or(i64::MAX);
        pipeline.arg("LIMIT").arg(skip).arg(limit);
        let answers = self.desk.ask_all(&mut pipeline, &[key.clone(), key]).await?;
        let [total, ids] = <[_; 2]>::try_from(answers).map_err(|_| strange("ZCARD"))?;
        let total = usize::try_from(answers::number(total, "ZCARD")?).unwrap_or(usize::MAX);
        Ok((total, self.desk.listed_all(account, &answers::texts(ids, "ZRANGEBYLEX")?).await?))
    }

    async fn tokens_usage(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Counted>, StoreError> {
        self.desk.counted_of(account, ids).await
    }

    async fn usage_sums(
        &self,
        account: &AccountId,
        grain: Grain,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<UsageSums, StoreError> {
        self.desk.read_sums(account, grain, from, to).await
    }
}
