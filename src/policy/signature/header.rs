//! How `Authorization: IEX-HMAC-SHA256 …` reads.

use super::SCHEME;
use super::canonical::Day;

/// The three parameters, each of its form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header<'h> {
    /// The token in `Credential`, not checked.
    pub(super) token: &'h [u8],
    /// The day in `Credential`.
    pub(super) day: Day,
    /// 64 lowercase hex digits.
    pub(super) signature: [u8; 64],
}

/// What follows the scheme and its space, if the value is of this scheme. Names of schemes know no case (RFC 9110, 11.1).
pub(super) fn of_our_scheme(value: &[u8]) -> Option<&[u8]> {
    let value = trim(value);
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let ends = matches!(rest.first(), None | Some(b' ' | b'\t'));
    (ends && scheme.eq_ignore_ascii_case(SCHEME.as_bytes())).then_some(rest)
}

/// Reads the parameters: each of the three once, in any order, and no other. Anything that is not exactly of its form is
/// no signature.
pub(super) fn parse(parameters: &[u8]) -> Option<Header<'_>> {
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for parameter in parameters.split(|byte| *byte == b',') {
        let parameter = trim(parameter);
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        let (name, value) = parameter.split_at_checked(equals)?;
        let (place, value) = match name {
            b"Credential" => (&mut credential, value.get(1..)?),
            b"SignedHeaders" => (&mut signed_headers, value.get(1..)?),
            b"Signature" => (&mut signature, value.get(1..)?),
            _ => return None,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    if signed_headers? != b"host;x-iex-date" {
        return None;
    }
    let mut scope = credential?.split(|byte| *byte == b'/');
    let (token, day) = (scope.next()?, Day::parse(scope.next()?)?);
    if scope.next()? != b"iex_request" || scope.next().is_some() {
        return None;
    }
    let signature: [u8; 64] = signature?.try_into().ok()?;
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    signature.iter().all(hex).then_some(Header { token, day, signature })
}

/// Takes optional white space (RFC 9110, 5.6.3) off both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
