//! The mapping: which token stands for which entry of the file, one JSON object a line. It holds values, so only its owner can
//! read it, and a file that is there is never written over.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::source::Item;
use super::tally::is;

/// A mapping that is being written.
pub(super) struct Mapping {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Mapping {
    /// Makes the file.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.with_context(|| {
            format!(
                "cannot make the mapping {} (nothing was written; a file that is there stays)",
                path.display()
            )
        })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// Adds what came of an item, unless the file to import has its value itself.
    pub(super) fn add(&mut self, item: &Item, outcome: &Value) -> anyhow::Result<()> {
        if is(outcome, "refused") || is(outcome, "failed") || item.brings_value() {
            return Ok(());
        }
        let line = json!({
            "name": item.name,
            "place": item.place,
            "key_sha256": item.key_sha256,
            "id": outcome.get("id"),
            // `null`: it is sealed; `tollgate token reveal` shows it.
            "token": outcome.get("token"),
        });
        writeln!(self.file, "{line}").with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Sees to it that it is on the disk.
    pub(super) fn close(mut self) -> anyhow::Result<()> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}
