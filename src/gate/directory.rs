//! The policies known here: who is behind a token.
//!
//! A bounded cache in front of the store. Concurrent first sights of one token share one look-up, and a look-up goes on
//! when the request that began it has left. Unknown tokens are remembered too, apart and bounded, and look-ups of tokens
//! never seen before are limited in number, so that a flood of made-up tokens neither fills memory nor reaches the store
//! at its own rate.
//!
//! Entries go out of force by version: an event names a token and its new version; a look-up that was under way and comes
//! back with an older one is thrown away and made again (law 5, the fence). After a lost connection everything known
//! is stale: it is looked up anew at its next use, and trusted meanwhile only while the store cannot be reached, for
//! the grace time (law 6).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::line::Line;
use crate::policy::{Denial, Policy, Token, TokenDigest, TokenId};
use crate::telemetry::Lookup;

/// What a directory is told.
#[derive(Debug, Clone, Copy)]
pub struct DirectorySettings {
    /// The most policies kept.
    pub policies: usize,
    /// For how long what is known is trusted while the store cannot be reached.
    pub grace: Duration,
    /// How long a request waits for a look-up.
    pub patience: Duration,
}

/// The most unknown tokens remembered, and for how long.
const UNKNOWN: usize = 10_000;
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// The most look-ups that ask the store at once, and the most that wait for their turn.
const FLIGHTS: usize = 64;
const WAITING: usize = 4_096;
/// The most look-ups in a second that find nothing, or have not found anything yet.
const LOOKUPS_PER_SECOND: u32 = 2_000;
/// For how long an event's version is held against look-ups that were under way.
const FENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Entry {
    policy: Arc<Policy>,
    /// The directory's generation when it was looked up.
    generation: u64,
}

/// The digests that lead to one token: its present value's, and after a rotation former ones'. Most have one, and many are
/// in memory.
enum Digests {
    One(TokenDigest),
    More(Vec<TokenDigest>),
}

impl Digests {
    fn all(&self) -> &[TokenDigest] {
        match self {
            Self::One(digest) => std::slice::from_ref(digest),
            Self::More(digests) => digests,
        }
    }

    fn add(&mut self, digest: TokenDigest) {
        if !self.all().contains(&digest) {
            *self = Self::More(self.all().iter().copied().chain([digest]).collect());
        }
    }

    /// Forgets those that are of no use any more. Whether any is left.
    fn retain(&mut self, useful: impl Fn(&TokenDigest) -> bool) -> bool {
        match self {
            Self::One(digest) => useful(digest),
            Self::More(digests) => {
                digests.retain(useful);
                !digests.is_empty()
            }
        }
    }
}

type Answer = Result<Arc<Policy>, Denial>;

/// Finds policies for the gate.
pub(super) struct Directory {
    line: Arc<Line>,
    settings: DirectorySettings,
    runtime: Handle,
    known: Cache<TokenDigest, Entry>,
    unknown: Cache<TokenDigest, Instant>,
    digests: Mutex<HashMap<TokenId, Digests>>,
    flights: Mutex<HashMap<TokenDigest, watch::Receiver<Option<Answer>>>>,
    fences: Mutex<HashMap<TokenId, (u64, Instant)>>,
    generation: AtomicU64,
    /// Goes up whenever something is learned.
    learned: AtomicU64,
    seats: Semaphore,
    budget: Mutex<(Instant, u32)>,
}

