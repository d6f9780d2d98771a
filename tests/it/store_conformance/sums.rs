//! Sums of all tokens' usage are always its rows, added up; and many tokens are told of at once.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tollgate::policy::cost::MAX_CREDITS;
use tollgate::policy::{AccountId, Credits, Operation, PerPool, Pool, TokenId};
use tollgate::store::{
    Counted, Grain, Listed, RefusalCell, RefusedSum, Settlement, SumOf, UsageRow, UsageSums, UsedSum,
};

use super::bench::{Bench, account_id, key, new_id, new_lease, reserve, settlement, time};
use super::usage::{cell, spend};

super::on_both![
    sums_are_rows_added_up_for_every_stretch,
    usage_from_before_there_were_sums_is_in_them,
    sums_of_one_account_are_not_told_of_another,
    sums_are_forgotten_with_what_they_are_of,
    a_token_is_seen_when_it_is_charged_and_when_it_is_refused,
    a_token_that_was_charged_before_times_were_kept_was_seen_in_its_last_hour,
    many_tokens_are_told_of_at_once,
];

const GRAINS: [Grain; 4] = [Grain::Hour, Grain::Day, Grain::Dataset, Grain::Token];

fn added_up(rows: &[UsageRow], grain: Grain) -> UsageSums {
    let start = |hour: i64| if grain == Grain::Hour { hour } else { hour.div_euclid(86_400) * 86_400 };
    let mut used: BTreeMap<(SumOf, Pool), [u64; 3]> = BTreeMap::new();
    let mut refused: BTreeMap<(i64, String), u64> = BTreeMap::new();
    for row in rows {
        match row {
            UsageRow::Used { token, pool, cell } => {
                let of = match grain {
                    Grain::Hour | Grain::Day => {
                        SumOf::Time { start: start(cell.hour), operation: cell.operation }
                    }
                    Grain::Dataset => SumOf::Dataset(cell.dataset.clone()),
                    Grain::Token => SumOf::Token(token.clone()),
                };
                let sum = used.entry((of, *pool)).or_default();
                for (sum, more) in sum.iter_mut().zip([cell.requests, cell.credits, cell.bytes]) {
                    *sum = (*sum + more).min(MAX_CREDITS);
                }
            }
            UsageRow::Refused { hour, code, count, .. } => {
                *refused.entry((start(*hour), code.clone())).or_default() += count;
            }
        }
    }
    let used = used.into_iter().map(|((of, pool), [requests, credits, bytes])| UsedSum {
        of,
        pool,
        requests,
        credits,
        bytes,
    });
    let refused = refused.into_iter().map(|((start, code), count)| RefusedSum { start, code, count });
    UsageSums { used: used.collect(), refused: refused.collect() }
}

/// Holds the sums of a stretch against its rows.
pub async fn check(bench: &Bench, from: Timestamp, to: Timestamp) {
    check_of(bench, &account_id(), from, to).await;
}

async fn check_of(bench: &Bench, account: &AccountId, from: Timestamp, to: Timestamp) {
    let rows = bench.store().usage(account, None, from, to).await.unwrap();
    for grain in GRAINS {
        let sums = bench.store().usage_sums(account, grain, from, to).await.unwrap();
        assert_eq!(sums, added_up(&rows, grain), "{grain:?} from {from} to {to}");
    }
}

async fn refuse(bench: &Bench, token: Option<&TokenId>, hour: &str, code: &'static str, count: u64) {
    let cell = RefusalCell { token: token.cloned(), hour: time(hour).as_second(), code, count };
    bench.store().count_refusals(&account_id(), new_lease(), &[cell]).await.unwrap();
}

