//! What passed and is not settled yet.
//!
//! Bounded in number and in time: where there is no room, a request is charged when it is asked about; what nobody settles
//! in time is charged as it stands. A claim's name is its place in the order of coming and 128 random bits.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use super::Authz;
use crate::gate::check::Open;

/// So many stand open at most; each takes one to two KiB.
const MOST: usize = 65_536;
/// How often it is looked for what is due.
const PACE: Duration = Duration::from_millis(250);

const SECRET: usize = 16;

struct Claim {
    secret: [u8; SECRET],
    due: Instant,
    open: Open,
}

/// All open claims, the oldest first.
pub(super) struct Claims {
    within: Duration,
    most: usize,
    table: Mutex<(u64, BTreeMap<u64, Claim>)>,
}

impl Claims {
    pub(super) fn new(within: Duration) -> Self {
        Self { within, most: MOST, table: Mutex::default() }
    }

    /// Whether one more can be kept. Requests decided meanwhile may exceed the bound by as many as there are.
    pub(super) fn has_room(&self) -> bool {
        self.table.lock().1.len() < self.most
    }

    /// Keeps one; its name.
    pub(super) fn keep(&self, open: Open) -> HeaderValue {
        let mut secret = [0; SECRET];
        // Without randomness a name can be guessed, by whoever may speak to the listener anyway.
        let _ = getrandom::fill(&mut secret);
        let claim = Claim { secret, due: Instant::now() + self.within, open };
        let mut table = self.table.lock();
        table.0 += 1;
        let at = table.0;
        table.1.insert(at, claim);
        drop(table);
        let name = format!("{at:016x}{}", hex::encode(secret));
        HeaderValue::try_from(name).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Takes one out by its name.
    pub(super) fn take(&self, name: &str) -> Option<Open> {
        let (at, secret) = name.split_at_checked(16)?;
        let at = u64::from_str_radix(at, 16).ok()?;
        let mut given = [0; SECRET];
        hex::decode_to_slice(secret, &mut given).ok()?;
        let mut table = self.table.lock();
        let right: bool = table.1.get(&at)?.secret.ct_eq(&given).into();
        if right { table.1.remove(&at).map(|claim| claim.open) } else { None }
    }

    /// Takes out what nobody has settled in time.
    fn take_due(&self, now: Instant) -> Vec<Open> {
        let mut due = Vec::new();
        let mut table = self.table.lock();
        while let Some(first) = table.1.first_entry()
            && first.get().due <= now
        {
            due.push(first.remove().open);
        }
        due
    }

    /// Takes all out.
    pub(super) fn take_all(&self) -> Vec<Open> {
        let all = std::mem::take(&mut self.table.lock().1);
        all.into_values().map(|claim| claim.open).collect()
    }
}

/// Charges what nobody settles, as long as the service is there.
pub(super) async fn sweep(authz: Weak<Authz>) {
    loop {
        tokio::time::sleep(PACE).await;
        let Some(authz) = authz.upgrade() else { return };
        for open in authz.claims.take_due(Instant::now()) {
            authz.gate.settle(open, None).await;
        }
    }
}
