//! One purse, shared by the requests that draw on it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;
use ulid::Ulid;

use crate::ledger::journal::{CellRef, Journal, LeaseEntry};
use crate::ledger::lease::Grant;
use crate::ledger::purse::{Draw, Micros, Purse, Wish};
use crate::ledger::{Standing, period_start};
use crate::policy::{AccountId, Credits, Denial, Limit, Operation, Period, Pool, TokenId};
use crate::store::{LeaseId, LeaseKey};

/// For how long a refusal is remembered: requests that come meanwhile do not ask the store again. It is part of the
/// bound of law 3.
const REMEMBER: Micros = 50_000;

/// What came of asking for a lease.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Something changed: look again.
    Changed,
    /// Whoever needs this much or more is refused.
    Denied { need: u64, denial: Denial },
    /// The store cannot be asked.
    Unavailable,
}

/// A cell of the journal, and what it counts.
#[derive(Clone)]
pub(super) struct Cell {
    pub(super) reference: CellRef,
    pub(super) dataset: String,
    pub(super) operation: Operation,
}

/// Credits drawn for a response whose price grows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) lease: Ulid,
    pub(super) credits: u64,
    /// When they may no longer be spent.
    pub(super) ends: Micros,
}

/// What the store last said of the token, kept up with what this node did since.
#[derive(Debug, Clone, Copy, Default)]
struct Books {
    used: u64,
    limit: Option<Limit>,
    free: Option<u64>,
    resets_at: Option<Micros>,
    at: jiff::Timestamp,
}

/// Where a lease counts.
struct Page {
    lease: Ulid,
    /// The hour it counts in: seconds since the epoch, by the store's clock.
    hour: i64,
    /// By operation and data set, in this order.
    cells: Vec<(Operation, Box<str>, CellRef)>,
}

impl Page {
    /// Where a cell is, or would be.
    fn find(&self, operation: Operation, dataset: &str) -> Result<usize, usize> {
        let key = (operation, dataset);
        self.cells.binary_search_by(|(operation, dataset, _)| (*operation, &**dataset).cmp(&key))
    }
}

/// Kept small: each token in use has one, and most of them hold one lease with one cell.
#[derive(Default)]
struct State {
    purse: Purse,
    books: Books,
    pages: Vec<Page>,
    /// Bytes whose lease was closed before they were out; they go with the next one.
    bytes: BTreeMap<(Box<str>, Operation), u64>,
    exhausted: Option<Box<(u64, Denial, Micros)>>,
    /// Made when somebody waits for what comes of asking.
    outcomes: Option<Box<watch::Sender<Outcome>>>,
    recalling: bool,
    /// Debts of responses that cost more than was in hand, for which the store has not been asked yet. Nobody draws
    /// meanwhile: a limit may be exceeded by one response's cost, not by one after the other.
    uncovered: u32,
    /// Nothing is settled or renewed before then.
    paused_until: Micros,
    /// Since when the store has not taken what it is told; `None`: it does.
    failing_since: Option<Micros>,
}

impl State {
    /// Whether a refusal is remembered for whoever is short of that much, or asks ahead.
    fn is_hopeless(&self, short: Option<u64>, now: Micros) -> bool {
        let exhausted = self.exhausted.as_ref();
        exhausted.is_some_and(|refusal| {
            let (need, _, until) = &**refusal;
            now < *until && short.unwrap_or(1) >= *need
        })
    }

    /// Tells whoever waits what came of asking.
    fn tell(&mut self, outcome: Outcome) {
        if self.outcomes.as_ref().is_some_and(|outcomes| outcomes.receiver_count() == 0) {
            self.outcomes = None;
        }
        if let Some(outcomes) = &self.outcomes {
            outcomes.send_replace(outcome);
        }
    }

    /// Tells whoever waits that there may be more now.
    fn tell_of_more(&mut self) {
        if let Some(outcomes) = &self.outcomes {
            outcomes.send_if_modified(|outcome| matches!(outcome, Outcome::Changed));
        }
    }
}

/// One purse of this node.
pub(super) struct PurseSlot {
    account: AccountId,
    token: TokenId,
    pool: Pool,
    state: Mutex<State>,
}

/// What the store calls a lease of the journal.
pub(super) fn key_of(entry: LeaseEntry) -> LeaseKey {
    let LeaseEntry { lease, account, token, pool } = entry;
    LeaseKey { lease: LeaseId(lease), account, token, pool }
}

