//! Usage and refusals: by hour, in order, only those asked for, for as long as they are kept.

use jiff::{SignedDuration, Timestamp};
use tollgate::policy::{Credits, Operation, PerPool, Pool, TokenId};
use tollgate::store::{RefusalCell, Settlement, UsageCell, UsageRow};

use super::bench::{Bench, Takes as _, account_id, charge, key, new_lease, time};

super::on_both![
    rows_are_by_hour_and_in_order,
    hours_are_told_from_the_first_to_before_the_last,
    usage_of_one_settlement_counts_with_it_or_not_at_all,
    usage_is_forgotten_when_its_day_is_long_over,
    refusals_of_nobody_are_told_for_the_account_only,
    usage_of_one_account_is_not_told_of_another,
    the_largest_numbers_of_usage_are_counted,
];

pub fn cell(hour: &str, operation: Operation, dataset: &str, credits: u64) -> UsageCell {
    let (hour, dataset) = (time(hour).as_second(), dataset.to_owned());
    UsageCell { hour, dataset, operation, requests: 1, credits, bytes: 100 * credits }
}

pub async fn spend(bench: &Bench, id: &TokenId, pool: Pool, cells: &[UsageCell]) {
    let spent = cells.iter().map(|cell| cell.credits).sum();
    let taking = charge(id, pool, spent);
    bench.store().take(&taking).await.unwrap();
    let settlement = Settlement { key: taking.key, spent: Credits(spent), cells: cells.to_vec() };
    for _ in 0..2 {
        bench.store().settle(std::slice::from_ref(&settlement)).await.unwrap();
    }
}

async fn rows(bench: &Bench, token: Option<&TokenId>, from: &str, to: &str) -> Vec<UsageRow> {
    bench.store().usage(&account_id(), token, time(from), time(to)).await.unwrap()
}

async fn all(bench: &Bench) -> Vec<UsageRow> {
    let rows = bench.store().usage(&account_id(), None, Timestamp::MIN, Timestamp::MAX).await.unwrap();
    super::sums::check(bench, Timestamp::MIN, Timestamp::MAX).await;
    rows
}

async fn rows_are_by_hour_and_in_order(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (one, _) = bench.make_token(|_| ()).await;
    let (two, _) = bench.make_token(|_| ()).await;
    let (five, six) = ("2026-11-24T05:00:00Z", "2026-11-24T06:00:00Z");
    spend(
        &bench,
        &two.id,
        Pool::Core,
        &[
            cell(six, Operation::Write, "MY/CARS", 1),
            cell(five, Operation::Read, "MY/CARS", 2),
            cell(six, Operation::Write, "MY/CARS", 3),
        ],
    )
    .await;
    spend(&bench, &one.id, Pool::Premium, &[cell(six, Operation::Read, "", 4)]).await;
    spend(&bench, &one.id, Pool::Core, &[cell(six, Operation::Read, "MY/A|B/C D", 5)]).await;
    spend(&bench, &one.id, Pool::Core, &[cell("2026-11-23T23:00:00Z", Operation::Delete, "MY/CARS", 6)])
        .await;
    let hour = time(six).as_second();
    let refusal = |code| RefusalCell { token: Some(one.id.clone()), hour, code, count: 7 };
    let refusals = [refusal("rate_limited"), refusal("domain_denied"), refusal("rate_limited")];
    bench.store().count_refusals(&account_id(), new_lease(), &refusals).await.unwrap();
    let used = |token: &TokenId, pool, cell| UsageRow::Used { token: token.clone(), pool, cell };
    let twice = UsageCell { requests: 2, ..cell(six, Operation::Write, "MY/CARS", 4) };
    let refused = |code: &str, count| {
        let (token, code) = (Some(one.id.clone()), code.to_owned());
        UsageRow::Refused { token, hour, code, count }
    };
    let expected = [
        used(&one.id, Pool::Core, cell("2026-11-23T23:00:00Z", Operation::Delete, "MY/CARS", 6)),
        used(&two.id, Pool::Core, cell(five, Operation::Read, "MY/CARS", 2)),
        used(&one.id, Pool::Core, cell(six, Operation::Read, "MY/A|B/C D", 5)),
        used(&one.id, Pool::Premium, cell(six, Operation::Read, "", 4)),
        used(&two.id, Pool::Core, twice),
        refused("domain_denied", 7),
        refused("rate_limited", 14),
    ];
    assert_eq!(all(&bench).await, expected);
    let of_one: Vec<_> = [0, 2, 3, 5, 6].map(|at: usize| expected[at].clone()).to_vec();
    let told = rows(&bench, Some(&one.id), "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z").await;
    assert_eq!(told, of_one);
    // Of each token, the cells' credits are what is used for good.
    for (id, expected) in [(&one.id, 11), (&two.id, 6)] {
        assert_eq!(bench.used(id).await, expected);
    }
}

