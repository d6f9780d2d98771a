//! The trail: whatever somebody wrote is noted in the same step, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::{Database, TableDefinition};
use serde_json::{Value, json};
use tollgate::policy::record::{Account, PayAsYouGo};
use tollgate::policy::signature::SigningSecret;
use tollgate::policy::{AccountId, PerPool, Policy, TokenId, TokenKind};
use tollgate::store::people::MemberId;
use tollgate::store::trail::{Actor, Asked, Change, Entry, EntryId, Note, Traced};
use tollgate::store::{StoreError, Written};

use super::bench::{
    Bench, Raw, a_note, account_id, ask, connect, limit, new_id, new_value, next, sealer, time,
};

super::on_both![
    every_write_leaves_its_entry,
    what_writes_nothing_leaves_none,
    entries_come_newest_first_in_pages,
    entries_keep_their_order_where_the_clock_goes_back,
    of_many_editors_those_leave_entries_who_wrote,
    what_looks_like_a_secret_is_masked,
    what_is_about_one_target_is_told_newest_first_page_by_page,
    an_entry_that_cannot_be_read_hides_no_other,
    the_trail_is_there_when_the_store_is_opened_again,
    a_store_from_before_the_trail_has_an_empty_one,
    accounts_have_trails_of_their_own,
];

/// A stream's id as `trail.lua` keeps it for a target.
fn sortable(id: &str) -> String {
    let numbers: Vec<_> = id
        .split('-')
        .map(|digits| format!("{}{digits}", char::from(64 + u8::try_from(digits.len()).unwrap())))
        .collect();
    numbers.join("-")
}

/// A note by a member about this.
fn note(action: &'static str, target: &str) -> Note {
    Note {
        actor: Actor::Member { id: MemberId::from_ulid(ulid::Ulid(3)), name: "Grace".to_owned() },
        client: Some("192.0.2.7".parse().unwrap()),
        action,
        target: target.to_owned(),
        changes: vec![Change { field: "/nickname".to_owned(), from: json!("a"), to: json!("b") }],
    }
}

async fn trail_of(bench: &Bench, asked: Asked) -> Vec<Traced> {
    bench.store().trail(&account_id(), &asked).await.unwrap()
}

/// The whole trail, newest first.
async fn trail(bench: &Bench) -> Vec<Entry> {
    let traced = trail_of(bench, Asked { limit: 10_000, ..Asked::default() }).await;
    let entry = |traced| match traced {
        Traced::Entry(entry) => *entry,
        Traced::Unreadable { id } => panic!("{id} cannot be read"),
    };
    traced.into_iter().map(entry).collect()
}

async fn actions(bench: &Bench) -> Vec<String> {
    trail(bench).await.into_iter().map(|entry| entry.action).collect()
}

fn account(bench: &Bench, version: u64) -> Account {
    Account {
        id: account_id(),
        created_at: bench.now(),
        budget: PerPool { core: limit("5/day"), premium: None },
        pay_as_you_go: PayAsYouGo::default(),
        version,
    }
}

fn secret() -> SigningSecret {
    SigningSecret::from_random(u128::from(next()).to_be_bytes())
}

