//! Random histories: both stores answer as the pure ledger does, whatever happens in whatever order.
//!
//! A history is takings, settlements, edits and steps of the clock. It is run on the embedded store, on Redis and on a
//! model made of [`tollgate::ledger::take`] and two maps; each answer and, at the end, each counter must be the same.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::ledger::{Books, Cell, Counter, Taken, Terms, period_end, take};
use tollgate::policy::record::Account;
use tollgate::policy::{
    AccountId, Credits, Limit, PerPool, Period, Policy, Pool, RateLimit, TokenId, TokenKind,
};
use tollgate::store::{Charge, LeaseId, Settlement};

use super::bench::{Bench, new_id, new_lease, new_value, next};

/// Tokens of a history.
const TOKENS: usize = 2;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// A new taking.
    Take { token: usize, pool: Pool, cost: u64 },
    /// An earlier taking is asked for again, counted from the latest.
    TakeAgain { back: usize },
    /// An earlier taking is settled, perhaps not for the first time.
    Settle { back: usize, spent: u64 },
    /// The clock goes on, or a little back.
    Pass(i64),
    /// The clock goes to just before the end of a period.
    ToTheEndOf(Period, i64),
    /// A token's limit is edited.
    Limit { token: usize, pool: Pool, limit: Option<Limit> },
    /// The account's budget is edited.
    Budget { pool: Pool, budget: Option<Limit> },
    /// A token's rate is edited.
    Rate { token: usize, rate: Option<RateLimit> },
}

fn any_pool() -> impl Strategy<Value = Pool> {
    prop::sample::select(Pool::ALL.to_vec())
}

fn any_limit() -> impl Strategy<Value = Option<Limit>> {
    let period = prop::sample::select(Period::ALL.to_vec());
    let limit = (0u64..25, period).prop_map(|(credits, period)| Limit { credits: Credits(credits), period });
    prop::option::weighted(0.8, limit)
}

fn any_rate() -> impl Strategy<Value = Option<RateLimit>> {
    let rate = (1u32..40, 1u32..6);
    let rate = rate.prop_map(|(requests_per_second, burst)| RateLimit { requests_per_second, burst });
    prop::option::of(rate)
}

fn any_event() -> impl Strategy<Value = Event> {
    let micros = prop_oneof![
        4 => 0i64..200_000,
        2 => 0i64..20_000_000,
        2 => 0i64..4_000_000_000,
        1 => 0i64..100_000_000_000,
        1 => 0i64..5_000_000_000_000,
        1 => -20_000_000i64..0,
    ];
    let period = prop::sample::select(vec![Period::Hour, Period::Day, Period::Month]);
    prop_oneof![
        12 => (0..TOKENS, any_pool(), 0u64..5).prop_map(|(token, pool, cost)| Event::Take { token, pool, cost }),
        2 => (0usize..6).prop_map(|back| Event::TakeAgain { back }),
        6 => (0usize..6, 0u64..5).prop_map(|(back, spent)| Event::Settle { back, spent }),
        5 => micros.prop_map(Event::Pass),
        3 => (period, -2i64..1).prop_map(|(period, micros)| Event::ToTheEndOf(period, micros)),
        2 => (0..TOKENS, any_pool(), any_limit()).prop_map(|(token, pool, limit)| Event::Limit { token, pool, limit }),
        1 => (any_pool(), any_limit()).prop_map(|(pool, budget)| Event::Budget { pool, budget }),
        1 => (0..TOKENS, any_rate()).prop_map(|(token, rate)| Event::Rate { token, rate }),
    ]
}

/// Seconds from 1970 to 2199.
fn any_start() -> impl Strategy<Value = i64> {
    60i64..7_258_000_000
}

/// What the pure ledger makes of it.
#[derive(Default)]
struct Model {
    tokens: HashMap<(usize, Pool), Counter>,
    account: HashMap<Pool, Counter>,
    cells: HashMap<usize, Cell>,
    leases: HashMap<LeaseId, (usize, Taken)>,
}

impl Model {
    fn take(&mut self, of: usize, charge: &Charge, terms: &Terms, now: Timestamp) -> Taken {
        if let Some((_, taken)) = self.lease(charge, now) {
            return taken;
        }
        let mut books = Books {
            token: self.tokens.get(&(of, charge.pool)).copied().unwrap_or_default(),
            account: self.account.get(&charge.pool).copied().unwrap_or_default(),
            cell: self.cells.get(&of).copied().unwrap_or_default(),
        };
        let taken = take(&mut books, terms, charge.cost, now);
        self.tokens.insert((of, charge.pool), books.token);
        self.account.insert(charge.pool, books.account);
        self.cells.insert(of, books.cell);
        if matches!(taken, Taken::Granted(_)) {
            self.leases.insert(charge.lease, (of, taken));
        }
        taken
    }

    fn lease(&self, charge: &Charge, now: Timestamp) -> Option<(usize, Taken)> {
        self.leases.get(&charge.lease).copied().filter(|(_, taken)| {
            let Taken::Granted(standing) = taken else { unreachable!("only what is granted is a lease") };
            now.duration_since(standing.at) < SignedDuration::from_hours(24)
        })
    }

    fn settle(&mut self, charge: &Charge, spent: u64, now: Timestamp) {
        let Some((token, Taken::Granted(standing))) = self.lease(charge, now) else { return };
        self.leases.remove(&charge.lease);
        let back = Credits(charge.cost.0.saturating_sub(spent));
        self.tokens.get_mut(&(token, charge.pool)).unwrap().give_back(back, standing.at);
        self.account.get_mut(&charge.pool).unwrap().give_back(back, standing.at);
    }
}

