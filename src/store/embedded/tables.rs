//! The tables of the file: their keys, and how a value is written down.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `format` | the version of this layout |
//! | `accounts` | account | the record's fields as a JSON object |
//! | `tokens` | `account/id` | the record's fields as a JSON object |
//! | `digests` | hex of SHA-256 of a value | `account/id`; a hint, the record decides |
//! | `used` | `account/id/pool`, `account/pool` | start (s) and credits of hour, day, month, ever |
//! | `pace` | `account/id` | theoretical arrival time, µs |
//! | `leases` | ULID | a taking that is not settled, as JSON |

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::super::record::{BadRecord, Fields, token_name};
use super::super::{LEASE_LIFE, StoreError};
use crate::ledger::{Counter, Slot, Standing, Taken};
use crate::policy::{AccountId, Credits, Limit, Pool, TokenId};

/// A table of texts by texts.
pub(super) type Texts = TableDefinition<'static, &'static str, &'static str>;

pub(super) const META: Texts = TableDefinition::new("meta");
pub(super) const ACCOUNTS: Texts = TableDefinition::new("accounts");
pub(super) const TOKENS: Texts = TableDefinition::new("tokens");
pub(super) const DIGESTS: Texts = TableDefinition::new("digests");
pub(super) const USED: TableDefinition<'static, &'static str, [i64; 8]> = TableDefinition::new("used");
pub(super) const PACE: TableDefinition<'static, &'static str, i64> = TableDefinition::new("pace");
pub(super) const LEASES: TableDefinition<'static, u128, &'static str> = TableDefinition::new("leases");

/// The layout described above.
pub(super) const FORMAT: &str = "1";

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

/// Reads a counter; one that was never written is empty.
pub(super) fn read_counter(
    table: &impl ReadableTable<&'static str, [i64; 8]>,
    key: &str,
) -> Result<Counter, Stopped> {
    let Some(row) = table.get(key)? else { return Ok(Counter::default()) };
    let [hour_start, hour, day_start, day, month_start, month, ever_start, ever] = row.value();
    let slot = |start, used| Slot { start, used: u64::try_from(used).unwrap_or(0) };
    Ok(Counter {
        hour: slot(hour_start, hour),
        day: slot(day_start, day),
        month: slot(month_start, month),
        ever: slot(ever_start, ever),
    })
}

/// A counter as a row.
pub(super) fn counter_row(counter: &Counter) -> [i64; 8] {
    let used = |slot: Slot| i64::try_from(slot.used).unwrap_or(i64::MAX);
    let Counter { hour, day, month, ever } = *counter;
    [hour.start, used(hour), day.start, used(day), month.start, used(month), ever.start, used(ever)]
}

/// A taking that is not settled: what was taken, and what was answered, so that asking again answers the same.
#[derive(Serialize, Deserialize)]
pub(super) struct Lease {
    account: String,
    token: String,
    pool: String,
    pub(super) cost: u64,
    taken_at: i64,
    used: u64,
    limit: Option<String>,
    remaining: Option<u64>,
    resets_in: Option<u64>,
    burst_left: Option<u32>,
}

impl Lease {
    /// The lease of a charge that was granted.
    pub(super) fn new(charge: &super::Charge, standing: &Standing) -> Self {
        Self {
            account: charge.account.to_string(),
            token: charge.token.to_string(),
            pool: charge.pool.as_str().to_owned(),
            cost: charge.cost.0,
            taken_at: standing.at.as_microsecond(),
            used: standing.used.0,
            limit: standing.limit.map(|limit| limit.to_string()),
            remaining: standing.remaining.map(|credits| credits.0),
            resets_in: standing.resets_in.map(|time| time.as_secs()),
            burst_left: standing.burst_left,
        }
    }

    /// Takes back what [`Lease::to_text`] made; `None`: it is no lease.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The lease as it is kept.
    pub(super) fn to_text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// When it was taken.
    pub(super) fn taken_at(&self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.taken_at).ok()
    }

    /// Whether it is so old that it counts as spent in full.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let life = SignedDuration::try_from(LEASE_LIFE).unwrap_or(SignedDuration::MAX);
        self.taken_at().is_none_or(|taken| now.duration_since(taken) >= life)
    }

    /// Whether it is the lease of this charge.
    pub(super) fn is_of(&self, charge: &super::Charge) -> bool {
        self.account == charge.account.as_str()
            && self.token == charge.token.as_str()
            && self.pool == charge.pool.as_str()
    }

    /// What was answered when it was taken.
    pub(super) fn answer(&self) -> Option<Taken> {
        let limit = match &self.limit {
            Some(text) => Some(Limit::parse(text).ok()?),
            None => None,
        };
        Some(Taken::Granted(Standing {
            used: Credits(self.used),
            limit,
            remaining: self.remaining.map(Credits),
            resets_in: self.resets_in.map(Duration::from_secs),
            burst_left: self.burst_left,
            at: self.taken_at()?,
        }))
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
