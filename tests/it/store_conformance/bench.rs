//! A store on the bench: its clock can be set, its raw records can be spoilt and searched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tempfile::TempDir;
use tollgate::ledger::lease::{Ask, Reserved};
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{
    AccountId, Credits, Limit, Operation, PerPool, Policy, Pool, Token, TokenId, TokenKind,
};
use tollgate::store::embedded::{Clock, EmbeddedStore};
use tollgate::store::redis::{RedisClock, RedisSettings, RedisStore};
use tollgate::store::seal::Sealer;
use tollgate::store::trail::{Actor, Note};
use tollgate::store::{
    Counted, LeaseId, LeaseKey, NodeId, Reserve, Retention, Settlement, Store, StoreError, UsageCell, Written,
};

use crate::harness::redis_server::RedisServer;

/// Where the store keeps its data.
pub enum Raw {
    /// In this folder's `store.redb`.
    Embedded(TempDir),
    /// In this server.
    Redis(RedisServer),
}

/// A store, and what a test needs around it.
pub struct Bench {
    pub store: Option<Arc<dyn Store>>,
    pub raw: Raw,
    retention: Retention,
    micros: Arc<AtomicI64>,
}

/// Numbers for ids and values, so that no two of a test are alike.
static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::SeqCst)
}

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn account_id() -> AccountId {
    AccountId::default_account()
}

pub fn new_id() -> TokenId {
    TokenId::from_ulid(ulid::Ulid::from_parts(next(), 0))
}

pub fn new_lease() -> LeaseId {
    LeaseId(ulid::Ulid::from_parts(next(), 1))
}

/// A token value that can be searched for: its digits are no accident.
pub fn new_value(kind: TokenKind) -> Token {
    Token::from_random(kind, (0xfeed_u128 << 112 | u128::from(next())).to_be_bytes())
}

#[allow(clippy::unnecessary_wraps, reason = "every place that takes a limit takes an `Option`")]
pub fn limit(text: &str) -> Option<Limit> {
    Some(Limit::parse(text).unwrap())
}

/// A note, for whoever needs just some.
pub fn a_note() -> Note {
    Note {
        actor: Actor::Tollgate,
        client: None,
        action: "test.write",
        target: "a test".to_owned(),
        changes: Vec::new(),
    }
}

pub fn sealer() -> Sealer {
    Sealer::new(&[9; 32])
}

const TOKENS: TableDefinition<'static, &str, &str> = TableDefinition::new("tokens");
const ACCOUNTS: TableDefinition<'static, &str, &str> = TableDefinition::new("accounts");

impl Bench {
    fn new(raw: Raw) -> Self {
        let micros = Arc::new(AtomicI64::new(time("2026-11-24T06:00:00Z").as_microsecond()));
        let mut bench = Self { store: None, raw, retention: Retention::default(), micros };
        bench.reopen(Some(sealer()));
        bench
    }

    pub fn embedded() -> Self {
        Self::new(Raw::Embedded(tempfile::tempdir().unwrap()))
    }

    pub fn redis() -> Self {
        Self::new(Raw::Redis(RedisServer::start()))
    }

