//! Passes and leases: what requests wait for. Asks that come while a call is under way share the next one, so that a thousand
//! tokens of which each asks for a little cost the server little more than one that asks for much ([`crate::store::shared_calls`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use tokio::runtime::Handle;

use super::Desk;
use super::answers::{self, strange};
use super::leases::{closing, drawn_on, micros};
use super::link::{Again, Copies, Failure, Link};
use super::topology::Way;
use crate::ledger::lease::Reserved;
use crate::policy::{AccountId, TokenId};
use crate::store::record::{budget_field, limit_field};
use crate::store::shared_calls::{Called, Caller, SharedCalls, Sharing};
use crate::store::{Paced, Reserve, StoreError};

/// Connections for calls that wait for replicas. The server holds a connection still until the replicas have answered, so
/// these calls must not go over the one that all others use.
const WAITING: usize = 4;

/// Waiting for replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    links: [Link; WAITING],
    next: AtomicUsize,
    count: u32,
    /// How long the server waits: less than the call may take, so that it can say how many replicas there were.
    patience: Duration,
}

impl Replicas {
    /// Waiting for so many replicas; `None`: for none.
    pub(super) fn new(way: &Arc<Way>, timeout: Duration, count: u32) -> Option<Self> {
        let links = std::array::from_fn(|_| Link::new(way.clone(), timeout));
        let patience = (timeout * 3 / 4).max(Duration::from_millis(1));
        (count > 0).then(|| Self { links, next: AtomicUsize::new(0), count, patience })
    }

    fn link(&self) -> Option<&Link> {
        self.links.get(self.next.fetch_add(1, Ordering::Relaxed) % WAITING)
    }

