use std::fs;

use super::file::ENDING;
use super::*;

mod damage;
mod histories;
mod kill;

const NODE: Ulid = Ulid::from_parts(1, 1);

fn entry(n: u128) -> LeaseEntry {
    LeaseEntry {
        lease: Ulid::from(n),
        account: AccountId::default_account(),
        token: TokenId::from_ulid(Ulid::from(7)),
        pool: Pool::Premium,
    }
}

/// The journal's files, oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == ENDING)).collect();
    paths.sort();
    paths
}

fn sorted(mut cells: Vec<Cell>) -> Vec<Cell> {
    cells.sort_by(|a, b| (&a.dataset, a.operation, a.hour).cmp(&(&b.dataset, b.operation, b.hour)));
    cells
}

fn sort(recovered: &mut [Recovered]) {
    for left in recovered {
        left.cells = sorted(std::mem::take(&mut left.cells));
    }
}

fn cell(dataset: &str, operation: Operation, requests: u64, credits: u64, bytes: u64) -> Cell {
    Cell { dataset: dataset.to_owned(), operation, hour: 3600, requests, credits, bytes }
}

/// Opens a journal that nothing is wrong with.
fn open(directory: &Path) -> (Journal, Vec<Recovered>) {
    let (journal, recovered, aside) = Journal::open(directory, NODE).unwrap();
    assert_eq!(aside, []);
    (journal, recovered)
}

#[test]
fn a_dead_process_leaves_exactly_what_it_charged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/journal");
    {
        let (journal, recovered) = open(&path);
        assert_eq!(recovered, []);
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
        // The same cell again is the same cell; a lease need not be begun.
        journal.cell(&entry(1), "MY/CARS", Operation::Read, 3600).unwrap().charge(3);
        journal.cell(&entry(3), "MY/CARS", Operation::Write, 3600).unwrap().charge(0);
        journal.forget(Ulid::from(2_u128));
    }
    let expected = [
        Recovered { entry: entry(0), cells: vec![] },
        Recovered {
            entry: entry(1),
            cells: vec![cell("", Operation::Delete, 1, 5, 100), cell("MY/CARS", Operation::Read, 11, 33, 0)],
        },
        Recovered { entry: entry(3), cells: vec![cell("MY/CARS", Operation::Write, 1, 0, 0)] },
    ];
    for _ in 0..2 {
        // Nothing was forgotten, so a second start finds the same.
        let (journal, mut recovered) = open(&path);
        sort(&mut recovered);
        assert_eq!(recovered, expected);
        assert_eq!(sorted(journal.cells(Ulid::from(1_u128))), expected[1].cells);
    }
    let (journal, recovered) = open(&path);
    assert_eq!(
        files(&path).len(),
        2,
        "the old one, and one for this run; those of the runs between were empty"
    );
    for left in recovered {
        assert_eq!(files(&path).len(), 2);
        journal.forget(left.entry.lease);
        assert_eq!(journal.cells(left.entry.lease), []);
    }
    assert_eq!(files(&path).len(), 1, "an old file goes with its last lease");
    drop(journal);
    assert_eq!(open(&path).1, []);
}

#[test]
fn names_of_any_length_that_can_be_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let long = |n: usize| format!("{}/{}", "w".repeat(128), "d".repeat(n));
    let mut lease = entry(1);
    lease.account = AccountId::parse(&"a".repeat(64)).unwrap();
    let mut names: Vec<String> = (0..300).map(|n| "x".repeat(n)).collect();
    names.push(long(128));
    {
        let (journal, _) = open(directory.path());
        for name in &names {
            journal.cell(&lease, name, Operation::Read, -3600).unwrap().charge(name.len() as u64);
        }
        let Err(error) = journal.cell(&lease, &"x".repeat(600), Operation::Read, 0) else { panic!() };
        assert!(matches!(error, JournalError::TooLong), "{error}");
        let Err(error) = journal.cell(&lease, &"x".repeat(70_000), Operation::Read, 0) else { panic!() };
        assert!(matches!(error, JournalError::TooLong), "{error}");
    }
    let (_journal, recovered) = open(directory.path());
    assert_eq!(recovered[0].entry, lease);
    assert_eq!(recovered[0].cells.len(), names.len());
    for cell in &recovered[0].cells {
        assert!(names.contains(&cell.dataset));
        assert_eq!((cell.credits, cell.hour), (cell.dataset.len() as u64, -3600));
    }
}

#[test]
fn two_journals_never_share_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, ..) = Journal::open(directory.path(), NODE).unwrap();
    let cell = journal.cell(&entry(1), "", Operation::Read, 0).unwrap();
    let refused = || {
        let Err(error) = Journal::open(directory.path(), NODE) else { panic!("it was opened twice") };
        assert!(matches!(&error, JournalError::InUse(path) if path == directory.path()));
        assert!(error.to_string().contains("in use by another Tollgate"), "{error}");
    };
    refused();
    drop(journal);
    // Somebody may still count.
    refused();
    cell.charge(1);
    drop(cell);
    assert_eq!(open(directory.path()).1[0].cells[0].credits, 1);
}

