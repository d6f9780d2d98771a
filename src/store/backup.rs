//! The form of a backup: all that a store holds, as of one moment.
//!
//! A file begins with one line of JSON, which says what it is ([`Header`]). Then come tables, each with its rows as the store
//! itself writes them down, and at the end the number of rows and SHA-256 of all before it. So a file that was torn, or
//! changed, or is something else, is known before a byte of it is used. Secret values are in it sealed, as in the store; digests
//! and publishable values are not. Knows no store; [`super::embedded`] writes and reads tables.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of this form.
const VERSION: u32 = 1;
/// The longest first line.
const MAX_HEADER: u64 = 4096;
/// The longest key or value: what is longer was never written by us.
const MAX_PART: u32 = 256 * 1024 * 1024;
/// A table begins: its name follows.
const TABLE: u8 = b'T';
/// A row of it: key and value follow.
const ROW: u8 = b'R';
/// The end: the number of rows and the checksum follow.
const END: u8 = b'E';

/// The pieces of a backup, one after the other. The last one is missing if something went wrong, and so is the checksum.
pub type Pieces = tokio::sync::mpsc::Receiver<Vec<u8>>;

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the form: 1.
    pub tollgate_backup: u32,
    /// The kind of store: `embedded`.
    pub store: String,
    /// The version of the store's own layout.
    pub layout: String,
    /// When it was taken.
    pub taken_at: String,
    /// Who wrote it.
    pub version: String,
}

