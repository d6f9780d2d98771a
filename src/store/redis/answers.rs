//! What the server answers, read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::{FromRedisValue, Value};

use super::super::record::Fields;
use super::super::{StoreError, Written};
use crate::ledger::{Counter, Slot, Standing, Taken};
use crate::policy::{Credits, Limit};

/// The error for an answer that no script of ours gives.
pub(super) fn strange(what: &str) -> StoreError {
    StoreError::Unavailable(format!("Redis answered something strange to {what}; is it a Redis?"))
}

/// The error for a record that cannot be read.
pub(super) fn unreadable(key: &str, why: &impl ToString) -> StoreError {
    StoreError::Unreadable { key: key.to_owned(), why: why.to_string() }
}

/// A list of texts.
pub(super) fn texts(answer: Value, what: &str) -> Result<Vec<String>, StoreError> {
    Vec::from_redis_value(answer).map_err(|_| strange(what))
}

/// A hash; `None`: there is none.
pub(super) fn fields(answer: Value, key: &str) -> Result<Option<Fields>, StoreError> {
    let fields =
        BTreeMap::from_redis_value(answer).map_err(|_| unreadable(key, &"it holds what is not UTF-8"))?;
    Ok(Some(fields).filter(|fields: &Fields| !fields.is_empty()))
}

/// The server's clock, from `TIME`.
pub(super) fn time(answer: Value) -> Result<Timestamp, StoreError> {
    let (seconds, micros) = <(i64, i64)>::from_redis_value(answer).map_err(|_| strange("TIME"))?;
    let micros = seconds.checked_mul(1_000_000).and_then(|time| time.checked_add(micros));
    micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()).ok_or_else(|| strange("TIME"))
}

/// A counter's hash.
pub(super) fn counter(answer: Value, key: &str) -> Result<Counter, StoreError> {
    let Some(fields) = fields(answer, key)? else { return Ok(Counter::default()) };
    let number = |name: String| fields.get(&name).and_then(|text| text.parse::<u64>().ok());
    let slot = |name: &str| {
        let start = number(format!("{name}_start")).and_then(|start| i64::try_from(start).ok());
        let used = number(format!("{name}_used"));
        match (start, used) {
            (Some(start), Some(used)) => Ok(Slot { start, used }),
            _ => Err(unreadable(key, &"it is not a counter")),
        }
    };
    Ok(Counter { hour: slot("hour")?, day: slot("day")?, month: slot("month")?, ever: slot("ever")? })
}

/// Reads what may be empty; the outer `None`: it is neither empty nor of its form.
#[allow(
    clippy::option_option,
    reason = "\"empty\" and \"bad\" are two things, and every caller asks for one with `?`"
)]
fn maybe<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs)
}

/// What `take.lua` answers.
pub(super) fn taken(answer: Value) -> Result<Taken, StoreError> {
    let answer = texts(answer, "take.lua")?;
    let answer: Vec<&str> = answer.iter().map(String::as_str).collect();
    read_taken(&answer)?.ok_or_else(|| strange("take.lua"))
}

fn read_taken(answer: &[&str]) -> Result<Option<Taken>, StoreError> {
    Ok(match *answer {
        ["granted", used, limit, remaining, resets_in, burst_left, at] => {
            read_standing([used, limit, remaining, resets_in, burst_left, at]).map(Taken::Granted)
        }
        ["rate_limited", wait] => {
            let retry_after = wait.parse().ok().map(Duration::from_micros);
            retry_after.map(|retry_after| Taken::RateLimited { retry_after })
        }
        ["credits_exhausted", resets] => {
            maybe(resets, seconds).map(|retry_after| Taken::CreditsExhausted { retry_after })
        }
        ["budget_exhausted", resets] => {
            maybe(resets, seconds).map(|retry_after| Taken::BudgetExhausted { retry_after })
        }
        ["unreadable", key, why] => return Err(unreadable(key, &why)),
        _ => None,
    })
}

fn read_standing([used, limit, remaining, resets_in, burst_left, at]: [&str; 6]) -> Option<Standing> {
    Some(Standing {
        used: Credits(used.parse().ok()?),
        limit: maybe(limit, |text| Limit::parse(text).ok())?,
        remaining: maybe(remaining, |text| text.parse().ok().map(Credits))?,
        resets_in: maybe(resets_in, seconds)?,
        burst_left: maybe(burst_left, |text| text.parse().ok())?,
        at: Timestamp::from_microsecond(at.parse().ok()?).ok()?,
    })
}

/// What `settle.lua` answers.
pub(super) fn settled(answer: Value) -> Result<(), StoreError> {
    let answer = texts(answer, "settle.lua")?;
    match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["settled" | "unknown"] => Ok(()),
        ["unreadable", key, why] => Err(unreadable(key, &why)),
        _ => Err(strange("settle.lua")),
    }
}

/// What `put.lua` answers.
pub(super) fn written(answer: Value) -> Result<Written, StoreError> {
    let answer = texts(answer, "put.lua")?;
    let number = |text: &str| text.parse().map_err(|_| strange("put.lua"));
    match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["done", version] => Ok(Written::Done { version: number(version)? }),
        ["conflict", version] => Ok(Written::Conflict { version: number(version)? }),
        ["missing"] => Ok(Written::Missing),
        ["unreadable", key, why] => Err(unreadable(key, &why)),
        _ => Err(strange("put.lua")),
    }
}
