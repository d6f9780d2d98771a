//! Writes into the store what nodes write: leases, what they paid for, refusals, reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tollgate::ledger::lease::{Ask, Reserved};
use tollgate::policy::{AccountId, Credits, Operation, Pool, TokenId};
use tollgate::store::{
    LeaseId, LeaseKey, NodeId, NodeReport, RefusalCell, Reserve, Settlement, Store, UsageCell,
};

use super::desk::Desk;

/// An epoch that no test comes to.
pub(crate) const FAR_AHEAD: u64 = 1_000_000;
/// Longer than any test takes.
pub(crate) const LONG: Duration = Duration::from_hours(1);

fn next_lease() -> LeaseId {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    LeaseId(ulid::Ulid::from_parts(SERIAL.fetch_add(1, Ordering::SeqCst), 7))
}

fn account() -> AccountId {
    AccountId::default_account()
}

/// When the hour around `at` began.
pub(crate) fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600) * 3600
}

/// One read of a data set that cost `credits` and brought ten bytes for each.
pub(crate) fn cell(hour: i64, dataset: &str, credits: u64) -> UsageCell {
    let dataset = dataset.to_owned();
    UsageCell { hour, dataset, operation: Operation::Read, requests: 1, credits, bytes: credits * 10 }
}

/// Leases exactly `credits` to a node, for `life`.
pub(crate) fn lease_for(desk: &Desk, token: &str, pool: Pool, credits: u64, life: Duration) -> LeaseKey {
    let key =
        LeaseKey { lease: next_lease(), account: account(), token: TokenId::parse(token).unwrap(), pool };
    let ask = Ask { want: Credits(credits), need: Credits(credits) };
    let reserve = Reserve { key: key.clone(), node: NodeId(ulid::Ulid::from_parts(1, 1)), ask, life };
    match desk.block_on(desk.store.reserve(&reserve)).unwrap() {
        Reserved::Granted(grant) => assert_eq!(grant.granted, Credits(credits)),
        refused => panic!("{refused:?}"),
    }
    key
}

/// Leases exactly `credits` to a node.
pub(crate) fn lease(desk: &Desk, token: &str, pool: Pool, credits: u64) -> LeaseKey {
    lease_for(desk, token, pool, credits, LONG)
}

/// Closes a lease with what it paid for.
pub(crate) fn settle(desk: &Desk, key: LeaseKey, cells: Vec<UsageCell>) {
    let spent = Credits(cells.iter().map(|cell| cell.credits).sum());
    desk.block_on(desk.store.settle(&[Settlement { key, spent, cells }])).unwrap();
}

/// Spends what the cells cost.
pub(crate) fn spend(desk: &Desk, token: &str, pool: Pool, cells: Vec<UsageCell>) {
    let key = lease(desk, token, pool, cells.iter().map(|cell| cell.credits).sum());
    settle(desk, key, cells);
}

/// Counts refusals.
pub(crate) fn refuse(desk: &Desk, token: Option<&str>, hour: i64, code: &'static str, count: u64) {
    let token = token.map(|token| TokenId::parse(token).unwrap());
    let cells = [RefusalCell { token, hour, code, count }];
    desk.block_on(desk.store.count_refusals(&account(), next_lease(), &cells)).unwrap();
}

/// A node's id, as the API shows it.
pub(crate) fn node_id(number: u64) -> String {
    ulid::Ulid::from_parts(number, 9).to_string()
}

/// Reports a node that acts by `epoch`, for `life`.
pub(crate) fn report_for(desk: &Desk, number: u64, epoch: u64, life: Duration) {
    let report = NodeReport {
        node: NodeId(ulid::Ulid::from_parts(number, 9)),
        epoch,
        seen_at: Timestamp::UNIX_EPOCH,
        leased: Credits(number * 100),
        name: format!("host-{number}/127.0.0.1:8080"),
    };
    desk.block_on(desk.store.report_node(&account(), &report, life)).unwrap();
}

/// Reports a node that acts by `epoch`.
pub(crate) fn report(desk: &Desk, number: u64, epoch: u64) {
    report_for(desk, number, epoch, LONG);
}

/// The account's epoch.
pub(crate) fn epoch(desk: &Desk) -> u64 {
    desk.block_on(desk.store.epoch(&account())).unwrap()
}
