//! What the server answers, read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::{FromRedisValue, Value};
use ulid::Ulid;

use super::super::people::MemberWritten;
use super::super::record::Fields;
use super::super::trail::{EntryId, Traced};
use super::super::usage::Seen;
use super::super::{NodeId, NodeReport, Paced, Remembered, StoreError, Written};
use super::takes::Taken;
use crate::ledger::lease::{Grant, Reserved};
use crate::ledger::{Counter, Slot};
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

/// A counter's hash, and what is stranded of it. One from before there were leases has leased nothing.
pub(super) fn counter(answer: Value, key: &str) -> Result<(Counter, Credits), StoreError> {
    let Some(fields) = fields(answer, key)? else { return Ok(Default::default()) };
    let number = |name: String, otherwise: Option<u64>| match fields.get(&name) {
        Some(text) => text.parse::<u64>().map_err(|_| unreadable(key, &"it is not a counter")),
        None => otherwise.ok_or_else(|| unreadable(key, &"it is not a counter")),
    };
    let slot = |name: &str| {
        let start = i64::try_from(number(format!("{name}_start"), None)?);
        let start = start.map_err(|_| unreadable(key, &"it is not a counter"))?;
        let (used, leased) =
            (number(format!("{name}_used"), None)?, number(format!("{name}_leased"), Some(0))?);
        Ok::<_, StoreError>(Slot { start, used, leased })
    };
    let counter =
        Counter { hour: slot("hour")?, day: slot("day")?, month: slot("month")?, ever: slot("ever")? };
    Ok((counter, Credits(number("stranded".to_owned(), Some(0))?)))
}

/// When tokens were last seen: for each the two fields that `HMGET` was asked for.
pub(super) fn seen(answer: Value, key: &str) -> Result<Vec<Seen>, StoreError> {
    let bad = || unreadable(key, &"it holds what is no time");
    let times = Vec::<Option<i64>>::from_redis_value(answer).map_err(|_| bad())?;
    times
        .chunks(2)
        .map(|times| match *times {
            [used, refused] => Ok(Seen { used, refused }),
            _ => Err(bad()),
        })
        .collect()
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

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros)
}

/// Reads the words a script answers with; `read` gives `None` for what is none of its answers.
fn words<T>(answer: Value, script: &str, read: impl FnOnce(&[&str]) -> Option<T>) -> Result<T, StoreError> {
    let answer = texts(answer, script)?;
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    match words[..] {
        ["unreadable", key, why] => Err(unreadable(key, &why)),
        _ => read(&words).ok_or_else(|| strange(script)),
    }
}

/// What `take.lua` answers to so many asks.
pub(super) fn all_taken(answer: Value, asks: usize) -> Result<Vec<Result<Taken, StoreError>>, StoreError> {
    match answer {
        Value::Array(answers) if answers.len() == asks => Ok(answers.into_iter().map(taken).collect()),
        _ => Err(strange("take.lua")),
    }
}

fn taken(answer: Value) -> Result<Taken, StoreError> {
    words(answer, "take.lua", |words| {
        Some(match *words {
            ["unlimited"] => Taken::Passes(Paced::Unlimited),
            ["passes", count, hold, remaining] => {
                let (count, remaining) = (count.parse().ok()?, remaining.parse().ok()?);
                Taken::Passes(Paced::Passes { count, hold: micros(hold)?, remaining })
            }
            ["wait", wait] => Taken::Passes(Paced::Wait { retry_after: micros(wait)? }),
            ["granted", granted, used, leased, limit, free, resets_in, valid_for, at] => {
                Taken::Lease(Reserved::Granted(Grant {
                    granted: Credits(granted.parse().ok()?),
                    used: Credits(used.parse().ok()?),
                    leased: Credits(leased.parse().ok()?),
                    limit: maybe(limit, |text| Limit::parse(text).ok())?,
                    free: maybe(free, |text| text.parse().ok().map(Credits))?,
                    resets_in: maybe(resets_in, seconds)?,
                    valid_for: micros(valid_for)?,
                    at: Timestamp::from_microsecond(at.parse().ok()?).ok()?,
                }))
            }
            ["credits_exhausted", resets_in, recallable] => {
                let (retry_after, recallable) = (maybe(resets_in, seconds)?, recallable == "yes");
                Taken::Lease(Reserved::CreditsExhausted { retry_after, recallable })
            }
            ["budget_exhausted", resets_in, recallable] => {
                let (retry_after, recallable) = (maybe(resets_in, seconds)?, recallable == "yes");
                Taken::Lease(Reserved::BudgetExhausted { retry_after, recallable })
            }
            ["void"] => Taken::Lease(Reserved::Void),
            _ => return None,
        })
    })
}

