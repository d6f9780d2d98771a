//! The responses that flow just now and are charged as they flow, or may have to end: who may still read them.
//!
//! Owns the list of open streams by token. An edit or a revocation judges each anew (law 5) and ends those it would
//! refuse; a stream that has nothing more to spend is ended when its last credit is used. Ending means: what is said is
//! kept in the [`Open`], and the upstream's connection is let go of ([`super::leash`]), so that Pingora comes to
//! `fail_to_proxy`. What goes out, and what it costs, is [`super::metered`]'s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::leash::Leash;
use super::line::Line;
use super::meter::Tab;
use crate::policy::domain::Page;
use crate::policy::route::{Errand, Route};
use crate::policy::{
    AccountId, Check, Credits, DatasetId, Denial, Facts, LeakedSecret, Operation, Policy, TokenId, examine,
};

/// What an open stream was judged by, to judge it anew.
pub(super) struct Case {
    pub(super) account: AccountId,
    pub(super) token: TokenId,
    pub(super) route: Arc<Route>,
    pub(super) datasets: Vec<DatasetId>,
    pub(super) operation: Operation,
    pub(super) page: Page,
    pub(super) client: Option<IpAddr>,
    pub(super) from_browser: bool,
}

/// Credits of an open response, and whether it is to end.
pub(super) struct Hand {
    /// `None`: the response has ended.
    pub(super) tab: Option<Tab>,
    pub(super) ended: Option<Denial>,
    /// What it cost in the end.
    pub(super) charged: Credits,
    /// What it needs in hand, if it is one that waits for credits: for what is held back, else for its next byte.
    pub(super) need: Option<Credits>,
    /// It ends where there are no credits; else it is delivered all the same.
    pub(super) is_cut: bool,
    /// Somebody draws for it.
    asking: bool,
    /// Something is held back that could not be paid for yet.
    pub(super) waiting: bool,
}

/// A response that flows.
pub(super) struct Open {
    hand: Mutex<Hand>,
    leash: Option<Arc<Leash>>,
    case: Option<Case>,
    expires_at: Mutex<Option<Timestamp>>,
    /// What was asked for has come, or will not.
    answered: Condvar,
    runtime: Handle,
}

/// How long a piece waits for credits at most: longer than a draw takes.
const WAIT: Duration = Duration::from_secs(1);
/// How long something is held back for which there are credits, until another piece comes.
const HELD_BACK: Duration = Duration::from_secs(2);

impl Open {
    pub(super) fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock()
    }

    /// Lets go of the upstream.
    pub(super) fn let_go(&self) {
        if let Some(leash) = &self.leash {
            leash.pull();
        }
    }

    /// Ends the response for this reason; the first counts.
    fn end(&self, denial: Denial) {
        {
            let mut hand = self.hand.lock();
            if hand.tab.is_none() || hand.ended.is_some() {
                return;
            }
            hand.ended = Some(denial);
        }
        self.let_go();
    }

    /// Gets what the next byte needs, besides; ends the response if there is no more. One at a time.
    pub(super) fn ask(self: &Arc<Self>, hand: &mut Hand) {
        if !std::mem::replace(&mut hand.asking, true) {
            self.runtime.spawn(self.clone().fetch());
        }
    }

    async fn fetch(self: Arc<Self>) {
        loop {
            let (asker, missing) = {
                let mut hand = self.hand.lock();
                let missing = match &*hand {
                    Hand { tab: Some(tab), need: Some(need), .. } => need.0.saturating_sub(tab.in_hand().0),
                    _ => 0,
                };
                let is_cut = hand.is_cut;
                let Hand { tab: Some(tab), .. } = &mut *hand else { return };
                if is_cut {
                    tab.close_spent();
                }
                if missing == 0 {
                    hand.asking = false;
                    break;
                }
                (tab.asker(), missing)
            };
            match asker.draw(missing).await {
                Ok(found) => {
                    let mut hand = self.hand.lock();
                    if let Some(tab) = &mut hand.tab {
                        tab.take_in(found);
                    }
                }
                Err(denial) => {
                    let is_cut = {
                        let mut hand = self.hand.lock();
                        hand.asking = false;
                        hand.is_cut
                    };
                    if is_cut {
                        self.end(denial);
                    }
                    break;
                }
            }
        }
        self.answered.notify_all();
        // What is held back still, because nobody could wait, goes with the next piece; it is not kept for ever.
        if self.hand.lock().waiting {
            tokio::time::sleep(HELD_BACK).await;
            if self.hand.lock().waiting {
                self.end(Denial::StoreUnavailable);
            }
        }
    }

    /// Waits until what was asked for has come, or is known not to come. `false`: nobody may wait on this runtime.
    pub(super) fn wait(&self) -> bool {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        if !matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
            return false;
        }
        // The other tasks of this thread go on elsewhere meanwhile.
        tokio::task::block_in_place(|| {
            let until = Instant::now() + WAIT;
            let mut hand = self.hand.lock();
            while hand.asking && !self.answered.wait_until(&mut hand, until).timed_out() {}
        });
        true
    }

    /// Judges it by a policy as it is now.
    fn judge(self: &Arc<Self>, case: &Case, policy: &Policy, leaked_secret: LeakedSecret) {
        let errand = Errand {
            route: &case.route,
            datasets: case.datasets.clone(),
            operation: case.operation,
            items: 1,
        };
        let facts = Facts {
            now: Timestamp::now(),
            errand: &errand,
            page: &case.page,
            client: case.client,
            from_browser: case.from_browser,
            leaked_secret,
            outside_browser: false,
            // A signature is good for the request that began the stream; what this says is not looked at.
            signature: Err(Denial::SignatureMissing),
        };
        let mut findings =
            examine(&facts, policy).into_iter().filter(|found| found.check != Check::Signature);
        if let Some(denial) = findings.find_map(|found| found.outcome.err()) {
            return self.end(denial);
        }
        *self.expires_at.lock() = policy.expires_at;
        // The limit may be another: what is held ahead is drawn anew.
        let mut hand = self.hand.lock();
        if hand.is_cut
            && let Some(tab) = &mut hand.tab
        {
            tab.release();
            self.ask(&mut hand);
        }
    }
}

