//! The list of tokens, searched and filtered: whole, and never staler than the store.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::{Value, json};
use tollgate::admin::{Admin, Guard, router};
use tollgate::gate::GuessLimit;
use tollgate::gate::explanation::{Explainer, Explanation, Question};
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{AccountId, PerPool, Policy, Pool, Token, TokenId, TokenKind};
use tollgate::store::embedded::{Clock, EmbeddedStore};
use tollgate::store::redis::{RedisSettings, RedisStore};
use tollgate::store::{Store, StoreError};
use tower::ServiceExt as _;

use super::books;
use super::desk::{Desk, FIRST_ID, SECRET};
use super::moody_store::Mood;
use crate::harness::redis_server::RedisServer;
use crate::store_conformance::a_note;

fn get(desk: &Desk, path: &str) -> Value {
    desk.call("GET", path, Value::Null).expect(200).json()
}

fn ids(page: &Value) -> Vec<String> {
    let tokens = page["tokens"].as_array().unwrap();
    tokens.iter().map(|token| token["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    let desk = Desk::start();
    let long = format!("q={}", "x".repeat(201));
    // (query, the parameters at fault, what is said)
    let table: [(&str, &[&str], &str); 17] = [
        ("offset=-1", &["offset"], "a whole number"),
        ("offset=", &["offset"], "a whole number"),
        ("offset=%2B1", &["offset"], "a whole number"),
        ("offset=99999999999999999999999", &["offset"], "a whole number"),
        ("status=sleepy", &["status"], "active, disabled, revoked, expired"),
        ("status=", &["status"], "one of"),
        ("status=active&status=active", &["status"], "twice"),
        ("type=public", &["type"], "publishable or secret"),
        ("usage=yes", &["usage"], "true or false"),
        ("usage", &["usage"], "true or false"),
        ("limit=0&offset=0", &["limit"], "from 1 to 500"),
        ("cursor=x&q=a", &["cursor"], "next_cursor"),
        (&long, &["q"], "at most 200 characters"),
        ("search=a", &["search"], "limit, cursor, offset, q, status, type, usage"),
        ("q=sk_00112233445566778899aabbccddeeff", &["q"], "holds a secret"),
        ("q=my+SS_00112233", &["q"], "holds a secret"),
        ("status=x&q=sk%5F00112233445566778899aabbccddeeff&type=y", &["q", "status", "type"], ""),
    ];
    for (query, at_fault, says) in table {
        let answer = desk.call("GET", &format!("/v1/tokens?{query}"), Value::Null).expect(400);
        assert_eq!(
            (answer.code(), answer.pointers()),
            ("invalid_parameters".to_owned(), at_fault.iter().map(|name| (*name).to_owned()).collect()),
            "{query}"
        );
        assert!(answer.text.contains(says), "{query}: {}", answer.text);
        assert!(!answer.text.contains("0011"), "{query}: {}", answer.text);
    }
    let cursor = get(&desk, "/v1/tokens?limit=1&offset=0");
    assert_eq!(cursor["next_cursor"], Value::Null);
    let second = desk.create(json!({}));
    let cursor = get(&desk, "/v1/tokens?limit=1&offset=0")["next_cursor"].as_str().unwrap().to_owned();
    let both = desk.call("GET", &format!("/v1/tokens?cursor={cursor}&offset=0"), Value::Null).expect(400);
    assert_eq!(both.pointers(), ["offset"]);
    assert_eq!(
        ids(&get(&desk, &format!("/v1/tokens?cursor={cursor}&q=tok_"))),
        [second["id"].as_str().unwrap()]
    );
}

#[test]
fn what_is_found_is_counted_shown_and_filtered() {
    let desk = Desk::start();
    let create = |fields: Value| {
        let token = desk.create(fields);
        (token["id"].as_str().unwrap().to_owned(), token["token"].as_str().unwrap().to_owned())
    };
    let (cars, value) = create(json!({"nickname": "Cars of the Über-Shop"}));
    let (boats, _) = create(json!({"nickname": "Boats of the shop", "status": "disabled"}));
    let (secret, _) = create(json!({"nickname": "Shop server", "type": "secret"}));
    let (gone, _) = create(json!({"nickname": "old shop"}));
    desk.call("DELETE", &format!("/v1/tokens/{gone}"), Value::Null).expect(200);
    let all = [FIRST_ID, &cars, &boats, &secret, &gone];
    let of_id = format!("q={}", cars[10..].to_lowercase());
    let of_value = format!("q={value}");
    let table: [(&str, &[&str]); 14] = [
        ("offset=0", &all),
        ("q=", &all),
        ("offset=2", &all[2..]),
        ("offset=9", &[]),
        ("q=SHOP", &all[1..]),
        ("q=%C3%BCBER", &[&cars]),
        ("q=shop+of", &[&cars, &boats]),
        (&of_id, &[&cars]),
        (&of_value, &[&cars]),
        ("status=active", &[FIRST_ID, &cars, &secret]),
        ("status=disabled", &[&boats]),
        ("status=revoked&q=shop", &[&gone]),
        ("type=secret", &[FIRST_ID, &secret]),
        ("type=publishable&status=active&q=shop", &[&cars]),
    ];
    for (query, found) in table {
        let answer = desk.call("GET", &format!("/v1/tokens?{query}"), Value::Null).expect(200);
        assert_eq!(answer.header("cache-control"), "no-store");
        let page = answer.json();
        assert_eq!(ids(&page), found, "{query}");
        let total = if query.starts_with("offset") { all.len() } else { found.len() };
        assert_eq!((&page["total"], &page["next_cursor"]), (&json!(total), &Value::Null), "{query}");
    }
    let plain = get(&desk, "/v1/tokens");
    assert_eq!(plain.get("total"), None);
    assert_eq!(plain["tokens"], get(&desk, "/v1/tokens?offset=0")["tokens"]);
    // What is searched for is followed by a cursor, too.
    let page = get(&desk, "/v1/tokens?q=shop&limit=3");
    assert_eq!(
        (ids(&page), &page["total"]),
        (all[1..4].iter().map(|id| (*id).to_owned()).collect(), &json!(4))
    );
    let rest = get(&desk, &format!("/v1/tokens?q=shop&cursor={}", page["next_cursor"].as_str().unwrap()));
    assert_eq!((ids(&rest), &rest["next_cursor"]), (vec![gone], &Value::Null));
    // A record nobody can read is found by its id, and is in no state.
    desk.mood(Mood::Unreadable(TokenId::parse(&boats).unwrap()));
    let page = get(&desk, "/v1/tokens?offset=2&limit=1");
    assert_eq!(page["tokens"][0]["status"], "unreadable");
    let page = get(&desk, &format!("/v1/tokens?q={boats}&usage=true"));
    assert_eq!((ids(&page), &page["tokens"][0]["status"]), (vec![boats], &json!("unreadable")));
    desk.mood(Mood::Down);
    assert_eq!(desk.call("GET", "/v1/tokens?q=shop", Value::Null).expect(503).code(), "store_unavailable");
}

#[test]
fn a_token_that_ends_is_expired_without_an_edit() {
    let desk = Desk::start();
    let ends = Timestamp::now() + jiff::SignedDuration::from_millis(1500);
    let id = desk.create(json!({"expires_at": ends.to_string(), "nickname": "brief"}))["id"].clone();
    let found = |status: &str| ids(&get(&desk, &format!("/v1/tokens?q=brief&status={status}")));
    let deadline = Instant::now() + Duration::from_secs(20);
    while found("active") == [id.as_str().unwrap()] {
        assert!(Instant::now() < deadline, "it does not end");
    }
    assert!(Timestamp::now() >= ends);
    assert_eq!(found("expired"), [id.as_str().unwrap()]);
}

#[test]
fn rows_show_what_was_used_and_when_if_asked() {
    let desk = Desk::start();
    let limit = json!({"core": {"credits": 100, "period": "none"}});
    let id = desk.create(json!({"credit_limit": limit}))["id"].as_str().unwrap().to_owned();
    let idle = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    let before = Timestamp::now().as_second();
    books::spend(&desk, &id, Pool::Core, vec![books::cell(books::hour(Timestamp::now()), "MY/CARS", 40)]);
    books::refuse(&desk, Some(&id), books::hour(Timestamp::now()) - 7200, "no_route", 1);
    for query in ["usage=true", "usage=true&offset=0", "usage=true&q=tok_&status=active"] {
        let page = get(&desk, &format!("/v1/tokens?{query}"));
        let rows = page["tokens"].as_array().unwrap();
        assert_eq!(rows.len(), 3, "{query}");
        for row in rows {
            assert_eq!(row, &desk.read(row["id"].as_str().unwrap()), "{query}");
        }
        let core = &rows[1]["usage"]["core"];
        assert_eq!((&core["used"], &core["remaining"]), (&json!(40), &json!(60)), "{query}");
        let used: Timestamp = rows[1]["last_used_at"].as_str().unwrap().parse().unwrap();
        assert!((before..=Timestamp::now().as_second()).contains(&used.as_second()), "{used}");
        let refused: Timestamp = rows[1]["last_refused_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(refused.as_second() % 3600, 3599, "{refused}");
        assert_eq!((&rows[2]["id"], &rows[2]["last_used_at"]), (&json!(idle), &Value::Null));
        assert!(rows[2].get("last_refused_at").is_some());
    }
    for query in ["", "?usage=false", "?offset=0"] {
        let row = get(&desk, &format!("/v1/tokens{query}"))["tokens"][1].clone();
        assert!(
            ["usage", "last_used_at", "last_refused_at"].iter().all(|name| row.get(name).is_none()),
            "{row}"
        );
    }
}

/// An admin API without a socket.
struct Node {
    router: Router,
}

/// Wrong tokens, as many as one likes.
const NO_LIMIT: GuessLimit = GuessLimit { failures: 0, window: Duration::from_mins(1) };

struct NoGate;

#[async_trait::async_trait]
impl Explainer for NoGate {
    async fn explain(&self, _: Question) -> Result<Explanation, StoreError> {
        Err(StoreError::Unavailable("there is no gate".to_owned()))
    }
}

impl Node {
    fn over(store: Arc<dyn Store>) -> Self {
        let admin = Admin {
            store,
            account: AccountId::default_account(),
            explainer: Arc::new(NoGate),
            datasets: Arc::new(Vec::new),
            metrics: Arc::new(String::new),
            metrics_open: true,
            started: tokio::sync::watch::channel(true).1,
            acts_by: tokio::sync::watch::channel(u64::MAX).1,
            guard: Guard::new(NO_LIMIT, Arc::new(|peer, _| peer), &Registry::new()).expect("a guard"),
            now: Timestamp::now,
            version: "test",
        };
        Self { router: router(admin) }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Authorization", format!("Bearer {SECRET}"))
            .header("Content-Type", "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

async fn make_account(store: &dyn Store) {
    let account = Account {
        id: AccountId::default_account(),
        created_at: Timestamp::UNIX_EPOCH,
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    };
    let id = TokenId::parse(FIRST_ID).unwrap();
    let first = Policy::new(id, account.id.clone(), TokenKind::Secret, Timestamp::UNIX_EPOCH);
    let value = Token::parse(SECRET.as_bytes()).unwrap();
    assert!(store.create_account(&account, &first, &value, &a_note()).await.unwrap());
}

fn embedded(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(&folder.path().join("store"), None, Clock::system()).unwrap())
}

fn in_redis(server: &RedisServer) -> Arc<dyn Store> {
    let mut settings = RedisSettings::new(&server.url());
    settings.timeout = Duration::from_secs(10);
    Arc::new(RedisStore::connect(&settings, None).unwrap())
}

/// What one node writes the other finds, at once.
async fn edits_show_at_once(one: &Node, other: &Node) {
    let found = async |node: &Node, query: &str| {
        let page = node.get(&format!("/v1/tokens?{query}")).await;
        let nicknames = page["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| token["nickname"].as_str().unwrap().to_owned());
        (page["total"].as_u64().unwrap(), nicknames.collect::<Vec<_>>())
    };
    assert_eq!(found(other, "q=ship").await, (0, vec![]));
    let (status, token) = one.call("POST", "/v1/tokens", json!({"nickname": "ship"})).await;
    assert_eq!(status, 201);
    let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
    assert_eq!(found(other, "q=ship").await, (1, vec!["ship".to_owned()]));
    for round in 0..30 {
        let (from, to) = if round % 2 == 0 { (one, other) } else { (other, one) };
        let name = format!("ship {round}");
        assert_eq!(from.call("PATCH", &path, json!({"nickname": name})).await.0, 200);
        assert_eq!(found(to, &format!("q=ship+{round}")).await, (1, vec![name.clone()]), "{round}");
        assert_eq!(from.call("PATCH", "/v1/account", json!({"budget": null})).await.0, 200);
        assert_eq!(found(to, &format!("q={round}&status=active&type=publishable")).await.0, 1, "{round}");
    }
    assert_eq!(one.call("POST", &format!("{path}/rotate"), json!({})).await.0, 200);
    assert_eq!(found(other, &format!("q={}", token["token"].as_str().unwrap())).await.0, 0, "the old value");
    assert_eq!(one.call("DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(found(other, "q=ship&status=active").await, (0, vec![]));
    assert_eq!(found(other, "q=ship&status=revoked").await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_through_one_router_shows_in_the_others_search() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(&folder);
    make_account(&*store).await;
    edits_show_at_once(&Node::over(store.clone()), &Node::over(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_through_one_node_shows_in_the_others_search() {
    let server = RedisServer::start();
    let (one, other) = (in_redis(&server), in_redis(&server));
    make_account(&*one).await;
    edits_show_at_once(&Node::over(one), &Node::over(other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_true_though_the_news_was_lost() {
    let server = RedisServer::start();
    let (one, other) = (in_redis(&server), in_redis(&server));
    make_account(&*one).await;
    let (one, other) = (Node::over(one), Node::over(other));
    let (_, token) = one.call("POST", "/v1/tokens", json!({"nickname": "ship"})).await;
    let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for round in 0..5 {
        assert_eq!(other.get("/v1/tokens?q=ship").await["total"], 1, "{round}");
        // Nobody hears of what happens until the connection is back.
        let kill =
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await;
        let _: i64 = kill.unwrap();
        assert_eq!(one.call("PATCH", &path, json!({"nickname": "boat"})).await.0, 200);
        assert_eq!(other.get("/v1/tokens?q=ship").await["total"], 0, "{round}");
        assert_eq!(one.call("PATCH", &path, json!({"nickname": "ship"})).await.0, 200);
    }
}

/// Ten thousand tokens, every seventh of them of the moon; their ids.
async fn make_many(store: &Arc<dyn Store>) -> Vec<String> {
    const TOKENS: u64 = 10_000;
    let mut made = Vec::new();
    let mut waiting = tokio::task::JoinSet::new();
    for at in 0..TOKENS {
        let id = TokenId::from_ulid(ulid::Ulid::from_parts(1_000_000 + at, 7));
        made.push(id.to_string());
        let account = AccountId::default_account();
        let mut policy = Policy::new(id, account, TokenKind::Publishable, Timestamp::UNIX_EPOCH);
        policy.nickname = if at % 7 == 0 { format!("Moon {at}") } else { format!("customer {at}") };
        let value = Token::from_random(TokenKind::Publishable, u128::from(at + 1).to_be_bytes());
        let store = Arc::clone(store);
        waiting.spawn(async move { store.create_token(&policy, &value, &a_note()).await });
    }
    while let Some(created) = waiting.join_next().await {
        created.unwrap().unwrap();
    }
    made
}

async fn pages_of_many(store: Arc<dyn Store>) {
    make_account(&*store).await;
    let node = Node::over(Arc::clone(&store));
    // Before they are made, so that they are heard of, and not only read.
    assert_eq!(node.get("/v1/tokens?q=tok_").await["total"], 1);
    let mut made = make_many(&store).await;
    let moons: Vec<_> = made.iter().step_by(7).cloned().collect();
    made.insert(0, FIRST_ID.to_owned());
    for (query, expected, limit) in [("usage=true", &made, 500), ("q=moon", &moons, 100)] {
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let offset = seen.len();
            let page = node.get(&format!("/v1/tokens?{query}&limit={limit}&offset={offset}")).await;
            assert_eq!(page["total"], expected.len(), "{query}");
            assert_eq!(page["next_cursor"].is_null(), offset + limit >= expected.len(), "{query} {offset}");
            let more = ids(&page);
            assert!(more.len() == limit.min(expected.len() - offset), "{query} {offset}: {}", more.len());
            seen.extend(more);
        }
        assert_eq!(&seen, expected, "{query}");
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = node.get(&format!("/v1/tokens?{query}&limit=500{cursor}")).await;
            seen.extend(ids(&page));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(&seen, expected, "{query} by cursor");
    }
    assert_eq!(ids(&node.get("/v1/tokens?q=customer+9998").await), made[9999..10_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tokens_are_each_on_one_page() {
    let folder = tempfile::tempdir().unwrap();
    pages_of_many(embedded(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tokens_in_redis_are_each_on_one_page() {
    let server = RedisServer::start();
    pages_of_many(in_redis(&server)).await;
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_of_a_value_that_is_searched_for_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = embedded(&folder);
            make_account(&*store).await;
            let node = Node::over(store);
            let (_, token) = node.call("POST", "/v1/tokens", json!({"nickname": "ship"})).await;
            let value = token["token"].as_str().unwrap();
            assert_eq!(node.get(&format!("/v1/tokens?q={value}")).await["total"], 1);
            let refused = node.call("GET", &format!("/v1/tokens?q={SECRET}"), Value::Null).await;
            assert_eq!(refused.0, 400);
            let wrong = node.call("PUT", &format!("/v1/tokens?q={value}"), Value::Null).await;
            assert_eq!(wrong.0, 405);
            let logged = String::from_utf8(log.0.lock().clone()).unwrap();
            assert!(logged.contains("admin call"), "the log is heard: {logged}");
            for secret in [&value[3..11], &SECRET[3..11]] {
                assert!(!logged.contains(secret), "{logged}");
            }
        });
    });
}
