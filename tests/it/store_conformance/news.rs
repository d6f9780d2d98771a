//! What happens in a store: the epoch moves, and those who listen are told, in the step that wrote.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::broadcast::Receiver;
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{AccountId, Credits, PerPool, Policy, Pool, TokenKind};
use tollgate::store::{Event, NodeId, NodeReport, Written};

use super::bench::{Bench, Raw, a_note, account_id, new_id, new_value};

super::on_both![
    each_change_moves_the_epoch_once_and_is_told,
    what_changes_nothing_moves_and_tells_nothing,
    the_epoch_stays_where_the_store_is_opened_again,
    epochs_and_nodes_of_accounts_are_apart,
    a_node_that_dies_is_forgotten_and_may_come_back,
    every_listener_hears_every_event_in_order,
];

/// Listens, and waits until the subscription stands.
pub async fn listen(bench: &Bench) -> Receiver<Event> {
    let mut events = bench.store().events();
    if matches!(bench.raw, Raw::Redis(_)) {
        assert_eq!(next_event(&mut events).await, Event::Lost);
    }
    events
}

pub async fn next_event(events: &mut Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("an event").unwrap()
}

async fn epoch(bench: &Bench) -> u64 {
    bench.store().epoch(&account_id()).await.unwrap()
}

async fn each_change_moves_the_epoch_once_and_is_told(bench: Bench) {
    let mut events = listen(&bench).await;
    assert_eq!(epoch(&bench).await, 0);
    let (first, _) = bench.make_account(PerPool::default()).await;
    let policy =
        |id: &tollgate::policy::TokenId, version, epoch| Event::Policy { token: id.clone(), version, epoch };
    assert_eq!(next_event(&mut events).await, policy(&first, 1, 1));
    assert_eq!(next_event(&mut events).await, Event::Account { epoch: 2 });
    let (token, _) = bench.make_token(|_| ()).await;
    assert_eq!(next_event(&mut events).await, policy(&token.id, 1, 3));
    bench.edit(&token.id, |policy| policy.nickname = "shop".to_owned()).await;
    assert_eq!(next_event(&mut events).await, policy(&token.id, 2, 4));
    let value = new_value(TokenKind::Publishable);
    let rotated = bench
        .store()
        .rotate_token(&account_id(), &token.id, 2, &value, Duration::from_mins(1), &a_note())
        .await;
    assert_eq!(rotated.unwrap(), Written::Done { version: 3 });
    assert_eq!(next_event(&mut events).await, policy(&token.id, 3, 5));
    let account = bench.store().get_account(&account_id()).await.unwrap().unwrap();
    bench.store().put_account(&account, &a_note()).await.unwrap();
    assert_eq!(next_event(&mut events).await, Event::Account { epoch: 6 });
    assert_eq!(epoch(&bench).await, 6);
    // A recall is no change.
    for token in [Some(token.id.clone()), None] {
        for pool in Pool::ALL {
            bench.store().recall(&account_id(), token.as_ref(), pool).await.unwrap();
            assert_eq!(next_event(&mut events).await, Event::Recall { token: token.clone(), pool });
        }
    }
    assert_eq!(epoch(&bench).await, 6);
}

async fn what_changes_nothing_moves_and_tells_nothing(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let mut events = listen(&bench).await;
    let before = epoch(&bench).await;
    let store = bench.store();
    // The same call again, a lost race, records that are not there, a mark.
    store.create_token(&policy, &value, &a_note()).await.unwrap();
    store.create_token(&policy, &new_value(TokenKind::Secret), &a_note()).await.unwrap_err();
    let stale = Policy { version: 7, ..policy.clone() };
    assert_eq!(store.put_policy(&stale, &a_note()).await.unwrap(), Written::Conflict { version: 1 });
    let missing = Policy { id: new_id(), ..policy.clone() };
    assert_eq!(store.put_policy(&missing, &a_note()).await.unwrap(), Written::Missing);
    let new = new_value(TokenKind::Secret);
    let conflict =
        store.rotate_token(&account_id(), &policy.id, 7, &new, Duration::ZERO, &a_note()).await.unwrap();
    assert_eq!(conflict, Written::Conflict { version: 1 });
    let account = Account {
        id: account_id(),
        created_at: bench.now(),
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 9,
    };
    assert_eq!(store.put_account(&account, &a_note()).await.unwrap(), Written::Conflict { version: 1 });
    assert!(!store.create_account(&account, &missing, &new, &a_note()).await.unwrap());
    store.mark_seen_in_browser(&account_id(), &policy.id, bench.now()).await.unwrap();
    bench.take(&policy.id, 1).await;
    assert_eq!(epoch(&bench).await, before);
    // What comes next is the first thing that is told.
    store.recall(&account_id(), None, Pool::Core).await.unwrap();
    assert_eq!(next_event(&mut events).await, Event::Recall { token: None, pool: Pool::Core });
}

