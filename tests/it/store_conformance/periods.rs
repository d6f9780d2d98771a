//! Calendar periods at their boundaries: month ends, leap years, year ends.

use std::time::Duration;

use jiff::SignedDuration;
use tollgate::ledger::lease::Reserved;
use tollgate::policy::{Credits, PerPool};

use super::bench::{Bench, account_id, limit, time};

super::on_both![limits_start_anew_with_their_period, a_clock_that_steps_back_brings_no_credits_back];

/// A period, a moment in it, and when the next one begins.
const BOUNDARIES: &[(&str, &str, &str)] = &[
    ("hour", "2026-11-24T06:00:00Z", "2026-11-24T07:00:00Z"),
    ("hour", "2026-12-31T23:59:59.999999Z", "2027-01-01T00:00:00Z"),
    ("day", "2026-11-24T23:59:59Z", "2026-11-25T00:00:00Z"),
    ("day", "2024-02-28T12:00:00Z", "2024-02-29T00:00:00Z"),
    ("day", "2024-02-29T12:00:00Z", "2024-03-01T00:00:00Z"),
    ("day", "2023-02-28T12:00:00Z", "2023-03-01T00:00:00Z"),
    ("day", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
    ("month", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
    ("month", "2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z"),
    ("month", "2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z"),
    ("month", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
    ("month", "2024-02-29T23:59:59.5Z", "2024-03-01T00:00:00Z"),
    ("month", "2000-02-29T01:00:00Z", "2000-03-01T00:00:00Z"),
    ("month", "2100-02-28T01:00:00Z", "2100-03-01T00:00:00Z"),
    ("month", "2026-03-31T00:00:00Z", "2026-04-01T00:00:00Z"),
    ("month", "2026-04-30T23:00:00Z", "2026-05-01T00:00:00Z"),
    ("month", "2026-05-31T23:00:00Z", "2026-06-01T00:00:00Z"),
    ("month", "2026-06-30T23:00:00Z", "2026-07-01T00:00:00Z"),
    ("month", "2026-07-31T23:00:00Z", "2026-08-01T00:00:00Z"),
    ("month", "2026-08-31T23:00:00Z", "2026-09-01T00:00:00Z"),
    ("month", "2026-09-30T23:00:00Z", "2026-10-01T00:00:00Z"),
    ("month", "2026-10-31T23:00:00Z", "2026-11-01T00:00:00Z"),
    ("month", "2026-11-30T23:00:00Z", "2026-12-01T00:00:00Z"),
    ("month", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
    ("month", "1999-12-31T23:59:59Z", "2000-01-01T00:00:00Z"),
    ("month", "1970-01-01T00:00:01Z", "1970-02-01T00:00:00Z"),
    ("month", "2199-12-31T23:59:59.999999Z", "2200-01-01T00:00:00Z"),
];

/// When a refusal says that there are new credits.
fn told(refused: Reserved) -> Option<Duration> {
    match refused {
        Reserved::CreditsExhausted { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    }
}

async fn limits_start_anew_with_their_period(bench: Bench) {
    for (period, within, next) in BOUNDARIES {
        // A store of its own for each: books that are in a later hour do not go back to an earlier one.
        let bench = bench.fresh();
        bench.make_account(PerPool::default()).await;
        let (policy, _) =
            bench.make_token(|policy| policy.credit_limit.core = limit(&format!("2/{period}"))).await;
        let (within, next) = (time(within), time(next));
        bench.set_time(within);
        let Reserved::Granted(standing) = bench.take(&policy.id, 2).await.1 else {
            panic!("{period} {within}")
        };
        let left = next.duration_since(within);
        let rounded = left.as_secs().cast_unsigned() + u64::from(left.subsec_nanos() > 0);
        let resets_in = Some(Duration::from_secs(rounded));
        assert_eq!(standing.resets_in, resets_in, "{period} {within}");
        let refused = bench.take(&policy.id, 1).await.1;
        assert_eq!(told(refused), resets_in, "{period} {within}");
        bench.set_time(next.checked_sub(SignedDuration::from_micros(1)).unwrap());
        let refused = bench.take(&policy.id, 1).await.1;
        assert_eq!(told(refused), Some(Duration::from_secs(1)), "{period} {within}");
        bench.set_time(next);
        let Reserved::Granted(standing) = bench.take(&policy.id, 1).await.1 else {
            panic!("{period} {next}")
        };
        assert_eq!((standing.leased, standing.free), (Credits(1), Some(Credits(1))), "{period} {next}");
    }
}

async fn a_clock_that_steps_back_brings_no_credits_back(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|policy| policy.credit_limit.core = limit("2/hour")).await;
    bench.set_time(time("2026-11-24T07:00:00Z"));
    bench.take(&policy.id, 2).await;
    bench.set_time(time("2026-11-24T06:59:59Z"));
    assert!(matches!(bench.take(&policy.id, 1).await.1, Reserved::CreditsExhausted { .. }));
    let tollgate::store::Counted { counters, at: now, .. } =
        bench.store().token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counters.core.committed(tollgate::policy::Period::Hour, now), Credits(2));
}