impl Header {
    /// A backup of this form.
    pub fn new(store: &str, layout: &str, taken_at: &impl ToString) -> Self {
        Self {
            tollgate_backup: VERSION,
            store: store.to_owned(),
            layout: layout.to_owned(),
            taken_at: taken_at.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Why a file cannot be restored from.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is no backup.
    #[error("it is not a backup of Tollgate")]
    Foreign,
    /// A newer Tollgate wrote it.
    #[error("it has form {0}, and this Tollgate reads form {VERSION}; use the newer version")]
    Version(u32),
    /// It ends too early, or was changed.
    #[error("it is torn or was changed ({0}); take another backup")]
    Damaged(&'static str),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Writes a backup.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    hash: Sha256,
    rows: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a backup.
    pub fn begin(inner: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { inner, hash: Sha256::new(), rows: 0 };
        let line = serde_json::to_string(header)? + "\n";
        writer.put(line.as_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn put_part(&mut self, part: &[u8]) -> io::Result<()> {
        let length = u32::try_from(part.len()).ok().filter(|length| *length <= MAX_PART);
        let length = length.ok_or_else(|| io::Error::other("a row is longer than a backup can hold"))?;
        self.put(&length.to_le_bytes())?;
        self.put(part)
    }

    /// A table begins.
    pub fn table(&mut self, name: &str) -> io::Result<()> {
        self.put(&[TABLE])?;
        self.put_part(name.as_bytes())
    }

    /// A row of it.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.put(&[ROW])?;
        self.put_part(key)?;
        self.put_part(value)
    }

    /// The end. Only what has one is a backup.
    pub fn end(mut self) -> io::Result<W> {
        self.put(&[END])?;
        self.put(&self.rows.to_le_bytes())?;
        let digest: [u8; 32] = self.hash.finalize().into();
        self.inner.write_all(&digest)?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

/// What comes next in a backup.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A table of this name.
    Table(String),
    /// A row of the table.
    Row(Vec<u8>, Vec<u8>),
    /// Nothing: that was all, and the checksum is right.
    End {
        /// How many rows there were.
        rows: u64,
    },
}

/// Reads a backup.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    hash: Sha256,
    rows: u64,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read.
    pub fn begin(mut inner: R) -> Result<(Header, Self), BackupError> {
        let mut line = Vec::new();
        (&mut inner).take(MAX_HEADER).read_until(b'\n', &mut line)?;
        // Another version may have other fields; which it is must be known first.
        let value: serde_json::Value = serde_json::from_slice(&line).map_err(|_| BackupError::Foreign)?;
        let version = value.get("tollgate_backup").and_then(serde_json::Value::as_u64);
        match version.map(u32::try_from) {
            Some(Ok(VERSION)) => {}
            Some(Ok(other)) => return Err(BackupError::Version(other)),
            Some(Err(_)) | None => return Err(BackupError::Foreign),
        }
        let header = serde_json::from_value(value).map_err(|_| BackupError::Damaged("its first line"))?;
        let mut reader = Self { inner, hash: Sha256::new(), rows: 0 };
        reader.hash.update(&line);
        Ok((header, reader))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(torn)?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    fn take_part(&mut self) -> Result<Vec<u8>, BackupError> {
        let length = u32::from_le_bytes(self.take()?);
        if length > MAX_PART {
            return Err(BackupError::Damaged("a length that cannot be"));
        }
        let mut part = Vec::new();
        // Grows with what is there, whatever the length says.
        (&mut self.inner).take(u64::from(length)).read_to_end(&mut part)?;
        if part.len() != usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(BackupError::Damaged("it ends too early"));
        }
        self.hash.update(&part);
        Ok(part)
    }

    /// What comes next. After the end there is nothing more to ask for.
    pub fn next_part(&mut self) -> Result<Next, BackupError> {
        let [kind] = self.take()?;
        match kind {
            TABLE => {
                let name = String::from_utf8(self.take_part()?);
                name.map(Next::Table).map_err(|_| BackupError::Damaged("a table's name"))
            }
            ROW => {
                self.rows += 1;
                Ok(Next::Row(self.take_part()?, self.take_part()?))
            }
            END => {
                let rows = u64::from_le_bytes(self.take()?);
                let expected: [u8; 32] = self.hash.clone().finalize().into();
                let digest: [u8; 32] = self.take()?;
                if digest != expected {
                    return Err(BackupError::Damaged("its checksum is wrong"));
                }
                if rows != self.rows {
                    return Err(BackupError::Damaged("rows are missing"));
                }
                if !self.inner.fill_buf()?.is_empty() {
                    return Err(BackupError::Damaged("something stands behind its end"));
                }
                Ok(Next::End { rows })
            }
            _ => Err(BackupError::Damaged("a part of no kind")),
        }
    }
}

fn torn(error: io::Error) -> BackupError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        BackupError::Damaged("it ends too early")
    } else {
        BackupError::Io(error)
    }
}

/// Reads a backup to its end: what it is, and how many rows it has.
pub fn check(inner: impl BufRead) -> Result<(Header, u64), BackupError> {
    let (header, mut reader) = Reader::begin(inner)?;
    loop {
        if let Next::End { rows } = reader.next_part()? {
            return Ok((header, rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<u8> {
        let header = Header::new("embedded", "2", &"2026-11-24T06:00:00Z");
        let mut writer = Writer::begin(Vec::new(), &header).unwrap();
        writer.table("tokens").unwrap();
        writer.row(b"key", b"value").unwrap();
        writer.row(b"", b"").unwrap();
        writer.table("empty").unwrap();
        writer.end().unwrap()
    }

    #[test]
    fn reads_back_what_was_written() {
        let bytes = backup();
        let (header, mut reader) = Reader::begin(bytes.as_slice()).unwrap();
        assert_eq!((header.store.as_str(), header.layout.as_str()), ("embedded", "2"));
        assert_eq!(reader.next_part().unwrap(), Next::Table("tokens".to_owned()));
        assert_eq!(reader.next_part().unwrap(), Next::Row(b"key".to_vec(), b"value".to_vec()));
        assert_eq!(reader.next_part().unwrap(), Next::Row(Vec::new(), Vec::new()));
        assert_eq!(reader.next_part().unwrap(), Next::Table("empty".to_owned()));
        assert_eq!(reader.next_part().unwrap(), Next::End { rows: 2 });
    }

    #[test]
    fn every_beginning_and_every_changed_byte_is_refused() {
        let bytes = backup();
        assert_eq!(check(bytes.as_slice()).unwrap().1, 2);
        for end in 0..bytes.len() {
            assert!(check(&bytes[..end]).is_err(), "the first {end} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(check(changed.as_slice()).is_err(), "byte {at}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(matches!(check(longer.as_slice()), Err(BackupError::Damaged(_))));
    }

    #[test]
    fn what_is_foreign_or_newer_is_called_so() {
        for text in ["", "\n", "{}\n", "[]\n", "REDIS0011", "{\"tollgate_backup\":\"1\"}\n"] {
            assert!(matches!(check(text.as_bytes()), Err(BackupError::Foreign)), "{text}");
        }
        let newer = "{\"tollgate_backup\":2,\"more\":1}\n";
        assert!(matches!(check(newer.as_bytes()), Err(BackupError::Version(2))));
    }
}
