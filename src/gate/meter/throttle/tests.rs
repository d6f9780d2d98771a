use std::sync::atomic::Ordering;

use super::*;
use crate::gate::directory::tests::Shelf;
use crate::policy::{AccountId, TokenKind};
use crate::telemetry::Metrics;

/// So long that no test waits for it.
const LONG: Duration = Duration::from_hours(1);

struct World {
    shelf: Arc<Shelf>,
    throttle: Arc<Throttle>,
    policy: Policy,
}

impl World {
    fn new(burst: u32) -> Self {
        let shelf = Arc::new(Shelf::default());
        let line = Arc::new(Line::new(shelf.clone(), Arc::new(Metrics::new().unwrap())));
        let id = TokenId::from_ulid(ulid::Ulid::from_parts(1, 1));
        let (account, now) = (AccountId::default_account(), jiff::Timestamp::UNIX_EPOCH);
        let mut policy = Policy::new(id, account, TokenKind::Publishable, now);
        // Slow enough that nothing comes back to a cell while a test runs.
        policy.rate_limit = Some(RateLimit { requests_per_second: 1, burst });
        Self { shelf, throttle: Arc::new(Throttle::new(line, LONG, Handle::current())), policy }
    }

    fn give(&self, passes: u32) {
        self.shelf.passes.store(passes, Ordering::Release);
    }

    /// From now on calls wait until the answer is let go.
    fn hold(&self) -> Arc<Notify> {
        let held = Arc::new(Notify::new());
        *self.shelf.held.lock() = Some(held.clone());
        held
    }

    async fn ask(&self) -> Result<u32, Denial> {
        self.throttle.pass(&self.policy, self.policy.rate_limit.unwrap()).await
    }

    fn ask_apart(&self) -> tokio::task::JoinHandle<Result<u32, Denial>> {
        let (throttle, policy) = (self.throttle.clone(), self.policy.clone());
        tokio::spawn(async move { throttle.pass(&policy, policy.rate_limit.unwrap()).await })
    }

    fn state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.throttle.slot(&self.policy.id).state.lock())
    }

    async fn until(&self, what: &str, mut reached: impl FnMut(&State) -> bool) {
        let waiting = async {
            while !self.state(&mut reached) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting).await.expect(what);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_silent_store_whom_this_nodes_part_lets_by() {
    let world = World::new(20);
    let answer = world.hold();
    for left in (0..10).rev() {
        assert_eq!(world.ask().await, Ok(10 + left));
    }
    assert_eq!(world.state(|state| (state.owed, state.asking)), (10, true), "one call is out, all are owed");
    // The answer pays for them, and what it brings beyond that is in hand.
    world.give(15);
    answer.notify_one();
    world.until("the answer", |state| !state.asking).await;
    assert_eq!(world.state(|state| (state.owed, state.passes)), (0, 5));
    assert_eq!(world.ask().await, Ok(4));
}

#[tokio::test]
async fn a_slow_call_refuses_nobody() {
    let world = World::new(1);
    world.give(3);
    let answer = world.hold();
    assert_eq!(world.ask().await, Ok(0), "the node's own part");
    let second = world.ask_apart();
    world.throttle.line.falls_silent().await;
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "no part is left, and the store may still say yes");
    answer.notify_one();
    assert_eq!(second.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn what_was_let_by_without_the_store_is_paid_before_anybody_uses_its_passes() {
    let world = World::new(20);
    let answer = world.hold();
    for _ in 0..6 {
        world.ask().await.unwrap();
    }
    // Each call brings two: three calls pay, the fourth serves.
    world.give(2);
    *world.shelf.held.lock() = None;
    answer.notify_one();
    world.until("the answer", |state| !state.asking).await;
    assert_eq!(world.state(|state| (state.owed, state.passes)), (4, 0));
    assert_eq!(world.ask().await, Ok(1));
    assert_eq!(world.state(|state| state.owed), 0);
}

#[tokio::test]
async fn passes_of_the_store_count_in_this_nodes_own_part() {
    let world = World::new(3);
    world.give(2);
    assert_eq!(world.ask().await, Ok(1));
    assert_eq!(world.ask().await, Ok(0));
    world.shelf.down.store(true, Ordering::Release);
    assert_eq!(world.ask().await, Ok(0), "one of three is left");
    assert!(matches!(world.ask().await, Err(Denial::RateLimited { .. })));
}
