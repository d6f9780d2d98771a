//! The store of a fleet: one Redis that all nodes share.
//!
//! Owns the order of its commands (`seam`, `pointers`, `takes`, `leases`, `cells`, `sums`, `signatures`, `people`) and the way to the servers (`link`, `topology`); one step is one script, so it happens whole or
//! not at all (`scripts`, `*.lua`). Key names come from [`super::keys`], fields from [`super::record`]. The scripts mirror
//! [`crate::ledger::lease`] and [`crate::ledger::pace`]; the conformance suite holds them together. All periods, throttles
//! and graces go by the server's clock. What happens is heard on a connection of its own (`events`).
//!
//! A pointer leads from a digest to a record. The two may lie on different nodes of a cluster, so they cannot be written
//! in one step. So a pointer is only a hint: the record itself says which digests it answers to. Pointers are
//! written before the record and removed after it; one that is left over by a crash leads nowhere and does no harm.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use redis::{Cmd, Pipeline, RedisError, Value};

use super::keys::Keys;
use super::record::{Fields, TokenRecord};
use super::seal::Sealer;
use super::shared_calls::SharedCalls;
use super::{Counted, Listed, Retention, StoreError};
use crate::ledger::Counter;
use crate::policy::record::Account;
use crate::policy::{AccountId, Credits, PerPool, Pool, TokenId};

mod answers;
mod cells;
mod events;
mod leases;
mod link;
mod people;
mod pointers;
mod scripts;
mod seam;
mod signatures;
mod sums;
mod takes;
mod topology;

use answers::{strange, unreadable};
use events::Feed;
use link::{Again, Failure, Link};
use scripts::Scripts;
use takes::{Replicas, SHARING};
use topology::Way;

pub use topology::{Place, RedisServers, RedisTls};

/// How many tokens are read at once, so that each bunch stays within the timeout.
const TOKENS_AT_ONCE: usize = 256;

/// Which clock a Redis store goes by.
#[derive(Debug, Clone)]
pub enum RedisClock {
    /// The server's.
    Store,
    /// This one, in microseconds since the epoch: for tests only.
    Fixed(Arc<AtomicI64>),
}

/// Where the server is, and how to speak to it.
#[derive(Clone)]
pub struct RedisSettings {
    /// The servers.
    pub servers: RedisServers,
    /// Whom TLS trusts; `None`: no TLS is spoken, unless a `rediss` URL says so.
    pub tls: Option<RedisTls>,
    /// The number of the database; `None`: the URL's, or 0.
    pub database: Option<i64>,
    /// The user name; `None`: the URL's, or none.
    pub username: Option<String>,
    /// The password; `None`: the URL's, or none.
    pub password: Option<String>,
    /// What all keys begin with ([`super::keys::DEFAULT_PREFIX`]).
    pub prefix: String,
    /// How long one call may take, connecting included.
    pub timeout: Duration,
    /// How many replicas must have a lease before it is spent from; 0: none. Fewer make [`super::Store::reserve`]
    /// unavailable.
    pub wait_replicas: u32,
    /// How long things are kept.
    pub retention: Retention,
    /// The clock.
    pub clock: RedisClock,
}

impl RedisSettings {
    /// Settings for the server at `url`: default prefix, one second's timeout, the server's clock.
    pub fn new(url: &str) -> Self {
        Self {
            servers: RedisServers::Standalone(url.to_owned()),
            tls: None,
            database: None,
            username: None,
            password: None,
            prefix: super::keys::DEFAULT_PREFIX.to_owned(),
            timeout: Duration::from_secs(1),
            wait_replicas: 0,
            retention: Retention::default(),
            clock: RedisClock::Store,
        }
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Why a Redis store cannot be made. A server that is away is no reason: it is asked when it is needed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none.
    #[error("the Redis address is not usable ({0}); use redis://HOST:PORT/DB")]
    Address(String),
    /// Braces in the prefix would set the hash tag of Redis Cluster.
    #[error("the prefix `{0}` holds a brace; use one without")]
    Prefix(String),
    /// A file of certificates or keys cannot be read.
    #[error("cannot read {path} for TLS to Redis")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates or keys are not usable.
    #[error("TLS to Redis: {0}")]
    Tls(String),
}

/// A store in Redis. The connection is made at the first call and shared by all.
#[derive(Debug)]
pub struct RedisStore {
    desk: Arc<Desk>,
    feed: Feed,
}

/// All that a call needs; calls that several share outlive each of them.
#[derive(Debug)]
struct Desk {
    link: Link,
    keys: Keys,
    scripts: Scripts,
    sealer: Option<Sealer>,
    clock: RedisClock,
    retention: Retention,
    replicas: Option<Replicas>,
    takes: SharedCalls<Self>,
}

impl RedisStore {
    /// Makes the store. It does not speak to the server yet.
    pub fn connect(settings: &RedisSettings, sealer: Option<Sealer>) -> Result<Self, ConnectError> {
        if settings.prefix.contains(['{', '}']) {
            return Err(ConnectError::Prefix(settings.prefix.clone()));
        }
        let way = Arc::new(Way::new(settings)?);
        let keys = Keys::new(&settings.prefix);
        let feed = Feed::new(way.clone(), keys.all_events(), settings.timeout);
        let desk = Arc::new(Desk {
            replicas: Replicas::new(&way, settings.timeout, settings.wait_replicas),
            link: Link::new(way, settings.timeout),
            keys,
            scripts: Scripts::new(),
            sealer,
            clock: settings.clock.clone(),
            retention: settings.retention,
            takes: SharedCalls::new(SHARING),
        });
        Ok(Self { desk, feed })
    }
}

impl Desk {
    /// The time as scripts take it: empty for the server's own.
    fn clock_text(&self) -> String {
        match &self.clock {
            RedisClock::Store => String::new(),
            RedisClock::Fixed(micros) => micros.load(Ordering::SeqCst).to_string(),
        }
    }