/// Usage and refusals in several months, at their edges too.
async fn busy(bench: &Bench) -> [TokenId; 2] {
    let ids = [bench.make_token(|_| ()).await.0.id, bench.make_token(|_| ()).await.0.id];
    let hours = [
        "2026-08-31T23:00:00Z",
        "2026-09-01T00:00:00Z",
        "2026-09-01T23:00:00Z",
        "2026-09-30T23:00:00Z",
        "2026-10-01T00:00:00Z",
        "2026-10-02T11:00:00Z",
        "2026-10-31T23:00:00Z",
        "2026-11-01T00:00:00Z",
        "2026-11-23T22:00:00Z",
        "2026-11-24T05:00:00Z",
        "2026-11-24T06:00:00Z",
    ];
    for (at, hour) in (1..).zip(hours) {
        for (id, pool, dataset, operation) in [
            (&ids[0], Pool::Core, "MY/CARS", Operation::Read),
            (&ids[0], Pool::Core, "MY/A|B/C D", Operation::Write),
            (&ids[1], Pool::Core, "MY/CARS", Operation::Read),
            (&ids[1], Pool::Premium, "", Operation::Delete),
        ] {
            spend(bench, id, pool, &[cell(hour, operation, dataset, at)]).await;
        }
        refuse(bench, Some(&ids[0]), hour, "no_route", at).await;
        refuse(bench, None, hour, "token_missing", 100 * at).await;
    }
    // Several days and hours with one settlement.
    let cells = hours.map(|hour| cell(hour, Operation::Read, "MY/CARS", 1000));
    spend(bench, &ids[0], Pool::Core, &cells).await;
    ids
}

