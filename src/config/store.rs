//! `store`: where tokens and credits are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Secret;
use super::reader::{Fields, Item, Keys, Read};
use super::upstreams::Server;

mod redis_url;

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
    /// Redis, which several nodes share.
    Redis(RedisUrl),
}

/// A Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Which servers, and how they stand together.
    pub topology: RedisTopology,
    /// The number of the database; 0 in a cluster.
    pub db: i64,
    /// The user; `None`: the server's default user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// How servers are trusted; `None`: no TLS is spoken.
    pub tls: Option<TlsFiles>,
}

/// How the servers of a Redis stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server, or a name that leads to one.
    Standalone(Server),
    /// A master and its replicas, watched by sentinels.
    Sentinel {
        /// Some of the sentinels; at least one.
        sentinels: Vec<Server>,
        /// The name they know the master by.
        master: String,
    },
    /// A cluster of masters.
    Cluster {
        /// Some of its nodes; at least one. The others are learnt from them.
        nodes: Vec<Server>,
    },
}

/// Certificates and keys, each a PEM file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whose certificates are trusted; `None`: those of the public authorities.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key; `None`: the client shows none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

pub(super) const KEYS: Keys =
    Keys { known: &["url", "timeout", "prefix", "username", "password", "tls", "wait_replicas"], later: &[] };
pub(super) const TLS_KEYS: Keys = Keys { known: &["ca", "cert", "key"], later: &[] };

const LATER: &str = "redis+unix:";

const EXPECTED: &str = "embedded:, embedded:PATH, redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,…/MASTER or \
                        redis+cluster://HOST:PORT,… (over TLS: rediss, rediss+sentinel, rediss+cluster)";

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
    let tls = fields.optional("tls", read_tls);
    let url = url.and_then(|url| add_login(&fields, url, username?, password?));
    let url = url.and_then(|url| add_tls(&fields, url, tls?));
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
        StoreUrl::Redis(RedisUrl { username, password, .. }) => {
            check("username", username.is_some(), "the url names a user already; give it in one place")?;
            check("password", password.is_some(), "the url has a password already; give it in one place")?;
            *username = username.take().or(name);
            *password = password.take().or(secret);
        }
    }
    if let StoreUrl::Redis(RedisUrl { username: Some(_), password: None, .. }) = &url {
        return Err(
            fields.refuse_missing("password", "missing; a user needs a password: ${NAME} or file:PATH")
        );
    }
    Ok(url)
}

/// Certificates stand beside the url; one that is not spoken over TLS has no use for them.
fn add_tls(fields: &Fields<'_>, mut url: StoreUrl, files: Option<TlsFiles>) -> Read<StoreUrl> {
    let (Some(item), Some(files)) = (fields.get("tls"), files) else { return Ok(url) };
    match &mut url {
        StoreUrl::Redis(RedisUrl { tls: tls @ Some(_), .. }) => *tls = Some(files),
        _ => {
            return Err(item.refuse(
                "the url is not spoken over TLS; take the key out, or give a rediss://, rediss+sentinel:// or \
                 rediss+cluster:// url",
            ));
        }
    }
    Ok(url)
}

fn read_tls(item: &Item<'_>) -> Read<TlsFiles> {
    let fields = item.fields(&TLS_KEYS, "a mapping such as `ca: redis-ca.pem`")?;
    let path = |key: &str, expected: &str| fields.optional(key, |item| item.path(expected));
    let ca = path("ca", "the path of a PEM file with the certificates that are trusted");
    let cert = path("cert", "the path of a PEM file with the client's certificate");
    let key = path("key", "the path of a PEM file with the client's private key");
    let identity = match (cert?, key?) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err(fields.refuse_missing("key", "missing; `cert` needs its private key")),
        (None, Some(_)) => return Err(fields.refuse_missing("cert", "missing; `key` needs its certificate")),
    };
    Ok(TlsFiles { ca: ca?, identity })
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
    if text.starts_with(LATER) {
        return Err(item.refuse(format!("{LATER}// is not built yet in this version; expected {EXPECTED}")));
    }
    match redis_url::read(item, &scalar) {
        Some(url) => url.map(StoreUrl::Redis),
        None => Err(redis_url::refuse_scheme(item, &scalar)),
    }
}
