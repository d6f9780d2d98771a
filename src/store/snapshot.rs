//! What a node knew, kept sealed in `state_dir`: for a start while the store is down (law 6).
//!
//! Policies by token digest, and when the store was last heard. Sealed with the master key, so that a file that was
//! changed, or made elsewhere, is not believed. It says nothing that the store does not say; it is only older.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Fields, parse_policy, policy_fields};
use super::seal::{SealError, Sealer};
use crate::policy::{Policy, TokenDigest};

/// What the sealed bytes are bound to.
const WHAT: &[u8] = b"tollgate policies v1";

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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// Microseconds since the epoch.
    heard_at: i64,
    policies: Vec<(String, Fields)>,
}

/// Writes a snapshot whole or not at all.
pub fn write(
    path: &Path,
    sealer: &Sealer,
    heard_at: Timestamp,
    policies: &[(TokenDigest, Arc<Policy>)],
) -> Result<(), SnapshotError> {
    let policies = policies.iter().map(|(digest, policy)| (digest.to_hex(), policy_fields(policy))).collect();
    let text = serde_json::to_vec(&Raw { heard_at: heard_at.as_microsecond(), policies })
        .map_err(|_| SnapshotError::Form)?;
    let sealed = sealer.seal_bytes(WHAT, &text)?;
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&sealed)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(())
}

/// Reads a snapshot; `None`: there is none.
pub fn read(path: &Path, sealer: &Sealer) -> Result<Option<Snapshot>, SnapshotError> {
    let sealed = match fs::read(path) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = sealer.open_bytes(WHAT, &sealed)?;
    let raw: Raw = serde_json::from_slice(&text).map_err(|_| SnapshotError::Form)?;
    let policy = |(digest, fields): &(String, Fields)| {
        Some((TokenDigest::parse_hex(digest)?, parse_policy(fields).ok()?))
    };
    // A record that cannot be read any more is left out: its token is looked up like any other.
    let heard_at = Timestamp::from_microsecond(raw.heard_at).map_err(|_| SnapshotError::Form)?;
    Ok(Some(Snapshot { heard_at, policies: raw.policies.iter().filter_map(policy).collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AccountId, Grant, Limit, Token, TokenId, TokenKind};

    #[test]
    fn reads_back_what_it_wrote_and_nothing_that_was_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policies.sealed");
        let sealer = Sealer::new(&[7; 32]);
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        assert!(read(&path, &sealer).unwrap().is_none());
        let id = TokenId::from_ulid(ulid::Ulid::from_parts(1, 1));
        let mut policy = Policy::new(id, AccountId::default_account(), TokenKind::Publishable, now);
        policy.grants = vec![Grant::parse("MY/CARS:read").unwrap()];
        policy.credit_limit.core = Some(Limit::parse("5/day").unwrap());
        let digest = Token::from_random(TokenKind::Publishable, [3; 16]).digest();
        write(&path, &sealer, now, &[(digest, Arc::new(policy.clone()))]).unwrap();
        let found = read(&path, &sealer).unwrap().unwrap();
        assert_eq!((found.heard_at, found.policies), (now, vec![(digest, policy)]));
        assert!(matches!(read(&path, &Sealer::new(&[8; 32])), Err(SnapshotError::Seal(_))));
        let mut bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"MY/CARS"));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(&path, &sealer), Err(SnapshotError::Seal(_))));
        fs::write(&path, b"short").unwrap();
        assert!(read(&path, &sealer).is_err());
    }
}
