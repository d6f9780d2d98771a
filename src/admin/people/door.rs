//! The door of the console: who gets in, and who is still in.
//!
//! Owns sign-in with a passphrase or a secret token, invitations being taken up, sessions, and their end. What the visitor
//! may then do, the admin API decides ([`crate::admin::auth`]); what the pages look like, the console. A session is looked
//! at in the store at every call, so whatever ends it ends it at once; only a store that does not answer ends nothing.
//! `cookie` is what a browser keeps, `passphrase` hashes, `limiter` counts failures, `marks` writes the trail, `refused`
//! says why not.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use jiff::Timestamp;

use super::invitation;
use crate::admin::Caller;
use crate::admin::auth::{check_admits, find_secret, still_admits};
use crate::policy::{AccountId, Policy, Token, TokenDigest};
use crate::store::people::{Member, MemberId, MemberWritten, Role, Session, Visitor};
use crate::store::trail::{Actor, Change};
use crate::store::{Store, StoreError};

mod cookie;
mod limiter;
mod marks;
mod passphrase;
mod refused;
#[cfg(test)]
mod tests;

use cookie::Cookie;
use limiter::{Limiter, Try};
use marks::Means;
pub(crate) use refused::Refused;

/// How long a session lives.
const LIFE: Duration = Duration::from_hours(12);
/// How often a write is tried that others get ahead of.
const ATTEMPTS: usize = 8;

/// The door: one for each process, shared.
pub(crate) struct Door {
    store: Arc<dyn Store>,
    account: AccountId,
    now: fn() -> Timestamp,
    hasher: passphrase::Hasher,
    limiter: Limiter,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The peer.
    pub(crate) address: Option<IpAddr>,
    /// The request's headers: `Origin` and `Referer` are read.
    pub(crate) headers: &'a HeaderMap,
}

/// Somebody who got in just now.
pub(crate) struct Entered {
    /// The value of the session's cookie.
    pub(crate) cookie: String,
    /// How long the session lives.
    pub(crate) max_age: Duration,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

/// Somebody who is in.
#[derive(Clone)]
pub(crate) struct SignedIn {
    /// A member's name, or a token's id.
    pub(crate) name: String,
    /// The member; `None`: they showed a secret token.
    pub(crate) member: Option<MemberId>,
    /// What stands in each form of this session.
    pub(crate) csrf: String,
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("name", &self.name)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

/// Who an invitation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invited {
    /// The name to sign in with.
    pub(crate) name: String,
    /// What they will be able to do.
    pub(crate) role: Role,
    /// When the link ends.
    pub(crate) until: Timestamp,
}

/// Who is behind a session.
enum Present {
    Member(Box<Member>),
    Token(Box<Policy>),
}

impl Present {
    fn actor(&self) -> Actor {
        match self {
            Self::Member(member) => marks::actor(member),
            Self::Token(policy) => Actor::Token(policy.id.clone()),
        }
    }

    fn visitor(&self) -> Visitor {
        match self {
            Self::Member(member) => Visitor::Member(member.id.clone()),
            Self::Token(policy) => Visitor::Token(policy.id.clone()),
        }
    }

    fn role(&self) -> Role {
        match self {
            Self::Member(member) => member.role,
            // A secret token may do everything.
            Self::Token(_) => Role::Admin,
        }
    }

    fn signed_in(&self, cookie: &Cookie) -> SignedIn {
        let (name, member) = match self {
            Self::Member(member) => (member.name.clone(), Some(member.id.clone())),
            Self::Token(policy) => (policy.id.to_string(), None),
        };
        SignedIn { name, member, csrf: cookie.csrf() }
    }
}

impl Door {
    /// A door to this account's console.
    pub(crate) fn new(store: Arc<dyn Store>, account: AccountId, now: fn() -> Timestamp) -> Self {
        let (hasher, limiter) = (passphrase::Hasher::default(), Limiter::default());
        Self { store, account, now, hasher, limiter }
    }

    /// Lets a member in.
    pub(crate) async fn sign_in_with_passphrase(
        &self,
        name: &str,
        passphrase: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        let name = name.trim();
        let tried = self.limit(asker, Some(name))?;
        // Before the member is read: a session must not outlive what is changed of them meanwhile.
        let now = (self.now)();
        let judged = self.judge(&tried, self.find_by_name(name, passphrase)).await?;
        match judged {
            (Some(member), true) => {
                self.limiter.succeed(&tried);
                self.begin(Present::Member(Box::new(member)), None, Means::Passphrase, now, asker).await
            }
            (Some(member), false) => {
                self.mark_refused(asker, member.id.as_str(), Means::Passphrase, "wrong_passphrase").await?;
                Err(Refused::Wrong)
            }
            (None, _) => {
                self.mark_refused(asker, &marks::unknown(name), Means::Passphrase, "unknown_name").await?;
                Err(Refused::Wrong)
            }
        }
    }