    fn wait(&self) -> Cmd {
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.count).arg(self.patience.as_millis().to_string());
        wait
    }

    /// Whether there were enough; else why it is not to be spent.
    fn check(&self, answer: Value) -> Result<(), String> {
        match u32::from_redis_value(answer) {
            Ok(had) if had >= self.count => Ok(()),
            Ok(had) => Err(format!("{had} replicas have the lease, and `wait_replicas` is {}", self.count)),
            Err(_) => Err(strange("WAIT").to_string()),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Take {
    /// Passes of a token's throttle: so many.
    Passes(TokenId, u32),
    /// A lease.
    Lease(Reserve),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Taken {
    /// Of asking for passes.
    Passes(Paced),
    /// Of asking for a lease.
    Lease(Reserved),
}

/// What asks have in common that may share a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    account: AccountId,
    /// Whether replicas must have it: passes do not wait for them.
    copied: bool,
}

/// How they share calls: a script holds up all others while it runs.
pub(super) const SHARING: Sharing = Sharing {
    batch: 64,
    flights: 4,
    late: Duration::from_millis(5),
    waiting: usize::MAX,
    gather: Duration::ZERO,
    in_turn: false,
};

impl Caller for Desk {
    type Key = Kind;
    type Ask = Take;
    type Answer = Result<Taken, StoreError>;

    fn shared(&self) -> &SharedCalls<Self> {
        &self.takes
    }

    async fn call(&self, kind: &Kind, takes: Vec<Take>) -> Called<Self::Answer> {
        match self.take_all(kind, &takes).await {
            Ok(answers) => Called::Answered(answers),
            Err(why) => Called::Failed(Box::new(move || Err(StoreError::Unavailable(why.clone())))),
        }
    }
}

impl Desk {
    pub(super) async fn reserve(self: &Arc<Self>, reserve: &Reserve) -> Result<Reserved, StoreError> {
        let copied = self.replicas.is_some();
        match self.take(&reserve.key.account, copied, Take::Lease(reserve.clone())).await? {
            Taken::Lease(reserved) => Ok(reserved),
            Taken::Passes(_) => Err(strange("take.lua")),
        }
    }

    pub(super) async fn pace(
        self: &Arc<Self>,
        account: &AccountId,
        token: &TokenId,
        want: u32,
    ) -> Result<Paced, StoreError> {
        match self.take(account, false, Take::Passes(token.clone(), want)).await? {
            Taken::Passes(paced) => Ok(paced),
            Taken::Lease(_) => Err(strange("take.lua")),
        }
    }

    async fn take(
        self: &Arc<Self>,
        account: &AccountId,
        copied: bool,
        take: Take,
    ) -> Result<Taken, StoreError> {
        let kind = Kind { account: account.clone(), copied };
        let unanswered = || Err(StoreError::Unavailable("the call was given up".to_owned()));
        match SharedCalls::ask(self, &Handle::current(), &kind, take) {
            Some(told) => told.await.unwrap_or_else(|_| unanswered()),
            None => unanswered(),
        }
    }

    /// Takes all in one call, and says what came of each. One whose keys hold something of another type fails the call of all:
    /// then each is asked for alone, so that it holds up nobody but itself. The error: the server could not be asked.
    async fn take_all(&self, kind: &Kind, takes: &[Take]) -> Result<Vec<Result<Taken, StoreError>>, String> {
        match self.take_at_once(kind, takes).await {
            Ok(answers) => return Ok(answers),
            Err(StoreError::Unavailable(why)) => return Err(why),
            Err(error) if takes.len() == 1 => return Ok(vec![Err(error)]),
            Err(_) => {}
        }
        let mut answers = Vec::with_capacity(takes.len());
        for take in takes {
            match self.take_at_once(kind, std::slice::from_ref(take)).await {
                Ok(one) => answers.extend(one),
                // The others would wait for nothing, one after another. What was taken is lost, as with any lost answer.
                Err(StoreError::Unavailable(why)) => return Err(why),
                Err(error) => answers.push(Err(error)),
            }
        }
        Ok(answers)
    }

    async fn take_at_once(
        &self,
        kind: &Kind,
        takes: &[Take],
    ) -> Result<Vec<Result<Taken, StoreError>>, StoreError> {
        let script = &self.scripts.take;
        let waiting = self.replicas.as_ref().filter(|_| kind.copied);
        let waiting = waiting.and_then(|all| Some((all, all.link()?)));
        let link = waiting.map_or(&self.link, |(_, link)| link);
        let mut calls = vec![self.take_call(&kind.account, takes)];
        // Together: the server waits for what this connection wrote last.
        calls.extend(waiting.map(|(replicas, _)| replicas.wait()));
        let answers = link.run_and_count(script, calls, Again::Yes).await;
        let first = takes.first().map(|take| self.keys.token(&kind.account, take.token()));
        let failed = |failure: Failure| failure.into_store_error(first.as_deref().unwrap_or_default());
        let (answers, copies) = answers.map_err(failed)?;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or_else(|| strange("take.lua"));
        let mut taken = answers::all_taken(next()?, takes.len())?;
        let had = match waiting {
            Some((replicas, _)) => replicas.check(next()?),
            None => Ok(()),
        };
        for (take, taken) in takes.iter().zip(&mut taken) {
            let (Take::Lease(reserve), Ok(Taken::Lease(reserved))) = (take, &taken) else { continue };
            let after = match (reserved, copies) {
                (Reserved::Granted(_), _) => had.clone().map_err(StoreError::Unavailable),
                (Reserved::Void, _) | (_, Copies::One) => Ok(()),
                // Nothing is remembered of a lease that was refused, and whoever asked forgets it: a copy that is still
                // under way could be granted, and nobody would know.
                (_, Copies::More) => self.run_settle(&[closing(&reserve.key)]).await,
            };
            if let Err(error) = after {
                *taken = Err(error);
            }
        }
        Ok(taken)
    }

    fn take_call(&self, account: &AccountId, takes: &[Take]) -> Cmd {
        let mut keys = vec![self.keys.account(account), self.keys.leases(account)];
        let leases = takes.iter().filter(|take| matches!(take, Take::Lease(_))).count();
        let mut args = vec![micros(self.retention.stranded), self.clock_text(), leases.to_string()];
        for take in takes {
            keys.push(self.keys.token(account, take.token()));
            match take {
                Take::Passes(token, want) => {
                    keys.push(self.keys.pace(account, token));
                    args.extend(["pass".to_owned(), want.to_string()]);
                }
                Take::Lease(Reserve { key, node, ask, life }) => {
                    keys.push(self.keys.used_by_token(account, &key.token, key.pool));
                    keys.push(self.keys.used_by_account(account, key.pool));
                    keys.push(self.keys.lease(account, key.lease));
                    let (limit, budget) = (limit_field(key.pool), budget_field(key.pool));
                    args.extend(["lease", limit, budget].map(str::to_owned));
                    args.extend([drawn_on(key), key.lease.0.to_string(), node.0.to_string()]);
                    args.extend([ask.want.to_string(), ask.need.to_string(), micros(*life)]);
                }
            }
        }
        self.scripts.take.call(&keys, args)
    }
}

impl Take {
    fn token(&self) -> &TokenId {
        match self {
            Self::Passes(token, _) => token,
            Self::Lease(reserve) => &reserve.key.token,
        }
    }
}
