//! The file itself: opening, reading and writing it, and opening it again when it failed.

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, WriteTransaction,
};

use super::super::StoreError;
use super::copy::CopyError;
use super::reads::Reads;
use super::steps::Tables;
use super::tables::{COUNTERS, FORMAT, FORMAT_1, LEASES, META, Stopped, USED_1};

/// Why a store's file cannot be opened. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "{} is in use by another process; stop the other Tollgate, or give this one a `state_dir` of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a store, or it is damaged. It was left as it is.
    #[error(
        "{} is not a store's file, or is damaged ({why}); it was left as it is: \
         put a backup in its place, or move it away to begin anew", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A newer Tollgate wrote it.
    #[error("{} has format {found}, and this Tollgate reads format {FORMAT}; use the newer version", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: String,
    },
    /// The operating system refuses.
    #[error("cannot open {}: {source}", path.display())]
    Io {
        /// The file or its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The writing thread cannot be started.
    #[error("cannot start the thread that writes the store: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

/// Opens the database; tests put one in that fails.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The open file. After a failed write it is opened anew, since the database does not go on by itself.
pub(super) struct StoreFile {
    path: PathBuf,
    open: Opener,
    database: RwLock<Option<Database>>,
}

impl fmt::Debug for StoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StoreFile {
    /// Opens the file, or makes it and its folder.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            |source| OpenError::Io { path, source }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
        }
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        if let Err(error) = new
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(io(path)(error));
        }
        let database = {
            let path = path.to_owned();
            // Reads the whole file once, and so finds damage here rather than in the middle of the work.
            move || Builder::new().set_check_integrity_on_open(true).create(&path)
        };
        Self::open_with(path, Box::new(database))
    }

    fn open_with(path: &Path, open: Opener) -> Result<Self, OpenError> {
        let database = open().map_err(|error| refused(path, error))?;
        let store = Self { path: path.to_owned(), open, database: RwLock::new(Some(database)) };
        let damaged = |why: String| OpenError::Damaged { path: path.to_owned(), why };
        match store.lay_out().map_err(|error| damaged(reason(error)))? {
            None => Ok(store),
            Some(found) => Err(OpenError::Format { path: path.to_owned(), found }),
        }
    }

    /// Makes the tables that are missing, and brings an older file up to date; `Some`: the file's format is another,
    /// nothing was changed.
    fn lay_out(&self) -> Result<Option<String>, Stopped> {
        let guard = self.database.read();
        let transaction = guard.as_ref().ok_or_else(closed)?.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map(|format| format.value().to_owned());
            match found {
                // A table that came since without a change of the others is made below.
                Some(found) if found == FORMAT => {}
                Some(found) if found == FORMAT_1 => update(&transaction)?,
                Some(found) => return Ok(Some(found)),
                None => {}
            }
            meta.insert("format", FORMAT)?;
            Tables::open(&transaction)?;
        }
        transaction.commit()?;
        Ok(None)
    }

    /// Reads from a snapshot.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Reads) -> Result<T, Stopped>) -> Result<T, StoreError> {
        let guard = self.database.read();
        let snapshot = guard.as_ref().ok_or_else(closed)?.begin_read();
        let outcome = snapshot.map_err(Stopped::from).and_then(|snapshot| read(&Reads(snapshot)));
        outcome.map_err(|stopped| match stopped {
            Stopped::Answer(error) => error,
            failed @ Stopped::Failed(_) => StoreError::Unavailable(reason(failed)),
        })
    }

    /// A snapshot that stays as it is for as long as it is held, whatever is written meanwhile.
    pub(super) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        let guard = self.database.read();
        let snapshot = guard.as_ref().ok_or_else(closed)?.begin_read();
        snapshot.map_err(|error| StoreError::Unavailable(reason(error.into())))
    }

    /// Fills a file that was just made, in one transaction: all of it or nothing.
    pub(super) fn fill<T>(
        &self,
        fill: impl FnOnce(&mut WriteTransaction) -> Result<T, CopyError>,
    ) -> Result<T, CopyError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or_else(closed)?;
        let mut transaction = database.begin_write().map_err(Stopped::from)?;
        let filled = fill(&mut transaction)?;
        transaction.commit().map_err(Stopped::from)?;
        Ok(filled)
    }

    /// Writes one transaction, to the disk. The error says why nothing was written.
    pub(super) fn write(
        &self,
        write: impl FnOnce(&mut Tables<'_>) -> Result<(), Stopped>,
    ) -> Result<(), String> {
        if self.database.read().is_none() {
            self.reopen()?;
        }
        let outcome = self.try_write(write);
        outcome.map_err(|stopped| {
            let why = reason(stopped);
            // What this leaves behind is told by the next write.
            let _ = self.reopen();
            why
        })
    }

    fn try_write(&self, write: impl FnOnce(&mut Tables<'_>) -> Result<(), Stopped>) -> Result<(), Stopped> {
        let guard = self.database.read();
        let mut transaction = guard.as_ref().ok_or_else(closed)?.begin_write()?;
        let durable = transaction.set_durability(Durability::Immediate);
        durable.map_err(|error| Stopped::Failed(error.into()))?;
        write(&mut Tables::open(&transaction)?)?;
        Ok(transaction.commit()?)
    }

    fn reopen(&self) -> Result<(), String> {
        let mut guard = self.database.write();
        // The old one first gives up its lock on the file.
        *guard = None;
        let opened = (self.open)().map_err(|error| refused(&self.path, error).to_string())?;
        *guard = Some(opened);
        Ok(())
    }
}

/// Brings a file of format 1 up to date. What was taken and not settled was counted when it was taken, and stays so.
fn update(transaction: &WriteTransaction) -> Result<(), Stopped> {
    {
        let used = transaction.open_table(USED_1)?;
        let mut counters = transaction.open_table(COUNTERS)?;
        for row in used.iter()? {
            let (key, row) = row?;
            let [hour_start, hour, day_start, day, month_start, month, ever_start, ever] = row.value();
            let row = [hour_start, hour, 0, day_start, day, 0, month_start, month, 0, ever_start, ever, 0, 0];
            counters.insert(key.value(), row)?;
        }
    }
    transaction.delete_table(USED_1)?;
    transaction.delete_table(LEASES)?;
    Ok(())
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store's file failed and is not open again yet".to_owned())
}

fn reason(stopped: Stopped) -> String {
    match stopped {
        Stopped::Answer(error) => error.to_string(),
        Stopped::Failed(error) => format!("the store's file failed: {error}"),
    }
}

fn refused(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Io { path, source }
        }
        error => OpenError::Damaged { path, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
