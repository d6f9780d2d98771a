//! The store: books, leases and a clock. It keeps what it acknowledged; what it did not acknowledge is as good as lost on
//! the way.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use ulid::Ulid;

use super::message::{Call, Reply};
use super::planted::Bug;
use super::{BEGIN, LIFE, Rules, store_time};
use crate::ledger::Counter;
use crate::ledger::lease::{self, Ask, Lease, LeaseBooks, LeaseState, LeaseTerms, Reserved};
use crate::ledger::purse::Micros;
use crate::policy::{Credits, Limit, Period};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shop {
    /// Microseconds since the epoch.
    pub(super) clock: i64,
    pub(super) tokens: Vec<TokenBook>,
    pub(super) account: Counter,
    pub(super) account_stranded: u64,
    pub(super) budget: Option<u64>,
    pub(super) period: Period,
    /// Each with its token.
    pub(super) leases: BTreeMap<Ulid, (u8, Lease)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct TokenBook {
    pub(super) counter: Counter,
    pub(super) stranded: u64,
    pub(super) limit: u64,
}

impl Shop {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            clock: BEGIN * 1_000_000,
            tokens: rules
                .limits
                .iter()
                .map(|limit| TokenBook { limit: *limit, ..TokenBook::default() })
                .collect(),
            account: Counter::default(),
            account_stranded: 0,
            budget: rules.budget,
            period: rules.period,
            leases: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.clock).unwrap()
    }

    /// The hour that is counted in: never before one that was.
    pub(super) fn hour(&self) -> i64 {
        let by_clock = self.clock.div_euclid(3_600_000_000) * 3600;
        by_clock.max(self.account.hour.start)
    }

    /// The time to read the books by.
    pub(super) fn steady(&self) -> Timestamp {
        self.now().max(store_time(self.account.hour.start))
    }

    pub(super) fn limit(&self, credits: u64) -> Limit {
        Limit { credits: Credits(credits), period: self.period }
    }

    /// Runs one step of the protocol on the books of a token and on one lease.
    fn step<T>(
        &mut self,
        token: u8,
        id: Ulid,
        step: impl FnOnce(&mut LeaseBooks, &mut Option<Lease>, &LeaseTerms, Timestamp) -> T,
    ) -> T {
        let book = &self.tokens[usize::from(token)];
        let mut books = LeaseBooks {
            token: book.counter,
            account: self.account,
            stranded: Credits(book.stranded),
            account_stranded: Credits(self.account_stranded),
        };
        let mut lease = self.leases.get(&id).map(|(_, lease)| *lease);
        let terms = LeaseTerms {
            limit: Some(self.limit(book.limit)),
            budget: self.budget.map(|budget| self.limit(budget)),
            life: LIFE,
        };
        let result = step(&mut books, &mut lease, &terms, self.now());
        let book = &mut self.tokens[usize::from(token)];
        book.counter = books.token;
        book.stranded = books.stranded.0;
        self.account = books.account;
        self.account_stranded = books.account_stranded.0;
        match lease {
            Some(lease) => self.leases.insert(id, (token, lease)),
            None => self.leases.remove(&id),
        };
        result
    }

    /// Closes the leases whose time is over.
    pub(super) fn sweep(&mut self, bug: Option<Bug>) {
        let now = self.now();
        let over = |(id, (token, lease)): (&Ulid, &(u8, Lease))| {
            (lease.state == LeaseState::Open && lease.expires_at <= now).then_some((*id, *token))
        };
        for (id, token) in self.leases.iter().filter_map(over).collect::<Vec<_>>() {
            self.step(token, id, |books, lease, _, now| {
                let stranded = books.stranded;
                lease::expire(books, lease, now);
                match bug {
                    Some(Bug::ExpireForgetsStranded) => books.stranded = stranded,
                    Some(Bug::ExpireForgetsLease) => *lease = None,
                    Some(Bug::ExpireGivesBack) => {
                        let Some(known) = lease else { return };
                        books.token.correct(known.granted, Credits(0), known.taken_at);
                        books.account.correct(known.granted, Credits(0), known.taken_at);
                    }
                    _ => {}
                }
            });
        }
    }

    pub(super) fn serve(&mut self, call: &Call, bug: Option<Bug>) -> Reply {
        match *call {
            Call::Reserve { lease, token, want, need, .. } => {
                self.sweep(bug);
                self.reserve(lease, token, Ask { want: Credits(want), need: Credits(need) }, bug)
            }
            Call::Shrink { lease, token, keep } => {
                self.step(token, lease, |books, lease, _, _| lease::shrink(books, lease, Credits(keep)));
                Reply::Done
            }
            Call::Settle { lease, token, spent } => {
                self.settle(lease, token, Credits(spent), bug);
                Reply::Done
            }
            Call::Renew { lease, token, .. } => {
                let open = self.step(token, lease, |_, lease, terms, now| {
                    if bug == Some(Bug::RenewRevives)
                        && let Some(known) = lease
                        && known.state == LeaseState::Stranded
                    {
                        known.state = LeaseState::Open;
                    }
                    lease::renew(lease, terms.life, now)
                });
                Reply::Renewed { open }
            }
        }
    }

    fn reserve(&mut self, id: Ulid, token: u8, ask: Ask, bug: Option<Bug>) -> Reply {
        let reserved = self.step(token, id, |books, lease, terms, now| {
            let mut terms = *terms;
            match bug {
                Some(Bug::ReserveIgnoresId) => *lease = None,
                Some(Bug::ReserveIgnoresBudget) => terms.budget = None,
                Some(Bug::ReserveIgnoresLeased) => {
                    let leased = books.token.leased(Period::None, now).0;
                    terms.limit = terms
                        .limit
                        .map(|limit| Limit { credits: Credits(limit.credits.0 + leased), ..limit });
                }
                _ => {}
            }
            let mut reserved = lease::reserve(books, lease, &terms, ask, now);
            if bug == Some(Bug::LeaseIsDatedByTheClock)
                && let Some(known) = lease
            {
                known.taken_at = now;
            }
            if bug == Some(Bug::LeaseOutlivesPeriod)
                && let Reserved::Granted(grant) = &mut reserved
            {
                grant.valid_for = Duration::from_hours(2);
            }
            reserved
        });
        match reserved {
            Reserved::Granted(grant) => Reply::Granted {
                granted: grant.granted.0,
                valid_for: Micros::try_from(grant.valid_for.as_micros()).unwrap(),
            },
            Reserved::CreditsExhausted { recallable, .. } => Reply::Refused {
                recallable: recallable && bug != Some(Bug::RefusesWithoutRecall),
                budget: false,
            },
            Reserved::BudgetExhausted { recallable, .. } => Reply::Refused { recallable, budget: true },
            Reserved::Void => Reply::Void,
        }
    }

    fn settle(&mut self, id: Ulid, token: u8, spent: Credits, bug: Option<Bug>) {
        self.step(token, id, |books, lease, _, now| {
            if bug == Some(Bug::SettleCountsAgain)
                && let Some(known) = lease
                && known.state == LeaseState::Closed
            {
                *known = Lease { granted: Credits(0), state: LeaseState::Open, ..*known };
            }
            let unknown = lease.is_none();
            let stranded = lease.is_some_and(|lease| lease.state == LeaseState::Stranded);
            if stranded && bug == Some(Bug::StrandedStaysSpent) {
                return;
            }
            let counted = lease::settle(books, lease, spent, now);
            let Some(known) = *lease else { return };
            match bug {
                Some(Bug::SettleAddsTwice) if counted => {
                    books.token.correct(Credits(0), spent, known.taken_at);
                    books.account.correct(Credits(0), spent, known.taken_at);
                }
                Some(Bug::SettleMissesAccount) if counted => {
                    books.account.correct(spent, Credits(0), known.taken_at);
                }
                Some(Bug::NoTombstone) if unknown => *lease = None,
                Some(Bug::SettledIsForgotten) => *lease = None,
                _ => {}
            }
        });
    }
}
