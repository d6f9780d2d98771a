//! The secrets that sign, as this node knows them: none is looked up for each request.
//!
//! Owns two caches. The secrets of an account (its usable secret tokens) go when one of these tokens is changed; another
//! change may mean that there is a new one, so then a signature that does not fit is tried once more with what the
//! store says. A token's own secret is known by the version of its policy, which the directory keeps in step: a new secret is
//! a new version. While the store cannot be reached, what is known is good for the grace time (law 6).
//!
//! Whoever keeps the node in step calls [`Keyring::changed`] and [`Keyring::lost`], as it does with the directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use super::line::Line;
use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, Denial, Policy, TokenId};
use crate::store::{AccountSecret, AccountSecrets, Store, StoreError};

/// The most tokens whose own secret, or the lack of one, is known.
const OWN: usize = 100_000;
/// For how long a change is held against look-ups that were under way.
const FENCE: Duration = Duration::from_secs(30);

/// The secrets of an account.
struct Ring {
    secrets: Vec<AccountSecret>,
    /// How many changes there had been when it was asked for.
    changes: u64,
    /// How often changes may have been missed by then.
    losses: u64,
}

#[derive(Default)]
struct Slot {
    ring: Mutex<Option<Arc<Ring>>>,
    asking: tokio::sync::Mutex<()>,
}

/// The secrets that are good for one token's signatures, and whether there may be newer ones.
pub(super) struct Secrets {
    own: Option<SigningSecret>,
    ring: Arc<Ring>,
    /// Something changed since: there may be a secret more.
    pub(super) may_have_grown: bool,
}

impl Secrets {
    /// Those that are good at `now`.
    pub(super) fn at(&self, now: Timestamp) -> impl Iterator<Item = &SigningSecret> {
        let good = move |found: &&AccountSecret| found.until.is_none_or(|until| now < until);
        self.own.iter().chain(self.ring.secrets.iter().filter(good).map(|found| &found.secret))
    }
}

/// Finds secrets for the gate.
pub(super) struct Keyring {
    line: Arc<Line>,
    /// How long a request waits for a look-up.
    patience: Duration,
    /// For how long what is known is trusted while the store cannot be reached.
    grace: Duration,
    runtime: Handle,
    accounts: Mutex<HashMap<AccountId, Arc<Slot>>>,
    own: Cache<TokenId, (u64, Option<SigningSecret>)>,
    changes: AtomicU64,
    losses: AtomicU64,
    fences: Mutex<HashMap<TokenId, (u64, Instant)>>,
}

