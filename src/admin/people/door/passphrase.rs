//! Passphrases: which may be chosen, and how they are kept: argon2id with the crate's recommended parameters, as PHC text.
//!
//! Hashing costs some 19 MiB and tens of milliseconds on purpose. It happens away from the threads that serve, a few at
//! a time: whoever knocks often must neither stop the others nor fill the memory.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::Refused;

/// The shortest passphrase, in characters.
const MIN_CHARS: usize = 12;
/// The longest, in bytes.
const MAX_BYTES: usize = 1024;
/// How many are hashed at once.
const AT_ONCE: usize = 2;
/// How long one may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nobody's hash, as costly as any: whoever gives an unknown name waits as long as others.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a passphrase cannot be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPassphrase {
    /// It has fewer than 12 characters.
    #[error("A passphrase has at least {MIN_CHARS} characters; some words in a row make a good one.")]
    TooShort,
    /// It has more than 1024 bytes.
    #[error("A passphrase has at most {MAX_BYTES} bytes.")]
    TooLong,
    /// It is the member's name.
    #[error("The passphrase must not be your name.")]
    IsName,
}

/// Whether the member of this name may choose a passphrase.
pub(super) fn check(passphrase: &str, name: &str) -> Result<(), BadPassphrase> {
    if passphrase.chars().count() < MIN_CHARS {
        return Err(BadPassphrase::TooShort);
    }
    if passphrase.len() > MAX_BYTES {
        return Err(BadPassphrase::TooLong);
    }
    if passphrase.trim().to_lowercase() == name.trim().to_lowercase() {
        return Err(BadPassphrase::IsName);
    }
    Ok(())
}

/// Hashes, a few at a time.
#[derive(Debug)]
pub(super) struct Hasher {
    turns: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), patience: PATIENCE }
    }
}

impl Hasher {
    /// What is to be kept of a passphrase.
    pub(super) async fn hash(&self, passphrase: &str) -> Result<String, Refused> {
        let hashed =
            self.work(passphrase, |bytes| argon2().hash_password(bytes).map(|hash| hash.to_string()));
        hashed.await?.map_err(|cause| {
            // A salt is all that can be missing.
            tracing::error!(%cause, "a passphrase cannot be hashed");
            Refused::NoRandomNumbers
        })
    }

    /// Whether this is the passphrase of which `kept` was kept; of nobody's, it is not.
    pub(super) async fn verify(&self, passphrase: &str, kept: Option<&str>) -> Result<bool, Refused> {
        let text = kept.unwrap_or(NOBODYS).to_owned();
        let right = self.work(passphrase, move |bytes| match PasswordHash::new(&text) {
            Ok(hash) => argon2().verify_password(bytes, &hash).is_ok(),
            Err(cause) => {
                tracing::error!(%cause, "a kept passphrase cannot be read; it lets nobody in");
                false
            }
        });
        Ok(right.await? && kept.is_some())
    }

    async fn work<T: Send + 'static>(
        &self,
        passphrase: &str,
        job: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or(Refused::Busy)?;
        let bytes = Zeroizing::new(passphrase.as_bytes().to_vec());
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also where nobody waits for it any more.
            let _turn = turn;
            job(&bytes)
        });
        done.await.map_err(|cause| {
            tracing::error!(%cause, "a passphrase could not be hashed");
            Refused::Busy
        })
    }
}

/// argon2id as the crate recommends it.
fn argon2() -> Argon2<'static> {
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passphrases_are_long_enough_and_no_names() {
        let table = [
            ("", Err(BadPassphrase::TooShort)),
            ("elevenchars", Err(BadPassphrase::TooShort)),
            ("twelve chars", Ok(())),
            ("éééééééééééé", Ok(())),
            ("ééééééééééé", Err(BadPassphrase::TooShort)),
            (&"x".repeat(1024), Ok(())),
            (&"x".repeat(1025), Err(BadPassphrase::TooLong)),
            (&"é".repeat(513), Err(BadPassphrase::TooLong)),
            ("ada@example.com", Err(BadPassphrase::IsName)),
            (" ADA@example.com ", Err(BadPassphrase::IsName)),
            ("ada@example.com!", Ok(())),
        ];
        for (passphrase, expected) in table {
            assert_eq!(check(passphrase, "Ada@Example.com"), expected, "{passphrase}");
        }
    }

    #[tokio::test]
    async fn only_the_passphrase_that_was_kept_is_right() {
        let hasher = Hasher::default();
        let kept = hasher.hash("correct horse battery").await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert_ne!(kept, hasher.hash("correct horse battery").await.unwrap(), "salted");
        for (passphrase, kept, right) in [
            ("correct horse battery", Some(kept.as_str()), true),
            ("correct horse batterz", Some(&kept), false),
            ("", Some(&kept), false),
            ("correct horse battery", None, false),
            ("correct horse battery", Some("$argon2id$broken"), false),
            ("correct horse battery", Some(""), false),
        ] {
            assert_eq!(hasher.verify(passphrase, kept).await.unwrap(), right, "{passphrase} {kept:?}");
        }
    }

    /// Otherwise an unknown name would be answered sooner, or later, than a known one.
    #[tokio::test]
    async fn nobodys_hash_costs_what_others_cost() {
        let nobodys = PasswordHash::new(NOBODYS).unwrap();
        let kept = Hasher::default().hash("correct horse battery").await.unwrap();
        let kept = PasswordHash::new(&kept).unwrap();
        assert_eq!(
            (&nobodys.algorithm, nobodys.version, &nobodys.params),
            (&kept.algorithm, kept.version, &kept.params)
        );
        let lengths = |hash: &PasswordHash| {
            (hash.salt.as_ref().unwrap().len(), hash.hash.as_ref().unwrap().as_bytes().len())
        };
        assert_eq!(lengths(&nobodys), lengths(&kept));
    }

    #[tokio::test]
    async fn whoever_waits_too_long_for_a_turn_is_told_so() {
        let hasher = Hasher { turns: Arc::new(Semaphore::new(1)), patience: Duration::from_millis(1) };
        let taken = Arc::clone(&hasher.turns).acquire_owned().await.unwrap();
        assert!(matches!(hasher.hash("correct horse battery").await, Err(Refused::Busy)));
        drop(taken);
        let patient = Hasher { patience: PATIENCE, ..hasher };
        assert!(patient.hash("correct horse battery").await.is_ok());
    }
}
