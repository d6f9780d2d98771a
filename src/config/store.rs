//! `store`: where tokens and credits are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Secret;
use super::reader::scalar::Scalar;
use super::reader::{Fields, Item, Keys, Noted, Read};
use super::upstreams::{parse_host, parse_port};

/// Where tokens and credits are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Which store.
    pub url: StoreUrl,
    /// How long a request waits for the store.
    pub timeout: Duration,
    /// What all of the gate's key names start with.
    pub prefix: String,
    /// How many Redis replicas must have a lease before it is spent from.
    pub wait_replicas: u32,
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One in this process, for a single node.
    Embedded {
        /// Its file.
        path: PathBuf,
    },
    /// A Redis server.
    Redis {
        /// A DNS name or an IP address; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The number of the database.
        db: i64,
        /// The user; `None`: the server's default user.
        username: Option<String>,
        /// The user's password.
        password: Option<Secret>,
    },
}

pub(super) const KEYS: Keys =
    Keys { known: &["url", "timeout", "prefix", "username", "password", "wait_replicas"], later: &["tls"] };

const LATER: [&str; 6] =
    ["rediss:", "redis+sentinel:", "rediss+sentinel:", "redis+cluster:", "rediss+cluster:", "redis+unix:"];

const EXPECTED: &str = "embedded:, embedded:PATH or redis://HOST:PORT/DB";

const TIMEOUT: Duration = Duration::from_millis(40);
/// The embedded store is in this process: it is never cut off, only its disk may be slow.
const EMBEDDED_TIMEOUT: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(10);
const PREFIX: &str = "tg:";

/// Reads the section, or gives its default. Without `state_dir` there was a mistake already.
pub(super) fn read(item: Option<&Item<'_>>, state_dir: Option<&Path>) -> Read<StoreConfig> {
    let state_dir = state_dir.unwrap_or(Path::new(""));
    let embedded = || StoreUrl::Embedded { path: state_dir.join("tollgate.redb") };
    let Some(item) = item else {
        return Ok(StoreConfig {
            url: embedded(),
            timeout: EMBEDDED_TIMEOUT,
            prefix: PREFIX.to_owned(),
            wait_replicas: 0,
        });
    };
    let fields = item.fields(&KEYS, "a mapping such as `url: \"embedded:\"`")?;
    let timeout = fields.optional("timeout", |item| item.duration(SHORTEST..=LONGEST));
    let prefix = fields.or("prefix", PREFIX.to_owned(), |item| {
        item.parse("1 to 64 letters, digits or any of `:_-.`", |text| {
            is_prefix(text).then(|| text.to_owned())
        })
    });
    let wait_replicas = fields.or("wait_replicas", 0, |item| item.integer(0..=10));
    let username = fields.optional("username", |item| item.text("a user's name"));
    let password = fields.optional("password", Item::secret);
    let url = fields.or("url", embedded(), |item| read_url(item, embedded()));
    let url = url.and_then(|url| add_login(&fields, url, username?, password?));
    let wait_replicas = u32::try_from(wait_replicas?).unwrap_or(0);
    let url = url?;
    let usual = if matches!(url, StoreUrl::Embedded { .. }) { EMBEDDED_TIMEOUT } else { TIMEOUT };
    Ok(StoreConfig { url, timeout: timeout?.unwrap_or(usual), prefix: prefix?, wait_replicas })
}

fn is_prefix(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(fine)
}

/// The user and password stand beside the url; twice is a contradiction, and so is a login to a file.
fn add_login(
    fields: &Fields<'_>,
    mut url: StoreUrl,
    name: Option<String>,
    secret: Option<Secret>,
) -> Read<StoreUrl> {
    let check = |key: &str, clash: bool, message: &str| match fields.get(key) {
        Some(item) if clash => Err(item.refuse(message)),
        _ => Ok(()),
    };
    match &mut url {
        StoreUrl::Embedded { .. } => {
            let message = "the embedded store has no login; take the key out, or give a redis:// url";
            check("username", true, message).and(check("password", true, message))?;
        }
        StoreUrl::Redis { username, password, .. } => {
            check("username", username.is_some(), "the url names a user already; give it in one place")?;
            check("password", password.is_some(), "the url has a password already; give it in one place")?;
            *username = username.take().or(name);
            *password = password.take().or(secret);
        }
    }
    if let StoreUrl::Redis { username: Some(_), password: None, .. } = &url {
        return Err(
            fields.refuse_missing("password", "missing; a user needs a password: ${NAME} or file:PATH")
        );
    }
    Ok(url)
}

fn read_url(item: &Item<'_>, embedded: StoreUrl) -> Read<StoreUrl> {
    let scalar = item.scalar(EXPECTED)?;
    let text = scalar.text.as_str();
    if text == "embedded:" {
        return Ok(embedded);
    }
    if let Some(path) = text.strip_prefix("embedded:") {
        return Ok(StoreUrl::Embedded { path: item.resolve(path) });
    }
    if let Some(later) = LATER.iter().find(|later| text.starts_with(**later)) {
        return Err(item.refuse(format!("{later}// is not built yet in this version; expected {EXPECTED}")));
    }
    let Some(rest) = text.strip_prefix("redis://") else {
        return Err(refuse_url(item, &scalar, ""));
    };
    read_redis(item, &scalar, rest)
}

fn read_redis(item: &Item<'_>, scalar: &Scalar, rest: &str) -> Read<StoreUrl> {
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    if login.is_some_and(|login| login.contains(':')) && !scalar.is_from_env() {
        return Err(item.refuse(
            "a password does not stand in the file itself; expected it in `password`, as ${NAME} or file:PATH, \
             or the whole url as ${NAME}",
        ));
    }
    let Some((username, password)) = parse_login(login.unwrap_or_default()) else {
        return Err(refuse_url(item, scalar, ": the user or the password is not valid UTF-8"));
    };
    let (authority, db) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = split_port(authority);
    let port = port.map_or(Some(6379), parse_port);
    let (Some(host), Some(port)) = (parse_host(host), port) else {
        return Err(refuse_url(item, scalar, ""));
    };
    let Some(db) = parse_db(db) else {
        return Err(refuse_url(item, scalar, ": DB is the number of a database"));
    };
    Ok(StoreUrl::Redis { host, port, db, username, password })
}

/// Notes that a url is none. One with an `@` may hold a secret, so it is not repeated.
fn refuse_url(item: &Item<'_>, scalar: &Scalar, why: &str) -> Noted {
    let found = if scalar.text.contains('@') {
        "something else (not shown, as it may hold a secret)".to_owned()
    } else {
        scalar.shown()
    };
    item.refuse(format!("expected {EXPECTED}, found {found}{why}"))
}

/// Reads `USER:PASSWORD`, either of which may be absent.
fn parse_login(login: &str) -> Option<(Option<String>, Option<Secret>)> {
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let (username, password) = (decode(username)?, decode(password)?);
    let present = |text: &String| !text.is_empty();
    Some((Some(username).filter(present), Some(password).filter(present).map(Secret::new)))
}

/// The host and the port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Reads the number of a database; none is 0.
fn parse_db(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|_| digits) }
}
