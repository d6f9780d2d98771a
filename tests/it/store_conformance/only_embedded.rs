//! What only the embedded store promises: its file.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tollgate::ledger::lease::Reserved;
use tollgate::policy::{PerPool, Pool, RateLimit, TokenKind};
use tollgate::store::embedded::{Clock, EmbeddedStore, OpenError};
use tollgate::store::{Paced, Written};

use super::bench::{
    Bench, Takes as _, a_note, account_id, charge, limit, new_value, rows, sealer, settlement,
};

mod keeping;
mod signatures;

#[tokio::test]
async fn opening_again_finds_everything() {
    let mut bench = Bench::embedded();
    let (first, first_value) = bench.make_account(PerPool { core: limit("100/month"), premium: None }).await;
    let rate = Some(RateLimit { requests_per_second: 1, burst: 1 });
    let (policy, old) = bench.make_token(|policy| policy.rate_limit = rate).await;
    let paced = bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    assert!(matches!(paced, Paced::Passes { count: 1, .. }));
    let new = new_value(TokenKind::Publishable);
    let grace = Duration::from_hours(1);
    bench.store().rotate_token(&account_id(), &policy.id, 1, &new, grace, &a_note()).await.unwrap();
    let (taking, taken) = bench.take(&policy.id, 7).await;
    bench.reopen(Some(sealer()));
    let store = bench.store();
    for value in [&old, &new] {
        assert_eq!(store.find_token(&value.digest()).await.unwrap().unwrap().id, policy.id);
    }
    assert_eq!(store.get_account(&account_id()).await.unwrap().unwrap().budget.core, limit("100/month"));
    assert!(store.reveal_token(&account_id(), &first).await.unwrap() == Some(first_value));
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (7, 7));
    assert_eq!(store.take(&taking).await.unwrap(), taken, "the lease is known");
    let paced = store.pace(&account_id(), &policy.id, 1).await.unwrap();
    assert!(matches!(paced, Paced::Wait { .. }), "the throttle is known");
    bench.settle(&taking, 2).await;
    bench.reopen(None);
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (2, 2));
}

#[tokio::test]
async fn dropping_it_writes_what_was_queued() {
    let mut bench = Bench::embedded();
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (store, charge) = (Arc::clone(bench.store()), charge(&policy.id, Pool::Core, 1));
            tokio::spawn(async move { store.take(&charge).await.unwrap() })
        })
        .collect();
    for task in waiting {
        task.await.unwrap();
    }
    bench.reopen(None);
    assert_eq!(bench.used(&policy.id).await, 100);
}

#[test]
fn the_file_and_its_folder_are_made_and_are_ours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/deep/store.redb");
    drop(EmbeddedStore::open(&path, None, Clock::system()).unwrap());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    drop(EmbeddedStore::open(&path, None, Clock::system()).unwrap());
}

#[test]
fn a_second_opening_says_which_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let first = EmbeddedStore::open(&path, None, Clock::system()).unwrap();
    let refused = EmbeddedStore::open(&path, None, Clock::system()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    let sentence = refused.to_string();
    assert!(sentence.contains(&path.display().to_string()) && sentence.contains("state_dir"), "{sentence}");
    drop(first);
    EmbeddedStore::open(&path, None, Clock::system()).unwrap();
}

/// The test's own second process: it says how opening the file went.
const PROBE: &str = "TOLLGATE_TEST_OPEN";

#[test]
fn a_second_process_is_told_that_the_file_is_in_use() {
    if let Some(path) = std::env::var_os(PROBE) {
        match EmbeddedStore::open(path.as_ref(), None, Clock::system()) {
            Ok(_) => std::process::exit(10),
            Err(OpenError::InUse { .. }) => std::process::exit(11),
            Err(_) => std::process::exit(12),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let first = EmbeddedStore::open(&path, None, Clock::system()).unwrap();
    let name = "store_conformance::only_embedded::a_second_process_is_told_that_the_file_is_in_use";
    let open = || {
        let mut probe = Command::new(std::env::current_exe().unwrap());
        probe.args([name, "--exact", "--nocapture"]).env(PROBE, &path).output().unwrap().status.code()
    };
    assert_eq!(open(), Some(11));
    drop(first);
    assert_eq!(open(), Some(10));
}

#[test]
fn what_is_no_store_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(EmbeddedStore::open(&path, None, Clock::system()).unwrap());
    let good = std::fs::read(&path).unwrap();
    let mut wrong_magic = good.clone();
    wrong_magic[0] ^= 0xff;
    let garbage: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let table = [
        b"x".to_vec(),
        b"not a store at all".to_vec(),
        vec![0; 4096],
        garbage,
        wrong_magic,
        good[..300].to_vec(),
    ];
    for bytes in table {
        std::fs::write(&path, &bytes).unwrap();
        let refused = EmbeddedStore::open(&path, None, Clock::system()).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{} bytes: {refused}", bytes.len());
        assert!(refused.to_string().contains("left as it is"), "{refused}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{} bytes: it was changed", bytes.len());
    }
    std::fs::write(&path, &good).unwrap();
    EmbeddedStore::open(&path, None, Clock::system()).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(EmbeddedStore::open(&path, None, Clock::system()).unwrap());
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, &str>::new("meta");
        transaction.open_table(meta).unwrap().insert("format", "99").unwrap();
        transaction.commit().unwrap();
    }
    let refused = EmbeddedStore::open(&path, None, Clock::system()).unwrap_err();
    assert!(matches!(&refused, OpenError::Format { found, .. } if found == "99"), "{refused}");
}

