//! The journal: what this node has spent and not yet settled, exact through `kill -9` (`ledger.md`).
//!
//! Memory-mapped files of fixed-size records in `state_dir/journal`. A record is a lease (written before it is asked for) or a
//! cell: responses, credits and bytes of one lease, data set, operation and hour. A record's identity is complete, with its
//! checksum, before its state word makes it count; its counters are atomics. Charging is one atomic addition, no system call.
//!
//! The page cache outlives the process. After a crash the next start reads the files and says what was spent
//! ([`Recovered`]); an old file goes when all its leases are forgotten. A file that is torn or foreign is set aside, never
//! trusted, never deleted. One process owns the directory, by a lock that the system takes back when it dies.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ulid::Ulid;

use crate::policy::{AccountId, Operation, Pool, TokenId};

mod map;
mod record;

use map::Map;
use record::{Identity, RECORD_WORDS};

/// Records of one file.
const RECORDS: usize = 2048;
/// Bytes of one file: its header takes the place of the first record.
const FILE_BYTES: usize = RECORDS * RECORD_WORDS * 8;
/// The most files of one process: about a million records.
const MOST_FILES: usize = 512;
const MAGIC: u64 = u64::from_be_bytes(*b"tollgjrn");
const VERSION: u64 = 1;

/// A lease, and what it is a lease of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseEntry {
    /// Its name.
    pub lease: Ulid,
    /// Whose budget counts.
    pub account: AccountId,
    /// Whose limit counts.
    pub token: TokenId,
    /// The pool.
    pub pool: Pool,
}

/// What a lease paid for, of one data set, by one operation, in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The data set; empty where the route names none.
    pub dataset: String,
    /// The operation.
    pub operation: Operation,
    /// When the hour began: seconds since the epoch.
    pub hour: i64,
    /// Responses.
    pub requests: u64,
    /// What they cost.
    pub credits: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// A lease that an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The lease.
    pub entry: LeaseEntry,
    /// What it paid for.
    pub cells: Vec<Cell>,
}

/// A file that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process uses the directory.
    #[error("{path} is in use by another Tollgate; give each node a state_dir of its own", path = .0.display())]
    InUse(PathBuf),
    /// The system.
    #[error("the journal in {path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// More leases and cells are open than it keeps.
    #[error("the journal is full: too many leases wait to be settled")]
    Full,
    /// A name is longer than names can be.
    #[error("the journal cannot hold a name of this length")]
    TooLong,
}

/// Where a record's counters lie, in words from its start.
const REQUESTS: usize = 1;
const CREDITS: usize = 2;
const BYTES: usize = 3;

/// One record.
#[derive(Clone)]
struct Place {
    map: Arc<Map>,
    at: usize,
}

impl Place {
    fn words(&self) -> &[AtomicU64] {
        let from = self.at * RECORD_WORDS;
        self.map.words().get(from..from + RECORD_WORDS).unwrap_or_default()
    }

    fn add(&self, counter: usize, value: u64) {
        if let Some(word) = self.words().get(counter) {
            word.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn count(&self, counter: usize) -> u64 {
        self.words().get(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn free(&self) {
        if let Some(state) = self.words().first() {
            state.store(0, Ordering::Release);
        }
    }
}

/// A cell to count in. Cheap to clone; counting is lock-free and makes no system call.
#[derive(Clone)]
pub struct CellRef(Place);

impl CellRef {
    /// One response was charged. Credits are counted before the response: a kill between the two leaves the credits,
    /// which are what is settled.
    pub fn charge(&self, credits: u64) {
        self.0.add(CREDITS, credits);
        self.0.add(REQUESTS, 1);
    }

    /// So many bytes went out.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.add(BYTES, bytes);
    }
}

/// What is known of one lease.
#[derive(Default)]
struct Known {
    places: Vec<(Identity, Place)>,
    /// The old file it comes from, if it was recovered.
    old: Option<PathBuf>,
}

#[derive(Default)]
struct Books {
    leases: HashMap<Ulid, Known>,
    free: Vec<Place>,
    files: usize,
    /// How many leases an old file still holds.
    old: HashMap<PathBuf, usize>,
}

/// The journal of one node.
pub struct Journal {
    directory: PathBuf,
    node: Ulid,
    books: Mutex<Books>,
    _lock: File,
}

impl Journal {
    /// Opens the journal in `directory`: says what an earlier run left and which files were set aside.
    pub fn open(directory: &Path, node: Ulid) -> Result<(Self, Vec<Recovered>, Vec<SetAside>), JournalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let lock_path = directory.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse(directory.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }
        let mut books = Books::default();
        let mut aside = Vec::new();
        let mut found: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed(directory))? {
            let path = entry.map_err(failed(directory))?.path();
            if path.extension().is_some_and(|extension| extension == "cells") {
                found.push(path);
            }
        }
        found.sort();
        for path in found {
            match read_old(&path) {
                Ok(records) => take_in(&mut books, &path, records),
                Err(why) => aside.push(set_aside(&path, why).map_err(failed(&path))?),
            }
        }
        let recovered = books.leases.iter().map(|(lease, known)| recovered(*lease, known)).collect();
        let journal = Self { directory: directory.to_owned(), node, books: Mutex::new(books), _lock: lock };
        // The first file is made now, so that a full disk shows at the start.
        journal.grow(&mut journal.books.lock())?;
        Ok((journal, recovered, aside))
    }

    /// Writes a lease down, before it is asked for at the store.
    pub fn begin(&self, entry: LeaseEntry) -> Result<(), JournalError> {
        self.write(Identity { entry, cell: None }).map(drop)
    }

    /// The cell for this lease, data set, operation and hour: the one there is, or a new one.
    pub fn cell(
        &self,
        entry: &LeaseEntry,
        dataset: &str,
        operation: Operation,
        hour: i64,
    ) -> Result<CellRef, JournalError> {
        let cell = Some((dataset.to_owned(), operation, hour));
        self.write(Identity { entry: entry.clone(), cell }).map(CellRef)
    }

    fn write(&self, identity: Identity) -> Result<Place, JournalError> {
        let mut books = self.books.lock();
        if let Some(known) = books.leases.get(&identity.entry.lease)
            && let Some((_, place)) = known.places.iter().find(|(known, _)| *known == identity)
        {
            return Ok(place.clone());
        }
        let words = identity.to_words().ok_or(JournalError::TooLong)?;
        if books.free.is_empty() {
            self.grow(&mut books)?;
        }
        let place = books.free.pop().ok_or(JournalError::Full)?;
        for (word, value) in place.words().iter().skip(1).zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        if let Some(state) = place.words().first() {
            state.store(1, Ordering::Release);
        }
        books.leases.entry(identity.entry.lease).or_default().places.push((identity, place.clone()));
        Ok(place)
    }

    /// Makes one more file. It is written to its end, so that no later access can find the disk full.
    fn grow(&self, books: &mut Books) -> Result<(), JournalError> {
        if books.files >= MOST_FILES {
            return Err(JournalError::Full);
        }
        let path = self.directory.join(format!("{}.cells", Ulid::generate()));
        let made = || -> io::Result<Map> {
            let draft = path.with_extension("new");
            let mut file =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&vec![0; FILE_BYTES])?;
            let map = Map::new(&file)?;
            for (word, value) in map.words().iter().zip(record::header(MAGIC, VERSION, self.node)) {
                word.store(value, Ordering::Relaxed);
            }
            fs::rename(&draft, &path)?;
            Ok(map)
        };
        let map = Arc::new(made().map_err(|source| JournalError::Io { path: path.clone(), source })?);
        books.files += 1;
        // Taken from the end, so the first record comes first; the header is no record.
        books.free.extend((1..RECORDS).rev().map(|at| Place { map: map.clone(), at }));
        Ok(())
    }