#[test]
fn it_grows_to_its_bound_and_uses_what_was_forgotten_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, ..) = Journal::open_bounded(directory.path(), NODE, 2).unwrap();
    let fill = || {
        let mut leases = 0;
        loop {
            match journal.begin(entry(leases)) {
                Ok(()) => leases += 1,
                Err(JournalError::Full) => return leases,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let leases = fill();
    assert!(leases > 10_000, "{leases}");
    assert_eq!(journal.books.lock().shelf.len(), 2);
    for n in 0..leases {
        journal.forget(Ulid::from(n));
    }
    assert_eq!(fill(), leases);
    assert_eq!(files(directory.path()).len(), 2);
    // A full journal can still be settled, and takes a lease for each that goes.
    journal.forget(Ulid::from(5_u128));
    journal.begin(entry(leases)).unwrap();
    assert!(matches!(journal.begin(entry(leases + 1)), Err(JournalError::Full)));
    drop(journal);
    assert_eq!(open(directory.path()).1.len() as u128, leases);
}

#[test]
fn threads_that_charge_one_cell_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let shared = journal.cell(&entry(1), "MY/CARS", Operation::Read, 3600).unwrap();
    let go = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                go.wait();
                for _ in 0..400_000 {
                    shared.charge(3);
                    shared.add_bytes(5);
                }
            });
        }
    });
    assert_eq!(
        journal.cells(Ulid::from(1_u128)),
        [cell("MY/CARS", Operation::Read, 1_600_000, 4_800_000, 8_000_000)]
    );
}

#[test]
fn a_late_charge_falls_into_no_other_lease() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, ..) = Journal::open_bounded(directory.path(), NODE, 1).unwrap();
    let late = journal.cell(&entry(1), "MY/CARS", Operation::Read, 0).unwrap();
    journal.forget(Ulid::from(1_u128));
    // Take every place there is.
    let mut n = 2;
    while let Ok(cell) = journal.cell(&entry(n), "MY/CARS", Operation::Read, 0) {
        cell.charge(1);
        n += 1;
    }
    late.charge(100);
    late.add_bytes(100);
    assert!(
        (2..n).all(|n| journal.cells(Ulid::from(n)).iter().all(|cell| cell.credits == 1 && cell.bytes == 0))
    );
    // Its place is free when nobody can count there any more, and whoever has it then begins at nothing.
    assert!(matches!(journal.begin(entry(n)), Err(JournalError::Full)));
    drop(late);
    journal.begin(entry(n)).unwrap();
    journal.forget(Ulid::from(2_u128));
    journal.cell(&entry(n), "MY/CARS", Operation::Read, 0).unwrap().charge(7);
    assert_eq!(journal.cells(Ulid::from(n))[0].credits, 7);
    drop(journal);
    assert!(open(directory.path()).1.iter().all(|left| left.entry.lease != Ulid::from(1_u128)));
}

#[test]
fn an_old_file_stays_while_any_lease_has_a_cell_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let spread = entry(u128::MAX);
    {
        let (journal, _) = open(directory.path());
        journal.cell(&spread, "FIRST", Operation::Read, 0).unwrap().charge(1);
        let mut n = 0;
        while journal.books.lock().shelf.len() < 2 {
            journal.begin(entry(n)).unwrap();
            n += 1;
        }
        journal.cell(&spread, "SECOND", Operation::Read, 0).unwrap().charge(2);
    }
    assert_eq!(files(directory.path()).len(), 2);
    let (journal, recovered) = open(directory.path());
    for left in recovered {
        if left.entry != spread {
            journal.forget(left.entry.lease);
        }
    }
    drop(journal);
    let (_journal, recovered) = open(directory.path());
    assert_eq!(recovered.len(), 1);
    assert_eq!(recovered[0].cells.iter().map(|cell| cell.credits).sum::<u64>(), 3);
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (journal, _) = open(&path);
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    // What is mapped goes on working; what needs a new file does not.
    let error = (0..).find_map(|n| journal.begin(entry(n)).err()).unwrap();
    assert!(matches!(&error, JournalError::Io { path: file, .. } if file.starts_with(&path)), "{error}");
    journal.forget(Ulid::from(3_u128));
    journal.begin(entry(3)).unwrap();
    drop(journal);
    assert_eq!(files(&elsewhere).len(), 1);
    // A draft of a run that was killed while it made a file.
    let draft = elsewhere.join("01ARZ3NDEKTSV4RRFFQ69G5FAV.new");
    fs::write(&draft, [0; 100]).unwrap();
    assert!(open(&elsewhere).1.len() > 1000);
    assert!(!draft.exists());
}
