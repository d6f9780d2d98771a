//! Plain URLs, which are nearly all that browsers send, read without the URL standard's machine.
//!
//! Owns nothing but speed: what is read here reads the same through [`url::Url`], as the tests hold; whatever is not
//! plain (capitals, escapes, addresses, `xn--`, dots in odd places) is left to that.

use super::{Clear, HostName, Place, Said, SchemeName};
use crate::policy::byte_set::{ByteSet, byte_set};
use crate::policy::domain::{Scheme, is_name};

/// Bytes of a plain host.
static HOST: ByteSet = byte_set!(byte => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
/// Bytes of a plain path.
static PATH: ByteSet =
    byte_set!(byte => byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'~' | b'.'));
/// Bytes of a plain query.
static QUERY: ByteSet = byte_set!(byte => byte.is_ascii_graphic() && byte != b'#');

/// A plain URL in its parts.
pub(super) struct Plain<'a> {
    scheme: Scheme,
    host: &'a str,
    port: u16,
    path: &'a str,
    /// All that follows the authority.
    pub(super) after: &'a str,
}

impl From<Plain<'_>> for Place {
    fn from(plain: Plain<'_>) -> Self {
        Self {
            scheme: SchemeName::Known(plain.scheme),
            host: HostName::Name(plain.host.to_owned()),
            port: Some(plain.port),
            path: if plain.path.is_empty() { "/" } else { plain.path }.to_owned(),
        }
    }
}

/// Reads a plain `Origin` and a plain `Referer` that agree; `None`: they are not such.
pub(super) fn read_both(origin: &[u8], referer: &[u8]) -> Option<Said> {
    let (text, own) = read(origin)?;
    let (_, page) = read(referer)?;
    let agree =
        own.after.is_empty() && own.scheme == page.scheme && own.host == page.host && own.port == page.port;
    agree.then(|| Said::Clear(Clear { place: page.into(), has_path: true, origin: Some(text.to_owned()) }))
}

/// Reads a plain URL; `None`: it is not plain.
pub(super) fn read(value: &[u8]) -> Option<(&str, Plain<'_>)> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, default, rest) = match text.strip_prefix("https://") {
        Some(rest) => (Scheme::Https, 443, rest),
        None => (Scheme::Http, 80, text.strip_prefix("http://")?),
    };
    let end = rest.bytes().position(|byte| !HOST.has(byte)).unwrap_or(rest.len());
    let (host, after) = rest.split_at_checked(end)?;
    if !matches!(after.bytes().next(), None | Some(b':' | b'/' | b'?')) {
        return None;
    }
    if !is_plain_host(host) {
        return None;
    }
    let (port, after) = match after.strip_prefix(':') {
        None => (default, after),
        Some(rest) => read_port(rest)?,
    };
    let path = match after.bytes().position(|byte| byte == b'?') {
        None => after,
        Some(at) => {
            let (path, query) = after.split_at_checked(at)?;
            QUERY.has_all(query.as_bytes()).then_some(path)?
        }
    };
    is_plain_path(path).then_some((text, Plain { scheme, host, port, path, after }))
}

fn is_plain_host(host: &str) -> bool {
    let bytes = host.as_bytes();
    let last = bytes.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    // A last label with a digit in front makes an IPv4 address, or nothing; `--` may be the mark of an encoded name.
    is_name(host)
        && last.first().is_some_and(u8::is_ascii_lowercase)
        && !bytes.windows(2).any(|pair| pair == b"--")
}

fn read_port(text: &str) -> Option<(u16, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, after) = text.split_at_checked(end)?;
    let fine = (1..=5).contains(&digits.len()) && matches!(after.bytes().next(), None | Some(b'/' | b'?'));
    fine.then(|| digits.parse().ok().map(|port| (port, after)))?
}

fn is_plain_path(path: &str) -> bool {
    // A dot stays only inside a segment's name.
    let mut before = b'/';
    path.bytes().all(|byte| {
        let plain = PATH.has(byte) && (byte != b'.' || !matches!(before, b'/' | b'.'));
        before = byte;
        plain
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::domain::page::{after_authority, parse_url};

    fn agrees(text: &str) -> bool {
        let Some((same, plain)) = read(text.as_bytes()) else { return false };
        assert_eq!(same, text);
        assert_eq!(after_authority(text), Ok(plain.after), "{text}");
        assert_eq!(parse_url(text), Ok(Place::from(plain)), "{text}");
        true
    }

    #[test]
    fn usual_pages_are_plain() {
        for text in [
            "https://www.example.com",
            "http://localhost:3000",
            "https://app.example.com/user/1",
            "https://a-b.example.co.uk:8443/app/index.html?x=1&y=%20/..",
            "http://example.com/?q=a@b",
            "https://x1.example:0/",
        ] {
            assert!(agrees(text), "{text}");
        }
    }

    #[test]
    fn whatever_the_url_standard_changes_is_not_plain() {
        for text in [
            "HTTPS://www.example.com",
            "https://WWW.example.com",
            "https://www.example.com.",
            "https://127.0.0.1",
            "https://example.0x1",
            "https://1",
            "https://xn--bcher-kva.example",
            "https://user@example.com/",
            "https://example.com\\a",
            "https://example.com/a/../b",
            "https://example.com/a/.",
            "https://example.com/%41",
            "https://example.com/a b",
            "https://example.com/#f",
            "https://example.com/?a#f",
            "https://example.com:",
            "https://example.com:99999",
            "https://example.com:1x",
            "https://[::1]/",
            "https:///a",
            "ftp://example.com/",
            "https://b\u{fc}cher.example/",
        ] {
            assert!(!agrees(text), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn reads_as_the_url_standard_does(
            pieces in prop::collection::vec(
                prop::sample::select(&[
                    "https://", "http://", "www", "example", ".com", ".", "-", "_", "a", "0x1", "1", "127.0.0.1", ":", "443", "80",
                    "0", "65536", "/", "..", "?", "=", "&", "%2e", "#", "@", "\\", "xn--", "~", "A", " ", "'", "\"", "|",
                ][..]), 0..10),
            start in prop::sample::select(&["https://a", "http://www.example.com", "https://", ""][..]),
        ) {
            agrees(&format!("{start}{}", pieces.concat()));
        }
    }
}
