use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::ledger::lease::Reserved;
use crate::policy::record::Account;
use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, Credits, Pool, TokenKind};
use crate::store::people::{Member, MemberId, MemberWritten, Session, SessionDigest};
use crate::store::trail::{Asked, Note, Traced};
use crate::store::{
    AccountSecrets, Counted, Event, Grain, LeaseId, LeaseKey, Listed, NodeReport, Paced, RefusalCell,
    Remembered, Reserve, Settlement, Sighting, Store, StoreError, StoredToken, UsageRow, UsageSums, Written,
};
use crate::telemetry::Metrics;

/// A store that knows policies only, counts look-ups, and holds them back until it is told. Passes it gives as many as it
/// is told.
#[derive(Default)]
pub(in crate::gate) struct Shelf {
    policies: Mutex<HashMap<TokenDigest, Policy>>,
    lookups: AtomicUsize,
    /// Look-ups read what is on the shelf, then wait here.
    pub(in crate::gate) held: Mutex<Option<Arc<Notify>>>,
    pub(in crate::gate) down: std::sync::atomic::AtomicBool,
    pub(in crate::gate) passes: std::sync::atomic::AtomicU32,
}

type Answered<T> = Result<T, StoreError>;

fn away<T>() -> Answered<T> {
    Err(StoreError::Unavailable("it only knows policies".to_owned()))
}

#[async_trait]
impl Store for Shelf {
    async fn find_token(&self, digest: &TokenDigest) -> Answered<Option<Policy>> {
        self.lookups.fetch_add(1, Ordering::AcqRel);
        if self.down.load(Ordering::Acquire) {
            return away();
        }
        let found = self.policies.lock().get(digest).cloned();
        let held = self.held.lock().clone();
        if let Some(held) = held {
            held.notified().await;
        }
        Ok(found)
    }