async fn every_write_leaves_its_entry(bench: Bench) {
    let store = bench.store();
    let first = Policy::new(new_id(), account_id(), TokenKind::Secret, bench.now());
    let value = new_value(TokenKind::Secret);
    let made = a_note();
    assert!(store.create_account(&account(&bench, 1), &first, &value, &made).await.unwrap());
    let policy = Policy::new(new_id(), account_id(), TokenKind::Publishable, bench.now());
    let id = policy.id.as_str();
    bench.pass(SignedDuration::from_micros(1_001));
    store.create_token(&policy, &new_value(TokenKind::Publishable), &note("create", id)).await.unwrap();
    bench.pass(SignedDuration::from_mins(1));
    store.put_policy(&policy, &note("put", id)).await.unwrap();
    let new = new_value(TokenKind::Publishable);
    let grace = Duration::from_hours(1);
    store.rotate_token(&account_id(), &policy.id, 2, &new, grace, &note("rotate", id)).await.unwrap();
    store.put_signing_secret(&account_id(), &policy.id, 3, &secret(), &note("sign", id)).await.unwrap();
    store.put_account(&account(&bench, 1), &note("account", "default")).await.unwrap();
    bench.pass(SignedDuration::from_secs(3));
    store.note(&account_id(), &note("reveal", id)).await.unwrap();

    let entries = trail(&bench).await;
    assert!(entries.is_sorted_by(|a, b| a.id > b.id), "{entries:?}");
    let start = time("2026-11-24T06:00:00Z");
    let later = |micros| start.checked_add(SignedDuration::from_micros(micros)).unwrap();
    let expected = [
        (later(63_001_001), note("reveal", id)),
        (later(60_001_001), note("account", "default")),
        (later(60_001_001), note("sign", id)),
        (later(60_001_001), note("rotate", id)),
        (later(60_001_001), note("put", id)),
        (later(1_001), note("create", id)),
        (start, made),
    ];
    assert_eq!(entries.len(), expected.len());
    for (entry, (at, note)) in entries.into_iter().zip(expected) {
        assert_eq!(entry, entry_of(entry.id, at, note));
    }
}

fn entry_of(id: EntryId, at: Timestamp, note: Note) -> Entry {
    let Note { actor, client, action, target, changes } = note;
    Entry { id, at, actor, client, action: action.to_owned(), target, changes }
}

async fn what_writes_nothing_leaves_none(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let before = trail(&bench).await;
    let store = bench.store();
    let id = policy.id.as_str();
    // The same call again, a lost race, records that are not there, values of others.
    store.create_token(&policy, &value, &note("again", id)).await.unwrap();
    store.create_token(&policy, &new_value(TokenKind::Secret), &note("taken", id)).await.unwrap_err();
    let stale = Policy { version: 7, ..policy.clone() };
    let conflict = Written::Conflict { version: 1 };
    assert_eq!(store.put_policy(&stale, &note("stale", id)).await.unwrap(), conflict);
    let missing = Policy { id: new_id(), ..policy.clone() };
    assert_eq!(store.put_policy(&missing, &note("missing", id)).await.unwrap(), Written::Missing);
    let new = new_value(TokenKind::Secret);
    let rotate = note("rotate", id);
    let rotated = store.rotate_token(&account_id(), &policy.id, 7, &new, Duration::ZERO, &rotate).await;
    assert_eq!(rotated.unwrap(), conflict);
    let rotated = store.rotate_token(&account_id(), &missing.id, 1, &new, Duration::ZERO, &rotate).await;
    assert_eq!(rotated.unwrap(), Written::Missing);
    let sign = note("sign", id);
    let signed = store.put_signing_secret(&account_id(), &policy.id, 7, &secret(), &sign).await.unwrap();
    assert_eq!(signed, conflict);
    let put = store.put_account(&account(&bench, 9), &note("account", "default")).await.unwrap();
    assert_eq!(put, conflict);
    let made = store.create_account(&account(&bench, 1), &missing, &new, &note("make", "default")).await;
    assert!(!made.unwrap());
    store.mark_seen_in_browser(&account_id(), &policy.id, bench.now()).await.unwrap();
    bench.take(&policy.id, 1).await;
    assert_eq!(trail(&bench).await, before);
}

async fn entries_come_newest_first_in_pages(bench: Bench) {
    let targets = ["tok_a", "tok_b", "tok_a", "mem_c", "tok_a", "tok_b", "tok_ab"];
    for (at, target) in targets.iter().enumerate() {
        // Some share a millisecond.
        bench.pass(SignedDuration::from_micros(if at % 2 == 0 { 1_000 } else { 1 }));
        bench.store().note(&account_id(), &note("look", target)).await.unwrap();
    }
    for target in [None, Some("tok_a"), Some("tok_b"), Some("mem_c"), Some("tok"), Some("")] {
        let wanted = |found: &&&str| target.is_none_or(|target| **found == target);
        let mut expected: Vec<&str> = targets.iter().filter(wanted).copied().collect();
        expected.reverse();
        for limit in [1, 2, 3, 7, 500] {
            let mut asked = Asked { limit, target: target.map(str::to_owned), ..Asked::default() };
            let mut found = Vec::new();
            loop {
                let page = trail_of(&bench, asked.clone()).await;
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                asked.before = Some(last.id());
                found.extend(page);
            }
            assert!(found.is_sorted_by(|a, b| a.id() > b.id()), "{found:?}");
            let found: Vec<_> = found.iter().map(target_of).collect();
            assert_eq!(found, expected, "{target:?} in pages of {limit}");
        }
    }
    assert_eq!(trail_of(&bench, Asked { limit: 0, ..Asked::default() }).await, []);
    let before = |id| Asked { before: EntryId::parse(id), limit: 10, target: None };
    assert_eq!(trail_of(&bench, before("0-0")).await, [], "before all there can be");
    let all = trail_of(&bench, before("18446744073709551615-18446744073709551615")).await;
    assert_eq!(all.len(), targets.len());
}