impl Keyring {
    /// Look-ups are made on `runtime`, and go on when the request that began them has left.
    pub(super) fn new(line: Arc<Line>, patience: Duration, grace: Duration, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            line,
            patience,
            grace,
            runtime,
            accounts: Mutex::default(),
            own: Cache::new(OWN),
            changes: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            fences: Mutex::default(),
        })
    }

    /// A token was changed.
    pub(super) fn changed(&self, token: &TokenId) {
        let changes = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        {
            let mut fences = self.fences.lock();
            if fences.len() > 1024 {
                fences.retain(|_, (_, at)| at.elapsed() < FENCE);
            }
            fences.insert(token.clone(), (changes, Instant::now()));
        }
        for slot in self.accounts.lock().values() {
            let mut ring = slot.ring.lock();
            if ring.as_ref().is_some_and(|ring| ring.secrets.iter().any(|found| found.token_id == *token)) {
                *ring = None;
            }
        }
    }

    /// Changes may have been missed: what is known is good only while the store cannot be reached.
    pub(super) fn lost(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// The secrets that are good for a token. `anew`: those that were known have not fitted.
    pub(super) async fn find(self: &Arc<Self>, policy: &Policy, anew: bool) -> Result<Secrets, Denial> {
        // Any look-up that began after now will do, so those who ask together share it, however fast changes come.
        let since = if anew { self.changes.load(Ordering::Acquire) } else { 0 };
        let ring = self.ring(&policy.account, since).await?;
        let own = self.own(policy).await?;
        let may_have_grown = ring.changes < self.changes.load(Ordering::Acquire);
        Ok(Secrets { own, ring, may_have_grown })
    }

    async fn own(&self, policy: &Policy) -> Result<Option<SigningSecret>, Denial> {
        if let Some((version, own)) = self.own.get(&policy.id)
            && version == policy.version
        {
            return Ok(own);
        }
        let ask = self.line.call("signing_secret", |store| own_secret(store, policy));
        let found =
            tokio::time::timeout(self.patience, ask).await.unwrap_or(Err(Denial::StoreUnavailable))?;
        self.own.insert(policy.id.clone(), (policy.version, found.clone()));
        Ok(found)
    }

    async fn ring(self: &Arc<Self>, account: &AccountId, since: u64) -> Result<Arc<Ring>, Denial> {
        let slot = self.accounts.lock().entry(account.clone()).or_default().clone();
        let known = slot.ring.lock().clone();
        if let Some(ring) = known.as_ref().filter(|ring| self.is_good(ring, since)) {
            return Ok(ring.clone());
        }
        let (keyring, account) = (self.clone(), account.clone());
        let learning = self.runtime.spawn(async move { keyring.learn(&account, &slot, since).await });
        let learnt = match tokio::time::timeout(self.patience, learning).await {
            Ok(Ok(learnt)) => learnt,
            // Too slow for this request; the look-up goes on for the next one.
            Ok(Err(_)) | Err(_) => Err(Denial::StoreUnavailable),
        };
        match learnt {
            // Cut off for longer than the grace time, nothing that is known is trusted any more.
            Err(Denial::StoreUnavailable) => known
                .filter(|_| self.line.silence().is_some_and(|silence| silence <= self.grace))
                .ok_or(Denial::StoreUnavailable),
            other => other,
        }
    }

    /// `since`: how many changes it must know of at least.
    fn is_good(&self, ring: &Ring, since: u64) -> bool {
        ring.losses == self.losses.load(Ordering::Acquire) && ring.changes >= since
    }

    /// Asks the store, one call at a time; whoever waited for it looks again first.
    async fn learn(&self, account: &AccountId, slot: &Slot, since: u64) -> Result<Arc<Ring>, Denial> {
        let _asking = slot.asking.lock().await;
        let known = slot.ring.lock().clone();
        if let Some(ring) = known.filter(|ring| self.is_good(ring, since)) {
            return Ok(ring);
        }
        // A few rounds at most: each failed round means that an edit of a secret token overtook the look-up.
        for _ in 0..8 {
            let (changes, losses) =
                (self.changes.load(Ordering::Acquire), self.losses.load(Ordering::Acquire));
            let found = self.line.call("account_secrets", |store| secrets_of(store, account)).await?;
            for (token_id, why) in &found.unopened {
                tracing::warn!(%token_id, %why, "a secret token's value cannot be opened; nobody can sign with it");
            }
            let ring = Arc::new(Ring { secrets: found.secrets, changes, losses });
            // Kept first, checked after: a change that comes in between then finds it and takes it out again.
            *slot.ring.lock() = Some(ring.clone());
            let fences = self.fences.lock();
            let fenced = |found: &AccountSecret| {
                fences.get(&found.token_id).is_some_and(|(change, _)| *change > changes)
            };
            if !ring.secrets.iter().any(fenced) {
                return Ok(ring);
            }
            drop(fences);
            *slot.ring.lock() = None;
        }
        Err(Denial::StoreUnavailable)
    }
}

async fn own_secret(store: &dyn Store, policy: &Policy) -> Result<Option<SigningSecret>, StoreError> {
    store.signing_secret(&policy.account, &policy.id).await
}

async fn secrets_of(store: &dyn Store, account: &AccountId) -> Result<AccountSecrets, StoreError> {
    store.account_secrets(account).await
}
