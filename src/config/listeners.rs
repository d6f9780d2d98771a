//! `listeners` and `admin`: the addresses the gate listens on, and what is spoken there.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::MetricsAccess;
use super::reader::{Fields, Item, Keys, Read};

pub(super) const KEYS: Keys = Keys { known: &["address", "tls", "http2", "proxy_protocol"], later: &[] };
pub(super) const ADMIN_KEYS: Keys = Keys { known: &["address", "metrics", "tls"], later: &[] };
pub(super) const TLS_KEYS: Keys =
    Keys { known: &["cert", "key", "certificates", "min_version", "client_ca"], later: &[] };
pub(super) const CERTIFICATE_KEYS: Keys = Keys { known: &["cert", "key"], later: &[] };

const METRICS: [(&str, MetricsAccess); 2] =
    [("open", MetricsAccess::Open), ("secret", MetricsAccess::Secret)];

const EXPECTED: &str = "listener such as `- address: 127.0.0.1:8080`";

/// An address to listen on, and what is spoken there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 leaves the choice to the system.
    pub address: SocketAddr,
    /// How TLS is spoken; `None`: it is not.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken besides HTTP/1.1: agreed upon in the TLS handshake, or without TLS by clients that know.
    pub http2: bool,
    /// Whether each connection begins with a PROXY header that says where it comes from.
    pub proxy_protocol: bool,
}

/// How TLS is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// What is shown, chosen by the name a client asks for; the first where none fits. At least one.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// PEM file of the authorities whose certificates clients must show; `None`: they show none.
    pub client_ca: Option<PathBuf>,
}

/// A certificate's two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file of the certificate, and of what leads to its authority.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// A listener, and its full name in the file.
pub(super) type Taken = (String, Listener);

/// Each listener; one that has a mistake still lets the others be known.
pub(super) fn read(fields: &Fields<'_>) -> Read<Vec<Read<Taken>>> {
    let item = fields.require("listeners", &format!("at least one {EXPECTED}"))?;
    let items = item.list(&format!("a list with at least one {EXPECTED}"))?;
    if items.is_empty() {
        return Err(item.refuse(format!("expected at least one {EXPECTED}, found none")));
    }
    let mut listeners: Vec<Read<Taken>> = Vec::new();
    for item in &items {
        let listener =
            read_fields(item, &KEYS).and_then(|fields| read_listener(&fields, listeners.iter().flatten()));
        listeners.push(listener.map(|listener| (item.key().to_owned(), listener)));
    }
    Ok(listeners)
}

/// The admin API's listener, which shares no address with the others, and who may read the metrics there.
pub(super) fn read_admin<'t>(
    item: &Item<'_>,
    taken: impl Iterator<Item = &'t Taken>,
) -> Read<(Listener, MetricsAccess)> {
    let fields = read_fields(item, &ADMIN_KEYS)?;
    let listener = read_listener(&fields, taken);
    let metrics = fields.or("metrics", MetricsAccess::default(), |item| item.choice(&METRICS));
    Ok((listener?, metrics?))
}

fn read_fields<'i>(item: &Item<'i>, keys: &Keys) -> Read<Fields<'i>> {
    item.fields(keys, "a mapping such as `address: 127.0.0.1:8080`")
}

/// Proxies that may say where a connection comes from must be named.
pub(super) fn check_trusted(fields: &Fields<'_>, listeners: &[Read<Taken>], trusted: usize) -> Read<()> {
    let asks = listeners.iter().flatten().find(|(_, listener)| listener.proxy_protocol);
    match asks {
        Some((key, _)) if trusted == 0 => Err(fields.refuse_missing(
            "trusted_proxies",
            &format!("missing; {key} has proxy_protocol, which is believed from trusted proxies only"),
        )),
        _ => Ok(()),
    }
}

fn read_listener<'t>(fields: &Fields<'_>, taken: impl Iterator<Item = &'t Taken>) -> Read<Listener> {
    let address = read_free(fields, taken);
    let tls = fields.optional("tls", read_tls);
    let http2 = fields.optional("http2", Item::boolean);
    let proxy_protocol = fields.or("proxy_protocol", false, Item::boolean);
    let (address, tls) = (address?, tls?);
    Ok(Listener { address, http2: http2?.unwrap_or(tls.is_some()), tls, proxy_protocol: proxy_protocol? })
}

/// The `address` of a listener, which it shares with no other.
pub(super) fn read_free<'t>(
    fields: &Fields<'_>,
    mut taken: impl Iterator<Item = &'t Taken>,
) -> Read<SocketAddr> {
    let item = fields.require("address", "IP:port such as 127.0.0.1:8080")?;
    let address = item.parse("IP:port such as 127.0.0.1:8080 or \"[::1]:8080\"", |text| text.parse().ok())?;
    match taken.find(|(_, other)| overlap(address, other.address)) {
        None => Ok(address),
        Some((key, other)) => {
            let other = other.address;
            Err(item.refuse(format!("{address} is taken by {key} ({other}); expected an address of its own")))
        }
    }
}

fn read_tls(item: &Item<'_>) -> Read<Tls> {
    let fields = item.fields(&TLS_KEYS, "a mapping such as `cert: gate.pem, key: gate.key`")?;
    let min_version = fields.or("min_version", TlsVersion::V1_2, read_version);
    let client_ca = fields.optional("client_ca", |item| {
        item.path("the path of a PEM file with the authorities that sign clients' certificates")
    });
    let certificates = match (fields.get("certificates"), fields.get("cert").or_else(|| fields.get("key"))) {
        (Some(list), None) => read_certificates(&list),
        (Some(list), Some(_)) => {
            Err(list.refuse("expected either `cert` and `key`, or `certificates`; found both"))
        }
        (None, _) => read_files(&fields).map(|files| vec![files]),
    };
    Ok(Tls { certificates: certificates?, min_version: min_version?, client_ca: client_ca? })
}

/// With quotes or without: a version looks like a number.
fn read_version(item: &Item<'_>) -> Read<TlsVersion> {
    let scalar = item.scalar("1.2 or 1.3")?;
    match scalar.text.as_str() {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err(item.refuse(format!("expected 1.2 or 1.3, found {}", scalar.shown()))),
    }
}

fn read_certificates(list: &Item<'_>) -> Read<Vec<CertificateFiles>> {
    let expected = "a list with at least one `{cert: FILE, key: FILE}`";
    let read = |item: &Item<'_>| {
        read_files(&item.fields(&CERTIFICATE_KEYS, "a mapping such as `cert: gate.pem, key: gate.key`")?)
    };
    let certificates = list.list_of(expected, read)?;
    if certificates.is_empty() {
        return Err(list.refuse(format!("expected {expected}, found none")));
    }
    Ok(certificates)
}

fn read_files(fields: &Fields<'_>) -> Read<CertificateFiles> {
    let path = |key: &str, what: &str| {
        let expected = format!("the path of a PEM file with {what}");
        fields.require(key, &expected).and_then(|item| item.path(&expected))
    };
    let cert = path("cert", "the certificate");
    let key = path("key", "its private key");
    Ok(CertificateFiles { cert: cert?, key: key? })
}

/// Whether two listeners would be in each other's way: the same port (0 is a new one each time), and the same
/// address or all addresses.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a.ip(), b.ip()) || all(b.ip(), a.ip()))
}
