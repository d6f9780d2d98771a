//! Carries out what purses wish for: asks for leases, settles, shrinks and renews them, away from requests.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::purse_slot::{PurseSlot, key_of};
use super::{LIFE, Meter, RECALL};
use crate::ledger::journal::{Cell, Journal, Recovered};
use crate::ledger::lease::{Ask, Reserved};
use crate::ledger::purse::{Micros, Wish};
use crate::policy::{Credits, Denial};
use crate::store::{LeaseKey, Reserve, Settlement, UsageCell};

/// How often purses are looked after.
const ROUND: Duration = Duration::from_millis(200);
/// The most settlements in one call.
const BATCH: usize = 128;
/// How often refusals are told to the store, in rounds.
const REFUSALS_EVERY: u32 = 10;
/// The first pause between two asks for credits that are being recalled, and the longest.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(40));
/// The pause before the store is told again what it could not be told.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// The same, where it answers but cannot read a record.
const UNREADABLE: Duration = Duration::from_secs(1);

fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Asks for a lease until it is granted or refused for good. `short`: requests wait for it.
pub(super) async fn ask(meter: Arc<Meter>, slot: Arc<PurseSlot>, wish: Wish, short: bool) {
    let Wish::Reserve { want, need } = wish else { return };
    let begun = Instant::now();
    let mut pause = ASK_AGAIN.0;
    loop {
        if meter.line.is_cut() {
            return slot.unreachable();
        }
        let lease = Ulid::generate();
        // Written down before it is asked for: a lease whose answer never comes is settled with nothing.
        if let Err(error) = meter.journal.begin(slot.entry(lease)) {
            tracing::error!(%error, "the journal takes no more; requests are refused");
            return slot.unreachable();
        }
        let asked_at = meter.now();
        let reserve = Reserve {
            key: slot.key(lease),
            node: meter.node,
            ask: Ask { want: Credits(want), need: Credits(need) },
            life: LIFE,
        };
        let answer = meter.line.call("reserve", |store| store.reserve(&reserve)).await;
        let (denial, recallable) = match answer {
            Ok(Reserved::Granted(grant)) => return slot.granted(lease, &grant, asked_at, micros(LIFE)),
            Ok(Reserved::Void) => {
                // Closed already, as far as the store knows; settling it makes sure that it stays so.
                meter.runtime.spawn(abandon(meter.clone(), slot.clone(), lease));
                continue;
            }
            Ok(Reserved::CreditsExhausted { retry_after, recallable }) => {
                (Denial::CreditsExhausted { pool: slot.pool(), retry_after }, recallable)
            }
            Ok(Reserved::BudgetExhausted { retry_after, recallable }) => {
                (Denial::BudgetExhausted { pool: slot.pool(), retry_after }, recallable)
            }
            Err(_) => {
                slot.unreachable();
                return abandon(meter, slot, lease).await;
            }
        };
        meter.journal.forget(lease);
        if !short {
            return slot.refused(None, meter.now());
        }
        if !recallable || begun.elapsed() >= RECALL {
            return slot.refused(Some((need, denial)), meter.now());
        }
        slot.set_recalling();
        let budget = matches!(denial, Denial::BudgetExhausted { .. });
        let token = (!budget).then(|| slot.token().clone());
        let (account, pool) = (slot.account().clone(), slot.pool());
        let _ = meter.line.call("recall", |store| store.recall(&account, token.as_ref(), pool)).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN.1);
    }
}

/// A lease may have been granted and nobody heard of it: it is settled with nothing, until the store has that.
async fn abandon(meter: Arc<Meter>, slot: Arc<PurseSlot>, lease: Ulid) {
    meter.open.fetch_add(1, Ordering::AcqRel);
    let nothing = [Settlement { key: slot.key(lease), spent: Credits(0), cells: Vec::new() }];
    // A record that cannot be read granted nothing.
    while meter.line.call("settle", |store| store.settle(&nothing)).await == Err(Denial::StoreUnavailable) {
        tokio::time::sleep(TRY_AGAIN).await;
    }
    meter.journal.forget(lease);
    meter.open.fetch_sub(1, Ordering::AcqRel);
}

