//! `lease` and `usage`: how long the store keeps what no request needs any more (`ledger.md`).

use std::time::Duration;

use super::reader::{Item, Keys, Read};

pub(super) const LEASE_KEYS: Keys = Keys { known: &["reclaim_window"], later: &[] };
pub(super) const USAGE_KEYS: Keys = Keys { known: &["retention"], later: &[] };

/// A day to come back in.
pub(super) const RECLAIM_WINDOW: Duration = Duration::from_hours(24);
/// Long enough for a restart.
const SHORTEST_WINDOW: Duration = Duration::from_mins(1);
/// Shorter than usage is kept at least, so that what a node brings back late still finds its day.
const LONGEST_WINDOW: Duration = Duration::from_hours(30 * 24);

/// A year, and what it is compared with.
pub(super) const RETENTION: Duration = Duration::from_hours(400 * 24);
/// The longest month: what a limit counts must be found in the cells for as long as it counts.
const SHORTEST_RETENTION: Duration = Duration::from_hours(31 * 24);
const LONGEST_RETENTION: Duration = Duration::from_hours(3650 * 24);

/// Reads `lease`: the reclaim window.
pub(super) fn read_lease(item: &Item<'_>) -> Read<Duration> {
    let fields = item.fields(&LEASE_KEYS, "a mapping such as `reclaim_window: 24h`")?;
    fields.or("reclaim_window", RECLAIM_WINDOW, |item| item.duration(SHORTEST_WINDOW..=LONGEST_WINDOW))
}

/// Reads `usage`: the retention.
pub(super) fn read_usage(item: &Item<'_>) -> Read<Duration> {
    let fields = item.fields(&USAGE_KEYS, "a mapping such as `retention: 400d`")?;
    fields.or("retention", RETENTION, |item| item.duration(SHORTEST_RETENTION..=LONGEST_RETENTION))
}
