//! The steps about leases and throttles: they load the books, run the pure step, and keep what came of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::super::super::record::{parse_budget, parse_limit, parse_rate, token_name};
use super::super::super::usage::{CLOSED_FOR, UNKNOWN_FOR};
use super::super::super::{LeaseId, LeaseKey, NodeId, Paced, Reserve, Retention, Settlement};
use super::super::kept::KeptLease;
use super::super::tables::{
    Stopped, counter_row, read_counter, read_fields, unreadable, used_by_account, used_by_token,
};
use super::Tables;
use crate::ledger::Cell;
use crate::ledger::lease::{
    Lease, LeaseBooks, LeaseState, LeaseTerms, Reserved, expire, renew, reserve, settle, shrink,
};
use crate::ledger::pace::take_passes;
use crate::policy::{AccountId, Credits, Pool, TokenId};

/// How many expired leases a reserve closes on the way, so that the credits of a node that is gone are counted before
/// more are given out.
const CLOSED_ON_THE_WAY: usize = 8;
/// How many expired leases one sweep closes, so that others wait no longer than need be.
const CLOSED_AT_ONCE: usize = 256;

fn later(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    now.checked_add(time).unwrap_or(Timestamp::MAX)
}

impl Tables<'_> {
    fn books(&self, account: &AccountId, token: &TokenId, pool: Pool) -> Result<LeaseBooks, Stopped> {
        let (token, stranded) = read_counter(&self.counters, &used_by_token(account, token, pool))?;
        let (account, account_stranded) = read_counter(&self.counters, &used_by_account(account, pool))?;
        Ok(LeaseBooks { token, account, stranded, account_stranded })
    }

    fn keep_books(
        &mut self,
        account: &AccountId,
        token: &TokenId,
        pool: Pool,
        books: &LeaseBooks,
    ) -> Result<(), Stopped> {
        let by_token = used_by_token(account, token, pool);
        self.counters.insert(by_token.as_str(), counter_row(&books.token, books.stranded))?;
        let by_account = used_by_account(account, pool);
        self.counters.insert(by_account.as_str(), counter_row(&books.account, books.account_stranded))?;
        Ok(())
    }

    /// A lease, unless it is forgotten.
    fn lease(&self, id: LeaseId, now: Timestamp) -> Result<Option<KeptLease>, Stopped> {
        let Some(text) = self.leases.get(id.0.0)? else { return Ok(None) };
        let kept = KeptLease::parse(text.value());
        let kept = kept.ok_or_else(|| unreadable("of a lease", &"it is not of its form"))?;
        Ok(Some(kept).filter(|kept| !kept.is_forgotten(now)))
    }

    /// Keeps a lease, and by when something is to be done about it.
    fn keep_lease(&mut self, id: LeaseId, kept: &KeptLease) -> Result<(), Stopped> {
        self.leases.insert(id.0.0, kept.to_text().as_str())?;
        if kept.lease.state == LeaseState::Open {
            let expires_at = kept.lease.expires_at.as_microsecond();
            self.expiries.insert((kept.account.as_str(), expires_at, id.0.0), ())?;
        } else {
            self.forgets.insert((kept.kept_until.as_microsecond(), id.0.0), ())?;
        }
        Ok(())
    }

    fn forget_expiry(&mut self, id: LeaseId, kept: &KeptLease) -> Result<(), Stopped> {
        let expires_at = kept.lease.expires_at.as_microsecond();
        self.expiries.remove((kept.account.as_str(), expires_at, id.0.0))?;
        Ok(())
    }

    fn terms(&self, key: &LeaseKey, life: Duration) -> Result<LeaseTerms, Stopped> {
        let name = token_name(&key.account, &key.token);
        let token = read_fields(&self.tokens, &name)?.ok_or_else(|| unreadable(&name, &"there is none"))?;
        let limit = parse_limit(&token, key.pool).map_err(|problem| unreadable(&name, &problem))?;
        let name = key.account.as_str();
        let account = read_fields(&self.accounts, name)?.ok_or_else(|| unreadable(name, &"there is none"))?;
        let budget = parse_budget(&account, key.pool).map_err(|problem| unreadable(name, &problem))?;
        Ok(LeaseTerms { limit, budget, life })
    }

    pub(in super::super) fn reserve(
        &mut self,
        asked: &Reserve,
        kept_for: Retention,
        now: Timestamp,
    ) -> Result<Reserved, Stopped> {
        let Reserve { key, node, ask, life } = asked;
        // What this closes stays closed, whatever becomes of the reserve.
        self.close_expired(&key.account, CLOSED_ON_THE_WAY, kept_for, now)?;
        let found = self.lease(key.lease, now)?;
        if found.as_ref().is_some_and(|found| !found.is_of(key) || found.lease.state != LeaseState::Open) {
            return Ok(Reserved::Void);
        }
        let terms = self.terms(key, *life)?;
        let mut books = self.books(&key.account, &key.token, key.pool)?;
        let mut lease = found.as_ref().map(|found| found.lease);
        let reserved = reserve(&mut books, &mut lease, &terms, *ask, now);
        if let (None, Some(lease)) = (found, lease) {
            self.keep_books(&key.account, &key.token, key.pool, &books)?;
            self.keep_lease(key.lease, &kept(key, Some(*node), lease, now))?;
        }
        Ok(reserved)
    }

    pub(in super::super) fn shrink(
        &mut self,
        key: &LeaseKey,
        keep: Credits,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let found = self.lease(key.lease, now)?.filter(|found| found.is_of(key));
        let Some(mut found) = found else { return Ok(()) };
        let mut books = self.books(&key.account, &key.token, key.pool)?;
        let mut lease = Some(found.lease);
        shrink(&mut books, &mut lease, keep);
        if let Some(lease) = lease.filter(|lease| *lease != found.lease) {
            found.lease = lease;
            self.keep_books(&key.account, &key.token, key.pool, &books)?;
            self.keep_lease(key.lease, &found)?;
        }
        Ok(())
    }

    /// Settles all that can be settled; the first that cannot is told.
    pub(in super::super) fn settle(
        &mut self,
        settlements: &[Settlement],
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let mut first_bad = Ok(());
        for settlement in settlements {
            match self.settle_one(settlement, now) {
                Err(bad @ Stopped::Answer(_)) => first_bad = first_bad.and(Err(bad)),
                done => done?,
            }
        }
        first_bad
    }

    fn settle_one(&mut self, settlement: &Settlement, now: Timestamp) -> Result<(), Stopped> {
        let Settlement { key, spent, cells } = settlement;
        let found = self.lease(key.lease, now)?;
        if found.as_ref().is_some_and(|found| !found.is_of(key)) {
            return Ok(());
        }
        let mut books = self.books(&key.account, &key.token, key.pool)?;
        let mut lease = found.as_ref().map(|found| found.lease);
        let counted = settle(&mut books, &mut lease, *spent, now);
        let Some(lease) = lease.filter(|_| counted || found.is_none()) else { return Ok(()) };
        match &found {
            Some(found) if found.lease.state == LeaseState::Open => self.forget_expiry(key.lease, found)?,
            _ => {}
        }
        let (node, time) = found.map_or((None, UNKNOWN_FOR), |found| (found.node, CLOSED_FOR));
        self.keep_lease(key.lease, &kept(key, node, lease, later(now, time)))?;
        if counted {
            self.keep_books(&key.account, &key.token, key.pool, &books)?;
            self.add_cells(key, cells, now)?;
        }
        Ok(())
    }

    pub(in super::super) fn renew(
        &mut self,
        leases: &[LeaseKey],
        life: Duration,
        now: Timestamp,
    ) -> Result<Vec<bool>, Stopped> {
        let mut open = Vec::with_capacity(leases.len());
        for key in leases {
            open.push(self.renew_one(key, life, now)?);
        }
        Ok(open)
    }

    fn renew_one(&mut self, key: &LeaseKey, life: Duration, now: Timestamp) -> Result<bool, Stopped> {
        let found = self.lease(key.lease, now)?.filter(|found| found.is_of(key));
        let mut lease = found.as_ref().map(|found| found.lease);
        let open = renew(&mut lease, life, now);
        if let (Some(mut found), Some(lease)) = (found, lease)
            && lease != found.lease
        {
            self.forget_expiry(key.lease, &found)?;
            found.lease = lease;
            self.keep_lease(key.lease, &found)?;
        }
        Ok(open)
    }

    pub(in super::super) fn expire(
        &mut self,
        account: &AccountId,
        kept_for: Retention,
        now: Timestamp,
    ) -> Result<u64, Stopped> {
        self.close_expired(account, CLOSED_AT_ONCE, kept_for, now)
    }

    /// Closes the leases of an account that expired first, at most so many; how many.
    fn close_expired(
        &mut self,
        account: &AccountId,
        most: usize,
        kept_for: Retention,
        now: Timestamp,
    ) -> Result<u64, Stopped> {
        let due = (account.as_str(), i64::MIN, 0)..=(account.as_str(), now.as_microsecond(), u128::MAX);
        let mut over = Vec::new();
        for entry in self.expiries.range(due)?.take(most) {
            let (key, _) = entry?;
            let (_, expires_at, id) = key.value();
            over.push((expires_at, id));
        }
        let mut closed = 0;
        for (expires_at, id) in over {
            self.expiries.remove((account.as_str(), expires_at, id))?;
            closed += u64::from(self.close_one(LeaseId(ulid::Ulid(id)), kept_for, now)?);
        }
        Ok(closed)
    }

    fn close_one(&mut self, id: LeaseId, kept_for: Retention, now: Timestamp) -> Result<bool, Stopped> {
        let mut found = match self.lease(id, now) {
            Ok(Some(found)) => found,
            // One that cannot be read goes on counting as leased, and is not in the way of the others.
            Ok(None) | Err(Stopped::Answer(_)) => return Ok(false),
            Err(failed) => return Err(failed),
        };
        let (account, token, pool) = (found.account.clone(), found.token.clone(), found.pool);
        let mut books = self.books(&account, &token, pool)?;
        let mut lease = Some(found.lease);
        if !expire(&mut books, &mut lease, now) {
            return Ok(false);
        }
        found.lease = lease.unwrap_or(found.lease);
        found.kept_until = later(now, kept_for.stranded);
        self.keep_books(&account, &token, pool, &books)?;
        self.keep_lease(id, &found)?;
        Ok(true)
    }

    pub(in super::super) fn pace(
        &mut self,
        account: &AccountId,
        token: &TokenId,
        want: u32,
        now: Timestamp,
    ) -> Result<Paced, Stopped> {
        let name = token_name(account, token);
        let fields = read_fields(&self.tokens, &name)?.ok_or_else(|| unreadable(&name, &"there is none"))?;
        let rate = parse_rate(&fields).map_err(|problem| unreadable(&name, &problem))?;
        let Some(rate) = rate else { return Ok(Paced::Unlimited) };
        let cell = Cell(self.pace.get(name.as_str())?.map_or(0, |cell| cell.value()));
        match take_passes(cell, rate, want, now) {
            Ok(passes) => {
                self.pace.insert(name.as_str(), passes.cell.0)?;
                Ok(Paced::Passes { count: passes.count, hold: passes.hold, remaining: passes.remaining })
            }
            Err(refused) => {
                if refused.cell != cell {
                    self.pace.insert(name.as_str(), refused.cell.0)?;
                }
                Ok(Paced::Wait { retry_after: refused.retry_after })
            }
        }
    }
}

fn kept(key: &LeaseKey, node: Option<NodeId>, lease: Lease, kept_until: Timestamp) -> KeptLease {
    let LeaseKey { account, token, pool, .. } = key.clone();
    KeptLease { account, token, pool, node, lease, kept_until }
}
