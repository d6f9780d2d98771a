//! Signed requests: `IEX-HMAC-SHA256` (`signing.md`).
//!
//! Owns what a signature says, what it is made over, and whether it is right. Pure: the clock, the secrets and the body
//! are arguments. That a signature comes only once is not known here; [`Verified`] says for how long it must be
//! remembered, and [`crate::store::Store::remember_signatures`] does. How the header reads is `header`'s, what is signed
//! `canonical`'s, secrets and the key chain `key`'s, the body's hash `body`'s.
//!
//! # Checking a request
//! 1. [`Claim::read`], as soon as the token is known: `signature_missing`, `signature_stale`, and all of
//!    `signature_invalid` that needs no secret. Costs no hash.
//! 2. [`Claim::check`], with all secrets that are good for the token, before anything of the body is read.
//!    [`Checked::Verified`] is the end of it. [`Checked::Pending`] wants the body: it is `strict` and there is a body, or it
//!    is `lenient` and the signature is not one over the empty text. [`Pending`] owns what it needs; the request may go.
//! 3. For a [`Pending`] one: the body's pieces go into a [`BodyHash`] (bounded: 413 beyond) and are held back; then
//!    [`Pending::finish`].
//! 4. The [`Verified`] that comes of it is remembered, unless the token's `replay_protection` is off. Not before: a
//!    signature that is seen with a wrong body must not use up the right one.
//!
//! A [`Verified`] and a [`Pending`] are made here only, so nobody can pretend that somebody looked.
//!
//! Cost: some six blocks of SHA-256 for each form of `Host` (two, if it names a port) and, for each secret, eight for the
//! day's key and six for each form of `Host`. With one secret and a port that makes 32 blocks, a few microseconds
//! (`benches/micro.rs`). No allocation grows with the body.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::token::Token;

mod body;
mod canonical;
mod header;
mod key;
#[cfg(test)]
mod tests;

pub use body::{BodyDigest, BodyHash, DEFAULT_MAX_SIGNED_BODY, SignatureBody};
pub use canonical::{Signing, parse_date, sign};
pub use key::SigningSecret;
#[cfg(test)]
pub(in crate::policy) use tests::checked_example;

use canonical::{Day, Prefix};
use key::SigningKey;

/// The scheme's name in `Authorization`, and the first line of what is signed.
pub const SCHEME: &str = "IEX-HMAC-SHA256";
/// The header with the time of the signature.
pub const DATE_HEADER: &str = "x-iex-date";
/// How far a signature's time may be from the gate's, unless told otherwise.
pub const DEFAULT_MAX_SKEW: Duration = Duration::from_mins(5);

/// What is wrong with a signature. Each is a public sentence, and carries nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadSignature {
    /// `Authorization` is not of its form.
    #[error(
        "the Authorization header is not `IEX-HMAC-SHA256 Credential=TOKEN/YYYYMMDD/iex_request, \
         SignedHeaders=host;x-iex-date, Signature=` and 64 lowercase hex digits"
    )]
    Malformed,
    /// There are several signatures.
    #[error("the request carries several signatures")]
    Several,
    /// No `x-iex-date`, several of them, or one that is no time.
    #[error("the request needs exactly one x-iex-date, written YYYYMMDDTHHMMSSZ")]
    Date,
    /// The day in `Credential` is not that of `x-iex-date`.
    #[error("the day in Credential is not the day of x-iex-date")]
    OtherDay,
    /// `Credential` names another token than the request presents.
    #[error("Credential names another token than the request carries")]
    OtherToken,
    /// There is no `Host` to sign.
    #[error("the request has no Host header")]
    NoHost,
    /// No secret of the token makes this signature over this request.
    #[error("no secret that is good for this token makes this signature over this request")]
    Mismatch,
}

/// Why a signature is not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureRefusal {
    /// There is none: 401 `signature_missing`.
    Missing,
    /// It is wrong: 403 `signature_invalid`.
    Invalid(BadSignature),
    /// It is too old, or of a time to come: 403 `signature_stale`.
    Stale,
    /// The body is too long to be held back until its hash is known: 413 `body_too_large`.
    BodyTooLarge {
        /// Bytes that are held back at most.
        most: u64,
    },
}

/// A request as its signature sees it: raw, before anything is brought to a canonical form.
#[derive(Debug, Clone, Copy)]
pub struct RawRequest<'r> {
    /// Its method.
    pub method: &'r str,
    /// Its target, byte for byte as on the request line.
    pub target: &'r [u8],
    /// Its `Host` header.
    pub host: Option<&'r [u8]>,
    /// Every value of `Authorization`. Those of other schemes are somebody else's.
    pub authorization: &'r [&'r [u8]],
    /// Every value of `x-iex-date`.
    pub dates: &'r [&'r [u8]],
}

/// What a request claims with its signature: of the right form, of this token, and of now. Nothing is proved yet.
#[derive(Debug, Clone)]
pub struct Claim {
    prefixes: Vec<Prefix>,
    seal: Seal,
}

/// The signature itself, and of when it is.
#[derive(Debug, Clone)]
struct Seal {
    signature: [u8; 64],
    date: [u8; 16],
    dated: Timestamp,
    expires_at: Timestamp,
}