    /// The member of a name, and whether this is their passphrase. It takes as long where there is none.
    async fn find_by_name(&self, name: &str, passphrase: &str) -> Result<(Option<Member>, bool), Refused> {
        let name = name.to_lowercase();
        let members = self.store.members(&self.account).await?;
        let member = members.into_iter().find(|member| member.name.to_lowercase() == name);
        let kept = member.as_ref().and_then(|member| member.passphrase.as_deref());
        let right = self.hasher.verify(passphrase, kept).await?;
        Ok((member, right))
    }

    /// Lets the holder of a secret token in, by the rules of the admin API.
    pub(crate) async fn sign_in_with_token(
        &self,
        value: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        let tried = self.limit(asker, None)?;
        let now = (self.now)();
        let digest = Token::parse(value.trim().as_bytes()).map(|token| token.digest());
        let found = async {
            match &digest {
                Some(digest) => Ok(find_secret(&*self.store, &self.account, digest).await?),
                None => Ok(None),
            }
        };
        let Some(policy) = self.judge(&tried, found).await? else {
            self.mark_refused(asker, "a token", Means::Token, "unknown_token").await?;
            return Err(Refused::Wrong);
        };
        if let Err(problem) = check_admits(&policy, now, asker.headers, asker.address) {
            self.mark_refused(asker, policy.id.as_str(), Means::Token, problem.code()).await?;
            return Err(Refused::Token(problem));
        }
        self.limiter.succeed(&tried);
        self.begin(Present::Token(Box::new(policy)), digest, Means::Token, now, asker).await
    }

    /// Who a link is for, for the page behind it. Looking uses nothing up.
    pub(crate) async fn invitation(
        &self,
        id: &MemberId,
        secret: &str,
        asker: &Asker<'_>,
    ) -> Result<Invited, Refused> {
        let (member, until) = self.open_invitation(id, secret, asker).await?;
        Ok(Invited { name: member.name, role: member.role, until })
    }

    /// The member whom a link is for, and until when it is good.
    async fn open_invitation(
        &self,
        id: &MemberId,
        secret: &str,
        asker: &Asker<'_>,
    ) -> Result<(Member, Timestamp), Refused> {
        let tried = self.limit(asker, None)?;
        let member = self.judge(&tried, async { Ok(self.store.member(&self.account, id).await?) }).await?;
        let found = member.and_then(|member| {
            let until = invitation::open_until(&member, secret, (self.now)())?;
            Some((member, until))
        });
        let Some(found) = found else {
            self.mark_refused(asker, id.as_str(), Means::Invitation, "invitation_over").await?;
            return Err(Refused::InvitationOver);
        };
        self.limiter.succeed(&tried);
        Ok(found)
    }

    /// Takes a link up: the member gets their passphrase, and is in. Of all who try, one does.
    pub(crate) async fn accept_invitation(
        &self,
        id: &MemberId,
        secret: &str,
        passphrase: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        let now = (self.now)();
        let (mut member, _) = self.open_invitation(id, secret, asker).await?;
        passphrase::check(passphrase, &member.name)?;
        let kept = self.hasher.hash(passphrase).await?;
        for _ in 0..ATTEMPTS {
            let after = Member { passphrase: Some(kept.clone()), invitation: None, ..member.clone() };
            let change = Change { field: "/status".to_owned(), from: "invited".into(), to: "active".into() };
            let note = asker.note(marks::actor(&member), "member.accept", id.as_str(), vec![change]);
            match self.store.put_member(&self.account, &after, &note).await? {
                MemberWritten::Done { version } => {
                    let member = Box::new(Member { version, ..after });
                    return self.begin(Present::Member(member), None, Means::Invitation, now, asker).await;
                }
                MemberWritten::Conflict { .. } => {}
                MemberWritten::Missing | MemberWritten::NameTaken => return Err(Refused::InvitationOver),
            }
            // Somebody else wrote: the same link taken up elsewhere, or a new name given to the member.
            let stored = self.store.member(&self.account, id).await?.ok_or(Refused::InvitationOver)?;
            invitation::open_until(&stored, secret, (self.now)()).ok_or(Refused::InvitationOver)?;
            passphrase::check(passphrase, &stored.name)?;
            member = stored;
        }
        Err(Refused::Busy)
    }

    /// Who is in with this cookie; `None`: nobody (any more).
    pub(crate) async fn session(
        &self,
        cookie: &str,
        asker: &Asker<'_>,
    ) -> Result<Option<(Caller, SignedIn)>, Refused> {
        let found = self.find(cookie, asker).await?;
        Ok(found.map(|(cookie, present)| {
            let caller = Caller { actor: present.actor(), role: present.role(), client: asker.address };
            (caller, present.signed_in(&cookie))
        }))
    }

