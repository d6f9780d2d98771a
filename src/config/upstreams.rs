//! `upstreams`: where approved requests go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::reader::{Fields, Item, Keys, Named, Read};

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

pub(super) const KEYS: Keys = Keys {
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
    let host = fields.or("host", HostHeader::Keep, |item| item.choice(&HOSTS));
    Ok(Upstream {
        servers: servers?,
        connect_timeout: connect_timeout?,
        read_timeout: read_timeout?,
        write_timeout: write_timeout?,
        idle_timeout: idle_timeout?,
        keep_alive: keep_alive?,
        host: host?,
    })
}

fn read_servers(item: &Item<'_>) -> Read<Vec<Server>> {
    let mut seen = Vec::new();
    let servers = item.list_of("a list of host:port such as [\"127.0.0.1:9000\"]", |item| {
        let server = item.parse("host:port such as 127.0.0.1:9000", Server::parse)?;
        if seen.contains(&server) {
            return Err(item.refuse(format!("{server} stands twice in the list")));
        }
        seen.push(server.clone());
        Ok(server)
    })?;
    if servers.is_empty() {
        return Err(item.refuse("expected at least one host:port, found an empty list"));
    }
    Ok(servers)
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
