//! Sealing: how the value of a secret token is kept, so that a stolen store gives nobody a token.
//!
//! Owns the form of a sealed value: `v1:` and the hex of a nonce and the XChaCha20-Poly1305 ciphertext. The token's
//! id is bound to it, so a value that is moved to another record does not open. Knows no store and no record.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::policy::signature::SigningSecret;
use crate::policy::{Token, TokenId};

/// Why a token's value cannot be sealed or opened. The sentences are for the people who run the gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Secret tokens are sealed, and there is no key to do it with.
    #[error("there is no master key; set `master_key` to seal and reveal secret tokens")]
    NoMasterKey,
    /// It was sealed with another key, or for another token.
    #[error(
        "the token's value was sealed with another master key, or for another token; \
         give the master key it was sealed with, or rotate the token"
    )]
    WrongKey,
    /// It is not a sealed value at all, or not of a form that is known here.
    #[error("the token's sealed value is damaged, or was sealed by a newer version")]
    Malformed,
    /// There was no master key when the token got its value, so the value was not kept.
    #[error("the token's value was not kept, for want of a master key at the time; rotate the token")]
    NotKept,
    /// The operating system gave no random bytes for the nonce.
    #[error("the operating system gives no random bytes to seal the token's value with")]
    NoRandomness,
}

/// Why a text is no master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a master key is 64 hex digits (32 random bytes), or a passphrase of at least {MIN_PASSPHRASE} characters"
)]
pub struct BadMasterKey;

/// Characters a passphrase must have at least.
const MIN_PASSPHRASE: usize = 16;

/// What stands before the hex of a sealed value: the form, so that another can follow one day.
const FORM: &str = "v1:";

/// Bytes of an XChaCha20-Poly1305 nonce; large enough to be drawn at random for each value.
const NONCE_LEN: usize = 24;

