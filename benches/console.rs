//! How long the calls take that the console's pages make: 10,000 tokens, a year of usage, on either store.
//!
//! `cargo bench --bench console` (started as tests are, without `--bench`, it does nothing); `CONSOLE_APART=1` uses each token on every day and not on every fifth. The bar is 100 ms a call.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use jiff::Timestamp;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate::admin::{Admin, Guard, router};
use tollgate::gate::GuessLimit;
use tollgate::gate::explanation::{Explainer, Explanation, Question};
use tollgate::ledger::lease::Ask;
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{AccountId, Credits, Operation, PerPool, Policy, Pool, Token, TokenId, TokenKind};
use tollgate::store::embedded::{Clock, EmbeddedStore};
use tollgate::store::redis::{RedisSettings, RedisStore};
use tollgate::store::trail::{Actor, Note};
use tollgate::store::{
    LeaseId, LeaseKey, NodeId, RefusalCell, Reserve, Settlement, Store, StoreError, UsageCell,
};
use tower::ServiceExt as _;

const TOKENS: u64 = 10_000;
const DAYS: i64 = 365;
const DATASETS: u64 = 20;
const ROUNDS: usize = 25;
const SECRET: &str = "sk_00112233445566778899aabbccddeeff";

struct NoGate;

#[async_trait::async_trait]
impl Explainer for NoGate {
    async fn explain(&self, _: Question) -> Result<Explanation, StoreError> {
        Err(StoreError::Unavailable("there is no gate".to_owned()))
    }
}

fn account() -> AccountId {
    AccountId::default_account()
}

fn id(at: u64) -> TokenId {
    TokenId::from_ulid(ulid::Ulid::from_parts(1_000_000 + at, 7))
}

fn note() -> Note {
    let (target, changes) = ("bench".to_owned(), Vec::new());
    Note { actor: Actor::Tollgate, client: None, action: "bench", target, changes }
}

fn policy(at: u64) -> Policy {
    let kind = if at == 0 { TokenKind::Secret } else { TokenKind::Publishable };
    let mut policy = Policy::new(id(at), account(), kind, Timestamp::UNIX_EPOCH);
    let city =
        ["Berlin", "Paris", "Rome"].into_iter().nth(usize::try_from(at % 3).unwrap_or(0)).unwrap_or_default();
    policy.nickname = format!("Customer {at} of {city}");
    policy
}

/// Does something for each number, many at a time.
async fn for_all<F>(count: u64, make: impl Fn(u64) -> F) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let mut waiting = JoinSet::new();
    for at in 0..count {
        if waiting.len() >= 64 {
            waiting.join_next().await.context("none")???;
        }
        waiting.spawn(make(at));
    }
    while let Some(done) = waiting.join_next().await {
        done??;
    }
    Ok(())
}

async fn make_tokens(store: &Arc<dyn Store>) -> anyhow::Result<()> {
    let new = Account {
        id: account(),
        created_at: Timestamp::UNIX_EPOCH,
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    };
    let value = Token::parse(SECRET.as_bytes()).context("the secret")?;
    ensure!(store.create_account(&new, &policy(0), &value, &note()).await?);
    for_all(TOKENS - 1, |at| {
        let store = Arc::clone(store);
        let value = Token::from_random(TokenKind::Publishable, u128::from(at + 1).to_be_bytes());
        async move { store.create_token(&policy(at + 1), &value, &note()).await }
    })
    .await
}

/// A year of one token, on every so many-th day; every hundredth token is busy each day.
async fn use_token(store: Arc<dyn Store>, at: u64, today: i64, apart: u64) -> Result<(), StoreError> {
    let day = |back: i64| today - back * 86_400;
    let busy = at.is_multiple_of(100);
    let days = (0..DAYS).filter(|back| busy || (at + back.cast_unsigned()).is_multiple_of(apart));
    let mut cells = Vec::new();
    for back in days {
        for more in 0..if busy { 4 } else { 1 } {
            let hour = day(back) + i64::try_from((at + more) % 24).unwrap_or(0) * 3600;
            let dataset = format!("MY/DATA{}", (at + more * 3 + back.cast_unsigned()) % DATASETS);
            let operation = Operation::Read;
            cells.push(UsageCell { hour, dataset, operation, requests: 3, credits: 7, bytes: 4000 });
        }
    }
    let spent = Credits(cells.iter().map(|cell| cell.credits).sum());
    let lease = LeaseId(ulid::Ulid::from_parts(at + 1, 9));
    let key = LeaseKey { lease, account: account(), token: id(at), pool: Pool::Core };
    let ask = Ask { want: spent, need: spent };
    let node = NodeId(ulid::Ulid(1));
    store.reserve(&Reserve { key: key.clone(), node, ask, life: Duration::from_hours(1) }).await?;
    let refusals: Vec<_> = (0..DAYS)
        .filter(|_| busy)
        .map(|back| RefusalCell { token: Some(id(at)), hour: day(back), code: "domain_denied", count: 2 })
        .collect();
    store.count_refusals(&account(), lease, &refusals).await?;
    store.settle(&[Settlement { key, spent, cells }]).await
}

/// Wrong tokens, as many as one likes.
const NO_LIMIT: GuessLimit = GuessLimit { failures: 0, window: Duration::from_mins(1) };

fn node(store: Arc<dyn Store>) -> Router {
    router(Admin {
        store,
        account: account(),
        explainer: Arc::new(NoGate),
        datasets: Arc::new(Vec::new),
        metrics: Arc::new(String::new),
        metrics_open: true,
        started: tokio::sync::watch::channel(true).1,
        acts_by: tokio::sync::watch::channel(u64::MAX).1,
        guard: Guard::new(NO_LIMIT, Arc::new(|peer, _| peer), &Registry::new()).expect("a guard"),
        now: Timestamp::now,
        version: "bench",
    })
}