async fn check_many(bench: &Bench) {
    let stretches = [
        ("2026-08-01T00:00:00Z", "2026-11-25T00:00:00Z"),
        ("2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z"),
        ("2026-09-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        // All but a day of a month; all but some hours of it.
        ("2026-09-02T00:00:00Z", "2026-10-31T00:00:00Z"),
        ("2026-09-01T01:00:00Z", "2026-09-30T23:00:00Z"),
        ("2026-10-01T00:00:00Z", "2026-10-03T00:00:00Z"),
        ("2026-10-02T11:00:00Z", "2026-10-02T12:00:00Z"),
        ("2026-10-02T12:00:00Z", "2026-11-23T22:00:00Z"),
        ("2026-11-24T05:00:00Z", "2026-11-24T06:00:00Z"),
        ("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"),
        ("2026-11-24T07:00:00Z", "2026-11-24T05:00:00Z"),
    ];
    for (from, to) in stretches {
        check(bench, time(from), time(to)).await;
    }
    check(bench, Timestamp::MIN, Timestamp::MAX).await;
}

async fn sums_are_rows_added_up_for_every_stretch(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    check_many(&bench).await;
    busy(&bench).await;
    let (min, max) = (Timestamp::MIN, Timestamp::MAX);
    let sums = bench.store().usage_sums(&account_id(), Grain::Token, min, max).await.unwrap();
    assert_eq!((sums.used.len(), sums.used[0].credits), (3, 11 * 1000 + 2 * 66), "{sums:?}");
    check_many(&bench).await;
}

async fn usage_from_before_there_were_sums_is_in_them(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    busy(&bench).await;
    bench.forget_sums().await;
    check_many(&bench).await;
    // More of the same months and days, and of a new day and a new month.
    busy(&bench).await;
    let (id, _) = bench.make_token(|_| ()).await;
    bench.set_time(time("2026-12-01T06:00:00Z"));
    for hour in ["2026-11-25T00:00:00Z", "2026-12-01T05:00:00Z"] {
        spend(&bench, &id.id, Pool::Core, &[cell(hour, Operation::Read, "MY/CARS", 7)]).await;
    }
    check_many(&bench).await;
    check(&bench, time("2026-11-24T00:00:00Z"), time("2026-12-02T00:00:00Z")).await;
    check(&bench, time("2026-11-01T00:00:00Z"), time("2027-01-01T00:00:00Z")).await;
}

async fn sums_of_one_account_are_not_told_of_another(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let other = AccountId::parse("default-2").unwrap();
    let (token, _) = bench.make_account_named(&other, PerPool::default()).await;
    let key = tollgate::store::LeaseKey { account: other.clone(), ..key(&token, Pool::Core) };
    bench.store().reserve(&reserve(&key, 3, 3)).await.unwrap();
    let cells = vec![cell("2026-11-24T06:00:00Z", Operation::Read, "MY/CARS", 3)];
    bench.store().settle(&[Settlement { key, spent: Credits(3), cells }]).await.unwrap();
    busy(&bench).await;
    check_many(&bench).await;
    check_of(&bench, &other, Timestamp::MIN, Timestamp::MAX).await;
    let (min, max) = (Timestamp::MIN, Timestamp::MAX);
    for grain in GRAINS {
        let sums = bench.store().usage_sums(&other, grain, min, max).await.unwrap();
        assert_eq!((sums.used.len(), sums.used[0].credits, sums.refused.len()), (1, 3, 0), "{grain:?}");
    }
}

async fn sums_are_forgotten_with_what_they_are_of(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    busy(&bench).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    // What is kept begins with the last of August 2026, then with September, then in the middle of October.
    for (now, months) in
        [("2027-10-05T12:00:00Z", 4), ("2027-10-06T12:00:00Z", 3), ("2027-11-30T12:00:00Z", 2)]
    {
        bench.set_time(time(now));
        for _ in 0..2 {
            check_many(&bench).await;
            let (min, max) = (Timestamp::MIN, Timestamp::MAX);
            let sums = bench.store().usage_sums(&account_id(), Grain::Day, min, max).await.unwrap();
            let starts = sums.used;
            let month = |sum: &UsedSum| match sum.of {
                SumOf::Time { start, .. } => {
                    Timestamp::from_second(start).unwrap().to_string()[..7].to_owned()
                }
                _ => panic!("{sum:?}"),
            };
            let told: std::collections::BTreeSet<_> = starts.iter().map(month).collect();
            assert_eq!(told.len(), months, "{now} {told:?}");
            // A write lets the embedded store sweep.
            bench.pass(SignedDuration::from_mins(61));
            spend(&bench, &policy.id, Pool::Core, &[]).await;
        }
    }
}

async fn counted(bench: &Bench, id: &TokenId) -> Counted {
    let one = bench.store().token_usage(&account_id(), id).await.unwrap();
    let many = bench.store().tokens_usage(&account_id(), std::slice::from_ref(id)).await.unwrap();
    assert_eq!(many, [one]);
    one
}

async fn seen(bench: &Bench, id: &TokenId) -> [Option<String>; 2] {
    let counted = counted(bench, id).await;
    [counted.last_used, counted.last_refused].map(|at| at.map(|at| at.to_string()))
}

async fn a_token_is_seen_when_it_is_charged_and_when_it_is_refused(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (other, _) = bench.make_token(|_| ()).await;
    let id = &policy.id;
    assert_eq!(seen(&bench, id).await, [None, None]);
    bench.set_time(time("2026-11-24T06:10:20.9Z"));
    // A lease that paid for nothing is no use.
    let (taking, _) = bench.take(id, 5).await;
    let (lost, _) = bench.take(id, 5).await;
    let nothing = Settlement { key: taking.key, spent: Credits(0), cells: Vec::new() };
    bench.store().settle(&[nothing]).await.unwrap();
    assert_eq!(seen(&bench, id).await, [None, None]);
    spend(&bench, id, Pool::Core, &[cell("2026-11-24T06:00:00Z", Operation::Read, "MY/CARS", 1)]).await;
    let used = Some("2026-11-24T06:10:20Z".to_owned());
    assert_eq!(seen(&bench, id).await, [used.clone(), None]);
    // What is counted late was in its hour.
    bench.set_time(time("2026-11-24T09:00:00Z"));
    refuse(&bench, Some(id), "2026-11-24T07:00:00Z", "no_route", 1).await;
    let refused = Some("2026-11-24T07:59:59Z".to_owned());
    assert_eq!(seen(&bench, id).await, [used.clone(), refused.clone()]);
    refuse(&bench, Some(id), "2026-11-24T06:00:00Z", "no_route", 1).await;
    refuse(&bench, None, "2026-11-24T09:00:00Z", "token_missing", 1).await;
    spend(&bench, id, Pool::Core, &[cell("2026-11-24T05:00:00Z", Operation::Read, "MY/CARS", 1)]).await;
    assert_eq!(seen(&bench, id).await, [used, refused.clone()]);
    // By either pool, at no cost, by a node whose clock is ahead.
    let free = cell("2026-11-24T10:00:00Z", Operation::Read, "MY/CARS", 0);
    spend(&bench, id, Pool::Premium, &[free]).await;
    assert_eq!(seen(&bench, id).await, [Some("2026-11-24T09:00:00Z".to_owned()), refused.clone()]);
    // A lease that is lost is not seen; what it paid for is, once that is known.
    bench.pass(SignedDuration::from_mins(1));
    bench.store().expire(&account_id()).await.unwrap();
    assert_eq!(seen(&bench, id).await, [Some("2026-11-24T09:00:00Z".to_owned()), refused.clone()]);
    let mut late = settlement(&lost, 5);
    late.cells[0].hour = time("2026-11-24T09:00:00Z").as_second();
    bench.store().settle(&[late]).await.unwrap();
    assert_eq!(seen(&bench, id).await, [Some("2026-11-24T09:01:00Z".to_owned()), refused]);
    assert_eq!(seen(&bench, &other.id).await, [None, None]);
    assert_eq!(bench.store().account_usage(&account_id()).await.unwrap().last_used, None);
}

async fn a_token_that_was_charged_before_times_were_kept_was_seen_in_its_last_hour(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let (idle, _) = bench.make_token(|_| ()).await;
    bench.set_time(time("2026-11-24T06:10:20Z"));
    spend(&bench, &policy.id, Pool::Premium, &[cell("2026-11-24T06:00:00Z", Operation::Read, "", 1)]).await;
    refuse(&bench, Some(&policy.id), "2026-11-24T06:00:00Z", "no_route", 1).await;
    bench.forget_sums().await;
    assert_eq!(seen(&bench, &policy.id).await, [Some("2026-11-24T06:00:00Z".to_owned()), None]);
    assert_eq!(seen(&bench, &idle.id).await, [None, None]);
    bench.set_time(time("2026-11-24T06:20:00Z"));
    spend(&bench, &policy.id, Pool::Core, &[cell("2026-11-24T06:00:00Z", Operation::Read, "", 1)]).await;
    assert_eq!(seen(&bench, &policy.id).await, [Some("2026-11-24T06:20:00Z".to_owned()), None]);
}

async fn many_tokens_are_told_of_at_once(mut bench: Bench) {
    let (first, _) = bench.make_account(PerPool::default()).await;
    let mut ids = vec![first];
    for at in 0..300_u64 {
        let (policy, _) = bench.make_token(|policy| policy.nickname = format!("token {at}")).await;
        ids.push(policy.id);
    }
    let hour = "2026-11-24T06:00:00Z";
    for (at, id) in (1..).zip(ids.iter().step_by(50)) {
        spend(&bench, id, Pool::Core, &[cell(hour, Operation::Read, "MY/CARS", at)]).await;
    }
    bench.spoil_token(&ids[7], |fields| drop(fields.insert("status".to_owned(), "sleepy".to_owned()))).await;
    ids.reverse();
    let mut asked = ids.clone();
    asked.insert(3, new_id());
    let listed = bench.store().get_tokens(&account_id(), &asked).await.unwrap();
    let id = |listed: &Listed| match listed {
        Listed::Token(token) => token.policy.id.clone(),
        Listed::Unreadable { id, .. } => id.clone(),
    };
    assert_eq!(listed.iter().map(id).collect::<Vec<_>>(), ids);
    let in_order = bench.store().list_tokens(&account_id(), None, 1000).await.unwrap();
    for (one, other) in in_order.iter().rev().zip(&listed) {
        match (one, other) {
            (Listed::Token(one), Listed::Token(other)) => assert_eq!(one.policy, other.policy),
            (Listed::Unreadable { id, why }, Listed::Unreadable { why: same, .. }) => {
                assert_eq!((id, why), (&ids[ids.len() - 8], same));
            }
            other => panic!("{other:?}"),
        }
    }
    let in_order: Vec<_> = in_order.iter().map(id).collect();
    for (skip, limit) in [(0, 1000), (0, 10), (290, 10), (295, 10), (301, 10), (usize::MAX, 10), (3, 0)] {
        let (total, listed) = bench.store().list_tokens_behind(&account_id(), skip, limit).await.unwrap();
        let expected: Vec<_> = in_order.iter().skip(skip).take(limit).cloned().collect();
        assert_eq!((total, listed.iter().map(id).collect::<Vec<_>>()), (301, expected), "{skip} {limit}");
    }
    let counted = bench.store().tokens_usage(&account_id(), &asked).await.unwrap();
    assert_eq!(counted.len(), asked.len());
    for (id, counted) in asked.iter().zip(counted) {
        assert_eq!(counted, bench.store().token_usage(&account_id(), id).await.unwrap());
    }
    assert!(bench.store().get_tokens(&account_id(), &[]).await.unwrap().is_empty());
    assert!(bench.store().tokens_usage(&account_id(), &[]).await.unwrap().is_empty());
    let other = AccountId::parse("default-2").unwrap();
    assert!(bench.store().get_tokens(&other, &asked).await.unwrap().is_empty());
    assert!(bench.store().list_tokens_behind(&other, 0, 10).await.unwrap().1.is_empty());
}
