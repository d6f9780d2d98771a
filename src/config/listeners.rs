//! `listeners` and `admin`: the addresses the gate listens on.

use std::net::{IpAddr, SocketAddr};

use super::reader::{Fields, Item, Keys, Read};
use super::{Listener, MetricsAccess};

pub(super) const KEYS: Keys = Keys { known: &["address"], later: &["tls", "http2"] };
pub(super) const ADMIN_KEYS: Keys = Keys { known: &["address", "metrics"], later: &["tls", "http2"] };

const METRICS: [(&str, MetricsAccess); 2] =
    [("open", MetricsAccess::Open), ("secret", MetricsAccess::Secret)];

const EXPECTED: &str = "listener such as `- address: 127.0.0.1:8080`";

/// A listener's full name in the file, and its address.
pub(super) type Taken = (String, SocketAddr);

/// Each listener; one that has a mistake still lets the others be known.
pub(super) fn read(fields: &Fields<'_>) -> Read<Vec<Read<Taken>>> {
    let item = fields.require("listeners", &format!("at least one {EXPECTED}"))?;
    let items = item.list(&format!("a list with at least one {EXPECTED}"))?;
    if items.is_empty() {
        return Err(item.refuse(format!("expected at least one {EXPECTED}, found none")));
    }
    let mut listeners: Vec<Read<Taken>> = Vec::new();
    for item in &items {
        let address = read_fields(item, &KEYS)
            .and_then(|fields| read_free_address(&fields, listeners.iter().flatten()));
        listeners.push(address.map(|address| (item.key().to_owned(), address)));
    }
    Ok(listeners)
}

/// The admin API's listener, which shares no address with the others, and who may read the metrics there.
pub(super) fn read_admin<'t>(
    item: &Item<'_>,
    taken: impl Iterator<Item = &'t Taken>,
) -> Read<(Listener, MetricsAccess)> {
    let fields = read_fields(item, &ADMIN_KEYS)?;
    let address = read_free_address(&fields, taken);
    let metrics = fields.or("metrics", MetricsAccess::default(), |item| item.choice(&METRICS));
    Ok((Listener { address: address? }, metrics?))
}

fn read_fields<'i>(item: &Item<'i>, keys: &Keys) -> Read<Fields<'i>> {
    item.fields(keys, "a mapping such as `address: 127.0.0.1:8080`")
}

fn read_free_address<'t>(
    fields: &Fields<'_>,
    mut taken: impl Iterator<Item = &'t Taken>,
) -> Read<SocketAddr> {
    let item = fields.require("address", "IP:port such as 127.0.0.1:8080")?;
    let address = item.parse("IP:port such as 127.0.0.1:8080 or \"[::1]:8080\"", |text| text.parse().ok())?;
    match taken.find(|(_, other)| overlap(address, *other)) {
        None => Ok(address),
        Some((key, other)) => {
            Err(item.refuse(format!("{address} is taken by {key} ({other}); expected an address of its own")))
        }
    }
}

/// Whether two listeners would be in each other's way: the same port (0 is a new one each time), and the same
/// address or all addresses.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a.ip(), b.ip()) || all(b.ip(), a.ip()))
}