    fn time(&self, answer: Value) -> Result<Timestamp, StoreError> {
        match &self.clock {
            RedisClock::Store => answers::time(answer),
            RedisClock::Fixed(micros) => {
                Timestamp::from_microsecond(micros.load(Ordering::SeqCst)).map_err(|_| strange("TIME"))
            }
        }
    }

    /// Reads the hashes at these keys, and the clock.
    async fn read(&self, keys: &[String]) -> Result<(Timestamp, Vec<Result<Value, RedisError>>), StoreError> {
        let mut pipeline = Pipeline::with_capacity(keys.len() + 1);
        pipeline.cmd("TIME");
        for key in keys {
            pipeline.cmd("HGETALL").arg(key);
        }
        pipeline.ignore_errors();
        let unavailable = |failure: Failure| failure.into_store_error("");
        let mut answers = self.link.send(&pipeline, Again::Yes).await.map_err(unavailable)?;
        if answers.len() != keys.len() + 1 {
            return Err(strange("HGETALL"));
        }
        let time = answers.remove(0).map_err(|error| unavailable(error.into()))?;
        Ok((self.time(time)?, answers))
    }

    /// Reads one hash, and the clock.
    async fn read_one(&self, key: &str) -> Result<(Timestamp, Option<Fields>), StoreError> {
        let (now, mut answers) = self.read(&[key.to_owned()]).await?;
        let answer = answers.pop().unwrap_or(Ok(Value::Nil));
        let answer = answer.map_err(|error| Failure::from(error).into_store_error(key))?;
        Ok((now, answers::fields(answer, key)?))
    }

    async fn token(
        &self,
        account: &AccountId,
        id: &TokenId,
    ) -> Result<(Timestamp, Option<TokenRecord>), StoreError> {
        let key = self.keys.token(account, id);
        let (now, fields) = self.read_one(&key).await?;
        let parse =
            |fields| TokenRecord::parse(&fields, account, id).map_err(|problem| unreadable(&key, &problem));
        Ok((now, fields.map(parse).transpose()?))
    }

    /// Runs one script once.
    async fn run(
        &self,
        script: &scripts::Script,
        keys: &[String],
        args: Vec<String>,
        again: Again,
    ) -> Result<Value, StoreError> {
        let answers = self.link.run(script, vec![script.call(keys, args)], again).await;
        let key = keys.first().map(String::as_str).unwrap_or_default();
        answers.map_err(|failure| failure.into_store_error(key))?.pop().ok_or_else(|| strange("a script"))
    }

    async fn ask(&self, command: Cmd, again: Again) -> Result<Value, StoreError> {
        self.link.ask(command, again).await.map_err(|failure| failure.into_store_error("of a digest"))
    }

    /// Counters, what is stranded of them, and the clock.
    async fn counted(&self, key: impl Fn(Pool) -> String) -> Result<Counted, StoreError> {
        let keys = Pool::ALL.map(key);
        let (now, answers) = self.read(&keys).await?;
        Ok(Counted::new(&counters(&keys, answers)?, now))
    }

