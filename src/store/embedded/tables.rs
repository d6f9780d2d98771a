//! The tables of the file: their keys, and how a value is written down.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `format` | the version of this layout |
//! | `accounts` | account | the record's fields as a JSON object |
//! | `tokens` | `account/id` | the record's fields as a JSON object |
//! | `digests` | hex of SHA-256 of a value | `account/id`; a hint, the record decides |
//! | `counters` | `account/id/pool`, `account/pool` | for hour, day, month, ever: start (s), used, leased; then stranded |
//! | `pace` | `account/id` | theoretical arrival time, µs |
//! | `leases` | ULID | a lease as JSON ([`super::kept`]) |
//! | `expiries` | account, µs, ULID | an open lease, by when it expires; one that says nothing any more is skipped |
//! | `forgets` | µs, ULID | a lease that is not open, by when it is forgotten |
//! | `epochs` | account | the account's epoch |
//! | `cells` | account, id, hour (s), `pool/operation/dataset` | requests, credits, bytes |
//! | `refusals` | account, id or `-`, hour (s), code | how many |
//! | `days` | day (s), account, id or `-` | says that there are cells or refusals of that day |
//! | `trail` | account, an entry's id (ms, number) | when, µs; the note as JSON ([`super::super::trail`]). It is only ever added to |
//! | `trail_of` | account, what the entry is about, its id | says that there is such an entry |
//! | `members` | `account/id` | a member as JSON ([`super::super::people`]) |
//! | `sessions` | account, hex of SHA-256 of the cookie | when it ends, µs; a session as JSON |
//! | `session_ends` | µs, account, hex | says that such a session ends then |
//! | `batches` | ULID | refusals that are counted, by their batch: when, µs |

use redb::{ReadableTable, TableDefinition, TableError};

use super::super::StoreError;
use super::super::people::MemberId;
use super::super::record::{BadRecord, Fields, TokenRecord, token_name};
use crate::ledger::{Counter, Slot};
use crate::policy::{AccountId, Credits, Pool, TokenId};

/// A table of texts by texts.
pub(super) type Texts = TableDefinition<'static, &'static str, &'static str>;
/// Counters, as rows.
pub(super) type Row = [i64; 13];
/// Whose, and the entry's id.
pub(super) type TrailKey = (&'static str, u64, u64);
/// When, and the note.
pub(super) type TrailValue = (i64, &'static str);
/// Whose, about what, and the entry's id.
pub(super) type TrailOfKey = (&'static str, &'static str, u64, u64);
/// Whose, and the hex of the cookie's digest.
pub(super) type SessionKey = (&'static str, &'static str);
/// Until when, and the session.
pub(super) type SessionValue = (i64, &'static str);
/// When, whose, and the hex of the cookie's digest.
pub(super) type SessionEnd = (i64, &'static str, &'static str);
/// Whose, whose, when, what.
pub(super) type CellKey = (&'static str, &'static str, i64, &'static str);

pub(super) const META: Texts = TableDefinition::new("meta");
pub(super) const ACCOUNTS: Texts = TableDefinition::new("accounts");
pub(super) const TOKENS: Texts = TableDefinition::new("tokens");
pub(super) const DIGESTS: Texts = TableDefinition::new("digests");
pub(super) const COUNTERS: TableDefinition<'static, &'static str, Row> = TableDefinition::new("counters");
pub(super) const PACE: TableDefinition<'static, &'static str, i64> = TableDefinition::new("pace");
pub(super) const LEASES: TableDefinition<'static, u128, &'static str> = TableDefinition::new("leases");
pub(super) const EXPIRIES: TableDefinition<'static, (&'static str, i64, u128), ()> =
    TableDefinition::new("expiries");
pub(super) const FORGETS: TableDefinition<'static, (i64, u128), ()> = TableDefinition::new("forgets");
pub(super) const EPOCHS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("epochs");
pub(super) const CELLS: TableDefinition<'static, CellKey, [u64; 3]> = TableDefinition::new("cells");
pub(super) const REFUSALS: TableDefinition<'static, CellKey, u64> = TableDefinition::new("refusals");
pub(super) const DAYS: TableDefinition<'static, (i64, &'static str, &'static str), ()> =
    TableDefinition::new("days");
pub(super) const BATCHES: TableDefinition<'static, u128, i64> = TableDefinition::new("batches");
pub(super) const TRAIL: TableDefinition<'static, TrailKey, TrailValue> = TableDefinition::new("trail");
pub(super) const TRAIL_OF: TableDefinition<'static, TrailOfKey, ()> = TableDefinition::new("trail_of");

pub(super) const MEMBERS: Texts = TableDefinition::new("members");
pub(super) const SESSIONS: TableDefinition<'static, SessionKey, SessionValue> =
    TableDefinition::new("sessions");
pub(super) const SESSION_ENDS: TableDefinition<'static, SessionEnd, ()> =
    TableDefinition::new("session_ends");

/// The counters of format 1: start and credits of hour, day, month, ever.
pub(super) const USED_1: TableDefinition<'static, &'static str, [i64; 8]> = TableDefinition::new("used");

/// The layout described above.
pub(super) const FORMAT: &str = "2";
/// The layout before leases; it is brought up to date when the file is opened.
pub(super) const FORMAT_1: &str = "1";

/// Why a step did not come to an end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It has its answer, and wrote nothing.
    Answer(StoreError),
    /// The file failed. Nothing of the transaction may stand.
    Failed(redb::Error),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}

macro_rules! file_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Stopped {
            fn from(error: redb::$error) -> Self {
                Self::Failed(error.into())
            }
        }
    )*};
}
file_errors!(StorageError, TableError, TransactionError, CommitError, DatabaseError);

