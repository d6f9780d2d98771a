//! The steps of a write: each reads, decides, and only then writes, so a step that ends with an answer of its own has
//! changed nothing. Many share one transaction, one behind the other.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::{ReadableTable, Table, WriteTransaction};

use super::super::keys::{parse_pointer, pointer_text};
use super::super::record::{
    Fields, Kept, TokenRecord, account_fields, edited, parse_budget, parse_terms, token_name,
};
use super::super::{StoreError, record};
use super::tables::{
    ACCOUNTS, DIGESTS, LEASES, Lease, PACE, Stopped, TOKENS, USED, counter_row, fields_text, read_counter,
    read_fields, unreadable, used_by_account, used_by_token,
};
use super::{Charge, Settlement, Written, lease_key};
use crate::ledger::{Books, Cell, Taken, Terms, take};
use crate::policy::record::Account;
use crate::policy::{AccountId, Credits, Token, TokenDigest, TokenId};

/// The tables of a transaction, to be changed.
pub(super) struct Tables<'txn> {
    accounts: Table<'txn, &'static str, &'static str>,
    tokens: Table<'txn, &'static str, &'static str>,
    digests: Table<'txn, &'static str, &'static str>,
    used: Table<'txn, &'static str, [i64; 8]>,
    pace: Table<'txn, &'static str, i64>,
    leases: Table<'txn, u128, &'static str>,
}

/// A new value for a token.
pub(super) struct Rotation {
    pub(super) account: AccountId,
    pub(super) id: TokenId,
    pub(super) version: u64,
    pub(super) value: Token,
    pub(super) kept: Kept,
    pub(super) grace: Duration,
}

/// How long things are kept that say nothing any more.
const SWEEP_MARGIN: SignedDuration = SignedDuration::from_hours(1);

