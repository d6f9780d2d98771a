use proptest::prelude::*;

use super::*;
use crate::ledger::{period_start};
use crate::policy::Period;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[allow(clippy::unnecessary_wraps, reason = "terms hold limits as options")]
fn limit(text: &str) -> Option<Limit> {
    Some(Limit::parse(text).unwrap())
}

#[test]
fn periods_follow_the_calendar_in_utc() {
    // (period, now, start, end)
    let table = [
        (Period::Hour, "2026-11-24T07:59:59.9Z", "2026-11-24T07:00:00Z", Some("2026-11-24T08:00:00Z")),
        (Period::Day, "2026-11-24T00:00:00Z", "2026-11-24T00:00:00Z", Some("2026-11-25T00:00:00Z")),
        (Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", Some("2027-01-01T00:00:00Z")),
        (Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", Some("2028-03-01T00:00:00Z")),
        (Period::Month, "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", Some("2026-04-01T00:00:00Z")),
        (Period::None, "2026-03-01T00:00:00Z", "1970-01-01T00:00:00Z", None),
    ];
    for (period, now, start, end) in table {
        assert_eq!(period_start(period, at(now)), at(start), "{period:?} {now}");
        assert_eq!(period_end(period, at(now)), end.map(at), "{period:?} {now}");
    }
}

#[test]
fn the_last_credit_passes_and_the_next_does_not_until_the_period_ends() {
    let terms = Terms { limit: limit("2/day"), ..Terms::default() };
    let mut books = Books::default();
    let evening = at("2026-11-24T23:59:50Z");
    assert!(matches!(take(&mut books, &terms, Credits(1), evening), Taken::Granted(_)));
    let Taken::Granted(standing) = take(&mut books, &terms, Credits(1), evening) else { panic!() };
    assert_eq!((standing.used, standing.remaining), (Credits(2), Some(Credits(0))));
    let refused = take(&mut books, &terms, Credits(1), evening);
    assert_eq!(refused, Taken::CreditsExhausted { retry_after: Some(Duration::from_secs(10)) });
    let Taken::Granted(standing) = take(&mut books, &terms, Credits(1), at("2026-11-25T00:00:00Z")) else {
        panic!()
    };
    assert_eq!((standing.used, standing.remaining), (Credits(1), Some(Credits(1))));
}

#[test]
fn a_budget_refusal_takes_nothing_from_the_token() {
    let terms = Terms { limit: limit("10/day"), budget: limit("1"), rate: None };
    let mut books = Books::default();
    let now = at("2026-11-24T12:00:00Z");
    assert!(matches!(take(&mut books, &terms, Credits(1), now), Taken::Granted(_)));
    let before = books;
    assert_eq!(take(&mut books, &terms, Credits(1), now), Taken::BudgetExhausted { retry_after: None });
    assert_eq!(books, before);
}

#[test]
fn a_throttled_request_takes_no_credit_and_an_unpaid_one_no_pace() {
    let rate = RateLimit { requests_per_second: 1, burst: 1 };
    let terms = Terms { limit: limit("1/day"), budget: None, rate: Some(rate) };
    let mut books = Books::default();
    let now = at("2026-11-24T12:00:00Z");
    assert!(matches!(take(&mut books, &terms, Credits(1), now), Taken::Granted(_)));
    assert!(matches!(take(&mut books, &terms, Credits(1), now), Taken::RateLimited { .. }));
    let later = at("2026-11-24T12:00:01Z");
    assert!(matches!(take(&mut books, &terms, Credits(1), later), Taken::CreditsExhausted { .. }));
    assert!(matches!(take(&mut books, &terms, Credits(0), later), Taken::Granted(_)));
}

#[test]
fn a_lowered_limit_refuses_at_once_and_a_raised_one_admits_at_once() {
    let mut books = Books::default();
    let now = at("2026-11-24T12:00:00Z");
    let ten = Terms { limit: limit("10/month"), ..Terms::default() };
    for _ in 0..5 {
        assert!(matches!(take(&mut books, &ten, Credits(1), now), Taken::Granted(_)));
    }
    let three = Terms { limit: limit("3/day"), ..Terms::default() };
    assert!(matches!(take(&mut books, &three, Credits(1), now), Taken::CreditsExhausted { .. }));
    assert!(matches!(take(&mut books, &three, Credits(0), now), Taken::Granted(_)));
    let six = Terms { limit: limit("6/day"), ..Terms::default() };
    assert!(matches!(take(&mut books, &six, Credits(1), now), Taken::Granted(_)));
    assert!(matches!(take(&mut books, &six, Credits(1), now), Taken::CreditsExhausted { .. }));
}

proptest! {
    #[test]
    fn never_over_the_limit_whatever_is_taken_and_given_back(
        steps in prop::collection::vec((0u64..4, 0i64..4_000, any::<bool>()), 1..200),
        limit in 0u64..40, budget in 0u64..40
    ) {
        let terms = Terms {
            limit: Some(Limit { credits: Credits(limit), period: Period::Hour }),
            budget: Some(Limit { credits: Credits(budget), period: Period::Hour }),
            rate: None,
        };
        let mut books = Books::default();
        let mut now = at("2026-11-24T12:00:00Z");
        // What was delivered in the current hour, kept by hand.
        let mut delivered = 0;
        for (cost, gap, fails) in steps {
            let before = period_start(Period::Hour, now);
            now = now.checked_add(jiff::SignedDuration::from_secs(gap)).unwrap();
            if period_start(Period::Hour, now) != before {
                delivered = 0;
            }
            if let Taken::Granted(standing) = take(&mut books, &terms, Credits(cost), now) {
                prop_assert!(cost == 0 || standing.used.0 <= limit.min(budget));
                if fails {
                    books.token.give_back(Credits(cost), now);
                    books.account.give_back(Credits(cost), now);
                } else {
                    delivered += cost;
                }
            } else {
                prop_assert!(delivered + cost > limit.min(budget), "refused with credits left");
            }
            prop_assert_eq!(books.token.used(Period::Hour, now).0, delivered);
        }
    }
}