    /// The same of tokens, with when they were last seen.
    async fn counted_of(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Counted>, StoreError> {
        let mut counted = Vec::with_capacity(ids.len());
        for bunch in ids.chunks(TOKENS_AT_ONCE) {
            let of_token = |id| Pool::ALL.map(|pool| self.keys.used_by_token(account, id, pool));
            let keys: Vec<_> = bunch.iter().flat_map(of_token).collect();
            let seen = self.keys.seen(account);
            let mut pipeline = Pipeline::with_capacity(keys.len() + 2);
            pipeline.cmd("HMGET").arg(&seen);
            for id in bunch {
                pipeline.arg(id.as_str()).arg(format!("{id}|refused"));
            }
            pipeline.cmd("TIME");
            for key in &keys {
                pipeline.cmd("HGETALL").arg(key);
            }
            pipeline.ignore_errors();
            let answers = self.link.send(&pipeline, Again::Yes).await;
            let mut answers = answers.map_err(|failure| failure.into_store_error(""))?.into_iter();
            let mut first = |key: &str| {
                let answer = answers.next().unwrap_or(Ok(Value::Nil));
                answer.map_err(|error| Failure::from(error).into_store_error(key))
            };
            let seen = answers::seen(first(&seen)?, &seen)?;
            let now = self.time(first("")?)?;
            let mut answers = answers.collect::<Vec<_>>().into_iter();
            for (keys, seen) in keys.chunks(Pool::ALL.len()).zip(seen) {
                let kept = counters(keys, answers.by_ref().take(keys.len()))?;
                counted.push(Counted::of_token(&kept, seen, now));
            }
        }
        Ok(counted)
    }

    /// An account's tokens, in order of their ids.
    async fn list(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let key = self.keys.tokens(account);
        let mut range = redis::cmd("ZRANGEBYLEX");
        range.arg(&key).arg(after.map_or("-".to_owned(), |id| format!("({id}"))).arg("+");
        range.arg("LIMIT").arg(0).arg(limit.to_string());
        let answer =
            self.link.ask(range, Again::Yes).await.map_err(|failure| failure.into_store_error(&key))?;
        let ids = answers::texts(answer, "ZRANGEBYLEX")?;
        self.listed_all(account, &ids).await
    }

    /// Tokens that the account's set of ids names.
    async fn listed_all(&self, account: &AccountId, ids: &[String]) -> Result<Vec<Listed>, StoreError> {
        let ids: Vec<TokenId> = ids.iter().filter_map(|id| TokenId::parse(id)).collect();
        let listed = self.listed(account, &ids).await?;
        // Nobody takes a record away: one that is named and not there is a record like any other that cannot be read.
        let gone = |id: TokenId| Listed::Unreadable { id, why: "there is none".to_owned() };
        Ok(ids.into_iter().zip(listed).map(|(id, listed)| listed.unwrap_or_else(|| gone(id))).collect())
    }

    /// Some tokens, as a list tells them; `None`: it is not there.
    async fn listed(&self, account: &AccountId, ids: &[TokenId]) -> Result<Vec<Option<Listed>>, StoreError> {
        let mut listed = Vec::with_capacity(ids.len());
        for bunch in ids.chunks(TOKENS_AT_ONCE) {
            let keys: Vec<_> = bunch.iter().map(|id| self.keys.token(account, id)).collect();
            let (_, records) = self.read(&keys).await?;
            for ((id, key), answer) in bunch.iter().zip(&keys).zip(records) {
                let answer = answer.map_err(|error| Failure::from(error).into_store_error(key));
                let unreadable = |why| Some(Listed::Unreadable { id: id.clone(), why });
                listed.push(match answer.and_then(|answer| answers::fields(answer, key)) {
                    Ok(None) => None,
                    Ok(Some(fields)) => match TokenRecord::parse(&fields, account, id) {
                        Ok(record) => Some(Listed::Token(Box::new(record.into_stored()))),
                        Err(problem) => unreadable(problem.to_string()),
                    },
                    Err(StoreError::Unreadable { why, .. }) => unreadable(why),
                    Err(error) => return Err(error),
                });
            }
        }
        Ok(listed)
    }
}

/// Reads both pools' counters, and what is stranded of them.
fn counters(
    keys: &[String],
    answers: impl IntoIterator<Item = Result<Value, RedisError>>,
) -> Result<PerPool<(Counter, Credits)>, StoreError> {
    let mut counters = PerPool::default();
    for ((pool, key), answer) in Pool::ALL.into_iter().zip(keys).zip(answers) {
        let answer = answer.map_err(|error| Failure::from(error).into_store_error(key))?;
        *counters.get_mut(pool) = answers::counter(answer, key)?;
    }
    Ok(counters)
}

/// A record's fields as arguments.
fn flat(fields: Fields) -> impl Iterator<Item = String> {
    fields.into_iter().flat_map(|(name, value)| [name, value])
}
