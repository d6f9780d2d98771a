//! The journal: what this node has spent and not yet settled, exact through `kill -9` (`ledger.md`).
//!
//! Memory-mapped files of fixed-size records in `state_dir/journal` (`file`). A record is a lease, written before it is asked
//! for, or a cell: responses, credits and bytes of one lease, data set, operation and hour (`record`). Charging is two atomic
//! additions, no system call and no lock.
//!
//! The page cache outlives the process. Whatever stops it, the files hold what its instructions stored up to there, in
//! their order; so each step below is ordered such that its beginnings alone can be read, too. After a crash the next
//! start says what was spent (`recovery`); an old file goes when all its leases are forgotten. A file that is torn or
//! foreign is set aside, never trusted, never deleted; and a lease that had records in one is not settled by what is
//! left of it, but left to count as spent in full (law 1 before comfort).
//!
//! What this does not promise: after a power cut the files may hold older counts. One process owns the directory, by a
//! lock that the system takes back when it dies. Knows no store and no clock.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use ulid::Ulid;

use crate::policy::{AccountId, Operation, Pool, TokenId};

mod file;
mod map;
mod record;
mod recovery;

use file::{DirectoryLock, Place, Shelf};

/// The most files of one process: 256 MiB, or some 1.5 million records of usual size.
const MOST_FILES: usize = 256;

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

/// A lease that an earlier run left. It stays in the journal until it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The lease.
    pub entry: LeaseEntry,
    /// What it paid for: all of it.
    pub cells: Vec<Cell>,
}

/// A file that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now.
    pub path: PathBuf,
    /// What is wrong with it, and which leases are not settled for that.
    pub why: String,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process uses the directory.
    #[error("{path} is in use by another Tollgate; give each node a state_dir of its own", path = .0.display())]
    InUse(PathBuf),
    /// The system: no space, no permission.
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

impl JournalError {
    /// For `map_err`: the system's word about `path`.
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Room for so many leases is always kept.
const ROOM: usize = 1_024;

/// A cell to count in. Cheap to clone; counting is lock-free and makes no system call.
///
/// Charge only while the lease is open: what is charged after [`Journal::cells`] was read for its settlement is not in
/// it. A charge after [`Journal::forget`] is lost, and falls into no other lease's cell.
#[derive(Clone)]
pub struct CellRef(Arc<Place>);

impl CellRef {
    /// One response was charged. Its credits are counted before the response is: a kill between the two leaves the
    /// credits, which are what is settled, and may leave out the response, one for each thread at most.
    pub fn charge(&self, credits: u64) {
        self.0.charge(credits);
    }

    /// More credits of a response that was charged before: its price grows while it flows.
    pub fn charge_more(&self, credits: u64) {
        self.0.charge_more(credits);
    }

    /// So many bytes went out.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.add_bytes(bytes);
    }
}

/// What is known of one lease.
struct Known {
    entry: LeaseEntry,
    /// The lease's own record.
    home: Place,
    /// In the order of data set, operation and hour. Most leases have one, and many leases may be open.
    cells: Vec<Counted>,
}

struct Counted {
    dataset: Box<str>,
    operation: Operation,
    hour: i64,
    place: Arc<Place>,
}

impl Counted {
    fn key(&self) -> (&str, Operation, i64) {
        (&self.dataset, self.operation, self.hour)
    }
}

impl Known {
    /// Where a cell is, or would be.
    fn find(&self, dataset: &str, operation: Operation, hour: i64) -> Result<usize, usize> {
        self.cells.binary_search_by(|cell| cell.key().cmp(&(dataset, operation, hour)))
    }

    fn cells(&self) -> Vec<Cell> {
        let cell = |counted: &Counted| {
            let (requests, credits, bytes) = counted.place.counts();
            let (operation, hour) = (counted.operation, counted.hour);
            Cell { dataset: counted.dataset.to_string(), operation, hour, requests, credits, bytes }
        };
        self.cells.iter().map(cell).collect()
    }

    /// The steps that take the lease's records out of the files. From the first on the lease counts as forgotten; a start
    /// after a kill between two of them finishes it.
    fn way_out(&self) -> impl Iterator<Item = (&Place, fn(&Place))> {
        let cells = self.cells.iter().map(|counted| counted.place.as_ref());
        let mark: (&Place, fn(&Place)) = (&self.home, Place::mark_settled);
        let retired = cells.chain([&self.home]).map(|place| (place, Place::retire as fn(&Place)));
        std::iter::once(mark).chain(retired)
    }
}

struct Books {
    leases: HashMap<Ulid, Known>,
    shelf: Shelf,
}