fn target_of(traced: &Traced) -> &str {
    match traced {
        Traced::Entry(entry) => &entry.target,
        Traced::Unreadable { id } => panic!("{id} cannot be read"),
    }
}

async fn entries_keep_their_order_where_the_clock_goes_back(bench: Bench) {
    let start = bench.now();
    let steps = [("first", 0), ("second", -3_600), ("third", -7_200), ("fourth", 1)];
    for (action, seconds) in steps {
        bench.set_time(start.checked_add(SignedDuration::from_secs(seconds)).unwrap());
        bench.store().note(&account_id(), &note(action, "x")).await.unwrap();
    }
    assert_eq!(actions(&bench).await, ["fourth", "third", "second", "first"]);
    let told: Vec<_> =
        trail(&bench).await.iter().map(|entry| entry.at.duration_since(start).as_secs()).collect();
    assert_eq!(told, [1, -7_200, -3_600, 0], "the clock's time is told as it was");
}

async fn of_many_editors_those_leave_entries_who_wrote(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let before = trail(&bench).await.len();
    let write = |number: u64| {
        let (store, policy) = (Arc::clone(bench.store()), policy.clone());
        tokio::spawn(async move {
            let change = Change { field: "/n".to_owned(), from: Value::Null, to: json!(number) };
            let note = Note { changes: vec![change], ..note("edit", policy.id.as_str()) };
            let policy = Policy { nickname: number.to_string(), ..policy };
            let written = store.put_policy(&policy, &note).await.unwrap();
            matches!(written, Written::Done { .. }).then_some(number)
        })
    };
    let mut won = Vec::new();
    for task in (0..16).map(write).collect::<Vec<_>>() {
        won.extend(task.await.unwrap());
    }
    assert_eq!(won.len(), 1, "all build on one version");
    let entries = trail(&bench).await;
    assert_eq!(entries.len(), before + 1);
    assert_eq!(entries[0].changes[0].to, json!(won[0]));
    let stored = bench.store().get_token(&account_id(), &policy.id).await.unwrap().unwrap();
    assert_eq!(stored.policy.nickname, won[0].to_string(), "the entry is the winner's");
}

async fn what_looks_like_a_secret_is_masked(mut bench: Bench) {
    let values = [new_value(TokenKind::Secret), new_value(TokenKind::Publishable)]
        .map(|value| value.expose().to_owned());
    let signing = secret().expose().to_owned();
    for secret in values.iter().chain([&signing]) {
        let change = Change { field: "/nickname".to_owned(), from: json!(secret), to: json!([secret]) };
        let actor = Actor::Member { id: MemberId::from_ulid(ulid::Ulid(3)), name: format!("Eve {secret}") };
        let note = Note { actor, changes: vec![change], ..note("edit", "x") };
        bench.store().note(&account_id(), &note).await.unwrap();
    }
    assert_eq!(trail(&bench).await.len(), 3);
    let told = format!("{:?}", trail(&bench).await);
    let stored = bench.everything().await;
    for secret in values.iter().chain([&signing]) {
        assert!(!told.contains(secret.as_str()), "{told}");
        assert!(memchr::memmem::find(&stored, secret.as_bytes()).is_none(), "it is in the store");
    }
}

const TRAIL: TableDefinition<'static, (&str, u64, u64), (i64, &str)> = TableDefinition::new("trail");
const TRAIL_OF: TableDefinition<'static, (&str, &str, u64, u64), ()> = TableDefinition::new("trail_of");

