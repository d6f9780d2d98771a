//! A journal's file with any of its bytes changed: it is opened, and no lease is told to have paid for more than it did,
//! unless the very counters were changed.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ulid::Ulid;

use crate::ledger::journal::{Journal, LeaseEntry};
use crate::policy::{AccountId, Operation, Pool, TokenId};

/// Where the large places begin.
const LARGE: usize = 6144 * 16 * 8;

struct Template {
    name: std::ffi::OsString,
    bytes: Vec<u8>,
}

fn directory() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let name = format!("tollgate-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = base.join(name);
    fs::create_dir(&path).expect("a directory");
    path
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let directory = directory();
        let (journal, _, _) = Journal::open(&directory, node()).expect("a journal");
        for lease in 1..=3_u128 {
            let entry = LeaseEntry {
                lease: Ulid(lease),
                account: AccountId::default_account(),
                token: TokenId::parse("tok_01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("an id"),
                pool: Pool::Core,
            };
            journal.begin(entry.clone()).expect("room");
            for dataset in ["", "MY/CARS", "A_LONG/NAME_OF_A_DATA_SET_THAT_NEEDS_A_LARGE_PLACE_IN_THE_FILE_OF_CELLS_AND_MORE"] {
                let cell = journal.cell(&entry, dataset, Operation::Read, 3600).expect("room");
                cell.charge(7);
            }
        }
        let file = fs::read_dir(&directory).expect("its directory").filter_map(Result::ok);
        let file = file.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "cells"));
        let file = file.expect("a file");
        let template = Template {
            name: file.file_name().expect("a name").to_owned(),
            bytes: fs::read(&file).expect("its bytes"),
        };
        drop(journal);
        fs::remove_dir_all(directory).expect("to clean up");
        template
    })
}

fn node() -> Ulid {
    Ulid(42)
}

/// Checks one input: the file's length is cut by the first two bytes, then triples of place and value follow.
pub fn check(data: &[u8]) {
    let Some((&[high, low], changes)) = data.split_first_chunk::<2>() else { return };
    let template = template();
    let mut bytes = template.bytes.clone();
    bytes.truncate(bytes.len() - usize::from(u16::from_be_bytes([high, low])));
    for change in changes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
        let at = if at < 0x8000 { at } else { LARGE + at - 0x8000 };
        if let Some(byte) = bytes.get_mut(at) {
            *byte = change[2];
        }
    }
    let directory = directory();
    fs::write(directory.join(&template.name), &bytes).expect("to write");
    let (journal, recovered, _aside) = Journal::open(&directory, node()).expect("a journal opens, whatever is in it");
    assert!(recovered.len() <= 3, "leases from nowhere");
    if changes.len() < 3 && high == 0 && low == 0 {
        let credits: u64 = recovered.iter().flat_map(|left| &left.cells).map(|cell| cell.credits).sum();
        assert_eq!((recovered.len(), credits), (3, 3 * 3 * 7));
    }
    for left in &recovered {
        journal.forget(left.entry.lease);
    }
    drop(journal);
    // What was settled is not told again.
    let (_journal, recovered, _) = Journal::open(&directory, node()).expect("a journal opens again");
    assert!(recovered.is_empty(), "settled, and told again");
    fs::remove_dir_all(directory).expect("to clean up");
}