/// The key of what a token used of a pool.
pub(super) fn used_by_token(account: &AccountId, id: &TokenId, pool: Pool) -> String {
    format!("{account}/{id}/{}", pool.as_str())
}

/// The key of what an account used of a pool.
pub(super) fn used_by_account(account: &AccountId, pool: Pool) -> String {
    format!("{account}/{}", pool.as_str())
}

/// Reads the fields of one record.
pub(super) fn read_fields(
    table: &impl ReadableTable<&'static str, &'static str>,
    key: &str,
) -> Result<Option<Fields>, Stopped> {
    let Some(text) = table.get(key)? else { return Ok(None) };
    parse_fields(text.value()).map(Some).map_err(|problem| unreadable(key, &problem).into())
}

/// Reads a token.
pub(super) fn read_token(
    table: &impl ReadableTable<&'static str, &'static str>,
    account: &AccountId,
    id: &TokenId,
) -> Result<Option<TokenRecord>, Stopped> {
    let name = token_name(account, id);
    let Some(fields) = read_fields(table, &name)? else { return Ok(None) };
    let record = TokenRecord::parse(&fields, account, id);
    record.map(Some).map_err(|problem| unreadable(&name, &problem).into())
}

/// Reads the text of a record.
pub(super) fn parse_fields(text: &str) -> Result<Fields, BadRecord> {
    serde_json::from_str(text)
        .map_err(|problem| BadRecord::new("record", format_args!("is not of its form: {problem}")))
}

/// Writes the fields of a record down.
pub(super) fn fields_text(fields: &Fields) -> String {
    serde_json::json!(fields).to_string()
}

/// The error for a record that cannot be read.
pub(super) fn unreadable(key: &str, why: &impl ToString) -> StoreError {
    StoreError::Unreadable { key: key.to_owned(), why: why.to_string() }
}

/// Reads a counter, and what is stranded of it; one that was never written is empty.
pub(super) fn read_counter(
    table: &impl ReadableTable<&'static str, Row>,
    key: &str,
) -> Result<(Counter, Credits), Stopped> {
    let Some(row) = table.get(key)? else { return Ok(Default::default()) };
    let [hs, hu, hl, ds, du, dl, ms, mu, ml, es, eu, el, stranded] = row.value();
    let credits = |number| u64::try_from(number).unwrap_or(0);
    let slot = |start, used, leased| Slot { start, used: credits(used), leased: credits(leased) };
    let counter = Counter {
        hour: slot(hs, hu, hl),
        day: slot(ds, du, dl),
        month: slot(ms, mu, ml),
        ever: slot(es, eu, el),
    };
    Ok((counter, Credits(credits(stranded))))
}

/// A counter as a row.
pub(super) fn counter_row(counter: &Counter, stranded: Credits) -> Row {
    let number = |credits| i64::try_from(credits).unwrap_or(i64::MAX);
    let slot = |slot: Slot| (slot.start, number(slot.used), number(slot.leased));
    let Counter { hour, day, month, ever } = *counter;
    let ((hs, hu, hl), (ds, du, dl)) = (slot(hour), slot(day));
    let ((ms, mu, ml), (es, eu, el)) = (slot(month), slot(ever));
    [hs, hu, hl, ds, du, dl, ms, mu, ml, es, eu, el, number(stranded.0)]
}

/// The key of a member.
pub(super) fn member_name(account: &AccountId, id: &MemberId) -> String {
    format!("{account}/{id}")
}

/// Opens a table to read; `None`: the file is from before there was one, and nothing was written since.
pub(super) fn if_there<T>(opened: Result<T, TableError>) -> Result<Option<T>, Stopped> {
    match opened {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// The first and the first-behind-the-last key of an account's tokens, behind `after` if there is one.
pub(super) fn token_range(account: &AccountId, after: Option<&TokenId>) -> (String, String) {
    let start = match after {
        // NUL: the smallest text behind the id itself.
        Some(id) => format!("{}\0", token_name(account, id)),
        None => format!("{account}/"),
    };
    // `0` follows `/`, which is in no account's name.
    (start, format!("{account}0"))
}
