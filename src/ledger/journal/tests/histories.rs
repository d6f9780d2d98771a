//! Random histories: whatever was done, the next start finds just that.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Begin(u8),
    Charge {
        lease: u8,
        name: u8,
        hour: i64,
        credits: u64,
        bytes: u64,
    },
    Forget(u8),
    /// The process ends and another starts.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let charge = (0..12_u8, 0..6_u8, 0..3_i64, 0..1000_u64, 0..1000_u64);
    prop_oneof![
        2 => (0..12_u8).prop_map(Step::Begin),
        8 => charge.prop_map(|(lease, name, hour, credits, bytes)| Step::Charge { lease, name, hour, credits, bytes }),
        2 => (0..12_u8).prop_map(Step::Forget),
        1 => Just(Step::Restart),
    ]
}

/// Short and long names, in both sizes of records.
fn lease(n: u8) -> LeaseEntry {
    let pool = if n.is_multiple_of(2) { Pool::Core } else { Pool::Premium };
    let account = AccountId::parse(&"a".repeat(usize::from(n % 5) * 12 + 1)).unwrap();
    LeaseEntry { account, pool, ..entry(u128::from(n) << 60) }
}

fn operation(name: u8) -> Operation {
    Operation::ALL[usize::from(name) % 3]
}

type Model = BTreeMap<u8, BTreeMap<(String, Operation, i64), (u64, u64, u64)>>;

fn expected(model: &Model) -> Vec<Recovered> {
    let cells = |cells: &BTreeMap<(String, Operation, i64), (u64, u64, u64)>| {
        let cells = cells.iter().map(|((dataset, operation, hour), (requests, credits, bytes))| Cell {
            dataset: dataset.clone(),
            operation: *operation,
            hour: *hour,
            requests: *requests,
            credits: *credits,
            bytes: *bytes,
        });
        cells.collect()
    };
    model.iter().map(|(n, known)| Recovered { entry: lease(*n), cells: cells(known) }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_next_start_finds_just_what_was_done(steps in proptest::collection::vec(step(), 1..120)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(directory.path());
        let mut model = Model::new();
        for step in steps.into_iter().chain([Step::Restart]) {
            match step {
                Step::Begin(n) => {
                    journal.begin(lease(n)).unwrap();
                    model.entry(n).or_default();
                }
                Step::Charge { lease: n, name, hour, credits, bytes } => {
                    let dataset = "D".repeat(usize::from(name) * 50);
                    let cell = journal.cell(&lease(n), &dataset, operation(name), hour).unwrap();
                    cell.charge(credits);
                    cell.add_bytes(bytes);
                    let counts = model.entry(n).or_default().entry((dataset, operation(name), hour)).or_default();
                    *counts = (counts.0 + 1, counts.1 + credits, counts.2 + bytes);
                }
                Step::Forget(n) => {
                    journal.forget(lease(n).lease);
                    model.remove(&n);
                }
                Step::Restart => {
                    drop(journal);
                    let (next, mut recovered) = open(directory.path());
                    journal = next;
                    sort(&mut recovered);
                    prop_assert_eq!(recovered, expected(&model));
                }
            }
            for left in expected(&model) {
                prop_assert_eq!(sorted(journal.cells(left.entry.lease)), left.cells);
            }
        }
        for n in 0..12 {
            journal.forget(lease(n).lease);
        }
        prop_assert_eq!(files(directory.path()).len(), 1, "old files go");
    }
}