impl PurseSlot {
    pub(super) fn new(account: AccountId, token: TokenId, pool: Pool) -> Self {
        Self { account, token, pool, state: Mutex::default() }
    }

    pub(super) fn pool(&self) -> Pool {
        self.pool
    }

    pub(super) fn token(&self) -> &TokenId {
        &self.token
    }

    pub(super) fn account(&self) -> &AccountId {
        &self.account
    }

    pub(super) fn key(&self, lease: Ulid) -> LeaseKey {
        key_of(self.entry(lease))
    }

    pub(super) fn entry(&self, lease: Ulid) -> LeaseEntry {
        LeaseEntry { lease, account: self.account.clone(), token: self.token.clone(), pool: self.pool }
    }

    /// What comes of asking from now on.
    pub(super) fn outcomes(&self) -> watch::Receiver<Outcome> {
        let mut state = self.state.lock();
        let outcomes = state.outcomes.get_or_insert_with(|| Box::new(watch::Sender::new(Outcome::Changed)));
        outcomes.subscribe()
    }

    /// Draws `cost`, and says what to ask the store for; nothing while the line to it is cut.
    pub(super) fn draw(&self, cost: u64, now: Micros, cut: bool) -> (Draw, Option<Wish>) {
        let mut state = self.state.lock();
        if state.uncovered > 0 {
            return (Draw::Short, None);
        }
        let drawn = state.purse.draw(cost, now);
        let short = (drawn == Draw::Short).then_some(cost);
        let more =
            if cut || state.is_hopeless(short, now) { None } else { state.purse.wish_more(short, now) };
        (drawn, more)
    }

    /// Draws from one to `want` credits for a response whose price grows, and says what to ask the store for. With
    /// nothing in hand, that is at least `need`.
    pub(super) fn draw_part(&self, need: u64, want: u64, now: Micros) -> (Option<Drawn>, Option<Wish>) {
        let mut state = self.state.lock();
        if state.uncovered > 0 {
            return (None, None);
        }
        let drawn = state.purse.draw_part(want, now);
        let drawn = drawn.map(|(lease, credits, ends)| Drawn { lease, credits, ends });
        let got = drawn.as_ref().map_or(0, |drawn| drawn.credits);
        let short = (got < need).then(|| need - got);
        let more = if state.is_hopeless(short, now) { None } else { state.purse.wish_more(short, now) };
        let more = more.map(|wish| match wish {
            Wish::Reserve { want: usual, need } => Wish::Reserve { want: usual.max(want - got), need },
            other => other,
        });
        (drawn, more)
    }

    pub(super) fn spend_part(&self, lease: Ulid, credits: u64) {
        self.state.lock().purse.spend_part(lease, credits);
    }

    /// Some of what a response holds is not needed after all.
    pub(super) fn release(&self, lease: Ulid, credits: u64) {
        let mut state = self.state.lock();
        state.purse.release(lease, credits);
        state.tell_of_more();
    }

    /// A response cost more than was in hand. Nobody draws until it is [`Self::covered`].
    pub(super) fn overspend(&self, lease: Ulid, credits: u64) {
        let mut state = self.state.lock();
        state.purse.overspend(lease, credits);
        state.uncovered += 1;
    }

    /// What is in hand pays for a debt before anybody draws it: which leases, how much of each, and whether more may come
    /// in, since a lease was asked for.
    pub(super) fn hold_for_debt(&self, debt: u64) -> (Vec<(Ulid, u64)>, bool) {
        let mut state = self.state.lock();
        let held = state.purse.hold_for_debt(debt);
        (held, state.purse.is_asking())
    }

    /// The store counts a debt as leased, or has nothing left to count.
    pub(super) fn covered(&self) {
        let mut state = self.state.lock();
        state.uncovered = state.uncovered.saturating_sub(1);
        state.tell(Outcome::Changed);
    }

    /// Whether a lease is in hand still.
    pub(super) fn holds(&self, lease: Ulid) -> bool {
        self.state.lock().purse.leases().iter().any(|held| held.lease == lease)
    }

    /// The refusal that is remembered for whoever needs `cost`.
    pub(super) fn exhausted(&self, cost: u64, now: Micros) -> Option<Denial> {
        let state = self.state.lock();
        let (need, denial, until) = &**state.exhausted.as_ref()?;
        (now < *until && cost >= *need).then(|| denial.clone())
    }

