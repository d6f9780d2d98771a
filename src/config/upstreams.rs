//! `upstreams`: where approved requests go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::reader::{Fields, Item, Keys, Named, Read};

mod balance;
mod care;
mod tls;

pub use balance::{Balance, HashBy};
pub(super) use care::parse_authority;
pub use care::{Circuit, Health, Retries};
pub use tls::UpstreamTls;

/// A group of servers that serve the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The servers; at least one, none twice.
    pub servers: Vec<WeightedServer>,
    /// How often names are looked up again.
    pub resolve_interval: Duration,
    /// Whose turn it is.
    pub balance: Balance,
    /// How servers are asked whether they are well; `None`: they are not.
    pub health: Option<Health>,
    /// When a server that fails is left alone for a while; `None`: never.
    pub circuit: Option<Circuit>,
    /// Which requests are tried again; `None`: only what was certainly not served.
    pub retries: Option<Retries>,
    /// How many requests may be under way; `None`: any number.
    pub max_requests: Option<usize>,
    /// How TLS is spoken; `None`: it is not.
    pub tls: Option<UpstreamTls>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// How long a request may take in all, if it is no stream; `None`: as long as something goes on.
    pub request_timeout: Option<Duration>,
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

/// One server and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedServer {
    /// The server.
    pub server: Server,
    /// Its share of the requests, against the others' weights; 1 to 100.
    pub weight: u32,
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

pub(super) const KEYS: Keys = Keys {
    known: &[
        "servers",
        "resolve_interval",
        "balance",
        "hash_by",
        "health",
        "circuit",
        "retries",
        "max_requests",
        "tls",
        "http2",
        "connect_timeout",
        "read_timeout",
        "write_timeout",
        "idle_timeout",
        "request_timeout",
        "keep_alive",
        "host",
    ],
    later: &[],
};

/// The keys of what stands within.
#[cfg(test)]
pub(super) const INNER_KEYS: [Keys; 5] =
    [SERVER_KEYS, care::HEALTH_KEYS, care::CIRCUIT_KEYS, care::RETRY_KEYS, tls::KEYS];

const SERVER_KEYS: Keys = Keys { known: &["address", "weight"], later: &[] };

const HOSTS: [(&str, HostHeader); 2] = [("keep", HostHeader::Keep), ("server", HostHeader::Server)];

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_hours(1);

/// Each upstream declared; the name of one that has a mistake is known to routes all the same.
pub(super) fn read(fields: &Fields<'_>) -> Read<BTreeMap<String, Read<Upstream>>> {
    let expected = "at least one upstream such as `datasets: {servers: [\"127.0.0.1:9000\"]}`";
    let item = fields.require("upstreams", expected)?;
    let named = item.named(&format!("a mapping with {expected}"))?;
    if named.is_empty() {
        return Err(item.refuse(format!("expected {expected}, found none")));
    }
    let read = |Named { name, at_name, value }: Named<'_>| {
        let upstream = read_upstream(&value);
        let upstream = if is_name(name) {
            upstream
        } else {
            Err(at_name.refuse("an upstream's name is 1 to 64 letters, digits, `-`, `_` or `.`"))
        };
        (name.to_owned(), upstream)
    };
    Ok(named.into_iter().map(read).collect())
}

fn read_upstream(item: &Item<'_>) -> Read<Upstream> {
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
    let keep_alive = fields.or("keep_alive", 128, |item| {
        item.integer(0..=65_536).map(|most| usize::try_from(most).unwrap_or_default())
    });
    let request_timeout = fields.optional("request_timeout", |item| item.duration(SHORTEST..=LONGEST));
    let host = fields.or("host", HostHeader::Keep, |item| item.choice(&HOSTS));
    let resolve_interval = timeout("resolve_interval", 30);
    let balance = balance::read(&fields);
    let health = fields.optional("health", care::read_health);
    let circuit = fields.optional("circuit", care::read_circuit);
    let retries = fields.optional("retries", care::read_retries);
    let max_requests = fields.optional("max_requests", |item| item.integer(1..=1_000_000));
    let tls = fields.optional("tls", tls::read);
    let http2 = fields.or("http2", false, Item::boolean);
    Ok(Upstream {
        servers: servers?,
        resolve_interval: resolve_interval?,
        balance: balance?,
        health: health?,
        circuit: circuit?,
        retries: retries?,
        max_requests: max_requests?.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        tls: tls?,
        http2: http2?,
        request_timeout: request_timeout?,
        connect_timeout: connect_timeout?,
        read_timeout: read_timeout?,
        write_timeout: write_timeout?,
        idle_timeout: idle_timeout?,
        keep_alive: keep_alive?,
        host: host?,
    })
}

fn read_servers(item: &Item<'_>) -> Read<Vec<WeightedServer>> {
    let mut seen = Vec::new();
    let servers = item.list_of("a list of host:port such as [\"127.0.0.1:9000\"]", |item| {
        let read = read_server(item)?;
        if seen.contains(&read.server) {
            return Err(item.refuse(format!("{} stands twice in the list", read.server)));
        }
        seen.push(read.server.clone());
        Ok(read)
    })?;
    if servers.is_empty() {
        return Err(item.refuse("expected at least one host:port, found an empty list"));
    }
    Ok(servers)
}

/// `host:port`, or a mapping with it and a weight.
fn read_server(item: &Item<'_>) -> Read<WeightedServer> {
    let address = |item: &Item<'_>| item.parse("host:port such as 127.0.0.1:9000", Server::parse);
    if !item.is_mapping() {
        return Ok(WeightedServer { server: address(item)?, weight: 1 });
    }
    let fields = item.fields(&SERVER_KEYS, "a mapping such as {address: \"127.0.0.1:9000\", weight: 2}")?;
    let server =
        fields.require("address", "host:port such as 127.0.0.1:9000").and_then(|item| address(&item));
    let weight = fields.or("weight", 1, |item| item.integer(1..=100));
    Ok(WeightedServer { server: server?, weight: u32::try_from(weight?).unwrap_or(1) })
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

#[cfg(test)]
mod tests {
    use super::Server;

    #[test]
    fn reads_servers() {
        let fine = [
            ("127.0.0.1:9000", "127.0.0.1"),
            ("localhost:1", "localhost"),
            ("data_sets.internal:65535", "data_sets.internal"),
            ("example.com.:80", "example.com."),
            ("1and1.example:80", "1and1.example"),
            ("[::1]:80", "::1"),
            ("[2001:DB8:0::1]:80", "2001:db8::1"),
        ];
        for (text, host) in fine {
            assert_eq!(Server::parse(text).map(|server| server.host), Some(host.to_owned()), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_server() {
        let long = format!("{}:80", "a".repeat(64));
        let bad = [
            "",
            ":",
            ":80",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "localhost:+80",
            "localhost: 80",
            "http://localhost:80",
            "user@localhost:80",
            "local host:80",
            "::1:80",
            "[::1]",
            "[::1:80",
            "::1]:80",
            "[127.0.0.1]:80",
            "[fe80::1%eth0]:80",
            "127.0.0.1.:80",
            "1.2.3:80",
            "256.0.0.1:80",
            "0x7f.1:80",
            ".:80",
            "a..b:80",
            ".a:80",
            "-a:80",
            "a-:80",
            "größe.example:80",
            "a/b:80",
            long.as_str(),
        ];
        for text in bad {
            // A last label such as `0x7f` in front of `.1` is read as a number by some resolvers.
            assert_eq!(Server::parse(text), None, "{text}");
        }
    }
}
