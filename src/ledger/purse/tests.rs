use super::*;

const SECOND: Micros = 1_000_000;
const FAR: Micros = 1_000 * SECOND;

fn name(number: u128) -> Ulid {
    Ulid(number)
}

/// Draws one credit a millisecond from `from` on and answers each wish with what it wants. Returns what was wished for.
fn spend_evenly(purse: &mut Purse, from: Micros, millis: u64, every: Micros) -> Vec<u64> {
    let mut wants = Vec::new();
    for now in (0..millis).map(|at| from + at * every) {
        let short = match purse.draw(1, now) {
            Draw::Taken(lease) => {
                purse.spend(lease, 1);
                None
            }
            Draw::Short => Some(1),
        };
        if let Some(Wish::Reserve { want, .. }) = purse.wish_more(short, now) {
            wants.push(want);
            purse.granted(name(u128::from(now)), want, FAR, FAR);
        }
        for wish in purse.wishes(now, false) {
            if let Wish::Settle { lease, .. } = wish {
                purse.settled(lease);
            }
        }
    }
    wants
}

#[test]
fn lease_size_finds_one_second_of_spending_within_a_few_leases() {
    let mut purse = Purse::default();
    let wants = spend_evenly(&mut purse, SECOND, 10_000, 1_000);
    assert!(wants.len() <= 16, "{wants:?}");
    assert!(wants.iter().skip(5).all(|want| (700..=1_400).contains(want)), "{wants:?}");
}

#[test]
fn lease_size_falls_with_the_traffic() {
    let mut purse = Purse::default();
    spend_evenly(&mut purse, SECOND, 5_000, 1_000);
    // An hour later, one request a second.
    for wish in purse.wishes(3_600 * SECOND, false) {
        if let Wish::Settle { lease, .. } = wish {
            purse.settled(lease);
        }
    }
    let wants = spend_evenly(&mut purse, 3_600 * SECOND, 20, SECOND);
    assert!(wants.iter().all(|want| *want == HANDFUL), "{wants:?}");
}

#[test]
fn nothing_is_asked_for_ahead_right_after_a_refusal_or_a_recall() {
    for recalled in [false, true] {
        let mut purse = Purse::default();
        spend_evenly(&mut purse, SECOND, 3_000, 1_000);
        let now = 4 * SECOND;
        let left = purse.left();
        assert!(left > 0);
        if recalled {
            purse.recall();
        } else {
            for _ in 0..left {
                purse.draw(1, now);
                if purse.wish_more(None, now).is_some() {
                    purse.refused();
                    break;
                }
            }
        }
        purse.draw(1, now + 1);
        assert_eq!(purse.wish_more(None, now + 1), None, "recalled: {recalled}");
        // Whoever waits may ask at any time.
        let mut waiting = purse.clone();
        assert!(waiting.wish_more(Some(1), now + 1).is_some(), "recalled: {recalled}");
        let later = now + 1 + HOLD_BACK;
        purse.draw(1, later);
        purse.rate = 10_000;
        assert!(purse.wish_more(None, later).is_some(), "recalled: {recalled}");
    }
}

#[test]
fn ahead_it_asks_for_what_a_request_costs_at_least() {
    let mut purse = Purse { rate: 100, ..Purse::default() };
    purse.granted(name(1), 10, FAR, FAR);
    purse.draw(7, SECOND);
    assert!(matches!(purse.wish_more(None, SECOND), Some(Wish::Reserve { need: 7, .. })));
}

#[test]
fn a_rest_too_small_for_a_request_goes_back_once_another_lease_serves() {
    let mut purse = Purse::default();
    purse.granted(name(1), 3, FAR, FAR);
    assert_eq!(purse.draw(5, 1), Draw::Short);
    assert!(purse.wishes(1, false).is_empty(), "it may yet serve a smaller request");
    purse.granted(name(2), 10, FAR, FAR);
    assert_eq!(purse.draw(5, 2), Draw::Taken(name(2)));
    assert_eq!(purse.wishes(2, false), [Wish::Settle { lease: name(1), spent: 0 }]);
}

#[test]
fn open_is_what_the_store_counts_as_leased() {
    let mut purse = Purse::default();
    purse.granted(name(1), 10, FAR, FAR);
    purse.draw(4, 1);
    purse.draw(1, 1);
    purse.spend(name(1), 4);
    assert_eq!(purse.open(), 10);
    purse.recall();
    assert_eq!(purse.wishes(2, false), [Wish::Shrink { lease: name(1), keep: 5 }]);
    assert_eq!(purse.open(), 10, "until the store has heard of it");
    purse.shrunk(name(1), 5);
    assert_eq!(purse.open(), 5);
    assert!(purse.wishes(3, false).is_empty());
    purse.give_back(name(1), 1);
    assert_eq!(purse.wishes(4, false), [Wish::Settle { lease: name(1), spent: 4 }]);
}

