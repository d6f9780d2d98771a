//! Random histories: both stores answer as the pure ledger does, whatever happens in whatever order.
//!
//! A history is leases asked for, shrunk, settled, renewed and left to expire, edits of limits, and steps of the clock. It is
//! run on the embedded store, on Redis and on a model made of [`tollgate::ledger::lease`] and a map; each answer and, at the
//! end of each history, each counter must be the same.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::ledger::lease::{self, Ask, Lease, LeaseBooks, LeaseTerms, Reserved};
use tollgate::policy::{Credits, Limit, PerPool, Period, Pool, TokenId};
use tollgate::store::LeaseKey;

use super::bench::{Bench, Charge, LIFE, account_id, key, reserve, settlement};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Reserve { want: u64, need: u64 },
    Again { back: usize, want: u64 },
    Shrink { back: usize, keep: u64 },
    Settle { back: usize, spent: u64 },
    Renew { back: usize },
    Pass(i64),
    Limit(Option<Limit>),
    Budget(Option<Limit>),
}

fn any_limit() -> impl Strategy<Value = Option<Limit>> {
    let period = prop::sample::select(Period::ALL.to_vec());
    prop::option::weighted(
        0.8,
        (0u64..60, period).prop_map(|(n, period)| Limit { credits: Credits(n), period }),
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u64..20, 0u64..6).prop_map(|(more, need)| Event::Reserve { want: need + more, need }),
        1 => (0usize..6, 1u64..9).prop_map(|(back, want)| Event::Again { back, want }),
        2 => (0usize..6, 0u64..9).prop_map(|(back, keep)| Event::Shrink { back, keep }),
        4 => (0usize..6, 0u64..9).prop_map(|(back, spent)| Event::Settle { back, spent }),
        1 => (0usize..6).prop_map(|back| Event::Renew { back }),
        // A history stays within two minutes: that is how long a closed lease is known to a store.
        3 => (0i64..3).prop_map(Event::Pass),
        1 => any_limit().prop_map(Event::Limit),
        1 => any_limit().prop_map(Event::Budget),
    ]
}

/// The pure ledger, and what a store keeps around it.
#[derive(Default)]
struct Model {
    books: LeaseBooks,
    leases: BTreeMap<usize, Option<Lease>>,
    limit: Option<Limit>,
    budget: Option<Limit>,
}

/// One history on one store, and on the model beside it.
struct Trial {
    bench: Bench,
    token: TokenId,
    keys: Vec<LeaseKey>,
    model: Model,
}

impl Trial {
    async fn new(bench: Bench) -> Self {
        // Every period ends on the way.
        bench.set_time(super::bench::time("2026-12-31T23:59:10Z"));
        bench.make_account(PerPool::default()).await;
        let (policy, _) = bench.make_token(|_| ()).await;
        Self { bench, token: policy.id, keys: Vec::new(), model: Model::default() }
    }

    /// The model closes what is over.
    fn expire(&mut self) {
        let now = self.bench.now();
        for lease in self.model.leases.values_mut() {
            lease::expire(&mut self.model.books, lease, now);
        }
    }

    fn back(&self, back: usize) -> Option<usize> {
        self.keys.len().checked_sub(back + 1)
    }

    async fn ask(&mut self, at: usize, want: u64, need: u64) {
        self.expire();
        // A reserve closes a few that are over along the way; here all of them are, so that both see the same.
        self.bench.store().expire(&account_id()).await.unwrap();
        let (now, model) = (self.bench.now(), &mut self.model);
        let terms = LeaseTerms { limit: model.limit, budget: model.budget, life: LIFE };
        let ask = Ask { want: Credits(want), need: Credits(need) };
        let lease = model.leases.entry(at).or_default();
        let expected = lease::reserve(&mut model.books, lease, &terms, ask, now);
        let found = self.bench.store().reserve(&reserve(&self.keys[at], want, need)).await.unwrap();
        assert_eq!(found, expected);
        if let Reserved::Granted(_) = found {
            let token = self.model.books.token.committed(Period::None, now).0;
            let account = self.model.books.account.committed(Period::None, now).0;
            assert_eq!(token, account, "one token, so both count the same");
        }
    }

    async fn happen(&mut self, event: &Event) {
        let now = self.bench.now();
        match event {
            Event::Reserve { want, need } => {
                self.keys.push(key(&self.token, Pool::Core));
                self.ask(self.keys.len() - 1, *want, *need).await;
            }
            Event::Again { back, want } => {
                let Some(at) = self.back(*back) else { return };
                self.ask(at, *want, 1).await;
            }
            Event::Shrink { back, keep } => {
                let Some(at) = self.back(*back) else { return };
                if let Some(lease) = self.model.leases.get_mut(&at) {
                    lease::shrink(&mut self.model.books, lease, Credits(*keep));
                }
                self.bench.store().shrink(&self.keys[at], Credits(*keep)).await.unwrap();
            }
            Event::Settle { back, spent } => {
                let Some(at) = self.back(*back) else { return };
                let lease = self.model.leases.entry(at).or_default();
                lease::settle(&mut self.model.books, lease, Credits(*spent), now);
                let charge = Charge { key: self.keys[at].clone(), cost: 0 };
                self.bench.store().settle(&[settlement(&charge, *spent)]).await.unwrap();
            }
            Event::Renew { back } => {
                let Some(at) = self.back(*back) else { return };
                let lease = self.model.leases.entry(at).or_default();
                let expected = lease::renew(lease, LIFE, now);
                let found = self.bench.store().renew(&self.keys[at..=at], LIFE).await.unwrap();
                assert_eq!(found, [expected]);
            }
            Event::Pass(seconds) => self.bench.pass(SignedDuration::from_secs(*seconds)),
            Event::Limit(limit) => {
                self.model.limit = *limit;
                self.bench.edit(&self.token, |policy| policy.credit_limit.core = *limit).await;
            }
            Event::Budget(budget) => {
                self.model.budget = *budget;
                let mut account = self.bench.store().get_account(&account_id()).await.unwrap().unwrap();
                account.budget.core = *budget;
                self.bench.store().put_account(&account).await.unwrap();
            }
        }
    }

    async fn compare(&mut self) {
        self.expire();
        let store = self.bench.store();
        store.expire(&account_id()).await.unwrap();
        let (token, now) = store.token_usage(&account_id(), &self.token).await.unwrap();
        let (account, _) = store.account_usage(&account_id()).await.unwrap();
        for period in Period::ALL {
            let books = &self.model.books;
            for (found, expected) in [(&token.core, &books.token), (&account.core, &books.account)] {
                assert_eq!(found.used(period, now), expected.used(period, now), "used, {period:?}");
                assert_eq!(found.leased(period, now), expected.leased(period, now), "leased, {period:?}");
            }
        }
        let stranded = store.stranded(&account_id(), &self.token).await.unwrap();
        assert_eq!(stranded.core, self.model.books.stranded);
    }
}

fn run(cases: u32, bench: impl Fn() -> Bench) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(any_event(), 1..60), |events| {
        runtime.block_on(async {
            let mut trial = Trial::new(bench()).await;
            for event in &events {
                trial.happen(event).await;
            }
            trial.compare().await;
        });
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn the_embedded_store_answers_as_the_pure_ledger_does() {
    run(48, Bench::embedded);
}

#[test]
fn redis_answers_as_the_pure_ledger_does() {
    run(48, Bench::redis);
}