async fn hours_are_told_from_the_first_to_before_the_last(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let hours =
        ["2026-11-23T22:00:00Z", "2026-11-23T23:00:00Z", "2026-11-24T00:00:00Z", "2026-11-24T01:00:00Z"];
    for hour in hours {
        spend(&bench, &policy.id, Pool::Core, &[cell(hour, Operation::Read, "MY/CARS", 1)]).await;
    }
    let told = async |from, to| {
        let rows = rows(&bench, Some(&policy.id), from, to).await;
        let hour = |row: &UsageRow| match row {
            UsageRow::Used { cell, .. } => Timestamp::from_second(cell.hour).unwrap().to_string(),
            UsageRow::Refused { .. } => panic!("{row:?}"),
        };
        rows.iter().map(hour).collect::<Vec<_>>()
    };
    assert_eq!(told(hours[0], "2026-11-24T02:00:00Z").await, hours);
    assert_eq!(told(hours[1], hours[3]).await, hours[1..3]);
    assert_eq!(told("2026-11-23T22:00:00.001Z", "2026-11-24T00:00:00.001Z").await, hours[1..3]);
    for (from, to) in
        [(hours[2], hours[2]), (hours[3], hours[0]), ("2026-11-24T02:00:00Z", "2030-01-01T00:00:00Z")]
    {
        assert_eq!(told(from, to).await, [""; 0], "{from} {to}");
    }
}

async fn usage_of_one_settlement_counts_with_it_or_not_at_all(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let cells = vec![cell("2026-11-24T06:00:00Z", Operation::Read, "MY/CARS", 3)];
    let settle = async |key| {
        let settlement = Settlement { key, spent: Credits(3), cells: cells.clone() };
        bench.store().settle(&[settlement]).await.unwrap();
    };
    // Of a lease that was never granted; of one of another pool; of one that is closed.
    settle(key(&policy.id, Pool::Core)).await;
    let (taking, _) = bench.take(&policy.id, 3).await;
    let stranger = tollgate::store::LeaseKey { pool: Pool::Premium, ..taking.key.clone() };
    settle(stranger).await;
    assert!(all(&bench).await.is_empty());
    bench
        .store()
        .settle(&[Settlement { key: taking.key.clone(), spent: Credits(0), cells: Vec::new() }])
        .await
        .unwrap();
    settle(taking.key).await;
    assert!(all(&bench).await.is_empty());
    // Of one that is stranded it counts.
    let (stranded, _) = bench.take(&policy.id, 5).await;
    bench.pass(SignedDuration::from_mins(1));
    assert_eq!(bench.store().expire(&account_id()).await.unwrap(), 1);
    settle(stranded.key).await;
    assert_eq!((all(&bench).await.len(), bench.used(&policy.id).await), (1, 3));
}

