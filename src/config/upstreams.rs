//! `upstreams`: where approved requests go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::reader::{Item, Keys};

/// A group of servers that serve the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The servers; at least one, none twice.
    pub servers: Vec<Server>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long each read may take.
    pub read_timeout: Duration,
    /// How long each write may take.
    pub write_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How many idle connections are kept; 0: none.
    pub keep_alive: usize,
    /// Which `Host` the servers get.
    pub host: HostHeader,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// A DNS name or an IP address; an IPv6 address without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

impl Server {
    /// Reads `host:port`, where the host is a DNS name, an IPv4 or a bracketed IPv6 address.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: parse_host(host)?, port: parse_port(port)? })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Which `Host` the servers of an upstream get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Keep,
    /// The server's own, as it stands in `servers`.
    Server,
}

const KEYS: Keys = Keys {
    known: &[
        "servers",
        "connect_timeout",
        "read_timeout",
        "write_timeout",
        "idle_timeout",
        "keep_alive",
        "host",
    ],
    later: &["tls", "health_check", "health_checks", "load_balancing"],
};

const HOSTS: [(&str, HostHeader); 2] = [("keep", HostHeader::Keep), ("server", HostHeader::Server)];

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// Each upstream declared; one whose value has a mistake is `None`, so that its name is known to routes.
pub(super) fn read(item: &Item<'_>) -> Option<BTreeMap<String, Option<Upstream>>> {
    let expected = "a mapping of upstreams such as `datasets: {servers: [\"127.0.0.1:9000\"]}`";
    let named = item.named(expected)?;
    if named.is_empty() {
        item.refuse(format!("expected {expected}, found none"));
        return None;
    }
    let read = |(name, item): (&str, Item<'_>)| {
        let upstream = read_upstream(&item);
        let fine = is_name(name);
        if !fine {
            item.refuse("an upstream's name is 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        (name.to_owned(), upstream.filter(|_| fine))
    };
    Some(named.into_iter().map(read).collect())
}

fn read_upstream(item: &Item<'_>) -> Option<Upstream> {
    let fields = item.fields(&KEYS, "a mapping such as `servers: [\"127.0.0.1:9000\"]`")?;
    let servers = fields
        .require("servers", "a list of host:port such as [\"127.0.0.1:9000\"]")
        .and_then(|item| read_servers(&item));
    let timeout = |key: &str, default: u64| {
        fields.or(key, Duration::from_secs(default), |item| item.duration(SHORTEST..=LONGEST))
    };
    let connect_timeout = timeout("connect_timeout", 2);
    let read_timeout = timeout("read_timeout", 60);
    let write_timeout = timeout("write_timeout", 60);
    let idle_timeout = timeout("idle_timeout", 60);
    let keep_alive = fields.or("keep_alive", 128, |item| item.integer(0..=65_536));
    let host = fields.or("host", HostHeader::Keep, |item| item.choice(&HOSTS));
    Some(Upstream {
        servers: servers?,
        connect_timeout: connect_timeout?,
        read_timeout: read_timeout?,
        write_timeout: write_timeout?,
        idle_timeout: idle_timeout?,
        keep_alive: usize::try_from(keep_alive?).ok()?,
        host: host?,
    })
}

fn read_servers(item: &Item<'_>) -> Option<Vec<Server>> {
    let mut seen = Vec::new();
    let servers = item.list_of("a list of host:port such as [\"127.0.0.1:9000\"]", |item| {
        let server = item.parse("host:port such as 127.0.0.1:9000", Server::parse)?;
        if seen.contains(&server) {
            item.refuse(format!("{server} stands twice in the list"));
            return None;
        }
        seen.push(server.clone());
        Some(server)
    })?;
    if servers.is_empty() {
        item.refuse("expected at least one host:port, found an empty list");
        return None;
    }
    Some(servers)
}

fn is_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(fine)
}

/// Reads a host: a DNS name (underscores too, as container networks have them), an IPv4 or a bracketed IPv6
/// address. The brackets are taken off.
pub(super) fn parse_host(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // A last label of digits only is an address, or a mistyped one.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    let fine = if numeric {
        text.parse::<IpAddr>().is_ok()
    } else {
        name.len() <= 253 && name.split('.').all(label)
    };
    fine.then(|| text.to_owned())
}

/// Reads a port from 1 to 65535.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}
