//! The keys at the top of `proxy.yaml`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::cors::{self, Cors};
use super::reader::{Fields, Item, Keys};
use super::{AccessLog, Config, Dialect, Forwarded, Listener, routes, store, upstreams};
use crate::policy::LeakedSecret;

const KEYS: Keys = Keys {
    known: &[
        "state_dir",
        "threads",
        "listeners",
        "admin",
        "store",
        "dialect",
        "master_key",
        "trusted_proxies",
        "leaked_secret",
        "forwarded",
        "cors",
        "access_log",
        "shutdown_grace",
        "upstreams",
        "routes",
    ],
    later: &["authz", "outage", "lease", "signature_*", "max_signed_body"],
};

const LISTENER: Keys = Keys { known: &["address"], later: &["tls", "http2"] };

const LEAKED: [(&str, LeakedSecret); 2] = [("flag", LeakedSecret::Flag), ("refuse", LeakedSecret::Refuse)];

const FORWARDED: [(&str, Forwarded); 4] = [
    ("none", Forwarded::None),
    ("x-forwarded", Forwarded::XForwarded),
    ("forwarded", Forwarded::Forwarded),
    ("both", Forwarded::Both),
];

const LONGEST_GRACE: Duration = Duration::from_secs(3600);

/// Reads the whole file. `None`: at least one mistake was noted.
pub(super) fn read(root: &Item<'_>, path: &Path) -> Option<Config> {
    let fields = root.fields(&KEYS, "a mapping of keys such as `listeners`, `upstreams` and `routes`")?;
    // Everything is read before anything can end this, so that all mistakes are told.
    let state_dir =
        fields.or("state_dir", root.resolve("state"), |item| item.path("the path of a directory"));
    let threads = fields.optional("threads", read_threads);
    let listeners = read_listeners(&fields);
    let admin = fields.optional("admin", |item| read_admin(item, listeners.as_deref().unwrap_or_default()));
    let store = store::read(fields.get("store").as_ref(), state_dir.as_deref());
    let dialect = fields.or("dialect", Dialect::Standard, read_dialect);
    let master_key = fields.get("master_key").map_or(Some(None), |item| item.optional_secret());
    let trusted_proxies = fields.or("trusted_proxies", Vec::new(), |item| {
        item.list_of("a list of addresses and networks such as 10.0.0.0/8", read_network)
    });
    let leaked_secret = fields.or("leaked_secret", LeakedSecret::default(), |item| item.choice(&LEAKED));
    let forwarded = fields.or("forwarded", Forwarded::default(), |item| item.choice(&FORWARDED));
    let cors = fields.or("cors", Cors::default(), cors::read);
    let access_log = fields.or("access_log", AccessLog::Stdout, read_access_log);
    let shutdown_grace = fields
        .or("shutdown_grace", Duration::from_secs(10), |item| item.duration(Duration::ZERO..=LONGEST_GRACE));
    let upstreams = fields
        .require("upstreams", "at least one upstream such as `datasets: {servers: [\"127.0.0.1:9000\"]}`")
        .and_then(|item| upstreams::read(&item));
    let names = upstreams.as_ref().map(|upstreams| upstreams.keys().map(String::as_str).collect::<Vec<_>>());
    let routes = fields
        .require("routes", "at least one route; without one nothing would be let through")
        .and_then(|item| routes::read(&item, names.as_deref()));

    Some(Config {
        path: path.to_owned(),
        state_dir: state_dir?,
        threads: threads?,
        listeners: listeners?.into_iter().map(|(_, address)| Listener { address }).collect(),
        admin: admin?,
        store: store?,
        dialect: dialect?,
        master_key: master_key?,
        trusted_proxies: trusted_proxies?,
        leaked_secret: leaked_secret?,
        forwarded: forwarded?,
        cors: cors?,
        access_log: access_log?,
        shutdown_grace: shutdown_grace?,
        upstreams: upstreams?
            .into_iter()
            .map(|(name, upstream)| Some((name, upstream?)))
            .collect::<Option<BTreeMap<_, _>>>()?,
        routes: routes?,
    })
}

fn read_threads(item: &Item<'_>) -> Option<NonZeroUsize> {
    item.integer(1..=256).and_then(|threads| NonZeroUsize::new(usize::try_from(threads).ok()?))
}

fn read_address(item: &Item<'_>) -> Option<SocketAddr> {
    let fields = item.fields(&LISTENER, "a mapping such as `address: 127.0.0.1:8080`")?;
    let address = fields.require("address", "IP:port, such as 127.0.0.1:8080")?;
    address.parse("IP:port, such as 127.0.0.1:8080 or \"[::1]:8080\"", |text| text.parse().ok())
}

/// Each listener's full name and address.
fn read_listeners(fields: &Fields<'_>) -> Option<Vec<(String, SocketAddr)>> {
    let item = fields.require("listeners", "at least one listener such as `- address: 127.0.0.1:8080`")?;
    let items = item.list("a list of listeners such as `- address: 127.0.0.1:8080`")?;
    if items.is_empty() {
        item.refuse("expected at least one listener such as `- address: 127.0.0.1:8080`, found none");
    }
    let mut listeners = Vec::new();
    for item in &items {
        let Some(address) = read_address(item) else { continue };
        if refuse_taken(item, address, &listeners) {
            listeners.push((item.key().to_owned(), address));
        }
    }
    (listeners.len() == items.len()).then_some(listeners)
}

fn read_admin(item: &Item<'_>, listeners: &[(String, SocketAddr)]) -> Option<Listener> {
    let address = read_address(item)?;
    refuse_taken(item, address, listeners).then_some(Listener { address })
}

/// Notes an address that a listener has already; `true` if it is free.
fn refuse_taken(item: &Item<'_>, address: SocketAddr, taken: &[(String, SocketAddr)]) -> bool {
    let other = taken.iter().find(|(_, other)| overlap(address, *other));
    if let Some((key, other)) = other {
        item.refuse(format!("{address} is taken by {key} ({other}); expected an address of its own"));
    }
    other.is_none()
}

/// Whether two listeners would be in each other's way: the same port (0 is a new one each time), and the same
/// address or all addresses.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a.ip(), b.ip()) || all(b.ip(), a.ip()))
}

fn read_dialect(item: &Item<'_>) -> Option<Dialect> {
    let dialect = item.choice(&[("standard", Some(Dialect::Standard)), ("iex", None)])?;
    if dialect.is_none() {
        item.refuse("the dialect iex is not built yet in this version; expected standard");
    }
    dialect
}

fn read_network(item: &Item<'_>) -> Option<IpNet> {
    let expected = "an address or a network such as 10.0.0.0/8";
    let parse = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network: IpNet = item.parse(expected, parse)?;
    if network != network.trunc() {
        item.refuse(format!("{network} is an address within a network; did you mean {}?", network.trunc()));
        return None;
    }
    Some(network)
}

fn read_access_log(item: &Item<'_>) -> Option<AccessLog> {
    item.parse("stdout, off or file:PATH", |text| match text {
        "stdout" => Some(AccessLog::Stdout),
        "off" => Some(AccessLog::Off),
        _ => text
            .strip_prefix("file:")
            .filter(|path| !path.is_empty())
            .map(|path| AccessLog::File(item.resolve(path))),
    })
}
