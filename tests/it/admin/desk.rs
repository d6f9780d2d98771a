//! An admin API and its console that run for one test: its own store in its own folder, its own port, a gate that answers as told.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tollgate::admin::{Admin, Guard, router, serve};
use tollgate::gate::GuessLimit;
use tollgate::gate::explanation::{Explainer, Explanation, Question, Step};
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{AccountId, PerPool, Policy, Token, TokenId, TokenKind};
use tollgate::store::embedded::{Clock, EmbeddedStore};
use tollgate::store::seal::Sealer;
use tollgate::store::{Store, StoreError};

use super::moody_store::{Mood, MoodyStore};
use crate::store_conformance::a_note;

/// The account's first secret token.
pub(crate) const SECRET: &str = "sk_00112233445566778899aabbccddeeff";
/// The account's first token's id.
pub(crate) const FIRST_ID: &str = "tok_00000000010000000000000001";
/// Wrong tokens, as many as one likes.
const NO_LIMIT: GuessLimit = GuessLimit { failures: 0, window: Duration::from_mins(1) };

/// A running admin API.
pub(crate) struct Desk {
    /// Where it is, without a slash at its end.
    pub(crate) url: String,
    /// Its store.
    pub(crate) store: Arc<MoodyStore>,
    /// The questions the gate was asked.
    pub(crate) asked: Arc<Mutex<Vec<Question>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    runtime: Option<tokio::runtime::Runtime>,
    _folder: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }

    /// The body's `code`.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A header's text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// The pointers, or parameters, of the fields that were refused, in their order.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let json = self.json();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        let place =
            |error: &Value| error["pointer"].as_str().or(error["parameter"].as_str()).map(str::to_owned);
        errors.iter().filter_map(place).collect()
    }

    /// Expects a status, and hands the answer on.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl Desk {
    /// Starts with an account and its first secret token, [`SECRET`].
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Some(Sealer::new(&[7; 32]));
        let inner = EmbeddedStore::open(&folder.path().join("store"), sealer, Clock::system()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
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
        assert!(runtime.block_on(inner.create_account(&account, &first, &value, &a_note())).unwrap());

        let store = Arc::new(MoodyStore::new(inner));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let admin = Admin {
            store: Arc::clone(&store) as Arc<dyn Store>,
            account: account.id,
            explainer: Arc::new(FakeGate { asked: Arc::clone(&asked) }),
            datasets: Arc::new(|| vec!["CORE/*".to_owned()]),
            metrics: Arc::new(|| "# TYPE tollgate_up gauge\ntollgate_up 1\n".to_owned()),
            metrics_open: true,
            started: tokio::sync::watch::channel(true).1,
            acts_by: tokio::sync::watch::channel(u64::MAX).1,
            guard: Guard::new(NO_LIMIT, Arc::new(|peer, _| peer), &Registry::new()).expect("a guard"),
            now: Timestamp::now,
            version: "1.2.3-test",
        };
        let (seam, account) = (Arc::clone(&admin.store), admin.account.clone());
        let router = tollgate::console::router(router(admin), seam, account, Timestamp::now);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = runtime.spawn(serve(listener, router, async move {
            let _ = stopped.await;
        }));
        Self {
            url,
            store,
            asked,
            stop: Some(stop),
            served: Some(served),
            runtime: Some(runtime),
            _folder: folder,
        }
    }

    /// Sets how the store behaves from now on.
    pub(crate) fn mood(&self, mood: Mood) {
        self.store.set_mood(mood);
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        drop(self.stop.take());
        let served = self.served.take().unwrap();
        let in_time = async { tokio::time::timeout(Duration::from_secs(30), served).await };
        self.block_on(in_time).expect("it does not stop").unwrap().unwrap();
    }

    /// Runs something asynchronous.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    /// A call with the account's first secret token and, for anything but `Null`, a JSON body.
    pub(crate) fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.call_with(method, path, body, &[])
    }

    /// The same, with further headers.
    #[expect(clippy::needless_pass_by_value, reason = "tests hand over what `json!` makes")]
    pub(crate) fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let bearer = format!("Bearer {SECRET}");
        let mut all = vec![("Authorization", bearer.as_str())];
        let text = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_null() {
            all.push(("Content-Type", "application/json"));
        }
        all.extend(headers);
        self.raw(method, path, &all, text.as_bytes())
    }

    /// A call with exactly these headers and this body.
    pub(crate) fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = if body.is_empty() {
            agent.run(request.body(()).unwrap())
        } else {
            agent.run(request.body(body).unwrap())
        };
        let mut answer = answer.unwrap_or_else(|why| panic!("{method} {path}: {why}"));
        let text = answer.body_mut().read_to_string().unwrap();
        Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    }

    /// Makes a token, and gives its JSON.
    pub(crate) fn create(&self, fields: Value) -> Value {
        self.call("POST", "/v1/tokens", fields).expect(201).json()
    }

    /// Reads a token.
    pub(crate) fn read(&self, id: &str) -> Value {
        self.call("GET", &format!("/v1/tokens/{id}"), Value::Null).expect(200).json()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A gate that lets `GET` pass and refuses everything else, quoting the question.
struct FakeGate {
    asked: Arc<Mutex<Vec<Question>>>,
}

#[async_trait]
impl Explainer for FakeGate {
    async fn explain(&self, question: Question) -> Result<Explanation, StoreError> {
        self.asked.lock().push(question.clone());
        let pass = question.method == "GET";
        let refused = |text: String| (!pass).then_some(text);
        Ok(Explanation {
            pass,
            status: if pass { 200 } else { 403 },
            code: refused("domain_denied".to_owned()),
            detail: refused(format!("The page may not use this token: {}.", question.target)),
            route: Some("/v1/data/CORE/{dataset}/**".to_owned()),
            token_id: question.token_id.map(|id| id.to_string()),
            datasets: vec!["CORE/QUOTES".to_owned()],
            operation: Some("read"),
            pool: Some("core"),
            price: Some("1".to_owned()),
            credits: Some(1),
            checks: vec![
                Step { check: "target", outcome: "passed", code: None, detail: None },
                Step {
                    check: "domain",
                    outcome: if pass { "passed" } else { "refused" },
                    code: refused("domain_denied".to_owned()),
                    detail: None,
                },
            ],
        })
    }
}
