//! Records as words: identity, checksum, and back.
//!
//! A record has 64 words: state, three counters, the checksum of the identity, and the identity as bytes.

use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::LeaseEntry;
use crate::policy::{AccountId, Operation, Pool, TokenId};

/// Words of one record.
pub(super) const RECORD_WORDS: usize = 64;
/// Bytes that an identity has: what is left after state, counters and checksum.
const IDENTITY_BYTES: usize = (RECORD_WORDS - 5) * 8;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) entry: LeaseEntry,
    /// Data set, operation and hour of a cell; none for the lease itself.
    pub(super) cell: Option<(String, Operation, i64)>,
}

fn checksum(bytes: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    })
}

/// Appends a text with its length before it.
fn put(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

impl Identity {
    /// The words after the state: counters at zero, checksum, identity. `None`: a name is too long.
    pub(super) fn to_words(&self) -> Option<Vec<u64>> {
        let mut bytes = self.entry.lease.to_bytes().to_vec();
        bytes.push(match self.entry.pool {
            Pool::Core => 0,
            Pool::Premium => 1,
        });
        put(&mut bytes, self.entry.account.as_str())?;
        put(&mut bytes, self.entry.token.as_str())?;
        match &self.cell {
            None => bytes.push(0),
            Some((dataset, operation, hour)) => {
                bytes.push(1);
                bytes.extend_from_slice(&hour.to_le_bytes());
                put(&mut bytes, operation.as_str())?;
                put(&mut bytes, dataset)?;
            }
        }
        if bytes.len() > IDENTITY_BYTES {
            return None;
        }
        bytes.resize(IDENTITY_BYTES, 0);
        Some([0, 0, 0, checksum(&bytes)].into_iter().chain(words_of(&bytes)).collect())
    }

    /// Takes back what [`Identity::to_words`] made. `None`: it is torn.
    pub(super) fn from_words(words: &[u64]) -> Option<Self> {
        let (sum, identity) = words.get(3..)?.split_first()?;
        let bytes: Vec<u8> = identity.iter().flat_map(|word| word.to_le_bytes()).collect();
        if checksum(&bytes) != *sum {
            return None;
        }
        let (lease, rest) = bytes.split_first_chunk::<16>()?;
        let (pool, mut rest) = rest.split_first()?;
        let pool = match pool {
            0 => Pool::Core,
            1 => Pool::Premium,
            _ => return None,
        };
        let account = AccountId::parse(take(&mut rest)?)?;
        let token = TokenId::parse(take(&mut rest)?)?;
        let entry = LeaseEntry { lease: Ulid::from_bytes(*lease), account, token, pool };
        let (kind, rest) = rest.split_first()?;
        let cell = match kind {
            0 => None,
            1 => {
                let (hour, mut rest) = rest.split_first_chunk::<8>()?;
                let operation = Operation::parse(take(&mut rest)?)?;
                Some((take(&mut rest)?.to_owned(), operation, i64::from_le_bytes(*hour)))
            }
            _ => return None,
        };
        Some(Self { entry, cell })
    }
}

/// The words of a file's header.
pub(super) fn header(magic: u64, version: u64, node: Ulid) -> Vec<u64> {
    let node = node.to_bytes();
    let mut words = vec![magic, version];
    words.extend(words_of(&node));
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    words.push(checksum(&bytes));
    words
}

/// Whether a file's first words are a header of this format.
pub(super) fn check_header(words: &[u64], magic: u64, version: u64) -> Result<(), String> {
    let (Some(head), Some(sum)) = (words.get(..4), words.get(4)) else {
        return Err("it has no header".to_owned());
    };
    let bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    match head {
        [found, ..] if *found != magic => Err("it is no journal of Tollgate".to_owned()),
        [_, found, ..] if *found != version => {
            Err(format!("its format is {found}, and {version} is known here"))
        }
        _ if checksum(&bytes) != *sum => Err("its header is torn".to_owned()),
        _ => Ok(()),
    }
}
