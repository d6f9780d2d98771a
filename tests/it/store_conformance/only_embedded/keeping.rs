//! What the file keeps, and for how long: a file from before there were leases, and what is swept away.

use std::time::Duration;

use jiff::SignedDuration;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use tollgate::ledger::lease::Reserved;
use tollgate::policy::PerPool;
use tollgate::store::{Counted, RefusalCell, Retention};

use super::super::bench::{Bench, account_id, limit, new_lease, sealer, settlement, time};

/// How many rows each of these tables has.
fn rows_of(bench: &mut Bench, tables: &[&str]) -> Vec<u64> {
    use redb::TableHandle;
    bench.store = None;
    let counts = {
        let database = Database::create(bench.file()).unwrap();
        let transaction = database.begin_read().unwrap();
        let count = |name: &&str| {
            let mut handles = transaction.list_tables().unwrap();
            let handle =
                handles.find(|handle| handle.name() == *name).unwrap_or_else(|| panic!("no table {name}"));
            transaction.open_untyped_table(handle).unwrap().len().unwrap()
        };
        tables.iter().map(count).collect()
    };
    bench.reopen(Some(sealer()));
    counts
}

#[tokio::test]
async fn a_file_from_before_leases_is_brought_up_to_date() {
    const META: TableDefinition<'static, &str, &str> = TableDefinition::new("meta");
    const USED: TableDefinition<'static, &str, [i64; 8]> = TableDefinition::new("used");
    const LEASES: TableDefinition<'static, u128, &str> = TableDefinition::new("leases");
    let mut bench = Bench::embedded();
    bench.make_account(PerPool { core: limit("100"), premium: None }).await;
    let (policy, value) = bench.make_token(|policy| policy.credit_limit.core = limit("10/month")).await;
    bench.store = None;
    {
        let starts = ["2026-11-24T06:00:00Z", "2026-11-24T00:00:00Z", "2026-11-01T00:00:00Z"];
        let [hour, day, month] = starts.map(|start| time(start).as_second());
        let row = [hour, 1, day, 3, month, 7, 0, 70];
        let database = Database::create(bench.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            transaction.open_table(META).unwrap().insert("format", "1").unwrap();
            let mut used = transaction.open_table(USED).unwrap();
            used.insert(format!("default/{}/core", policy.id).as_str(), row).unwrap();
            used.insert("default/core", row).unwrap();
            // A taking that was not settled was counted when it was taken.
            transaction.open_table(LEASES).unwrap().insert(5, r#"{"account":"default","cost":3}"#).unwrap();
        }
        let counters: TableDefinition<'static, &str, [i64; 13]> = TableDefinition::new("counters");
        transaction.delete_table(counters).unwrap();
        transaction.commit().unwrap();
    }
    // Twice: the second time there is nothing left to do.
    for _ in 0..2 {
        bench.reopen(Some(sealer()));
        assert!(bench.store().find_token(&value.digest()).await.unwrap().is_some());
        let Counted { counters, .. } = bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
        let core = counters.core;
        let used = [core.hour, core.day, core.month, core.ever].map(|slot| (slot.used, slot.leased));
        assert_eq!(used, [(1, 0), (3, 0), (7, 0), (70, 0)]);
    }
    let (taking, taken) = bench.take(&policy.id, 3).await;
    assert!(matches!(taken, Reserved::Granted(_)));
    assert!(matches!(bench.take(&policy.id, 1).await.1, Reserved::CreditsExhausted { .. }));
    bench.settle(&taking, 2).await;
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (9, 9));
    assert_eq!(rows_of(&mut bench, &["leases", "counters"]), [1, 2]);
    bench.store = None;
    let database = Database::create(bench.file()).unwrap();
    let transaction = database.begin_read().unwrap();
    let format = transaction.open_table(META).unwrap().get("format").unwrap().unwrap().value().to_owned();
    assert_eq!(format, "2");
    assert!(transaction.open_table(USED).is_err(), "the old counters are gone");
}

#[tokio::test]
async fn leases_and_usage_are_swept_away_when_they_are_over() {
    let mut bench = Bench::embedded();
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let hour = bench.now().as_second();
    for _ in 0..10 {
        let (taking, _) = bench.take(&policy.id, 2).await;
        let mut settled = settlement(&taking, 1);
        settled.cells[0].hour = hour;
        bench.store().settle(&[settled]).await.unwrap();
    }
    let (lost, _) = bench.take(&policy.id, 2).await;
    let refusal = RefusalCell { token: None, hour, code: "no_token", count: 1 };
    bench.store().count_refusals(&account_id(), new_lease(), &[refusal]).await.unwrap();
    let tables = ["leases", "expiries", "forgets", "cells", "refusals", "days", "batches"];
    // Of its day there is usage, there is a refusal, and of day and month there are sums that hold all of it.
    assert_eq!(rows_of(&mut bench, &tables), [11, 1, 10, 1, 1, 4, 1]);
    let sums = ["sums", "refused", "seen"];
    assert_eq!(rows_of(&mut bench, &sums), [6, 2, 1]);
    // Closed ones are forgotten a while after two minutes; the lost one is stranded.
    bench.pass(SignedDuration::from_mins(13));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 1);
    bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    assert_eq!(rows_of(&mut bench, &tables), [1, 0, 1, 1, 1, 4, 1]);
    bench.settle(&lost, 1).await;
    // Two days later no lease is left, and no mark of a batch; the usage is.
    bench.pass(SignedDuration::from_hours(48));
    bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    assert_eq!(rows_of(&mut bench, &["leases", "expiries", "forgets", "batches"]), [0, 0, 0, 0]);
    assert_eq!(rows_of(&mut bench, &["cells", "refusals", "days"]), [1, 1, 4]);
    assert_eq!(rows_of(&mut bench, &sums), [6, 2, 1]);
    bench.pass(SignedDuration::from_hours(401 * 24));
    bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    assert_eq!(rows_of(&mut bench, &["cells", "refusals", "days"]), [0, 0, 0]);
    assert_eq!(rows_of(&mut bench, &sums), [2, 0, 1], "other days of the month are kept");
    bench.pass(SignedDuration::from_hours(7 * 24));
    bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
    assert_eq!(rows_of(&mut bench, &sums), [0, 0, 1]);
}

#[tokio::test]
async fn usage_is_swept_away_when_the_time_that_was_told_is_over() {
    let mut bench = Bench::embedded();
    bench.keep_for(Retention { usage: Duration::from_hours(31 * 24), ..Retention::default() });
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (taking, _) = bench.take(&policy.id, 2).await;
    let mut settled = settlement(&taking, 1);
    settled.cells[0].hour = bench.now().as_second();
    bench.store().settle(&[settled]).await.unwrap();
    // 18 hours are left of the day, and an hour more is waited. The first day of the month is forgotten already.
    for (hours, cells, days) in [(31 * 24 + 18, 1, 2), (2, 0, 0)] {
        bench.pass(SignedDuration::from_hours(hours));
        bench.store().pace(&account_id(), &policy.id, 1).await.unwrap();
        assert_eq!(rows_of(&mut bench, &["cells", "days"]), [cells, days]);
    }
}
