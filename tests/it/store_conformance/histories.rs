//! Random histories: both stores answer as the pure ledger does, whatever happens in whatever order.
//!
//! A history is leases asked for, shrunk, settled, renewed and left to expire, each perhaps twice, late, or in the name of
//! another token; throttles; edits of limits and rates; and steps of the clock, from the middle of a month to a year on.
//! It is run on the embedded store, on Redis and on a model made of [`tollgate::ledger`] and some maps ([`model`]); each
//! answer and, at the end of each history, each counter and each cell of usage must be the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::ledger::lease::{Ask, LeaseTerms, Reserved};
use tollgate::ledger::period_end;
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{
    AccountId, Credits, Limit, Operation, PerPool, Period, Policy, Pool, RateLimit, TokenId, TokenKind,
};
use tollgate::store::{Counted, LeaseId, LeaseKey, NodeId, Paced, Reserve, Settlement, UsageCell, UsageRow};

use super::bench::{Bench, Raw, a_note, new_id, new_lease, new_value, next};

mod model;

use model::{Model, Of, Wanted};

/// Tokens of a history.
const TOKENS: usize = 3;
/// Days that a store keeps usage.
const KEPT_DAYS: i64 = 400;

/// One thing that happens. An earlier lease is counted from the latest.
#[derive(Debug, Clone)]
enum Event {
    /// A new lease is asked for.
    Reserve {
        of: Of,
        want: u64,
        need: u64,
        life: i64,
    },
    /// An earlier one is asked for again.
    Again {
        back: usize,
        want: u64,
        need: u64,
    },
    /// An earlier one is asked for, shrunk, renewed and settled as if it were of another token or pool.
    Stranger {
        back: usize,
        of: Of,
    },
    /// A lease is settled that is asked for only later.
    SettleFirst {
        of: Of,
        spent: u64,
    },
    Shrink {
        back: usize,
        keep: u64,
    },
    Settle {
        back: usize,
        spent: u64,
        hours_ago: i64,
        dataset: usize,
    },
    /// Two earlier ones, and the first once more.
    SettleMany {
        back: usize,
        spent: u64,
    },
    Renew {
        back: usize,
        many: usize,
        life: i64,
    },
    Expire,
    Pace {
        token: usize,
        want: u32,
    },
    /// Some of these at once, so that they may share a call.
    Together(Vec<Event>),
    /// The clock goes on, or a little back.
    Pass(i64),
    /// The clock goes to just before the end of a period, or on it.
    ToTheEndOf(Period, i64),
    Limit {
        of: Of,
        limit: Option<Limit>,
    },
    Budget {
        pool: Pool,
        budget: Option<Limit>,
    },
    Rate {
        token: usize,
        rate: Option<RateLimit>,
    },
}

fn any_pool() -> impl Strategy<Value = Pool> {
    prop::sample::select(vec![Pool::Core, Pool::Core, Pool::Premium])
}

fn any_of() -> impl Strategy<Value = Of> {
    (0..TOKENS, any_pool())
}

fn any_limit() -> impl Strategy<Value = Option<Limit>> {
    let period = prop::sample::select(Period::ALL.to_vec());
    let limit = (0u64..60, period).prop_map(|(credits, period)| Limit { credits: Credits(credits), period });
    prop::option::weighted(0.8, limit)
}

fn any_rate() -> impl Strategy<Value = Option<RateLimit>> {
    let rate = (prop_oneof![1u32..40, 100u32..2000], prop_oneof![1u32..6, 50u32..400]);
    let rate = rate.prop_map(|(requests_per_second, burst)| RateLimit { requests_per_second, burst });
    prop::option::weighted(0.8, rate)
}

