//! Pointers from digests to records, and the steps that need one.

use jiff::Timestamp;
use redis::{FromRedisValue, Value, cmd};

use super::answers::{self, strange, unreadable};
use super::link::Again;
use super::{Account, Desk, flat};
use crate::policy::{AccountId, TokenDigest, TokenId};
use crate::store::keys::{parse_pointer, pointer_text};
use crate::store::record::{Fields, TokenRecord, account_fields, value_fields};
use crate::store::trail::Note;
use crate::store::{StoreError, Written};

/// What `create.lua` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Created {
    /// It made the records.
    Done,
    /// They are there, made by the same call before.
    Again,
    /// The token's id is another token's.
    TokenExists,
    /// The account is there.
    AccountExists,
}

fn taken_already(what: &str) -> StoreError {
    StoreError::Unavailable(format!("{what} belongs to another token already; make a new one"))
}

impl Desk {
    /// Whose value has this digest, as its pointer says.
    pub(super) async fn follow(
        &self,
        digest: &TokenDigest,
    ) -> Result<Option<(AccountId, TokenId)>, StoreError> {
        let mut get = cmd("GET");
        get.arg(self.keys.pointer(digest));
        let answer = self.ask(get, Again::Yes).await?;
        let text = Option::<Vec<u8>>::from_redis_value(answer).map_err(|_| strange("GET"))?;
        let Some(text) = text else { return Ok(None) };
        let whose = std::str::from_utf8(&text).ok().and_then(parse_pointer);
        whose.map(Some).ok_or_else(|| unreadable("of a digest", &"the pointer names no token"))
    }

    /// The token that answers to this digest.
    pub(super) async fn owner(&self, digest: &TokenDigest) -> Result<Option<TokenRecord>, StoreError> {
        let Some((account, id)) = self.follow(digest).await? else { return Ok(None) };
        let (now, record) = self.token(&account, &id).await?;
        Ok(record.filter(|record| record.answers_to(digest, now)))
    }

