//! The cookie of a session, and the word against forged forms that is made of it.
//!
//! A cookie is 256 random bits. The cookie of somebody who signed in with a secret token goes on with the digest of that
//! token's value: so the session is over as soon as the value no longer opens the admin API, also when it was replaced.
//! The store only knows a digest of the whole, so no part of it can be changed. Neither is ever in a log.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::admin::problem::Problem;
use crate::admin::tokens::random;
use crate::policy::TokenDigest;
use crate::store::people::SessionDigest;

/// Hex digits of the random part.
const RANDOM_LEN: usize = 64;
/// What the word against forged forms is made for.
const LABEL: &[u8] = b"tollgate console form";

/// The cookie of a session.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Cookie {
    text: String,
    token: Option<TokenDigest>,
}

impl Cookie {
    /// A new one; with `token`: of somebody who shows this token.
    pub(super) fn try_new(token: Option<TokenDigest>) -> Result<Self, Problem> {
        let random = hex::encode(random::<32>()?);
        let text = random + &token.map(TokenDigest::to_hex).unwrap_or_default();
        Ok(Self { text, token })
    }

    /// Reads what a browser sent: lowercase hex.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let (_, rest) = text.split_at_checked(RANDOM_LEN).filter(|_| is_hex)?;
        let token = if rest.is_empty() { None } else { Some(TokenDigest::parse_hex(rest)?) };
        Some(Self { text: text.to_owned(), token })
    }

    /// The cookie's value.
    pub(super) fn expose(&self) -> &str {
        &self.text
    }

    /// The token that was shown.
    pub(super) fn token(&self) -> Option<&TokenDigest> {
        self.token.as_ref()
    }

    /// What the store finds the session by.
    pub(super) fn digest(&self) -> SessionDigest {
        SessionDigest(Sha256::digest(self.text.as_bytes()).into())
    }

    /// What has to stand in each form of this session.
    pub(super) fn csrf(&self) -> String {
        // A key of any length is taken; an empty word would be refused everywhere.
        Hmac::<Sha256>::new_from_slice(self.text.as_bytes())
            .map(|mac| hex::encode(mac.chain_update(LABEL).finalize().into_bytes()))
            .unwrap_or_default()
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Token, TokenKind};

    #[test]
    fn cookies_read_back_and_are_never_the_same() {
        let token = Token::from_random(TokenKind::Secret, [7; 16]).digest();
        for token in [None, Some(token)] {
            let (one, other) = (Cookie::try_new(token).unwrap(), Cookie::try_new(token).unwrap());
            assert_eq!(Cookie::parse(one.expose()).as_ref(), Some(&one));
            assert_eq!(one.token(), token.as_ref());
            assert_ne!(one, other);
            assert_ne!(one.digest(), other.digest());
            assert_ne!(one.csrf(), other.csrf());
            assert_eq!(one.csrf(), one.clone().csrf());
            assert_eq!(one.csrf().len(), 64);
            assert!(!one.expose().contains(&one.csrf()), "neither tells the other");
            assert!(!format!("{one:?}").contains(&one.expose()[..4]));
        }
    }

    #[test]
    fn what_is_no_cookie_is_not_looked_up() {
        let (half, whole) = ("0f".repeat(16), "0f".repeat(32));
        let good = [whole.clone(), whole.repeat(2)];
        assert!(good.iter().all(|text| Cookie::parse(text).is_some()));
        for text in
            ["", &half, &whole.to_uppercase(), &whole[1..], &format!("{whole}{half}"), &whole.repeat(3)]
        {
            assert_eq!(Cookie::parse(text), None, "{text}");
        }
        assert_eq!(Cookie::parse(&"é".repeat(32)), None);
    }
}