impl Claim {
    /// Reads the signature of a request that presents `token`, by the gate's clock.
    ///
    /// # Errors
    /// Never [`BadSignature::Mismatch`] or [`SignatureRefusal::BodyTooLarge`].
    pub fn read(
        request: &RawRequest<'_>,
        token: &Token,
        now: Timestamp,
        max_skew: Duration,
    ) -> Result<Self, SignatureRefusal> {
        use SignatureRefusal::{Invalid, Missing, Stale};
        let mut ours = request.authorization.iter().filter_map(|value| header::of_our_scheme(value));
        let parameters = ours.next().ok_or(Missing)?;
        if ours.next().is_some() {
            return Err(Invalid(BadSignature::Several));
        }
        let header = header::parse(parameters).ok_or(Invalid(BadSignature::Malformed))?;
        let [date] = request.dates else { return Err(Invalid(BadSignature::Date)) };
        let (date, dated) = canonical::parse_date(date).ok_or(Invalid(BadSignature::Date))?;
        if Day::of(&date) != header.day {
            return Err(Invalid(BadSignature::OtherDay));
        }
        if !bool::from(header.token.ct_eq(token.expose().as_bytes())) {
            return Err(Invalid(BadSignature::OtherToken));
        }
        let max_skew = SignedDuration::try_from(max_skew).unwrap_or(SignedDuration::MAX);
        if now.duration_since(dated).abs() > max_skew {
            return Err(Stale);
        }
        let host = request.host.filter(|host| !host.is_empty()).ok_or(Invalid(BadSignature::NoHost))?;
        let prefix = |host| Prefix::new(request.method, request.target, host, &date);
        let prefixes = canonical::forms_of_host(host).map(prefix).collect();
        let expires_at = dated.checked_add(max_skew).unwrap_or(Timestamp::MAX);
        Ok(Self { prefixes, seal: Seal { signature: header.signature, date, dated, expires_at } })
    }

    /// Checks the signature with every secret that is good for the token, as far as that is possible without the body.
    /// `has_body`: the request has one, or may have one (a length that is not 0, or chunks).
    ///
    /// # Errors
    /// Only [`BadSignature::Mismatch`].
    pub fn check<'s>(
        self,
        secrets: impl IntoIterator<Item = &'s SigningSecret>,
        rule: SignatureBody,
        has_body: bool,
    ) -> Result<Checked, SignatureRefusal> {
        let day = Day::of(&self.seal.date);
        let keys = secrets.into_iter().map(|secret| SigningKey::derive(secret, day)).collect();
        let pending = Pending { prefixes: self.prefixes, keys, seal: self.seal };
        if pending.keys.is_empty() {
            return Err(SignatureRefusal::Invalid(BadSignature::Mismatch));
        }
        match (has_body, rule) {
            (true, SignatureBody::Strict) => Ok(Checked::Pending(pending)),
            (true, SignatureBody::Lenient) if !pending.is_over(&BodyDigest::empty()) => {
                Ok(Checked::Pending(pending))
            }
            (true, SignatureBody::Lenient) => Ok(Checked::Verified(pending.verified())),
            (false, _) => pending.finish(&BodyDigest::empty()).map(Checked::Verified),
        }
    }
}

/// How far checking has come.
#[derive(Debug)]
pub enum Checked {
    /// The signature is right.
    Verified(Verified),
    /// Only the body can tell.
    Pending(Pending),
}

/// A signature that waits for its body. Nothing may be forwarded before [`Pending::finish`].
#[derive(Debug)]
pub struct Pending {
    prefixes: Vec<Prefix>,
    keys: Vec<SigningKey>,
    seal: Seal,
}

impl Pending {
    /// The body has come to its end, and this is its hash.
    ///
    /// # Errors
    /// Only [`BadSignature::Mismatch`].
    pub fn finish(self, body: &BodyDigest) -> Result<Verified, SignatureRefusal> {
        if self.is_over(body) {
            Ok(self.verified())
        } else {
            Err(SignatureRefusal::Invalid(BadSignature::Mismatch))
        }
    }

    /// Takes the same time whichever secret and whichever form of `Host` is right, and wherever a wrong signature first
    /// differs (law 7).
    fn is_over(&self, body: &BodyDigest) -> bool {
        let mut right = subtle::Choice::from(0);
        for prefix in &self.prefixes {
            let to_sign = prefix.to_sign(&self.seal.date, body);
            for key in &self.keys {
                right |= key.sign(&to_sign).ct_eq(&self.seal.signature);
            }
        }
        right.into()
    }

    fn verified(&self) -> Verified {
        let digest = Sha256::new().chain_update(b"tollgate signature\0").chain_update(self.seal.signature);
        let digest: [u8; 32] = digest.finalize().into();
        let [half, _]: [[u8; 16]; 2] = halves(digest);
        let Seal { dated, expires_at, .. } = self.seal;
        Verified { fingerprint: Fingerprint(half), dated, expires_at }
    }
}

fn halves(digest: [u8; 32]) -> [[u8; 16]; 2] {
    let mut halves = [[0; 16]; 2];
    halves.as_flattened_mut().copy_from_slice(&digest);
    halves
}

/// A signature that is right: proof that somebody looked. It may still be a repetition of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    fingerprint: Fingerprint,
    dated: Timestamp,
    expires_at: Timestamp,
}

impl Verified {
    /// What the signature is remembered by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The signature's time.
    pub fn dated(&self) -> Timestamp {
        self.dated
    }

    /// After this time it is stale, by a clock that goes as the gate's.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

/// What a signature is remembered by: 128 bits of a hash of it, so that no store holds signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);
