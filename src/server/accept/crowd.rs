//! Who is connected: how many in all, and how many of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Limits;

/// All open connections.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A connection's place; dropping it makes room.
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    address: Option<IpAddr>,
}

impl Crowd {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.lock().all
    }

    /// Takes a place, if there is one.
    pub(super) fn enter(self: &Arc<Self>, limits: &Limits) -> Option<Seat> {
        let mut counts = self.0.lock();
        if limits.connections != 0 && counts.all >= limits.connections {
            return None;
        }
        counts.all += 1;
        drop(counts);
        Some(Seat { crowd: self.clone(), address: None })
    }
}

impl Seat {
    /// Says whose the connection is; `false`: that client has as many as it may.
    pub(super) fn is_for(&mut self, client: IpAddr, limits: &Limits) -> bool {
        let most = limits.connections_per_address;
        if most == 0 || self.address.is_some() {
            return true;
        }
        let address = household(client);
        let mut counts = self.crowd.0.lock();
        let count = counts.of.entry(address).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock();
        counts.all = counts.all.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(count) = counts.of.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                counts.of.remove(&address);
            }
        }
    }
}

/// One customer of an IPv6 provider has a whole /64.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_and_each_address_and_forgets_those_that_left() {
        let crowd = Arc::new(Crowd::default());
        let limits = Limits { connections: 4, connections_per_address: 2, ..Limits::default() };
        let come = |address: &str| {
            let mut seat = crowd.enter(&limits)?;
            seat.is_for(address.parse().unwrap(), &limits).then_some(seat)
        };
        let kept: Vec<_> = ["10.0.0.1", "::ffff:10.0.0.1"].map(come).into_iter().flatten().collect();
        assert_eq!((kept.len(), crowd.len()), (2, 2));
        assert!(come("10.0.0.1").is_none(), "the third of one address");
        let others: Vec<_> = ["2001:db8::1", "2001:db8::ffff:1"].map(come).into_iter().flatten().collect();
        assert_eq!(others.len(), 2);
        assert!(come("10.0.0.2").is_none(), "the fifth of all");
        drop(kept);
        assert!(come("2001:db8::2").is_none(), "one /64 is one client");
        assert!(come("10.0.0.1").is_some());
        drop(others);
        assert_eq!(crowd.len(), 0);
        assert!(crowd.0.lock().of.is_empty());
    }
}