    async fn get_token(&self, _: &AccountId, _: &TokenId) -> Answered<Option<StoredToken>> {
        away()
    }
    async fn list_tokens(&self, _: &AccountId, _: Option<&TokenId>, _: usize) -> Answered<Vec<Listed>> {
        away()
    }
    async fn create_token(&self, _: &Policy, _: &Token, _: &Note) -> Answered<()> {
        away()
    }
    async fn put_policy(&self, _: &Policy, _: &Note) -> Answered<Written> {
        away()
    }
    async fn rotate_token(
        &self,
        _: &AccountId,
        _: &TokenId,
        _: u64,
        _: &Token,
        _: Duration,
        _: &Note,
    ) -> Answered<Written> {
        away()
    }
    async fn reveal_token(&self, _: &AccountId, _: &TokenId) -> Answered<Option<Token>> {
        away()
    }
    async fn put_signing_secret(
        &self,
        _: &AccountId,
        _: &TokenId,
        _: u64,
        _: &SigningSecret,
        _: &Note,
    ) -> Answered<Written> {
        away()
    }
    async fn signing_secret(&self, _: &AccountId, _: &TokenId) -> Answered<Option<SigningSecret>> {
        away()
    }
    async fn account_secrets(&self, _: &AccountId) -> Answered<AccountSecrets> {
        away()
    }
    async fn remember_signatures(&self, _: &AccountId, _: &[Sighting]) -> Answered<Vec<Remembered>> {
        away()
    }
    async fn mark_seen_in_browser(&self, _: &AccountId, _: &TokenId, _: Timestamp) -> Answered<()> {
        away()
    }
    async fn get_account(&self, _: &AccountId) -> Answered<Option<Account>> {
        away()
    }
    async fn create_account(&self, _: &Account, _: &Policy, _: &Token, _: &Note) -> Answered<bool> {
        away()
    }
    async fn put_account(&self, _: &Account, _: &Note) -> Answered<Written> {
        away()
    }
    async fn note(&self, _: &AccountId, _: &Note) -> Answered<()> {
        away()
    }
    async fn trail(&self, _: &AccountId, _: &Asked) -> Answered<Vec<Traced>> {
        away()
    }
    async fn reserve(&self, _: &Reserve) -> Answered<Reserved> {
        away()
    }
    async fn shrink(&self, _: &LeaseKey, _: Credits) -> Answered<()> {
        away()
    }
    async fn settle(&self, _: &[Settlement]) -> Answered<()> {
        away()
    }
    async fn renew(&self, _: &[LeaseKey], _: Duration) -> Answered<Vec<bool>> {
        away()
    }
    async fn expire(&self, _: &AccountId) -> Answered<u64> {
        away()
    }
    async fn recall(&self, _: &AccountId, _: Option<&TokenId>, _: Pool) -> Answered<()> {
        away()
    }
    async fn pace(&self, _: &AccountId, _: &TokenId, _: u32) -> Answered<Paced> {
        let held = self.held.lock().clone();
        if let Some(held) = held {
            held.notified().await;
        }
        if self.down.load(Ordering::Acquire) {
            return away();
        }
        let count = self.passes.load(Ordering::Acquire);
        Ok(Paced::Passes { count, hold: Duration::from_mins(1), remaining: 0 })
    }
    fn events(&self) -> tokio::sync::broadcast::Receiver<Event> {
        tokio::sync::broadcast::channel(1).1
    }
    async fn epoch(&self, _: &AccountId) -> Answered<u64> {
        if self.down.load(Ordering::Acquire) { away() } else { Ok(1) }
    }
    async fn report_node(&self, _: &AccountId, _: &NodeReport, _: Duration) -> Answered<()> {
        away()
    }
    async fn nodes(&self, _: &AccountId) -> Answered<Vec<NodeReport>> {
        away()
    }
    async fn count_refusals(&self, _: &AccountId, _: LeaseId, _: &[RefusalCell]) -> Answered<()> {
        away()
    }
    async fn usage(
        &self,
        _: &AccountId,
        _: Option<&TokenId>,
        _: Timestamp,
        _: Timestamp,
    ) -> Answered<Vec<UsageRow>> {
        away()
    }
    async fn token_usage(&self, _: &AccountId, _: &TokenId) -> Answered<Counted> {
        away()
    }
    async fn account_usage(&self, _: &AccountId) -> Answered<Counted> {
        away()
    }
    async fn members(&self, _: &AccountId) -> Answered<Vec<Member>> {
        away()
    }
    async fn member(&self, _: &AccountId, _: &MemberId) -> Answered<Option<Member>> {
        away()
    }
    async fn create_member(&self, _: &AccountId, _: &Member, _: &Note) -> Answered<MemberWritten> {
        away()
    }
    async fn put_member(&self, _: &AccountId, _: &Member, _: &Note) -> Answered<MemberWritten> {
        away()
    }
    async fn remove_member(&self, _: &AccountId, _: &MemberId, _: u64, _: &Note) -> Answered<MemberWritten> {
        away()
    }
    async fn put_session(&self, _: &AccountId, _: &SessionDigest, _: &Session, _: Duration) -> Answered<()> {
        away()
    }
    async fn session(&self, _: &AccountId, _: &SessionDigest) -> Answered<Option<Session>> {
        away()
    }
    async fn end_session(&self, _: &AccountId, _: &SessionDigest) -> Answered<()> {
        away()
    }
    async fn ping(&self) -> Answered<()> {
        away()
    }
    async fn get_tokens(&self, _: &AccountId, _: &[TokenId]) -> Answered<Vec<Listed>> {
        away()
    }
    async fn list_tokens_behind(&self, _: &AccountId, _: usize, _: usize) -> Answered<(usize, Vec<Listed>)> {
        away()
    }
    async fn tokens_usage(&self, _: &AccountId, _: &[TokenId]) -> Answered<Vec<Counted>> {
        away()
    }
    async fn usage_sums(&self, _: &AccountId, _: Grain, _: Timestamp, _: Timestamp) -> Answered<UsageSums> {
        away()
    }
}

