//! Backups of the embedded store: looked at, and restored while no Tollgate uses the store.
//!
//! A restore makes a new file beside the store's, whole, and only then gives it the store's name. What was there is moved
//! aside and never deleted. Journals stay: leases in them that the backup knows are settled by what was really spent; those of
//! the backup that no journal knows count as spent in full when they expire. So a limit counts at least what was charged
//! when the backup was taken.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::config::{Config, StoreUrl};
use crate::store::backup::{self, BackupError, Header};
use crate::store::embedded::{self, CopyError, OpenError};

/// Why a backup was not restored. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store is not the embedded one.
    #[error(
        "the configured store is Redis; restore it by its own means (README, \"Bulk, backup and restore\")"
    )]
    Redis,
    /// There is something in the store.
    #[error(
        "{} is a store with something in it; give --force to move it aside and restore in its place",
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// The store's file cannot be looked at.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The backup cannot be used.
    #[error("{}: {source}", path.display())]
    Backup {
        /// The backup.
        path: PathBuf,
        /// What is wrong with it.
        source: CopyError,
    },
    /// The operating system refuses.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A backup that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// When it was taken.
    pub taken_at: String,
    /// Rows of all tables.
    pub rows: u64,
    /// What was in the store's place, and where it is now.
    pub moved: Option<PathBuf>,
}

impl Summary {
    fn new(header: Header, rows: u64, moved: Option<PathBuf>) -> Self {
        Self { taken_at: header.taken_at, rows, moved }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { what, path, source }
}

fn unusable(path: &Path) -> impl Fn(CopyError) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Backup { path: path.clone(), source }
}

/// Reads a backup to its end, and says what it is. Changes nothing.
pub fn check(path: &Path) -> Result<Summary, RestoreError> {
    let file = File::open(path).map_err(|error| unusable(path)(BackupError::Io(error).into()))?;
    let checked = backup::check(BufReader::new(file)).map_err(CopyError::from);
    let (header, rows) = checked.map_err(unusable(path))?;
    Ok(Summary::new(header, rows, None))
}

/// Makes the configured store of a backup. One that has something in it is refused, or with `force` moved aside.
pub fn restore(config: &Config, backup: &Path, force: bool) -> Result<Summary, RestoreError> {
    let StoreUrl::Embedded { path } = &config.store.url else { return Err(RestoreError::Redis) };
    // The whole of it, before anything is touched.
    check(backup)?;
    let there = path.exists();
    match embedded::is_blank(path) {
        Ok(true) => {}
        Ok(false) if force => {}
        Ok(false) => return Err(RestoreError::NotEmpty(path.clone())),
        Err(OpenError::Damaged { .. } | OpenError::Format { .. }) if force => {}
        Err(error) => return Err(error.into()),
    }
    let draft = beside(path, "restoring");
    remove(&draft)?;
    let file = File::open(backup).map_err(io_error("cannot read", backup))?;
    let made = embedded::restore(&draft, BufReader::new(file)).map_err(unusable(backup));
    let (header, rows) = match made {
        Ok(made) => made,
        Err(error) => {
            remove(&draft)?;
            return Err(error);
        }
    };
    let moved =
        there.then(|| beside(path, &format!("before-restore-{}", jiff::Timestamp::now().as_second())));
    if let Some(moved) = &moved {
        fs::rename(path, moved).map_err(io_error("cannot move aside", path))?;
    }
    fs::rename(&draft, path).map_err(io_error("cannot put in place", path))?;
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("cannot write", folder))?;
    }
    Ok(Summary::new(header, rows, moved))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Takes away what an earlier restore left unfinished.
fn remove(draft: &Path) -> Result<(), RestoreError> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", draft)(error)),
        _ => Ok(()),
    }
}
