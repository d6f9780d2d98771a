//! Files that are not to be trusted: set aside with a reason, never deleted, and no lease settled by halves.

use proptest::prelude::*;

use super::*;

/// Leaves a file with one lease and its two cells, and gives its path.
fn leave(directory: &Path, n: u128) -> PathBuf {
    let before = files(directory);
    let (journal, _) = open(directory);
    journal.cell(&entry(n), "MY/CARS", Operation::Read, 3600).unwrap().charge(3);
    journal.cell(&entry(n), &"L".repeat(200), Operation::Read, 3600).unwrap().charge(4);
    let made = files(directory).into_iter().find(|path| !before.contains(path));
    made.unwrap()
}

fn credits(left: &Recovered) -> u64 {
    left.cells.iter().map(|cell| cell.credits).sum()
}

/// Byte of the words of the first record behind the header (the lease's), of the second (the first cell's), and of the
/// first large one (the other cell's).
const LEASE: usize = 128;
const CELL: usize = 256;
const LARGE: usize = 6144 * 128;

#[test]
fn foreign_and_torn_files_are_set_aside_and_the_others_still_count() {
    type Spoil = fn(&mut Vec<u8>);
    // (what is done to a good file, what is said of it)
    let table: &[(Spoil, &str)] = &[
        (|bytes| *bytes = b"hello".to_vec(), "5 bytes"),
        (Vec::clear, "0 bytes"),
        (|bytes| bytes.truncate(bytes.len() - 8), "1048568 bytes"),
        (|bytes| bytes.push(0), "1048577 bytes"),
        (|bytes| bytes.fill(0), "no journal of Tollgate"),
        (|bytes| bytes[0] ^= 1, "no journal of Tollgate"),
        (|bytes| bytes[8] = 1, "its format is 1"),
        (|bytes| bytes[16] ^= 1, "header is torn"),
        (|bytes| bytes[32] ^= 1, "header is torn"),
        (|bytes| bytes[48] ^= 1, "header is torn"),
        (|bytes| bytes[LEASE] ^= 1, "1 of its records are torn"),
        (|bytes| bytes[LEASE + 8] ^= 1, "torn"),
        (|bytes| bytes[LEASE + 16] ^= 1, "torn"),
        (|bytes| bytes[LEASE + 18] ^= 0x80, "torn"),
        (|bytes| bytes[LEASE + 56] ^= 1, "torn"),
        (|bytes| bytes[LEASE + 72] ^= 1, "torn"),
        (
            |bytes| bytes[CELL + 48] ^= 1,
            "torn; leases with readable records in it: 00000000000000000000000002",
        ),
        (|bytes| bytes[LARGE + 72 + 199] ^= 1, "torn"),
        // Nonsense, and a page at a wrong place.
        (|bytes| bytes[LEASE..4096].fill(0xff), "torn"),
        (|bytes| bytes.copy_within(LEASE..4096, 4096 + LEASE), "torn"),
    ];
    for (spoil, said) in table {
        let directory = tempfile::tempdir().unwrap();
        leave(directory.path(), 1);
        let bad = leave(directory.path(), 2);
        let mut bytes = fs::read(&bad).unwrap();
        spoil(&mut bytes);
        fs::write(&bad, &bytes).unwrap();
        let (journal, recovered, aside) = Journal::open(directory.path(), NODE).unwrap();
        assert_eq!(
            recovered.iter().map(|left| (left.entry.clone(), credits(left))).collect::<Vec<_>>(),
            [(entry(1), 7)]
        );
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert!(aside[0].why.contains(said), "{aside:?} {said}");
        assert_eq!(fs::read(&aside[0].path).unwrap(), bytes, "kept as it was");
        assert!(!bad.exists());
        // It is said once, and stays.
        journal.forget(Ulid::from(1_u128));
        drop(journal);
        assert_eq!(open(directory.path()).1, []);
        assert!(aside[0].path.exists());
    }
}

#[test]
fn the_journal_of_another_node_or_under_another_name_is_foreign() {
    let directory = tempfile::tempdir().unwrap();
    let good = leave(directory.path(), 1);
    for name in ["copy.cells", "01ARZ3NDEKTSV4RRFFQ69G5FAV.cells"] {
        fs::copy(&good, directory.path().join(name)).unwrap();
    }
    fs::create_dir(directory.path().join("directory.cells")).unwrap();
    std::os::unix::fs::symlink(&good, directory.path().join("link.cells")).unwrap();
    fs::write(directory.path().join("notes.txt"), "not ours").unwrap();
    let (journal, recovered, aside) = Journal::open(directory.path(), NODE).unwrap();
    assert_eq!(recovered.iter().map(credits).collect::<Vec<_>>(), [7], "once, not once for each copy");
    assert_eq!(aside.len(), 4, "{aside:?}");
    for why in ["it is a copy of", "it is no file"] {
        assert_eq!(aside.iter().filter(|file| file.why.contains(why)).count(), 2, "{aside:?}");
    }
    assert!(directory.path().join("notes.txt").exists());
    drop(journal);
    let (_journal, recovered, aside) = Journal::open(directory.path(), Ulid::from_parts(2, 2)).unwrap();
    assert_eq!(recovered, []);
    assert!(aside[0].why.contains("the journal of node"), "{aside:?}");
    assert!(aside[0].path.exists());
}

