//! The steps of a write: each reads, decides, and only then writes, so a step that ends with an answer of its own has
//! changed nothing. Many share one transaction, one behind the other.

use std::time::Duration;

use jiff::Timestamp;
use redb::{ReadableTable, Table, WriteTransaction};

use super::super::keys::pointer_text;
use super::super::record::{Fields, Kept, TokenRecord, account_fields, edited, token_name};
use super::super::trail::Note;
use super::super::{Event, StoreError, Written, record};
use super::tables::{
    ACCOUNTS, BATCHES, CELLS, COUNTERS, CellKey, DAYS, DIGESTS, EPOCHS, EXPIRIES, FORGETS, LEASES, MEMBERS,
    PACE, REFUSALS, Row, SESSION_ENDS, SESSIONS, SessionEnd, SessionKey, SessionValue, Stopped, TOKENS,
    TRAIL, TRAIL_OF, TrailKey, TrailOfKey, TrailValue, fields_text, read_fields, read_token, unreadable,
};
use crate::policy::record::Account;
use crate::policy::{AccountId, Policy, Token, TokenDigest, TokenId};

mod leases;
mod people;
mod trail;
mod usage;

/// The tables of a transaction, to be changed.
pub(super) struct Tables<'txn> {
    accounts: Table<'txn, &'static str, &'static str>,
    tokens: Table<'txn, &'static str, &'static str>,
    digests: Table<'txn, &'static str, &'static str>,
    counters: Table<'txn, &'static str, Row>,
    pace: Table<'txn, &'static str, i64>,
    leases: Table<'txn, u128, &'static str>,
    expiries: Table<'txn, (&'static str, i64, u128), ()>,
    forgets: Table<'txn, (i64, u128), ()>,
    epochs: Table<'txn, &'static str, u64>,
    cells: Table<'txn, CellKey, [u64; 3]>,
    refusals: Table<'txn, CellKey, u64>,
    days: Table<'txn, (i64, &'static str, &'static str), ()>,
    batches: Table<'txn, u128, i64>,
    trail: Table<'txn, TrailKey, TrailValue>,
    trail_of: Table<'txn, TrailOfKey, ()>,
    members: Table<'txn, &'static str, &'static str>,
    sessions: Table<'txn, SessionKey, SessionValue>,
    session_ends: Table<'txn, SessionEnd, ()>,
    /// What happened; told once it is on the disk.
    pub(super) events: Vec<Event>,
}

/// A new value for a token.
pub(super) struct Rotation {
    pub(super) account: AccountId,
    pub(super) id: TokenId,
    pub(super) version: u64,
    pub(super) value: Token,
    pub(super) kept: Kept,
    pub(super) grace: Duration,
    pub(super) note: Note,
}

