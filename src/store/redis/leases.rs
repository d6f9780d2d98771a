//! Leases after they are taken: how the calls of the seam become calls of scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::Cmd;

use super::Desk;
use super::answers;
use super::link::Again;
use crate::policy::{AccountId, Credits};
use crate::store::sums::Names;
use crate::store::usage::{CLOSED_FOR, DAY, UNKNOWN_FOR, day_of, last_second, month_of};
use crate::store::{LeaseKey, Settlement, StoreError, UsageCell};

/// How many calls go at once, so that each bunch stays within the timeout.
const BUNCH: usize = 256;
/// How many leases one call settles, and how many cells they have, if they are more than one: a script holds up all others
/// while it runs, for a millisecond or so.
const SETTLED_AT_ONCE: (usize, usize) = (32, 256);
/// How many expired leases one sweep closes, so that others wait no longer than need be.
const CLOSED_AT_ONCE: usize = 256;
/// What a lease draws on, as it is kept.
pub(super) fn drawn_on(key: &LeaseKey) -> String {
    format!("{}/{}", key.token, key.pool.as_str())
}

/// Closes a lease, whether it was granted or not.
pub(super) fn closing(key: &LeaseKey) -> Settlement {
    Settlement { key: key.clone(), spent: Credits(0), cells: Vec::new() }
}

