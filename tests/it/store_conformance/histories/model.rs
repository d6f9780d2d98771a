//! What the pure ledger makes of a history: its steps, and maps for what a store keeps around them.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use tollgate::ledger::lease::{self, Ask, Lease, LeaseBooks, LeaseState, LeaseTerms, Reserved};
use tollgate::ledger::pace::take_passes;
use tollgate::ledger::{Cell, Counter};
use tollgate::policy::{Credits, Operation, Period, Pool, RateLimit};
use tollgate::store::{LeaseId, Paced, UsageCell};

/// Of which token (by its number) and pool a lease is.
pub type Of = (usize, Pool);

/// A lease, and what is kept beside it.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub of: Of,
    pub lease: Lease,
    pub until: Timestamp,
}

/// The hour, of what, the data set and the operation.
pub type CellName = (i64, Of, String, Operation);

/// The store as it must be.
#[derive(Default)]
pub struct Model {
    pub tokens: HashMap<Of, (Counter, Credits)>,
    pub account: HashMap<Pool, (Counter, Credits)>,
    pub leases: BTreeMap<LeaseId, Kept>,
    pub cells: BTreeMap<CellName, [u64; 3]>,
    pub throttles: HashMap<usize, Cell>,
    pub epoch: u64,
}

/// What a reserve asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub of: Of,
    pub ask: Ask,
    pub terms: LeaseTerms,
}

impl Model {
    fn books(&self, (token, pool): Of) -> LeaseBooks {
        let (token, stranded) = self.tokens.get(&(token, pool)).copied().unwrap_or_default();
        let (account, account_stranded) = self.account.get(&pool).copied().unwrap_or_default();
        LeaseBooks { token, account, stranded, account_stranded }
    }

    fn keep(&mut self, of: Of, books: LeaseBooks) {
        self.tokens.insert(of, (books.token, books.stranded));
        self.account.insert(of.1, (books.account, books.account_stranded));
    }

    fn find(&self, id: LeaseId, now: Timestamp) -> Option<Kept> {
        let known = |kept: &Kept| kept.lease.state == LeaseState::Open || now < kept.until;
        self.leases.get(&id).copied().filter(known)
    }

    /// Closes the leases that expired first.
    pub fn close(&mut self, most: usize, now: Timestamp) -> u64 {
        let due = |(id, kept): (&LeaseId, &Kept)| {
            let over = kept.lease.state == LeaseState::Open && kept.lease.expires_at <= now;
            over.then_some((kept.lease.expires_at, *id))
        };
        let mut due: Vec<_> = self.leases.iter().filter_map(due).collect();
        due.sort();
        due.truncate(most);
        for (_, id) in &due {
            let mut kept = self.leases[id];
            let (mut books, mut lease) = (self.books(kept.of), Some(kept.lease));
            assert!(lease::expire(&mut books, &mut lease, now));
            kept.lease = lease.unwrap();
            kept.until = now.checked_add(SignedDuration::from_hours(24)).unwrap();
            self.keep(kept.of, books);
            self.leases.insert(*id, kept);
        }
        due.len() as u64
    }

    /// Leases; a lease that is made must be within what was free.
    pub fn reserve(&mut self, id: LeaseId, wanted: &Wanted, now: Timestamp) -> Reserved {
        self.close(8, now);
        let found = self.find(id, now);
        if found.is_some_and(|found| found.of != wanted.of) {
            return Reserved::Void;
        }
        let (mut books, mut lease) = (self.books(wanted.of), found.map(|found| found.lease));
        let reserved = lease::reserve(&mut books, &mut lease, &wanted.terms, wanted.ask, now);
        if let (None, Some(lease)) = (found, lease) {
            let within = |limit: Option<tollgate::policy::Limit>, counter: &Counter| {
                let committed =
                    |limit: tollgate::policy::Limit| counter.committed(limit.period, lease.taken_at);
                limit.is_none_or(|limit| lease.granted.0 == 0 || committed(limit) <= limit.credits)
            };
            assert!(within(wanted.terms.limit, &books.token), "over the limit: {books:?}");
            assert!(within(wanted.terms.budget, &books.account), "over the budget: {books:?}");
            self.keep(wanted.of, books);
            self.leases.insert(id, Kept { of: wanted.of, lease, until: now });
        }
        reserved
    }

