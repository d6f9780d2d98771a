//! `store`: where tokens and credits are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Secret;
use super::reader::{Fields, Item, Keys, Scalar};
use super::upstreams::{parse_host, parse_port};

/// Where tokens and credits are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Which store.
    pub url: StoreUrl,
    /// How long one call may take.
    pub timeout: Duration,
    /// What all of the gate's key names start with.
    pub prefix: String,
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

const KEYS: Keys =
    Keys { known: &["url", "timeout", "prefix", "username", "password"], later: &["wait_replicas", "tls"] };

const LATER: [&str; 6] =
    ["rediss:", "redis+sentinel:", "rediss+sentinel:", "redis+cluster:", "rediss+cluster:", "redis+unix:"];

const EXPECTED: &str = "embedded:, embedded:PATH or redis://HOST:PORT/DB";

const TIMEOUT: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(10);
const PREFIX: &str = "tg:";

/// Reads the section, or gives its default. Without `state_dir` there was a mistake already.
pub(super) fn read(item: Option<&Item<'_>>, state_dir: Option<&Path>) -> Option<StoreConfig> {
    let state_dir = state_dir.unwrap_or(Path::new(""));
    let embedded = || StoreUrl::Embedded { path: state_dir.join("tollgate.redb") };
    let Some(item) = item else {
        return Some(StoreConfig { url: embedded(), timeout: TIMEOUT, prefix: PREFIX.to_owned() });
    };
    let fields = item.fields(&KEYS, "a mapping such as `url: \"embedded:\"`")?;
    let timeout = fields.or("timeout", TIMEOUT, |item| item.duration(SHORTEST..=LONGEST));
    let prefix = fields.or("prefix", PREFIX.to_owned(), |item| {
        item.parse("1 to 64 letters, digits or any of `:_-.`", |text| {
            is_prefix(text).then(|| text.to_owned())
        })
    });
    let username = fields.optional("username", |item| item.text("a user's name"));
    let password = fields.optional("password", Item::secret);
    let url = fields.or("url", embedded(), |item| read_url(item, embedded()));
    let url = url.and_then(|url| add_login(&fields, url, username?, password?));
    Some(StoreConfig { url: url?, timeout: timeout?, prefix: prefix? })
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
) -> Option<StoreUrl> {
    let mut fine = true;
    let mut check = |key: &str, clash: bool, message: &str| {
        if let Some(item) = fields.get(key).filter(|_| clash) {
            item.refuse(message);
            fine = false;
        }
    };
    match &mut url {
        StoreUrl::Embedded { .. } => {
            for key in ["username", "password"] {
                check(key, true, "the embedded store has no login; take the key out, or give a redis:// url");
            }
        }
        StoreUrl::Redis { username, password, .. } => {
            check("username", username.is_some(), "the url names a user already; give it in one place");
            check("password", password.is_some(), "the url has a password already; give it in one place");
            *username = username.take().or(name);
            *password = password.take().or(secret);
        }
    }
    if let StoreUrl::Redis { username: Some(_), password: None, .. } = &url {
        fields.refuse_missing("password", "missing; a user needs a password: ${NAME} or file:PATH");
        fine = false;
    }
    fine.then_some(url)
}

fn read_url(item: &Item<'_>, embedded: StoreUrl) -> Option<StoreUrl> {
    let scalar = item.scalar(EXPECTED)?;
    let text = scalar.text.as_str();
    if text == "embedded:" {
        return Some(embedded);
    }
    if let Some(path) = text.strip_prefix("embedded:") {
        return Some(StoreUrl::Embedded { path: item.resolve(path) });
    }
    if let Some(later) = LATER.iter().find(|later| text.starts_with(**later)) {
        item.refuse(format!("{later}// is not built yet in this version; expected {EXPECTED}"));
        return None;
    }
    let Some(rest) = text.strip_prefix("redis://") else {
        return refuse_url(item, &scalar, "");
    };
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    if login.is_some_and(|login| login.contains(':')) && !scalar.is_from_env() {
        item.refuse(
            "a password does not stand in the file itself; expected it in `password`, as ${NAME} or file:PATH, \
             or the whole url as ${NAME}",
        );
        return None;
    }
    let (username, password) = match login.map(parse_login) {
        None => (None, None),
        Some(Some((username, password))) => (username, password),
        Some(None) => return refuse_url(item, &scalar, ": the user or the password is not valid UTF-8"),
    };
    let (authority, db) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = split_port(authority);
    let host = parse_host(host);
    let (Some(host), Some(port)) = (host, port.map_or(Some(6379), parse_port)) else {
        return refuse_url(item, &scalar, "");
    };
    let db = if db.is_empty() { Some(0) } else { parse_db(db) };
    let Some(db) = db else {
        return refuse_url(item, &scalar, ": DB is the number of a database");
    };
    Some(StoreUrl::Redis { host, port, db, username, password })
}

/// Notes that a url is none. One with an `@` may hold a secret, so it is not repeated.
fn refuse_url(item: &Item<'_>, scalar: &Scalar, why: &str) -> Option<StoreUrl> {
    let found = if scalar.text.contains('@') { "another".to_owned() } else { scalar.shown() };
    item.refuse(format!("expected {EXPECTED}, found {found}{why}"));
    None
}

fn parse_login(login: &str) -> Option<(Option<String>, Option<Secret>)> {
    let (username, password) =
        login.split_once(':').map_or((login, None), |(username, password)| (username, Some(password)));
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let username = decode(username)?;
    let password = password.map(decode).map_or(Some(None), |decoded| decoded.map(Some))?;
    let present = |text: &String| !text.is_empty();
    Some((Some(username).filter(present), password.filter(present).map(Secret::new)))
}

/// The host and the port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn parse_db(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
