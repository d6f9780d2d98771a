//! Members and sessions: names are one member's only, writes build on versions and are noted, sessions end.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use redb::{Database, TableDefinition};
use tollgate::policy::{AccountId, PerPool, TokenId};
use tollgate::store::StoreError;
use tollgate::store::people::{
    Invitation, Member, MemberId, MemberWritten, Role, Session, SessionDigest, Visitor,
};
use tollgate::store::trail::{Actor, Asked, Note, Traced};

use super::bench::{Bench, Raw, account_id, ask, connect, next, sealer, time};

super::on_both![
    every_field_of_a_member_is_read_back,
    members_are_listed_by_age,
    names_are_one_members_only,
    one_of_many_with_one_name_is_made,
    one_of_many_who_take_one_name_gets_it,
    writes_need_the_stored_version,
    who_is_gone_is_gone,
    each_write_of_a_member_leaves_its_entry,
    a_member_that_cannot_be_read_hides_no_others,
    a_session_is_read_back_until_it_ends,
    a_session_that_is_put_again_has_a_new_end,
    a_session_can_be_ended,
    members_and_sessions_are_their_accounts,
    members_and_sessions_are_there_when_the_store_is_opened_again,
    a_store_from_before_there_were_members_has_none,
];

const DONE: MemberWritten = MemberWritten::Done { version: 1 };
const HOUR: Duration = Duration::from_hours(1);

fn new_member_id() -> MemberId {
    MemberId::from_ulid(ulid::Ulid::from_parts(next(), 2))
}

fn member(bench: &Bench, name: &str) -> Member {
    Member {
        id: new_member_id(),
        name: name.to_owned(),
        role: Role::Admin,
        passphrase: None,
        invitation: None,
        sessions_since: bench.now(),
        created_at: bench.now(),
        version: 1,
    }
}

fn note(action: &'static str, id: &MemberId) -> Note {
    Note {
        actor: Actor::Tollgate,
        client: Some("192.0.2.7".parse().unwrap()),
        action,
        target: id.to_string(),
        changes: Vec::new(),
    }
}

async fn create(bench: &Bench, member: &Member) -> MemberWritten {
    let note = note("member.invite", &member.id);
    bench.store().create_member(&account_id(), member, &note).await.unwrap()
}

async fn put(bench: &Bench, member: &Member) -> MemberWritten {
    bench.store().put_member(&account_id(), member, &note("member.edit", &member.id)).await.unwrap()
}

async fn remove(bench: &Bench, id: &MemberId, version: u64) -> MemberWritten {
    let note = note("member.remove", id);
    bench.store().remove_member(&account_id(), id, version, &note).await.unwrap()
}

async fn read(bench: &Bench, id: &MemberId) -> Option<Member> {
    bench.store().member(&account_id(), id).await.unwrap()
}

async fn members(bench: &Bench) -> Vec<Member> {
    bench.store().members(&account_id()).await.unwrap()
}

/// What was noted and of whom, oldest first.
async fn noted(bench: &Bench) -> Vec<(String, String)> {
    let asked = Asked { limit: 1_000, ..Asked::default() };
    let traced = bench.store().trail(&account_id(), &asked).await.unwrap();
    let told = |traced| match traced {
        Traced::Entry(entry) => (entry.action, entry.target),
        Traced::Unreadable { id } => panic!("{id} cannot be read"),
    };
    traced.into_iter().rev().map(told).collect()
}