#[test]
fn a_lease_with_records_in_a_bad_file_is_not_settled_by_the_rest() {
    // (which of two files is lost, whether it is deleted instead of torn)
    for (lost, deleted) in [(0, false), (1, false), (0, true), (1, true)] {
        let directory = tempfile::tempdir().unwrap();
        let spread = entry(u128::MAX);
        let whole = [entry(1), entry(u128::from(u64::MAX))];
        {
            let (journal, _) = open(directory.path());
            for lease in [&spread, &whole[0]] {
                journal.cell(lease, "FIRST", Operation::Read, 0).unwrap().charge(1);
            }
            let mut n = 100;
            while journal.books.lock().shelf.len() < 2 {
                journal.begin(entry(n)).unwrap();
                n += 1;
            }
            for lease in [&spread, &whole[1]] {
                journal.cell(lease, "SECOND", Operation::Read, 0).unwrap().charge(2);
            }
        }
        let paths = files(directory.path());
        let mut bytes = fs::read(&paths[lost]).unwrap();
        bytes[1] ^= 1;
        fs::write(&paths[lost], bytes).unwrap();
        if deleted {
            fs::remove_file(&paths[lost]).unwrap();
        }
        let (journal, recovered, aside) = Journal::open(directory.path(), NODE).unwrap();
        let found = |lease: &LeaseEntry| recovered.iter().find(|left| left.entry == *lease);
        assert_eq!(found(&spread), None);
        assert_eq!(found(&whole[lost]), None);
        assert_eq!(found(&whole[1 - lost]).unwrap().cells.len(), 1);
        let copy = aside.iter().find(|file| file.why.contains("records are missing")).unwrap();
        assert!(copy.why.contains(&spread.lease.to_string()), "{aside:?}");
        assert!(copy.path.exists());
        assert_eq!(aside.len(), if deleted { 1 } else { 2 });
        // What is whole is settled as ever, and then all is quiet.
        for left in recovered {
            journal.forget(left.entry.lease);
        }
        drop(journal);
        assert_eq!(open(directory.path()).1, []);
    }
}

#[test]
fn a_run_that_was_stopped_while_it_forgot_is_finished() {
    // The way out has a step for the mark, one for each of two cells, and one for the lease's record.
    for steps in 0..=4 {
        let directory = tempfile::tempdir().unwrap();
        let file = leave(directory.path(), 1);
        leave(directory.path(), 2);
        {
            let (journal, _) = open(directory.path());
            let mut books = journal.books.lock();
            let known = books.leases.remove(&Ulid::from(1_u128)).unwrap();
            assert_eq!(known.way_out().count(), 4);
            known.way_out().take(steps).for_each(|(place, step)| step(place));
        }
        let (_journal, recovered) = open(directory.path());
        let left: Vec<_> = recovered.iter().map(|left| (left.entry.clone(), credits(left))).collect();
        let (first, second) = ((entry(1), 7), (entry(2), 7));
        assert_eq!(left, if steps == 0 { vec![first, second] } else { vec![second] }, "{steps}");
        assert_eq!(file.exists(), steps == 0, "nothing was left in it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A bit that flips anywhere but in the counters, which no checksum can cover, changes nothing or is noticed.
    #[test]
    fn a_flipped_bit_is_noticed_or_changes_nothing(
        record in prop_oneof![Just(0), Just(LEASE), Just(CELL), Just(LARGE)], at in 0..300_usize, bit in 0..8_u8
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = leave(directory.path(), 1);
        let length = if record == LARGE { 512 } else { 128 };
        prop_assume!(at < length && !((record == CELL || record == LARGE) && (24..48).contains(&at)));
        let mut bytes = fs::read(&path).unwrap();
        bytes[record + at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let (_journal, recovered, aside) = Journal::open(directory.path(), NODE).unwrap();
        match (recovered.as_slice(), aside.as_slice()) {
            ([left], []) => prop_assert!(left.entry == entry(1) && credits(left) == 7 && left.cells.len() == 2),
            ([], [file]) => prop_assert_eq!(fs::read(&file.path).unwrap(), bytes),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