impl Directory {
    pub(super) fn new(line: Arc<Line>, settings: DirectorySettings, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            line,
            settings,
            runtime,
            known: Cache::new(settings.policies.max(1)),
            unknown: Cache::new(UNKNOWN),
            digests: Mutex::default(),
            flights: Mutex::default(),
            fences: Mutex::default(),
            generation: AtomicU64::new(0),
            learned: AtomicU64::new(0),
            seats: Semaphore::new(FLIGHTS),
            budget: Mutex::new((Instant::now(), 0)),
        })
    }

    /// As [`Self::find_unless`], with nobody barred.
    #[cfg(test)]
    pub(super) async fn find(self: &Arc<Self>, token: &Token) -> Answer {
        self.find_unless(token, || None).await
    }

    /// The policy behind a token, or the refusal that its absence means; the refusal of `barred`, if there is one and this node
    /// never met the token.
    pub(super) async fn find_unless(
        self: &Arc<Self>,
        token: &Token,
        barred: impl FnOnce() -> Option<Denial>,
    ) -> Answer {
        let digest = token.digest();
        // Cut off for longer than the grace time, nothing that is known is trusted any more.
        let trusted = self.line.silence().is_none_or(|silence| silence <= self.settings.grace);
        let entry = self.known.get(&digest);
        if let Some(entry) = &entry
            && trusted
            && entry.generation == self.generation.load(Ordering::Acquire)
        {
            self.line.metrics().looked_up(Lookup::Known);
            return kind_fits(&entry.policy, token);
        }
        if entry.is_none()
            && let Some(denial) = barred()
        {
            return Err(denial);
        }
        if self.unknown.get(&digest).is_some_and(|until| Instant::now() < until) {
            self.line.metrics().looked_up(Lookup::KnownAbsent);
            return Err(Denial::TokenInvalid);
        }
        let (lookup, answer) = match self.look_up(digest, entry.is_some()).await {
            Err(Denial::StoreUnavailable) => match entry {
                Some(entry) if trusted => (Lookup::Stale, kind_fits(&entry.policy, token)),
                _ => (Lookup::Unavailable, Err(Denial::StoreUnavailable)),
            },
            Err(denial) => (Lookup::Absent, Err(denial)),
            Ok(policy) => (Lookup::Fetched, kind_fits(&policy, token)),
        };
        self.line.metrics().looked_up(lookup);
        answer
    }

    async fn look_up(self: &Arc<Self>, digest: TokenDigest, seen: bool) -> Answer {
        let mut answer = self.board(digest, seen)?;
        // Whoever asks the store waits, however soon the answer comes: a trace tells of each wait.
        tokio::task::yield_now().await;
        let landed = answer.wait_for(Option::is_some);
        match tokio::time::timeout(self.settings.patience, landed).await {
            Ok(Ok(landed)) => landed.clone().unwrap_or(Err(Denial::StoreUnavailable)),
            // Too slow for this request; the look-up goes on for the next one.
            Ok(Err(_)) | Err(_) => Err(Denial::StoreUnavailable),
        }
    }

    /// Joins the look-up of a token that is under way, or begins one.
    fn board(
        self: &Arc<Self>,
        digest: TokenDigest,
        seen: bool,
    ) -> Result<watch::Receiver<Option<Answer>>, Denial> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&digest) {
            return Ok(flight.clone());
        }
        if self.line.is_cut() || flights.len() >= WAITING {
            return Err(Denial::StoreUnavailable);
        }
        if !seen && !self.may_look_up() {
            return Err(Denial::StoreUnavailable);
        }
        let (land, flight) = watch::channel(None);
        flights.insert(digest, flight.clone());
        drop(flights);
        let directory = self.clone();
        self.runtime.spawn(async move {
            let seat = directory.seats.acquire().await;
            let answer = directory.fetch(digest).await;
            drop(seat);
            if !seen && answer.is_ok() {
                directory.has_found();
            }
            directory.flights.lock().remove(&digest);
            let _ = land.send(Some(answer));
        });
        Ok(flight)
    }

    /// A look-up of a token never seen before found one: a flood of made-up tokens is what is held back, not those who
    /// come for the first time.
    fn has_found(&self) {
        let mut budget = self.budget.lock();
        budget.1 = budget.1.saturating_sub(1);
    }

    /// Whether one more look-up of a token never seen before may begin in this second.
    fn may_look_up(&self) -> bool {
        let mut budget = self.budget.lock();
        let now = Instant::now();
        if now.duration_since(budget.0) >= Duration::from_secs(1) {
            *budget = (now, 0);
        }
        budget.1 += 1;
        budget.1 <= LOOKUPS_PER_SECOND
    }

    async fn fetch(&self, digest: TokenDigest) -> Answer {
        // A few rounds at most: each failed round means that an edit overtook the look-up.
        for _ in 0..8 {
            let generation = self.generation.load(Ordering::Acquire);
            let found = self.line.call("find_token", |store| store.find_token(&digest)).await?;
            let Some(policy) = found else {
                self.known.remove(&digest);
                self.unknown.insert(digest, Instant::now() + UNKNOWN_FOR);
                return Err(Denial::TokenInvalid);
            };
            let policy = Arc::new(policy);
            // Kept first, checked against the fences after: an event that comes in between then finds it and takes
            // it out again.
            self.keep(digest, &policy, generation);
            let fenced =
                self.fences.lock().get(&policy.id).is_some_and(|(version, _)| policy.version < *version);
            if !fenced && self.generation.load(Ordering::Acquire) == generation {
                return Ok(policy);
            }
            self.known.remove(&digest);
        }
        Err(Denial::StoreUnavailable)
    }

    fn keep(&self, digest: TokenDigest, policy: &Arc<Policy>, generation: u64) {
        let mut digests = self.digests.lock();
        // The index follows the cache: what was evicted is dropped from it when it has grown well past it.
        if digests.len() > self.settings.policies.saturating_mul(2) {
            digests.retain(|_, known| known.retain(|digest| self.known.peek(digest).is_some()));
        }
        digests.entry(policy.id.clone()).or_insert(Digests::One(digest)).add(digest);
        self.known.insert(digest, Entry { policy: policy.clone(), generation });
        self.learned.fetch_add(1, Ordering::AcqRel);
    }

    /// A token's policy or value was changed: what is known of it goes, and no look-up may bring an older one back.
    pub(super) fn changed(&self, token: &TokenId, version: u64) {
        let now = Instant::now();
        {
            let mut fences = self.fences.lock();
            if fences.len() > 1024 {
                fences.retain(|_, (_, at)| now.duration_since(*at) < FENCE);
            }
            let fence = fences.entry(token.clone()).or_insert((0, now));
            *fence = (fence.0.max(version), now);
        }
        let digests = self.digests.lock().remove(token);
        for digest in digests.iter().flat_map(Digests::all) {
            self.known.remove(digest);
        }
        self.learned.fetch_add(1, Ordering::AcqRel);
        // It may be a new token, or a new value, that somebody tried too early.
        self.unknown.clear();
    }

    /// Changes may have been missed: all that is known is stale.
    pub(super) fn lost(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.unknown.clear();
    }

    /// A number that moves whenever something was learned or forgotten.
    pub(super) fn learned(&self) -> u64 {
        self.learned.load(Ordering::Acquire)
    }

    /// How many policies are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many tokens are remembered as unknown.
    pub(super) fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// All that is known, for the snapshot in `state_dir`.
    pub(super) fn snapshot(&self) -> Vec<(TokenDigest, Arc<Policy>)> {
        self.known.iter().map(|(digest, entry)| (digest, entry.policy)).collect()
    }

    /// Takes in what an earlier run knew. It is stale: good only while the store cannot be reached.
    pub(super) fn restore(&self, policies: Vec<(TokenDigest, Policy)>) {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel);
        for (digest, policy) in policies {
            self.keep(digest, &Arc::new(policy), generation);
        }
    }
}

/// A record that calls itself another kind than its token's prefix is not to be trusted.
fn kind_fits(policy: &Arc<Policy>, token: &Token) -> Answer {
    if policy.kind == token.kind() {
        return Ok(policy.clone());
    }
    tracing::error!(token_id = %policy.id, "the record's type is not the token's; refused");
    Err(Denial::PolicyUnreadable)
}

#[cfg(test)]
pub(in crate::gate) mod tests;
