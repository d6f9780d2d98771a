//! The seam itself: what the gate and the admin API ask, told in Redis's terms.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use redis::cmd;

use super::answers::{self, unreadable};
use super::link::{Again, Failure};
use super::{Account, RedisStore, drawn_on};
use crate::ledger::{Counter, Taken};
use crate::policy::{AccountId, PerPool, Policy, Token, TokenDigest, TokenId};
use crate::store::record::{
    ACCOUNT_FIELDS, Kept, TOKEN_FIELDS, TokenRecord, account_fields, budget_field, edited, limit_field,
    parse_account, policy_fields,
};
use crate::store::{Charge, LEASE_LIFE, Listed, Settlement, Store, StoreError, StoredToken, Written};

#[async_trait]
impl Store for RedisStore {
    async fn find_token(&self, digest: &TokenDigest) -> Result<Option<Policy>, StoreError> {
        Ok(self.owner(digest).await?.map(|record| record.policy))
    }

    async fn get_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        Ok(self.token(account, id).await?.1.map(TokenRecord::into_stored))
    }

    async fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let key = self.keys.tokens(account);
        let mut range = cmd("ZRANGEBYLEX");
        range.arg(&key).arg(after.map_or("-".to_owned(), |id| format!("({id}"))).arg("+");
        range.arg("LIMIT").arg(0).arg(limit.to_string());
        let answer =
            self.link.ask(range, Again::Yes).await.map_err(|failure| failure.into_store_error(&key))?;
        let ids = answers::texts(answer, "ZRANGEBYLEX")?;
        let ids: Vec<TokenId> = ids.iter().filter_map(|id| TokenId::parse(id)).collect();
        let keys: Vec<_> = ids.iter().map(|id| self.keys.token(account, id)).collect();
        let (_, records) = self.read(&keys).await?;
        let mut listed = Vec::with_capacity(ids.len());
        for ((id, key), answer) in ids.into_iter().zip(&keys).zip(records) {
            let answer = answer.map_err(|error| Failure::from(error).into_store_error(key));
            let fields = answer.and_then(|answer| answers::fields(answer, key));
            let record = match fields {
                Ok(fields) => TokenRecord::parse(&fields.unwrap_or_default(), account, &id),
                Err(StoreError::Unreadable { why, .. }) => {
                    listed.push(Listed::Unreadable { id, why });
                    continue;
                }
                Err(error) => return Err(error),
            };
            listed.push(match record {
                Ok(record) => Listed::Token(Box::new(record.into_stored())),
                Err(problem) => Listed::Unreadable { id, why: problem.to_string() },
            });
        }
        Ok(listed)
    }

    async fn create_token(&self, policy: &Policy, value: &Token) -> Result<(), StoreError> {
        let record = TokenRecord::new(self.sealer.as_ref(), policy, value)?;
        self.create(None, &record).await.map(drop)
    }

    async fn put_policy(&self, policy: &Policy) -> Result<Written, StoreError> {
        let edits = edited(policy_fields(policy), &TOKEN_FIELDS);
        self.run_put(&self.keys.token(&policy.account, &policy.id), policy.version, edits).await
    }

    async fn rotate_token(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        value: &Token,
        grace: Duration,
    ) -> Result<Written, StoreError> {
        let kept = Kept::new(self.sealer.as_ref(), id, value)?;
        let (now, record) = self.token(account, id).await?;
        let Some(before) = record else { return Ok(Written::Missing) };
        if before.policy.version != version {
            return Ok(Written::Conflict { version: before.policy.version });
        }
        let mut after = before.clone();
        after.rotate(value, kept, now.checked_add(grace).unwrap_or(Timestamp::MAX), now);
        self.write_rotated(&before, &after, now).await
    }

    async fn reveal_token(&self, account: &AccountId, id: &TokenId) -> Result<Option<Token>, StoreError> {
        let Some(record) = self.token(account, id).await?.1 else { return Ok(None) };
        Ok(Some(record.reveal(self.sealer.as_ref())?))
    }

    async fn mark_seen_in_browser(
        &self,
        account: &AccountId,
        id: &TokenId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let args = vec!["seen_in_browser_at".to_owned(), at.to_string()];
        self.run(&self.scripts.mark, &[self.keys.token(account, id)], args, Again::Yes).await.map(drop)
    }

    async fn get_account(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        let key = self.keys.account(id);
        let fields = self.read_one(&key).await?.1;
        let parse = |fields| parse_account(&fields, id).map_err(|problem| unreadable(&key, &problem));
        fields.map(parse).transpose()
    }

    async fn create_account(
        &self,
        account: &Account,
        first: &Policy,
        value: &Token,
    ) -> Result<bool, StoreError> {
        let record = TokenRecord::new(self.sealer.as_ref(), first, value)?;
        self.create(Some(account), &record).await
    }

    async fn put_account(&self, account: &Account) -> Result<Written, StoreError> {
        let edits = edited(account_fields(account), &ACCOUNT_FIELDS);
        self.run_put(&self.keys.account(&account.id), account.version, edits).await
    }

    async fn take(&self, charge: &Charge) -> Result<Taken, StoreError> {
        let (account, token, pool) = (&charge.account, &charge.token, charge.pool);
        let keys = [
            self.keys.token(account, token),
            self.keys.account(account),
            self.keys.used_by_token(account, token, pool),
            self.keys.used_by_account(account, pool),
            self.keys.pace(account, token),
            self.keys.lease(account, charge.lease),
        ];
        let args = vec![
            limit_field(pool).to_owned(),
            budget_field(pool).to_owned(),
            charge.cost.to_string(),
            drawn_on(charge),
            LEASE_LIFE.as_millis().to_string(),
            self.clock_text(),
        ];
        answers::taken(self.run(&self.scripts.take, &keys, args, Again::Yes).await?)
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        let script = &self.scripts.settle;
        let call = |settlement: &Settlement| {
            let Settlement { charge, spent } = settlement;
            let (account, pool) = (&charge.account, charge.pool);
            let keys = [
                self.keys.lease(account, charge.lease),
                self.keys.used_by_token(account, &charge.token, pool),
                self.keys.used_by_account(account, pool),
            ];
            let life = LEASE_LIFE.as_millis().to_string();
            script.call(&keys, [drawn_on(charge), spent.to_string(), life, self.clock_text()])
        };
        let calls = settlements.iter().map(call).collect();
        let answers = self.link.run(script, calls, Again::Yes).await;
        let answers = answers.map_err(|failure| failure.into_store_error("of a lease or a counter"))?;
        answers.into_iter().try_for_each(answers::settled)
    }

    async fn token_usage(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<(PerPool<Counter>, Timestamp), StoreError> {
        self.usage(|pool| self.keys.used_by_token(account, id, pool)).await
    }

    async fn account_usage(&self, account: &AccountId) -> Result<(PerPool<Counter>, Timestamp), StoreError> {
        self.usage(|pool| self.keys.used_by_account(account, pool)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask(cmd("PING"), Again::Yes).await.map(drop)
    }
}