#[test]
fn a_path_that_cannot_be_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.join("store.redb"), folder.path().to_owned()] {
        let refused = EmbeddedStore::open(&path, None, Clock::system()).unwrap_err();
        assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
        assert!(refused.to_string().contains(&folder.path().display().to_string()), "{refused}");
    }
}

#[tokio::test]
async fn what_is_over_is_swept_away() {
    let mut bench = Bench::embedded();
    bench.make_account(PerPool::default()).await;
    let (policy, old) = bench.make_token(|_| ()).await;
    let new = new_value(TokenKind::Publishable);
    let grace = Duration::from_mins(1);
    bench.store().rotate_token(&account_id(), &policy.id, 1, &new, grace, &a_note()).await.unwrap();
    bench.take(&policy.id, 1).await;
    assert_eq!(rows(&mut bench, "digests").len(), 3);
    bench.pass(SignedDuration::from_hours(26));
    bench.take(&policy.id, 1).await;
    // The first lease is stranded by now, and can still be told better; a day later it is gone.
    bench.pass(SignedDuration::from_hours(26));
    bench.take(&policy.id, 1).await;
    let digests: Vec<_> = rows(&mut bench, "digests").into_iter().map(|(digest, _)| digest).collect();
    assert_eq!(digests.len(), 2);
    assert!(!digests.contains(&old.digest().to_hex()) && digests.contains(&new.digest().to_hex()));
    bench.store = None;
    let database = redb::Database::create(bench.file()).unwrap();
    let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
    let leases = transaction.open_table(redb::TableDefinition::<u128, &str>::new("leases")).unwrap();
    assert_eq!(
        redb::ReadableTableMetadata::len(&leases).unwrap(),
        2,
        "the one just taken, and one that is stranded"
    );
}

/// Group commit: many callers share one `fsync`, so together they are much faster than one behind the other.
#[tokio::test(flavor = "multi_thread")]
async fn callers_at_once_share_their_commits() {
    const CALLS: u32 = 256;
    let bench = Bench::embedded();
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let started = Instant::now();
    for _ in 0..CALLS {
        bench.take(&policy.id, 1).await;
    }
    let one_by_one = started.elapsed();
    let started = Instant::now();
    let tasks: Vec<_> = (0..CALLS)
        .map(|_| {
            let (store, charge) = (Arc::clone(bench.store()), charge(&policy.id, Pool::Core, 1));
            tokio::spawn(async move {
                store.take(&charge).await.unwrap();
                charge
            })
        })
        .collect();
    let mut settlements = Vec::new();
    for task in tasks {
        settlements.push(settlement(&task.await.unwrap(), 0));
    }
    let at_once = started.elapsed();
    eprintln!("{CALLS} takings: one by one {one_by_one:?}, at once {at_once:?}");
    assert!(at_once * 2 < one_by_one, "one by one {one_by_one:?}, at once {at_once:?}");
    bench.store().settle(&settlements).await.unwrap();
    assert_eq!(bench.used(&policy.id).await, u64::from(CALLS));
}

#[tokio::test]
async fn a_conflict_in_a_batch_does_not_touch_the_others() {
    let bench = Bench::embedded();
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (other, _) = bench.make_token(|_| ()).await;
    let stale = tollgate::policy::Policy { version: 9, ..policy.clone() };
    let store = bench.store();
    let taking = charge(&other.id, Pool::Core, 1);
    let nobody = charge(&super::bench::new_id(), Pool::Core, 1);
    let note = a_note();
    let (conflict, done, taken, unreadable) = tokio::join!(
        store.put_policy(&stale, &note),
        store.put_policy(&other, &note),
        store.take(&taking),
        store.take(&nobody)
    );
    assert_eq!(conflict.unwrap(), Written::Conflict { version: 1 });
    assert_eq!(done.unwrap(), Written::Done { version: 2 });
    assert!(matches!(taken.unwrap(), Reserved::Granted(_)));
    assert!(unreadable.is_err());
    assert_eq!(bench.used_by_account().await, 1);
}
