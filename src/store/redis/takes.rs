//! Passes and leases: what requests wait for. Asks that come while a call is under way share the next one, so that a thousand
//! tokens of which each asks for a little cost the server little more than one that asks for much ([`queue`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Value};

use super::Desk;
use super::answers::{self, strange};
use super::leases::{closing, drawn_on, micros};
use super::link::{Again, Copies, Failure, Link};
use super::topology::Way;
use crate::ledger::lease::Reserved;
use crate::policy::{AccountId, TokenId};
use crate::store::record::{budget_field, limit_field};
use crate::store::{Paced, Reserve, StoreError};

mod queue;

use queue::{Queue, Waiting};

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
struct Kind {
    account: AccountId,
    /// Whether replicas must have it: passes do not wait for them.
    copied: bool,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Takes {
    queues: Mutex<HashMap<Kind, Queue>>,
}

/// One of the calls that may be under way. Dropped before its end, by a panic or with its runtime, it leaves its place to
/// another, and those that waited for it are told.
struct Flight {
    desk: Arc<Desk>,
    kind: Kind,
    ended: bool,
}

impl Flight {
    async fn run(mut self) {
        while !self.ended {
            let batch = self.next_batch();
            if batch.is_empty() {
                continue;
            }
            let takes: Vec<Take> = batch.iter().map(|waiting| waiting.take.clone()).collect();
            match self.desk.take_all(&self.kind, &takes).await {
                Ok(answers) => {
                    for (waiting, answer) in batch.into_iter().zip(answers) {
                        waiting.tell(answer);
                    }
                }
                Err(error) => {
                    // Those behind them would learn the same, only later.
                    let behind = self.queue(|queue| std::mem::take(&mut queue.waiting));
                    for waiting in batch.into_iter().chain(behind.unwrap_or_default()) {
                        waiting.tell(Err(StoreError::Unavailable(error.clone())));
                    }
                }
            }
        }
    }

    fn queue<T>(&self, then: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        self.desk.takes.queues.lock().get_mut(&self.kind).map(then)
    }

    /// The next asks; none: it has ended.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let mut queues = self.desk.takes.queues.lock();
        let Some(queue) = queues.get_mut(&self.kind) else {
            self.ended = true;
            return Vec::new();
        };
        let batch = queue.next_batch();
        if batch.is_empty() {
            self.ended = true;
            if queue.land() {
                queues.remove(&self.kind);
            }
        }
        batch
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.ended {
            let mut queues = self.desk.takes.queues.lock();
            if queues.get_mut(&self.kind).is_some_and(Queue::land) {
                queues.remove(&self.kind);
            }
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
        let (told, begins) = {
            let mut queues = self.takes.queues.lock();
            queues.entry(kind.clone()).or_default().enqueue(take)
        };
        if begins {
            tokio::spawn(Flight { desk: self.clone(), kind, ended: false }.run());
        }
        told.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the call was given up".to_owned())))
    }

    /// Takes all in one call, and says what came of each. One whose keys hold something of another type fails the call of all:
    /// then each is asked for alone, so that it holds up nobody but itself. The error: the server could not be asked.
    async fn take_all(&self, kind: &Kind, takes: &[Take]) -> Result<Vec<Result<Taken, StoreError>>, String> {
        let mut answers = Vec::with_capacity(takes.len());
        match self.take_at_once(kind, takes).await {
            Ok(all) => answers = all,
            Err(StoreError::Unavailable(why)) => return Err(why),
            Err(error) if takes.len() == 1 => answers.push(Err(error)),
            Err(_) => {
                for take in takes {
                    match self.take_at_once(kind, std::slice::from_ref(take)).await {
                        Ok(one) => answers.extend(one),
                        Err(error) => answers.push(Err(error)),
                    }
                }
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
