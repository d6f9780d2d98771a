//! The url of a Redis: one server, some sentinels or a cluster, each plain or over TLS.

use percent_encoding::percent_decode_str;

use super::super::Secret;
use super::super::reader::scalar::Scalar;
use super::super::reader::{Item, Noted, Read};
use super::super::upstreams::{Server, parse_host, parse_port};
use super::{EXPECTED, RedisTopology, RedisUrl, TlsFiles};

/// What a scheme leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standalone,
    Sentinel,
    Cluster,
}

/// Each scheme, what it leads to, and if it is spoken over TLS.
const SCHEMES: [(&str, Kind, bool); 6] = [
    ("redis://", Kind::Standalone, false),
    ("rediss://", Kind::Standalone, true),
    ("redis+sentinel://", Kind::Sentinel, false),
    ("rediss+sentinel://", Kind::Sentinel, true),
    ("redis+cluster://", Kind::Cluster, false),
    ("rediss+cluster://", Kind::Cluster, true),
];

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More nodes than these need not be named: the others are learnt from them.
const MOST_NODES: usize = 64;

impl Kind {
    fn expected(self, scheme: &str) -> String {
        match self {
            Self::Standalone => format!("{scheme}HOST:PORT/DB"),
            Self::Sentinel => format!("{scheme}HOST:PORT,HOST:PORT/MASTER or the same with /DB at its end"),
            Self::Cluster => format!("{scheme}HOST:PORT,HOST:PORT"),
        }
    }
}

/// Reads a url of a scheme that is known here; `None`: it has another.
pub(super) fn read(item: &Item<'_>, scalar: &Scalar) -> Option<Read<RedisUrl>> {
    let text = scalar.text.as_str();
    let known = SCHEMES.into_iter().find_map(|known| Some((known, text.strip_prefix(known.0)?)));
    let ((scheme, kind, tls), rest) = known?;
    Some(Url { item, scalar, scheme, kind, tls }.read(rest))
}

/// A url while it is read.
struct Url<'r> {
    item: &'r Item<'r>,
    scalar: &'r Scalar,
    scheme: &'static str,
    kind: Kind,
    tls: bool,
}

impl Url<'_> {
    fn read(&self, rest: &str) -> Read<RedisUrl> {
        let (login, place) =
            rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
        if login.is_some_and(|login| login.contains(':')) && !self.scalar.is_from_env() {
            return Err(self.item.refuse(
                "a password does not stand in the file itself; expected it in `password`, as ${NAME} or file:PATH, \
                 or the whole url as ${NAME}",
            ));
        }
        let Some((username, password)) = parse_login(login.unwrap_or_default()) else {
            return Err(self.refuse(": the user or the password is not valid UTF-8"));
        };
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (topology, db) = self.read_place(authority, path)?;
        Ok(RedisUrl { topology, db, username, password, tls: self.tls.then(TlsFiles::default) })
    }

    fn read_place(&self, authority: &str, path: &str) -> Read<(RedisTopology, i64)> {
        match self.kind {
            Kind::Standalone => {
                let server = parse_server(authority, PORT).ok_or_else(|| self.refuse(""))?;
                Ok((RedisTopology::Standalone(server), self.read_db(path)?))
            }
            Kind::Sentinel => {
                let sentinels = self.read_servers(authority, SENTINEL_PORT)?;
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if !is_master_name(master) {
                    return Err(self.refuse(
                        ": MASTER is the name the sentinels know the master by, of letters, digits or any of `._-`",
                    ));
                }
                Ok((RedisTopology::Sentinel { sentinels, master: master.to_owned() }, self.read_db(db)?))
            }
            Kind::Cluster => {
                if !path.is_empty() {
                    return Err(self.refuse(": a cluster has no numbered databases"));
                }
                Ok((RedisTopology::Cluster { nodes: self.read_servers(authority, PORT)? }, 0))
            }
        }
    }

    fn read_servers(&self, text: &str, port: u16) -> Read<Vec<Server>> {
        let mut servers = Vec::new();
        for one in text.split(',') {
            let server = parse_server(one, port).ok_or_else(|| self.refuse(""))?;
            if servers.contains(&server) {
                return Err(self.refuse(&format!(": {server} stands there twice")));
            }
            servers.push(server);
        }
        if servers.len() > MOST_NODES {
            return Err(self.refuse(&format!(": at most {MOST_NODES} are named")));
        }
        Ok(servers)
    }

    fn read_db(&self, text: &str) -> Read<i64> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let db = if text.is_empty() { Some(0) } else { text.parse().ok().filter(|_| digits) };
        db.ok_or_else(|| self.refuse(": DB is the number of a database"))
    }

    fn refuse(&self, why: &str) -> Noted {
        // The reason may name a part of what is not to be shown.
        let why = if self.scalar.text.contains('@') && why.contains("twice") { "" } else { why };
        refuse(self.item, self.scalar, &self.kind.expected(self.scheme), why)
    }
}

/// Notes that a url is of no scheme that is known.
pub(super) fn refuse_scheme(item: &Item<'_>, scalar: &Scalar) -> Noted {
    refuse(item, scalar, EXPECTED, "")
}

/// Notes that a url is none. One with an `@` may hold a secret, so it is not repeated.
fn refuse(item: &Item<'_>, scalar: &Scalar, expected: &str, why: &str) -> Noted {
    let found = if scalar.text.contains('@') {
        "something else (not shown, as it may hold a secret)".to_owned()
    } else {
        scalar.shown()
    };
    item.refuse(format!("expected {expected}, found {found}{why}"))
}

/// Reads `USER:PASSWORD`, either of which may be absent.
fn parse_login(login: &str) -> Option<(Option<String>, Option<Secret>)> {
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let (username, password) = (decode(username)?, decode(password)?);
    let present = |text: &String| !text.is_empty();
    Some((Some(username).filter(present), Some(password).filter(present).map(Secret::new)))
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
fn parse_server(text: &str, usual: u16) -> Option<Server> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, parse_port(port)?),
        _ => (text, usual),
    };
    Some(Server { host: parse_host(host)?, port })
}

/// As Sentinel's own configuration file takes it.
fn is_master_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=255).contains(&text.len()) && text.bytes().all(fine)
}
