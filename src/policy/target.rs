//! The request target, brought to the one form that is matched, judged and forwarded (`policy.md`, "Canonical
//! target"; law 8).
//!
//! Owns which bytes a target may hold and what they become. It must not know routes or data sets: an encoded slash
//! stays in the text as `%2F`, and [`super::route`] refuses it where the route does not keep it. Parameters of the
//! query are [`super::query`]'s.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{percent_decode, percent_decode_str};

use super::byte_set::{ByteSet, byte_set};
use super::token::contains_token;

#[cfg(test)]
mod tests;

/// Bytes a path and its query may have together: 8 KiB, before and after they are brought to one form.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why a target has no safe canonical form. Each is a public sentence, and carries nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadTarget {
    /// Longer than [`MAX_TARGET`].
    #[error("the path and query are longer than 8 KiB")]
    TooLong,
    /// Neither a path nor `http://` or `https://`: `*`, `host:port`, nothing at all.
    #[error("the request target must be a path that starts with `/`")]
    NotAPath,
    /// An absolute form whose authority is not what the `Host` header says.
    #[error("the request target names another authority than the Host header")]
    OtherAuthority,
    /// A raw `#`.
    #[error("the request target has a fragment; an encoded `#` is written %23")]
    Fragment,
    /// `%` without two hex digits after it.
    #[error("the request target has a `%` that two hex digits do not follow")]
    BadEscape,
    /// `%00`.
    #[error("the request target holds an encoded NUL")]
    Nul,
    /// A raw `\`, or `%5C` in the path.
    #[error("the request target holds a backslash")]
    Backslash,
    /// A raw control character, or an encoded one in the path.
    #[error("the request target holds a control character")]
    Control,
    /// A raw space.
    #[error("the request target holds a space; write it as %20")]
    Space,
    /// A raw byte outside ASCII.
    #[error("the request target holds a byte outside ASCII; such characters must be percent-encoded")]
    NotAscii,
    /// Escapes of the path that are no UTF-8, overlong forms included.
    #[error("the path does not decode to UTF-8 text")]
    NotUtf8,
    /// `.` or `..` as a segment, in any spelling.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// A segment that is all parameter, `/;x/`: some servers drop it and see another path.
    #[error("the path has a segment that starts with `;`")]
    NamelessSegment,
    /// `%2F` where the route does not keep it. Found by [`super::route`].
    #[error("the path has an encoded slash, which this route does not take")]
    EncodedSlash,
    /// A data set's name outside its grammar. Found by [`super::route`].
    #[error(
        "the data set's name must be 1 to 128 ASCII letters, digits, `_`, `-` or `.`, and not dots alone"
    )]
    DatasetName,
    /// A batch separator that could be part of a name, or several. Found by [`super::route`].
    #[error("the batch separator must be one character that no data set's name can hold")]
    BatchSeparator,
    /// Something with the shape of a token where no credential belongs ([`Target::holds_token`]).
    #[error("the request target holds a token outside the `token` parameter")]
    TokenInTarget,
    /// Not in its one form, or with a token in it, where another proxy sends it on as it is ([`crate::gate::check`]).
    #[error("behind this proxy a token goes into a header, and a path is written in its plain form")]
    NotAsIs,
}

/// A canonical request target. Spellings of one path that RFC 3986 calls equivalent give equal targets, and reading
/// what [`Target::to_wire`] gives is an equal target again.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    path: String,
    query: Option<String>,
}

impl Target {
    /// Reads a target as it stands on the request line. `host` is the value of the `Host` header, which an absolute
    /// form must agree with (RFC 9112, 3.2.2).
    pub fn parse(raw: &[u8], host: Option<&[u8]>) -> Result<Self, BadTarget> {
        if raw.len() > MAX_TARGET {
            return Err(BadTarget::TooLong);
        }
        let raw = to_origin_form(raw, host)?;
        let mut parts = raw.splitn(2, |byte| *byte == b'?');
        let path = canonical_path(parts.next().unwrap_or_default())?;
        let query = parts.next().map(checked_query).transpose()?;
        if path.len() + query.as_ref().map_or(0, |query| query.len() + 1) > MAX_TARGET {
            return Err(BadTarget::TooLong);
        }
        Ok(Self { path, query })
    }

    /// The path; starts with `/`, still percent-encoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its `?`, byte for byte as it came.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Puts another query in place: what [`super::query::take_tokens`] left.
    pub fn set_query(&mut self, query: Option<String>) {
        self.query = query;
    }