    /// Looks in the store whether there is such a session, and whether whoever began it may still be here.
    async fn find(&self, text: &str, asker: &Asker<'_>) -> Result<Option<(Cookie, Present)>, StoreError> {
        let Some(cookie) = Cookie::parse(text) else { return Ok(None) };
        let Some(session) = self.store.session(&self.account, &cookie.digest()).await? else {
            return Ok(None);
        };
        let now = (self.now)();
        if now.duration_since(session.started_at) >= jiff::SignedDuration::try_from(LIFE).unwrap_or_default()
        {
            return Ok(None);
        }
        let present = match (&session.visitor, cookie.token()) {
            (Visitor::Member(id), None) => {
                let member = self.store.member(&self.account, id).await?;
                member
                    .filter(|member| {
                        member.passphrase.is_some() && session.started_at >= member.sessions_since
                    })
                    .map(|member| Present::Member(Box::new(member)))
            }
            (Visitor::Token(id), Some(digest)) => find_secret(&*self.store, &self.account, digest)
                .await?
                .filter(|policy| policy.id == *id)
                .filter(|policy| still_admits(policy, now, asker.headers, asker.address))
                .map(|policy| Present::Token(Box::new(policy))),
            _ => None,
        };
        Ok(present.map(|present| (cookie, present)))
    }

    /// Ends a session, also for whoever has a copy of its cookie.
    pub(crate) async fn sign_out(&self, cookie: &str, asker: &Asker<'_>) -> Result<(), Refused> {
        let Some((cookie, present)) = self.find(cookie, asker).await? else { return Ok(()) };
        self.store.end_session(&self.account, &cookie.digest()).await?;
        let (actor, target) = (present.actor(), present.actor().id().to_owned());
        let note = asker.note(actor, "session.end", &target, Vec::new());
        Ok(self.store.note(&self.account, &note).await?)
    }

    /// Gives the member who is in another passphrase. All their sessions end; they get a new one.
    pub(crate) async fn change_passphrase(
        &self,
        cookie: &str,
        old: &str,
        new: &str,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        let found = self.find(cookie, asker).await?;
        let Some((_, Present::Member(mut member))) = found else { return Err(Refused::SignedOut) };
        passphrase::check(new, &member.name)?;
        let tried = self.limit(asker, Some(&member.name))?;
        let right = self.judge(&tried, self.hasher.verify(old, member.passphrase.as_deref())).await?;
        if !right {
            self.mark_refused(asker, member.id.as_str(), Means::Passphrase, "wrong_passphrase").await?;
            return Err(Refused::Wrong);
        }
        self.limiter.succeed(&tried);
        let kept = self.hasher.hash(new).await?;
        for _ in 0..ATTEMPTS {
            let now = (self.now)();
            let mut after = Member { passphrase: Some(kept.clone()), ..(*member).clone() };
            super::end_sessions(&mut after, now);
            let note = asker.note(marks::actor(&member), "member.passphrase", member.id.as_str(), Vec::new());
            match self.store.put_member(&self.account, &after, &note).await? {
                MemberWritten::Done { version } => {
                    let member = Box::new(Member { version, ..after });
                    return self.begin(Present::Member(member), None, Means::Passphrase, now, asker).await;
                }
                MemberWritten::Conflict { .. } => {}
                MemberWritten::Missing | MemberWritten::NameTaken => return Err(Refused::SignedOut),
            }
            // Only on what the old passphrase still stands for.
            let stored = self.store.member(&self.account, &member.id).await?;
            let same = stored.filter(|stored| {
                stored.passphrase == member.passphrase && stored.sessions_since == member.sessions_since
            });
            *member = same.ok_or(Refused::SignedOut)?;
        }
        Err(Refused::Busy)
    }

    /// Begins a session of somebody who proved who they are, by what was known at `now`.
    async fn begin(
        &self,
        present: Present,
        token: Option<TokenDigest>,
        means: Means,
        now: Timestamp,
        asker: &Asker<'_>,
    ) -> Result<Entered, Refused> {
        let cookie = Cookie::try_new(token).map_err(|_| Refused::NoRandomNumbers)?;
        let started_at = match &present {
            Present::Member(member) => member.sessions_since.max(now),
            Present::Token(_) => now,
        };
        let session = Session { visitor: present.visitor(), started_at };
        self.store.put_session(&self.account, &cookie.digest(), &session, LIFE).await?;
        // Without a trace nobody gets in: the cookie of such a session is given to nobody.
        let (actor, target) = (present.actor(), present.actor().id().to_owned());
        let note = asker.note(actor, "session.begin", &target, vec![marks::by(means)]);
        self.store.note(&self.account, &note).await?;
        Ok(Entered { cookie: cookie.expose().to_owned(), max_age: LIFE })
    }

    fn limit(&self, asker: &Asker<'_>, name: Option<&str>) -> Result<Try, Refused> {
        let entered = self.limiter.enter(asker.address, name, Instant::now());
        entered.map_err(|retry_after| Refused::TooMany { retry_after })
    }

    /// Waits for what a try is judged by; where it does not come, the try does not count.
    async fn judge<T>(
        &self,
        tried: &Try,
        judging: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Refused> {
        judging.await.inspect_err(|_| self.limiter.forget(tried))
    }
}
