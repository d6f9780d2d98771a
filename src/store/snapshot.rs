//! What a node knew, kept sealed in `state_dir`: for a start while the store is down (law 6).
//!
//! Policies by token digest, and when the store was last heard. Sealed with the master key, so that a file that was
//! changed, or made elsewhere, is not believed. It says nothing that the store does not say; it is only older.
//!
//! The file is a row of sealed parts, each behind its length (four bytes, little-endian): first what it is, then the policies, some at
//! a time, so that writing many takes little memory. Each part is bound to its file and its place: none can be left out,
//! moved, or taken from another file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Fields, parse_policy, policy_fields};
use super::seal::{SealError, Sealer};
use crate::policy::{Policy, TokenDigest};

/// What the first part is bound to; the others to this, the file and their place.
const WHAT: &[u8] = b"tollgate policies v2";
/// Policies in one part.
const AT_ONCE: usize = 256;
/// No part is longer than this: each policy is bounded.
const LONGEST: u32 = 64 << 20;

/// What a node knew.
#[derive(Debug)]
pub struct Snapshot {
    /// When the store was last heard.
    pub heard_at: Timestamp,
    /// The policies.
    pub policies: Vec<(TokenDigest, Policy)>,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file.
    #[error("the file of known policies: {0}")]
    Io(#[from] io::Error),
    /// The seal.
    #[error("the file of known policies: {0}")]
    Seal(#[from] SealError),
    /// What is in it.
    #[error("the file of known policies is not of its form")]
    Form,
}

/// The first part.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cover {
    /// Microseconds since the epoch.
    heard_at: i64,
    /// The file's own name: random, hex.
    file: String,
    /// How many parts follow.
    parts: u64,
}

/// What a part is bound to.
fn bound_to(cover: &Cover, at: u64) -> Vec<u8> {
    [WHAT, b"\0", cover.file.as_bytes(), b"\0", &at.to_le_bytes()].concat()
}

/// Writes a snapshot whole or not at all.
pub fn write(
    path: &Path,
    sealer: &Sealer,
    heard_at: Timestamp,
    policies: &[(TokenDigest, Arc<Policy>)],
) -> Result<(), SnapshotError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| SealError::NoRandomness)?;
    let parts = policies.chunks(AT_ONCE);
    let cover =
        Cover { heard_at: heard_at.as_microsecond(), file: hex::encode(random), parts: parts.len() as u64 };
    let draft = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let mut file = BufWriter::new(file);
    write_part(&mut file, sealer, WHAT, &cover)?;
    for (at, part) in (0..).zip(parts) {
        let part: Vec<(String, Fields)> =
            part.iter().map(|(digest, policy)| (digest.to_hex(), policy_fields(policy))).collect();
        write_part(&mut file, sealer, &bound_to(&cover, at), &part)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(())
}

fn write_part(
    file: &mut impl Write,
    sealer: &Sealer,
    bound_to: &[u8],
    part: &impl Serialize,
) -> Result<(), SnapshotError> {
    let text = serde_json::to_vec(part).map_err(|_| SnapshotError::Form)?;
    let sealed = sealer.seal_bytes(bound_to, &text)?;
    let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= LONGEST);
    file.write_all(&length.ok_or(SnapshotError::Form)?.to_le_bytes())?;
    file.write_all(&sealed)?;
    Ok(())
}

/// Reads a snapshot; `None`: there is none.
pub fn read(path: &Path, sealer: &Sealer) -> Result<Option<Snapshot>, SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut file = BufReader::new(file);
    let cover: Cover = read_part(&mut file, sealer, WHAT)?;
    let heard_at = Timestamp::from_microsecond(cover.heard_at).map_err(|_| SnapshotError::Form)?;
    let mut policies = Vec::new();
    for at in 0..cover.parts {
        let part: Vec<(String, Fields)> = read_part(&mut file, sealer, &bound_to(&cover, at))?;
        // A record that cannot be read any more is left out: its token is looked up like any other.
        policies.extend(part.iter().filter_map(|(digest, fields)| {
            Some((TokenDigest::parse_hex(digest)?, parse_policy(fields).ok()?))
        }));
    }
    match file.read(&mut [0])? {
        0 => Ok(Some(Snapshot { heard_at, policies })),
        _ => Err(SnapshotError::Form),
    }
}

