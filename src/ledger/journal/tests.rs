use super::*;

fn entry(n: u128) -> LeaseEntry {
    LeaseEntry {
        lease: Ulid::from(n),
        account: AccountId::default_account(),
        token: TokenId::from_ulid(Ulid::from(7)),
        pool: Pool::Premium,
    }
}

const NODE: Ulid = Ulid::from_parts(1, 1);

#[test]
fn a_dead_process_leaves_exactly_what_it_charged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    {
        let (journal, recovered, aside) = Journal::open(&path, NODE).unwrap();
        assert_eq!((recovered.len(), aside.len()), (0, 0));
        for n in 0..3 {
            journal.begin(entry(n)).unwrap();
        }
        let cars = journal.cell(&entry(1), "MY/CARS", Operation::Read, 3600).unwrap();
        let bikes = journal.cell(&entry(1), "", Operation::Delete, 3600).unwrap();
        for _ in 0..10 {
            cars.charge(3);
        }
        bikes.charge(5);
        bikes.add_bytes(100);
        // The same cell again is the same cell.
        journal.cell(&entry(1), "MY/CARS", Operation::Read, 3600).unwrap().charge(3);
        journal.forget(Ulid::from(2_u128));
    }
    for _ in 0..2 {
        // Nothing was forgotten, so a second start finds the same.
        let (_journal, mut recovered, aside) = Journal::open(&path, NODE).unwrap();
        assert!(aside.is_empty());
        recovered.sort_by_key(|left| left.entry.lease);
        assert_eq!(recovered.iter().map(|left| left.entry.clone()).collect::<Vec<_>>(), [entry(0), entry(1)]);
        assert!(recovered[0].cells.is_empty());
        let cell = |dataset: &str, operation, requests, credits, bytes| Cell {
            dataset: dataset.to_owned(),
            operation,
            hour: 3600,
            requests,
            credits,
            bytes,
        };
        assert_eq!(
            recovered[1].cells,
            [cell("MY/CARS", Operation::Read, 11, 33, 0), cell("", Operation::Delete, 1, 5, 100)]
        );
    }
    let (journal, recovered, _) = Journal::open(&path, NODE).unwrap();
    for left in recovered {
        journal.forget(left.entry.lease);
    }
    drop(journal);
    let (_journal, recovered, _) = Journal::open(&path, NODE).unwrap();
    assert!(recovered.is_empty());
    let files = fs::read_dir(&path).unwrap().count();
    assert!(files <= 3, "old files go: {files}");
}

#[test]
fn two_processes_never_share_one() {
    let directory = tempfile::tempdir().unwrap();
    let first = Journal::open(directory.path(), NODE).unwrap();
    let Err(second) = Journal::open(directory.path(), NODE) else { panic!("it was opened twice") };
    assert!(second.to_string().contains("in use"), "{second}");
    drop(first);
    assert!(Journal::open(directory.path(), NODE).is_ok());
}

#[test]
fn foreign_and_torn_files_are_set_aside_and_the_others_still_count() {
    let directory = tempfile::tempdir().unwrap();
    let make = |n: u128| {
        let (journal, _, _) = Journal::open(directory.path(), NODE).unwrap();
        journal.begin(entry(n)).unwrap();
        journal.cell(&entry(n), "MY/CARS", Operation::Read, 0).unwrap().charge(1);
    };
    let cells = || {
        let paths = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|e| e == "cells")).collect();
        paths.sort();
        paths
    };
    make(1);
    let good = cells();
    fs::write(directory.path().join("foreign.cells"), b"hello").unwrap();
    // Copies with one byte changed: in the magic, the version, the header's sum, a record's identity, a record's state.
    let template = fs::read(&good[0]).unwrap();
    let record = RECORD_WORDS * 8;
    for (number, at) in [0, 8, 16, 33, record + 45, record + 3, 2 * record + 200].into_iter().enumerate() {
        let mut bytes = template.clone();
        bytes[at] ^= 0x55;
        fs::write(directory.path().join(format!("zz{number}.cells")), bytes).unwrap();
    }
    fs::write(directory.path().join("short.cells"), &template[..template.len() - 8]).unwrap();
    let (_journal, recovered, aside) = Journal::open(directory.path(), NODE).unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(recovered[0].cells[0].credits, 1);
    assert_eq!(aside.len(), 9, "{aside:?}");
    for file in aside {
        assert!(file.path.exists() && !file.why.is_empty());
    }
}

#[test]
fn it_grows_and_uses_what_was_forgotten_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _, _) = Journal::open(directory.path(), NODE).unwrap();
    for n in 0..3000_u128 {
        journal.begin(entry(n)).unwrap();
    }
    assert_eq!(journal.books.lock().files, 2);
    for n in 0..3000_u128 {
        journal.forget(Ulid::from(n));
    }
    for n in 0..3000_u128 {
        journal.begin(entry(n)).unwrap();
    }
    assert_eq!(journal.books.lock().files, 2);
    assert!(journal.cell(&entry(1), &"x".repeat(500), Operation::Read, 0).is_err());
}

/// Runs in a process of its own, started by the test below: charges as fast as it can and says how far it is.
#[test]
fn child_that_charges_until_it_is_killed() {
    let Ok(path) = std::env::var("TOLLGATE_JOURNAL_CHILD") else { return };
    let (journal, recovered, aside) = Journal::open(Path::new(&path), NODE).unwrap();
    assert!(aside.is_empty());
    let before: u64 = recovered.iter().flat_map(|left| &left.cells).map(|cell| cell.credits).sum();
    let lease = entry(Ulid::generate().0);
    journal.begin(lease.clone()).unwrap();
    let cell = journal.cell(&lease, "MY/CARS", Operation::Read, 0).unwrap();
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    cell.charge(1);
                    // Said after it was charged: what was said must be found.
                    let said = total.fetch_add(1, Ordering::AcqRel) + 1;
                    if said.is_multiple_of(1000) {
                        let mut out = io::stdout().lock();
                        let _ = writeln!(out, "\nsaid {}", before + said);
                        let _ = out.flush();
                    }
                }
            });
        }
    });
}

#[test]
fn law_2_exact_through_kill_9() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let mut said = 0;
    for round in 0..8 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::journal::tests::child_that_charges_until_it_is_killed", "--nocapture"])
            .env("TOLLGATE_JOURNAL_CHILD", directory.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("said ").and_then(|text| text.parse::<u64>().ok()) {
                said = said.max(number);
                count += 1;
                if count > 3 + round {
                    break;
                }
            }
        }
        assert!(count > 0, "the child said nothing");
        child.kill().unwrap();
        child.wait().unwrap();
        let (_journal, recovered, aside) = Journal::open(directory.path(), NODE).unwrap();
        assert!(aside.is_empty(), "{aside:?}");
        let cells: Vec<&Cell> = recovered.iter().flat_map(|left| &left.cells).collect();
        let found: u64 = cells.iter().map(|cell| cell.credits).sum();
        assert!(found >= said, "{found} found, {said} said");
        // Four threads were each between credits and request at most once a kill.
        let requests: u64 = cells.iter().map(|cell| cell.requests).sum();
        assert!(found - requests <= 4 * (round + 1), "{found} {requests}");
    }
}
