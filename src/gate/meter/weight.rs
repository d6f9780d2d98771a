//! What a token weighs in memory: all that is allocated is counted, over ten thousand of them.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use tokio::runtime::Handle;

use super::*;
use crate::gate::directory::tests::Shelf;
use crate::gate::directory::{Directory, DirectorySettings};
use crate::ledger::lease::Grant as Granted;
use crate::policy::domain::DomainRules;
use crate::policy::{AccountId, Grant, Limit, Period, RateLimit, Token, TokenKind};
use crate::store::Store;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const TOKENS: u32 = 10_000;

/// As most tokens are: one page, one data set, a limit, a rate.
fn policy(number: u32) -> Policy {
    let id = TokenId::from_ulid(Ulid::from_parts(1, number.into()));
    let (account, now) = (AccountId::default_account(), jiff::Timestamp::UNIX_EPOCH);
    let mut policy = Policy::new(id, account, TokenKind::Publishable, now);
    policy.nickname = format!("Customer {number}");
    policy.allowed_domains = DomainRules::parse([format!("www{number}.example.com").as_str()]).unwrap();
    policy.grants = vec![Grant::parse("MY/CARS:read").unwrap()];
    policy.credit_limit.core = Some(Limit { credits: Credits(100_000), period: Period::Month });
    policy.rate_limit = Some(RateLimit { requests_per_second: 50, burst: 100 });
    policy
}

fn weigh(what: &str, most: usize, mut make: impl FnMut(u32)) {
    let before = ALLOCATOR.allocated();
    (0..TOKENS).for_each(&mut make);
    let each = ALLOCATOR.allocated().saturating_sub(before) / TOKENS as usize;
    assert!(each <= most, "{what}: {each} bytes each, at most {most}");
}

fn line() -> Arc<Line> {
    Arc::new(Line::new(Arc::new(Shelf::default()) as Arc<dyn Store>, Arc::new(Metrics::new().unwrap())))
}

#[tokio::test]
async fn a_policy_that_is_known_weighs_little() {
    let settings = DirectorySettings {
        policies: TOKENS as usize * 2,
        grace: Duration::from_mins(1),
        patience: Duration::from_mins(1),
    };
    let directory = Directory::new(line(), settings, Handle::current());
    weigh("a policy in the directory", 720, |number| {
        let token = Token::parse(format!("pk_{number:032x}").as_bytes()).unwrap();
        directory.restore(vec![(token.digest(), policy(number))]);
    });
    assert_eq!(directory.len(), TOKENS as usize);
}

#[tokio::test]
async fn a_purse_in_use_weighs_little_and_a_settled_one_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = Ulid::from_parts(1, 1);
    let (journal, recovered, _) = Journal::open(folder.path(), node).unwrap();
    let meter = Meter::start(
        line(),
        Arc::new(Metrics::new().unwrap()),
        Arc::new(journal),
        recovered,
        NodeId(node),
        Duration::from_mins(1),
        &Handle::current(),
    );
    let policies: Vec<Policy> = (0..TOKENS).map(policy).collect();
    let before = ALLOCATOR.allocated();
    let mut leases = Vec::with_capacity(TOKENS as usize);
    weigh("a purse with a lease and a cell", 960, |number| {
        let policy = &policies[number as usize];
        let slot = meter.slot(policy, Pool::Core);
        assert_eq!(slot.draw(1, meter.now(), false).0, Draw::Short);
        let lease = Ulid::from_parts(2, number.into());
        meter.journal.begin(slot.entry(lease)).unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let grant = Granted {
            granted: Credits(8),
            used: Credits(0),
            leased: Credits(8),
            limit: policy.credit_limit.core,
            free: Some(Credits(99_992)),
            resets_in: Some(Duration::from_hours(1)),
            valid_for: Duration::from_hours(1),
            at: now,
        };
        slot.granted(lease, &grant, meter.now(), 30_000_000);
        assert_eq!(slot.draw(1, meter.now(), false).0, Draw::Taken(lease));
        slot.cell(&meter.journal, lease, "MY/CARS", Operation::Read).unwrap();
        slot.spend(lease, 1);
        leases.push((slot, lease));
    });
    for (slot, lease) in leases {
        meter.journal.forget(lease);
        slot.settled(lease, 1);
    }
    for shard in &meter.shards {
        let mut shard = shard.lock();
        shard.retain(|_, slot| !slot.is_idle(u64::MAX, IDLE));
        shard.shrink_to(0);
    }
    let left = ALLOCATOR.allocated().saturating_sub(before) / TOKENS as usize;
    assert!(left <= 64, "{left} bytes are left of each");
}

#[tokio::test]
async fn a_throttle_weighs_little() {
    let throttle = Throttle::new(line(), Duration::from_mins(1), Handle::current());
    weigh("a throttle", 300, |number| drop(throttle.slot(&policy(number).id)));
}
