//! Refusals by reason, counted here and told to the store now and then.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::ledger::period_start;
use crate::policy::{AccountId, Period, TokenId};
use crate::store::{LeaseId, RefusalCell};

/// The most different refusals that wait to be told; more are counted as nobody's.
const MOST: usize = 10_000;

#[derive(Default)]
struct Counts {
    fresh: HashMap<(Option<TokenId>, &'static str), u64>,
    /// Being told: kept as they are until the store has them, so that they count once.
    telling: Option<(LeaseId, Vec<RefusalCell>)>,
}

/// The counts of this node.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Counts>);

impl Refusals {
    pub(super) fn count(&self, token: Option<&TokenId>, code: &'static str) {
        let mut counts = self.0.lock();
        let mut key = (token.cloned(), code);
        if counts.fresh.len() >= MOST && !counts.fresh.contains_key(&key) {
            key.0 = None;
        }
        *counts.fresh.entry(key).or_default() += 1;
    }

    /// What is to be told; the same again until it is [`Self::told`].
    pub(super) fn batch(&self) -> Option<(AccountId, LeaseId, Vec<RefusalCell>)> {
        let mut counts = self.0.lock();
        if counts.telling.is_none() && !counts.fresh.is_empty() {
            let hour = period_start(Period::Hour, jiff::Timestamp::now()).as_second();
            let cell = |((token, code), count)| RefusalCell { token, hour, code, count };
            let cells = std::mem::take(&mut counts.fresh).into_iter().map(cell).collect();
            counts.telling = Some((LeaseId(ulid::Ulid::generate()), cells));
        }
        let (batch, cells) = counts.telling.as_ref()?;
        Some((AccountId::default_account(), *batch, cells.clone()))
    }

    /// The store has a batch.
    pub(super) fn told(&self, batch: LeaseId) {
        self.0.lock().telling.take_if(|(telling, _)| *telling == batch);
    }
}
