//! Signatures that were used: in memory, and beside the store's file.
//!
//! A round through the writing thread and its `fsync` would make each signed request wait for the disk. So they are kept in
//! memory and appended to small files, one `write` for each call. The page cache outlives the process: after `kill -9` the
//! next start reads the files and knows them all. After a power failure those of the last seconds before it may be
//! lost, and such a signature is good once more for as long as it is not stale.
//!
//! The files are `STORE.seen-N`: rows of a key (16 bytes) and the second in which it is forgotten (8 bytes). A row that
//! is torn is the last one of its file, since each start and each failed write begins a new file. A file goes away when
//! nothing in it counts any more.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::super::{Remembered, Sighting, StoreError};
use super::file::OpenError;
use crate::policy::AccountId;
use crate::policy::signature::Fingerprint;

/// Bytes of a row.
const ROW: usize = 24;
/// After so many seconds a new file is begun, so that old ones can go.
const FILE_SECONDS: i64 = 60;

/// An account and a fingerprint in one.
type Key = [u8; 16];

/// The memory of signatures.
#[derive(Debug)]
pub(super) struct Signatures {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The nonce of each one's use; 0: an earlier run saw it.
    seen: HashMap<Key, u128>,
    /// Which are forgotten in which second.
    ends: BTreeMap<i64, Vec<Key>>,
    files: Files,
}

impl Signatures {
    /// Reads what earlier runs remembered for the store at `path`.
    pub(super) fn open(path: &Path, most: usize, now: Timestamp) -> Result<Self, OpenError> {
        let mut inner = Inner { seen: HashMap::new(), ends: BTreeMap::new(), files: Files::new(path) };
        for (number, file) in inner.files.list().map_err(|source| io_error(path, source))? {
            let bytes = fs::read(&file).map_err(|source| io_error(&file, source))?;
            let mut last = i64::MIN;
            for row in bytes.chunks_exact(ROW) {
                let Some((key, end)) = parse_row(row) else { continue };
                last = last.max(end);
                if end > now.as_second() && inner.seen.insert(key, 0).is_none() {
                    inner.ends.entry(end).or_default().push(key);
                }
            }
            inner.files.old.push((last, file));
            inner.files.next = inner.files.next.max(number.saturating_add(1));
        }
        inner.files.forget(now.as_second());
        Ok(Self { most, inner: Mutex::new(inner) })
    }

    /// Remembers signatures, and says of each whether it was used before.
    pub(super) fn remember(
        &self,
        account: &AccountId,
        sightings: &[Sighting],
        now: Timestamp,
    ) -> Result<Vec<Remembered>, StoreError> {
        let mut inner = self.inner.lock();
        inner.forget(now.as_second());
        let mut fresh: HashMap<Key, (u128, i64)> = HashMap::new();
        let mut answers = Vec::with_capacity(sightings.len());
        for sighting in sightings {
            let key = key_of(account, sighting.fingerprint);
            let used = inner.seen.get(&key).or_else(|| fresh.get(&key).map(|(nonce, _)| nonce));
            answers.push(match used {
                Some(nonce) if *nonce == sighting.nonce => Remembered::New,
                Some(_) => Remembered::Seen,
                None if inner.seen.len() + fresh.len() >= self.most => Remembered::Full,
                None => {
                    fresh.insert(key, (sighting.nonce, end_of(now, sighting)));
                    Remembered::New
                }
            });
        }
        let rows: Vec<u8> = fresh.iter().flat_map(|(key, (_, end))| row(key, *end)).collect();
        let last = fresh.values().map(|(_, end)| *end).max();
        if let Some(last) = last {
            // What could not be written down is not remembered, and so is not let through.
            inner.files.append(&rows, last, now.as_second()).map_err(|error| {
                StoreError::Unavailable(format!("used signatures cannot be written down: {error}"))
            })?;
        }
        for (key, (nonce, end)) in fresh {
            inner.seen.insert(key, nonce);
            inner.ends.entry(end).or_default().push(key);
        }
        Ok(answers)
    }
}

impl Inner {
    fn forget(&mut self, now: i64) {
        while let Some(entry) = self.ends.first_entry().filter(|entry| *entry.key() <= now) {
            for key in entry.remove() {
                self.seen.remove(&key);
            }
        }
        self.files.forget(now);
    }
}

fn key_of(account: &AccountId, fingerprint: Fingerprint) -> Key {
    let digest: [u8; 32] =
        Sha256::new().chain_update(fingerprint.0).chain_update(account.as_str()).finalize().into();
    let mut key = [0; 16];
    key.iter_mut().zip(digest).for_each(|(place, byte)| *place = byte);
    key
}

/// The first second in which it is forgotten.
fn end_of(now: Timestamp, sighting: &Sighting) -> i64 {
    let life = SignedDuration::try_from(sighting.life).unwrap_or(SignedDuration::MAX);
    now.checked_add(life).map_or(i64::MAX, |end| end.as_second().saturating_add(1))
}

fn row(key: &Key, end: i64) -> [u8; ROW] {
    let mut row = [0; ROW];
    row.iter_mut().zip(key.iter().chain(&end.to_le_bytes())).for_each(|(place, byte)| *place = *byte);
    row
}

fn parse_row(row: &[u8]) -> Option<(Key, i64)> {
    let (key, end) = row.split_first_chunk::<16>()?;
    Some((*key, i64::from_le_bytes(end.try_into().ok()?)))
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}

/// The files beside the store.
#[derive(Debug)]
struct Files {
    store: PathBuf,
    next: u64,
    current: Option<Current>,
    /// Files that are written no more, and until when they count.
    old: Vec<(i64, PathBuf)>,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    begun: i64,
    last: i64,
}

impl Files {
    fn new(store: &Path) -> Self {
        Self { store: store.to_owned(), next: 0, current: None, old: Vec::new() }
    }

    fn prefix(&self) -> OsString {
        let mut name = self.store.file_name().unwrap_or_default().to_owned();
        name.push(".seen-");
        name
    }

    /// The files that are there, with their numbers.
    fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let prefix = self.prefix();
        let folder = self.store.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut found = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            found.extend(number.map(|number| (number, entry.path())));
        }
        Ok(found)
    }

    /// Appends rows, of which the last to count counts until `last`.
    fn append(&mut self, rows: &[u8], last: i64, now: i64) -> io::Result<()> {
        let begun = self.current.as_ref().map(|current| current.begun);
        if begun.is_none_or(|begun| !(begun..begun.saturating_add(FILE_SECONDS)).contains(&now)) {
            self.begin(now)?;
        }
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        current.last = current.last.max(last);
        let written = current.file.write_all(rows);
        if written.is_err() {
            // A part of a row may stand there now.
            self.retire();
        }
        written
    }

    fn begin(&mut self, now: i64) -> io::Result<()> {
        self.retire();
        let mut name = self.prefix();
        name.push(self.next.to_string());
        let path = self.store.with_file_name(name);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        self.next = self.next.saturating_add(1);
        self.current = Some(Current { file, path, begun: now, last: now });
        Ok(())
    }

    fn retire(&mut self) {
        if let Some(current) = self.current.take() {
            self.old.push((current.last, current.path));
        }
    }

    /// Takes away what counts no more.
    fn forget(&mut self, now: i64) {
        self.old.retain(|(last, path)| {
            if *last > now {
                return true;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a file of used signatures stays; it counts no more");
                }
                _ => {}
            }
            false
        });
    }
}