/// Seals and opens token values with one master key.
#[derive(Clone)]
pub struct Sealer {
    key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// A sealer with this key: 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: Zeroizing::new(*key) }
    }

    /// A sealer with the key that a text stands for. 64 hex digits are the key itself (the better choice: `openssl
    /// rand -hex 32`); anything else of at least 16 characters is a passphrase, and the key is SHA-256 of the words
    /// `tollgate master key v1`, a NUL and the passphrase. That is no slow hash: a passphrase must be long to be strong.
    pub fn from_text(text: &str) -> Result<Self, BadMasterKey> {
        let mut key = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(text, key.as_mut()).is_ok() {
            return Ok(Self { key });
        }
        if text.chars().count() < MIN_PASSPHRASE {
            return Err(BadMasterKey);
        }
        let digest = Sha256::new().chain_update(b"tollgate master key v1\0").chain_update(text.as_bytes());
        Ok(Self { key: Zeroizing::new(digest.finalize().into()) })
    }

    /// Seals the value of the token `id`.
    pub fn seal(&self, id: &TokenId, token: &Token) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let bound = bound_to(id);
        let payload = Payload { msg: token.expose().as_bytes(), aad: &bound };
        let sealed =
            self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Malformed)?;
        Ok(format!("{FORM}{}{}", hex::encode(nonce), hex::encode(sealed)))
    }

    /// Opens what [`Sealer::seal`] made for the token `id`.
    pub fn open(&self, id: &TokenId, sealed: &str) -> Result<Token, SealError> {
        let bytes = sealed.strip_prefix(FORM).and_then(|digits| hex::decode(digits).ok());
        let bytes = bytes.ok_or(SealError::Malformed)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Malformed)?;
        let bound = bound_to(id);
        let payload = Payload { msg: sealed, aad: &bound };
        let opened =
            self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::WrongKey)?;
        Token::parse(&Zeroizing::new(opened)).ok_or(SealError::Malformed)
    }

    /// Seals the signing secret of the token `id`.
    pub fn seal_signing(&self, id: &TokenId, secret: &SigningSecret) -> Result<String, SealError> {
        let sealed = self.seal_bytes(&signing_bound_to(id), secret.expose().as_bytes())?;
        Ok(format!("{FORM}{}", hex::encode(sealed)))
    }

    /// Opens what [`Sealer::seal_signing`] made for the token `id`.
    pub fn open_signing(&self, id: &TokenId, sealed: &str) -> Result<SigningSecret, SealError> {
        let bytes = sealed.strip_prefix(FORM).and_then(|digits| hex::decode(digits).ok());
        let bytes = bytes.ok_or(SealError::Malformed)?;
        let opened = Zeroizing::new(self.open_bytes(&signing_bound_to(id), &bytes)?);
        let text = std::str::from_utf8(&opened).ok().and_then(SigningSecret::parse);
        text.ok_or(SealError::Malformed)
    }

    /// Seals bytes that are no token, bound to what they are.
    pub(super) fn seal_bytes(&self, what: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let payload = Payload { msg: bytes, aad: what };
        let sealed =
            self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Malformed)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Sealer::seal_bytes`] made of the same kind of thing.
    pub(super) fn open_bytes(&self, what: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Malformed)?;
        let payload = Payload { msg: sealed, aad: what };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::WrongKey)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        // The cipher wipes its own copy of the key when it is dropped.
        XChaCha20Poly1305::new((&*self.key).into())
    }
}

/// The data a sealed value is bound to: what it is, and whose.
fn bound_to(id: &TokenId) -> Vec<u8> {
    [b"tollgate token value\0".as_slice(), id.as_str().as_bytes()].concat()
}

/// The same for a signing secret, so that neither opens as the other.
fn signing_bound_to(id: &TokenId) -> Vec<u8> {
    [b"tollgate signing secret\0".as_slice(), id.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::TokenKind;

    fn id(n: u128) -> TokenId {
        TokenId::from_ulid(ulid::Ulid(n))
    }

    fn token() -> Token {
        Token::from_random(TokenKind::Secret, [7; 16])
    }

    #[test]
    fn opens_what_it_sealed_and_shows_nothing_of_it() {
        let sealer = Sealer::new(&[1; 32]);
        let kept = sealer.seal(&id(1), &token()).unwrap();
        assert!(!kept.contains("0707"), "{kept}");
        assert!(sealer.open(&id(1), &kept).unwrap() == token());
        assert_ne!(sealer.seal(&id(1), &token()).unwrap(), kept, "each nonce is new");
    }

    #[test]
    fn opens_neither_for_another_token_nor_with_another_key() {
        let sealer = Sealer::new(&[1; 32]);
        let kept = sealer.seal(&id(1), &token()).unwrap();
        assert_eq!(sealer.open(&id(2), &kept).unwrap_err(), SealError::WrongKey);
        assert_eq!(Sealer::new(&[2; 32]).open(&id(1), &kept).unwrap_err(), SealError::WrongKey);
    }

    #[test]
    fn a_signing_secret_opens_as_what_it_is_and_for_its_token_only() {
        let sealer = Sealer::new(&[1; 32]);
        let secret = SigningSecret::from_random([7; 16]);
        let kept = sealer.seal_signing(&id(1), &secret).unwrap();
        assert!(!kept.contains("0707") && kept.starts_with(FORM), "{kept}");
        assert!(sealer.open_signing(&id(1), &kept).unwrap() == secret);
        assert_eq!(sealer.open_signing(&id(2), &kept).unwrap_err(), SealError::WrongKey);
        assert_eq!(Sealer::new(&[2; 32]).open_signing(&id(1), &kept).unwrap_err(), SealError::WrongKey);
        assert_eq!(sealer.open(&id(1), &kept).unwrap_err(), SealError::WrongKey, "it is no token");
        let of_token = sealer.seal(&id(1), &token()).unwrap();
        assert_eq!(sealer.open_signing(&id(1), &of_token).unwrap_err(), SealError::WrongKey);
        for text in ["", "v1:", "v1:zz", "v2:00"] {
            assert_eq!(sealer.open_signing(&id(1), text).unwrap_err(), SealError::Malformed, "{text}");
        }
    }

    #[test]
    fn says_that_a_damaged_value_is_damaged() {
        let sealer = Sealer::new(&[1; 32]);
        let kept = sealer.seal(&id(1), &token()).unwrap();
        for text in ["", "v1:", "v1:zz", "v2:00", "sk_", &kept[3..], &kept[..40]] {
            assert_eq!(sealer.open(&id(1), text).unwrap_err(), SealError::Malformed, "{text}");
        }
        for at in [3, 60, kept.len() - 1] {
            let mut bytes = kept.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let flipped = String::from_utf8(bytes).unwrap();
            assert_eq!(sealer.open(&id(1), &flipped).unwrap_err(), SealError::WrongKey, "at {at}");
        }
    }

    #[test]
    fn a_key_is_hex_or_a_long_passphrase() {
        let hex = "0101010101010101010101010101010101010101010101010101010101010101";
        let kept = Sealer::new(&[1; 32]).seal(&id(1), &token()).unwrap();
        assert!(Sealer::from_text(hex).unwrap().open(&id(1), &kept).is_ok());
        assert!(Sealer::from_text(&hex.replace("01", "02")).unwrap().open(&id(1), &kept).is_err());
        let phrase = "correct horse battery";
        let kept = Sealer::from_text(phrase).unwrap().seal(&id(1), &token()).unwrap();
        assert!(Sealer::from_text(phrase).unwrap().open(&id(1), &kept).is_ok());
        for short in ["", "fifteen letters", &hex[..15]] {
            assert_eq!(Sealer::from_text(short).unwrap_err(), BadMasterKey, "{short}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", Sealer::new(&[171; 32]));
        assert!(!shown.contains("171") && !shown.contains("ab"), "{shown}");
    }
}