    /// Another store of the same kind, empty.
    pub fn fresh(&self) -> Self {
        match self.raw {
            Raw::Embedded(_) => Self::embedded(),
            Raw::Redis(_) => Self::redis(),
        }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Closes the store and opens it again; from now on it keeps things for so long.
    pub fn keep_for(&mut self, retention: Retention) {
        self.retention = retention;
        self.reopen(Some(sealer()));
    }

    /// Closes the store and opens it again over the same data.
    pub fn reopen(&mut self, sealer: Option<Sealer>) {
        self.store = None;
        let micros = Arc::clone(&self.micros);
        let store: Arc<dyn Store> = match &self.raw {
            Raw::Embedded(_) => {
                let now = move || Timestamp::from_microsecond(micros.load(Ordering::SeqCst)).unwrap();
                let (file, clock) = (self.file(), Clock::new(now));
                Arc::new(EmbeddedStore::open_keeping(&file, sealer, clock, self.retention).unwrap())
            }
            Raw::Redis(server) => {
                let mut settings = RedisSettings::new(&server.url());
                settings.clock = RedisClock::Fixed(micros);
                settings.retention = self.retention;
                settings.timeout = Duration::from_secs(10);
                Arc::new(RedisStore::connect(&settings, sealer).unwrap())
            }
        };
        self.store = Some(store);
    }

    pub fn file(&self) -> PathBuf {
        match &self.raw {
            Raw::Embedded(folder) => folder.path().join("store.redb"),
            Raw::Redis(_) => panic!("Redis has no file"),
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.micros.load(Ordering::SeqCst)).unwrap()
    }

    pub fn set_time(&self, now: Timestamp) {
        self.micros.store(now.as_microsecond(), Ordering::SeqCst);
    }

    pub fn pass(&self, time: SignedDuration) {
        self.set_time(self.now().checked_add(time).unwrap());
    }

    /// Makes the default account with these budgets, and its first token, a secret one.
    pub async fn make_account(&self, budget: PerPool<Option<Limit>>) -> (TokenId, Token) {
        self.make_account_named(&account_id(), budget).await
    }

    pub async fn make_account_named(
        &self,
        id: &AccountId,
        budget: PerPool<Option<Limit>>,
    ) -> (TokenId, Token) {
        let account = Account {
            id: id.clone(),
            created_at: self.now(),
            budget,
            pay_as_you_go: PayAsYouGo::default(),
            version: 1,
        };
        let first = Policy::new(new_id(), id.clone(), TokenKind::Secret, self.now());
        let value = new_value(TokenKind::Secret);
        assert!(self.store().create_account(&account, &first, &value, &a_note()).await.unwrap());
        (first.id, value)
    }

    /// Makes a publishable token of the default account, edited as told.
    pub async fn make_token(&self, edit: impl FnOnce(&mut Policy)) -> (Policy, Token) {
        self.make_token_of(TokenKind::Publishable, edit).await
    }

    pub async fn make_token_of(&self, kind: TokenKind, edit: impl FnOnce(&mut Policy)) -> (Policy, Token) {
        let mut policy = Policy::new(new_id(), account_id(), kind, self.now());
        edit(&mut policy);
        let value = new_value(kind);
        self.store().create_token(&policy, &value, &a_note()).await.unwrap();
        (policy, value)
    }

    /// Edits a token's stored policy.
    pub async fn edit(&self, id: &TokenId, edit: impl FnOnce(&mut Policy)) {
        let mut policy = self.store().get_token(&account_id(), id).await.unwrap().unwrap().policy;
        edit(&mut policy);
        let written = self.store().put_policy(&policy, &a_note()).await.unwrap();
        assert_eq!(written, Written::Done { version: policy.version + 1 });
    }

    /// Takes `cost` from a token's core pool.
    pub async fn take(&self, id: &TokenId, cost: u64) -> (Charge, Reserved) {
        let charge = charge(id, Pool::Core, cost);
        let taken = self.store().take(&charge).await.unwrap();
        (charge, taken)
    }

    pub async fn settle(&self, charge: &Charge, spent: u64) {
        self.store().settle(&[settlement(charge, spent)]).await.unwrap();
    }

    /// What counts against a token's limit in its core pool, in the month: used and leased.
    pub async fn used(&self, id: &TokenId) -> u64 {
        let Counted { counters, at: now, .. } = self.store().token_usage(&account_id(), id).await.unwrap();
        counters.core.committed(tollgate::policy::Period::Month, now).0
    }

    /// What the account used of its core pool, in the month.
    pub async fn used_by_account(&self) -> u64 {
        let Counted { counters, at: now, .. } = self.store().account_usage(&account_id()).await.unwrap();
        counters.core.committed(tollgate::policy::Period::Month, now).0
    }

    /// Changes the raw fields of a token's record behind the store's back.
    pub async fn spoil_token(&mut self, id: &TokenId, spoil: impl FnOnce(&mut BTreeMap<String, String>)) {
        self.spoil(TOKENS, format!("{}/{id}", account_id()), format!("tg:{{default}}:token:{id}"), spoil)
            .await;
    }

    /// Changes the raw fields of the account's record behind the store's back.
    pub async fn spoil_account(&mut self, spoil: impl FnOnce(&mut BTreeMap<String, String>)) {
        self.spoil(ACCOUNTS, account_id().to_string(), "tg:{default}:account".to_owned(), spoil).await;
    }

    async fn spoil(
        &mut self,
        table: TableDefinition<'static, &str, &str>,
        in_file: String,
        in_redis: String,
        spoil: impl FnOnce(&mut BTreeMap<String, String>),
    ) {
        if let Raw::Redis(server) = &self.raw {
            let mut connection = connect(server).await;
            let mut fields: BTreeMap<String, String> = ask(&mut connection, &["HGETALL", &in_redis]).await;
            spoil(&mut fields);
            let _: i64 = ask(&mut connection, &["DEL", &in_redis]).await;
            for (name, value) in fields {
                let _: i64 = ask(&mut connection, &["HSET", &in_redis, &name, &value]).await;
            }
            return;
        }
        self.store = None;
        {
            let database = Database::create(self.file()).unwrap();
            let transaction = database.begin_write().unwrap();
            {
                let mut table = transaction.open_table(table).unwrap();
                let text = table.get(in_file.as_str()).unwrap().unwrap().value().to_owned();
                let mut fields = serde_json::from_str(&text).unwrap();
                spoil(&mut fields);
                table.insert(in_file.as_str(), serde_json::json!(fields).to_string().as_str()).unwrap();
            }
            transaction.commit().unwrap();
        }
        self.reopen(Some(sealer()));
    }

    /// The raw fields of a token's record.
    pub async fn raw_token(&mut self, id: &TokenId) -> BTreeMap<String, String> {
        let mut seen = BTreeMap::new();
        self.spoil_token(id, |fields| seen.clone_from(fields)).await;
        seen
    }

    /// Everything that is stored, as bytes to be searched.
    pub async fn everything(&mut self) -> Vec<u8> {
        if let Raw::Redis(server) = &self.raw {
            return everything_in(server).await;
        }
        self.store = None;
        let bytes = std::fs::read(self.file()).unwrap();
        self.reopen(Some(sealer()));
        bytes
    }
}

/// A lease for one request: the smallest use of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub key: LeaseKey,
    pub cost: u64,
}

