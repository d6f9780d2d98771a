//! A memory of all the account's tokens, short, to be searched.
//!
//! Owns what is known of each token for a search: nickname, id, public value, type, whether it may be used; about 200 bytes a
//! token. It is read whole on first need and then kept in step: the store's events say which tokens were changed, and those
//! are read anew before the next answer. The account's epoch is compared before each answer, and an answer is given only if every
//! change up to it is known, so none is staler than the store. Where changes are missing and do not come, where the
//! connection that brings them was lost, and where the epoch went back, all is read anew. Of an account with more than
//! [`MOST`] tokens nothing is kept: each search goes through the store.
//!
//! It knows no HTTP, and shows nothing: what is found is read from the store ([`super::tokens`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use crate::policy::{AccountId, Status, TokenId, TokenKind};
use crate::store::{Event, KeptValue, Listed, Store, StoreError};

/// The most tokens that are remembered.
pub(super) const MOST: usize = 200_000;
/// How many tokens are read at once.
const PAGE: usize = 500;
/// How long to wait for the event of a change that the epoch tells of.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often all is read anew for one answer, before the store is searched itself.
const LOADS: usize = 3;

/// Whether a token may be used, as a filter has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It may.
    Active,
    /// Not now.
    Disabled,
    /// Never again.
    Revoked,
    /// It could be, but its time is over.
    Expired,
}

impl State {
    /// All states, in the order they are named.
    pub(super) const ALL: [Self; 4] = [Self::Active, Self::Disabled, Self::Revoked, Self::Expired];

    /// The state's name in the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    fn of(status: Status, expires_at: Option<Timestamp>, now: Timestamp) -> Self {
        match status {
            Status::Revoked => Self::Revoked,
            Status::Disabled => Self::Disabled,
            Status::Active if expires_at.is_some_and(|end| now >= end) => Self::Expired,
            Status::Active => Self::Active,
        }
    }
}

/// What is searched for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Each must be in the nickname, the id or the public value; in lower case, without spaces.
    pub(super) words: Vec<String>,
    /// In this state; `None`: in any.
    pub(super) state: Option<State>,
    /// Of this type; `None`: of any.
    pub(super) kind: Option<TokenKind>,
    /// The time by which tokens expire.
    pub(super) now: Timestamp,
}

impl Wanted {
    /// Whether an entry of the list is searched for.
    pub(super) fn takes(&self, listed: &Listed) -> bool {
        Summary::of(listed).is_wanted(self)
    }
}

/// A part of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// How many there are in all.
    pub(super) total: usize,
    /// Those of the page, oldest first.
    pub(super) ids: Vec<TokenId>,
    /// Whether there are more behind them.
    pub(super) more: bool,
}

/// Which part is wanted: behind a token, some skipped, at most so many.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// From behind this one.
    pub(super) after: Option<TokenId>,
    /// So many are skipped.
    pub(super) offset: usize,
    /// At most so many.
    pub(super) limit: usize,
}

/// What is known of a token. A record that cannot be read has an id, and nothing else.
#[derive(Debug)]
struct Summary {
    /// Nickname, id and public value in lower case, a line each.
    text: Box<str>,
    policy: Option<(TokenKind, Status, Option<Timestamp>)>,
}

impl Summary {
    fn of(listed: &Listed) -> Self {
        match listed {
            Listed::Token(token) => {
                let policy = &token.policy;
                let value = match &token.value {
                    KeptValue::Clear(value) => value.expose(),
                    KeptValue::Sealed => "",
                };
                let text = format!("{}\n{}\n{value}", policy.nickname, policy.id).to_lowercase();
                let policy = Some((policy.kind, policy.status, policy.expires_at));
                Self { text: text.into(), policy }
            }
            Listed::Unreadable { id, .. } => Self { text: id.as_str().to_lowercase().into(), policy: None },
        }
    }

    fn is_wanted(&self, wanted: &Wanted) -> bool {
        let fits = match self.policy {
            Some((kind, status, expires_at)) => {
                wanted.kind.is_none_or(|wanted| wanted == kind)
                    && wanted.state.is_none_or(|state| state == State::of(status, expires_at, wanted.now))
            }
            None => wanted.kind.is_none() && wanted.state.is_none(),
        };
        fits && wanted.words.iter().all(|word| self.text.contains(word.as_str()))
    }
}

/// Counts what is found, and keeps the part of it that is wanted.
struct Finding<'w> {
    part: &'w Part,
    behind: usize,
    found: Found,
}