async fn call(node: &Router, method: &str, path: &str, body: Body) -> anyhow::Result<usize> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("Authorization", format!("Bearer {SECRET}"))
        .header("Content-Type", "application/json");
    let answer = node.clone().oneshot(request.body(body)?).await?;
    let status = answer.status();
    let bytes = to_bytes(answer.into_body(), usize::MAX).await?;
    ensure!(status.is_success(), "{path}: {}", String::from_utf8_lossy(&bytes));
    let answer: Value = serde_json::from_slice(&bytes)?;
    let list = answer.get("tokens").or(answer.get("rows")).and_then(Value::as_array);
    Ok(list.map_or(0, Vec::len))
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// Times a call; before each of them there may be an edit.
async fn time(node: &Router, what: &str, path: &str, edit: bool) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    let mut rows = 0;
    for round in 0..ROUNDS {
        if edit {
            let body = json!({"nickname": format!("Customer 77 of Rome {round}")}).to_string();
            call(node, "PATCH", &format!("/v1/tokens/{}", id(77)), Body::from(body)).await?;
        }
        let start = Instant::now();
        rows = call(node, "GET", path, Body::empty()).await?;
        times.push(start.elapsed());
    }
    let first = times.first().copied().unwrap_or_default();
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    println!("| {what} | {rows} | {} | {} | {} |", millis(first), millis(at(50)), millis(at(95)));
    Ok(at(95))
}

/// Writes with one store, and measures the other, over the same data.
async fn run(
    name: &str,
    store: Arc<dyn Store>,
    measured: Arc<dyn Store>,
    apart: u64,
) -> anyhow::Result<bool> {
    let start = Instant::now();
    make_tokens(&store).await?;
    let made = start.elapsed();
    let today = Timestamp::now().as_second().div_euclid(86_400) * 86_400;
    let start = Instant::now();
    for_all(TOKENS, |at| use_token(Arc::clone(&store), at, today, apart)).await?;
    println!("\n## {name}: tokens made in {made:.1?}, their year written in {:.1?}\n", start.elapsed());
    println!("| call | rows | first, ms | median, ms | 95%, ms |\n| --- | --- | --- | --- | --- |");
    let node = node(measured);
    // A node that runs has heard that it hears.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let from = Timestamp::from_second(today - (DAYS - 1) * 86_400)?;
    let week = Timestamp::from_second(today - 6 * 86_400)?;
    let calls = [
        ("list, first page", "/v1/tokens?offset=0&limit=50&usage=true".to_owned(), false),
        ("list, last page", "/v1/tokens?offset=9950&limit=50&usage=true".to_owned(), false),
        ("list, 500 by cursor", "/v1/tokens?limit=500&usage=true".to_owned(), false),
        ("search, a third of all", "/v1/tokens?q=rome&offset=0&limit=50&usage=true".to_owned(), false),
        ("search, one", "/v1/tokens?q=customer+4711&limit=50&usage=true".to_owned(), false),
        ("filter, none", "/v1/tokens?status=revoked&limit=50&usage=true".to_owned(), false),
        ("search after an edit", "/v1/tokens?q=rome&offset=0&limit=50&usage=true".to_owned(), true),
        ("a year by day", format!("/v1/usage?by=day&from={from}"), false),
        ("a year by day, refusals too", format!("/v1/usage?by=day&refusals_by=day&from={from}"), false),
        ("a year by month", format!("/v1/usage?by=month&from={from}"), false),
        ("a year by data set", format!("/v1/usage?by=dataset&from={from}"), false),
        ("a year by operation", format!("/v1/usage?by=operation&from={from}"), false),
        ("a year by token", format!("/v1/usage?by=token&from={from}"), false),
        ("a week by hour", format!("/v1/usage?by=hour&from={week}"), false),
        ("thirty days by token", "/v1/usage?by=token".to_owned(), false),
        ("a busy token's year by day", format!("/v1/tokens/{}/usage?from={from}", id(100)), false),
    ];
    let mut good = true;
    for (what, path, edit) in calls {
        let took = time(&node, what, &path, edit).await?;
        // A row for each of all tokens is more than a page shows.
        good &= took < Duration::from_millis(100) || what == "a year by token";
    }
    Ok(good)
}

/// A server that ends with the bench.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_redis(folder: &Path) -> anyhow::Result<(Server, String)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(folder);
    let server = Server(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    let url = format!("redis://127.0.0.1:{port}");
    let client = redis::Client::open(url.as_str())?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.get_connection().is_err() {
        ensure!(Instant::now() < deadline, "redis-server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((server, url))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // As tests are started, without `--bench`, nothing is timed.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let apart = std::env::var("CONSOLE_APART").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir()?;
    println!("{TOKENS} tokens, each used on every {apart}. day of {DAYS}, every hundredth on each day");
    let store = EmbeddedStore::open(&folder.path().join("store.redb"), None, Clock::system())?;
    let store: Arc<dyn Store> = Arc::new(store);
    let embedded = run("embedded", store.clone(), store, apart).await?;
    let (_server, url) = start_redis(folder.path())?;
    let mut settings = RedisSettings::new(&url);
    settings.timeout = Duration::from_secs(10);
    let patient = RedisStore::connect(&settings, None)?;
    // In use it is 40 ms, on a machine of its own.
    settings.timeout = Duration::from_millis(250);
    let measured = RedisStore::connect(&settings, None)?;
    let in_redis = run("Redis", Arc::new(patient), Arc::new(measured), apart).await?;
    ensure!(embedded && in_redis, "some calls took 100 ms or more");
    Ok(())
}
