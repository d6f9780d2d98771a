//! For how long things are kept, as the configuration tells it; what is stranded meanwhile; and that a question reads
//! no more than it asks for.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::{Database, TableDefinition};
use tollgate::policy::{AccountId, Credits, Operation, PerPool, Period, Pool, TokenId};
use tollgate::store::{LeaseKey, Retention, Settlement, StoreError, UsageCell, UsageRow};

use super::bench::{
    Bench, Charge, Raw, Takes as _, account_id, ask, charge, connect, key, reserve, sealer, settlement, time,
};

super::on_both![
    a_settle_within_the_reclaim_window_that_was_told_counts_and_one_after_it_does_not,
    usage_is_told_for_as_long_as_it_is_to_be_kept,
    a_shorter_retention_hides_older_usage_at_once_and_leaves_the_counters_alone,
    the_shortest_retention_keeps_the_cells_of_the_longest_month_to_its_end,
    what_an_account_has_stranded_is_the_sum_of_its_tokens,
    a_question_about_some_days_reads_no_others,
];

const fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

fn keeping(usage: Duration, stranded: Duration) -> Retention {
    Retention { usage, stranded, ..Retention::default() }
}

fn signed(time: Duration) -> SignedDuration {
    time.try_into().unwrap()
}

/// Spends one credit in an hour.
async fn spend(bench: &Bench, id: &TokenId, hour: &str) {
    let taking = charge(id, Pool::Core, 1);
    bench.store().take(&taking).await.unwrap();
    let mut settled = settlement(&taking, 1);
    settled.cells[0].hour = time(hour).as_second();
    bench.store().settle(&[settled]).await.unwrap();
}

/// The credits of all cells of the account.
async fn in_cells(bench: &Bench) -> u64 {
    let rows = bench.store().usage(&account_id(), None, Timestamp::MIN, Timestamp::MAX).await.unwrap();
    let credits = rows.iter().map(|row| match row {
        UsageRow::Used { cell, .. } => cell.credits,
        UsageRow::Refused { .. } => panic!("{row:?}"),
    });
    credits.sum()
}

async fn used_ever(bench: &Bench, id: &TokenId) -> u64 {
    let counted = bench.store().token_usage(&account_id(), id).await.unwrap();
    counted.counters.core.used(Period::None, counted.at).0
}

async fn a_settle_within_the_reclaim_window_that_was_told_counts_and_one_after_it_does_not(bench: Bench) {
    for window in [Duration::from_mins(1), Duration::from_mins(10), days(30)] {
        let mut bench = bench.fresh();
        bench.keep_for(keeping(days(400), window));
        bench.make_account(PerPool::default()).await;
        let (policy, _) = bench.make_token(|_| ()).await;
        let (in_time, _) = bench.take(&policy.id, 10).await;
        let (too_late, _) = bench.take(&policy.id, 20).await;
        bench.pass(SignedDuration::from_secs(30));
        assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 2);
        bench.pass(signed(window));
        bench.pass(SignedDuration::from_micros(-1));
        bench.settle(&in_time, 1).await;
        bench.pass(SignedDuration::from_micros(1));
        for _ in 0..2 {
            bench.settle(&too_late, 2).await;
        }
        let counted = bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
        assert_eq!(counted.stranded.core, Credits(20), "{window:?}");
        assert_eq!((used_ever(&bench, &policy.id).await, in_cells(&bench).await), (21, 1), "{window:?}");
    }
}

async fn usage_is_told_for_as_long_as_it_is_to_be_kept(bench: Bench) {
    for kept in [days(31), days(45), days(3650)] {
        let mut bench = bench.fresh();
        bench.keep_for(keeping(kept, days(1)));
        bench.make_account(PerPool::default()).await;
        let (policy, _) = bench.make_token(|_| ()).await;
        spend(&bench, &policy.id, "2026-11-24T00:00:00Z").await;
        let over = time("2026-11-25T00:00:00Z").checked_add(signed(kept)).unwrap();
        bench.set_time(over.checked_sub(SignedDuration::from_micros(1)).unwrap());
        assert_eq!(in_cells(&bench).await, 1, "{kept:?}");
        bench.set_time(over);
        assert_eq!(in_cells(&bench).await, 0, "{kept:?}");
    }
}

async fn a_shorter_retention_hides_older_usage_at_once_and_leaves_the_counters_alone(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    spend(&bench, &policy.id, "2026-11-24T06:00:00Z").await;
    bench.pass(signed(days(40)));
    spend(&bench, &policy.id, "2027-01-03T06:00:00Z").await;
    assert_eq!(in_cells(&bench).await, 2);
    bench.keep_for(keeping(days(31), days(1)));
    assert_eq!((in_cells(&bench).await, used_ever(&bench, &policy.id).await), (1, 2));
    // What is written from now on is kept for as long as is told now.
    bench.keep_for(keeping(days(3650), days(1)));
    spend(&bench, &policy.id, "2027-01-03T07:00:00Z").await;
    bench.pass(signed(days(1000)));
    spend(&bench, &policy.id, "2029-09-29T06:00:00Z").await;
    assert!(in_cells(&bench).await >= 3);
}

