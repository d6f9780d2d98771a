//! A door and the admin API behind it, over a store of their own.

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use prometheus::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::super::*;
use crate::admin::{Admin, Guard, router};
use crate::gate::GuessLimit;
use crate::gate::explanation::{Explainer, Explanation, Question};
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{PerPool, TokenId, TokenKind};
use crate::store::embedded::{Clock, EmbeddedStore};
use crate::store::seal::Sealer;
use crate::store::trail::{Asked, Entry, Traced, a_note};

/// Wrong tokens, as many as one likes.
const NO_LIMIT: GuessLimit = GuessLimit { failures: 0, window: Duration::from_mins(1) };

/// The account's first secret token.
pub(super) const SECRET: &str = "sk_00112233445566778899aabbccddeeff";
/// A passphrase.
pub(super) const PASSPHRASE: &str = "correct horse battery";

pub(super) struct House {
    pub(super) store: Arc<EmbeddedStore>,
    pub(super) door: Arc<Door>,
    api: axum::Router,
    _folder: TempDir,
}

/// A gate that nobody asks.
struct NoGate;

#[async_trait]
impl Explainer for NoGate {
    async fn explain(&self, _: Question) -> Result<Explanation, StoreError> {
        Err(StoreError::Unavailable("no gate".to_owned()))
    }
}

/// Where a request comes from.
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) headers: HeaderMap,
}

impl Peer {
    pub(super) fn at(last: u8) -> Self {
        Self { address: IpAddr::from([127, 0, 0, last]), headers: HeaderMap::new() }
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { address: Some(self.address), headers: &self.headers }
    }
}

impl House {
    pub(super) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Some(Sealer::new(&[7; 32]));
        let store =
            Arc::new(EmbeddedStore::open(&folder.path().join("store"), sealer, Clock::system()).unwrap());
        let account = Account {
            id: AccountId::default_account(),
            created_at: Timestamp::UNIX_EPOCH,
            budget: PerPool::default(),
            pay_as_you_go: PayAsYouGo::default(),
            version: 1,
        };
        let id = TokenId::from_ulid(ulid::Ulid(1));
        let first = Policy::new(id, account.id.clone(), TokenKind::Secret, Timestamp::UNIX_EPOCH);
        let value = Token::parse(SECRET.as_bytes()).unwrap();
        assert!(store.create_account(&account, &first, &value, &a_note()).await.unwrap());
        let seam = Arc::clone(&store) as Arc<dyn Store>;
        let door = Arc::new(Door::new(Arc::clone(&seam), account.id.clone(), Timestamp::now));
        let api = router(Admin {
            store: seam,
            account: account.id,
            explainer: Arc::new(NoGate),
            datasets: Arc::new(Vec::new),
            metrics: Arc::new(String::new),
            metrics_open: true,
            started: tokio::sync::watch::channel(true).1,
            acts_by: tokio::sync::watch::channel(u64::MAX).1,
            guard: Guard::new(NO_LIMIT, Arc::new(|peer, _| peer), &Registry::new()).expect("a guard"),
            now: Timestamp::now,
            version: "test",
        });
        Self { store, door, api, _folder: folder }
    }

    pub(super) fn account(&self) -> &AccountId {
        &self.door.account
    }

    /// A call to the admin API as the account's first token.
    pub(super) async fn root(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let actor = Actor::Token(TokenId::from_ulid(ulid::Ulid(1)));
        self.call(&Caller { actor, role: Role::Admin, client: None }, method, path, body).await
    }

    /// A call to the admin API as somebody.
    pub(super) async fn call(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).extension(caller.clone());
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.api.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Invites somebody: their id, and the secret of their link.
    pub(super) async fn invite(&self, name: &str, role: &str) -> (MemberId, String) {
        let (status, member) = self.root("POST", "/v1/members", json!({"name": name, "role": role})).await;
        assert_eq!(status, 201, "{member}");
        link(&member)
    }

    /// Makes somebody a member who is in: their id and cookie.
    pub(super) async fn join(&self, name: &str, role: &str) -> (MemberId, String) {
        let (id, secret) = self.invite(name, role).await;
        let entered =
            self.door.accept_invitation(&id, &secret, PASSPHRASE, &Peer::at(1).asker()).await.unwrap();
        (id, entered.cookie)
    }

    /// Signs somebody in.
    pub(super) async fn sign_in(&self, name: &str, passphrase: &str) -> Result<String, Refused> {
        let peer = Peer::at(2);
        Ok(self.door.sign_in_with_passphrase(name, passphrase, &peer.asker()).await?.cookie)
    }

    /// Who is in with this cookie, and what they may do.
    pub(super) async fn who(&self, cookie: &str) -> Option<(String, Role)> {
        self.caller(cookie).await.map(|(caller, signed_in)| (signed_in.name, caller.role))
    }

    pub(super) async fn caller(&self, cookie: &str) -> Option<(Caller, SignedIn)> {
        self.door.session(cookie, &Peer::at(3).asker()).await.unwrap()
    }

    /// The trail since the first start, oldest first.
    pub(super) async fn trail(&self) -> Vec<Entry> {
        let asked = Asked { limit: 1000, ..Asked::default() };
        let traced = self.store.trail(self.account(), &asked).await.unwrap();
        let entry = |traced| match traced {
            Traced::Entry(entry) => *entry,
            Traced::Unreadable { id } => panic!("unreadable: {id}"),
        };
        traced.into_iter().rev().skip(1).map(entry).collect()
    }

    /// What was done, to whom and how, as one line each.
    pub(super) async fn told(&self) -> Vec<String> {
        let word = |change: &Change| change.to.as_str().unwrap_or("-").to_owned();
        let line = |entry: Entry| {
            let words: Vec<_> = entry.changes.iter().map(word).collect();
            format!("{} {} {} {}", entry.actor, entry.action, entry.target, words.join(" ")).trim().to_owned()
        };
        self.trail().await.into_iter().map(line).collect()
    }

    /// Edits a token.
    pub(super) async fn edit_token(&self, id: &str, fields: Value) {
        let (status, answer) = self.root("PATCH", &format!("/v1/tokens/{id}"), fields).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Makes a secret token: its id and value.
    pub(super) async fn secret_token(&self, mut fields: Value) -> (String, String) {
        fields["type"] = json!("secret");
        let (status, token) = self.root("POST", "/v1/tokens", fields).await;
        assert_eq!(status, 201, "{token}");
        let text = |name: &str| token[name].as_str().unwrap().to_owned();
        (text("id"), text("token"))
    }
}

/// The id and the secret of an invitation that the API answered with.
pub(super) fn link(member: &Value) -> (MemberId, String) {
    let path = member["invitation"]["path"].as_str().unwrap();
    let (id, secret) = path.strip_prefix("/console/join/").unwrap().split_once('/').unwrap();
    assert_eq!((id, secret.len()), (member["id"].as_str().unwrap(), 64));
    (MemberId::parse(id).unwrap(), secret.to_owned())
}