    /// The segments of the path, still percent-encoded. A trailing slash gives a last, empty segment; so `/` is one
    /// empty segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        Segments { rest: self.path.get(1..) }
    }

    /// Takes one slash off the end of the path, unless it is all of it.
    pub fn drop_trailing_slash(&mut self) {
        if self.path.len() > 1 && self.path.ends_with('/') {
            self.path.pop();
        }
    }

    /// The target as the upstream receives it.
    pub fn to_wire(&self) -> String {
        match &self.query {
            None => self.path.clone(),
            Some(query) => [self.path.as_str(), "?", query].concat(),
        }
    }

    /// Whether something with the shape of a token stands in the path or the query, also percent-encoded once or
    /// twice. To be asked after the `token` parameters are taken out: what is left would reach the upstream (law 7).
    pub fn holds_token(&self) -> bool {
        token_within(&self.path) || self.query.as_deref().is_some_and(token_within)
    }
}

/// Splits at each slash; for such short texts quicker than the general search.
struct Segments<'t> {
    rest: Option<&'t str>,
}

impl<'t> Iterator for Segments<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let rest = self.rest.take()?;
        match rest.bytes().position(|byte| byte == b'/') {
            None => Some(rest),
            Some(at) => {
                self.rest = rest.get(at + 1..);
                rest.get(..at)
            }
        }
    }
}

impl fmt::Debug for Target {
    /// Shows nothing of the text: before the tokens are taken out it may hold one (law 7).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(…)")
    }
}

/// Percent-decodes a canonical piece of a path; `None` if that is no UTF-8.
pub fn decode(piece: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(piece).decode_utf8().ok()
}

fn token_within(text: &str) -> bool {
    let mut bytes = Cow::Borrowed(text.as_bytes());
    for _ in 0..2 {
        if contains_token(&bytes) {
            return true;
        }
        if !bytes.contains(&b'%') {
            return false;
        }
        bytes = Cow::Owned(percent_decode(&bytes).collect());
    }
    contains_token(&bytes)
}

/// Takes the scheme and authority off an absolute form, if the authority is the one of `host`.
fn to_origin_form<'a>(raw: &'a [u8], host: Option<&[u8]>) -> Result<&'a [u8], BadTarget> {
    if raw.starts_with(b"/") {
        return Ok(raw);
    }
    let (rest, default_port) = [(&b"http://"[..], 80), (b"https://", 443)]
        .into_iter()
        .find_map(|(scheme, port)| {
            let (start, rest) = raw.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some((rest, port))
        })
        .ok_or(BadTarget::NotAPath)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).ok_or(BadTarget::NotAPath)?;
    let named = split_port(authority, default_port);
    let expected = host.and_then(|host| split_port(host, default_port));
    match (named, expected) {
        (Some((name, port)), Some((host, host_port)))
            if port == host_port && name.eq_ignore_ascii_case(host) =>
        {
            Ok(rest)
        }
        _ => Err(BadTarget::OtherAuthority),
    }
}

/// Splits `host[:port]`; `None` if there is user information, no host, or no such port.
fn split_port(authority: &[u8], default_port: u16) -> Option<(&[u8], u16)> {
    let bracket = authority.iter().rposition(|byte| *byte == b']');
    let colon = authority.iter().rposition(|byte| *byte == b':').filter(|colon| bracket < Some(*colon));
    let (name, port) = match colon {
        None => (authority, default_port),
        Some(colon) => {
            let (name, digits) = (authority.get(..colon)?, authority.get(colon + 1..)?);
            let port = if digits.is_empty() { default_port } else { parse_port(digits)? };
            (name, port)
        }
    };
    let fine = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'\\' | b',');
    (!name.is_empty() && name.iter().all(fine)).then_some((name, port))
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    // `parse` alone would take `+80`.
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// Bytes that stand in a canonical path as they are, `/` among them.
static PATH: ByteSet = byte_set!(byte => is_unreserved(byte) || is_delimiter(byte) || byte == b'/');
/// Bytes that stand in a query and need no closer look.
static QUERY: ByteSet = byte_set!(byte => byte.is_ascii_graphic() && !matches!(byte, b'%' | b'#' | b'\\'));

/// A path that is in canonical form already, as nearly all are.
fn plain_path(raw: &[u8]) -> Option<&str> {
    let mut after_slash = false;
    let plain = raw.starts_with(b"/")
        && raw.iter().all(|byte| {
            // A dot or a `;` in front makes a segment that is looked at closely, an empty one goes.
            let fine = PATH.has(*byte) && !(after_slash && matches!(*byte, b'.' | b';' | b'/'));
            after_slash = *byte == b'/';
            fine
        });
    plain.then(|| std::str::from_utf8(raw).ok())?
}

