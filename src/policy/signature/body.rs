//! The body's part in a signature.

use sha2::{Digest, Sha256};

use super::SignatureRefusal;

/// What a signature must say of the body (`signature_body` of a route).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignatureBody {
    /// The hash of what is really sent. The body is held back until it is right.
    #[default]
    Strict,
    /// The hash of the empty text will do, as most clients sign it; so will the body's own.
    Lenient,
}

/// Bytes of a body that are held back at most, unless told otherwise: 1 MiB.
pub const DEFAULT_MAX_SIGNED_BODY: u64 = 1 << 20;

/// The hash of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyDigest([u8; 32]);

impl BodyDigest {
    /// That of no body.
    pub fn empty() -> Self {
        Self::of(b"")
    }

    /// That of a whole body.
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    pub(super) fn to_hex(self) -> [u8; 64] {
        let mut text = [0; 64];
        // Twice as many digits as bytes: it always fits.
        let _ = hex::encode_to_slice(self.0, &mut text);
        text
    }
}

/// Hashes a body as it comes in, up to a bound. The caller holds the pieces back meanwhile.
#[derive(Debug, Clone)]
pub struct BodyHash {
    hash: Sha256,
    seen: u64,
    most: u64,
}

impl BodyHash {
    /// Begins a body of at most `most` bytes. `announced`: the request's `Content-Length`, which may say at once that it is
    /// too long.
    ///
    /// # Errors
    /// Only [`SignatureRefusal::BodyTooLarge`].
    pub fn begin(most: u64, announced: Option<u64>) -> Result<Self, SignatureRefusal> {
        if announced.is_some_and(|length| length > most) {
            return Err(SignatureRefusal::BodyTooLarge { most });
        }
        Ok(Self { hash: Sha256::new(), seen: 0, most })
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// Only [`SignatureRefusal::BodyTooLarge`]: this piece is one too many, and must not be kept.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), SignatureRefusal> {
        self.seen = self.seen.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if self.seen > self.most {
            return Err(SignatureRefusal::BodyTooLarge { most: self.most });
        }
        self.hash.update(piece);
        Ok(())
    }

    /// The body has come to its end.
    pub fn finish(self) -> BodyDigest {
        BodyDigest(self.hash.finalize().into())
    }
}