impl<'w> Finding<'w> {
    fn new(part: &'w Part) -> Self {
        Self { part, behind: 0, found: Found { total: 0, ids: Vec::new(), more: false } }
    }

    fn add(&mut self, id: &TokenId) {
        self.found.total += 1;
        if self.part.after.as_ref().is_some_and(|after| id <= after) {
            return;
        }
        self.behind += 1;
        if self.behind > self.part.offset {
            if self.found.ids.len() < self.part.limit {
                self.found.ids.push(id.clone());
            } else {
                self.found.more = true;
            }
        }
    }
}

/// All tokens, up to an epoch.
#[derive(Debug)]
struct All {
    tokens: BTreeMap<TokenId, Summary>,
    /// Every change up to this epoch is known.
    epoch: u64,
    /// The account's version at that epoch.
    account: u64,
    /// Epochs of changes behind it that are known too.
    known: BTreeSet<u64>,
}

#[derive(Debug)]
enum Memory {
    Nothing,
    TooMany,
    All(All),
}

struct Inner {
    events: Receiver<Event>,
    memory: Memory,
}

/// The memory of an account's tokens. Copies share it.
#[derive(Clone)]
pub(super) struct Catalogue {
    store: Arc<dyn Store>,
    account: AccountId,
    most: usize,
    inner: Arc<tokio::sync::Mutex<Inner>>,
}

/// How the memory stands to the store.
enum Step {
    /// It knows every change.
    In,
    /// It may not.
    Out,
}

impl Catalogue {
    /// A memory that is still empty. From now on it hears what is changed.
    pub(super) fn new(store: Arc<dyn Store>, account: AccountId, most: usize) -> Self {
        let inner = Inner { events: store.events(), memory: Memory::Nothing };
        Self { store, account, most, inner: Arc::new(tokio::sync::Mutex::new(inner)) }
    }

    /// Reads all tokens if none was read yet, while nobody waits for it.
    pub(super) fn warm(&self) {
        // Whoever has the lock reads them, or has.
        let Ok(mut inner) = Arc::clone(&self.inner).try_lock_owned() else { return };
        if matches!(inner.memory, Memory::Nothing) {
            let catalogue = self.clone();
            // A search that finds nothing read reads it itself, and tells why that fails.
            tokio::spawn(async move { catalogue.load(&mut inner).await });
        }
    }

    /// Finds tokens, as the store has them at this moment.
    pub(super) async fn search(&self, wanted: &Wanted, part: &Part) -> Result<Found, StoreError> {
        let mut inner = self.inner.lock().await;
        let inner = &mut *inner;
        for _ in 0..=LOADS {
            if let Step::Out = self.catch_up(inner).await? {
                self.load(inner).await?;
            } else if let Memory::All(all) = &inner.memory {
                let mut finding = Finding::new(part);
                let found = all.tokens.iter().filter(|(_, summary)| summary.is_wanted(wanted));
                found.for_each(|(id, _)| finding.add(id));
                return Ok(finding.found);
            } else {
                break;
            }
        }
        self.scan(wanted, part).await
    }