    async fn set_pointer(
        &self,
        digest: &TokenDigest,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<(), StoreError> {
        let mut set = cmd("SET");
        set.arg(self.keys.pointer(digest)).arg(pointer_text(account, id));
        self.ask(set, Again::Yes).await.map(drop)
    }

    /// Points from a digest to a token before its record says so. `true`: the pointer was free. `false`: there is one,
    /// which leads nowhere; it must be set again once the record is made. One that leads to another token is an error.
    async fn claim(
        &self,
        digest: &TokenDigest,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<bool, StoreError> {
        let mut set = cmd("SET");
        set.arg(self.keys.pointer(digest)).arg(pointer_text(account, id)).arg("NX");
        if self.ask(set, Again::Yes).await? != Value::Nil {
            return Ok(true);
        }
        match self.owner(digest).await? {
            Some(record) if record.policy.account != *account || record.policy.id != *id => {
                Err(taken_already("the value"))
            }
            _ => Ok(false),
        }
    }

    /// Takes a claim back. If that fails, the pointer stays and leads nowhere: no reason to report anything.
    async fn unclaim(&self, digest: &TokenDigest, account: &AccountId, id: &TokenId) {
        let text = vec![pointer_text(account, id)];
        let _ = self.run(&self.scripts.unclaim, &[self.keys.pointer(digest)], text, Again::Yes).await;
    }

    async fn run_create(
        &self,
        account: Option<&Account>,
        token: &TokenRecord,
        note: &Note,
    ) -> Result<Created, StoreError> {
        let policy = &token.policy;
        let mut keys = vec![
            self.keys.token(&policy.account, &policy.id),
            self.keys.tokens(&policy.account),
            self.keys.epoch(&policy.account),
            self.keys.secrets(&policy.account),
            self.keys.trail(&policy.account),
            self.keys.trail_of(&policy.account, &note.target),
        ];
        keys.extend(account.map(|account| self.keys.account(&account.id)));
        let of_account: Vec<_> = account.map(account_fields).map(flat).into_iter().flatten().collect();
        let mut args = vec![
            policy.id.to_string(),
            token.digest.to_hex(),
            policy.version.to_string(),
            self.keys.events(&policy.account),
            policy.kind.as_str().to_owned(),
            self.clock_text(),
            note.to_text(),
            of_account.len().to_string(),
        ];
        args.extend(of_account);
        args.extend(flat(token.to_fields()));
        // Of a lost answer one cannot say whether it made the account; a second try would say that it did not.
        let again = if account.is_some() { Again::No } else { Again::Yes };
        let answer = self.run(&self.scripts.create, &keys, args, again).await?;
        match String::from_redis_value(answer).map_err(|_| strange("create.lua"))?.as_str() {
            "created" => Ok(Created::Done),
            "again" => Ok(Created::Again),
            "exists" => Ok(Created::TokenExists),
            "account" => Ok(Created::AccountExists),
            _ => Err(strange("create.lua")),
        }
    }

    /// Makes a token, and its account before it where one is given; `false`: the account exists.
    pub(super) async fn create(
        &self,
        account: Option<&Account>,
        token: &TokenRecord,
        note: &Note,
    ) -> Result<bool, StoreError> {
        let policy = &token.policy;
        let claimed = match self.claim(&token.digest, &policy.account, &policy.id).await {
            Err(_) if account.is_some() && self.account_exists(&policy.account).await? => return Ok(false),
            claimed => claimed?,
        };
        // If this fails, it may have happened nevertheless: the pointer stays.
        let created = self.run_create(account, token, note).await?;
        match created {
            Created::Done | Created::Again => {
                if !claimed {
                    self.set_pointer(&token.digest, &policy.account, &policy.id).await?;
                }
                Ok(true)
            }
            Created::TokenExists | Created::AccountExists => {
                if claimed {
                    self.unclaim(&token.digest, &policy.account, &policy.id).await;
                }
                if created == Created::AccountExists { Ok(false) } else { Err(taken_already("the id")) }
            }
        }
    }

    async fn account_exists(&self, account: &AccountId) -> Result<bool, StoreError> {
        Ok(self.read_one(&self.keys.account(account)).await?.1.is_some())
    }

    /// Writes a rotated record. The new pointer comes before it, the old one's end behind it.
    pub(super) async fn write_rotated(
        &self,
        before: &TokenRecord,
        after: &TokenRecord,
        now: Timestamp,
        note: &Note,
    ) -> Result<Written, StoreError> {
        let (account, id) = (&after.policy.account, &after.policy.id);
        let claimed = self.claim(&after.digest, account, id).await?;
        let mut fields = value_fields(after);
        fields.insert("seen_in_browser_at".to_owned(), String::new());
        let written = self.run_put(account, Some(id), before.policy.version, fields, note).await?;
        if !matches!(written, Written::Done { .. }) {
            if claimed {
                self.unclaim(&after.digest, account, id).await;
            }
            return Ok(written);
        }
        if !claimed {
            self.set_pointer(&after.digest, account, id).await?;
        }
        self.end_former(before, after, now).await;
        Ok(written)
    }

    /// Gives the pointers of former values an end. The record has the last word on them, so one that stays for want
    /// of an answer is only litter.
    async fn end_former(&self, before: &TokenRecord, after: &TokenRecord, now: Timestamp) {
        let former = before.former.iter().map(|former| former.digest).chain([before.digest]);
        for digest in former.filter(|digest| *digest != after.digest) {
            let grace = after.former.iter().find(|former| former.digest == digest);
            let left =
                grace.map(|former| former.until.duration_since(now).as_millis()).filter(|left| *left > 0);
            let mut end = cmd(if left.is_some() { "PEXPIRE" } else { "DEL" });
            end.arg(self.keys.pointer(&digest));
            if let Some(left) = left {
                end.arg(left.to_string());
            }
            if let Err(error) = self.ask(end, Again::Yes).await {
                tracing::warn!(%error, token = %after.policy.id, "a former value's pointer stays; it leads nowhere");
            }
        }
    }

    /// Writes fields of a token's record that has this version; without a token, of the account's record.
    pub(super) async fn run_put(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        version: u64,
        edits: Fields,
        note: &Note,
    ) -> Result<Written, StoreError> {
        let record =
            token.map_or_else(|| self.keys.account(account), |token| self.keys.token(account, token));
        let what = token.map(ToString::to_string).unwrap_or_default();
        let mut args =
            vec![version.to_string(), self.keys.events(account), what, self.clock_text(), note.to_text()];
        args.extend(flat(edits));
        let trail = [self.keys.trail(account), self.keys.trail_of(account, &note.target)];
        let keys = [&[record, self.keys.epoch(account)], trail.as_slice()].concat();
        answers::written(self.run(&self.scripts.put, &keys, args, Again::No).await?)
    }
}