/// Brings a path to its one form: `/` once, escapes only where they are needed, hex digits in upper case.
fn canonical_path(raw: &[u8]) -> Result<String, BadTarget> {
    match plain_path(raw) {
        Some(path) => Ok(path.to_owned()),
        None => spell_path(raw),
    }
}

/// The canonical form of any path, byte by byte.
fn spell_path(raw: &[u8]) -> Result<String, BadTarget> {
    let mut path = String::with_capacity(raw.len() + 1);
    path.push('/');
    let mut beyond_ascii = false;
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' if path.ends_with('/') => {}
            b'/' => path.push('/'),
            b'%' => {
                let value = read_escape(&mut bytes).ok_or(BadTarget::BadEscape)?;
                match value {
                    0 => return Err(BadTarget::Nul),
                    b'\\' => return Err(BadTarget::Backslash),
                    _ if value.is_ascii_control() => return Err(BadTarget::Control),
                    _ => push_escaped(&mut path, value),
                }
                beyond_ascii |= !value.is_ascii();
            }
            _ => {
                check_plain(byte)?;
                push_plain(&mut path, byte);
            }
        }
    }
    if has_dot_segment(&path) {
        return Err(BadTarget::DotSegment);
    }
    if path.contains("/;") {
        return Err(BadTarget::NamelessSegment);
    }
    // A lenient server reads overlong forms such as `%C0%AF` as a slash.
    if beyond_ascii && decode(&path).is_none() {
        return Err(BadTarget::NotUtf8);
    }
    Ok(path)
}

/// Checks a query, which is kept byte for byte.
fn checked_query(raw: &[u8]) -> Result<String, BadTarget> {
    if QUERY.has_all(raw) {
        return std::str::from_utf8(raw).map(str::to_owned).map_err(|_| BadTarget::NotAscii);
    }
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match read_escape(&mut bytes) {
                None => return Err(BadTarget::BadEscape),
                Some(0) => return Err(BadTarget::Nul),
                Some(_) => {}
            },
            _ => check_plain(byte)?,
        }
    }
    std::str::from_utf8(raw).map(str::to_owned).map_err(|_| BadTarget::NotAscii)
}

/// Refuses the bytes that may stand nowhere in a target.
fn check_plain(byte: u8) -> Result<(), BadTarget> {
    match byte {
        b'#' => Err(BadTarget::Fragment),
        b'\\' => Err(BadTarget::Backslash),
        b' ' => Err(BadTarget::Space),
        _ if byte.is_ascii_control() => Err(BadTarget::Control),
        _ if !byte.is_ascii() => Err(BadTarget::NotAscii),
        _ => Ok(()),
    }
}

/// The byte that the two hex digits after a `%` stand for.
pub(super) fn read_escape(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit()? << 4 | digit()?)
}

/// Writes a byte that came percent-encoded: plain if it is unreserved (RFC 3986, 2.3), else encoded in upper case.
pub(super) fn push_escaped(out: &mut String, byte: u8) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    if is_unreserved(byte) {
        out.push(char::from(byte));
    } else {
        let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or('0');
        out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Writes a byte that came as it is: plain if a segment may hold it so (`pchar`, RFC 3986, 3.3), else encoded.
pub(super) fn push_plain(out: &mut String, byte: u8) {
    if is_unreserved(byte) || is_delimiter(byte) {
        out.push(char::from(byte));
    } else {
        push_escaped(out, byte);
    }
}

/// What else of ASCII a path may hold as it is (RFC 3986, `pchar`).
const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether some server may read a segment of this path (in its one form) as `.` or `..`: also between encoded slashes,
/// before a path parameter (`..;x`), and with spaces around, which some file systems drop.
pub(super) fn has_dot_segment(path: &str) -> bool {
    path.contains('.')
        && path
            .split('/')
            .flat_map(|segment| segment.split("%2F"))
            .flat_map(|piece| piece.split("%5C"))
            .any(is_dots)
}

fn is_dots(piece: &str) -> bool {
    let name = piece.split(';').next().unwrap_or_default();
    let name = name.split("%3B").next().unwrap_or_default();
    matches!(name.trim_start_matches("%20").trim_end_matches("%20"), "." | "..")
}
