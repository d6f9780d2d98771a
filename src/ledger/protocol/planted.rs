//! Planted bugs: each takes one guard of the protocol away, and the checker must find what it guards against.

use super::{Rules, check};

/// A guard that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A settle that is said twice counts twice.
    SettleCountsAgain,
    /// What a lease spent is added twice.
    SettleAddsTwice,
    /// What a lease spent is not counted for the account.
    SettleMissesAccount,
    /// A lease is deleted when it is settled, so a late reserve makes it anew.
    SettledIsForgotten,
    /// A settle of a lease that is not there leaves no mark, so a late reserve makes it after all.
    NoTombstone,
    /// A reserve that is said twice leases twice.
    ReserveIgnoresId,
    /// Only the token's limit counts.
    ReserveIgnoresBudget,
    /// Only what is used counts, not what is leased.
    ReserveIgnoresLeased,
    /// Credits in other nodes' hands count as spent.
    RefusesWithoutRecall,
    /// A recall reaches nobody.
    RecallIsNotHeard,
    /// A shrink keeps what is spent and gives back what flies.
    ShrinksBelowFlying,
    /// A lease is settled while requests are in flight on it.
    SettlesWhatFlies,
    /// An expiry does not say what is stranded.
    ExpireForgetsStranded,
    /// An expired lease is deleted: its node cannot say what was spent.
    ExpireForgetsLease,
    /// An expired lease counts as not spent at all.
    ExpireGivesBack,
    /// A stranded lease never gets its true figure.
    StrandedStaysSpent,
    /// Renewing opens an expired lease again.
    RenewRevives,
    /// A purse draws from leases that are over.
    DrawsAfterTheEnd,
    /// A lease may be spent from in the next period.
    LeaseOutlivesPeriod,
    /// A lease counts in the hour the clock says, also after that has stepped back.
    LeaseIsDatedByTheClock,
    /// The end of a lease is counted from when the answer came.
    CountsFromTheAnswer,
    /// An answer to a call that was given up, or a second one, is acted on.
    HearsStaleReplies,
    /// A lease is written down when it is granted, not before it is asked for.
    NoWriteAhead,
    /// The journal does not say what was spent.
    JournalMissesSpend,
    /// A restart does not read the journal.
    JournalIsLost,
    /// A lease whose answer did not come is not settled.
    UnansweredIsForgotten,
    /// A lease that was closed before its answer came is not settled.
    VoidIsForgotten,
}

/// Each bug, and trouble that brings it to light.
fn cases() -> Vec<(Bug, Rules)> {
    vec![
        (Bug::SettleCountsAgain, check::contended()),
        (Bug::SettleAddsTwice, check::budgeted()),
        (Bug::SettleMissesAccount, check::budgeted()),
        (Bug::SettledIsForgotten, check::contended()),
        (Bug::NoTombstone, check::lossy()),
        (Bug::ReserveIgnoresId, check::contended()),
        (Bug::ReserveIgnoresBudget, check::budgeted()),
        (Bug::ReserveIgnoresLeased, check::contended()),
        (Bug::RefusesWithoutRecall, check::unequal()),
        (Bug::RecallIsNotHeard, check::unequal()),
        (Bug::ShrinksBelowFlying, check::edited()),
        (Bug::SettlesWhatFlies, check::edited()),
        (Bug::ExpireForgetsStranded, check::outliving()),
        (Bug::ExpireForgetsLease, check::outliving()),
        (Bug::ExpireGivesBack, check::outliving()),
        (Bug::StrandedStaysSpent, check::outliving()),
        (Bug::RenewRevives, check::outliving()),
        (Bug::DrawsAfterTheEnd, check::turning()),
        (Bug::LeaseOutlivesPeriod, check::turning()),
        (Bug::LeaseIsDatedByTheClock, check::turning()),
        (Bug::CountsFromTheAnswer, check::turning()),
        (Bug::HearsStaleReplies, check::lossy()),
        (Bug::NoWriteAhead, check::crashing()),
        (Bug::JournalMissesSpend, check::crashing()),
        (Bug::JournalIsLost, check::crashing()),
        (Bug::UnansweredIsForgotten, check::lossy()),
        (Bug::VoidIsForgotten, check::crashing()),
    ]
}

#[test]
fn the_checker_finds_every_planted_bug() {
    for (bug, rules) in cases() {
        let (law, steps) = check::find_break(&Rules { bug: Some(bug), ..rules })
            .unwrap_or_else(|| panic!("{bug:?} breaks no law that the checker knows of"));
        println!("{bug:?} breaks \u{201c}{law}\u{201d} in {} steps", steps.len());
    }
}
