//! How often somebody may try to get in: by the address they come from, and by the name they give.
//!
//! A try is counted before it is judged, so that many at once cannot get past the count; one that succeeds, or that could
//! not be judged, is taken back. What is known is this node's and in memory, and bounded: where all places are taken, what
//! matters least is forgotten.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::gate::holder;

/// The stretch of time that failures are counted in.
const MINUTE: Duration = Duration::from_mins(1);
/// Failures from one address in a minute.
const BY_ADDRESS: usize = 10;
/// Failures under one name before its owner has to wait.
const BY_NAME: u32 = 5;
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(15);
/// A name that was left alone for so long starts anew.
const FORGIVEN: Duration = Duration::from_hours(1);
/// Places for addresses, and for names.
const PLACES: usize = 10_000;

/// Where somebody comes from. Whoever has one IPv6 address has all of its /64.
type Place = Option<IpAddr>;
/// A name, as the key of what is known of it: long names take no more room than short ones.
type Name = [u8; 32];

#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    places: HashMap<Place, VecDeque<Instant>>,
    names: HashMap<Name, Failures>,
}

/// Failures under one name.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
}

impl Failures {
    fn is_over(&self, now: Instant) -> bool {
        let quiet = if self.count < BY_NAME { self.last + MINUTE } else { self.until + FORGIVEN };
        now >= quiet
    }
}

/// A try that is counted as a failure until it turns out otherwise.
#[derive(Debug)]
#[must_use]
pub(super) struct Try {
    place: Place,
    name: Option<Name>,
    at: Instant,
    /// Until when the name had to wait before.
    until: Instant,
}

impl Limiter {
    /// Counts a try; or says how long to wait with the next one.
    pub(super) fn enter(
        &self,
        address: Option<IpAddr>,
        name: Option<&str>,
        now: Instant,
    ) -> Result<Try, Duration> {
        let (place, name) = (place(address), name.map(key));
        let mut counts = self.0.lock();
        let Counts { places, names } = &mut *counts;
        places.get_mut(&place).map_or(Ok(()), |tries| check_place(tries, now))?;
        let known = name.and_then(|name| names.get(&name)).filter(|failures| !failures.is_over(now)).copied();
        let until = known.map_or(now, |failures| failures.until);
        if until > now {
            return Err(until - now);
        }
        make_room(
            places,
            &place,
            |tries| (tries.len(), tries.back().copied()),
            |tries| tries.back().is_none_or(|last| now >= *last + MINUTE),
        );
        places.entry(place).or_default().push_back(now);
        if let Some(name) = name {
            make_room(
                names,
                &name,
                |failures| (failures.count as usize, Some(failures.last)),
                |f| f.is_over(now),
            );
            let count = known.map_or(0, |failures| failures.count).saturating_add(1);
            names.insert(name, Failures { count, last: now, until: now + wait_after(count) });
        }
        Ok(Try { place, name, at: now, until })
    }

    /// It was right: the name starts anew.
    pub(super) fn succeed(&self, tried: &Try) {
        let mut counts = self.0.lock();
        counts.take_back_place(tried);
        if let Some(name) = tried.name {
            counts.names.remove(&name);
        }
    }

    /// Nobody can tell whether it was right: as if it had not been.
    pub(super) fn forget(&self, tried: &Try) {
        let mut counts = self.0.lock();
        counts.take_back_place(tried);
        let failures = tried.name.and_then(|name| counts.names.get_mut(&name));
        if let Some(failures) = failures.filter(|failures| failures.last == tried.at) {
            failures.count = failures.count.saturating_sub(1);
            failures.until = tried.until;
        }
    }
}

impl Counts {
    fn take_back_place(&mut self, tried: &Try) {
        if let Some(tries) = self.places.get_mut(&tried.place)
            && let Some(at) = tries.iter().position(|at| *at == tried.at)
        {
            tries.remove(at);
        }
    }
}

fn check_place(tries: &mut VecDeque<Instant>, now: Instant) -> Result<(), Duration> {
    tries.retain(|at| now < *at + MINUTE);
    match tries.front() {
        Some(first) if tries.len() >= BY_ADDRESS => Err(*first + MINUTE - now),
        _ => Ok(()),
    }
}

/// How long a name has to wait after so many failures.
fn wait_after(count: u32) -> Duration {
    match count.checked_sub(BY_NAME) {
        None => Duration::ZERO,
        Some(more) => MINUTE.saturating_mul(1 << more.min(8)).min(LONGEST),
    }
}

fn place(address: Option<IpAddr>) -> Place {
    address.map(holder)
}

fn key(name: &str) -> Name {
    Sha256::digest(name.trim().to_lowercase().as_bytes()).into()
}