fn any_step() -> impl Strategy<Value = Event> {
    let micros = prop_oneof![
        4 => 0i64..200_000,
        4 => 0i64..20_000_000,
        2 => 0i64..200_000_000,
        2 => 0i64..4_000_000_000,
        1 => 0i64..100_000_000_000,
        1 => 0i64..5_000_000_000_000,
        1 => -20_000_000i64..0,
    ];
    let period = prop::sample::select(vec![Period::Hour, Period::Day, Period::Month]);
    prop_oneof![
        5 => micros.prop_map(Event::Pass),
        2 => (period, -2i64..1).prop_map(|(period, micros)| Event::ToTheEndOf(period, micros)),
    ]
}

/// What requests wait for.
fn any_ask() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (any_of(), 0u64..20, 0u64..6, 1i64..120)
            .prop_map(|(of, more, need, life)| Event::Reserve { of, want: need + more, need, life }),
        2 => (0usize..8, 0u64..9, 0u64..3)
            .prop_map(|(back, more, need)| Event::Again { back, want: need + more, need }),
        2 => (0..TOKENS, 0u32..300).prop_map(|(token, want)| Event::Pace { token, want }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let back = 0usize..8;
    prop_oneof![
        16 => any_ask(),
        2 => prop::collection::vec(any_ask(), 2..30).prop_map(Event::Together),
        1 => (back.clone(), any_of()).prop_map(|(back, of)| Event::Stranger { back, of }),
        1 => (any_of(), 0u64..5).prop_map(|(of, spent)| Event::SettleFirst { of, spent }),
        3 => (back.clone(), 0u64..9).prop_map(|(back, keep)| Event::Shrink { back, keep }),
        6 => (back.clone(), 0u64..9, 0i64..30, 0usize..2)
            .prop_map(|(back, spent, hours_ago, dataset)| Event::Settle { back, spent, hours_ago, dataset }),
        1 => (back.clone(), 0u64..9).prop_map(|(back, spent)| Event::SettleMany { back, spent }),
        2 => (back, 1usize..4, 1i64..120)
            .prop_map(|(back, many, life)| Event::Renew { back, many, life }),
        2 => Just(Event::Expire),
        7 => any_step(),
        2 => (any_of(), any_limit()).prop_map(|(of, limit)| Event::Limit { of, limit }),
        1 => (any_pool(), any_limit()).prop_map(|(pool, budget)| Event::Budget { pool, budget }),
        1 => (0..TOKENS, any_rate()).prop_map(|(token, rate)| Event::Rate { token, rate }),
    ]
}

/// Seconds from 1970 to 2199.
fn any_start() -> impl Strategy<Value = i64> {
    60i64..7_258_000_000
}

/// What a store is asked for.
#[derive(Debug)]
enum Asking {
    Reserve(Reserve),
    Pace(AccountId, TokenId, u32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Reserved(Reserved),
    Paced(Paced),
}

impl Asking {
    async fn answer(&self, bench: &Bench) -> Answer {
        match self {
            Self::Reserve(reserve) => Answer::Reserved(bench.store().reserve(reserve).await.unwrap()),
            Self::Pace(account, token, want) => {
                Answer::Paced(bench.store().pace(account, token, *want).await.unwrap())
            }
        }
    }
}

/// The stores, the model, and what the account and its tokens may do at the moment.
struct Trial<'b> {
    benches: &'b [Bench],
    account: Account,
    policies: Vec<Policy>,
    model: Model,
    asked: Vec<(LeaseId, Of)>,
    now: Timestamp,
}

impl<'b> Trial<'b> {
    async fn begin(benches: &'b [Bench], start: i64) -> Self {
        let now = Timestamp::from_second(start).unwrap();
        let id = AccountId::parse(&format!("history-{}", next())).unwrap();
        let account = Account {
            id: id.clone(),
            created_at: now,
            budget: PerPool::default(),
            pay_as_you_go: PayAsYouGo::default(),
            version: 1,
        };
        let policy = |_| Policy::new(new_id(), id.clone(), TokenKind::Publishable, now);
        let policies: Vec<_> = (0..TOKENS).map(policy).collect();
        let first = Policy::new(new_id(), id.clone(), TokenKind::Secret, now);
        for bench in benches {
            bench.set_time(now);
            let store = bench.store();
            assert!(
                store
                    .create_account(&account, &first, &new_value(TokenKind::Secret), &a_note())
                    .await
                    .unwrap()
            );
            for policy in &policies {
                store.create_token(policy, &new_value(TokenKind::Publishable), &a_note()).await.unwrap();
            }
        }
        // An account and its first token, and the others.
        let model = Model { epoch: 2 + TOKENS as u64, ..Model::default() };
        Self { benches, account, policies, model, asked: Vec::new(), now }
    }