fn taken_already(what: &str) -> Stopped {
    StoreError::Unavailable(format!("{what} belongs to another token already; make a new one")).into()
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Stopped> {
        Ok(Self {
            accounts: transaction.open_table(ACCOUNTS)?,
            tokens: transaction.open_table(TOKENS)?,
            digests: transaction.open_table(DIGESTS)?,
            counters: transaction.open_table(COUNTERS)?,
            pace: transaction.open_table(PACE)?,
            leases: transaction.open_table(LEASES)?,
            expiries: transaction.open_table(EXPIRIES)?,
            forgets: transaction.open_table(FORGETS)?,
            epochs: transaction.open_table(EPOCHS)?,
            cells: transaction.open_table(CELLS)?,
            refusals: transaction.open_table(REFUSALS)?,
            days: transaction.open_table(DAYS)?,
            batches: transaction.open_table(BATCHES)?,
            trail: transaction.open_table(TRAIL)?,
            trail_of: transaction.open_table(TRAIL_OF)?,
            members: transaction.open_table(MEMBERS)?,
            sessions: transaction.open_table(SESSIONS)?,
            session_ends: transaction.open_table(SESSION_ENDS)?,
            events: Vec::new(),
        })
    }

    /// Moves an account's epoch on: something was changed in this step.
    fn next_epoch(&mut self, account: &AccountId) -> Result<u64, Stopped> {
        let epoch = self.epochs.get(account.as_str())?.map_or(0, |epoch| epoch.value()) + 1;
        self.epochs.insert(account.as_str(), epoch)?;
        Ok(epoch)
    }

    fn token_changed(&mut self, account: &AccountId, token: &TokenId, version: u64) -> Result<(), Stopped> {
        let epoch = self.next_epoch(account)?;
        self.events.push(Event::Policy { token: token.clone(), version, epoch });
        Ok(())
    }

    fn account_changed(&mut self, account: &AccountId) -> Result<(), Stopped> {
        let epoch = self.next_epoch(account)?;
        self.events.push(Event::Account { epoch });
        Ok(())
    }

    fn token(&self, account: &AccountId, id: &TokenId) -> Result<Option<TokenRecord>, Stopped> {
        read_token(&self.tokens, account, id)
    }

    /// Whether a digest is free for a token: nobody's, or already that token's own.
    fn digest_is_free(
        &self,
        digest: &TokenDigest,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<bool, Stopped> {
        let pointer = self.digests.get(digest.to_hex().as_str())?;
        Ok(pointer.is_none_or(|pointer| pointer.value() == pointer_text(account, id)))
    }

    fn keep_token(&mut self, token: &TokenRecord) -> Result<(), Stopped> {
        let (account, id) = (&token.policy.account, &token.policy.id);
        self.tokens.insert(token_name(account, id).as_str(), fields_text(&token.to_fields()).as_str())?;
        self.digests.insert(token.digest.to_hex().as_str(), pointer_text(account, id).as_str())?;
        self.token_changed(account, id, token.policy.version)
    }

    pub(super) fn create_token(
        &mut self,
        token: &TokenRecord,
        note: &Note,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let (account, id) = (&token.policy.account, &token.policy.id);
        if let Some(stored) = self.token(account, id)? {
            // The same call again, perhaps because its answer was lost.
            return if stored.digest == token.digest { Ok(()) } else { Err(taken_already("the id")) };
        }
        if !self.digest_is_free(&token.digest, account, id)? {
            return Err(taken_already("the value"));
        }
        self.note(account, note, now)?;
        self.keep_token(token)
    }

    pub(super) fn put_policy(
        &mut self,
        policy: &Policy,
        note: &Note,
        now: Timestamp,
    ) -> Result<Written, Stopped> {
        let name = token_name(&policy.account, &policy.id);
        let stored = read_fields(&self.tokens, &name)?;
        let edits = edited(record::policy_fields(policy), &record::TOKEN_FIELDS);
        let (text, version) = match put(&name, stored, edits, policy.version)? {
            Ok(done) => done,
            Err(undone) => return Ok(undone),
        };
        self.note(&policy.account, note, now)?;
        self.tokens.insert(name.as_str(), text.as_str())?;
        self.token_changed(&policy.account, &policy.id, version)?;
        Ok(Written::Done { version })
    }

    pub(super) fn put_account(
        &mut self,
        account: &Account,
        note: &Note,
        now: Timestamp,
    ) -> Result<Written, Stopped> {
        let name = account.id.as_str();
        let stored = read_fields(&self.accounts, name)?;
        let edits = edited(account_fields(account), &record::ACCOUNT_FIELDS);
        let (text, version) = match put(name, stored, edits, account.version)? {
            Ok(done) => done,
            Err(undone) => return Ok(undone),
        };
        self.note(&account.id, note, now)?;
        self.accounts.insert(name, text.as_str())?;
        self.account_changed(&account.id)?;
        Ok(Written::Done { version })
    }

    pub(super) fn rotate_token(&mut self, rotation: Rotation, now: Timestamp) -> Result<Written, Stopped> {
        let Rotation { account, id, version, value, kept, grace, note } = rotation;
        let Some(mut token) = self.token(&account, &id)? else { return Ok(Written::Missing) };
        if token.policy.version != version {
            return Ok(Written::Conflict { version: token.policy.version });
        }
        if !self.digest_is_free(&value.digest(), &account, &id)? {
            return Err(taken_already("the value"));
        }
        let former: Vec<_> = token.former.iter().map(|former| former.digest).chain([token.digest]).collect();
        let until = now.checked_add(grace).unwrap_or(Timestamp::MAX);
        token.rotate(&value, kept, until, now);
        self.note(&account, &note, now)?;
        self.keep_token(&token)?;
        for digest in former.iter().filter(|digest| !token.answers_to(digest, now)) {
            self.digests.remove(digest.to_hex().as_str())?;
        }
        Ok(Written::Done { version: token.policy.version })
    }

    pub(super) fn put_signing(
        &mut self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        sealed: String,
        note: &Note,
        now: Timestamp,
    ) -> Result<Written, Stopped> {
        let name = token_name(account, id);
        let stored = read_fields(&self.tokens, &name)?;
        let edits = Fields::from([("signing".to_owned(), sealed)]);
        let (text, version) = match put(&name, stored, edits, version)? {
            Ok(done) => done,
            Err(undone) => return Ok(undone),
        };
        self.note(account, note, now)?;
        self.tokens.insert(name.as_str(), text.as_str())?;
        self.token_changed(account, id, version)?;
        Ok(Written::Done { version })
    }

    pub(super) fn mark_seen_in_browser(&mut self, name: &str, at: Timestamp) -> Result<(), Stopped> {
        let Some(mut fields) = read_fields(&self.tokens, name)? else { return Ok(()) };
        match fields.get_mut("seen_in_browser_at") {
            Some(seen) if seen.is_empty() => *seen = at.to_string(),
            _ => return Ok(()),
        }
        self.tokens.insert(name, fields_text(&fields).as_str())?;
        Ok(())
    }

    pub(super) fn create_account(
        &mut self,
        account: &Account,
        first: &TokenRecord,
        note: &Note,
        now: Timestamp,
    ) -> Result<bool, Stopped> {
        if read_fields(&self.accounts, account.id.as_str())?.is_some() {
            return Ok(false);
        }
        self.create_token(first, note, now)?;
        self.accounts.insert(account.id.as_str(), fields_text(&account_fields(account)).as_str())?;
        self.account_changed(&account.id)?;
        Ok(true)
    }
}

/// Puts edits into a record's fields, if `version` is the stored version: the record's new text and version, or why not.
fn put(
    name: &str,
    stored: Option<Fields>,
    edits: Fields,
    version: u64,
) -> Result<Result<(String, u64), Written>, Stopped> {
    let Some(mut fields) = stored else { return Ok(Err(Written::Missing)) };
    let found = fields.get("version").and_then(|text| text.parse().ok());
    let found: u64 = found.ok_or_else(|| unreadable(name, &"`version` is not a number"))?;
    if found != version {
        return Ok(Err(Written::Conflict { version: found }));
    }
    fields.extend(edits);
    fields.insert("version".to_owned(), (version + 1).to_string());
    Ok(Ok((fields_text(&fields), version + 1)))
}