async fn the_epoch_stays_where_the_store_is_opened_again(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let before = epoch(&bench).await;
    bench.reopen(Some(super::bench::sealer()));
    assert_eq!(epoch(&bench).await, before);
    bench.make_token(|_| ()).await;
    assert_eq!(epoch(&bench).await, before + 1);
}

fn report(n: u128, epoch: u64) -> NodeReport {
    let (node, leased) = (NodeId(ulid::Ulid(n)), Credits(u64::try_from(n).unwrap()));
    let name = format!("host|{n} 127.0.0.1:8080");
    NodeReport { node, epoch, seen_at: jiff::Timestamp::UNIX_EPOCH, leased, name }
}

async fn epochs_and_nodes_of_accounts_are_apart(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let other = AccountId::parse("other").unwrap();
    bench.make_account_named(&other, PerPool::default()).await;
    bench.make_token(|_| ()).await;
    assert_eq!((epoch(&bench).await, bench.store().epoch(&other).await.unwrap()), (3, 2));
    let life = Duration::from_secs(5);
    bench.store().report_node(&account_id(), &report(1, 3), life).await.unwrap();
    bench.store().report_node(&other, &report(2, 2), life).await.unwrap();
    for (account, n, epoch) in [(account_id(), 1, 3), (other, 2, 2)] {
        let expected = NodeReport { seen_at: bench.now(), ..report(n, epoch) };
        assert_eq!(bench.store().nodes(&account).await.unwrap(), [expected]);
    }
}

async fn a_node_that_dies_is_forgotten_and_may_come_back(bench: Bench) {
    let life = Duration::from_secs(5);
    let tell =
        async |n, epoch| bench.store().report_node(&account_id(), &report(n, epoch), life).await.unwrap();
    let alive = async || {
        let nodes = bench.store().nodes(&account_id()).await.unwrap();
        nodes.into_iter().map(|node| (node.node.0.0, node.epoch)).collect::<Vec<_>>()
    };
    tell(3, 1).await;
    tell(1, 1).await;
    bench.pass(SignedDuration::from_secs(4));
    tell(1, 2).await;
    assert_eq!(alive().await, [(1, 2), (3, 1)]);
    bench.pass(SignedDuration::from_secs(1));
    assert_eq!(alive().await, [(1, 2)]);
    // One that comes new drops the dead, without anybody who asks.
    bench.pass(SignedDuration::from_secs(4));
    tell(7, 5).await;
    tell(1, 6).await;
    assert_eq!(alive().await, [(1, 6), (7, 5)]);
    bench.pass(SignedDuration::from_hours(1));
    assert!(alive().await.is_empty());
}

async fn every_listener_hears_every_event_in_order(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let mut one = listen(&bench).await;
    let mut two = bench.store().events();
    let before = epoch(&bench).await;
    for version in 1..=50 {
        let edited = Policy { version, ..policy.clone() };
        assert_eq!(
            bench.store().put_policy(&edited, &a_note()).await.unwrap(),
            Written::Done { version: version + 1 }
        );
    }
    for events in [&mut one, &mut two] {
        for n in 1..=50 {
            let expected = Event::Policy { token: policy.id.clone(), version: n + 1, epoch: before + n };
            assert_eq!(next_event(events).await, expected);
        }
    }
}
