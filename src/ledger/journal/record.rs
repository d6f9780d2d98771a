//! Records as words, and back.
//!
//! | words | of a lease | of a cell |
//! | --- | --- | --- |
//! | 0 | state | state |
//! | 1 | checksum of what follows, the counters aside, and of its file and place | the same |
//! | 2 | kind, pool, lengths of the texts | kind, operation, length of the text |
//! | 3 to 5 | how many cells were made; unused | requests, credits, bytes |
//! | 6 | unused | hour |
//! | 7, 8 | the lease's id | the lease's id |
//! | 9 … | account, token | data set |
//!
//! Owns the layout of a record; where records lie is [`super::file`]'s. Words are in the machine's own order: a file
//! from another kind of machine has no known magic.

use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::LeaseEntry;
use crate::policy::{AccountId, Operation, Pool, TokenId};

pub(super) const STATE: usize = 0;
pub(super) const SUM: usize = 1;
/// In a lease's record: how many cells were made for it.
pub(super) const CELLS: usize = 3;
pub(super) const REQUESTS: usize = 3;
pub(super) const CREDITS: usize = 4;
pub(super) const BYTES: usize = 5;
/// Where what is set once begins again, behind the counters.
const AFTER_COUNTERS: usize = 6;
const TEXT: usize = 9;

/// No record.
pub(super) const FREE: u64 = 0;
/// A record that counts. Far from the others: one bit that flips makes none of them.
pub(super) const LIVE: u64 = u64::from_be_bytes(*b"tollLIVE");
/// A lease that is settled, and is being taken out.
pub(super) const SETTLED: u64 = u64::from_be_bytes(*b"tollDONE");

const LEASE: u8 = 1;
const CELL: u8 = 2;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    Lease(LeaseEntry),
    Cell { lease: Ulid, dataset: String, operation: Operation, hour: i64 },
}

/// 64 bits of SHA-256.
pub(super) fn checksum(words: impl IntoIterator<Item = u64>) -> u64 {
    let mut hash = Sha256::new();
    words.into_iter().for_each(|word| hash.update(word.to_le_bytes()));
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first))
}

/// A ULID as two words.
pub(super) fn id_words(id: Ulid) -> [u64; 2] {
    let number = u128::from(id);
    [number >> 64, number & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or_default())
}

/// Takes back what [`id_words`] made.
pub(super) fn id_of(high: u64, low: u64) -> Ulid {
    Ulid::from((u128::from(high) << 64) | u128::from(low))
}

fn code_of_pool(pool: Pool) -> u8 {
    match pool {
        Pool::Core => 0,
        Pool::Premium => 1,
    }
}

fn code_of_operation(operation: Operation) -> u8 {
    match operation {
        Operation::Read => 0,
        Operation::Write => 1,
        Operation::Delete => 2,
    }
}

/// The words of a lease's record, state and checksum left at zero. `None`: a name is too long.
pub(super) fn lease_words(entry: &LeaseEntry) -> Option<Vec<u64>> {
    let texts = [entry.account.as_str(), entry.token.as_str()];
    words([LEASE, code_of_pool(entry.pool)], entry.lease, 0, texts)
}

/// The words of a cell's record, state and checksum left at zero. `None`: the data set's name is too long.
pub(super) fn cell_words(lease: Ulid, dataset: &str, operation: Operation, hour: i64) -> Option<Vec<u64>> {
    words([CELL, code_of_operation(operation)], lease, hour, [dataset, ""])
}

fn words([kind, code]: [u8; 2], lease: Ulid, hour: i64, texts: [&str; 2]) -> Option<Vec<u64>> {
    let [first, second] = texts.map(|text| u16::try_from(text.len()).map(u16::to_le_bytes));
    let ([a, b], [c, d]) = (first.ok()?, second.ok()?);
    let [high, low] = id_words(lease);
    let mut words = vec![0, 0, u64::from_le_bytes([kind, code, a, b, c, d, 0, 0]), 0, 0, 0];
    words.extend([hour.cast_unsigned(), high, low]);
    words.extend(texts.concat().as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    }));
    Some(words)
}

/// The checksum of a record's words. `salt` stands for its file and place.
pub(super) fn sum(words: &[u64], salt: u64) -> u64 {
    let counters = SUM + 2..AFTER_COUNTERS;
    let fixed = words.iter().enumerate().skip(SUM + 1).filter(|(at, _)| !counters.contains(at));
    checksum(std::iter::once(salt).chain(fixed.map(|(_, word)| *word)))
}

/// Reads a record from the words of its place. `None`: it is torn.
pub(super) fn read(place: &[u64], salt: u64) -> Option<Identity> {
    let &[_, expected, meta, _, _, _, hour, high, low, ..] = place else { return None };
    let [kind, code, a, b, c, d, 0, 0] = meta.to_le_bytes() else { return None };
    let (first, second) = (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])));
    let words = place.get(..TEXT + (first + second).div_ceil(8))?;
    if sum(words, salt) != expected {
        return None;
    }
    let bytes: Vec<u8> = words.iter().skip(TEXT).flat_map(|word| word.to_le_bytes()).collect();
    let text = std::str::from_utf8(bytes.get(..first + second)?).ok()?;
    let (first, second) = text.split_at_checked(first)?;
    let lease = id_of(high, low);
    match kind {
        LEASE => {
            let pool = Pool::ALL.into_iter().find(|pool| code_of_pool(*pool) == code)?;
            let (account, token) = (AccountId::parse(first)?, TokenId::parse(second)?);
            Some(Identity::Lease(LeaseEntry { lease, account, token, pool }))
        }
        CELL => {
            let known = |operation: &Operation| code_of_operation(*operation) == code;
            let operation = Operation::ALL.into_iter().find(known)?;
            Some(Identity::Cell { lease, dataset: first.to_owned(), operation, hour: hour.cast_signed() })
        }
        _ => None,
    }
}
