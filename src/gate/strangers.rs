//! Addresses that try tokens nobody has: counted, and beyond a limit no longer looked up for.
//!
//! Only invalid tokens count, and only they are answered otherwise for it: who shares an address with a guesser goes on with
//! every token that this node knows. Memory is one table of fixed size, whoever tries from wherever: [`SHELVES`] times
//! [`PLACES`] addresses. When a shelf is full, whoever on it tried least gives way, so that a flood of addresses does not
//! make those forgotten that are held back. It is one node's; nothing is asked of the store.
//! The admin API has a table of its own (`admin::guard`).

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many shelves there are.
const SHELVES: usize = 4096;
/// How many addresses fit on one.
const PLACES: usize = 8;

/// How many invalid tokens one address may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessLimit {
    /// The most in a window; 0: any number.
    pub failures: u32,
    /// From the first on.
    pub window: Duration,
}

/// One address on a shelf.
#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    /// A keyed hash of the address: nobody outside can make two addresses meet.
    who: u64,
    /// When the window began: milliseconds since the table was made.
    since: u64,
    /// Tries in it; 0: the place is free.
    failures: u32,
}

type Shelf = Mutex<[Tried; PLACES]>;

/// Who tried, and how often.
pub struct Strangers {
    limit: GuessLimit,
    began: Instant,
    keyed: RandomState,
    shelves: Box<[Shelf]>,
}

impl Strangers {
    /// A table of its own; with no limit, none.
    pub fn new(limit: GuessLimit) -> Self {
        let count = if limit.failures == 0 { 0 } else { SHELVES };
        let shelves = (0..count).map(|_| Shelf::default()).collect();
        Self { limit, began: Instant::now(), keyed: RandomState::new(), shelves }
    }

    /// Counts an invalid token from this address.
    pub fn failed(&self, client: Option<IpAddr>, now: Instant) {
        let Some((who, shelf)) = self.shelf(client) else { return };
        let now = self.millis(now);
        let mut shelf = shelf.lock();
        let is_over = |tried: &Tried| tried.failures == 0 || now.saturating_sub(tried.since) >= self.window();
        let known = shelf.iter().position(|tried| tried.who == who && tried.failures > 0);
        let at = known.or_else(|| {
            let least = |tried: &Tried| if is_over(tried) { 0 } else { tried.failures };
            (0..PLACES).min_by_key(|at| shelf.get(*at).map(least))
        });
        let Some(place) = at.and_then(|at| shelf.get_mut(at)) else { return };
        if known.is_none() || is_over(place) {
            *place = Tried { who, since: now, failures: 0 };
        }
        place.failures = place.failures.saturating_add(1);
    }

    /// For how long this address is held back; `None`: it may try.
    pub fn held_back(&self, client: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let (who, shelf) = self.shelf(client)?;
        let age = |tried: &Tried| self.millis(now).saturating_sub(tried.since);
        let shelf = shelf.lock();
        let tried = shelf.iter().find(|tried| tried.who == who && tried.failures >= self.limit.failures)?;
        let left = self.window().checked_sub(age(tried)).filter(|left| *left > 0);
        left.map(Duration::from_millis)
    }

    fn shelf(&self, client: Option<IpAddr>) -> Option<(u64, &Shelf)> {
        if self.shelves.is_empty() {
            return None;
        }
        let who = self.keyed.hash_one(holder(client?));
        let at = usize::try_from(who % SHELVES as u64).ok()?;
        Some((who, self.shelves.get(at)?))
    }

    fn window(&self) -> u64 {
        u64::try_from(self.limit.window.as_millis()).unwrap_or(u64::MAX)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Who holds an address: an IPv6 network of 64 bits is one customer's.
pub(crate) fn holder(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMIT: GuessLimit = GuessLimit { failures: 3, window: Duration::from_mins(1) };

    fn at(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn an_address_is_held_back_after_its_failures_and_until_its_window_ends() {
        let strangers = Strangers::new(LIMIT);
        let start = strangers.began;
        let after = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert_eq!(strangers.held_back(at("192.0.2.1"), after(second)), None);
            strangers.failed(at("192.0.2.1"), after(second));
        }
        assert_eq!(strangers.held_back(at("192.0.2.1"), after(10)), Some(Duration::from_secs(50)));
        assert_eq!(strangers.held_back(at("::ffff:192.0.2.1"), after(10)), Some(Duration::from_secs(50)));
        assert_eq!(strangers.held_back(at("192.0.2.2"), after(10)), None);
        assert_eq!(strangers.held_back(None, after(10)), None);
        assert_eq!(strangers.held_back(at("192.0.2.1"), after(60)), None);
        strangers.failed(at("192.0.2.1"), after(60));
        assert_eq!(strangers.held_back(at("192.0.2.1"), after(61)), None, "a new window");
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let strangers = Strangers::new(LIMIT);
        let now = strangers.began;
        for host in ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:0:ffff::1"] {
            strangers.failed(at(host), now);
        }
        assert!(strangers.held_back(at("2001:db8::77"), now).is_some());
        assert_eq!(strangers.held_back(at("2001:db8:0:1::1"), now), None);
    }

    #[test]
    fn a_flood_of_addresses_does_not_make_those_held_back_forgotten() {
        let strangers = Strangers::new(LIMIT);
        let now = strangers.began;
        for _ in 0..3 {
            strangers.failed(at("203.0.113.9"), now);
        }
        // Several times as many as there are places.
        for number in 0..200_000_u32 {
            strangers.failed(Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))), now);
        }
        assert!(strangers.held_back(at("203.0.113.9"), now).is_some());
        // What is over gives way first.
        let later = now + LIMIT.window;
        strangers.failed(at("198.51.100.1"), later);
        assert_eq!(strangers.held_back(at("203.0.113.9"), later), None);
    }

    #[test]
    fn no_limit_holds_nobody_back() {
        let strangers = Strangers::new(GuessLimit { failures: 0, ..LIMIT });
        for _ in 0..1000 {
            strangers.failed(at("192.0.2.1"), strangers.began);
        }
        assert_eq!(strangers.held_back(at("192.0.2.1"), strangers.began), None);
        assert!(strangers.shelves.is_empty());
    }
}
