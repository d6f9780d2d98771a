//! Secrets, and the chain of keys that leads from one to a day's signatures.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::canonical::Day;
use crate::policy::token::Token;

/// Bytes of a SHA-256 block. A key of at most so many bytes is filled up with zeros (RFC 2104).
const BLOCK: usize = 64;

/// A secret that signs requests: an account's secret token, or a token's own signing secret. Wiped from memory when
/// dropped, never shown by `Debug`.
#[derive(Clone)]
pub struct SigningSecret(Zeroizing<String>);

impl SigningSecret {
    /// Takes any text of 1 to 64 printable ASCII characters without spaces: both forms are among them.
    pub fn parse(text: &str) -> Option<Self> {
        let fine = (1..=BLOCK).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The signing secret that 128 random bits stand for: `ss_` and 32 hex digits.
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(Zeroizing::new(format!("ss_{}", hex::encode(bits))))
    }

    /// The secret that a secret token is.
    pub fn of_token(token: &Token) -> Self {
        Self(Zeroizing::new(token.expose().to_owned()))
    }

    /// The secret text itself. Only the store's sealing and the one answer that shows it may ask for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl PartialEq for SigningSecret {
    /// Takes constant time (law 7).
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for SigningSecret {}

/// An HMAC in lowercase hex. As a key, the text counts and not the bytes it stands for (`signing.md`).
type Hex = Zeroizing<[u8; BLOCK]>;

fn hex_hmac(key: &[u8; BLOCK], message: &[u8]) -> Hex {
    let mac = Hmac::<Sha256>::new(&(*key).into()).chain_update(message).finalize().into_bytes();
    let mut text = Zeroizing::new([0; BLOCK]);
    // Twice as many digits as bytes: it always fits.
    let _ = hex::encode_to_slice(mac, text.as_mut());
    text
}

/// What signs on one day: `kSign` of the scheme.
#[derive(Clone)]
pub(super) struct SigningKey(Hex);

impl SigningKey {
    pub(super) fn derive(secret: &SigningSecret, day: Day) -> Self {
        Self(hex_hmac(&k_date(secret, day), b"iex_request"))
    }

    pub(super) fn sign(&self, to_sign: &[u8]) -> Hex {
        hex_hmac(&self.0, to_sign)
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.to_vec()).unwrap()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

pub(super) fn k_date(secret: &SigningSecret, day: Day) -> Hex {
    let mut key = Zeroizing::new([0; BLOCK]);
    for (place, byte) in key.iter_mut().zip(secret.0.bytes()) {
        *place = byte;
    }
    hex_hmac(&key, &day.0)
}