/// The journal of one node. The directory stays locked until it and every [`CellRef`] of it are dropped.
pub struct Journal {
    books: Mutex<Books>,
}

impl Journal {
    /// Whether nobody has the journal in `directory` open.
    ///
    /// # Errors
    /// [`JournalError::InUse`]: somebody has.
    pub fn check_free(directory: &Path) -> Result<(), JournalError> {
        DirectoryLock::take(directory).map(drop)
    }

    /// Opens the journal in `directory`: says what an earlier run left and which files were set aside.
    pub fn open(directory: &Path, node: Ulid) -> Result<(Self, Vec<Recovered>, Vec<SetAside>), JournalError> {
        Self::open_bounded(directory, node, MOST_FILES)
    }

    fn open_bounded(
        directory: &Path,
        node: Ulid,
        most_files: usize,
    ) -> Result<(Self, Vec<Recovered>, Vec<SetAside>), JournalError> {
        let lock = Arc::new(DirectoryLock::take(directory)?);
        let (leases, aside) = recovery::recover(directory, node, &lock)?;
        let left = |known: &Known| Recovered { entry: known.entry.clone(), cells: known.cells() };
        let mut recovered: Vec<Recovered> = leases.values().map(left).collect();
        recovered.sort_by_key(|left| left.entry.lease);
        let mut shelf = Shelf::new(directory, node, lock, most_files);
        // The first file is made now, so that a full disk shows at the start.
        shelf.grow()?;
        Ok((Self { books: Mutex::new(Books { leases, shelf }) }, recovered, aside))
    }

    /// Writes a lease down, before it is asked for at the store. Said twice, it changes nothing.
    pub fn begin(&self, entry: LeaseEntry) -> Result<(), JournalError> {
        let Books { leases, shelf } = &mut *self.books.lock();
        known(leases, shelf, Cow::Owned(entry)).map(drop)
    }

    /// The cell for this lease, data set, operation and hour: the one there is, or a new one. Data sets are told apart
    /// letter by letter.
    pub fn cell(
        &self,
        entry: &LeaseEntry,
        dataset: &str,
        operation: Operation,
        hour: i64,
    ) -> Result<CellRef, JournalError> {
        let Books { leases, shelf } = &mut *self.books.lock();
        let known = known(leases, shelf, Cow::Borrowed(entry))?;
        let at = match known.find(dataset, operation, hour) {
            Ok(at) => {
                return known.cells.get(at).map(|cell| CellRef(cell.place.clone())).ok_or(JournalError::Full);
            }
            Err(at) => at,
        };
        let words = record::cell_words(entry.lease, dataset, operation, hour);
        let place = Arc::new(shelf.place(&words.ok_or(JournalError::TooLong)?)?);
        // Before the cell can be charged: a cell that is missed later is known to be missing.
        known.home.count_cell();
        if known.cells.is_empty() {
            known.cells.reserve_exact(1);
        }
        known.cells.insert(at, Counted { dataset: dataset.into(), operation, hour, place: place.clone() });
        Ok(CellRef(place))
    }

    /// All cells of a lease as they stand, in no order.
    pub fn cells(&self, lease: Ulid) -> Vec<Cell> {
        self.books.lock().leases.get(&lease).map(Known::cells).unwrap_or_default()
    }

    /// How many leases it keeps, and how many bytes its files of this run have.
    pub fn extent(&self) -> (usize, usize) {
        let books = self.books.lock();
        (books.leases.len(), books.shelf.len() * file::FILE_BYTES)
    }

    /// The store has settled a lease: its records are free again.
    pub fn forget(&self, lease: Ulid) {
        let Books { leases, .. } = &mut *self.books.lock();
        if let Some(known) = leases.remove(&lease) {
            known.way_out().for_each(|(place, step)| step(place));
        }
        // After many were open at once.
        if leases.capacity() > ROOM && leases.len() < leases.capacity() / 8 {
            leases.shrink_to(leases.len() * 2);
        }
    }
}

/// The lease as it is known, written down if it is not yet.
fn known<'b>(
    leases: &'b mut HashMap<Ulid, Known>,
    shelf: &mut Shelf,
    entry: Cow<'_, LeaseEntry>,
) -> Result<&'b mut Known, JournalError> {
    match leases.entry(entry.lease) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(place) => {
            let home = shelf.place(&record::lease_words(&entry).ok_or(JournalError::TooLong)?)?;
            Ok(place.insert(Known { entry: entry.into_owned(), home, cells: Vec::new() }))
        }
    }
}

#[cfg(test)]
mod tests;