async fn the_shortest_retention_keeps_the_cells_of_the_longest_month_to_its_end(mut bench: Bench) {
    bench.keep_for(keeping(days(31), days(30)));
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    bench.set_time(time("2026-12-01T00:00:00Z"));
    spend(&bench, &policy.id, "2026-12-01T00:00:00Z").await;
    // A node that is lost in the month's first hour, and comes back just in time.
    let (lost, _) = bench.take(&policy.id, 5).await;
    bench.pass(SignedDuration::from_mins(1));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 1);
    bench.pass(signed(days(30)));
    bench.pass(SignedDuration::from_micros(-1));
    let mut settled = settlement(&lost, 3);
    settled.cells[0].hour = time("2026-12-01T00:00:00Z").as_second();
    bench.store().settle(&[settled]).await.unwrap();
    bench.set_time(time("2026-12-31T23:59:59.999999Z"));
    spend(&bench, &policy.id, "2026-12-31T23:00:00Z").await;
    assert_eq!((bench.used(&policy.id).await, in_cells(&bench).await), (5, 5));
}

async fn what_an_account_has_stranded_is_the_sum_of_its_tokens(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    let other = AccountId::parse("default-2").unwrap();
    let (of_other, _) = bench.make_account_named(&other, PerPool::default()).await;
    let leases = [(&one.id, Pool::Core, 3), (&two.id, Pool::Core, 4), (&two.id, Pool::Premium, 5)];
    let leases = leases.map(|(id, pool, cost)| Charge { key: key(id, pool), cost });
    for lease in &leases {
        bench.store().take(lease).await.unwrap();
    }
    let elsewhere = LeaseKey { account: other.clone(), ..key(&of_other, Pool::Core) };
    bench.store().reserve(&reserve(&elsewhere, 9, 9)).await.unwrap();
    let stranded = async |account: &AccountId| {
        let PerPool { core, premium } = bench.store().account_usage(account).await.unwrap().stranded;
        (core.0, premium.0)
    };
    assert_eq!(stranded(&account_id()).await, (0, 0));
    bench.pass(SignedDuration::from_secs(30));
    // One on the way of a reserve, the others by a sweep: each counts alike.
    bench.take(&one.id, 1).await;
    bench.store().expire(&account_id()).await.unwrap();
    assert_eq!((stranded(&account_id()).await, stranded(&other).await), ((7, 5), (0, 0)));
    assert_eq!(bench.store().expire(&other).await.unwrap(), 1);
    assert_eq!((stranded(&account_id()).await, stranded(&other).await), ((7, 5), (9, 0)));
    for _ in 0..2 {
        bench.settle(&leases[1], 2).await;
        assert_eq!((stranded(&account_id()).await, stranded(&other).await), ((3, 5), (9, 0)));
    }
    // One that comes too late leaves it as it is.
    bench.pass(signed(days(1)));
    bench.settle(&leases[2], 1).await;
    assert_eq!(stranded(&account_id()).await, (3, 5));
}

/// The cells of the embedded store.
type Cells = TableDefinition<'static, (&'static str, &'static str, i64, &'static str), [u64; 3]>;

/// Spoils what is kept of a token's day behind the store's back: to read it is an error.
async fn spoil_day(bench: &mut Bench, id: &TokenId, day: &str) {
    if let Raw::Redis(server) = &bench.raw {
        let mut connection = connect(server).await;
        let cells = format!("tg:{{default}}:cells:{id}:{}", day.replace('-', ""));
        let _: i64 = ask(&mut connection, &["HSET", &cells, "06|core|read|MY/CARS", "many"]).await;
        return;
    }
    bench.store = None;
    {
        let database = Database::create(bench.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut cells = transaction.open_table(Cells::new("cells")).unwrap();
            let hour = time(&format!("{day}T06:00:00Z")).as_second();
            let account = account_id();
            cells.insert((account.as_str(), id.as_str(), hour, "garbage"), [1, 1, 1]).unwrap();
        }
        transaction.commit().unwrap();
    }
    bench.reopen(Some(sealer()));
}

async fn a_question_about_some_days_reads_no_others(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    for day in ["2026-11-20", "2026-11-21", "2026-11-22"] {
        let hour = time(&format!("{day}T06:00:00Z")).as_second();
        let taking = charge(&policy.id, Pool::Core, 1);
        bench.store().take(&taking).await.unwrap();
        let (dataset, operation) = ("MY/CARS".to_owned(), Operation::Read);
        let cells = vec![UsageCell { hour, dataset, operation, requests: 1, credits: 1, bytes: 1 }];
        bench.store().settle(&[Settlement { key: taking.key, spent: Credits(1), cells }]).await.unwrap();
    }
    spoil_day(&mut bench, &policy.id, "2026-11-20").await;
    spoil_day(&mut bench, &policy.id, "2026-11-22").await;
    for token in [Some(&policy.id), None] {
        let read = async |from: &str, to: &str| {
            let (from, to) = (time(&format!("{from}T00:00:00Z")), time(&format!("{to}T00:00:00Z")));
            bench.store().usage(&account_id(), token, from, to).await
        };
        assert_eq!(read("2026-11-21", "2026-11-22").await.unwrap().len(), 1);
        for (from, to) in [("2026-11-20", "2026-11-22"), ("2026-11-21", "2026-11-23")] {
            let error = read(from, to).await.unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        }
    }
}
