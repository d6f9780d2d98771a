//! STUB, replaced by branch people
#![allow(missing_docs, dead_code, unused)]
use crate::admin::Caller;
use crate::policy::*;
use crate::store::people::*;
use crate::store::trail::Actor;
use crate::store::*;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
pub(crate) struct Door {
    store: Arc<dyn Store>,
    account: AccountId,
    sessions: parking_lot::Mutex<std::collections::HashMap<String, (TokenId,)>>,
}
pub(crate) struct Asker<'a> {
    pub address: Option<IpAddr>,
    pub headers: &'a HeaderMap,
}
pub(crate) struct Entered {
    pub cookie: String,
    pub max_age: Duration,
    pub signed_in: SignedIn,
}
pub(crate) struct SignedIn {
    pub name: String,
    pub role: Role,
    pub member: Option<MemberId>,
    pub csrf: String,
}
pub(crate) struct Invited {
    pub name: String,
    pub role: Role,
    pub until: Timestamp,
}
#[derive(Debug)]
pub(crate) enum Refused {
    Wrong,
    Passphrase(()),
    InvitationOver,
    SignedOut,
}
impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("That is not right.")
    }
}
impl Refused {
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        None
    }
}
impl Door {
    pub(crate) fn new(store: Arc<dyn Store>, account: AccountId, now: fn() -> Timestamp) -> Self {
        Self { store, account, sessions: Default::default() }
    }
    pub(crate) async fn sign_in_with_passphrase(
        &self,
        name: &str,
        passphrase: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        Err(Refused::Wrong)
    }
    pub(crate) async fn sign_in_with_token(
        &self,
        value: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        let t = Token::parse(value.as_bytes()).ok_or(Refused::Wrong)?;
        let p = self.store.find_token(&t.digest()).await.ok().flatten().ok_or(Refused::Wrong)?;
        let cookie = hex::encode(t.digest().to_hex());
        self.sessions.lock().insert(cookie.clone(), (p.id.clone(),));
        Ok(Entered {
            cookie,
            max_age: Duration::from_secs(9999),
            signed_in: SignedIn {
                name: p.id.to_string(),
                role: Role::Admin,
                member: None,
                csrf: "abc".into(),
            },
        })
    }
    pub(crate) async fn invitation(
        &self,
        id: &MemberId,
        secret: &str,
        asker: &Asker<'_>,
    ) -> Result<Invited, Refused> {
        Err(Refused::InvitationOver)
    }
    pub(crate) async fn accept_invitation(
        &self,
        id: &MemberId,
        secret: &str,
        p: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        Err(Refused::InvitationOver)
    }
    pub(crate) async fn session(
        &self,
        cookie: &str,
        asker: &Asker<'_>,
    ) -> Result<Option<(Caller, SignedIn)>, Refused> {
        Ok(self.sessions.lock().get(cookie).map(|(id,)| {
            (
                Caller { actor: Actor::Token(id.clone()), role: Role::Admin, client: asker.address },
                SignedIn { name: id.to_string(), role: Role::Admin, member: None, csrf: "abc".into() },
            )
        }))
    }
    pub(crate) async fn sign_out(&self, cookie: &str, asker: &Asker<'_>) -> Result<(), Refused> {
        self.sessions.lock().remove(cookie);
        Ok(())
    }
    pub(crate) async fn change_passphrase(
        &self,
        cookie: &str,
        old: &str,
        new: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        Err(Refused::Wrong)
    }
}