/// The list.
pub(super) struct Streams {
    line: Arc<Line>,
    runtime: Handle,
    leaked_secret: Mutex<LeakedSecret>,
    open: Mutex<HashMap<TokenId, Vec<Weak<Open>>>>,
}

impl Streams {
    pub(super) fn new(line: Arc<Line>, runtime: Handle, leaked_secret: LeakedSecret) -> Self {
        Self { line, runtime, leaked_secret: Mutex::new(leaked_secret), open: Mutex::default() }
    }

    /// What a secret token from a browser leads to, from now on.
    pub(super) fn set_leaked_secret(&self, leaked_secret: LeakedSecret) {
        *self.leaked_secret.lock() = leaked_secret;
    }

    /// A response begins to flow. With a `case` it is judged anew when its policy changes.
    pub(super) fn open(
        &self,
        tab: Tab,
        leash: Option<Arc<Leash>>,
        case: Option<Case>,
        expires_at: Option<Timestamp>,
    ) -> Arc<Open> {
        let hand = Hand {
            tab: Some(tab),
            ended: None,
            charged: Credits(0),
            need: None,
            is_cut: false,
            asking: false,
            waiting: false,
        };
        let token = case.as_ref().map(|case| case.token.clone());
        let open = Arc::new(Open {
            hand: Mutex::new(hand),
            leash,
            case,
            expires_at: Mutex::new(expires_at),
            answered: Condvar::new(),
            runtime: self.runtime.clone(),
        });
        if let Some(token) = token {
            self.open.lock().entry(token).or_default().push(Arc::downgrade(&open));
        }
        open
    }

    fn of(&self, token: Option<&TokenId>) -> Vec<Arc<Open>> {
        let open = self.open.lock();
        match token {
            Some(token) => open.get(token).into_iter().flatten().filter_map(Weak::upgrade).collect(),
            None => open.values().flatten().filter_map(Weak::upgrade).collect(),
        }
    }

    /// A policy was changed, or, with `None`, any may have been: its streams are judged anew.
    pub(super) fn changed(self: &Arc<Self>, token: Option<&TokenId>) {
        let mut by_token: HashMap<TokenId, Vec<Arc<Open>>> = HashMap::new();
        for open in self.of(token) {
            if let Some(case) = &open.case {
                by_token.entry(case.token.clone()).or_default().push(open);
            }
        }
        if !by_token.is_empty() {
            self.runtime.spawn(self.clone().judge_anew(by_token));
        }
    }

    async fn judge_anew(self: Arc<Self>, by_token: HashMap<TokenId, Vec<Arc<Open>>>) {
        for (token, streams) in by_token {
            let Some(account) = streams.first().and_then(|open| open.case.as_ref()).map(|case| &case.account)
            else {
                continue;
            };
            // In an outage streams go on by what was known; coming back, the store is asked again.
            let found = self.line.call("get_token", |store| store.get_token(account, &token)).await;
            let policy = match found {
                Ok(found) => found.map(|stored| stored.policy),
                Err(Denial::StoreUnavailable) => continue,
                Err(denial) => {
                    for open in &streams {
                        open.end(denial.clone());
                    }
                    continue;
                }
            };
            let leaked_secret = *self.leaked_secret.lock();
            for open in &streams {
                match (&policy, &open.case) {
                    (Some(policy), Some(case)) => open.judge(case, policy, leaked_secret),
                    _ => open.end(Denial::TokenRevoked),
                }
            }
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        let open = self.open.lock();
        open.values().flatten().filter(|open| open.strong_count() > 0).count()
    }

    /// Ends all of them: the gate is about to stop.
    pub(super) fn end_all(&self) {
        for open in self.of(None) {
            open.end(Denial::ShuttingDown);
        }
    }

    /// Ends streams whose token's time is over, and forgets those that have ended.
    pub(super) fn sweep(&self) {
        let now = Timestamp::now();
        let mut over = Vec::new();
        self.open.lock().retain(|_, streams| {
            streams.retain(|weak| {
                let Some(open) = weak.upgrade() else { return false };
                if open.expires_at.lock().is_some_and(|expiry| now >= expiry) {
                    over.push(open);
                }
                true
            });
            !streams.is_empty()
        });
        for open in over {
            open.end(Denial::TokenExpired);
        }
    }
}