/// The stores, the model, and what the account and its tokens may do at the moment.
struct Trial<'b> {
    benches: &'b [Bench],
    account: Account,
    policies: Vec<Policy>,
    model: Model,
    charges: Vec<(usize, Charge)>,
    now: Timestamp,
}

impl<'b> Trial<'b> {
    async fn begin(benches: &'b [Bench], start: i64) -> Self {
        let now = Timestamp::from_second(start).unwrap();
        let id = AccountId::parse(&format!("history-{}", next())).unwrap();
        let account = Account { id: id.clone(), created_at: now, budget: PerPool::default(), version: 1 };
        let policy = |_| Policy::new(new_id(), id.clone(), TokenKind::Publishable, now);
        let policies: Vec<_> = (0..TOKENS).map(policy).collect();
        let first = Policy::new(new_id(), id.clone(), TokenKind::Secret, now);
        for bench in benches {
            bench.set_time(now);
            let store = bench.store();
            assert!(store.create_account(&account, &first, &new_value(TokenKind::Secret)).await.unwrap());
            for policy in &policies {
                store.create_token(policy, &new_value(TokenKind::Publishable)).await.unwrap();
            }
        }
        Self { benches, account, policies, model: Model::default(), charges: Vec::new(), now }
    }

    async fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Take { token, pool, cost } => {
                let (account, token_id) = (self.account.id.clone(), self.policies[token].id.clone());
                let lease = new_lease();
                let charge = Charge { lease, account, token: token_id, pool, cost: Credits(cost) };
                self.charges.push((token, charge.clone()));
                self.take(token, &charge).await?;
            }
            Event::TakeAgain { back } => {
                if let Some((token, charge)) = self.charges.iter().rev().nth(back).cloned() {
                    self.take(token, &charge).await?;
                }
            }
            Event::Settle { back, spent } => {
                let Some((_, charge)) = self.charges.iter().rev().nth(back).cloned() else { return Ok(()) };
                self.model.settle(&charge, spent, self.now);
                let settlement = Settlement { charge, spent: Credits(spent) };
                for bench in self.benches {
                    bench.store().settle(std::slice::from_ref(&settlement)).await.unwrap();
                }
            }
            Event::Pass(micros) => {
                self.set_time(self.now.checked_add(SignedDuration::from_micros(micros)).unwrap());
            }
            Event::ToTheEndOf(period, micros) => {
                let end = period_end(period, self.now).unwrap();
                self.set_time(end.checked_add(SignedDuration::from_micros(micros)).unwrap());
            }
            Event::Limit { token, pool, limit } => {
                *self.policies[token].credit_limit.get_mut(pool) = limit;
                self.put_policy(token).await;
            }
            Event::Rate { token, rate } => {
                self.policies[token].rate_limit = rate;
                self.put_policy(token).await;
            }
            Event::Budget { pool, budget } => {
                *self.account.budget.get_mut(pool) = budget;
                for bench in self.benches {
                    bench.store().put_account(&self.account).await.unwrap();
                }
                self.account.version += 1;
            }
        }
        Ok(())
    }

    fn set_time(&mut self, now: Timestamp) {
        self.now = now;
        self.benches.iter().for_each(|bench| bench.set_time(now));
    }

    async fn put_policy(&mut self, token: usize) {
        for bench in self.benches {
            bench.store().put_policy(&self.policies[token]).await.unwrap();
        }
        self.policies[token].version += 1;
    }

    async fn take(&mut self, of: usize, charge: &Charge) -> Result<(), TestCaseError> {
        let policy = &self.policies[of];
        let terms = Terms {
            limit: *policy.credit_limit.get(charge.pool),
            budget: *self.account.budget.get(charge.pool),
            rate: policy.rate_limit,
        };
        let expected = self.model.take(of, charge, &terms, self.now);
        for bench in self.benches {
            let taken = bench.store().take(charge).await.unwrap();
            prop_assert_eq!(taken, expected);
        }
        Ok(())
    }

    async fn check_counters(&self) -> Result<(), TestCaseError> {
        for bench in self.benches {
            let (used, now) = bench.store().account_usage(&self.account.id).await.unwrap();
            prop_assert_eq!(now, self.now);
            for pool in Pool::ALL {
                let expected = self.model.account.get(&pool).copied().unwrap_or_default();
                prop_assert_eq!(*used.get(pool), expected);
            }
            for (token, policy) in self.policies.iter().enumerate() {
                let id: &TokenId = &policy.id;
                let (used, _) = bench.store().token_usage(&self.account.id, id).await.unwrap();
                for pool in Pool::ALL {
                    let expected = self.model.tokens.get(&(token, pool)).copied().unwrap_or_default();
                    prop_assert_eq!(*used.get(pool), expected);
                }
            }
        }
        Ok(())
    }
}

#[test]
fn both_stores_answer_as_the_pure_ledger_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let benches = runtime.block_on(async { Arc::new([Bench::embedded(), Bench::redis()]) });
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let histories = (any_start(), prop::collection::vec(any_event(), 1..60));
    let outcome = runner.run(&histories, |(start, events)| {
        runtime.block_on(async {
            let mut trial = Trial::begin(&benches[..], start).await;
            for event in &events {
                trial.happen(event).await?;
            }
            trial.check_counters().await
        })
    });
    outcome.unwrap();
}
