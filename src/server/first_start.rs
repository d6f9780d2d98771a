//! The first start on an empty store: the account `default` and its secret token (`interface.md`, "First start").

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::{ServeError, state};
use crate::config::Config;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{AccountId, PerPool, Policy, Token, TokenId, TokenKind};
use crate::store::Store;
use crate::store::trail::{Actor, Change, Note};

/// The pause between attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What the first start needs.
pub(super) struct FirstStart {
    store: Arc<dyn Store>,
    account: AccountId,
    path: PathBuf,
}

impl FirstStart {
    pub(super) fn new(config: &Config, store: Arc<dyn Store>, account: AccountId) -> Self {
        Self { store, account, path: config.secret_token_path() }
    }

    /// Tries until the store answers, then says that Tollgate is ready. A store that is down at the start is no
    /// reason not to start: requests get 503 until it is back (law 6).
    pub(super) async fn run(self, ready: Arc<watch::Sender<bool>>) {
        loop {
            match self.attempt().await {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "the first start is not done; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        ready.send_replace(true);
    }

    async fn attempt(&self) -> Result<(), ServeError> {
        let given = given_token()?;
        if self.store.get_account(&self.account).await?.is_some() {
            return self.check(given).await;
        }
        let (token, made) = match given {
            Some(token) => (token, false),
            None => match state::read_secret_token(&self.path)? {
                Some(token) => (token, false),
                None => (state::make_secret_token(&self.path)?, true),
            },
        };
        let now = Timestamp::now();
        let id = TokenId::from_ulid(ulid::Ulid::generate());
        let mut policy = Policy::new(id, self.account.clone(), TokenKind::Secret, now);
        "First secret token".clone_into(&mut policy.nickname);
        let account = Account {
            id: self.account.clone(),
            created_at: now,
            budget: PerPool::default(),
            pay_as_you_go: PayAsYouGo::default(),
            version: 1,
        };
        if self.store.create_account(&account, &policy, &token, &note(&policy)).await? {
            let path = self.path.display();
            tracing::info!(account = %self.account, token_id = %policy.id, secret_token = %path,
                "first start: made the account and its secret token");
        } else {
            // Another node was faster; the token made here is nobody's.
            if made {
                let _ = std::fs::remove_file(&self.path);
            }
            tracing::info!(account = %self.account, "the account was made by another node just now");
        }
        Ok(())
    }

    /// The account is there. A token that was given or lies in the file should be one of its tokens; if not, the
    /// command line will not get in, so it is said now.
    async fn check(&self, given: Option<Token>) -> Result<(), ServeError> {
        let (token, origin) = match given {
            Some(token) => (Some(token), "TOLLGATE_SECRET_TOKEN".to_owned()),
            None => (state::read_secret_token(&self.path)?, self.path.display().to_string()),
        };
        let Some(token) = token else { return Ok(()) };
        match self.store.find_token(&token.digest()).await {
            Ok(None) => {
                tracing::warn!(%origin, "this secret token is unknown to the store; it opens nothing");
            }
            Ok(Some(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What is written down of the first start.
fn note(first: &Policy) -> Note {
    let set =
        |field: &str, to: &str| Change { field: field.to_owned(), from: Value::Null, to: Value::from(to) };
    Note {
        actor: Actor::Tollgate,
        client: None,
        action: "token.create",
        target: first.id.to_string(),
        changes: vec![
            set("/account", first.account.as_str()),
            set("/type", first.kind.as_str()),
            set("/nickname", &first.nickname),
        ],
    }
}

fn given_token() -> Result<Option<Token>, ServeError> {
    let Some(text) = std::env::var("TOLLGATE_SECRET_TOKEN").ok().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = zeroize::Zeroizing::new(text);
    state::parse_secret_token(&text).map(Some).ok_or(ServeError::BadSecretToken)
}
