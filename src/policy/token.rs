//! Token values, their digests and their public ids.
//!
//! Owns the grammar of a token (`policy.md`, "Tokens"). A [`Token`] holds the secret text and never prints it;
//! everything that may be shown carries a [`TokenId`] instead.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `pk_…`: may stand in a web page; may do what its policy grants.
    Publishable,
    /// `sk_…`: may do anything on its account, the admin API included.
    Secret,
}

impl TokenKind {
    /// The two letters and the underscore before the hex digits.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Publishable => "pk_",
            Self::Secret => "sk_",
        }
    }

    /// The name used in records and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publishable => "publishable",
            Self::Secret => "secret",
        }
    }

    /// Reads the name used in records and in the API.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "publishable" => Some(Self::Publishable),
            "secret" => Some(Self::Secret),
            _ => None,
        }
    }
}

/// Bytes of a token's text: three for the prefix, 32 hex digits.
pub const TOKEN_LEN: usize = 35;

/// A well-formed token value. The text is wiped from memory when dropped and never shown by `Debug`.
#[derive(Clone)]
pub struct Token {
    kind: TokenKind,
    text: Zeroizing<String>,
}

impl Token {
    /// Reads a token: `pk_` or `sk_` and exactly 32 lowercase hex digits (`policy.md`, "Tokens").
    /// Anything else is no token, and is not to be looked up.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let (prefix, digits) = raw.split_at_checked(3)?;
        let kind = match prefix {
            b"pk_" => TokenKind::Publishable,
            b"sk_" => TokenKind::Secret,
            _ => return None,
        };
        let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if raw.len() != TOKEN_LEN || !digits.iter().all(hex) {
            return None;
        }
        let text = Zeroizing::new(std::str::from_utf8(raw).ok()?.to_owned());
        Some(Self { kind, text })
    }

    /// Makes the token that 128 random bits stand for. The caller takes them from the operating system.
    pub fn from_random(kind: TokenKind, bits: [u8; 16]) -> Self {
        let text = Zeroizing::new(format!("{}{}", kind.prefix(), hex::encode(bits)));
        Self { kind, text }
    }

    /// Publishable or secret.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The secret text itself. Only the store's sealing and the one answer that shows a token may ask for it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What the store finds the token by.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.text.as_bytes()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", self.kind.prefix())
    }
}

impl PartialEq for Token {
    /// Takes constant time (law 7).
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.text.as_bytes().ct_eq(other.text.as_bytes()).into()
    }
}

impl Eq for Token {}

/// SHA-256 of a token's text: the store's key for it. Not secret in itself, yet kept out of logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lowercase hex, as used in key names.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Takes back what [`TokenDigest::to_hex`] made.
    pub fn parse_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// The length of a token's public name.
const ID_LENGTH: usize = 4 + ulid::ULID_LEN;

/// A token's public name: `tok_` and 26 characters of a ULID, so ids sort by age. All are of one length and ASCII, so each
/// is its own text: many of them are in memory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; ID_LENGTH]);

