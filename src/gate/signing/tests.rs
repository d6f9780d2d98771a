//! Over a real embedded store: what is good signs, what is not does not, and edits count at once.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::policy::cost::{Credits, Price};
use crate::policy::record::Account;
use crate::policy::route::{Access, Methods, PathTemplate};
use crate::policy::signature::{BodyDigest, SignatureBody, SigningSecret, sign};
use crate::policy::{AccountId, PerPool, Status, TokenId, TokenKind};
use crate::store::embedded::{Clock, EmbeddedStore};
use crate::store::seal::Sealer;
use crate::store::trail::a_note;
use crate::store::{Event, Store};
use crate::telemetry::Metrics;

/// How far the time of a signature may be from the clock.
const MAX_SKEW: Duration = Duration::from_mins(5);

struct Bench {
    store: Arc<EmbeddedStore>,
    signing: Signing,
    events: tokio::sync::broadcast::Receiver<Event>,
    policy: Policy,
    token: Token,
    route: Route,
    secret_id: TokenId,
    secret: SigningSecret,
    _folder: TempDir,
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn signing_over(store: &Arc<EmbeddedStore>) -> Signing {
    let metrics = Arc::new(Metrics::new().unwrap());
    let line = Arc::new(Line::new(store.clone(), metrics));
    let settings = SigningSettings { patience: Duration::from_secs(30), grace: Duration::from_mins(5) };
    Signing::new(&line, settings, Handle::current())
}

fn open(folder: &Path) -> Arc<EmbeddedStore> {
    let sealer = Some(Sealer::new(&[1; 32]));
    Arc::new(EmbeddedStore::open(&folder.join("store"), sealer, Clock::new(now)).unwrap())
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let account = AccountId::default_account();
        let id = |n| TokenId::from_ulid(ulid::Ulid::from_parts(n, 0));
        let first = Policy::new(id(1), account.clone(), TokenKind::Secret, now());
        let value = Token::from_random(TokenKind::Secret, [1; 16]);
        let record = Account {
            id: account.clone(),
            created_at: now(),
            budget: PerPool::default(),
            pay_as_you_go: crate::policy::record::PayAsYouGo::default(),
            version: 1,
        };
        assert!(store.create_account(&record, &first, &value, &a_note()).await.unwrap());
        let policy =
            Policy { signed_requests: true, ..Policy::new(id(2), account, TokenKind::Publishable, now()) };
        let token = Token::from_random(TokenKind::Publishable, [2; 16]);
        store.create_token(&policy, &token, &a_note()).await.unwrap();
        let route = Route {
            path: PathTemplate::parse("/**").unwrap(),
            upstream: "u".to_owned(),
            access: Access::Core,
            dataset: None,
            batch_separator_param: None,
            methods: Methods::default(),
            price: Price::flat(Credits(1)),
            items: None,
            signed: false,
            signature_body: SignatureBody::Strict,
            max_signed_body: 1024,
            keep_encoded_slash: false,
            rewrite: None,
        };
        let (signing, events) = (signing_over(&store), store.events());
        let secret = SigningSecret::of_token(&value);
        Self { store, signing, events, policy, token, route, secret_id: id(1), secret, _folder: folder }
    }

    /// Acts on what happened, as a node does.
    fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Policy { token, .. } = event {
                self.signing.keyring.changed(&token);
            }
        }
    }

    async fn check(&self, n: usize, secret: &SigningSecret, body: Option<&[u8]>) -> Result<Checked, Denial> {
        let target = format!("/{n}");
        let signed = body.unwrap_or_default();
        let made = sign("POST", target.as_bytes(), "h", signed, self.token.expose(), secret, now()).unwrap();
        let raw = RawRequest {
            method: "POST",
            target: target.as_bytes(),
            host: Some(b"h:80"),
            authorization: &[made.authorization.as_bytes()],
            dates: &[made.date.as_bytes()],
        };
        let request = SignedRequest { raw, token: &self.token, has_body: body.is_some() };
        self.signing.check(&request, &self.policy, &self.route, now(), MAX_SKEW).await
    }

    async fn verify(&self, n: usize, secret: &SigningSecret) -> Result<Verified, Denial> {
        match self.check(n, secret, None).await? {
            Checked::Verified(verified) => Ok(verified),
            Checked::Pending(_) => panic!("there is no body"),
        }
    }

    async fn edit_secret_token(&self, edit: impl FnOnce(&mut Policy)) {
        let account = AccountId::default_account();
        let mut policy = self.store.get_token(&account, &self.secret_id).await.unwrap().unwrap().policy;
        edit(&mut policy);
        self.store.put_policy(&policy, &a_note()).await.unwrap();
    }
}