#[test]
fn a_lease_that_is_over_or_leaving_is_not_drawn_from() {
    let mut purse = Purse::default();
    purse.granted(name(1), 10, 5, FAR);
    assert_eq!(purse.draw(1, 4), Draw::Taken(name(1)));
    assert_eq!(purse.draw(1, 5), Draw::Short);
    purse.granted(name(2), 10, FAR, FAR);
    purse.recall();
    assert_eq!(purse.draw(1, 6), Draw::Short);
    assert_eq!(purse.draw(0, 6), Draw::Short);
}

#[test]
fn a_failed_call_is_wished_for_again() {
    let mut purse = Purse::default();
    purse.granted(name(1), 10, FAR, 20 * SECOND);
    purse.draw(1, 10 * SECOND);
    for _ in 0..2 {
        assert_eq!(purse.wishes(10 * SECOND, false), [Wish::Renew { lease: name(1) }]);
        assert!(purse.wishes(10 * SECOND, false).is_empty(), "each wish is given out once");
        purse.failed(name(1));
    }
    assert_eq!(purse.wishes(10 * SECOND, false), [Wish::Renew { lease: name(1) }]);
    purse.renewed(name(1), None);
    assert_eq!(purse.draw(1, 10 * SECOND), Draw::Short, "the store closed it");
    purse.give_back(name(1), 1);
    assert_eq!(purse.wishes(10 * SECOND, false), [Wish::Settle { lease: name(1), spent: 0 }]);
    purse.settled(name(1));
    assert!(purse.is_empty());
}

#[test]
fn what_lies_idle_stays_in_hand_while_the_store_is_out_of_reach() {
    let mut purse = Purse::default();
    purse.granted(name(1), 5, 3_600 * SECOND, 30 * SECOND);
    // Past its idle time and its life it is renewed, when that can be, and nothing else.
    assert_eq!(purse.wishes(100 * SECOND, true), [Wish::Renew { lease: name(1) }]);
    assert_eq!(purse.draw(1, 100 * SECOND), Draw::Taken(name(1)));
    purse.spend(name(1), 1);
    purse.failed(name(1));
    assert_eq!(purse.wishes(200 * SECOND, false), [Wish::Settle { lease: name(1), spent: 1 }]);
}

#[test]
fn a_growing_response_draws_what_there_is_and_keeps_its_lease_open() {
    let mut purse = Purse::default();
    let lease = Ulid::from(1_u128);
    assert!(matches!(purse.wish_more(Some(5), 0), Some(Wish::Reserve { .. })));
    purse.granted(lease, 5, 1_000, 60_000_000);
    assert_eq!(purse.draw_part(3, 1), Some((lease, 3, 1_000)));
    assert_eq!(purse.draw_part(9, 2), Some((lease, 2, 1_000)), "what there is");
    assert_eq!(purse.draw_part(1, 3), None);
    purse.spend_part(lease, 4);
    purse.release(lease, 1);
    assert_eq!(purse.left(), 1);
    assert_eq!(purse.draw_part(1, 1_000), None, "its time is over");
    purse.recall();
    assert_eq!(purse.wishes(4, false), [Wish::Shrink { lease, keep: 4 }], "two still hold it open");
    purse.shrunk(lease, 4);
    purse.give_back(lease, 0);
    assert_eq!(purse.wishes(5, false), []);
    purse.give_back(lease, 0);
    assert_eq!(purse.wishes(6, false), [Wish::Settle { lease, spent: 4 }]);
}

#[test]
fn what_was_overspent_is_settled_and_nothing_more_is_drawn_from_it() {
    let mut purse = Purse::default();
    let lease = Ulid::from(1_u128);
    assert!(purse.wish_more(Some(5), 0).is_some());
    purse.granted(lease, 5, 1_000, 60_000_000);
    assert_eq!(purse.draw_part(2, 1), Some((lease, 2, 1_000)));
    purse.spend_part(lease, 2);
    purse.overspend(lease, 7);
    assert_eq!((purse.draw(1, 2), purse.draw_part(1, 2), purse.left()), (Draw::Short, None, 0));
    purse.give_back(lease, 0);
    assert_eq!(purse.wishes(3, false), [Wish::Settle { lease, spent: 9 }]);
}

#[test]
fn what_was_held_for_a_debt_is_not_given_to_anybody_else() {
    let (mut purse, lease) = (Purse::default(), Ulid::from(1_u128));
    purse.granted(lease, 9, 1_000, 60_000_000);
    assert_eq!(purse.draw_part(7, 1), Some((lease, 7, 1_000)));
    purse.forfeit(lease, 7);
    assert_eq!((purse.draw_part(1, 2), purse.left()), (None, 0));
    assert_eq!(purse.wishes(3, false), [Wish::Settle { lease, spent: 0 }]);
}
