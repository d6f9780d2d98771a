//! What is signed: the canonical form of a raw request, and the text made of it.

use jiff::{Timestamp, civil, tz::TimeZone};
use sha2::{Digest, Sha256};

use super::body::BodyDigest;
use super::key::{SigningKey, SigningSecret};
use super::{DATE_HEADER, SCHEME};

/// A day as a scope names it: `YYYYMMDD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day(pub(super) [u8; 8]);

impl Day {
    /// Reads eight digits. Whether there is such a day shows where it is compared with a time.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 8] = text.try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    /// The day of a time that [`parse_date`] read.
    pub(super) fn of(date: &[u8; 16]) -> Self {
        let [y1, y2, y3, y4, m1, m2, d1, d2, ..] = *date;
        Self([y1, y2, y3, y4, m1, m2, d1, d2])
    }
}

/// Reads exactly `YYYYMMDDTHHMMSSZ`: the text itself, and the time it says.
pub fn parse_date(text: &[u8]) -> Option<([u8; 16], Timestamp)> {
    let date: [u8; 16] = text.try_into().ok()?;
    let [y1, y2, y3, y4, m1, m2, d1, d2, b'T', h1, h2, n1, n2, s1, s2, b'Z'] = date else { return None };
    let number = |digits: &[u8]| {
        let digit = |sum: i16, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0'));
        digits.iter().try_fold(0, digit)
    };
    let two = |tens, ones| i8::try_from(number(&[tens, ones])?).ok();
    let year = number(&[y1, y2, y3, y4])?;
    let day = civil::Date::new(year, two(m1, m2)?, two(d1, d2)?).ok()?;
    let time = civil::Time::new(two(h1, h2)?, two(n1, n2)?, two(s1, s2)?, 0).ok()?;
    let at = TimeZone::UTC.to_timestamp(day.to_datetime(time)).ok()?;
    Some((date, at))
}

/// Writes a time as [`parse_date`] reads it; `None`: its year has not four digits.
pub(super) fn format_date(at: Timestamp) -> Option<[u8; 16]> {
    let at = TimeZone::UTC.to_datetime(at);
    let text = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    text.into_bytes().try_into().ok()
}

/// Path and query of a target as they were sent. An absolute form's authority is no part of either.
fn split(target: &[u8]) -> (&[u8], &[u8]) {
    let scheme = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let target = match scheme.and_then(|scheme| target.get(scheme.len()..)) {
        Some(rest) => {
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            rest.get(end..).unwrap_or_default()
        }
        None => target,
    };
    match target.iter().position(|byte| *byte == b'?') {
        Some(mark) => (target.get(..mark).unwrap_or_default(), target.get(mark + 1..).unwrap_or_default()),
        None => (target, b""),
    }
}

/// The `Host` header as it is and, where it names a port, without it.
pub(super) fn forms_of_host(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    let colon = host.iter().rposition(|byte| *byte == b':');
    let parts = colon.and_then(|colon| host.split_at_checked(colon));
    let bare = parts.and_then(|(name, port)| {
        // Within brackets a colon is part of an address.
        let is_port = port.iter().skip(1).all(u8::is_ascii_digit);
        let whole = !name.starts_with(b"[") || name.ends_with(b"]");
        (is_port && whole && !name.is_empty()).then_some(name)
    });
    std::iter::once(host).chain(bare)
}

/// A canonical request, hashed up to its last line: the body's hash.
#[derive(Debug, Clone)]
pub(super) struct Prefix(Sha256);

impl Prefix {
    pub(super) fn new(method: &str, target: &[u8], host: &[u8], date: &[u8; 16]) -> Self {
        let mut hash = Sha256::new();
        for piece in pieces(method, target, host, date) {
            hash.update(piece);
        }
        Self(hash)
    }

    /// The hash of the whole, in hex.
    fn finish(&self, body: &BodyDigest) -> String {
        hex::encode(self.0.clone().chain_update(body.to_hex()).finalize())
    }

    /// What the signature is made over.
    pub(super) fn to_sign(&self, date: &[u8; 16], body: &BodyDigest) -> Vec<u8> {
        to_sign(date, &self.finish(body))
    }
}

fn pieces<'p>(method: &'p str, target: &'p [u8], host: &'p [u8], date: &'p [u8; 16]) -> [&'p [u8]; 12] {
    let (path, query) = split(target);
    [
        method.as_bytes(),
        b"\n",
        path,
        b"\n",
        query,
        b"\nhost:",
        host,
        b"\n",
        DATE_HEADER.as_bytes(),
        b":",
        date,
        b"\n\nhost;x-iex-date\n",
    ]
}

fn to_sign(date: &[u8; 16], canonical_hash: &str) -> Vec<u8> {
    let day = Day::of(date);
    let pieces: [&[u8]; 7] =
        [SCHEME.as_bytes(), b"\n", date, b"\n", &day.0, b"/iex_request\n", canonical_hash.as_bytes()];
    pieces.concat()
}

/// A request that was signed here: what a client has to send, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// The value of `x-iex-date`.
    pub date: String,
    /// The value of `Authorization`.
    pub authorization: String,
    /// The canonical form.
    pub canonical: Vec<u8>,
    /// The hash of the canonical form, in hex.
    pub canonical_hash: String,
    /// What the signature is made over.
    pub to_sign: String,
    /// The signature.
    pub signature: String,
}

/// Signs a request as a client does; `None`: the time's year has not four digits. `credential` is the token that the
/// request presents.
pub fn sign(
    method: &str,
    target: &[u8],
    host: &str,
    body: &[u8],
    credential: &str,
    secret: &SigningSecret,
    at: Timestamp,
) -> Option<Signing> {
    let date = format_date(at)?;
    let body = BodyDigest::of(body);
    let mut canonical = pieces(method, target, host.as_bytes(), &date).concat();
    canonical.extend_from_slice(&body.to_hex());
    let canonical_hash = hex::encode(Sha256::digest(&canonical));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let day = Day::of(&date);
    let to_sign = to_sign(&date, &canonical_hash);
    let signature = text(SigningKey::derive(secret, day).sign(&to_sign).as_slice());
    Some(Signing {
        date: text(&date),
        authorization: format!(
            "{SCHEME} Credential={credential}/{}/iex_request, SignedHeaders=host;{DATE_HEADER}, \
             Signature={signature}",
            text(&day.0)
        ),
        canonical,
        canonical_hash,
        to_sign: text(&to_sign),
        signature,
    })
}