/// A response cost `debt` more than was to be had, and `lease` says so when it is settled. Until then it is to be counted,
/// too: by what is in hand or comes in, which nobody may spend then, and by leases for nobody. What the store has not, it
/// cannot count; the limit is exceeded by that.
pub(super) async fn cover(meter: Arc<Meter>, slot: Arc<PurseSlot>, lease: Ulid, mut debt: u64) {
    let (mut covers, mut held) = (Vec::new(), Vec::new());
    let mut refused = false;
    loop {
        let mut outcome = slot.outcomes();
        let (own, more_may_come) = slot.hold_for_debt(debt);
        debt -= own.iter().map(|(_, credits)| credits).sum::<u64>();
        held.extend(own);
        if debt == 0 || (refused && !more_may_come) {
            break;
        }
        if refused {
            // A lease that was asked for before this debt was known.
            if tokio::time::timeout(meter.patience, outcome.changed()).await.is_err() {
                break;
            }
            continue;
        }
        let name = Ulid::generate();
        if meter.journal.begin(slot.entry(name)).is_err() {
            break;
        }
        covers.push(name);
        let ask = Ask { want: Credits(debt), need: Credits(1) };
        let reserve = Reserve { key: slot.key(name), node: meter.node, ask, life: LIFE };
        match meter.line.call("reserve", |store| store.reserve(&reserve)).await {
            Ok(Reserved::Granted(grant)) => debt = debt.saturating_sub(grant.granted.0),
            Ok(_) => refused = true,
            Err(_) => break,
        }
    }
    slot.covered();
    while slot.holds(lease) {
        tokio::time::sleep(ASK_AGAIN.1).await;
        let (own, _) = slot.hold_for_debt(debt);
        debt -= own.iter().map(|(_, credits)| credits).sum::<u64>();
        held.extend(own);
    }
    for (name, credits) in held {
        slot.give_back(name, credits);
    }
    for name in covers {
        abandon(meter.clone(), slot.clone(), name).await;
    }
}

/// Settles what an earlier run left in a journal, exactly as that says.
pub(super) async fn recover(meter: Arc<Meter>, journal: Arc<Journal>, recovered: Vec<Recovered>) {
    let count = recovered.len();
    let mut left: Vec<Settlement> =
        recovered.into_iter().map(|left| settlement(key_of(left.entry), &left.cells)).collect();
    while !left.is_empty() {
        let (mut later, mut unreadable) = (Vec::new(), false);
        for chunk in left.chunks(BATCH) {
            for (settlement, settled) in chunk.iter().zip(settle_each(&meter, chunk).await) {
                if let Err(denial) = settled {
                    unreadable |= denial != Denial::StoreUnavailable;
                    later.push(settlement.clone());
                } else {
                    journal.forget(settlement.key.lease.0);
                    meter.open.fetch_sub(1, Ordering::AcqRel);
                }
            }
        }
        left = later;
        if !left.is_empty() {
            tokio::time::sleep(if unreadable { UNREADABLE } else { TRY_AGAIN }).await;
        }
    }
    if count > 0 {
        tracing::info!(leases = count, "settled what an earlier run left in the journal");
    }
}

/// Settles all in one call, and says what came of each. One record that cannot be read fails the call of all: then each
/// is asked for alone, so that it holds up nobody but itself; its true figure waits in the journal for its repair.
async fn settle_each(meter: &Arc<Meter>, settlements: &[Settlement]) -> Vec<Result<(), Denial>> {
    let call = async |part| meter.line.call("settle", |store| store.settle(part)).await;
    let answer = call(settlements).await;
    if settlements.len() == 1 || matches!(answer, Ok(()) | Err(Denial::StoreUnavailable)) {
        return vec![answer; settlements.len()];
    }
    let mut each = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        each.push(call(std::slice::from_ref(settlement)).await);
    }
    each
}

fn settlement(key: LeaseKey, cells: &[Cell]) -> Settlement {
    let usage = |cell: &Cell| UsageCell {
        hour: cell.hour,
        dataset: cell.dataset.clone(),
        operation: cell.operation,
        requests: cell.requests,
        credits: cell.credits,
        bytes: cell.bytes,
    };
    let spent = cells.iter().map(|cell| cell.credits).sum();
    Settlement { key, spent: Credits(spent), cells: cells.iter().map(usage).collect() }
}