    pub(super) fn is_recalling(&self) -> bool {
        self.state.lock().recalling
    }

    pub(super) fn set_recalling(&self) {
        self.state.lock().recalling = true;
    }

    /// A lease was granted that was asked for at `asked_at`.
    pub(super) fn granted(&self, lease: Ulid, grant: &Grant, asked_at: Micros, life: Micros) {
        let micros = |wait: std::time::Duration| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state.lock();
        {
            let ends = asked_at.saturating_add(micros(grant.valid_for));
            state.purse.granted(lease, grant.granted.0, ends, asked_at.saturating_add(life));
            let hour = period_start(Period::Hour, grant.at).as_second();
            if let Some(page) = state.pages.iter_mut().find(|page| page.lease == lease) {
                page.hour = hour;
            } else {
                state.pages.reserve_exact(1);
                state.pages.push(Page { lease, hour, cells: Vec::new() });
            }
            // Of what is leased, this node's own part is told from the purse.
            state.books = Books {
                used: grant.used.0,
                limit: grant.limit,
                free: grant.free.map(|free| free.0),
                resets_at: grant.resets_in.map(|wait| asked_at.saturating_add(micros(wait))),
                at: grant.at,
            };
            state.exhausted = None;
            state.recalling = false;
        }
        state.tell(Outcome::Changed);
    }

    /// Nothing was granted; `denial` for those who need `need`, none for an ask ahead.
    pub(super) fn refused(&self, denial: Option<(u64, Denial)>, now: Micros) {
        let mut state = self.state.lock();
        state.purse.refused();
        state.recalling = false;
        let outcome = match denial {
            Some((need, denial)) => {
                state.exhausted = Some(Box::new((need, denial.clone(), now + REMEMBER)));
                Outcome::Denied { need, denial }
            }
            None => Outcome::Changed,
        };
        state.tell(outcome);
    }

    /// The store could not be asked.
    pub(super) fn unreachable(&self) {
        let mut state = self.state.lock();
        state.purse.refused();
        state.recalling = false;
        state.tell(Outcome::Unavailable);
    }

    /// Where the token stands, with what this node has spent and holds.
    pub(super) fn standing(&self, now: Micros) -> Standing {
        let state = self.state.lock();
        let own: u64 = state.purse.leases().iter().map(|held| held.spent + held.flying).sum();
        let books = state.books;
        Standing {
            used: Credits(books.used + own),
            limit: books.limit,
            remaining: books.free.map(|free| Credits(free + state.purse.left())),
            resets_in: books.resets_at.map(|at| {
                std::time::Duration::from_micros(at.saturating_sub(now))
                    .max(std::time::Duration::from_secs(1))
            }),
            burst_left: None,
            at: books.at,
        }
    }

    /// Credits spent for good, of leases that are not settled.
    pub(super) fn unsettled(&self) -> u64 {
        self.state.lock().purse.leases().iter().map(|held| held.spent).sum()
    }

    /// The journal's cell for a request on `lease`; `None`: the journal cannot take it.
    pub(super) fn cell(
        &self,
        journal: &Journal,
        lease: Ulid,
        dataset: &str,
        operation: Operation,
    ) -> Option<Cell> {
        let mut state = self.state.lock();
        let reference = self.make_cell(&mut state, journal, lease, dataset, operation)?;
        Some(Cell { reference, dataset: dataset.to_owned(), operation })
    }

    fn make_cell(
        &self,
        state: &mut State,
        journal: &Journal,
        lease: Ulid,
        dataset: &str,
        operation: Operation,
    ) -> Option<CellRef> {
        let page = state.pages.iter_mut().find(|page| page.lease == lease)?;
        let at = match page.find(operation, dataset) {
            Ok(at) => return page.cells.get(at).map(|(_, _, reference)| reference.clone()),
            Err(at) => at,
        };
        match journal.cell(&self.entry(lease), dataset, operation, page.hour) {
            Ok(reference) => {
                if page.cells.is_empty() {
                    page.cells.reserve_exact(1);
                }
                page.cells.insert(at, (operation, dataset.into(), reference.clone()));
                Some(reference)
            }
            Err(error) => {
                tracing::error!(%error, "the journal takes no more; requests are refused");
                None
            }
        }
    }