/// What `settle.lua` answers to so many settlements: the first that could not be settled is told.
pub(super) fn all_settled(answer: Value, settlements: usize) -> Result<(), StoreError> {
    let Value::Array(answers) = answer else { return Err(strange("settle.lua")) };
    if answers.len() != settlements {
        return Err(strange("settle.lua"));
    }
    let settled =
        |answer| words(answer, "settle.lua", |words| matches!(*words, ["settled" | "unknown"]).then_some(()));
    // All are looked at, so that a strange one is not passed over.
    answers.into_iter().map(settled).fold(Ok(()), Result::and)
}

/// What `shrink.lua` and `session.lua` answer.
pub(super) fn done(answer: Value, script: &str) -> Result<(), StoreError> {
    words(answer, script, |words| match *words {
        ["done"] => Some(()),
        _ => None,
    })
}

/// What `renew.lua` answers to so many leases.
pub(super) fn renewed(answer: Value, leases: usize) -> Result<Vec<bool>, StoreError> {
    words(answer, "renew.lua", |words| {
        let open = |word: &&str| match *word {
            "open" => Some(true),
            "over" => Some(false),
            _ => None,
        };
        Some(words.iter().map(open).collect::<Option<Vec<_>>>()?).filter(|open| open.len() == leases)
    })
}

/// A number.
pub(super) fn number(answer: Value, what: &str) -> Result<u64, StoreError> {
    let number = Option::<u64>::from_redis_value(answer).map_err(|_| strange(what))?;
    Ok(number.unwrap_or(0))
}

/// What `remember.lua` answers to so many signatures.
pub(super) fn remembered(answer: Value, signatures: usize) -> Result<Vec<Remembered>, StoreError> {
    words(answer, "remember.lua", |words| {
        let read = |word: &&str| match *word {
            "new" => Some(Remembered::New),
            "seen" => Some(Remembered::Seen),
            "full" => Some(Remembered::Full),
            _ => None,
        };
        words.iter().map(read).collect::<Option<Vec<_>>>().filter(|all| all.len() == signatures)
    })
}

/// What `nodes.lua` lists, in order of the nodes' names.
pub(super) fn nodes(answer: Value, key: &str) -> Result<Vec<NodeReport>, StoreError> {
    let answer = texts(answer, "nodes.lua")?;
    let mut nodes = Vec::with_capacity(answer.len() / 2);
    for pair in answer.chunks(2) {
        let report = match pair {
            [node, report] => node_report(node, report),
            _ => None,
        };
        nodes.push(report.ok_or_else(|| unreadable(key, &"it holds what is no node's report"))?);
    }
    nodes.sort_by_key(|report| report.node);
    Ok(nodes)
}

fn node_report(node: &str, report: &str) -> Option<NodeReport> {
    let mut parts = report.splitn(5, '|');
    let epoch = parts.next()?.parse().ok()?;
    let seen_at = Timestamp::from_microsecond(parts.next()?.parse().ok()?).ok()?;
    let leased = Credits(parts.next()?.parse().ok()?);
    let name = parts.nth(1)?.to_owned();
    Some(NodeReport { node: NodeId(Ulid::from_string(node).ok()?), epoch, seen_at, leased, name })
}

/// What `put.lua` answers.
pub(super) fn written(answer: Value) -> Result<Written, StoreError> {
    words(answer, "put.lua", |words| match *words {
        ["done", version] => Some(Written::Done { version: version.parse().ok()? }),
        ["conflict", version] => Some(Written::Conflict { version: version.parse().ok()? }),
        ["missing"] => Some(Written::Missing),
        _ => None,
    })
}

/// What `members.lua` answers.
pub(super) fn member_written(answer: Value) -> Result<MemberWritten, StoreError> {
    words(answer, "members.lua", |words| match *words {
        ["done", version] => Some(MemberWritten::Done { version: version.parse().ok()? }),
        ["conflict", version] => Some(MemberWritten::Conflict { version: version.parse().ok()? }),
        ["missing"] => Some(MemberWritten::Missing),
        ["taken"] => Some(MemberWritten::NameTaken),
        _ => None,
    })
}

/// What `traced.lua` lists.
pub(super) fn traced(answer: Value) -> Result<Vec<Traced>, StoreError> {
    let strange = || strange("traced.lua");
    let answer = Vec::<Vec<u8>>::from_redis_value(answer).map_err(|_| strange())?;
    let entry = |words: &[Vec<u8>]| match words {
        [id, at, note] => {
            let id = EntryId::parse(&String::from_utf8_lossy(id)).ok_or_else(strange)?;
            // A time that is none lies outside of all time, and so is unreadable.
            let at = String::from_utf8_lossy(at).parse().unwrap_or(i64::MAX);
            Ok(Traced::parse(id, at, &String::from_utf8_lossy(note)))
        }
        _ => Err(strange()),
    };
    answer.chunks(3).map(entry).collect()
}
