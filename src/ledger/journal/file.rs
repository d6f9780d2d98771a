//! Files of records: how they are made, what lies where in them, and who holds a record's place.
//!
//! A file has 1 MiB: 6,144 small places of 16 words, the first of which is the file's header, and 512 large ones of 64
//! words, for long names. A place belongs to its [`Place`] and is given to the next record only when that is dropped, so a
//! late count can never fall into another record. What a record says is [`super::record`]'s.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use ulid::Ulid;

use super::JournalError;
use super::map::Map;
use super::record::{self, BYTES, CELLS, CREDITS, FREE, Identity, LIVE, REQUESTS, SETTLED, STATE, SUM};

const SMALL_WORDS: usize = 16;
const SMALL: usize = 6144;
const LARGE_WORDS: usize = 64;
const LARGE: usize = 512;
const FILE_WORDS: usize = SMALL * SMALL_WORDS + LARGE * LARGE_WORDS;
/// Bytes of a file.
pub(super) const FILE_BYTES: usize = FILE_WORDS * size_of::<u64>();
/// What the names of journal files end in.
pub(super) const ENDING: &str = "cells";
/// What the names of files end in that are still being made.
pub(super) const DRAFT: &str = "new";

const MAGIC: u64 = u64::from_be_bytes(*b"tollgjrn");
/// 1 had records of one size, each with the whole lease in it.
const VERSION: u64 = 2;
const HEADER_WORDS: usize = 7;

/// The directory, taken for this process until this is dropped.
pub(super) struct DirectoryLock(File);

impl DirectoryLock {
    /// Makes the directory if it is not there, and takes it.
    pub(super) fn take(directory: &Path) -> Result<Self, JournalError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(JournalError::at(directory))?;
        let path = directory.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(JournalError::at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(directory.to_owned())),
            Err(TryLockError::Error(source)) => Err(JournalError::Io { path, source }),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Said aloud, because a child process that is just being started may hold the file a moment longer.
        let _ = self.0.unlock();
    }
}

/// How large a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn of(words: &[u64]) -> Option<Self> {
        let fits = |size: &(usize, Self)| words.len() <= size.0;
        [(SMALL_WORDS, Self::Small), (LARGE_WORDS, Self::Large)].into_iter().find(fits).map(|(_, size)| size)
    }
}

/// One mapped file.
pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    map: Map,
    /// Part of every record's checksum: the header's own.
    salt: u64,
    /// Places that nobody holds, small and large. Those of an old file are not given out.
    free: Mutex<(Vec<usize>, Vec<usize>)>,
    /// Records that count.
    records: AtomicUsize,
    /// It is of an earlier run, and goes when its last record does.
    old: bool,
    /// While words can be reached, nobody else may have the directory.
    _lock: Arc<DirectoryLock>,
}

/// The words of a file's header: magic, version, the file's name, its node, checksum.
fn header(name: Ulid, node: Ulid) -> [u64; HEADER_WORDS] {
    let ([a, b], [c, d]) = (record::id_words(name), record::id_words(node));
    [MAGIC, VERSION, a, b, c, d, record::checksum([MAGIC, VERSION, a, b, c, d])]
}