/// Makes room for `key`: what is over goes, and if nothing is, what weighs least.
fn make_room<K: Copy + Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    key: &K,
    weight: impl Fn(&V) -> (usize, Option<Instant>),
    is_over: impl Fn(&V) -> bool,
) {
    if map.len() < PLACES || map.contains_key(key) {
        return;
    }
    map.retain(|_, value| !is_over(value));
    if map.len() < PLACES {
        return;
    }
    let least = map.iter().min_by_key(|(_, value)| weight(value)).map(|(key, _)| *key);
    if let Some(least) = least {
        map.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn ten_failures_from_one_address_are_enough_for_a_minute() {
        let limiter = Limiter::default();
        let start = Instant::now();
        for number in 0..10 {
            let _failed = limiter.enter(Some(address(1)), None, start + number * SECOND).unwrap();
        }
        assert_eq!(limiter.enter(Some(address(1)), None, start + 20 * SECOND).unwrap_err(), 40 * SECOND);
        assert_eq!(
            limiter.enter(Some(address(1)), Some("ada"), start + 20 * SECOND).unwrap_err(),
            40 * SECOND
        );
        let _other = limiter.enter(Some(address(2)), None, start + 20 * SECOND).unwrap();
        let _later = limiter.enter(Some(address(1)), None, start + 60 * SECOND).unwrap();
        assert_eq!(limiter.enter(Some(address(1)), None, start + 60 * SECOND).unwrap_err(), SECOND);
    }

    #[test]
    fn addresses_of_one_network_share_their_count() {
        let of = |text: &str| Some(text.parse().unwrap());
        for (one, other, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(place(of(one)) == place(of(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn waiting_for_a_name_doubles_up_to_a_quarter_of_an_hour() {
        let limiter = Limiter::default();
        let mut now = Instant::now();
        // From ever other addresses.
        let mut from = 0;
        let mut fail = |now| {
            from += 1;
            limiter.enter(Some(address(from)), Some("Ada"), now)
        };
        for _ in 0..5 {
            let _failed = fail(now).unwrap();
        }
        for minutes in [1, 2, 4, 8, 15, 15] {
            assert_eq!(fail(now).unwrap_err(), minutes * MINUTE);
            let nearly = now + (minutes * MINUTE).saturating_sub(SECOND);
            assert_eq!(limiter.enter(Some(address(200)), Some(" ADA "), nearly).unwrap_err(), SECOND);
            assert!(limiter.enter(Some(address(200)), Some("grace"), nearly).is_ok());
            now += minutes * MINUTE;
            let _failed = fail(now).unwrap();
        }
        // Left alone for an hour, it starts anew.
        now += LONGEST + FORGIVEN;
        for _ in 0..5 {
            let _failed = fail(now).unwrap();
        }
        assert_eq!(fail(now).unwrap_err(), MINUTE);
    }

    #[test]
    fn a_success_clears_the_name_and_what_cannot_be_judged_does_not_count() {
        let limiter = Limiter::default();
        let now = Instant::now();
        for _ in 0..30 {
            let unjudged = limiter.enter(Some(address(1)), Some("ada"), now).unwrap();
            limiter.forget(&unjudged);
        }
        for _ in 0..3 {
            for _ in 0..4 {
                let _failed = limiter.enter(None, Some("ada"), now + MINUTE).unwrap();
            }
            let right = limiter.enter(Some(address(1)), Some("ada"), now + MINUTE).unwrap();
            limiter.succeed(&right);
            limiter.0.lock().places.clear();
        }
        // The wait that had begun stands, also where the try after it cannot be judged.
        for _ in 0..5 {
            let _failed = limiter.enter(Some(address(1)), Some("ada"), now).unwrap();
        }
        let unjudged = limiter.enter(Some(address(1)), Some("ada"), now + MINUTE).unwrap();
        limiter.forget(&unjudged);
        let _again = limiter.enter(Some(address(1)), Some("ada"), now + MINUTE).unwrap();
        assert_eq!(limiter.enter(Some(address(1)), Some("ada"), now + MINUTE).unwrap_err(), 2 * MINUTE);
    }

    #[test]
    fn many_at_once_do_not_get_past_the_count() {
        let limiter = Limiter::default();
        let now = Instant::now();
        let let_in = std::thread::scope(|scope| {
            let one = |from: u8| {
                scope.spawn({
                    let limiter = &limiter;
                    move || limiter.enter(Some(address(from)), Some("ada"), now).is_ok()
                })
            };
            let tries: Vec<_> = (0..20).map(one).collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|ok| *ok).count()
        });
        assert_eq!(let_in, 5);
    }

    #[test]
    fn memory_is_bounded_and_keeps_who_has_to_wait() {
        let limiter = Limiter::default();
        let now = Instant::now();
        for from in 0..5 {
            let _failed = limiter.enter(Some(address(from)), Some("ada"), now).unwrap();
        }
        let count = u32::try_from(PLACES).unwrap() + 50;
        for number in 0..count {
            let from = IpAddr::from(number.to_be_bytes());
            let _failed = limiter.enter(Some(from), Some(&number.to_string()), now).unwrap();
        }
        let (places, names) = {
            let counts = limiter.0.lock();
            (counts.places.len(), counts.names.len())
        };
        assert_eq!((places, names), (PLACES, PLACES));
        assert!(limiter.enter(Some(address(99)), Some("ada"), now).is_err());
        // What is over makes room for all at once.
        let _later = limiter.enter(Some(address(99)), Some("grace"), now + MINUTE).unwrap();
        assert_eq!(limiter.0.lock().places.len(), 1);
    }
}