async fn usage_is_forgotten_when_its_day_is_long_over(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    for hour in ["2026-11-23T23:00:00Z", "2026-11-24T00:00:00Z"] {
        spend(&bench, &policy.id, Pool::Core, &[cell(hour, Operation::Read, "MY/CARS", 1)]).await;
        let refusal = RefusalCell { token: None, hour: time(hour).as_second(), code: "no_token", count: 1 };
        bench.store().count_refusals(&account_id(), new_lease(), &[refusal]).await.unwrap();
    }
    // 400 days after the end of the 23rd.
    let end = time("2026-11-24T00:00:00Z").checked_add(SignedDuration::from_hours(400 * 24)).unwrap();
    bench.set_time(end.checked_sub(SignedDuration::from_micros(1)).unwrap());
    assert_eq!(all(&bench).await.len(), 4);
    bench.set_time(end);
    assert_eq!(all(&bench).await.len(), 2);
    // Where a sweep has been, too.
    for hours in [2, 24] {
        bench.pass(SignedDuration::from_hours(hours));
        spend(&bench, &policy.id, Pool::Core, &[]).await;
        assert_eq!(all(&bench).await.len(), if hours == 2 { 2 } else { 0 });
    }
    assert_eq!(bench.used(&policy.id).await, 0, "the month is another");
}

async fn refusals_of_nobody_are_told_for_the_account_only(bench: Bench) {
    let (first, _) = bench.make_account(PerPool::default()).await;
    let hour = time("2026-11-24T06:00:00Z").as_second();
    let refusal =
        |token: Option<&TokenId>, count| RefusalCell { token: token.cloned(), hour, code: "no_token", count };
    let store = bench.store();
    store
        .count_refusals(&account_id(), new_lease(), &[refusal(None, 2), refusal(Some(&first), 3)])
        .await
        .unwrap();
    store.count_refusals(&account_id(), new_lease(), &[refusal(None, 4)]).await.unwrap();
    store.count_refusals(&account_id(), new_lease(), &[]).await.unwrap();
    let row = |token: Option<&TokenId>, count| {
        let (token, code) = (token.cloned(), "no_token".to_owned());
        UsageRow::Refused { token, hour, code, count }
    };
    assert_eq!(all(&bench).await, [row(None, 6), row(Some(&first), 3)]);
    let of_first = store.usage(&account_id(), Some(&first), Timestamp::MIN, Timestamp::MAX).await.unwrap();
    assert_eq!(of_first, [row(Some(&first), 3)]);
}

async fn usage_of_one_account_is_not_told_of_another(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let other = tollgate::policy::AccountId::parse("default-2").unwrap();
    let (token, _) = bench.make_account_named(&other, PerPool::default()).await;
    let key = tollgate::store::LeaseKey { account: other.clone(), ..key(&token, Pool::Core) };
    bench.store().reserve(&super::bench::reserve(&key, 3, 3)).await.unwrap();
    let cells = vec![cell("2026-11-24T06:00:00Z", Operation::Read, "MY/CARS", 3)];
    bench.store().settle(&[Settlement { key, spent: Credits(3), cells }]).await.unwrap();
    let (min, max) = (Timestamp::MIN, Timestamp::MAX);
    assert!(all(&bench).await.is_empty());
    assert!(bench.store().usage(&account_id(), Some(&token), min, max).await.unwrap().is_empty());
    assert_eq!(bench.store().usage(&other, None, min, max).await.unwrap().len(), 1);
    assert_eq!(bench.store().usage(&other, Some(&token), min, max).await.unwrap().len(), 1);
}

async fn the_largest_numbers_of_usage_are_counted(bench: Bench) {
    const MOST: u64 = tollgate::policy::cost::MAX_CREDITS;
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let hour = time("2026-11-24T06:00:00Z").as_second();
    let (dataset, operation) = ("MY/CARS".to_owned(), Operation::Read);
    let largest = UsageCell { hour, dataset, operation, requests: 1, credits: MOST - 1, bytes: MOST };
    for credits in [MOST - 1, 1] {
        let (taking, _) = bench.take(&policy.id, credits).await;
        let cells = vec![UsageCell { credits, ..largest.clone() }];
        bench
            .store()
            .settle(&[Settlement { key: taking.key, spent: Credits(credits), cells }])
            .await
            .unwrap();
    }
    let expected = UsageCell { requests: 2, credits: MOST, ..largest };
    assert_eq!(
        all(&bench).await,
        [UsageRow::Used { token: policy.id.clone(), pool: Pool::Core, cell: expected }]
    );
    assert_eq!(bench.used(&policy.id).await, MOST);
}
