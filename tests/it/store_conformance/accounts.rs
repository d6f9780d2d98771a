//! Accounts: made once, edited by version.

use std::sync::Arc;

use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::{AccountId, PerPool, Policy, Pool, TokenKind};
use tollgate::store::{Counted, Written};

use super::bench::{Bench, Takes as _, a_note, account_id, charge, limit, new_id, new_value};

super::on_both![
    makes_an_account_once,
    one_of_many_creations_wins_and_its_token_works,
    one_of_many_creations_with_one_value_wins_and_the_value_works,
    edits_of_an_account_need_its_version,
    counts_what_an_account_used_over_all_its_tokens,
];

fn account(bench: &Bench) -> Account {
    Account {
        id: account_id(),
        created_at: bench.now(),
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    }
}

async fn makes_an_account_once(bench: Bench) {
    let store = bench.store();
    assert_eq!(store.get_account(&account_id()).await.unwrap(), None);
    let budget = PerPool { core: limit("5/day"), premium: None };
    let (first, value) = bench.make_account(budget).await;
    let made = store.get_account(&account_id()).await.unwrap().unwrap();
    assert_eq!(made, Account { budget, ..account(&bench) });
    let second = Policy::new(new_id(), account_id(), TokenKind::Secret, bench.now());
    let second_value = new_value(TokenKind::Secret);
    assert!(!store.create_account(&account(&bench), &second, &second_value, &a_note()).await.unwrap());
    // The same value again: a node that starts with TOLLGATE_SECRET_TOKEN for the second time.
    assert!(!store.create_account(&account(&bench), &second, &value, &a_note()).await.unwrap());
    assert_eq!(store.get_account(&account_id()).await.unwrap(), Some(made));
    assert_eq!(store.find_token(&value.digest()).await.unwrap().unwrap().id, first);
    assert_eq!(store.find_token(&second_value.digest()).await.unwrap(), None);
    assert!(store.get_token(&account_id(), &second.id).await.unwrap().is_none());
    assert_eq!(store.list_tokens(&account_id(), None, 10).await.unwrap().len(), 1);
}

/// Sixteen nodes start at once. `values`: whether each brings its own.
async fn race(bench: &Bench, own_values: bool) -> Vec<(Policy, tollgate::policy::Token, bool)> {
    let shared = new_value(TokenKind::Secret);
    let start = |_| {
        let store = Arc::clone(bench.store());
        let first = Policy::new(new_id(), account_id(), TokenKind::Secret, bench.now());
        let value = if own_values { new_value(TokenKind::Secret) } else { shared.clone() };
        let account = account(bench);
        tokio::spawn(async move {
            let won = store.create_account(&account, &first, &value, &a_note()).await.unwrap();
            (first, value, won)
        })
    };
    let mut outcomes = Vec::new();
    for task in (0..16).map(start).collect::<Vec<_>>() {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

async fn one_of_many_creations_wins_and_its_token_works(bench: Bench) {
    let outcomes = race(&bench, true).await;
    assert_eq!(outcomes.iter().filter(|(.., won)| *won).count(), 1);
    for (policy, value, won) in outcomes {
        let found = bench.store().find_token(&value.digest()).await.unwrap();
        assert_eq!(found, won.then_some(policy));
    }
    assert_eq!(bench.store().list_tokens(&account_id(), None, 100).await.unwrap().len(), 1);
}

async fn one_of_many_creations_with_one_value_wins_and_the_value_works(bench: Bench) {
    for _ in 0..5 {
        let bench = match &bench.raw {
            super::bench::Raw::Embedded(_) => Bench::embedded(),
            super::bench::Raw::Redis(_) => Bench::redis(),
        };
        let outcomes = race(&bench, false).await;
        let winners: Vec<_> = outcomes.iter().filter(|(.., won)| *won).collect();
        let [(policy, value, _)] = winners[..] else { panic!("{} winners", winners.len()) };
        assert_eq!(bench.store().find_token(&value.digest()).await.unwrap().as_ref(), Some(policy));
        assert_eq!(bench.store().list_tokens(&account_id(), None, 100).await.unwrap().len(), 1);
    }
}

async fn edits_of_an_account_need_its_version(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let store = bench.store();
    let mut edit = Account { budget: PerPool { core: None, premium: limit("9/hour") }, ..account(&bench) };
    assert_eq!(store.put_account(&edit, &a_note()).await.unwrap(), Written::Done { version: 2 });
    assert_eq!(store.put_account(&edit, &a_note()).await.unwrap(), Written::Conflict { version: 2 });
    edit.version = 2;
    for pay_as_you_go in
        [PayAsYouGo::On { quota: limit("5/day") }, PayAsYouGo::On { quota: None }, PayAsYouGo::Off]
    {
        edit.pay_as_you_go = pay_as_you_go;
        assert!(matches!(store.put_account(&edit, &a_note()).await.unwrap(), Written::Done { .. }));
        edit.version += 1;
        assert_eq!(store.get_account(&account_id()).await.unwrap(), Some(edit.clone()));
    }
    assert_eq!(store.get_account(&account_id()).await.unwrap(), Some(edit.clone()));
    edit.id = AccountId::parse("nobody").unwrap();
    assert_eq!(store.put_account(&edit, &a_note()).await.unwrap(), Written::Missing);
    assert_eq!(store.get_account(&edit.id).await.unwrap(), None);
}

async fn counts_what_an_account_used_over_all_its_tokens(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    bench.take(&one.id, 3).await;
    bench.take(&two.id, 4).await;
    bench.store().take(&charge(&two.id, Pool::Premium, 5)).await.unwrap();
    assert_eq!(
        (bench.used(&one.id).await, bench.used(&two.id).await, bench.used_by_account().await),
        (3, 4, 7)
    );
    let Counted { counters, at: now, .. } = bench.store().account_usage(&account_id()).await.unwrap();
    assert_eq!(now, bench.now());
    assert_eq!(counters.premium.committed(tollgate::policy::Period::None, now).0, 5);
}
