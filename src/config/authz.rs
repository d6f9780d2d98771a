//! `authz`: forward-auth for other proxies (`interface.md`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::document::read_networks;
use super::listeners::{Taken, read_free};
use super::reader::{Item, Keys, Read};

/// Where other proxies ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authz {
    /// The address; port 0 leaves the choice to the system.
    pub address: SocketAddr,
    /// Who may ask.
    pub trusted: Vec<IpNet>,
    /// After how long a request is charged that was to be settled later, and was not.
    pub settle_within: Duration,
}

pub(super) const KEYS: Keys = Keys { known: &["address", "trusted", "settle_within"], later: &[] };

const SETTLE_WITHIN: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);

/// Only what runs on this machine.
fn loopback() -> Vec<IpNet> {
    let v4 = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(|net| IpNet::V4(net.trunc()));
    v4.into_iter().chain([IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))]).collect()
}

pub(super) fn read<'t>(item: &Item<'_>, taken: impl Iterator<Item = &'t Taken>) -> Read<Authz> {
    let fields = item.fields(&KEYS, "a mapping such as `address: 127.0.0.1:8082`")?;
    let address = read_free(&fields, taken);
    let trusted = fields.or("trusted", loopback(), |item| {
        let networks = read_networks(item)?;
        if networks.is_empty() {
            return Err(item.refuse("nobody could ask; name the proxies that do, or take the key out"));
        }
        Ok(networks)
    });
    let settle_within =
        fields.or("settle_within", SETTLE_WITHIN, |item| item.duration(Duration::from_secs(1)..=LONGEST));
    Ok(Authz { address: address?, trusted: trusted?, settle_within: settle_within? })
}