fn read_part<T: for<'de> Deserialize<'de>>(
    file: &mut impl Read,
    sealer: &Sealer,
    bound_to: &[u8],
) -> Result<T, SnapshotError> {
    let cut_off = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Form,
        _ => SnapshotError::Io(error),
    };
    let mut length = [0; 4];
    file.read_exact(&mut length).map_err(cut_off)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(SnapshotError::Form);
    }
    // Memory is taken for what is there, and not for what a length says.
    let mut sealed = Vec::new();
    if file.take(length.into()).read_to_end(&mut sealed)? as u64 != u64::from(length) {
        return Err(SnapshotError::Form);
    }
    serde_json::from_slice(&sealer.open_bytes(bound_to, &sealed)?).map_err(|_| SnapshotError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AccountId, Grant, Limit, Token, TokenId, TokenKind};

    fn policies(count: u8) -> Vec<(TokenDigest, Arc<Policy>)> {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let policy = |at: u8| {
            let id = TokenId::from_ulid(ulid::Ulid::from_parts(1, at.into()));
            let mut policy = Policy::new(id, AccountId::default_account(), TokenKind::Publishable, now);
            policy.grants = vec![Grant::parse("MY/CARS:read").unwrap()];
            policy.credit_limit.core = Some(Limit::parse("5/day").unwrap());
            (Token::from_random(TokenKind::Publishable, [at; 16]).digest(), Arc::new(policy))
        };
        (0..count).map(policy).collect()
    }

    /// Where each part of a file begins.
    fn parts(bytes: &[u8]) -> Vec<usize> {
        let (mut at, mut parts) = (0, Vec::new());
        while at < bytes.len() {
            parts.push(at);
            at += 4 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        }
        parts
    }

    #[test]
    fn reads_back_what_it_wrote_and_nothing_that_was_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policies.sealed");
        let sealer = Sealer::new(&[7; 32]);
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        assert!(read(&path, &sealer).unwrap().is_none());
        for count in [0, 1, 255] {
            // Several parts.
            let all: Vec<_> = (0..3).flat_map(|_| policies(count)).collect();
            write(&path, &sealer, now, &all).unwrap();
            let found = read(&path, &sealer).unwrap().unwrap();
            assert_eq!(found.heard_at, now);
            assert!(
                found
                    .policies
                    .iter()
                    .map(|(digest, policy)| (*digest, policy))
                    .eq(all.iter().map(|(digest, policy)| (*digest, &**policy)))
            );
        }
        assert!(matches!(read(&path, &Sealer::new(&[8; 32])), Err(SnapshotError::Seal(_))));
        let whole = fs::read(&path).unwrap();
        assert!(!whole.windows(7).any(|window| window == b"MY/CARS"));
        let parts = parts(&whole);
        assert_eq!(parts.len(), 1 + 3);
        let (second, third, fourth) = (parts[1], parts[2], parts[3]);
        write(&path, &sealer, now, &policies(200)).unwrap();
        let other = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[third + 100] ^= 1;
        let touched = [
            ("a bit is another", flipped),
            ("cut off in a part", whole[..whole.len() - 1].to_vec()),
            ("the last part is gone", whole[..fourth].to_vec()),
            ("a part is gone", [&whole[..second], &whole[third..]].concat()),
            (
                "parts changed places",
                [&whole[..second], &whole[third..fourth], &whole[second..third], &whole[fourth..]].concat(),
            ),
            ("a part twice", [&whole[..], &whole[fourth..]].concat()),
            ("something behind", [&whole[..], b"x"].concat()),
            (
                "a part of another file",
                [&whole[..second], &other[self::parts(&other)[1]..], &whole[third..]].concat(),
            ),
            ("no file of ours", b"short".to_vec()),
            ("a length without an end", vec![0xff; 40]),
            ("nothing", Vec::new()),
        ];
        for (what, bytes) in touched {
            fs::write(&path, &bytes).unwrap();
            assert!(read(&path, &sealer).is_err(), "{what}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(read(&path, &sealer).unwrap().is_some());
    }
}