    pub fn shrink(&mut self, id: LeaseId, of: Of, keep: Credits, now: Timestamp) {
        let Some(mut kept) = self.find(id, now).filter(|found| found.of == of) else { return };
        let (mut books, mut lease) = (self.books(of), Some(kept.lease));
        lease::shrink(&mut books, &mut lease, keep);
        kept.lease = lease.unwrap();
        self.keep(of, books);
        self.leases.insert(id, kept);
    }

    pub fn settle(&mut self, id: LeaseId, of: Of, spent: Credits, cells: &[UsageCell], now: Timestamp) {
        let found = self.find(id, now);
        if found.is_some_and(|found| found.of != of) {
            return;
        }
        let (mut books, mut lease) = (self.books(of), found.map(|found| found.lease));
        let counted = lease::settle(&mut books, &mut lease, spent, now);
        if counted || found.is_none() {
            let minutes = if counted { 2 } else { 60 };
            let until = now.checked_add(SignedDuration::from_mins(minutes)).unwrap();
            self.leases.insert(id, Kept { of, lease: lease.unwrap(), until });
        }
        if counted {
            self.keep(of, books);
            for cell in cells {
                let name = (cell.hour, of, cell.dataset.clone(), cell.operation);
                let sums = self.cells.entry(name).or_default();
                for (sum, more) in sums.iter_mut().zip([cell.requests, cell.credits, cell.bytes]) {
                    *sum += more;
                }
            }
        }
    }

    pub fn renew(&mut self, id: LeaseId, of: Of, life: std::time::Duration, now: Timestamp) -> bool {
        let Some(mut kept) = self.find(id, now).filter(|found| found.of == of) else { return false };
        let mut lease = Some(kept.lease);
        let open = lease::renew(&mut lease, life, now);
        kept.lease = lease.unwrap();
        self.leases.insert(id, kept);
        open
    }

    pub fn pace(&mut self, token: usize, rate: Option<RateLimit>, want: u32, now: Timestamp) -> Paced {
        let Some(rate) = rate else { return Paced::Unlimited };
        let cell = self.throttles.get(&token).copied().unwrap_or_default();
        match take_passes(cell, rate, want, now) {
            Ok(passes) => {
                self.throttles.insert(token, passes.cell);
                Paced::Passes { count: passes.count, hold: passes.hold, remaining: passes.remaining }
            }
            Err(refused) => {
                self.throttles.insert(token, refused.cell);
                Paced::Wait { retry_after: refused.retry_after }
            }
        }
    }

    /// What must hold of the model itself: all that was used for good is in the cells, or stranded.
    pub fn check(&self) {
        for (of, (counter, stranded)) in &self.tokens {
            let in_cells = self.cells.iter().filter(|((_, whose, ..), _)| whose == of);
            let credits: u64 = in_cells.map(|(_, [_, credits, _])| credits).sum();
            assert_eq!(counter.ever.used, credits + stranded.0, "{of:?}");
        }
        for pool in Pool::ALL {
            let of_pool = self.tokens.iter().filter(|((_, of), _)| *of == pool);
            let of = |(counter, stranded): &(Counter, Credits)| {
                (counter.committed(Period::None, Timestamp::UNIX_EPOCH).0, stranded.0)
            };
            let sums = of_pool.map(|(_, kept)| of(kept));
            let sums = sums.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
            assert_eq!(of(&self.account.get(&pool).copied().unwrap_or_default()), sums);
        }
    }
}