    /// Goes through the store.
    async fn scan(&self, wanted: &Wanted, part: &Part) -> Result<Found, StoreError> {
        let (mut finding, mut after) = (Finding::new(part), None);
        loop {
            let page = self.store.list_tokens(&self.account, after.as_ref(), PAGE).await?;
            page.iter().filter(|listed| wanted.takes(listed)).for_each(|listed| finding.add(id_of(listed)));
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(id_of(last).clone()),
                _ => return Ok(finding.found),
            }
        }
    }

    /// Reads all tokens, after the epoch: what is changed meanwhile is behind it.
    async fn load(&self, inner: &mut Inner) -> Result<(), StoreError> {
        inner.memory = Memory::Nothing;
        // What is heard of already is in what is read.
        drain(&mut inner.events, &mut Vec::new());
        let (epoch, account) = self.standing().await?;
        let (mut tokens, mut after) = (BTreeMap::new(), None);
        loop {
            let page = self.store.list_tokens(&self.account, after.as_ref(), PAGE).await?;
            after = page.last().map(|last| id_of(last).clone());
            let over = page.len() < PAGE;
            tokens.extend(page.iter().map(|listed| (id_of(listed).clone(), Summary::of(listed))));
            if tokens.len() > self.most {
                inner.memory = Memory::TooMany;
                return Ok(());
            }
            if over {
                inner.memory = Memory::All(All { tokens, epoch, account, known: BTreeSet::new() });
                return Ok(());
            }
        }
    }

    /// The account's epoch, and its version at that epoch.
    async fn standing(&self) -> Result<(u64, u64), StoreError> {
        let mut epoch = self.store.epoch(&self.account).await?;
        loop {
            let account = self.store.get_account(&self.account).await?;
            let now = self.store.epoch(&self.account).await?;
            if now == epoch {
                return Ok((epoch, account.map_or(0, |account| account.version)));
            }
            epoch = now;
        }
    }

    /// Reads anew what was changed, and says whether that is all.
    async fn catch_up(&self, inner: &mut Inner) -> Result<Step, StoreError> {
        let Inner { events, memory } = inner;
        let mut changed = Vec::new();
        if drain(events, &mut changed) {
            *memory = Memory::Nothing;
        }
        let all = match memory {
            Memory::All(all) => all,
            Memory::TooMany => return Ok(Step::In),
            Memory::Nothing => return Ok(Step::Out),
        };
        let now = self.store.epoch(&self.account).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read(all, std::mem::take(&mut changed)).await?;
            if all.knows_up_to(now, all.account) || self.account_explains(all, now).await? {
                return Ok(Step::In);
            }
            if hear(events, &mut changed, deadline).await.is_none() {
                return Ok(Step::Out);
            }
        }
    }

    /// Reads tokens anew. An event does not say whose token it is: it counts if the account has it.
    async fn read(&self, all: &mut All, changed: Vec<(u64, TokenId)>) -> Result<(), StoreError> {
        let ids: BTreeSet<_> = changed.iter().map(|(_, token)| token.clone()).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        for bunch in ids.chunks(PAGE) {
            for listed in self.store.get_tokens(&self.account, bunch).await? {
                all.tokens.insert(id_of(&listed).clone(), Summary::of(&listed));
            }
        }
        let own = changed.into_iter().filter(|(_, token)| all.tokens.contains_key(token));
        all.known.extend(own.map(|(epoch, _)| epoch));
        Ok(())
    }

    /// Whether the changes that are not known are the account's own: those moved its version.
    async fn account_explains(&self, all: &mut All, now: u64) -> Result<bool, StoreError> {
        let (epoch, account) = self.standing().await?;
        Ok(epoch == now && all.knows_up_to(now, account))
    }
}

impl All {
    /// Whether all that happened up to an epoch is known; the account's version was `account` then.
    fn knows_up_to(&mut self, epoch: u64, account: u64) -> bool {
        let (Some(happened), Some(edits)) =
            (epoch.checked_sub(self.epoch), account.checked_sub(self.account))
        else {
            return false;
        };
        let later = self.known.split_off(&epoch.saturating_add(1));
        let known = self.known.range(self.epoch.saturating_add(1)..).count();
        if u64::try_from(known).unwrap_or(u64::MAX).saturating_add(edits) == happened {
            *self = Self { epoch, account, known: later, tokens: std::mem::take(&mut self.tokens) };
            return true;
        }
        self.known.extend(later);
        false
    }
}

/// Takes the events that have come, and says whether the connection that brings them was lost. Where some were passed over
/// because there were too many, the epoch tells.
fn drain(events: &mut Receiver<Event>, changed: &mut Vec<(u64, TokenId)>) -> bool {
    let mut lost = false;
    loop {
        match events.try_recv() {
            Ok(Event::Policy { token, epoch, .. }) => changed.push((epoch, token)),
            Ok(Event::Lost) => lost = true,
            Ok(Event::Account { .. } | Event::Recall { .. }) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return lost,
        }
    }
}

/// Waits until a change is heard of, or more; `None`: none was, or the connection was lost.
async fn hear(
    events: &mut Receiver<Event>,
    changed: &mut Vec<(u64, TokenId)>,
    deadline: Instant,
) -> Option<()> {
    loop {
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Ok(Event::Policy { token, epoch, .. })) => {
                changed.push((epoch, token));
                return (!drain(events, changed)).then_some(());
            }
            Ok(Ok(Event::Account { .. })) => return Some(()),
            Ok(Ok(Event::Recall { .. }) | Err(RecvError::Lagged(_))) => {}
            Ok(Ok(Event::Lost) | Err(RecvError::Closed)) | Err(_) => return None,
        }
    }
}

/// The id of an entry, whatever its state.
pub(super) fn id_of(listed: &Listed) -> &TokenId {
    match listed {
        Listed::Token(token) => &token.policy.id,
        Listed::Unreadable { id, .. } => id,
    }
}

#[cfg(test)]
mod tests;