/// How long leases of these tests live.
pub const LIFE: Duration = Duration::from_secs(30);

pub fn key(id: &TokenId, pool: Pool) -> LeaseKey {
    LeaseKey { lease: new_lease(), account: account_id(), token: id.clone(), pool }
}

pub fn charge(id: &TokenId, pool: Pool, cost: u64) -> Charge {
    Charge { key: key(id, pool), cost }
}

pub fn reserve(key: &LeaseKey, want: u64, need: u64) -> Reserve {
    let ask = Ask { want: Credits(want), need: Credits(need) };
    Reserve { key: key.clone(), node: NodeId(ulid::Ulid(1)), ask, life: LIFE }
}

/// Stores lease for one request.
pub trait Takes: Store {
    fn take(&self, charge: &Charge) -> impl Future<Output = Result<Reserved, StoreError>> + Send {
        let reserve = reserve(&charge.key, charge.cost, charge.cost);
        async move { self.reserve(&reserve).await }
    }
}

impl<T: Store + ?Sized> Takes for T {}

/// A settlement of this much, for one response of one data set.
pub fn settlement(charge: &Charge, spent: u64) -> Settlement {
    let cell = UsageCell {
        hour: 1_795_500_000,
        dataset: "MY/CARS".to_owned(),
        operation: Operation::Read,
        requests: 1,
        credits: spent,
        bytes: 10,
    };
    Settlement { key: charge.key.clone(), spent: Credits(spent), cells: vec![cell] }
}

/// A connection behind the store's back.
pub async fn connect(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Sends one command behind the store's back.
pub async fn ask<T: redis::FromRedisValue>(
    connection: &mut redis::aio::MultiplexedConnection,
    words: &[&str],
) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(connection).await.unwrap()
}

async fn everything_in(server: &RedisServer) -> Vec<u8> {
    let mut connection = connect(server).await;
    let mut everything = Vec::new();
    let keys: Vec<String> = ask(&mut connection, &["KEYS", "*"]).await;
    for key in keys {
        let kind: String = ask(&mut connection, &["TYPE", &key]).await;
        let read: &[&str] = match kind.as_str() {
            "string" => &["GET", &key],
            "hash" => &["HGETALL", &key],
            "set" => &["SMEMBERS", &key],
            "stream" => &["XRANGE", &key, "-", "+"],
            "zset" => &["ZRANGE", &key, "0", "-1"],
            other => panic!("a key of type {other}"),
        };
        let value: redis::Value = ask(&mut connection, read).await;
        everything.extend_from_slice(key.as_bytes());
        everything.push(b'\n');
        append(&mut everything, &value);
    }
    everything
}

fn append(everything: &mut Vec<u8>, value: &redis::Value) {
    match value {
        redis::Value::BulkString(bytes) => everything.extend_from_slice(bytes),
        redis::Value::Array(values) => values.iter().for_each(|value| append(everything, value)),
        redis::Value::Map(pairs) => {
            for (name, value) in pairs {
                append(everything, name);
                append(everything, value);
            }
        }
        other => everything.extend_from_slice(format!("{other:?}").as_bytes()),
    }
    everything.push(b'\n');
}

/// Reads a whole table of the file, to see what is in it.
pub fn rows(bench: &mut Bench, table: &'static str) -> Vec<(String, String)> {
    bench.store = None;
    let rows = {
        let database = Database::create(bench.file()).unwrap();
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(TableDefinition::<&str, &str>::new(table)).unwrap();
        let row = |entry: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &str>), _>| {
            let (key, value) = entry.unwrap();
            (key.value().to_owned(), value.value().to_owned())
        };
        table.iter().unwrap().map(row).collect()
    };
    bench.reopen(Some(sealer()));
    rows
}