impl JournalFile {
    /// Makes a file. It is written to its end before it is mapped, so that no later access can find the disk full, and gets
    /// its name last, so that a kill leaves it whole or as a draft that never held anything.
    fn create(directory: &Path, node: Ulid, lock: &Arc<DirectoryLock>) -> Result<Self, JournalError> {
        let name = Ulid::generate();
        let path = directory.join(format!("{name}.{ENDING}"));
        let draft = path.with_extension(DRAFT);
        let header = header(name, node);
        let make = || -> io::Result<Map> {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&vec![0; FILE_BYTES])?;
            let map = Map::new(&file, FILE_WORDS)?;
            for (word, value) in map.words().iter().zip(header) {
                word.store(value, Ordering::Release);
            }
            fs::rename(&draft, &path)?;
            Ok(map)
        };
        let map = make().map_err(|source| {
            // A part of a file would only take what space there is.
            let _ = fs::remove_file(&draft);
            JournalError::Io { path: path.clone(), source }
        })?;
        // Taken from the end, so the first place comes first; the header's is none.
        let free = ((1..SMALL).rev().collect(), (SMALL..SMALL + LARGE).rev().collect());
        let [.., salt] = header;
        let records = AtomicUsize::new(0);
        Ok(Self { path, map, salt, free: Mutex::new(free), records, old: false, _lock: lock.clone() })
    }

    /// Maps a file of an earlier run, whose length was looked at. The inner error says why it is not trusted.
    pub(super) fn open_old(
        path: &Path,
        node: Ulid,
        lock: &Arc<DirectoryLock>,
    ) -> Result<Result<Self, String>, JournalError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(JournalError::at(path))?;
        let map = Map::new(&file, FILE_WORDS).map_err(JournalError::at(path))?;
        Ok(check_header(path, node, map.words()).map(|salt| Self {
            path: path.to_owned(),
            map,
            salt,
            free: Mutex::default(),
            records: AtomicUsize::new(0),
            old: true,
            _lock: lock.clone(),
        }))
    }

    /// Every place that could hold a record.
    pub(super) fn places(file: &Arc<Self>) -> impl Iterator<Item = Place> {
        (1..SMALL + LARGE).map(|at| Place { file: file.clone(), at })
    }

    /// Counts a record that was found in it.
    pub(super) fn count_record(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    fn take(file: &Arc<Self>, size: Size) -> Option<Place> {
        let mut free = file.free.lock();
        let at = match size {
            Size::Small => free.0.pop(),
            Size::Large => free.1.pop(),
        }?;
        Some(Place { file: file.clone(), at })
    }
}

/// Whether the header is one of this format, name and node; its checksum.
fn check_header(path: &Path, node: Ulid, words: &[AtomicU64]) -> Result<u64, String> {
    let found: Vec<u64> = words.iter().take(HEADER_WORDS).map(|word| word.load(Ordering::Acquire)).collect();
    let &[magic, version, a, b, c, d, sum] = found.as_slice() else {
        return Err("it has no header".to_owned());
    };
    if magic != MAGIC {
        return Err("it is no journal of Tollgate, or of another kind of machine".to_owned());
    }
    if version != VERSION {
        return Err(format!("its format is {version}, and {VERSION} is known here"));
    }
    if sum != record::checksum([magic, version, a, b, c, d]) {
        return Err("its header is torn".to_owned());
    }
    let (name, writer) = (record::id_of(a, b), record::id_of(c, d));
    if path.file_name().is_none_or(|found| found != format!("{name}.{ENDING}").as_str()) {
        return Err(format!("it is a copy of {name}.{ENDING}"));
    }
    if writer != node {
        return Err(format!("it is the journal of node {writer}, and this is node {node}"));
    }
    Ok(sum)
}

/// The place of one record. The next record may have it when this is dropped.
pub(super) struct Place {
    file: Arc<JournalFile>,
    at: usize,
}

impl Place {
    fn words(&self) -> &[AtomicU64] {
        let range = match self.at.checked_sub(SMALL) {
            None => self.at * SMALL_WORDS..(self.at + 1) * SMALL_WORDS,
            Some(at) => {
                let from = SMALL * SMALL_WORDS + at * LARGE_WORDS;
                from..from + LARGE_WORDS
            }
        };
        self.file.map.words().get(range).unwrap_or_default()
    }

    /// Part of its record's checksum: a record of another file or place is none here.
    fn salt(&self) -> u64 {
        self.file.salt.wrapping_add(self.at as u64)
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.words().get(at)
    }

