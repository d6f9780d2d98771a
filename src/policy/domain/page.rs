//! What `Origin` and `Referer` say of the page a request comes from.
//!
//! Owns the reading of the two headers by the URL standard's rules, and when they say nothing clear. It must not know
//! rules: those ask [`Seen`].

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use super::{Scheme, is_name, path};

mod plain;

/// What the headers `Origin` and `Referer` of one request say.
#[derive(Clone, PartialEq, Eq)]
pub struct Page(Said);

#[derive(Clone, PartialEq, Eq)]
enum Said {
    Nothing,
    Unclear(Unclear),
    Clear(Clear),
}

#[derive(Clone, PartialEq, Eq)]
struct Clear {
    /// The page from `Referer` if it is there, else the origin.
    place: Place,
    /// Whether `place` has the page's path.
    has_path: bool,
    /// The header `Origin` as it came.
    origin: Option<String>,
}

/// What of a URL is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    scheme: SchemeName,
    host: HostName,
    /// The port, also when it is the scheme's default.
    port: Option<u16>,
    /// As the URL standard writes it.
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SchemeName {
    Known(Scheme),
    /// One that no rule can name.
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostName {
    Name(String),
    Address(IpAddr),
}

/// Why the headers do not name one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unclear {
    /// `Origin: null`: a sandboxed frame, a local file, a redirect between origins.
    Null,
    /// A header came twice, or lists several values.
    Several,
    /// User information, which can hide the host.
    UserInfo,
    /// Not a URL, or not as a browser would write it.
    Unreadable,
    /// `Origin` and `Referer` name different origins.
    Disagree,
}

impl Unclear {
    /// The reason in a few words, for logs and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "Origin is null",
            Self::Several => "several values of Origin or Referer",
            Self::UserInfo => "user information in Origin or Referer",
            Self::Unreadable => "unreadable Origin or Referer",
            Self::Disagree => "Origin and Referer disagree",
        }
    }
}

impl Page {
    /// Reads all values of `Origin` and all values of `Referer`. An empty `Referer` is as if absent; an empty `Origin`
    /// is unreadable, since no browser sends one.
    pub fn read(origins: &[&[u8]], referers: &[&[u8]]) -> Self {
        Self(read(origins, referers).unwrap_or_else(Said::Unclear))
    }

    /// The origin as the header `Origin` has it, if the headers name one page and `Origin` is among them. Printable ASCII
    /// in the form `scheme://host[:port]`, fit for `Access-Control-Allow-Origin`.
    pub fn origin(&self) -> Option<&str> {
        match &self.0 {
            Said::Clear(clear) => clear.origin.as_deref(),
            Said::Nothing | Said::Unclear(_) => None,
        }
    }

    /// Whether there is neither header.
    pub fn is_absent(&self) -> bool {
        self.0 == Said::Nothing
    }

    /// The page as rules look at it; `None` without headers.
    pub(super) fn seen(&self) -> Result<Option<Seen<'_>>, Unclear> {
        match &self.0 {
            Said::Nothing => Ok(None),
            Said::Unclear(unclear) => Err(*unclear),
            Said::Clear(clear) => Ok(Some(clear.seen())),
        }
    }
}

impl fmt::Debug for Page {
    /// Shows nothing of the URL: a page's query may hold a token (law 7).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Said::Nothing => "Page(absent)",
            Said::Unclear(unclear) => unclear.as_str(),
            Said::Clear(_) => "Page(…)",
        })
    }
}

/// Whom a page comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageHost<'a> {
    /// A DNS name: lower case, ASCII, without a trailing dot.
    Name(&'a str),
    /// An address; one that maps IPv4 into IPv6 is taken as IPv4.
    Address(IpAddr),
}

/// A clear page, as rules look at it.
pub(super) struct Seen<'a> {
    /// `None` for schemes that no rule can name.
    pub(super) scheme: Option<Scheme>,
    pub(super) host: PageHost<'a>,
    /// The port, also when it is the scheme's default.
    pub(super) port: Option<u16>,
    path: Option<&'a str>,
}

impl Seen<'_> {
    /// The page's path in the form that rules compare, if a `Referer` says it.
    pub(super) fn path(&self) -> Option<String> {
        self.path.map(path::normalize)
    }
}

impl Clear {
    fn seen(&self) -> Seen<'_> {
        Seen {
            scheme: match self.place.scheme {
                SchemeName::Known(scheme) => Some(scheme),
                SchemeName::Other(_) => None,
            },
            host: match &self.place.host {
                HostName::Name(name) => PageHost::Name(name),
                HostName::Address(address) => PageHost::Address(*address),
            },
            port: self.place.port,
            path: self.has_path.then_some(self.place.path.as_str()),
        }
    }
}