struct World {
    shelf: Arc<Shelf>,
    directory: Arc<Directory>,
}

impl World {
    fn new(patience: Duration) -> Self {
        let shelf = Arc::new(Shelf::default());
        let metrics = Arc::new(Metrics::new().unwrap());
        let line = Arc::new(Line::new(shelf.clone(), metrics));
        tokio::spawn(Line::watch(Arc::downgrade(&line), AccountId::default_account()));
        let settings = DirectorySettings { policies: 1000, grace: Duration::from_mins(1), patience };
        Self { shelf, directory: Directory::new(line, settings, Handle::current()) }
    }

    fn put(&self, token: &Token, version: u64, nickname: &str) -> TokenId {
        let id = TokenId::from_ulid(ulid::Ulid::from_parts(1, 1));
        let account = AccountId::default_account();
        let mut policy = Policy::new(id.clone(), account, token.kind(), Timestamp::UNIX_EPOCH);
        policy.version = version;
        nickname.clone_into(&mut policy.nickname);
        self.shelf.policies.lock().insert(token.digest(), policy);
        id
    }

    fn lookups(&self) -> usize {
        self.shelf.lookups.load(Ordering::Acquire)
    }
}

fn token(n: u8) -> Token {
    Token::from_random(TokenKind::Publishable, [n; 16])
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn concurrent_first_sights_share_one_look_up_and_later_ones_need_none() {
    let world = World::new(LONG);
    world.put(&token(1), 1, "one");
    let hold = Arc::new(Notify::new());
    *world.shelf.held.lock() = Some(hold.clone());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let directory = world.directory.clone();
            tokio::spawn(async move { directory.find(&token(1)).await })
        })
        .collect();
    while world.lookups() == 0 {
        tokio::task::yield_now().await;
    }
    *world.shelf.held.lock() = None;
    hold.notify_one();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().nickname, "one");
    }
    assert!(world.directory.find(&token(1)).await.is_ok());
    assert_eq!(world.lookups(), 1);
}

#[tokio::test]
async fn law_5_an_old_look_up_in_flight_never_brings_back_what_was_replaced() {
    let world = World::new(LONG);
    let id = world.put(&token(1), 1, "old");
    let hold = Arc::new(Notify::new());
    *world.shelf.held.lock() = Some(hold.clone());
    let directory = world.directory.clone();
    let early = tokio::spawn(async move { directory.find(&token(1)).await });
    while world.lookups() == 0 {
        tokio::task::yield_now().await;
    }
    // The look-up has read version 1 and is on its way; meanwhile version 2 is written and its event comes.
    world.put(&token(1), 2, "new");
    world.directory.changed(&id, 2);
    *world.shelf.held.lock() = None;
    hold.notify_one();
    assert_eq!(early.await.unwrap().unwrap().nickname, "new");
    assert_eq!(world.directory.find(&token(1)).await.unwrap().nickname, "new");
}

#[tokio::test]
async fn an_edit_puts_what_is_known_out_of_force() {
    let world = World::new(LONG);
    let id = world.put(&token(1), 1, "old");
    assert_eq!(world.directory.find(&token(1)).await.unwrap().nickname, "old");
    world.put(&token(1), 2, "new");
    assert_eq!(world.directory.find(&token(1)).await.unwrap().nickname, "old", "nobody has said so yet");
    world.directory.changed(&id, 2);
    assert_eq!(world.directory.find(&token(1)).await.unwrap().nickname, "new");
}