    fn key(&self, lease: LeaseId, (token, pool): Of) -> LeaseKey {
        let token = self.policies[token].id.clone();
        LeaseKey { lease, account: self.account.id.clone(), token, pool }
    }

    fn back(&self, back: usize) -> Option<(LeaseId, Of)> {
        self.asked.iter().rev().nth(back).copied()
    }

    async fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Reserve { .. } | Event::Again { .. } | Event::Pace { .. } => {
                let Some((ask, expected)) = self.ask(event) else { return Ok(()) };
                self.check(&ask, expected).await?;
            }
            Event::Together(ref events) => {
                // How many of the expired leases are closed depends on how many calls there are: so none is left.
                self.expire().await?;
                let asks: Vec<_> = events.iter().filter_map(|event| self.ask(event)).collect();
                for bench in self.benches {
                    let answers = match bench.raw {
                        Raw::Redis(_) => join_all(asks.iter().map(|(ask, _)| ask.answer(bench))).await,
                        // Each is a step of its own there, and they come in any order.
                        Raw::Embedded(_) => {
                            let mut answers = Vec::new();
                            for (ask, _) in &asks {
                                answers.push(ask.answer(bench).await);
                            }
                            answers
                        }
                    };
                    for (answer, (ask, expected)) in answers.iter().zip(&asks) {
                        prop_assert_eq!(answer, expected, "{:?}", ask);
                    }
                }
            }
            Event::Stranger { back, of } => {
                let Some((lease, _)) = self.back(back) else { return Ok(()) };
                self.shrink(lease, of, 0).await;
                self.renew(&[(lease, of)], 60).await?;
                self.settle(&[(lease, of)], 0, 0, 0).await;
                let (ask, expected) = self.reserve(lease, of, (3, 1), 30);
                self.check(&ask, expected).await?;
            }
            Event::SettleFirst { of, spent } => {
                let lease = new_lease();
                self.asked.push((lease, of));
                self.settle(&[(lease, of)], spent, 0, 0).await;
            }
            Event::Shrink { back, keep } => {
                let Some((lease, of)) = self.back(back) else { return Ok(()) };
                self.shrink(lease, of, keep).await;
            }
            Event::Settle { back, spent, hours_ago, dataset } => {
                let Some(asked) = self.back(back) else { return Ok(()) };
                self.settle(&[asked], spent, hours_ago, dataset).await;
            }
            Event::SettleMany { back, spent } => {
                let (Some(one), Some(two)) = (self.back(back), self.back(back + 1)) else { return Ok(()) };
                self.settle(&[one, two, one], spent, 1, 1).await;
            }
            Event::Renew { back, many, life } => {
                let asked: Vec<_> = (back..back + many).filter_map(|back| self.back(back)).collect();
                self.renew(&asked, life).await?;
            }
            Event::Expire => self.expire().await?,
            _ => self.change(event).await,
        }
        Ok(())
    }

    /// The clock, and edits.
    async fn change(&mut self, event: &Event) {
        let later = |time: Timestamp, micros| time.checked_add(SignedDuration::from_micros(micros)).unwrap();
        match *event {
            Event::Pass(micros) => self.set_time(later(self.now, micros)),
            Event::ToTheEndOf(period, micros) => {
                self.set_time(later(period_end(period, self.now).unwrap(), micros));
            }
            Event::Limit { of: (token, pool), limit } => {
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
                    bench.store().put_account(&self.account, &a_note()).await.unwrap();
                }
                self.account.version += 1;
                self.model.epoch += 1;
            }
            _ => unreachable!("{event:?} is no change"),
        }
    }

    fn set_time(&mut self, now: Timestamp) {
        self.now = now;
        self.benches.iter().for_each(|bench| bench.set_time(now));
    }

    async fn put_policy(&mut self, token: usize) {
        for bench in self.benches {
            bench.store().put_policy(&self.policies[token], &a_note()).await.unwrap();
        }
        self.policies[token].version += 1;
        self.model.epoch += 1;
    }

    async fn expire(&mut self) -> Result<(), TestCaseError> {
        let expected = self.model.close(256, self.now);
        for bench in self.benches {
            prop_assert_eq!(bench.store().expire(&self.account.id).await.unwrap(), expected);
        }
        Ok(())
    }

    /// Both stores answer as the model does.
    async fn check(&self, ask: &Asking, expected: Answer) -> Result<(), TestCaseError> {
        for bench in self.benches {
            prop_assert_eq!(ask.answer(bench).await, expected);
        }
        Ok(())
    }

    /// What an event asks of the stores, and what the model answers.
    fn ask(&mut self, event: &Event) -> Option<(Asking, Answer)> {
        Some(match *event {
            Event::Reserve { of, want, need, life } => {
                let lease = new_lease();
                self.asked.push((lease, of));
                self.reserve(lease, of, (want, need), life)
            }
            Event::Again { back, want, need } => {
                let (lease, of) = self.back(back)?;
                self.reserve(lease, of, (want, need), 30)
            }
            Event::Pace { token, want } => {
                let Policy { rate_limit, id, .. } = &self.policies[token];
                let expected = self.model.pace(token, *rate_limit, want, self.now);
                (Asking::Pace(self.account.id.clone(), id.clone(), want), Answer::Paced(expected))
            }
            _ => unreachable!("{event:?} asks for nothing"),
        })
    }

    fn reserve(&mut self, lease: LeaseId, of: Of, (want, need): (u64, u64), life: i64) -> (Asking, Answer) {
        let life = Duration::from_secs(life.unsigned_abs());
        let limit = *self.policies[of.0].credit_limit.get(of.1);
        let terms = LeaseTerms { limit, budget: *self.account.budget.get(of.1), life };
        let ask = Ask { want: Credits(want), need: Credits(need) };
        let expected = self.model.reserve(lease, &Wanted { of, ask, terms }, self.now);
        let reserve = Reserve { key: self.key(lease, of), node: NodeId(ulid::Ulid(1)), ask, life };
        (Asking::Reserve(reserve), Answer::Reserved(expected))
    }

    async fn shrink(&mut self, lease: LeaseId, of: Of, keep: u64) {
        self.model.shrink(lease, of, Credits(keep), self.now);
        for bench in self.benches {
            bench.store().shrink(&self.key(lease, of), Credits(keep)).await.unwrap();
        }
    }

    /// Settles leases, each with `spent` in two cells.
    async fn settle(&mut self, leases: &[(LeaseId, Of)], spent: u64, hours_ago: i64, dataset: usize) {
        let hour = self.now.as_second() - self.now.as_second() % 3600;
        let dataset = ["", "MY/A|B c"][dataset].to_owned();
        let cell = |hour, operation, credits| {
            let dataset = dataset.clone();
            UsageCell { hour, dataset, operation, requests: 1, credits, bytes: credits * 1000 }
        };
        let earlier = hour - hours_ago * 3600;
        let cells =
            [cell(hour, Operation::Read, spent / 2), cell(earlier, Operation::Write, spent - spent / 2)];
        let mut settlements = Vec::new();
        for (lease, of) in leases {
            self.model.settle(*lease, *of, Credits(spent), &cells, self.now);
            let key = self.key(*lease, *of);
            settlements.push(Settlement { key, spent: Credits(spent), cells: cells.to_vec() });
        }
        for bench in self.benches {
            bench.store().settle(&settlements).await.unwrap();
        }
    }

    async fn renew(&mut self, leases: &[(LeaseId, Of)], life: i64) -> Result<(), TestCaseError> {
        let life = Duration::from_secs(life.unsigned_abs());
        let (mut expected, mut keys) = (Vec::new(), Vec::new());
        for (lease, of) in leases {
            expected.push(self.model.renew(*lease, *of, life, self.now));
            keys.push(self.key(*lease, *of));
        }
        for bench in self.benches {
            prop_assert_eq!(&bench.store().renew(&keys, life).await.unwrap(), &expected);
        }
        Ok(())
    }

    async fn check_books(&self) -> Result<(), TestCaseError> {
        self.model.check();
        for bench in self.benches {
            let (store, account) = (bench.store(), &self.account.id);
            prop_assert_eq!(store.epoch(account).await.unwrap(), self.model.epoch);
            let Counted { counters: used, stranded, at, .. } = store.account_usage(account).await.unwrap();
            prop_assert_eq!(at, self.now);
            for pool in Pool::ALL {
                let expected = self.model.account.get(&pool).copied().unwrap_or_default();
                prop_assert_eq!((*used.get(pool), *stranded.get(pool)), expected);
            }
            for (token, policy) in self.policies.iter().enumerate() {
                let counted = store.token_usage(account, &policy.id).await.unwrap();
                let Counted { counters: used, stranded, .. } = counted;
                for pool in Pool::ALL {
                    let expected = self.model.tokens.get(&(token, pool)).copied().unwrap_or_default();
                    prop_assert_eq!((*used.get(pool), *stranded.get(pool)), expected);
                }
            }
        }
        Ok(())
    }

    /// The rows of usage that there must be.
    fn rows(&self, of: Option<usize>) -> Vec<UsageRow> {
        let kept = |hour: i64| {
            let day_ends = hour - hour.rem_euclid(86_400) + 86_400;
            day_ends + KEPT_DAYS * 86_400 > self.now.as_second()
        };
        let cells = self
            .model
            .cells
            .iter()
            .filter(|((hour, (token, _), ..), _)| kept(*hour) && of.is_none_or(|of| of == *token));
        let row = |((hour, (token, pool), dataset, operation), numbers): (&model::CellName, &[u64; 3])| {
            let [requests, credits, bytes] = *numbers;
            let (dataset, operation) = (dataset.clone(), *operation);
            let cell = UsageCell { hour: *hour, dataset, operation, requests, credits, bytes };
            UsageRow::Used { token: self.policies[*token].id.clone(), pool: *pool, cell }
        };
        cells.map(row).collect()
    }

    async fn check_usage(&self) -> Result<(), TestCaseError> {
        let order = |rows: &mut Vec<UsageRow>| rows.sort_by_key(|row| format!("{row:?}"));
        for of in [None, Some(0), Some(1)] {
            let mut expected = self.rows(of);
            order(&mut expected);
            let mut in_order = None;
            for bench in self.benches {
                let token: Option<&TokenId> = of.map(|of| &self.policies[of].id);
                let (from, to) = (Timestamp::MIN, Timestamp::MAX);
                let rows = bench.store().usage(&self.account.id, token, from, to).await.unwrap();
                let first = in_order.get_or_insert_with(|| rows.clone());
                prop_assert_eq!(&rows, first, "both stores tell them in one order");
                let mut rows = rows;
                order(&mut rows);
                prop_assert_eq!(&rows, &expected);
            }
        }
        Ok(())
    }
}

#[test]
fn both_stores_answer_as_the_pure_ledger_does() {
    // One thread: what is asked together is all asked before the first call is made.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let benches = runtime.block_on(async { Arc::new([Bench::embedded(), Bench::redis()]) });
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let histories = (any_start(), prop::collection::vec(any_event(), 1..80));
    let outcome = runner.run(&histories, |(start, events)| {
        runtime.block_on(async {
            let mut trial = Trial::begin(&benches[..], start).await;
            for event in &events {
                trial.happen(event).await?;
            }
            trial.check_books().await?;
            trial.check_usage().await
        })
    });
    outcome.unwrap();
}