/// Parts settlements so that each part is one call.
fn shares(settlements: &[Settlement]) -> impl Iterator<Item = &[Settlement]> {
    let mut rest = settlements;
    std::iter::from_fn(move || {
        let (most, mut cells) = (SETTLED_AT_ONCE, 0);
        let fits = |settlement: &&Settlement| {
            cells += settlement.cells.len();
            cells <= most.1
        };
        let count = rest.iter().take(most.0).take_while(fits).count().max(1);
        let (share, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(share)
    })
}

pub(super) fn micros(time: Duration) -> String {
    time.as_micros().to_string()
}

impl Desk {
    pub(super) async fn run_shrink(&self, key: &LeaseKey, keep: Credits) -> Result<(), StoreError> {
        let keys = [
            self.keys.lease(&key.account, key.lease),
            self.keys.used_by_token(&key.account, &key.token, key.pool),
            self.keys.used_by_account(&key.account, key.pool),
        ];
        let args = vec![drawn_on(key), keep.to_string(), self.clock_text()];
        answers::done(self.run(&self.scripts.shrink, &keys, args, Again::Yes).await?, "shrink.lua")
    }

    /// Settles all that can be settled; the first that cannot is told. One call after another, so that what requests wait for
    /// gets its turn in between.
    pub(super) async fn run_settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        let mut settled = Ok(());
        let of_one_account = settlements.chunk_by(|one, next| one.key.account == next.key.account);
        for share in of_one_account.flat_map(shares) {
            settled = settled.and(self.settle_share(share).await?);
        }
        settled
    }

    /// Settles what one call holds. The outer error: the server could not be asked.
    async fn settle_share(&self, share: &[Settlement]) -> Result<Result<(), StoreError>, StoreError> {
        match self.settle_at_once(share).await {
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            // A key of another type ends the whole call. Then each is asked for alone, so that it holds up none but itself.
            Err(StoreError::Unreadable { .. }) if share.len() > 1 => {
                let mut settled = Ok(());
                for one in share.chunks(1) {
                    match self.settle_at_once(one).await {
                        Err(error @ StoreError::Unavailable(_)) => return Err(error),
                        answer => settled = settled.and(answer.flatten()),
                    }
                }
                Ok(settled)
            }
            answer => Ok(answer.flatten()),
        }
    }

    /// One call. The outer error is of the call, the inner one of a settlement.
    async fn settle_at_once(&self, share: &[Settlement]) -> Result<Result<(), StoreError>, StoreError> {
        let Some(first) = share.first() else { return Ok(Ok(())) };
        let call = vec![self.settle_call(&first.key.account, share)];
        let answers = self.link.run(&self.scripts.settle, call, Again::Yes).await;
        let answers = answers.map_err(|failure| failure.into_store_error("of a lease or a counter"))?;
        let all = answers.into_iter().map(|answer| answers::all_settled(answer, share.len()));
        Ok(all.fold(Ok(()), Result::and))
    }

    /// The call for settlements of one account. What they count in together is named once.
    fn settle_call(&self, account: &AccountId, settlements: &[Settlement]) -> Cmd {
        let cells = settlements.iter().flat_map(|settlement| &settlement.cells);
        let days: BTreeSet<i64> = cells.map(|cell| day_of(cell.hour)).collect();
        let mut keys = vec![self.keys.leases(account), self.keys.seen(account)];
        let mut args =
            vec![micros(CLOSED_FOR), micros(UNKNOWN_FOR), micros(self.retention.usage), self.clock_text()];
        args.push(days.len().to_string());
        for day in &days {
            keys.extend([self.keys.active(account, *day), self.keys.sums_by_hour(account, *day)]);
            keys.push(self.keys.sums_of_day(account, *day));
            keys.extend(Names::ALL.map(|names| self.keys.sums_by_name(account, names, *day)));
            keys.extend(Names::ALL.map(|names| self.keys.sums_of_month(account, names, *day)));
            args.extend([(day + DAY).to_string(), month_of(*day).1.to_string()]);
        }
        args.push(settlements.len().to_string());
        keys.extend(settlements.iter().map(|settlement| self.keys.lease(account, settlement.key.lease)));
        for settlement in settlements {
            self.add_settlement(settlement, &days, &mut keys, &mut args);
        }
        self.scripts.settle.call(&keys, args)
    }

    fn add_settlement(
        &self,
        settlement: &Settlement,
        days: &BTreeSet<i64>,
        keys: &mut Vec<String>,
        args: &mut Vec<String>,
    ) {
        let Settlement { key, spent, cells } = settlement;
        let (account, token, pool) = (&key.account, &key.token, key.pool);
        keys.extend([
            self.keys.used_by_token(account, token, pool),
            self.keys.used_by_account(account, pool),
        ]);
        let last_second = last_second(cells.iter().map(|cell| cell.hour));
        args.extend([drawn_on(key), key.lease.0.to_string(), token.to_string(), spent.to_string()]);
        args.push(last_second.map(|second| second.to_string()).unwrap_or_default());
        let mut by_day: BTreeMap<i64, Vec<&UsageCell>> = BTreeMap::new();
        for cell in cells {
            by_day.entry(day_of(cell.hour)).or_default().push(cell);
        }
        args.push(by_day.len().to_string());
        for (day, cells) in by_day {
            keys.push(self.keys.cells(account, token.as_str(), day));
            args.extend([(days.range(..=day).count()).to_string(), cells.len().to_string()]);
            for cell in cells {
                args.extend(super::cells::cell_parts(pool, cell));
                args.extend([cell.requests, cell.credits, cell.bytes].map(|number| number.to_string()));
            }
        }
    }

    pub(super) async fn run_renew(
        &self,
        leases: &[LeaseKey],
        life: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let mut open = Vec::with_capacity(leases.len());
        // Leases of one account share a script's call.
        for of_account in leases.chunk_by(|one, next| one.account == next.account) {
            for bunch in of_account.chunks(BUNCH) {
                let Some(first) = bunch.first() else { continue };
                let mut keys = vec![self.keys.leases(&first.account)];
                let mut args = vec![micros(life), self.clock_text()];
                for key in bunch {
                    keys.push(self.keys.lease(&key.account, key.lease));
                    args.extend([key.lease.0.to_string(), drawn_on(key)]);
                }
                let answer = self.run(&self.scripts.renew, &keys, args, Again::Yes).await?;
                open.extend(answers::renewed(answer, bunch.len())?);
            }
        }
        Ok(open)
    }

    pub(super) async fn run_expire(&self, account: &AccountId) -> Result<u64, StoreError> {
        let args = vec![CLOSED_AT_ONCE.to_string(), micros(self.retention.stranded), self.clock_text()];
        let keys = [self.keys.leases(account)];
        // A lost answer may have closed some; the next call closes the others.
        answers::number(self.run(&self.scripts.expire, &keys, args, Again::Yes).await?, "expire.lua")
    }
}