async fn every_field_of_a_member_is_read_back(bench: Bench) {
    let until = time("2026-12-01T06:00:00.123456Z");
    let plain = member(&bench, "Grace");
    let full = Member {
        role: Role::Viewer,
        passphrase: Some("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".to_owned()),
        invitation: Some(Invitation { digest: [0xc3; 32], until }),
        sessions_since: time("2026-11-23T06:00:00.000001Z"),
        created_at: time("2026-11-22T05:04:03.02Z"),
        ..member(&bench, "ada \"Ä\" lovelace@example.com \u{1F600} \\ {}")
    };
    for member in [&plain, &full] {
        assert_eq!(create(&bench, member).await, DONE);
        assert_eq!(read(&bench, &member.id).await.as_ref(), Some(member));
    }
    let swapped = Member { id: plain.id.clone(), name: "Countess".to_owned(), ..full.clone() };
    assert_eq!(put(&bench, &swapped).await, MemberWritten::Done { version: 2 });
    let bare = Member { id: full.id.clone(), ..plain };
    assert_eq!(put(&bench, &bare).await, MemberWritten::Done { version: 2 });
    for member in [swapped, bare] {
        let id = member.id.clone();
        assert_eq!(read(&bench, &id).await, Some(Member { version: 2, ..member }));
    }
    assert_eq!(read(&bench, &new_member_id()).await, None);
}

async fn members_are_listed_by_age(bench: Bench) {
    assert_eq!(members(&bench).await, []);
    let made: Vec<_> = (0..12).map(|number| member(&bench, &format!("m{}", 99 - number))).collect();
    for at in [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 6, 4] {
        assert_eq!(create(&bench, &made[at]).await, DONE);
    }
    assert_eq!(members(&bench).await, made);
}

async fn names_are_one_members_only(bench: Bench) {
    let (ada, loud) = (member(&bench, "Ada@Example.com"), member(&bench, "ÄRGER"));
    for made in [&ada, &loud] {
        assert_eq!(create(&bench, made).await, DONE);
    }
    for taken in ["Ada@Example.com", "ada@example.com", "ADA@EXAMPLE.COM", "ärger", "Ärger"] {
        let late = member(&bench, taken);
        assert_eq!(create(&bench, &late).await, MemberWritten::NameTaken, "{taken}");
        assert_eq!(read(&bench, &late.id).await, None);
    }
    let grace = member(&bench, "ada@example.co");
    assert_eq!(create(&bench, &grace).await, DONE, "another name");
    let renamed = Member { name: "aDA@example.com".to_owned(), ..grace.clone() };
    assert_eq!(put(&bench, &renamed).await, MemberWritten::NameTaken);
    assert_eq!(read(&bench, &grace.id).await, Some(grace.clone()));
    // A member's own name is no other's; a name that was given up is free.
    let louder = Member { name: "ADA@EXAMPLE.COM".to_owned(), ..ada.clone() };
    assert_eq!(put(&bench, &louder).await, MemberWritten::Done { version: 2 });
    let moved = Member { name: "countess".to_owned(), version: 2, ..ada.clone() };
    assert_eq!(put(&bench, &moved).await, MemberWritten::Done { version: 3 });
    assert_eq!(put(&bench, &renamed).await, MemberWritten::Done { version: 2 });
    assert_eq!(remove(&bench, &loud.id, 1).await, MemberWritten::Done { version: 2 });
    assert_eq!(create(&bench, &member(&bench, "ärger")).await, DONE);
}

