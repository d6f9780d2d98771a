//! Tokens: made, found, listed, edited.

use std::sync::Arc;

use jiff::SignedDuration;
use tollgate::policy::domain::DomainRules;
use tollgate::policy::{
    AccountId, DomainMode, Grant, PerPool, Policy, RateLimit, Status, TokenId, TokenKind,
};
use tollgate::store::{KeptValue, Listed, StoreError, Written};

use super::bench::{Bench, a_note, account_id, limit, new_id, new_value, time};

super::on_both![
    finds_a_token_by_its_value_and_by_no_other,
    keeps_every_field_of_a_policy,
    lists_oldest_first_in_pages,
    a_list_shows_one_account_only,
    a_put_needs_the_stored_version,
    a_put_changes_the_policy_that_is_found,
    a_put_leaves_what_is_not_its_own,
    one_of_many_puts_on_one_version_wins,
    puts_and_reads_of_what_is_not_there_say_so,
    the_same_creation_again_is_fine,
    an_id_or_a_value_belongs_to_one_token,
    marks_the_first_time_a_secret_is_seen_in_a_browser,
];

/// A policy with something in each field.
pub fn rich_policy(id: TokenId) -> Policy {
    let mut policy =
        Policy::new(id, account_id(), TokenKind::Publishable, time("2026-01-02T03:04:05.678901234Z"));
    policy.nickname = "Kunde \"Ünï\" | {x}\n\u{1F980}".to_owned();
    policy.status = Status::Disabled;
    policy.expires_at = Some(time("2027-12-31T23:59:59Z"));
    policy.signed_requests = true;
    policy.core_access = false;
    policy.premium_access = true;
    policy.grants = vec![Grant::parse("MY/CARS:read,delete").unwrap(), Grant::parse("my/*:write").unwrap()];
    policy.allowed_domains =
        DomainRules::parse_list("www.example.com https://*.example.org:8443/app 203.0.113.0/24").unwrap();
    policy.domain_mode = DomainMode::Report;
    policy.credit_limit = PerPool { core: limit("100000/month"), premium: limit("7") };
    policy.rate_limit = Some(RateLimit { requests_per_second: 50, burst: 100 });
    policy
}

fn ids(listed: &[Listed]) -> Vec<TokenId> {
    let id = |entry: &Listed| match entry {
        Listed::Token(token) => token.policy.id.clone(),
        Listed::Unreadable { id, .. } => id.clone(),
    };
    listed.iter().map(id).collect()
}