    /// All cells of a lease as they stand.
    pub fn cells(&self, lease: Ulid) -> Vec<Cell> {
        let books = self.books.lock();
        books.leases.get(&lease).map(|known| recovered(lease, known).cells).unwrap_or_default()
    }

    /// The store has settled a lease: its records are free again.
    pub fn forget(&self, lease: Ulid) {
        let mut books = self.books.lock();
        let Some(known) = books.leases.remove(&lease) else { return };
        for (_, place) in known.places {
            place.free();
            if known.old.is_none() {
                for word in place.words().iter().skip(1) {
                    word.store(0, Ordering::Relaxed);
                }
                books.free.push(place);
            }
        }
        if let Some(path) = known.old
            && let Some(left) = books.old.get_mut(&path)
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                books.old.remove(&path);
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn recovered(lease: Ulid, known: &Known) -> Recovered {
    let cells = known.places.iter().filter_map(|(identity, place)| {
        let (dataset, operation, hour) = identity.cell.clone()?;
        let [requests, credits, bytes] = [REQUESTS, CREDITS, BYTES].map(|counter| place.count(counter));
        Some(Cell { dataset, operation, hour, requests, credits, bytes })
    });
    let cells = cells.collect();
    let entry = known.places.first().map_or_else(
        || LeaseEntry {
            lease,
            account: AccountId::default_account(),
            token: TokenId::from_ulid(lease),
            pool: Pool::Core,
        },
        |(identity, _)| identity.entry.clone(),
    );
    Recovered { entry, cells }
}

/// Reads a file that an earlier run left.
fn read_old(path: &Path) -> Result<Vec<(Identity, Place)>, String> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length != FILE_BYTES as u64 {
        return Err(format!("it has {length} bytes instead of {FILE_BYTES}"));
    }
    let map = Arc::new(Map::new(&file).map_err(|error| error.to_string())?);
    let header: Vec<u64> =
        map.words().iter().take(RECORD_WORDS).map(|word| word.load(Ordering::Acquire)).collect();
    record::check_header(&header, MAGIC, VERSION)?;
    let mut records = Vec::new();
    for at in 1..RECORDS {
        let place = Place { map: map.clone(), at };
        let words: Vec<u64> = place.words().iter().map(|word| word.load(Ordering::Acquire)).collect();
        match words.first() {
            Some(0) => {}
            Some(1) => {
                let identity = Identity::from_words(words.get(1..).unwrap_or_default());
                records.push((identity.ok_or_else(|| format!("its record {at} is torn"))?, place));
            }
            _ => return Err(format!("its record {at} has no known state")),
        }
    }
    Ok(records)
}

fn take_in(books: &mut Books, path: &Path, records: Vec<(Identity, Place)>) {
    if records.is_empty() {
        let _ = fs::remove_file(path);
        return;
    }
    for (identity, place) in records {
        let known = books.leases.entry(identity.entry.lease).or_default();
        if known.old.is_none() {
            known.old = Some(path.to_owned());
            *books.old.entry(path.to_owned()).or_default() += 1;
        }
        known.places.push((identity, place));
    }
}

fn set_aside(path: &Path, why: String) -> io::Result<SetAside> {
    for number in 0_u32.. {
        let name = path.with_extension(format!("aside-{number}"));
        if !name.exists() {
            fs::rename(path, &name)?;
            return Ok(SetAside { path: name, why });
        }
    }
    Err(io::Error::other("no name is free"))
}

#[cfg(test)]
mod tests;