impl TokenId {
    /// Reads an id: `tok_` and 26 uppercase Crockford base-32 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("tok_")?;
        let upper = rest.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        (upper && ulid::Ulid::from_string(rest).is_ok()).then_some(())?;
        Some(Self(text.as_bytes().try_into().ok()?))
    }

    /// The id that a ULID stands for.
    pub fn from_ulid(ulid: ulid::Ulid) -> Self {
        let mut id = *b"tok_00000000000000000000000000";
        if let Some(Ok(rest)) = id.get_mut(4..).map(TryInto::<&mut [u8; ulid::ULID_LEN]>::try_into) {
            ulid.array_to_str(rest);
        }
        Self(id)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenId").field(&self.as_str()).finish()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of an account: 1 to 64 lowercase letters, digits, `-` or `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(String);

impl AccountId {
    /// Reads an account's name.
    pub fn parse(text: &str) -> Option<Self> {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        ((1..=64).contains(&text.len()) && text.bytes().all(fine)).then(|| Self(text.to_owned()))
    }

    /// The account made on the first start.
    pub fn default_account() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `bytes` hold something with the shape of a token, or of a signing secret, anywhere. Used to keep them out of
/// places where no credential belongs (law 7).
pub fn contains_token(bytes: &[u8]) -> bool {
    find_token(bytes).is_some()
}

/// Writes `*` over the digits of everything in `bytes` with the shape of a token or a signing secret, and says whether there was any.
pub fn mask_tokens(bytes: &mut [u8]) -> bool {
    let mut found = false;
    let mut from = 0;
    while let Some(at) = bytes.get(from..).and_then(find_token) {
        let digits = from + at + 3..from + at + TOKEN_LEN;
        if let Some(digits) = bytes.get_mut(digits) {
            digits.fill(b'*');
        }
        found = true;
        from += at + TOKEN_LEN;
    }
    found
}

fn find_token(bytes: &[u8]) -> Option<usize> {
    // The underscore is rare, so it is looked for, and the rest around it.
    memchr::memchr_iter(b'_', bytes).filter_map(|underscore| underscore.checked_sub(2)).find(|start| {
        let window = bytes.get(*start..*start + TOKEN_LEN).unwrap_or_default();
        matches!(window, [b'p' | b's', b'k', ..] | [b's', b's', ..])
            && window.iter().skip(3).all(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PK: &str = "pk_0123456789abcdef0123456789abcdef";

    #[test]
    fn reads_only_the_strict_grammar() {
        assert_eq!(Token::parse(PK.as_bytes()).map(|t| t.kind()), Some(TokenKind::Publishable));
        assert_eq!(
            Token::parse(PK.replace("pk", "sk").as_bytes()).map(|t| t.kind()),
            Some(TokenKind::Secret)
        );
        let refused: &[&[u8]] = &[
            b"",
            b"pk_",
            b"pk",
            b"tk_0123456789abcdef0123456789abcdef",
            b"PK_0123456789abcdef0123456789abcdef",
            b"pk_0123456789ABCDEF0123456789abcdef",
            b"pk_0123456789abcdef0123456789abcde",
            b"pk_0123456789abcdef0123456789abcdef0",
            b" pk_0123456789abcdef0123456789abcdef",
            b"pk_0123456789abcdef0123456789abcdef ",
            b"pk_0123456789abcdef0123456789abcdeg",
            b"pk_0123456789abcdef0123456789abcd\xc3\xa9",
            b"pk_0123456789abcdef0123456789abcde\0",
            b"pk-0123456789abcdef0123456789abcdef",
        ];
        for raw in refused {
            assert!(Token::parse(raw).is_none(), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn debug_never_shows_the_text() {
        let token = Token::parse(PK.as_bytes()).unwrap();
        assert!(!format!("{token:?} {:?}", token.digest()).contains("0123456789"));
    }

    #[test]
    fn masks_every_token_and_nothing_else() {
        let mut text = format!("a={PK}&b=pk_short&c={}", PK.replace("pk", "sk")).into_bytes();
        assert!(mask_tokens(&mut text));
        let mut secret = PK.replace("pk", "ss").into_bytes();
        assert!(mask_tokens(&mut secret), "a signing secret");
        let stars = "*".repeat(32);
        assert_eq!(String::from_utf8(text).unwrap(), format!("a=pk_{stars}&b=pk_short&c=sk_{stars}"));
        let mut plain = b"nothing here".to_vec();
        assert!(!mask_tokens(&mut plain));
        assert!(!contains_token(&plain));
    }

    #[test]
    fn ids_sort_by_age_and_keep_their_grammar() {
        let older = TokenId::from_ulid(ulid::Ulid::from_parts(1, 9));
        let newer = TokenId::from_ulid(ulid::Ulid::from_parts(2, 1));
        assert!(older < newer);
        assert_eq!(TokenId::parse(older.as_str()), Some(older));
        assert!(TokenId::parse("tok_../../x").is_none());
        assert!(TokenId::parse("tok_01ARZ3NDEKTSV4RRFFQ69G5FA").is_none());
    }
}