    fn load(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes a record, and only then makes it count.
    fn publish(&self, words: &[u64]) {
        let sum = record::sum(words, self.salt());
        for (at, (word, value)) in self.words().iter().zip(words).enumerate().skip(SUM) {
            word.store(if at == SUM { sum } else { *value }, Ordering::Relaxed);
        }
        if let Some(state) = self.word(STATE) {
            state.store(LIVE, Ordering::Release);
        }
        self.file.count_record();
    }

    /// A lease's record: it is settled, and its records are being taken out.
    pub(super) fn mark_settled(&self) {
        if let Some(state) = self.word(STATE) {
            state.swap(SETTLED, Ordering::AcqRel);
        }
    }

    /// The record counts no more. An old file goes with its last one.
    pub(super) fn retire(&self) {
        if let Some(state) = self.word(STATE) {
            // Not a store: what is written to this place later must not come before it.
            state.swap(FREE, Ordering::AcqRel);
        }
        if self.file.records.fetch_sub(1, Ordering::AcqRel) == 1 && self.file.old {
            // If it cannot be removed, the next start finds it empty and tries again.
            let _ = fs::remove_file(&self.file.path);
        }
    }

    /// A lease's record: one more cell was made for it.
    pub(super) fn count_cell(&self) {
        if let Some(word) = self.word(CELLS) {
            word.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A lease's record: how many cells were made for it.
    pub(super) fn made_cells(&self) -> u64 {
        self.load(CELLS)
    }

    /// A cell's record: one response, and what it cost. Credits first; see [`super::CellRef::charge`].
    pub(super) fn charge(&self, credits: u64) {
        if let (Some(sum), Some(requests)) = (self.word(CREDITS), self.word(REQUESTS)) {
            sum.fetch_add(credits, Ordering::Relaxed);
            requests.fetch_add(1, Ordering::Release);
        }
    }

    /// A cell's record: more credits of a response that is counted already.
    pub(super) fn charge_more(&self, credits: u64) {
        if let Some(sum) = self.word(CREDITS) {
            sum.fetch_add(credits, Ordering::Release);
        }
    }

    /// A cell's record: bytes that went out.
    pub(super) fn add_bytes(&self, bytes: u64) {
        if let Some(word) = self.word(BYTES) {
            word.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// A cell's record: requests, credits, bytes. The credits of every request that is counted are.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let requests = self.load(REQUESTS);
        (requests, self.load(CREDITS), self.load(BYTES))
    }

    /// Whether it holds a record, or what is left of one.
    pub(super) fn state(&self) -> u64 {
        self.load(STATE)
    }

    /// What it holds. `None`: that is torn.
    pub(super) fn read(&self) -> Option<Identity> {
        let words: Vec<u64> = self.words().iter().map(|word| word.load(Ordering::Acquire)).collect();
        record::read(&words, self.salt())
    }

    /// Its file.
    pub(super) fn file(&self) -> &Arc<JournalFile> {
        &self.file
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.file.old {
            let mut free = self.file.free.lock();
            if self.at < SMALL { free.0.push(self.at) } else { free.1.push(self.at) }
        }
    }
}

/// The files of this run.
pub(super) struct Shelf {
    directory: PathBuf,
    node: Ulid,
    lock: Arc<DirectoryLock>,
    most: usize,
    files: Vec<Arc<JournalFile>>,
}

impl Shelf {
    pub(super) fn new(directory: &Path, node: Ulid, lock: Arc<DirectoryLock>, most: usize) -> Self {
        Self { directory: directory.to_owned(), node, lock, most, files: Vec::new() }
    }

    /// Makes one more file.
    pub(super) fn grow(&mut self) -> Result<&Arc<JournalFile>, JournalError> {
        if self.files.len() >= self.most {
            return Err(JournalError::Full);
        }
        let file = JournalFile::create(&self.directory, self.node, &self.lock)?;
        Ok(self.files.push_mut(Arc::new(file)))
    }

    /// Writes a record to a place of its own.
    pub(super) fn place(&mut self, words: &[u64]) -> Result<Place, JournalError> {
        let size = Size::of(words).ok_or(JournalError::TooLong)?;
        let place = match self.files.iter().find_map(|file| JournalFile::take(file, size)) {
            Some(place) => place,
            None => JournalFile::take(self.grow()?, size).ok_or(JournalError::Full)?,
        };
        place.publish(words);
        Ok(place)
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }
}