async fn finds_a_token_by_its_value_and_by_no_other(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (public, public_value) = bench.make_token(|_| ()).await;
    let (secret, secret_value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let store = bench.store();
    assert_eq!(store.find_token(&public_value.digest()).await.unwrap(), Some(public.clone()));
    assert_eq!(store.find_token(&secret_value.digest()).await.unwrap(), Some(secret.clone()));
    assert_eq!(store.find_token(&new_value(TokenKind::Secret).digest()).await.unwrap(), None);
    let kept = store.get_token(&account_id(), &public.id).await.unwrap().unwrap();
    assert!(matches!(kept.value, KeptValue::Clear(value) if value == public_value));
    let kept = store.get_token(&account_id(), &secret.id).await.unwrap().unwrap();
    assert!(matches!(kept.value, KeptValue::Sealed));
    store.ping().await.unwrap();
}

async fn keeps_every_field_of_a_policy(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let policy = rich_policy(new_id());
    let value = new_value(TokenKind::Publishable);
    bench.store().create_token(&policy, &value, &a_note()).await.unwrap();
    bench.reopen(None);
    assert_eq!(bench.store().find_token(&value.digest()).await.unwrap(), Some(policy.clone()));
    assert_eq!(bench.store().get_token(&account_id(), &policy.id).await.unwrap().unwrap().policy, policy);
}

async fn lists_oldest_first_in_pages(bench: Bench) {
    let (first, _) = bench.make_account(PerPool::default()).await;
    let mut made = vec![first];
    for _ in 0..6 {
        made.push(bench.make_token(|_| ()).await.0.id);
    }
    // One that is made late, with the id of an older time.
    let store = bench.store();
    let old = TokenId::from_ulid(ulid::Ulid::from_parts(0, 5));
    let late = Policy::new(old.clone(), account_id(), TokenKind::Publishable, bench.now());
    store.create_token(&late, &new_value(TokenKind::Publishable), &a_note()).await.unwrap();
    made.insert(0, old);
    assert_eq!(ids(&store.list_tokens(&account_id(), None, 100).await.unwrap()), made);
    let mut pages = Vec::new();
    loop {
        let page = store.list_tokens(&account_id(), pages.last(), 3).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        pages.extend(ids(&page));
    }
    assert_eq!(pages, made);
    assert_eq!(store.list_tokens(&account_id(), None, 0).await.unwrap().len(), 0);
    // A cursor need not be a token that is there.
    let between = TokenId::from_ulid(ulid::Ulid::from_parts(0, 6));
    assert_eq!(ids(&store.list_tokens(&account_id(), Some(&between), 100).await.unwrap()), made[1..]);
}

async fn a_list_shows_one_account_only(bench: Bench) {
    let names = ["default", "default-2", "defaul", "default_", "a", "z", "default0"];
    let mut first = Vec::new();
    for name in names {
        let id = AccountId::parse(name).unwrap();
        first.push((id.clone(), bench.make_account_named(&id, PerPool::default()).await.0));
    }
    for (account, token) in first {
        assert_eq!(ids(&bench.store().list_tokens(&account, None, 10).await.unwrap()), [token], "{account}");
    }
    let nobody = AccountId::parse("nobody").unwrap();
    assert!(bench.store().list_tokens(&nobody, None, 10).await.unwrap().is_empty());
}

async fn a_put_needs_the_stored_version(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (mut policy, _) = bench.make_token(|_| ()).await;
    let store = bench.store();
    policy.nickname = "first".to_owned();
    assert_eq!(store.put_policy(&policy, &a_note()).await.unwrap(), Written::Done { version: 2 });
    policy.nickname = "too late".to_owned();
    assert_eq!(store.put_policy(&policy, &a_note()).await.unwrap(), Written::Conflict { version: 2 });
    let stored = store.get_token(&account_id(), &policy.id).await.unwrap().unwrap().policy;
    assert_eq!((stored.version, stored.nickname.as_str()), (2, "first"));
    policy.version = 3;
    assert_eq!(store.put_policy(&policy, &a_note()).await.unwrap(), Written::Conflict { version: 2 });
}

async fn a_put_changes_the_policy_that_is_found(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token(|_| ()).await;
    let rich = Policy { created_at: policy.created_at, ..rich_policy(policy.id.clone()) };
    assert_eq!(bench.store().put_policy(&rich, &a_note()).await.unwrap(), Written::Done { version: 2 });
    let expected = Policy { version: 2, ..rich };
    assert_eq!(bench.store().find_token(&value.digest()).await.unwrap(), Some(expected));
    // And back: what is set can be unset.
    let plain = Policy { version: 2, ..policy };
    assert_eq!(bench.store().put_policy(&plain, &a_note()).await.unwrap(), Written::Done { version: 3 });
    assert_eq!(
        bench.store().find_token(&value.digest()).await.unwrap(),
        Some(Policy { version: 3, ..plain })
    );
}

async fn a_put_leaves_what_is_not_its_own(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let store = bench.store();
    store.mark_seen_in_browser(&account_id(), &policy.id, bench.now()).await.unwrap();
    // An edit by somebody who read the policy before the mark, and who got kind and time wrong.
    let mut edit = policy.clone();
    edit.kind = TokenKind::Publishable;
    edit.created_at = time("2000-01-01T00:00:00Z");
    edit.nickname = "edited".to_owned();
    assert_eq!(store.put_policy(&edit, &a_note()).await.unwrap(), Written::Done { version: 2 });
    let expected =
        Policy { nickname: "edited".to_owned(), version: 2, seen_in_browser_at: Some(bench.now()), ..policy };
    assert_eq!(store.find_token(&value.digest()).await.unwrap(), Some(expected));
}

async fn one_of_many_puts_on_one_version_wins(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let put = |n: usize| {
        let store = Arc::clone(bench.store());
        let policy = Policy { nickname: n.to_string(), ..policy.clone() };
        tokio::spawn(async move { store.put_policy(&policy, &a_note()).await.unwrap() })
    };
    let mut done = Vec::new();
    for (n, task) in (0..16).map(put).collect::<Vec<_>>().into_iter().enumerate() {
        match task.await.unwrap() {
            Written::Done { version: 2 } => done.push(n.to_string()),
            other => assert_eq!(other, Written::Conflict { version: 2 }),
        }
    }
    let stored = bench.store().get_token(&account_id(), &policy.id).await.unwrap().unwrap().policy;
    assert_eq!(done, [stored.nickname]);
}

async fn puts_and_reads_of_what_is_not_there_say_so(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let store = bench.store();
    let nobody = Policy::new(new_id(), account_id(), TokenKind::Secret, bench.now());
    assert_eq!(store.put_policy(&nobody, &a_note()).await.unwrap(), Written::Missing);
    let grace = std::time::Duration::ZERO;
    let rotated = store
        .rotate_token(&account_id(), &nobody.id, 1, &new_value(TokenKind::Secret), grace, &a_note())
        .await;
    assert_eq!(rotated.unwrap(), Written::Missing);
    assert!(store.get_token(&account_id(), &nobody.id).await.unwrap().is_none());
    assert!(store.reveal_token(&account_id(), &nobody.id).await.unwrap().is_none());
    store.mark_seen_in_browser(&account_id(), &nobody.id, bench.now()).await.unwrap();
    assert!(store.get_token(&account_id(), &nobody.id).await.unwrap().is_none(), "a mark makes no record");
}

async fn the_same_creation_again_is_fine(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token(|_| ()).await;
    bench.edit(&policy.id, |policy| policy.nickname = "edited".to_owned()).await;
    bench.store().create_token(&policy, &value, &a_note()).await.unwrap();
    let stored = bench.store().find_token(&value.digest()).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.nickname.as_str()), (2, "edited"), "it changed nothing");
}

