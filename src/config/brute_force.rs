//! `brute_force`: how many invalid tokens one address may try (`policy.md`, "Order of checks", 5).

use std::time::Duration;

use super::reader::{Item, Keys, Read};

/// How many invalid tokens one address may try. An IPv6 address stands for its /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BruteForce {
    /// The most in a window; 0: any number.
    pub failures: u32,
    /// From the first on.
    pub window: Duration,
}

impl Default for BruteForce {
    /// Nobody who mends a typing mistake sees it, nor an office in which a few programs run with a token of old.
    fn default() -> Self {
        Self { failures: 300, window: Duration::from_mins(1) }
    }
}

pub(super) const KEYS: Keys = Keys { known: &["failures", "window"], later: &[] };

const MOST: u64 = 1_000_000;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1);

pub(super) fn read(item: &Item<'_>) -> Read<BruteForce> {
    let fields = item.fields(&KEYS, "a mapping of `failures` and `window`")?;
    let default = BruteForce::default();
    let failures = fields.or("failures", default.failures.into(), |item| item.integer(0..=MOST));
    let window = fields.or("window", default.window, |item| item.duration(SHORTEST..=LONGEST));
    Ok(BruteForce { failures: u32::try_from(failures?).unwrap_or(u32::MAX), window: window? })
}
