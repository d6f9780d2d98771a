//! The steps about usage and refusals, and what goes away with time.

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::super::super::keys::parse_pointer;
use super::super::super::usage::{DAY, NOBODY, day_of, last_forgotten};
use super::super::super::{LeaseId, LeaseKey, RefusalCell, Retention, UsageCell};
use super::super::kept::KeptLease;
use super::super::tables::Stopped;
use super::Tables;
use crate::policy::cost::MAX_CREDITS;
use crate::policy::{AccountId, TokenDigest};

/// How long things are kept that say nothing any more: a clock that steps back a little must find what it knew.
const SWEEP_MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// The same for leases, of which there are many.
const LEASE_MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// How many days of tokens one sweep forgets at most, so that nobody waits for it.
const SWEPT_AT_ONCE: usize = 10_000;

impl Tables<'_> {
    pub(super) fn add_cells(&mut self, key: &LeaseKey, cells: &[UsageCell]) -> Result<(), Stopped> {
        let (account, token) = (key.account.as_str(), key.token.as_str());
        for cell in cells {
            let what = format!("{}/{}/{}", key.pool.as_str(), cell.operation, cell.dataset);
            let name = (account, token, cell.hour, what.as_str());
            let [requests, credits, bytes] = self.cells.get(name)?.map(|row| row.value()).unwrap_or_default();
            // The same end as the Redis store's, which counts in doubles.
            let sum = |held: u64, more: u64| held.saturating_add(more).min(MAX_CREDITS);
            let row = [sum(requests, cell.requests), sum(credits, cell.credits), sum(bytes, cell.bytes)];
            self.cells.insert(name, row)?;
            self.days.insert((day_of(cell.hour), account, token), ())?;
        }
        Ok(())
    }

    pub(in super::super) fn count_refusals(
        &mut self,
        account: &AccountId,
        batch: LeaseId,
        cells: &[RefusalCell],
        now: Timestamp,
    ) -> Result<(), Stopped> {
        if self.batches.insert(batch.0.0, now.as_microsecond())?.is_some() {
            return Ok(());
        }
        for cell in cells {
            let token = cell.token.as_ref().map_or(NOBODY, |token| token.as_str());
            let name = (account.as_str(), token, cell.hour, cell.code);
            let count = self.refusals.get(name)?.map_or(0, |count| count.value());
            self.refusals.insert(name, count.saturating_add(cell.count))?;
            self.days.insert((day_of(cell.hour), account.as_str(), token), ())?;
        }
        Ok(())
    }

    /// Forgets what says nothing any more: usage that is too old, digests whose grace is over, throttles that are at
    /// rest.
    pub(in super::super) fn sweep(&mut self, kept_for: Retention, now: Timestamp) -> Result<(), Stopped> {
        let past = now.checked_sub(SWEEP_MARGIN).unwrap_or(Timestamp::MIN);
        self.sweep_days(last_forgotten(past, kept_for.usage))?;
        self.batches.retain(|_, counted_at| counted_at > past.as_microsecond())?;
        self.pace.retain(|_, cell| cell > past.as_microsecond())?;
        self.sweep_digests(past)
    }

    /// Forgets leases that are over, at most so many.
    pub(in super::super) fn forget_leases(&mut self, most: usize, now: Timestamp) -> Result<(), Stopped> {
        let past = now.checked_sub(LEASE_MARGIN).unwrap_or(Timestamp::MIN);
        let mut over = Vec::new();
        for entry in self.forgets.range(..=(past.as_microsecond(), u128::MAX))?.take(most) {
            over.push(entry?.0.value());
        }
        for (kept_until, id) in over {
            self.forgets.remove((kept_until, id))?;
            let forgotten = match self.leases.get(id)? {
                Some(text) => KeptLease::parse(text.value()).is_none_or(|kept| kept.is_forgotten(past)),
                None => false,
            };
            if forgotten {
                self.leases.remove(id)?;
            }
        }
        Ok(())
    }

    fn sweep_days(&mut self, last: i64) -> Result<(), Stopped> {
        let mut over = Vec::new();
        for entry in self.days.range(..(last + 1, "", ""))?.take(SWEPT_AT_ONCE) {
            let (key, _) = entry?;
            let (day, account, token) = key.value();
            over.push((day, account.to_owned(), token.to_owned()));
        }
        for (day, account, token) in over {
            let end = day.saturating_add(DAY);
            let (account, token) = (account.as_str(), token.as_str());
            let of_day = || (account, token, day, "")..(account, token, end, "");
            self.cells.retain_in(of_day(), |_, _| false)?;
            self.refusals.retain_in(of_day(), |_, _| false)?;
            self.days.remove((day, account, token))?;
        }
        Ok(())
    }

    fn sweep_digests(&mut self, past: Timestamp) -> Result<(), Stopped> {
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