fn mismatch() -> Denial {
    Denial::SignatureInvalid(BadSignature::Mismatch)
}

#[tokio::test]
async fn the_accounts_secret_and_the_tokens_own_both_sign() {
    let mut bench = Bench::new().await;
    assert!(bench.verify(1, &bench.secret).await.is_ok());
    let own = SigningSecret::from_random([9; 16]);
    assert_eq!(bench.verify(1, &own).await, Err(mismatch()));
    let note = a_note();
    let put = |version| {
        bench.store.put_signing_secret(&bench.policy.account, &bench.policy.id, version, &own, &note)
    };
    put(1).await.unwrap();
    // The directory has the new version, and with it comes the new secret.
    bench.policy.version = 2;
    assert!(bench.verify(1, &own).await.is_ok());
    assert!(bench.verify(1, &bench.secret).await.is_ok());
    bench.catch_up();
    assert!(bench.verify(1, &own).await.is_ok());
}

#[tokio::test]
async fn a_secret_token_that_is_switched_off_signs_no_more_and_a_new_one_does() {
    let mut bench = Bench::new().await;
    assert!(bench.verify(1, &bench.secret).await.is_ok());
    bench.edit_secret_token(|policy| policy.status = Status::Disabled).await;
    bench.catch_up();
    assert_eq!(bench.verify(1, &bench.secret).await, Err(mismatch()));
    let id = TokenId::from_ulid(ulid::Ulid::from_parts(3, 0));
    let policy = Policy::new(id, AccountId::default_account(), TokenKind::Secret, now());
    let value = Token::from_random(TokenKind::Secret, [3; 16]);
    bench.store.create_token(&policy, &value, &a_note()).await.unwrap();
    bench.catch_up();
    // Learnt a moment ago, yet not from before the change: it may take that moment.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while bench.verify(1, &SigningSecret::of_token(&value)).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the new secret never signs");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn missed_changes_are_caught_up_with() {
    let bench = Bench::new().await;
    assert!(bench.verify(1, &bench.secret).await.is_ok());
    bench.edit_secret_token(|policy| policy.status = Status::Revoked).await;
    bench.signing.keyring.lost();
    assert_eq!(bench.verify(1, &bench.secret).await, Err(mismatch()));
}

#[tokio::test]
async fn a_strict_body_is_waited_for() {
    let bench = Bench::new().await;
    for (body, fine) in [(b"body".as_slice(), true), (b"another", false)] {
        let Ok(Checked::Pending(pending)) = bench.check(1, &bench.secret, Some(b"body")).await else {
            panic!("it was not waited for");
        };
        assert_eq!(pending.finish(&BodyDigest::of(body)).is_ok(), fine);
    }
}

#[tokio::test]
async fn a_signature_is_used_up_by_its_first_use_on_any_node() {
    let bench = Bench::new().await;
    let other_node = signing_over(&bench.store);
    let verified = bench.verify(1, &bench.secret).await.unwrap();
    assert_eq!(bench.signing.use_up(&verified, &bench.policy, now()).await, Ok(()));
    for node in [&bench.signing, &other_node] {
        let again = node.use_up(&verified, &bench.policy, now()).await;
        assert_eq!(again, Err(Denial::SignatureReplayed));
        // Unless the token says that this does not matter.
        let lax = Policy { replay_protection: false, ..bench.policy.clone() };
        assert_eq!(node.use_up(&verified, &lax, now()).await, Ok(()));
    }
    let next = bench.verify(2, &bench.secret).await.unwrap();
    assert_eq!(other_node.use_up(&next, &bench.policy, now()).await, Ok(()));
}

#[tokio::test]
async fn what_is_stale_or_of_another_token_asks_no_store() {
    let bench = Bench::new().await;
    let made = sign("GET", b"/", "h", b"", bench.token.expose(), &bench.secret, now()).unwrap();
    let raw = RawRequest {
        method: "GET",
        target: b"/",
        host: Some(b"h"),
        authorization: &[made.authorization.as_bytes()],
        dates: &[made.date.as_bytes()],
    };
    let other = Token::from_random(TokenKind::Publishable, [7; 16]);
    let ask = async |token, at| {
        let request = SignedRequest { raw, token, has_body: false };
        bench.signing.check(&request, &bench.policy, &bench.route, at, MAX_SKEW).await.map(drop)
    };
    let late = now().checked_add(jiff::SignedDuration::from_secs(301)).unwrap();
    assert_eq!(ask(&bench.token, late).await, Err(Denial::SignatureStale));
    assert_eq!(ask(&other, now()).await, Err(Denial::SignatureInvalid(BadSignature::OtherToken)));
    assert_eq!(ask(&bench.token, now()).await, Ok(()));
}