/// Carries out what some purses wish for.
pub(super) async fn tend(meter: Arc<Meter>, slots: Vec<Arc<PurseSlot>>) {
    let mut settling = Vec::new();
    let mut renewing = Vec::new();
    let cut = meter.line.is_cut();
    for slot in slots {
        if slot.is_paused(meter.now()) {
            continue;
        }
        if !slot.flush_bytes(&meter.journal)
            && !cut
            && let Some(wish) = slot.wish_carrier(meter.now())
        {
            meter.runtime.spawn(ask(meter.clone(), slot.clone(), wish, true));
        }
        for wish in slot.wishes(meter.now(), cut) {
            match wish {
                Wish::Settle { lease, .. } => settling.push((slot.clone(), lease)),
                Wish::Renew { lease } => renewing.push((slot.clone(), lease)),
                Wish::Shrink { lease, keep } => {
                    let key = slot.key(lease);
                    match meter.line.call("shrink", |store| store.shrink(&key, Credits(keep))).await {
                        Ok(()) => slot.shrunk(lease, keep),
                        Err(_) => slot.failed(lease, meter.now()),
                    }
                }
                Wish::Reserve { .. } => {}
            }
        }
    }
    for chunk in settling.chunks(BATCH) {
        settle(&meter, chunk).await;
    }
    for chunk in renewing.chunks(BATCH) {
        renew(&meter, chunk).await;
    }
}

async fn settle(meter: &Arc<Meter>, leases: &[(Arc<PurseSlot>, Ulid)]) {
    // What the journal says is what is settled: it is what a restart would say, too.
    let of =
        |(slot, lease): &(Arc<PurseSlot>, Ulid)| settlement(slot.key(*lease), &meter.journal.cells(*lease));
    let settlements: Vec<Settlement> = leases.iter().map(of).collect();
    let settled = settle_each(meter, &settlements).await;
    for (((slot, lease), settlement), settled) in leases.iter().zip(&settlements).zip(settled) {
        match settled {
            Ok(()) => {
                meter.journal.forget(*lease);
                slot.settled(*lease, settlement.spent.0);
            }
            Err(denial) => {
                slot.failed(*lease, meter.now());
                if denial != Denial::StoreUnavailable {
                    slot.pause(meter.now() + micros(UNREADABLE));
                }
            }
        }
    }
}

async fn renew(meter: &Arc<Meter>, leases: &[(Arc<PurseSlot>, Ulid)]) {
    let keys: Vec<LeaseKey> = leases.iter().map(|(slot, lease)| slot.key(*lease)).collect();
    let asked_at = meter.now();
    let answer = meter.line.call("renew", |store| store.renew(&keys, LIFE)).await;
    for (at, (slot, lease)) in leases.iter().enumerate() {
        match &answer {
            Ok(open) if open.get(at).copied().unwrap_or(false) => {
                slot.renewed(*lease, Some(asked_at.saturating_add(micros(LIFE))));
            }
            Ok(_) => slot.renewed(*lease, None),
            Err(_) => slot.failed(*lease, meter.now()),
        }
    }
}

/// Tells the store of refusals.
pub(super) async fn flush_refusals(meter: &Arc<Meter>) {
    let Some((account, batch, cells)) = meter.refusals.batch() else { return };
    let told = meter.line.call("count_refusals", |store| store.count_refusals(&account, batch, &cells)).await;
    if told != Err(Denial::StoreUnavailable) {
        meter.refusals.told(batch);
    }
}

/// Looks after all purses, as long as there is a meter.
pub(super) async fn keep(meter: Weak<Meter>) {
    let mut round = 0_u32;
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(meter) = meter.upgrade() else { return };
        tend(meter.clone(), meter.slots()).await;
        meter.forget_idle();
        round = round.wrapping_add(1);
        if round.is_multiple_of(REFUSALS_EVERY) {
            flush_refusals(&meter).await;
            meter.throttle.sweep();
        }
        meter.metrics.leases(meter.leased());
    }
}