#[tokio::test]
async fn after_lost_events_everything_is_looked_up_anew_or_trusted_if_nobody_answers() {
    let world = World::new(LONG);
    world.put(&token(1), 1, "old");
    assert!(world.directory.find(&token(1)).await.is_ok());
    world.put(&token(1), 2, "new");
    world.directory.lost();
    world.shelf.down.store(true, Ordering::Release);
    assert_eq!(world.directory.find(&token(1)).await.unwrap().nickname, "old");
    assert_eq!(world.directory.find(&token(2)).await.unwrap_err(), Denial::StoreUnavailable);
    world.shelf.down.store(false, Ordering::Release);
    let begun = Instant::now();
    while world.directory.find(&token(1)).await.unwrap().nickname != "new" {
        assert!(begun.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unknown_tokens_are_remembered_until_something_is_made() {
    let world = World::new(LONG);
    for _ in 0..5 {
        assert_eq!(world.directory.find(&token(1)).await.unwrap_err(), Denial::TokenInvalid);
    }
    assert_eq!(world.lookups(), 1);
    let id = world.put(&token(1), 1, "made");
    world.directory.changed(&id, 1);
    assert_eq!(world.directory.find(&token(1)).await.unwrap().nickname, "made");
}

#[tokio::test]
async fn a_flood_of_made_up_tokens_neither_fills_memory_nor_reaches_the_store_at_its_rate() {
    let world = World::new(LONG);
    let mut unavailable = 0;
    for number in 0..50_000_u32 {
        match world.directory.find(&numbered(number)).await {
            Err(Denial::TokenInvalid) => {}
            Err(Denial::StoreUnavailable) => unavailable += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(unavailable > 0 && world.lookups() < 50_000, "{unavailable} {}", world.lookups());
    assert!(world.directory.unknown.len() <= UNKNOWN + UNKNOWN / 10, "{}", world.directory.unknown.len());
    assert!(world.directory.flights.lock().is_empty());
}

fn numbered(number: u32) -> Token {
    let mut bits = [7; 16];
    bits[..4].copy_from_slice(&number.to_be_bytes());
    Token::from_random(TokenKind::Publishable, bits)
}

#[tokio::test]
async fn tokens_that_exist_are_found_however_many_come_in_a_second() {
    let world = World::new(LONG);
    for number in 0..3 * LOOKUPS_PER_SECOND {
        world.put(&numbered(number), 1, "cold");
    }
    for number in 0..3 * LOOKUPS_PER_SECOND {
        assert!(world.directory.find(&numbered(number)).await.is_ok(), "the one with number {number}");
    }
}

#[tokio::test]
async fn first_sights_of_many_tokens_at_once_wait_for_their_turn() {
    let world = World::new(LONG);
    let hold = Arc::new(Notify::new());
    *world.shelf.held.lock() = Some(hold.clone());
    let mut sights = Vec::new();
    for number in 0..500 {
        world.put(&numbered(number), 1, "cold");
        let directory = world.directory.clone();
        sights.push(tokio::spawn(async move { directory.find(&numbered(number)).await.is_ok() }));
    }
    while world.lookups() < FLIGHTS {
        tokio::task::yield_now().await;
    }
    *world.shelf.held.lock() = None;
    hold.notify_waiters();
    for sight in sights {
        assert!(sight.await.unwrap());
    }
}

#[tokio::test]
async fn a_slow_look_up_makes_nobody_wait_longer_than_the_patience_and_goes_on() {
    let world = World::new(Duration::from_millis(20));
    world.put(&token(1), 1, "slow");
    let hold = Arc::new(Notify::new());
    *world.shelf.held.lock() = Some(hold.clone());
    assert_eq!(world.directory.find(&token(1)).await.unwrap_err(), Denial::StoreUnavailable);
    *world.shelf.held.lock() = None;
    hold.notify_one();
    let begun = Instant::now();
    while world.directory.find(&token(1)).await.is_err() {
        assert!(begun.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
    assert_eq!(world.lookups(), 1, "the first look-up was the only one");
}

#[tokio::test]
async fn the_memory_is_bounded() {
    let world = World::new(LONG);
    for n in 0..=255 {
        world.put(&token(n), 1, "many");
    }
    let small = DirectorySettings { policies: 50, grace: LONG, patience: LONG };
    let directory = Directory::new(world.directory.line.clone(), small, Handle::current());
    for n in 0..=255 {
        assert!(directory.find(&token(n)).await.is_ok());
    }
    assert!(directory.len() <= 55, "{}", directory.len());
}