async fn an_id_or_a_value_belongs_to_one_token(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token(|_| ()).await;
    let (other, _) = bench.make_token(|_| ()).await;
    let store = bench.store();
    let refused =
        store.create_token(&policy, &new_value(TokenKind::Publishable), &a_note()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable(why) if why.contains("the id")), "{refused}");
    let copy = Policy { id: new_id(), ..policy.clone() };
    let refused = store.create_token(&copy, &value, &a_note()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable(why) if why.contains("the value")), "{refused}");
    let grace = std::time::Duration::ZERO;
    let refused =
        store.rotate_token(&account_id(), &other.id, 1, &value, grace, &a_note()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable(why) if why.contains("the value")), "{refused}");
    assert_eq!(store.find_token(&value.digest()).await.unwrap(), Some(policy));
    assert!(store.get_token(&account_id(), &copy.id).await.unwrap().is_none());
}

async fn marks_the_first_time_a_secret_is_seen_in_a_browser(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let store = bench.store();
    let first = bench.now();
    for later in 0..3 {
        let at = first.checked_add(SignedDuration::from_mins(later)).unwrap();
        store.mark_seen_in_browser(&account_id(), &policy.id, at).await.unwrap();
    }
    let stored = store.find_token(&value.digest()).await.unwrap().unwrap();
    assert_eq!((stored.seen_in_browser_at, stored.version), (Some(first), 1));
}
