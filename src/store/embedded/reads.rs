//! What is read from a snapshot of the file.

use std::collections::BTreeSet;

use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTableMetadata as _};

use super::super::keys::parse_pointer;
use super::super::record::{TokenRecord, parse_account, token_name};
use super::super::seal::Sealer;
use super::super::trail::{Asked, EntryId, Traced};
use super::super::usage::{Hours, NOBODY, Seen};
use super::super::{AccountSecrets, Counted, Listed, UsageCell, UsageRow};
use super::tables::{
    ACCOUNTS, BEHIND_COMPLETE, CELLS, COUNTERS, DAYS, DIGESTS, EPOCHS, EXPIRIES, REFUSALS, SEEN, Stopped,
    TOKENS, TRAIL, TRAIL_OF, TrailKey, TrailValue, if_there, parse_fields, read_counter, read_fields,
    read_token, token_range, unreadable, used_by_token,
};
use crate::ledger::Counter;
use crate::policy::record::Account;
use crate::policy::{AccountId, Credits, Operation, PerPool, Policy, Pool, TokenDigest, TokenId};

mod people;

/// A snapshot.
pub(super) struct Reads(pub(super) ReadTransaction);

impl Reads {
    pub(super) fn find_token(&self, digest: &TokenDigest, now: Timestamp) -> Result<Option<Policy>, Stopped> {
        let digests = self.0.open_table(DIGESTS)?;
        let Some(pointer) = digests.get(digest.to_hex().as_str())? else { return Ok(None) };
        let (account, id) = parse_pointer(pointer.value())
            .ok_or_else(|| unreadable("of a digest", &"the pointer names no token"))?;
        let record = self.token(&account, &id)?;
        Ok(record.filter(|record| record.answers_to(digest, now)).map(|record| record.policy))
    }

    /// Whether no account was ever made.
    pub(super) fn is_blank(&self) -> Result<bool, Stopped> {
        Ok(self.0.open_table(ACCOUNTS)?.is_empty()?)
    }

    pub(super) fn token(&self, account: &AccountId, id: &TokenId) -> Result<Option<TokenRecord>, Stopped> {
        read_token(&self.0.open_table(TOKENS)?, account, id)
    }

    pub(super) fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, Stopped> {
        let tokens = self.0.open_table(TOKENS)?;
        let (start, end) = token_range(account, after);
        let mut listed = Vec::new();
        for entry in tokens.range(start.as_str()..end.as_str())?.take(limit) {
            let (name, text) = entry?;
            let id = name.value().split_once('/').and_then(|(_, id)| TokenId::parse(id));
            let Some(id) = id else { continue };
            listed.push(list_one(text.value(), account, &id));
        }
        Ok(listed)
    }

    /// Tokens behind the first `skip`, and how many there are. Goes through all keys, and reads no text but of those it tells.
    pub(super) fn list_tokens_behind(
        &self,
        account: &AccountId,
        skip: usize,
        limit: usize,
    ) -> Result<(usize, Vec<Listed>), Stopped> {
        let tokens = self.0.open_table(TOKENS)?;
        let (start, end) = token_range(account, None);
        let (mut total, mut listed) = (0, Vec::new());
        for entry in tokens.range(start.as_str()..end.as_str())? {
            let (name, text) = entry?;
            let wanted = total >= skip && listed.len() < limit;
            total += 1;
            if wanted && let Some(id) = name.value().split_once('/').and_then(|(_, id)| TokenId::parse(id)) {
                listed.push(list_one(text.value(), account, &id));
            }
        }
        Ok((total, listed))
    }

    /// Some tokens, those that are there.
    pub(super) fn tokens(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Listed>, Stopped> {
        let tokens = self.0.open_table(TOKENS)?;
        let mut listed = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(text) = tokens.get(token_name(account, id).as_str())? {
                listed.push(list_one(text.value(), account, id));
            }
        }
        Ok(listed)
    }

