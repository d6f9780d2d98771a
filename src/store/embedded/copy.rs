//! Everything in the file, as a backup has it, and a file made of it.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redb::{Durability, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::StoreError;
use super::super::backup::{BackupError, Header, Next, Pieces, Reader, Writer};
use super::file::{OpenError, StoreFile};
use super::tables::{
    ACCOUNTS, BATCHES, CELLS, COUNTERS, DAYS, DIGESTS, EPOCHS, EXPIRIES, FORGETS, FORMAT, LEASES, MEMBERS,
    META, PACE, REFUSALS, REFUSED, SEEN, SESSION_ENDS, SESSIONS, SUMS, Stopped, TOKENS, TRAIL, TRAIL_OF,
    if_there,
};

/// What a backup of this store calls it.
pub(super) const KIND: &str = "embedded";

/// Does something with each table.
macro_rules! each_table {
    ($do:ident) => {
        $do!(
            META,
            ACCOUNTS,
            TOKENS,
            DIGESTS,
            COUNTERS,
            PACE,
            LEASES,
            EXPIRIES,
            FORGETS,
            EPOCHS,
            CELLS,
            REFUSALS,
            DAYS,
            SUMS,
            REFUSED,
            SEEN,
            BATCHES,
            TRAIL,
            TRAIL_OF,
            MEMBERS,
            SESSIONS,
            SESSION_ENDS
        )
    };
}

/// Why a file cannot be made of a backup.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is of another store, or of another layout.
    #[error(
        "it is a backup of a store of another kind or layout ({0}); restore it with the Tollgate that wrote it"
    )]
    Other(String),
    /// The new file.
    #[error("the new store cannot be written: {0}")]
    Store(String),
    /// The new file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<Stopped> for CopyError {
    fn from(stopped: Stopped) -> Self {
        Self::Store(match stopped {
            Stopped::Answer(error) => error.to_string(),
            Stopped::Failed(error) => error.to_string(),
        })
    }
}

/// Why a backup was not written to its end.
pub(super) enum Halted {
    /// The file.
    File(Stopped),
    /// Whoever reads it.
    Reader(io::Error),
}

impl From<Stopped> for Halted {
    fn from(stopped: Stopped) -> Self {
        Self::File(stopped)
    }
}

impl From<io::Error> for Halted {
    fn from(error: io::Error) -> Self {
        Self::Reader(error)
    }
}

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait to be taken.
const AHEAD: usize = 4;
/// For how long whoever takes the pieces may do nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Begins a backup of what the file holds now, on a thread of its own. It stops where nobody takes the pieces.
pub(super) fn start(file: Arc<StoreFile>, at: Timestamp) -> Pieces {
    let (pieces, taken) = mpsc::channel(AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let written = file.snapshot().map_err(|error| Halted::File(error.into())).and_then(|snapshot| {
            let outlet = Outlet { gathered: Vec::with_capacity(PIECE), pieces, runtime };
            write(&snapshot, outlet, &Header::new(KIND, FORMAT, &at))
        });
        match written {
            Ok(()) => {}
            Err(Halted::File(why)) => {
                tracing::error!(?why, "the backup stopped: the store's file cannot be read")
            }
            Err(Halted::Reader(why)) => tracing::warn!(%why, "the backup stopped: it was not taken"),
        }
    });
    taken
}

/// Gathers bytes to pieces, and hands them on.
struct Outlet {
    gathered: Vec<u8>,
    pieces: mpsc::Sender<Vec<u8>>,
    runtime: Handle,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE));
        if piece.is_empty() {
            return Ok(());
        }
        let handed = async { tokio::time::timeout(PATIENCE, self.pieces.send(piece)).await };
        match self.runtime.block_on(handed) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("the client has gone")),
            Err(_) => Err(io::Error::other("the client takes nothing")),
        }
    }
}

/// Writes all tables of a snapshot.
pub(super) fn write(snapshot: &ReadTransaction, out: impl Write, header: &Header) -> Result<(), Halted> {
    let mut writer = Writer::begin(out, header)?;
    macro_rules! write_them {
        ($($table:ident),*) => { $(write_table(snapshot, $table, &mut writer)?;)* };
    }
    each_table!(write_them);
    writer.end()?;
    Ok(())
}

fn write_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    snapshot: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
    writer: &mut Writer<impl Write>,
) -> Result<(), Halted> {
    let name = redb::TableHandle::name(&table).to_owned();
    let Some(table) = if_there(snapshot.open_table(table))? else { return Ok(()) };
    writer.table(&name)?;
    for row in table.iter().map_err(Stopped::from)? {
        let (key, value) = row.map_err(Stopped::from)?;
        writer.row(K::as_bytes(&key.value()).as_ref(), V::as_bytes(&value.value()).as_ref())?;
    }
    Ok(())
}

/// Makes a store's file of a backup. The file must not be there. Where it fails, what it made is no store.
pub(super) fn read(path: &Path, backup: impl BufRead) -> Result<(Header, u64), CopyError> {
    let (header, mut reader) = Reader::begin(backup)?;
    if header.store != KIND || header.layout != FORMAT {
        return Err(CopyError::Other(format!("{} {}", header.store, header.layout)));
    }
    let file = StoreFile::open(path)?;
    let rows = file.fill(|transaction| read_tables(transaction, &mut reader))?;
    Ok((header, rows))
}

fn read_tables(
    transaction: &mut WriteTransaction,
    reader: &mut Reader<impl BufRead>,
) -> Result<u64, CopyError> {
    transaction.set_durability(Durability::Immediate).map_err(|error| CopyError::Store(error.to_string()))?;
    let mut next = reader.next_part()?;
    loop {
        let name = match next {
            Next::Table(name) => name,
            Next::End { rows } => return Ok(rows),
            Next::Row(..) => return Err(BackupError::Damaged("a row of no table").into()),
        };
        macro_rules! read_them {
            ($($table:ident),*) => {
                $(if name == redb::TableHandle::name(&$table) {
                    next = read_table(transaction, $table, reader)?;
                    continue;
                })*
            };
        }
        each_table!(read_them);
        return Err(CopyError::Other(format!("it has a table {name}")));
    }
}

/// Reads the rows of a table, and what comes behind them.
fn read_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    reader: &mut Reader<impl BufRead>,
) -> Result<Next, CopyError> {
    let mut table = transaction.open_table(table).map_err(Stopped::from)?;
    loop {
        match reader.next_part()? {
            Next::Row(key, value) => {
                table.insert(K::from_bytes(&key), V::from_bytes(&value)).map_err(Stopped::from)?;
            }
            next => return Ok(next),
        }
    }
}