fn taken_already(what: &str) -> Stopped {
    StoreError::Unavailable(format!("{what} belongs to another token already; make a new one")).into()
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Stopped> {
        Ok(Self {
            accounts: transaction.open_table(ACCOUNTS)?,
            tokens: transaction.open_table(TOKENS)?,
            digests: transaction.open_table(DIGESTS)?,
            used: transaction.open_table(USED)?,
            pace: transaction.open_table(PACE)?,
            leases: transaction.open_table(LEASES)?,
        })
    }

    fn token(&self, account: &AccountId, id: &TokenId) -> Result<Option<TokenRecord>, Stopped> {
        let name = token_name(account, id);
        let Some(fields) = read_fields(&self.tokens, &name)? else { return Ok(None) };
        let record = TokenRecord::parse(&fields, account, id);
        record.map(Some).map_err(|problem| unreadable(&name, &problem).into())
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
        Ok(())
    }

    pub(super) fn create_token(&mut self, token: &TokenRecord) -> Result<(), Stopped> {
        let (account, id) = (&token.policy.account, &token.policy.id);
        if let Some(stored) = self.token(account, id)? {
            // The same call again, perhaps because its answer was lost.
            return if stored.digest == token.digest { Ok(()) } else { Err(taken_already("the id")) };
        }
        if !self.digest_is_free(&token.digest, account, id)? {
            return Err(taken_already("the value"));
        }
        self.keep_token(token)
    }

    pub(super) fn put_token(&mut self, name: &str, edits: Fields, version: u64) -> Result<Written, Stopped> {
        let stored = read_fields(&self.tokens, name)?;
        let (text, written) = match put(name, stored, edits, version)? {
            Ok(done) => done,
            Err(undone) => return Ok(undone),
        };
        self.tokens.insert(name, text.as_str())?;
        Ok(written)
    }

    pub(super) fn put_account(&mut self, account: &Account) -> Result<Written, Stopped> {
        let name = account.id.as_str();
        let stored = read_fields(&self.accounts, name)?;
        let edits = edited(account_fields(account), &record::ACCOUNT_FIELDS);
        let (text, written) = match put(name, stored, edits, account.version)? {
            Ok(done) => done,
            Err(undone) => return Ok(undone),
        };
        self.accounts.insert(name, text.as_str())?;
        Ok(written)
    }

    pub(super) fn rotate_token(&mut self, rotation: Rotation, now: Timestamp) -> Result<Written, Stopped> {
        let Rotation { account, id, version, value, kept, grace } = rotation;
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
        self.keep_token(&token)?;
        for digest in former.iter().filter(|digest| !token.answers_to(digest, now)) {
            self.digests.remove(digest.to_hex().as_str())?;
        }
        Ok(Written::Done { version: token.policy.version })
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

    pub(super) fn create_account(&mut self, account: &Account, first: &TokenRecord) -> Result<bool, Stopped> {
        if read_fields(&self.accounts, account.id.as_str())?.is_some() {
            return Ok(false);
        }
        self.create_token(first)?;
        self.accounts.insert(account.id.as_str(), fields_text(&account_fields(account)).as_str())?;
        Ok(true)
    }

    pub(super) fn take(&mut self, charge: &Charge, now: Timestamp) -> Result<Taken, Stopped> {
        if let Some(lease) = self.lease(charge, now)? {
            let answer = lease.answer();
            return answer.ok_or_else(|| unreadable("of a lease", &"it is not of its form").into());
        }
        let terms = self.terms(charge)?;
        let by_token = used_by_token(&charge.account, &charge.token, charge.pool);
        let by_account = used_by_account(&charge.account, charge.pool);
        let pace = token_name(&charge.account, &charge.token);
        let before = Books {
            token: read_counter(&self.used, &by_token)?,
            account: read_counter(&self.used, &by_account)?,
            cell: Cell(self.pace.get(pace.as_str())?.map_or(0, |cell| cell.value())),
        };
        let mut books = before;
        let taken = take(&mut books, &terms, charge.cost, now);
        if let Taken::Granted(standing) = &taken {
            self.used.insert(by_token.as_str(), counter_row(&books.token))?;
            self.used.insert(by_account.as_str(), counter_row(&books.account))?;
            if books.cell != before.cell {
                self.pace.insert(pace.as_str(), books.cell.0)?;
            }
            self.leases.insert(lease_key(charge.lease), Lease::new(charge, standing).to_text().as_str())?;
        }
        Ok(taken)
    }

    fn terms(&self, charge: &Charge) -> Result<Terms, Stopped> {
        let name = token_name(&charge.account, &charge.token);
        let token = read_fields(&self.tokens, &name)?.ok_or_else(|| unreadable(&name, &"there is none"))?;
        let (limit, rate) =
            parse_terms(&token, charge.pool).map_err(|problem| unreadable(&name, &problem))?;
        let name = charge.account.as_str();
        let account = read_fields(&self.accounts, name)?.ok_or_else(|| unreadable(name, &"there is none"))?;
        let budget = parse_budget(&account, charge.pool).map_err(|problem| unreadable(name, &problem))?;
        Ok(Terms { limit, budget, rate })
    }

    /// The lease of a charge, if it is there and its time is not over.
    fn lease(&self, charge: &Charge, now: Timestamp) -> Result<Option<Lease>, Stopped> {
        let Some(text) = self.leases.get(lease_key(charge.lease))? else { return Ok(None) };
        let lease =
            Lease::parse(text.value()).ok_or_else(|| unreadable("of a lease", &"it is not of its form"))?;
        Ok(Some(lease).filter(|lease| lease.is_of(charge) && !lease.is_over(now)))
    }

    pub(super) fn settle(&mut self, settlements: &[Settlement], now: Timestamp) -> Result<(), Stopped> {
        for Settlement { charge, spent } in settlements {
            let Some(lease) = self.lease(charge, now)? else { continue };
            self.leases.remove(lease_key(charge.lease))?;
            let back = Credits(lease.cost.saturating_sub(spent.0));
            let Some(taken_at) = lease.taken_at().filter(|_| back.0 > 0) else { continue };
            let by_token = used_by_token(&charge.account, &charge.token, charge.pool);
            for key in [by_token, used_by_account(&charge.account, charge.pool)] {
                let mut counter = read_counter(&self.used, &key)?;
                counter.give_back(back, taken_at);
                self.used.insert(key.as_str(), counter_row(&counter))?;
            }
        }
        Ok(())
    }

    /// Forgets what says nothing any more: leases that are spent in full, digests whose grace is over, throttles
    /// that are at rest.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<(), Stopped> {
        // Not to the minute: a clock that steps back a little must find what it knew.
        let past = now.checked_sub(SWEEP_MARGIN).unwrap_or(Timestamp::MIN);
        self.leases.retain(|_, text| Lease::parse(text).is_none_or(|lease| !lease.is_over(past)))?;
        self.pace.retain(|_, cell| cell > past.as_microsecond())?;
        let mut over = Vec::new();
        for entry in self.digests.iter()? {
            let (digest, pointer) = entry?;
            let token =
                parse_pointer(pointer.value()).and_then(|(account, id)| self.token(&account, &id).ok()?);
            let parsed = TokenDigest::parse_hex(digest.value());
            if token.zip(parsed).is_some_and(|(token, parsed)| !token.answers_to(&parsed, past)) {
                over.push(digest.value().to_owned());
            }
        }
        for digest in over {
            self.digests.remove(digest.as_str())?;
        }
        Ok(())
    }
}

/// Puts edits into a record's fields, if `version` is the stored version: the record's new text, or why not.
fn put(
    name: &str,
    stored: Option<Fields>,
    edits: Fields,
    version: u64,
) -> Result<Result<(String, Written), Written>, Stopped> {
    let Some(mut fields) = stored else { return Ok(Err(Written::Missing)) };
    let found = fields.get("version").and_then(|text| text.parse().ok());
    let found: u64 = found.ok_or_else(|| unreadable(name, &"`version` is not a number"))?;
    if found != version {
        return Ok(Err(Written::Conflict { version: found }));
    }
    fields.extend(edits);
    fields.insert("version".to_owned(), (version + 1).to_string());
    Ok(Ok((fields_text(&fields), Written::Done { version: version + 1 })))
}