async fn one_of_many_with_one_name_is_made(bench: Bench) {
    let make = |number: usize| {
        let store = Arc::clone(bench.store());
        let member = member(&bench, ["Ada", "ada", "ADA", "aDa"][number % 4]);
        tokio::spawn(async move {
            let written =
                store.create_member(&account_id(), &member, &note("member.invite", &member.id)).await;
            (member, written.unwrap())
        })
    };
    let mut made = Vec::new();
    for task in (0..16).map(make).collect::<Vec<_>>() {
        match task.await.unwrap() {
            (member, DONE) => made.push(member),
            (_, written) => assert_eq!(written, MemberWritten::NameTaken),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(members(&bench).await, made);
    assert_eq!(noted(&bench).await, [("member.invite".to_owned(), made[0].id.to_string())]);
}

async fn one_of_many_who_take_one_name_gets_it(bench: Bench) {
    let mut tasks = Vec::new();
    for number in 0..16 {
        let before = member(&bench, &format!("m{number}"));
        assert_eq!(create(&bench, &before).await, DONE);
        let after = Member { name: "Ada".to_owned(), ..before };
        tasks.push((Arc::clone(bench.store()), after));
    }
    let rename = |(store, member): (Arc<dyn tollgate::store::Store>, Member)| {
        tokio::spawn(async move {
            store.put_member(&account_id(), &member, &note("member.edit", &member.id)).await.unwrap()
        })
    };
    let mut won = 0;
    for task in tasks.into_iter().map(rename).collect::<Vec<_>>() {
        match task.await.unwrap() {
            MemberWritten::Done { version: 2 } => won += 1,
            written => assert_eq!(written, MemberWritten::NameTaken),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(members(&bench).await.iter().filter(|member| member.name == "Ada").count(), 1);
    assert_eq!(noted(&bench).await.len(), 17);
}

async fn writes_need_the_stored_version(bench: Bench) {
    let ada = member(&bench, "Ada");
    assert_eq!(create(&bench, &Member { version: 9, ..ada.clone() }).await, DONE, "a new one is the first");
    assert_eq!(read(&bench, &ada.id).await, Some(ada.clone()));
    let edited = Member { role: Role::Viewer, ..ada.clone() };
    assert_eq!(put(&bench, &edited).await, MemberWritten::Done { version: 2 });
    let stored = Some(Member { version: 2, ..edited });
    let (before, conflict) = (noted(&bench).await, MemberWritten::Conflict { version: 2 });
    for version in [0, 1, 3, 20, u64::MAX] {
        let stale = Member { name: "Eve".to_owned(), version, ..ada.clone() };
        assert_eq!(put(&bench, &stale).await, conflict, "{version}");
        assert_eq!(remove(&bench, &ada.id, version).await, conflict, "{version}");
    }
    assert_eq!(
        create(&bench, &Member { name: "Eve".to_owned(), ..ada.clone() }).await,
        conflict,
        "the same id"
    );
    assert_eq!(create(&bench, &ada).await, conflict, "the same call again");
    let stranger = member(&bench, "Eve");
    assert_eq!(put(&bench, &stranger).await, MemberWritten::Missing);
    assert_eq!(remove(&bench, &stranger.id, 1).await, MemberWritten::Missing);
    assert_eq!(create(&bench, &member(&bench, "ADA")).await, MemberWritten::NameTaken);
    assert_eq!(read(&bench, &ada.id).await, stored);
    assert_eq!(members(&bench).await.len(), 1);
    assert_eq!(noted(&bench).await, before, "what writes nothing leaves no entry");

    let write = |number: usize| {
        let store = Arc::clone(bench.store());
        let member = Member { name: format!("Ada {number}"), version: 2, ..ada.clone() };
        tokio::spawn(async move {
            let note = note("member.edit", &member.id);
            (store.put_member(&account_id(), &member, &note).await.unwrap(), member.name)
        })
    };
    let mut won = Vec::new();
    for task in (0..16).map(write).collect::<Vec<_>>() {
        match task.await.unwrap() {
            (MemberWritten::Done { version: 3 }, name) => won.push(name),
            (written, _) => assert_eq!(written, MemberWritten::Conflict { version: 3 }),
        }
    }
    assert_eq!(won.len(), 1, "all build on one version");
    assert_eq!(read(&bench, &ada.id).await.map(|member| member.name).as_ref(), won.first());
    assert_eq!(noted(&bench).await.len(), before.len() + 1);
}

async fn who_is_gone_is_gone(bench: Bench) {
    let (ada, grace) = (member(&bench, "Ada"), member(&bench, "Grace"));
    for made in [&ada, &grace] {
        assert_eq!(create(&bench, made).await, DONE);
    }
    assert_eq!(remove(&bench, &ada.id, 1).await, MemberWritten::Done { version: 2 });
    assert_eq!(read(&bench, &ada.id).await, None);
    assert_eq!(members(&bench).await, [grace]);
    assert_eq!(remove(&bench, &ada.id, 1).await, MemberWritten::Missing);
    assert_eq!(put(&bench, &Member { version: 2, ..ada }).await, MemberWritten::Missing);
}

async fn each_write_of_a_member_leaves_its_entry(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let epoch = bench.store().epoch(&account_id()).await.unwrap();
    let ada = member(&bench, "Ada");
    create(&bench, &ada).await;
    put(&bench, &ada).await;
    remove(&bench, &ada.id, 2).await;
    let told = ["member.invite", "member.edit", "member.remove"];
    let expected = told.map(|action| (action.to_owned(), ada.id.to_string()));
    assert_eq!(noted(&bench).await[1..], expected);
    let asked = Asked { limit: 9, target: Some(ada.id.to_string()), before: None };
    let about = bench.store().trail(&account_id(), &asked).await.unwrap();
    assert_eq!(about.len(), 3);
    let Traced::Entry(last) = &about[0] else { panic!("{about:?}") };
    assert_eq!((last.at, last.client), (bench.now(), note("", &ada.id).client));
    assert_eq!(bench.store().epoch(&account_id()).await.unwrap(), epoch, "no policy has changed");
}

const MEMBERS: TableDefinition<'static, &str, &str> = TableDefinition::new("members");
const SESSIONS: TableDefinition<'static, (&str, &str), (i64, &str)> = TableDefinition::new("sessions");
const SESSION_ENDS: TableDefinition<'static, (i64, &str, &str), ()> = TableDefinition::new("session_ends");

/// Changes the file behind the store's back.
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

async fn a_member_that_cannot_be_read_hides_no_others(mut bench: Bench) {
    let made: Vec<_> = ["Ada", "Eve", "Mallory", "Grace"].map(|name| member(&bench, name)).into();
    for member in &made {
        assert_eq!(create(&bench, member).await, DONE);
    }
    let spoilt = [(&made[1].id, "{\"version\": 1}"), (&made[2].id, "no JSON")];
    if let Raw::Redis(server) = &bench.raw {
        let mut connection = connect(server).await;
        for (id, text) in spoilt {
            let _: i64 = ask(&mut connection, &["HSET", "tg:{default}:members", id.as_str(), text]).await;
        }
    } else {
        in_file(&mut bench, |transaction| {
            let mut members = transaction.open_table(MEMBERS).unwrap();
            for (id, text) in spoilt {
                assert!(members.insert(format!("default/{id}").as_str(), text).unwrap().is_some());
            }
        });
    }
    assert_eq!(members(&bench).await, [made[0].clone(), made[3].clone()]);
    assert_eq!(read(&bench, &made[0].id).await.as_ref(), Some(&made[0]));
    let before = noted(&bench).await;
    for spoilt in &made[1..3] {
        let (store, note) = (bench.store(), note("member.edit", &spoilt.id));
        let refusals = [
            store.member(&account_id(), &spoilt.id).await.map(drop),
            store.create_member(&account_id(), spoilt, &note).await.map(drop),
            store.put_member(&account_id(), spoilt, &note).await.map(drop),
            store.remove_member(&account_id(), &spoilt.id, 1, &note).await.map(drop),
        ];
        for refusal in refusals {
            let Err(StoreError::Unreadable { key, why }) = refusal else { panic!("{refusal:?}") };
            assert!(format!("{key} {why}").contains(spoilt.id.as_str()), "{key}: {why}");
        }
    }
    assert_eq!(noted(&bench).await, before);
    assert_eq!(create(&bench, &member(&bench, "Ada")).await, MemberWritten::NameTaken);
    assert_eq!(put(&bench, &made[3]).await, MemberWritten::Done { version: 2 });
}

fn session_of(bench: &Bench, visitor: Visitor) -> (SessionDigest, Session) {
    let mut digest = [0x5e; 32];
    digest[..8].copy_from_slice(&next().to_be_bytes());
    (SessionDigest(digest), Session { visitor, started_at: bench.now() })
}

fn a_session(bench: &Bench) -> (SessionDigest, Session) {
    session_of(bench, Visitor::Member(new_member_id()))
}

async fn put_session(bench: &Bench, (digest, session): &(SessionDigest, Session), life: Duration) {
    bench.store().put_session(&account_id(), digest, session, life).await.unwrap();
}

async fn find(bench: &Bench, digest: &SessionDigest) -> Option<Session> {
    bench.store().session(&account_id(), digest).await.unwrap()
}

async fn a_session_is_read_back_until_it_ends(mut bench: Bench) {
    let of_token = Visitor::Token(TokenId::from_ulid(ulid::Ulid(8)));
    let short = a_session(&bench);
    let long = session_of(&bench, of_token);
    assert_eq!(find(&bench, &short.0).await, None);
    put_session(&bench, &short, HOUR).await;
    put_session(&bench, &long, 3 * HOUR).await;
    put_session(&bench, &a_session(&bench), Duration::ZERO).await;
    put_session(&bench, &a_session(&bench), Duration::MAX).await;
    for (digest, session) in [&short, &long] {
        assert_eq!(find(&bench, digest).await.as_ref(), Some(session));
    }
    bench.pass(SignedDuration::from_hours(1) - SignedDuration::from_micros(1));
    assert_eq!(find(&bench, &short.0).await.as_ref(), Some(&short.1), "its last moment");
    bench.pass(SignedDuration::from_micros(1));
    assert_eq!(find(&bench, &short.0).await, None);
    assert_eq!(find(&bench, &long.0).await.as_ref(), Some(&long.1));
    assert_eq!(noted(&bench).await, [], "sessions are no writes of somebody");
    if let Raw::Embedded(_) = &bench.raw {
        // Whoever is signed in next sweeps: Redis does so by itself.
        put_session(&bench, &a_session(&bench), HOUR).await;
        in_file(&mut bench, |transaction| {
            use redb::ReadableTableMetadata as _;
            assert_eq!(transaction.open_table(SESSIONS).unwrap().len().unwrap(), 3);
            assert_eq!(transaction.open_table(SESSION_ENDS).unwrap().len().unwrap(), 3);
        });
    } else if let Raw::Redis(server) = &bench.raw {
        let mut connection = connect(server).await;
        let keys: Vec<String> = ask(&mut connection, &["KEYS", "*:session:*"]).await;
        assert!(keys.len() >= 3, "{keys:?}");
        for key in keys {
            let left: i64 = ask(&mut connection, &["PTTL", &key]).await;
            // Gone meanwhile: -2. For ever: -1.
            assert_ne!(left, -1, "{key}");
        }
    }
}

async fn a_session_that_is_put_again_has_a_new_end(bench: Bench) {
    let session = a_session(&bench);
    put_session(&bench, &session, HOUR).await;
    bench.pass(SignedDuration::from_mins(30));
    put_session(&bench, &session, HOUR).await;
    bench.pass(SignedDuration::from_mins(45));
    put_session(&bench, &a_session(&bench), HOUR).await;
    assert_eq!(find(&bench, &session.0).await.as_ref(), Some(&session.1));
    bench.pass(SignedDuration::from_mins(15));
    assert_eq!(find(&bench, &session.0).await, None);
}

async fn a_session_can_be_ended(bench: Bench) {
    let (one, other) = (a_session(&bench), a_session(&bench));
    for session in [&one, &other] {
        put_session(&bench, session, HOUR).await;
    }
    for _ in 0..2 {
        bench.store().end_session(&account_id(), &one.0).await.unwrap();
        assert_eq!(find(&bench, &one.0).await, None);
    }
    assert_eq!(find(&bench, &other.0).await, Some(other.1));
}

async fn members_and_sessions_are_their_accounts(bench: Bench) {
    let others = ["default-2", "defaul", "a"].map(|name| AccountId::parse(name).unwrap());
    let (ada, session) = (member(&bench, "Ada"), a_session(&bench));
    create(&bench, &ada).await;
    put_session(&bench, &session, HOUR).await;
    let store = bench.store();
    for other in &others {
        assert_eq!(store.members(other).await.unwrap(), []);
        assert_eq!(store.member(other, &ada.id).await.unwrap(), None);
        assert_eq!(store.session(other, &session.0).await.unwrap(), None);
        let note = note("member.edit", &ada.id);
        assert_eq!(store.put_member(other, &ada, &note).await.unwrap(), MemberWritten::Missing);
        assert_eq!(store.remove_member(other, &ada.id, 1, &note).await.unwrap(), MemberWritten::Missing);
        store.end_session(other, &session.0).await.unwrap();
        let namesake = member(&bench, "ada");
        assert_eq!(store.create_member(other, &namesake, &note).await.unwrap(), DONE);
        assert_eq!(store.members(other).await.unwrap(), [namesake]);
    }
    assert_eq!(members(&bench).await, [ada]);
    assert_eq!(find(&bench, &session.0).await, Some(session.1));
    assert_eq!(noted(&bench).await.len(), 1);
}

async fn members_and_sessions_are_there_when_the_store_is_opened_again(mut bench: Bench) {
    let (ada, session) = (member(&bench, "Ada"), a_session(&bench));
    create(&bench, &ada).await;
    put_session(&bench, &session, HOUR).await;
    bench.reopen(None);
    assert_eq!(members(&bench).await, [ada]);
    assert_eq!(find(&bench, &session.0).await, Some(session.1));
}

async fn a_store_from_before_there_were_members_has_none(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    if let Raw::Embedded(_) = &bench.raw {
        in_file(&mut bench, |transaction| {
            assert!(transaction.delete_table(MEMBERS).unwrap());
            assert!(transaction.delete_table(SESSIONS).unwrap());
            assert!(transaction.delete_table(SESSION_ENDS).unwrap());
        });
    }
    let (ada, session) = (member(&bench, "Ada"), a_session(&bench));
    assert_eq!(members(&bench).await, []);
    assert_eq!(read(&bench, &ada.id).await, None);
    assert_eq!(find(&bench, &session.0).await, None);
    bench.store().end_session(&account_id(), &session.0).await.unwrap();
    assert_eq!(create(&bench, &ada).await, DONE);
    put_session(&bench, &session, HOUR).await;
    assert_eq!(members(&bench).await, [ada]);
    assert_eq!(find(&bench, &session.0).await, Some(session.1));
}

/// What cannot be noted is not done.
#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_is_none_stops_every_write_of_a_member() {
    let bench = Bench::redis();
    let ada = member(&bench, "Ada");
    create(&bench, &ada).await;
    let Raw::Redis(server) = &bench.raw else { panic!("it is Redis") };
    let mut connection = connect(server).await;
    let _: i64 = ask(&mut connection, &["DEL", "tg:{default}:trail"]).await;
    let _: String = ask(&mut connection, &["SET", "tg:{default}:trail", "x"]).await;
    let (store, by, grace) = (bench.store(), note("member.edit", &ada.id), member(&bench, "Grace"));
    let refusals = [
        store.create_member(&account_id(), &grace, &by).await,
        store.put_member(&account_id(), &ada, &by).await,
        store.remove_member(&account_id(), &ada.id, 1, &by).await,
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(StoreError::Unreadable { .. })), "{refusal:?}");
    }
    assert_eq!(members(&bench).await, [ada]);
}

/// The stores keep what they are given: a session's digest, not the cookie; and tell no digest in a `Debug` text.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_kept_by_their_digests_alone() {
    use sha2::{Digest as _, Sha256};
    for mut bench in [Bench::embedded(), Bench::redis()] {
        let cookie = "tgc_f00dfeedf00dfeedf00dfeed";
        let digest = SessionDigest(Sha256::digest(cookie).into());
        let (_, session) = a_session(&bench);
        put_session(&bench, &(digest, session.clone()), HOUR).await;
        assert_eq!(find(&bench, &digest).await, Some(session));
        let everything = bench.everything().await;
        let holds = |text: &str| memchr::memmem::find(&everything, text.as_bytes()).is_some();
        assert!(holds(&hex::encode(digest.0)), "it is searched where it is kept");
        assert!(!holds(cookie) && !holds(&cookie[4..]));
        assert!(!format!("{digest:?}").contains(&hex::encode(digest.0)[..8]));
    }
}