impl Place {
    fn has_origin_of(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }
}

fn read(origins: &[&[u8]], referers: &[&[u8]]) -> Result<Said, Unclear> {
    let origin = single(origins)?;
    let referer = single(referers)?.filter(|value| !value.is_empty());
    if let (Some(origin), Some(referer)) = (origin, referer)
        && let Some(said) = plain::read_both(origin, referer)
    {
        return Ok(said);
    }
    let page = referer.map(read_referer).transpose()?;
    let Some(text) = origin else {
        return Ok(
            page.map_or(Said::Nothing, |place| Said::Clear(Clear { place, has_path: true, origin: None }))
        );
    };
    let (text, own) = read_origin(text)?;
    let origin = Some(text.to_owned());
    let Some(page) = page else {
        return Ok(Said::Clear(Clear { place: own, has_path: false, origin }));
    };
    let agree = own.has_origin_of(&page);
    agree.then_some(Said::Clear(Clear { place: page, has_path: true, origin })).ok_or(Unclear::Disagree)
}

/// The one value of a header, if it is there.
fn single<'a>(values: &[&'a [u8]]) -> Result<Option<&'a [u8]>, Unclear> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(Unclear::Several),
    }
}

/// Reads a serialized origin (RFC 6454, 6.1): `scheme://host[:port]` and nothing more.
fn read_origin(value: &[u8]) -> Result<(&str, Place), Unclear> {
    if let Some((text, plain)) = plain::read(value)
        && plain.after.is_empty()
    {
        return Ok((text, plain.into()));
    }
    if value == b"null" {
        return Err(Unclear::Null);
    }
    if value.iter().any(|byte| matches!(byte, b' ' | b',')) {
        return Err(Unclear::Several);
    }
    let text = printable(value)?;
    let after = after_authority(text)?;
    let place = parse_url(text)?;
    after.is_empty().then_some((text, place)).ok_or(Unclear::Unreadable)
}

fn read_referer(value: &[u8]) -> Result<Place, Unclear> {
    if let Some((_, plain)) = plain::read(value) {
        return Ok(plain.into());
    }
    let text = printable(value)?;
    let after = after_authority(text)?;
    // Browsers write the path without a backslash and send no fragment. Whoever writes one wants to be misread.
    let before_query = after.split('?').next().unwrap_or_default();
    if before_query.contains('\\') || after.contains('#') {
        return Err(Unclear::Unreadable);
    }
    parse_url(text)
}

/// The URL standard drops tabs and newlines and trims the ends; what holds such is not read at all.
fn printable(value: &[u8]) -> Result<&str, Unclear> {
    let text = std::str::from_utf8(value).map_err(|_| Unclear::Unreadable)?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then_some(text).ok_or(Unclear::Unreadable)
}

/// What follows `scheme://authority`. The URL standard also takes `https:host` and `https:\\host`; browsers never
/// send them, so they are not read.
fn after_authority(text: &str) -> Result<&str, Unclear> {
    let (scheme, rest) = text.split_once("://").ok_or(Unclear::Unreadable)?;
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at_checked(end).ok_or(Unclear::Unreadable)?;
    if authority.contains('@') {
        return Err(Unclear::UserInfo);
    }
    let odd = authority.is_empty() || authority.ends_with(':') || after.starts_with('\\');
    if odd || !scheme.bytes().all(in_scheme) {
        return Err(Unclear::Unreadable);
    }
    Ok(after)
}

fn parse_url(text: &str) -> Result<Place, Unclear> {
    let url = Url::parse(text).map_err(|_| Unclear::Unreadable)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Unclear::UserInfo);
    }
    let scheme = match url.scheme() {
        "http" => SchemeName::Known(Scheme::Http),
        "https" => SchemeName::Known(Scheme::Https),
        other => SchemeName::Other(other.to_owned()),
    };
    let host = match url.host().ok_or(Unclear::Unreadable)? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            // The URL standard takes `www.example.com,https` for a host. Hosts of other schemes have their own grammars.
            if matches!(scheme, SchemeName::Known(_)) && !is_name(name) {
                return Err(Unclear::Unreadable);
            }
            HostName::Name(name.to_owned())
        }
        Host::Ipv4(address) => HostName::Address(address.into()),
        Host::Ipv6(address) => HostName::Address(IpAddr::from(address).to_canonical()),
    };
    Ok(Place { scheme, host, port: url.port_or_known_default(), path: url.path().to_owned() })
}