/// Writes into the file behind the store's back.
fn in_file(bench: &mut Bench, write: impl FnOnce(&redb::WriteTransaction)) {
    bench.store = None;
    {
        let database = Database::create(bench.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        write(&transaction);
        transaction.commit().unwrap();
    }
    bench.reopen(Some(sealer()));
}

/// As many as come within one millisecond: their numbers have one digit and two.
async fn what_is_about_one_target_is_told_newest_first_page_by_page(bench: Bench) {
    let store = bench.store();
    let notes: Vec<_> = (0..25).map(|_| note("many", "y")).collect();
    for made in &notes {
        let (account, other) = (account_id(), note("other", "z"));
        let (first, second) = tokio::join!(store.note(&account, made), store.note(&account, &other));
        first.and(second).unwrap();
    }
    let mut ids = Vec::new();
    loop {
        let before = ids.last().copied();
        let target = Some("y".to_owned());
        let page = trail_of(&bench, Asked { limit: 7, before, target }).await;
        ids.extend(page.iter().map(|traced| match traced {
            Traced::Entry(entry) => entry.id,
            Traced::Unreadable { id } => panic!("{id} cannot be read"),
        }));
        if page.len() < 7 {
            break;
        }
    }
    assert_eq!(ids.len(), notes.len());
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
}

async fn an_entry_that_cannot_be_read_hides_no_other(mut bench: Bench) {
    bench.store().note(&account_id(), &note("first", "x")).await.unwrap();
    if let Raw::Redis(server) = &bench.raw {
        let mut connection = connect(server).await;
        let add = |fields: &[&'static str]| [&["XADD", "tg:{default}:trail", "*"], fields].concat();
        let id: String =
            ask(&mut connection, &add(&["at", "1", "note", "{\"actor\": {\"type\": \"robot\"}}"])).await;
        let _: i64 = ask(&mut connection, &["ZADD", "tg:{default}:trail:x", "0", &sortable(&id)]).await;
        let id: String = ask(&mut connection, &add(&["something", "else"])).await;
        let _: i64 = ask(&mut connection, &["ZADD", "tg:{default}:trail:x", "0", &sortable(&id)]).await;
    } else {
        let millis = u64::try_from(bench.now().as_millisecond()).unwrap();
        in_file(&mut bench, |transaction| {
            let mut trail = transaction.open_table(TRAIL).unwrap();
            let mut trail_of = transaction.open_table(TRAIL_OF).unwrap();
            for (number, text) in [(1, "{\"actor\": {\"type\": \"robot\"}}"), (2, "no JSON")] {
                trail.insert(("default", millis, number), (1, text)).unwrap();
                trail_of.insert(("default", "x", millis, number), ()).unwrap();
            }
        });
    }
    bench.store().note(&account_id(), &note("last", "x")).await.unwrap();
    for target in [None, Some("x".to_owned())] {
        let traced = trail_of(&bench, Asked { target, limit: 9, ..Asked::default() }).await;
        let told = |traced: &Traced| match traced {
            Traced::Entry(entry) => entry.action.clone(),
            Traced::Unreadable { .. } => "-".to_owned(),
        };
        assert_eq!(traced.iter().map(told).collect::<Vec<_>>(), ["last", "-", "-", "first"]);
    }
}

async fn the_trail_is_there_when_the_store_is_opened_again(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    bench.store().note(&account_id(), &note("look", "x")).await.unwrap();
    let before = trail(&bench).await;
    assert_eq!(before.len(), 2);
    bench.reopen(None);
    assert_eq!(trail(&bench).await, before);
    bench.store().note(&account_id(), &note("look", "x")).await.unwrap();
    assert_eq!(trail(&bench).await[1..], before);
}

async fn a_store_from_before_the_trail_has_an_empty_one(mut bench: Bench) {
    let (id, _) = bench.make_account(PerPool::default()).await;
    if let Raw::Redis(server) = &bench.raw {
        let mut connection = connect(server).await;
        let keys = ["DEL", "tg:{default}:trail", "tg:{default}:trail:a test"];
        assert_eq!(ask::<i64>(&mut connection, &keys).await, 2);
    } else {
        in_file(&mut bench, |transaction| {
            assert!(transaction.delete_table(TRAIL).unwrap() && transaction.delete_table(TRAIL_OF).unwrap());
        });
    }
    assert_eq!(actions(&bench).await, [""; 0]);
    let asked = Asked { limit: 5, target: Some("x".to_owned()), before: None };
    assert_eq!(trail_of(&bench, asked).await, []);
    bench.edit(&id, |policy| policy.nickname = "new".to_owned()).await;
    assert_eq!(actions(&bench).await, ["test.write"]);
}

async fn accounts_have_trails_of_their_own(bench: Bench) {
    let other = AccountId::parse("default-2").unwrap();
    bench.make_account(PerPool::default()).await;
    bench.make_account_named(&other, PerPool::default()).await;
    bench.store().note(&account_id(), &note("look", "x")).await.unwrap();
    bench.store().note(&other, &note("listen", "x")).await.unwrap();
    assert_eq!(actions(&bench).await, ["look", "test.write"]);
    for target in [None, Some("x".to_owned())] {
        let asked = Asked { limit: 1, target, before: None };
        let newest = bench.store().trail(&other, &asked).await.unwrap();
        let Traced::Entry(entry) = &newest[0] else { panic!("{newest:?}") };
        assert_eq!(entry.action, "listen");
    }
}

/// What cannot be noted is not done.
#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_is_none_stops_every_write() {
    let mut bench = Bench::redis();
    let (id, value) = bench.make_account(PerPool::default()).await;
    let Raw::Redis(server) = &bench.raw else { panic!("it is Redis") };
    let mut connection = connect(server).await;
    let _: i64 = ask(&mut connection, &["DEL", "tg:{default}:trail"]).await;
    let _: String = ask(&mut connection, &["SET", "tg:{default}:trail", "x"]).await;
    let before = bench.raw_token(&id).await;
    let (store, by) = (bench.store(), note("write", id.as_str()));
    let policy = store.get_token(&account_id(), &id).await.unwrap().unwrap().policy;
    let new = new_value(TokenKind::Secret);
    let late = Policy { id: new_id(), ..policy.clone() };
    let other = AccountId::parse("other").unwrap();
    let refusals = [
        store.put_policy(&policy, &by).await.map(drop),
        store.create_token(&late, &new, &by).await,
        store.rotate_token(&account_id(), &id, 1, &new, Duration::ZERO, &by).await.map(drop),
        store.put_signing_secret(&account_id(), &id, 1, &secret(), &by).await.map(drop),
        store.put_account(&account(&bench, 1), &by).await.map(drop),
        store.note(&account_id(), &by).await,
        store.trail(&account_id(), &Asked { limit: 1, ..Asked::default() }).await.map(drop),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap_err();
        assert!(matches!(refusal, StoreError::Unreadable { .. }), "{refusal}");
    }
    assert!(store.get_token(&account_id(), &late.id).await.unwrap().is_none());
    assert_eq!(store.find_token(&new.digest()).await.unwrap(), None);
    assert_eq!(store.find_token(&value.digest()).await.unwrap().map(|policy| policy.id), Some(id.clone()));
    assert_eq!(store.get_account(&account_id()).await.unwrap().unwrap().version, 1);
    assert_eq!(store.get_account(&other).await.unwrap(), None);
    assert_eq!(bench.raw_token(&id).await, before);
}

/// One entry is small, and the newest are found fast among many.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_trail_is_read_from_its_end() {
    for bench in [Bench::embedded(), Bench::redis()] {
        let write = |number: u64| {
            let store = Arc::clone(bench.store());
            let target = TokenId::from_ulid(ulid::Ulid(u128::from(number % 100)));
            tokio::spawn(
                async move { store.note(&account_id(), &note("look", target.as_str())).await.unwrap() },
            )
        };
        for task in (0..3_000).map(write).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let target = TokenId::from_ulid(ulid::Ulid(7)).to_string();
        for (target, expected) in [(None, 500), (Some(target), 30)] {
            let traced = trail_of(&bench, Asked { limit: 500, target, before: None }).await;
            assert_eq!(traced.len(), expected);
        }
        assert_eq!(trail(&bench).await.len(), 3_000);
    }
}