    pub(super) fn spend(&self, lease: Ulid, cost: u64) {
        self.state.lock().purse.spend(lease, cost);
    }

    pub(super) fn give_back(&self, lease: Ulid, cost: u64) {
        let mut state = self.state.lock();
        state.purse.give_back(lease, cost);
        // Somebody may wait for just these.
        state.tell_of_more();
    }

    /// Counts bytes with their lease while it is open, else with the next one.
    pub(super) fn add_bytes(&self, lease: Ulid, cell: &Cell, bytes: u64) {
        let mut state = self.state.lock();
        if state.purse.leases().iter().any(|held| held.lease == lease && !held.busy) {
            cell.reference.add_bytes(bytes);
        } else {
            *state.bytes.entry((cell.dataset.as_str().into(), cell.operation)).or_default() += bytes;
        }
    }

    /// Writes bytes that wait down under an open lease. `false`: they still wait, and no lease is open.
    pub(super) fn flush_bytes(&self, journal: &Journal) -> bool {
        let mut state = self.state.lock();
        if state.bytes.is_empty() {
            return true;
        }
        let open =
            state.purse.leases().iter().find(|held| !held.busy && !held.leaving).map(|held| held.lease);
        let Some(lease) = open else { return false };
        for ((dataset, operation), bytes) in std::mem::take(&mut state.bytes) {
            if let Some(reference) = self.make_cell(&mut state, journal, lease, &dataset, operation) {
                reference.add_bytes(bytes);
            }
        }
        true
    }

    /// Asks for a lease that holds nothing, to carry bytes.
    pub(super) fn wish_carrier(&self, now: Micros) -> Option<Wish> {
        let wish = self.state.lock().purse.wish_more(Some(0), now)?;
        Some(match wish {
            Wish::Reserve { .. } => Wish::Reserve { want: 0, need: 0 },
            other => other,
        })
    }

    pub(super) fn recall(&self) {
        let mut state = self.state.lock();
        state.purse.recall();
        state.exhausted = None;
    }

    pub(super) fn wishes(&self, now: Micros, cut: bool) -> Vec<Wish> {
        self.state.lock().purse.wishes(now, cut)
    }

    /// The store has closed a lease.
    pub(super) fn settled(&self, lease: Ulid, spent: u64) {
        let mut state = self.state.lock();
        let held = state.purse.leases().iter().find(|held| held.lease == lease);
        let granted = held.map_or(0, |held| held.granted);
        state.books.used += spent;
        state.books.free = state.books.free.map(|free| free + granted.saturating_sub(spent));
        state.purse.settled(lease);
        state.failing_since = None;
        state.pages.retain(|page| page.lease != lease);
        state.tell(Outcome::Changed);
    }

    pub(super) fn shrunk(&self, lease: Ulid, keep: u64) {
        let mut state = self.state.lock();
        state.purse.shrunk(lease, keep);
        state.failing_since = None;
    }

    pub(super) fn renewed(&self, lease: Ulid, expires: Option<Micros>) {
        let mut state = self.state.lock();
        state.purse.renewed(lease, expires);
        state.failing_since = None;
    }

    /// Leaves the store alone until then: it cannot read a record of this purse.
    pub(super) fn pause(&self, until: Micros) {
        self.state.lock().paused_until = until;
    }

    pub(super) fn is_paused(&self, now: Micros) -> bool {
        now < self.state.lock().paused_until
    }

    pub(super) fn failed(&self, lease: Ulid, now: Micros) {
        let mut state = self.state.lock();
        state.purse.failed(lease);
        state.failing_since.get_or_insert(now);
    }

    /// For how long the store has not taken what it is told of these leases.
    pub(super) fn failing_for(&self, now: Micros) -> std::time::Duration {
        let since = self.state.lock().failing_since;
        std::time::Duration::from_micros(since.map_or(0, |since| now.saturating_sub(since)))
    }

    pub(super) fn open(&self) -> u64 {
        self.state.lock().purse.open()
    }

    pub(super) fn leases(&self) -> u64 {
        self.state.lock().purse.leases().len() as u64
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_idle(&self, now: Micros, long: Micros) -> bool {
        let state = self.state.lock();
        state.purse.is_empty() && state.bytes.is_empty() && now.saturating_sub(state.purse.last_draw()) > long
    }
}
