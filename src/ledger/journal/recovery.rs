//! What an earlier run left: reads its files, joins the records of each lease, and sets aside what is not to be trusted.
//!
//! A lease is recovered whole or not at all. Its own record says how many cells were made for it, so a cell that is
//! missing, because its file was set aside or is gone, is noticed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ulid::Ulid;

use super::file::{DRAFT, DirectoryLock, ENDING, FILE_BYTES, JournalFile, Place};
use super::record::{FREE, Identity, LIVE, SETTLED};
use super::{Counted, JournalError, Known, LeaseEntry, SetAside};

/// The records of one lease, from all files.
#[derive(Default)]
struct Found {
    /// Its own record, and whether it is settled; more than one is a sign of damage.
    homes: Vec<(LeaseEntry, Place, bool)>,
    cells: Vec<Counted>,
}

impl Found {
    fn settled(&self) -> bool {
        self.homes.iter().any(|(_, _, settled)| *settled)
    }

    fn whole(&self) -> bool {
        matches!(self.homes.as_slice(), [(_, home, _)] if home.made_cells() <= self.cells.len() as u64)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        // Cells first: the lease's own record says what the others are.
        let cells = self.cells.iter().map(|counted| counted.place.as_ref());
        cells.chain(self.homes.iter().map(|(_, home, _)| home))
    }

    fn retire(&self) {
        self.places().for_each(Place::retire);
    }

    fn into_known(mut self) -> Option<Known> {
        let (entry, home, _) = self.homes.pop()?;
        self.cells.sort_by(|one, other| one.key().cmp(&other.key()));
        Some(Known { entry, home, cells: self.cells })
    }
}

/// Reads what is in `directory`.
pub(super) fn recover(
    directory: &Path,
    node: Ulid,
    lock: &Arc<DirectoryLock>,
) -> Result<(HashMap<Ulid, Known>, Vec<SetAside>), JournalError> {
    let mut leases: HashMap<Ulid, Found> = HashMap::new();
    let mut aside = Vec::new();
    for path in list(directory)? {
        match read_file(&path, node, lock)? {
            Ok(records) if records.is_empty() => {
                fs::remove_file(&path).map_err(JournalError::at(&path))?;
            }
            Ok(records) => {
                for (identity, place, settled) in records {
                    place.file().count_record();
                    take_in(&mut leases, identity, place, settled);
                }
            }
            Err(why) => {
                let name = free_name(&path).and_then(|name| fs::rename(&path, &name).map(|()| name));
                aside.push(SetAside { path: name.map_err(JournalError::at(&path))?, why });
            }
        }
    }
    // An earlier run was stopped while it took these out.
    leases.retain(|_, found| {
        if found.settled() {
            found.retire();
        }
        !found.settled()
    });
    let (whole, damaged): (HashMap<Ulid, Found>, HashMap<Ulid, Found>) =
        leases.into_iter().partition(|(_, found)| found.whole());
    copy_aside(&damaged, &mut aside)?;
    damaged.values().for_each(Found::retire);
    let known = whole.into_iter().filter_map(|(lease, found)| Some((lease, found.into_known()?))).collect();
    Ok((known, aside))
}

/// The journal files, oldest first. Drafts never held anything and go.
fn list(directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(JournalError::at(directory))? {
        let path = entry.map_err(JournalError::at(directory))?.path();
        let ends = |ending: &str| path.extension().is_some_and(|extension| extension == ending);
        if ends(ENDING) {
            paths.push(path);
        } else if ends(DRAFT) {
            fs::remove_file(&path).map_err(JournalError::at(&path))?;
        }
    }
    paths.sort();
    Ok(paths)
}

type Record = (Identity, Place, bool);

/// The records of one file. The inner error says why it is not trusted. What the system refuses (permission, open files)
/// makes a file no worse, and ends the start instead.
fn read_file(
    path: &Path,
    node: Ulid,
    lock: &Arc<DirectoryLock>,
) -> Result<Result<Vec<Record>, String>, JournalError> {
    let metadata = fs::symlink_metadata(path).map_err(JournalError::at(path))?;
    if !metadata.is_file() {
        return Ok(Err("it is no file".to_owned()));
    }
    if metadata.len() != FILE_BYTES as u64 {
        return Ok(Err(format!("it has {} bytes instead of {FILE_BYTES}", metadata.len())));
    }
    let file = match JournalFile::open_old(path, node, lock)? {
        Ok(file) => Arc::new(file),
        Err(why) => return Ok(Err(why)),
    };
    let mut records = Vec::new();
    let mut torn = 0_usize;
    for place in JournalFile::places(&file) {
        let settled = match place.state() {
            FREE => continue,
            LIVE => Some(false),
            SETTLED => Some(true),
            _ => None,
        };
        match settled.zip(place.read()) {
            Some((settled, identity)) => records.push((identity, place, settled)),
            None => torn += 1,
        }
    }
    if torn == 0 {
        return Ok(Ok(records));
    }
    let lease = |(identity, ..): &Record| match identity {
        Identity::Lease(entry) => entry.lease,
        Identity::Cell { lease, .. } => *lease,
    };
    let not_settled = naming(records.iter().map(lease));
    Ok(Err(format!("{torn} of its records are torn; leases with readable records in it: {not_settled}")))
}

fn take_in(leases: &mut HashMap<Ulid, Found>, identity: Identity, place: Place, settled: bool) {
    match identity {
        Identity::Lease(entry) => {
            leases.entry(entry.lease).or_default().homes.push((entry, place, settled));
        }
        Identity::Cell { lease, dataset, operation, hour } => {
            let counted = Counted { dataset: dataset.into(), operation, hour, place: Arc::new(place) };
            leases.entry(lease).or_default().cells.push(counted);
        }
    }
}

/// Copies each file with records of leases that are not whole: the records are taken out of it, and other leases in it still
/// count.
fn copy_aside(damaged: &HashMap<Ulid, Found>, aside: &mut Vec<SetAside>) -> Result<(), JournalError> {
    let mut files: HashMap<&Path, Vec<Ulid>> = HashMap::new();
    for (lease, found) in damaged {
        for place in found.places() {
            files.entry(&place.file().path).or_default().push(*lease);
        }
    }
    for (path, leases) in files {
        let copied = free_name(path).and_then(|name| fs::copy(path, &name).map(|_| name));
        let why = format!("a copy, for leases whose other records are missing: {}", naming(leases));
        aside.push(SetAside { path: copied.map_err(JournalError::at(path))?, why });
    }
    Ok(())
}

/// A few leases by name, for people.
fn naming(leases: impl IntoIterator<Item = Ulid>) -> String {
    let mut leases: Vec<Ulid> = leases.into_iter().collect();
    leases.sort();
    leases.dedup();
    let mut names: Vec<String> = leases.iter().take(8).map(Ulid::to_string).collect();
    if leases.len() > names.len() {
        names.push(format!("and {} more", leases.len() - names.len()));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn free_name(path: &Path) -> io::Result<PathBuf> {
    let mut names = (0..10_000).map(|number| path.with_extension(format!("aside-{number}")));
    names.find(|name| !name.exists()).ok_or_else(|| io::Error::other("no name is free to set it aside"))
}