    /// Goes through all tokens. Only the texts of secret ones are read, so that takes some tens of milliseconds for a hundred
    /// thousand; the gate asks only when something was changed.
    pub(super) fn account_secrets(
        &self,
        account: &AccountId,
        sealer: Option<&Sealer>,
        now: Timestamp,
    ) -> Result<AccountSecrets, Stopped> {
        let tokens = self.0.open_table(TOKENS)?;
        let (start, end) = token_range(account, None);
        let is_secret = memchr::memmem::Finder::new(r#""type":"secret""#);
        let mut all = AccountSecrets::default();
        for entry in tokens.range(start.as_str()..end.as_str())? {
            let (name, text) = entry?;
            if is_secret.find(text.value().as_bytes()).is_none() {
                continue;
            }
            let id = name.value().split_once('/').and_then(|(_, id)| TokenId::parse(id));
            let fields = parse_fields(text.value()).ok();
            let record =
                id.zip(fields).and_then(|(id, fields)| TokenRecord::parse(&fields, account, &id).ok());
            if let Some(record) = record {
                record.sign_for_account(sealer, now, &mut all);
            }
        }
        Ok(all)
    }

    pub(super) fn account(&self, id: &AccountId) -> Result<Option<Account>, Stopped> {
        let Some(fields) = read_fields(&self.0.open_table(ACCOUNTS)?, id.as_str())? else { return Ok(None) };
        parse_account(&fields, id).map(Some).map_err(|problem| unreadable(id.as_str(), &problem).into())
    }

    /// Counters, and what is stranded of them.
    pub(super) fn counters(
        &self,
        key: impl Fn(Pool) -> String,
    ) -> Result<PerPool<(Counter, Credits)>, Stopped> {
        let counters = self.0.open_table(COUNTERS)?;
        Ok(PerPool {
            core: read_counter(&counters, &key(Pool::Core))?,
            premium: read_counter(&counters, &key(Pool::Premium))?,
        })
    }

    /// What is counted of tokens.
    pub(super) fn counted_of(
        &self,
        account: &AccountId,
        ids: &[TokenId],
        now: Timestamp,
    ) -> Result<Vec<Counted>, Stopped> {
        let (counters, seen) = (self.0.open_table(COUNTERS)?, self.0.open_table(SEEN)?);
        let mut counted = Vec::with_capacity(ids.len());
        for id in ids {
            let kept = |pool| read_counter(&counters, &used_by_token(account, id, pool));
            let kept = PerPool { core: kept(Pool::Core)?, premium: kept(Pool::Premium)? };
            let time = |second: i64| Some(second).filter(|second| *second != 0);
            let seen = seen.get(token_name(account, id).as_str())?.map(|seen| seen.value());
            let seen = seen.map(|(used, refused)| Seen { used: time(used), refused: time(refused) });
            counted.push(Counted::of_token(&kept, seen.unwrap_or_default(), now));
        }
        Ok(counted)
    }

    pub(super) fn epoch(&self, account: &AccountId) -> Result<u64, Stopped> {
        let epochs = self.0.open_table(EPOCHS)?;
        Ok(epochs.get(account.as_str())?.map_or(0, |epoch| epoch.value()))
    }

    /// Whether an open lease of the account may be over.
    pub(super) fn any_expired(&self, account: &AccountId, now: Timestamp) -> Result<bool, Stopped> {
        let account = account.as_str();
        let due = (account, i64::MIN, 0)..=(account, now.as_microsecond(), u128::MAX);
        Ok(self.0.open_table(EXPIRIES)?.range(due)?.next().is_some())
    }

    pub(super) fn trail(&self, account: &AccountId, asked: &Asked) -> Result<Vec<Traced>, Stopped> {
        let Some(trail) = if_there(self.0.open_table(TRAIL))? else { return Ok(Vec::new()) };
        let account = account.as_str();
        let EntryId { millis, number } =
            asked.before.unwrap_or(EntryId { millis: u64::MAX, number: u64::MAX });
        let Some(target) = asked.target.as_deref() else {
            let entries = trail.range((account, 0, 0)..(account, millis, number))?;
            let read = |entry: Result<_, redb::StorageError>| {
                let (key, kept): (redb::AccessGuard<'_, TrailKey>, redb::AccessGuard<'_, TrailValue>) =
                    entry?;
                let ((_, millis, number), (at, text)) = (key.value(), kept.value());
                Ok(Traced::parse(EntryId { millis, number }, at, text))
            };
            return entries.rev().take(asked.limit).map(read).collect();
        };
        let about = self.0.open_table(TRAIL_OF)?;
        let mut entries = Vec::new();
        for entry in about.range((account, target, 0, 0)..(account, target, millis, number))?.rev() {
            if entries.len() == asked.limit {
                break;
            }
            let (_, _, millis, number) = entry?.0.value();
            let id = EntryId { millis, number };
            let kept = trail.get((account, millis, number))?;
            let parse =
                |kept: redb::AccessGuard<'_, TrailValue>| Traced::parse(id, kept.value().0, kept.value().1);
            entries.push(kept.map_or(Traced::Unreadable { id }, parse));
        }
        Ok(entries)
    }

    /// Usage and refusals, in no order.
    pub(super) fn usage(
        &self,
        account: &AccountId,
        token: Option<&TokenId>,
        hours: Hours,
    ) -> Result<Vec<UsageRow>, Stopped> {
        let whose: BTreeSet<String> = match token {
            Some(token) => BTreeSet::from([token.to_string()]),
            None => self.active_in(account, hours)?,
        };
        let mut rows = Vec::new();
        for token in &whose {
            self.read_cells(account, token, hours, &mut rows)?;
            self.read_refusals(account, token, hours, &mut rows)?;
        }
        Ok(rows)
    }

    /// Whose usage or refusals there are in these hours.
    fn active_in(&self, account: &AccountId, hours: Hours) -> Result<BTreeSet<String>, Stopped> {
        let days = self.0.open_table(DAYS)?;
        let mut whose = BTreeSet::new();
        // NUL: the smallest text behind the account's name.
        let behind = format!("{account}\0");
        for day in hours.days() {
            for entry in days.range((day, account.as_str(), BEHIND_COMPLETE)..(day, behind.as_str(), ""))? {
                let (key, _) = entry?;
                whose.insert(key.value().2.to_owned());
            }
        }
        Ok(whose)
    }

    fn read_cells(
        &self,
        account: &AccountId,
        token: &str,
        hours: Hours,
        rows: &mut Vec<UsageRow>,
    ) -> Result<(), Stopped> {
        let Some(id) = TokenId::parse(token) else { return Ok(()) };
        let cells = self.0.open_table(CELLS)?;
        let account = account.as_str();
        let of_hours = (account, token, hours.from, "")..(account, token, hours.to.max(hours.from), "");
        for entry in cells.range(of_hours)? {
            let (key, row) = entry?;
            let (_, _, hour, what) = key.value();
            let (pool, operation, dataset) =
                parse_what(what).ok_or_else(|| unreadable("of usage", &"it names no pool or operation"))?;
            let [requests, credits, bytes] = row.value();
            let cell = UsageCell { hour, dataset: dataset.to_owned(), operation, requests, credits, bytes };
            rows.push(UsageRow::Used { token: id.clone(), pool, cell });
        }
        Ok(())
    }

    fn read_refusals(
        &self,
        account: &AccountId,
        token: &str,
        hours: Hours,
        rows: &mut Vec<UsageRow>,
    ) -> Result<(), Stopped> {
        let id = TokenId::parse(token);
        if id.is_none() && token != NOBODY {
            return Ok(());
        }
        let refusals = self.0.open_table(REFUSALS)?;
        let account = account.as_str();
        let of_hours = (account, token, hours.from, "")..(account, token, hours.to.max(hours.from), "");
        for entry in refusals.range(of_hours)? {
            let (key, count) = entry?;
            let (_, _, hour, code) = key.value();
            let (code, count) = (code.to_owned(), count.value());
            rows.push(UsageRow::Refused { token: id.clone(), hour, code, count });
        }
        Ok(())
    }
}

/// A record as a list tells it.
fn list_one(text: &str, account: &AccountId, id: &TokenId) -> Listed {
    match parse_fields(text).and_then(|fields| TokenRecord::parse(&fields, account, id)) {
        Ok(record) => Listed::Token(Box::new(record.into_stored())),
        Err(problem) => Listed::Unreadable { id: id.clone(), why: problem.to_string() },
    }
}

/// Reads `pool/operation/dataset`.
pub(super) fn parse_what(what: &str) -> Option<(Pool, Operation, &str)> {
    let (pool, rest) = what.split_once('/')?;
    let (operation, dataset) = rest.split_once('/')?;
    let pool = Pool::ALL.into_iter().find(|known| known.as_str() == pool)?;
    Some((pool, Operation::parse(operation)?, dataset))
}
