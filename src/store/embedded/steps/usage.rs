//! The steps about usage and refusals, and what goes away with time.

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::super::super::keys::parse_pointer;
use super::super::super::record::token_name;
use super::super::super::sums::{Figures, Names, plus};
use super::super::super::usage::{DAY, NOBODY, day_of, last_forgotten, last_second, month_of};
use super::super::super::{LeaseId, LeaseKey, RefusalCell, Retention, UsageCell};
use super::super::kept::KeptLease;
use super::super::tables::{
    BEHIND_COMPLETE, BY_DAY, BY_HOUR, DAY_COMPLETE, MONTH_COMPLETE, Stopped, by_name, by_name_of_month,
};
use super::Tables;
use crate::policy::{AccountId, TokenDigest};

/// How long things are kept that say nothing any more: a clock that steps back a little must find what it knew.
const SWEEP_MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// The same for leases, of which there are many.
const LEASE_MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// How many days of tokens one sweep forgets at most, so that nobody waits for it.
const SWEPT_AT_ONCE: usize = 10_000;

fn sum([requests, credits, bytes]: Figures, [more, cost, size]: Figures) -> Figures {
    [plus(requests, more), plus(credits, cost), plus(bytes, size)]
}

impl Tables<'_> {
    pub(super) fn add_cells(
        &mut self,
        key: &LeaseKey,
        cells: &[UsageCell],
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let (account, token) = (key.account.as_str(), key.token.as_str());
        for cell in cells {
            let pool = key.pool.as_str();
            let what = format!("{pool}/{}/{}", cell.operation, cell.dataset);
            let more = [cell.requests, cell.credits, cell.bytes];
            let name = (account, token, cell.hour, what.as_str());
            let held = self.cells.get(name)?.map(|row| row.value()).unwrap_or_default();
            self.cells.insert(name, sum(held, more))?;
            let day = day_of(cell.hour);
            self.begin_sums(account, day)?;
            self.days.insert((day, account, token), ())?;
            self.add_sum((BY_HOUR, cell.hour, account, &what), more)?;
            self.add_sum((BY_DAY, day, account, &format!("{pool}/{}", cell.operation)), more)?;
            for names in Names::ALL {
                let name = match names {
                    Names::Tokens => token,
                    Names::Datasets => &cell.dataset,
                };
                let what = format!("{pool}/{name}");
                self.add_sum((by_name(names), day, account, &what), more)?;
                self.add_sum((by_name_of_month(names), month_of(day).0, account, &what), more)?;
            }
        }
        if let Some(last) = last_second(cells.iter().map(|cell| cell.hour)) {
            let name = token_name(&key.account, &key.token);
            let at = last.min(now.as_second());
            let (used, refused) = self.seen.get(name.as_str())?.map_or((0, 0), |seen| seen.value());
            self.seen.insert(name.as_str(), (used.max(at), refused))?;
        }
        Ok(())
    }

    fn add_sum(&mut self, name: (&str, i64, &str, &str), more: Figures) -> Result<(), Stopped> {
        let held = self.sums.get(name)?.map(|row| row.value()).unwrap_or_default();
        self.sums.insert(name, sum(held, more))?;
        Ok(())
    }

    fn add_refused(&mut self, name: (&str, i64, &str, &str), more: u64) -> Result<(), Stopped> {
        let held = self.refused.get(name)?.map_or(0, |count| count.value());
        self.refused.insert(name, held.saturating_add(more))?;
        Ok(())
    }

    /// Before anything is counted on a day: says of its sums, and of its month's, whether they will hold all of it. That is so
    /// where nothing was counted yet.
    fn begin_sums(&mut self, account: &str, day: i64) -> Result<(), Stopped> {
        let (month, end) = month_of(day);
        let [of_day, of_month] = [(day, account, DAY_COMPLETE), (month, account, MONTH_COMPLETE)];
        let begin_day = self.days.get(of_day)?.is_none() && !self.any_counted(account, day, day + DAY)?;
        let begin_month = self.days.get(of_month)?.is_none() && !self.any_counted(account, month, end)?;
        if begin_day {
            self.days.insert(of_day, ())?;
        }
        if begin_month {
            self.days.insert(of_month, ())?;
        }
        Ok(())
    }

    fn any_counted(&self, account: &str, from: i64, to: i64) -> Result<bool, Stopped> {
        for day in std::iter::successors(Some(from), |day| Some(day + DAY)).take_while(|day| *day < to) {
            let mut of_day = self.days.range((day, account, BEHIND_COMPLETE)..)?;
            if let Some((key, _)) = of_day.next().transpose()?
                && matches!(key.value(), (at, whose, _) if at == day && whose == account)
            {
                return Ok(true);
            }
        }
        Ok(false)
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
            let (whose, day) = (account.as_str(), day_of(cell.hour));
            let token = cell.token.as_ref().map_or(NOBODY, |token| token.as_str());
            let name = (whose, token, cell.hour, cell.code);
            let count = self.refusals.get(name)?.map_or(0, |count| count.value());
            self.refusals.insert(name, count.saturating_add(cell.count))?;
            self.begin_sums(whose, day)?;
            self.days.insert((day, whose, token), ())?;
            self.add_refused((BY_HOUR, cell.hour, whose, cell.code), cell.count)?;
            self.add_refused((BY_DAY, day, whose, cell.code), cell.count)?;
            if let (Some(token), Some(last)) = (&cell.token, last_second([cell.hour])) {
                let name = token_name(account, token);
                let (used, refused) = self.seen.get(name.as_str())?.map_or((0, 0), |seen| seen.value());
                self.seen.insert(name.as_str(), (used, refused.max(last.min(now.as_second()))))?;
            }
        }
        Ok(())
    }

    /// Forgets what says nothing any more: usage that is too old, digests whose grace is over, throttles that are at
    /// rest.
    pub(in super::super) fn sweep(&mut self, kept_for: Retention, now: Timestamp) -> Result<(), Stopped> {
        let past = now.checked_sub(SWEEP_MARGIN).unwrap_or(Timestamp::MIN);
        let last = last_forgotten(past, kept_for.usage);
        self.sweep_days(last)?;
        self.sweep_sums(last)?;
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

    fn sweep_sums(&mut self, last: i64) -> Result<(), Stopped> {
        let end = last.saturating_add(DAY);
        for kind in [BY_HOUR, BY_DAY, by_name(Names::Tokens), by_name(Names::Datasets)] {
            let over = || (kind, i64::MIN, "", "")..(kind, end, "", "");
            self.sums.retain_in(over(), |_, _| false)?;
            self.refused.retain_in(over(), |_, _| false)?;
        }
        for names in Names::ALL {
            // A month whose last day is kept is kept.
            let kind = by_name_of_month(names);
            self.sums.retain_in((kind, i64::MIN, "", "")..(kind, month_of(end).0, "", ""), |_, _| false)?;
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
