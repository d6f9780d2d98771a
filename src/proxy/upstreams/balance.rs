//! Whose turn it is: the order in which the servers of an upstream are asked for one request.
//!
//! Pingora's own selections are used where they do what is wanted: its ketama ring. Its weighted round robin is not: it
//! asks a heavy server many times in a row, and where one server is out it shares that one's part evenly and not by
//! weight.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::lb::Backend;
use pingora::lb::selection::consistent::KetamaHashing;
use pingora::lb::selection::{BackendIter, BackendSelection};

use crate::config::Balance;

/// What choosing has to know of a server.
pub(super) trait Candidate {
    /// Its address.
    fn address(&self) -> SocketAddr;
    /// Its share, at least 1.
    fn weight(&self) -> u32;
    /// Requests under way at it.
    fn load(&self) -> u64;
}

/// The servers to choose from, laid out for choosing. It is made anew when they change.
pub(super) struct Order<S>(Kind<S>);

enum Kind<S> {
    /// Servers as they take turns; each as often as its weight says.
    Turns(Vec<Arc<S>>),
    /// Choosing and counting are one step, so that two requests at once do not both take the emptiest.
    Emptiest(Vec<Arc<S>>, Mutex<()>),
    Ring(Vec<Arc<S>>, Arc<KetamaHashing>),
}

impl<S: Candidate> Order<S> {
    pub(super) fn new(servers: &[Arc<S>], balance: &Balance) -> Self {
        Self(match balance {
            Balance::RoundRobin => Kind::Turns(turns(servers)),
            Balance::LeastConnections => Kind::Emptiest(servers.to_vec(), Mutex::new(())),
            Balance::Hash(_) => Kind::Ring(servers.to_vec(), Arc::new(ring(servers))),
        })
    }

    /// Offers servers, the best first, until `take` takes one. `turn` is one more each time; `key` is what is hashed.
    pub(super) fn find<T>(
        &self,
        turn: usize,
        key: &[u8],
        mut take: impl FnMut(&Arc<S>) -> Option<T>,
    ) -> Option<T> {
        match &self.0 {
            Kind::Turns(turns) => {
                let start = turn.checked_rem(turns.len()).unwrap_or(0);
                let (late, early) = turns.split_at_checked(start)?;
                early.iter().chain(late).find_map(take)
            }
            Kind::Emptiest(servers, choosing) => {
                let _choosing = choosing.lock();
                let start = turn.checked_rem(servers.len()).unwrap_or(0);
                let (late, early) = servers.split_at_checked(start)?;
                let mut all: Vec<&Arc<S>> = early.iter().chain(late).collect();
                // Loads for weights are compared without fractions; a stable sort leaves equals in their turn.
                all.sort_by(|a, b| {
                    let (left, right) = (a.load() * u64::from(b.weight()), b.load() * u64::from(a.weight()));
                    left.cmp(&right)
                });
                all.into_iter().find_map(take)
            }
            Kind::Ring(servers, ring) => {
                let mut points = ring.iter(key);
                let mut offered: Vec<SocketAddr> = Vec::new();
                while offered.len() < servers.len() {
                    let Some(address) = points.next().and_then(|backend| backend.addr.as_inet().copied())
                    else {
                        break;
                    };
                    if offered.contains(&address) {
                        continue;
                    }
                    offered.push(address);
                    let server = servers.iter().find(|server| server.address() == address);
                    if let Some(taken) = server.and_then(&mut take) {
                        return Some(taken);
                    }
                }
                // The ring may end before each server was seen.
                servers.iter().filter(|server| !offered.contains(&server.address())).find_map(take)
            }
        }
    }
}

/// Each server as often as its weight, as evenly spread as can be (smooth weighted round robin).
fn turns<S: Candidate>(servers: &[Arc<S>]) -> Vec<Arc<S>> {
    let total: i64 = servers.iter().map(|server| i64::from(server.weight())).sum();
    let mut credit = vec![0_i64; servers.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (credit, server) in credit.iter_mut().zip(servers) {
            *credit += i64::from(server.weight());
        }
        // The first of the richest.
        let richest = credit.iter().copied().max().unwrap_or(0);
        let chosen = credit.iter_mut().zip(servers).find(|(credit, _)| **credit == richest);
        if let Some((credit, server)) = chosen {
            *credit -= total;
            turns.push(server.clone());
        }
    }
    turns
}

fn ring<S: Candidate>(servers: &[Arc<S>]) -> KetamaHashing {
    let backend = |server: &Arc<S>| {
        let weight = usize::try_from(server.weight()).unwrap_or(1);
        Backend::new_with_weight(&server.address().to_string(), weight).ok()
    };
    let backends: BTreeSet<Backend> = servers.iter().filter_map(backend).collect();
    KetamaHashing::build(&backends)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::config::HashBy;

    struct Fake {
        port: u16,
        weight: u32,
        load: AtomicU64,
    }

    impl Candidate for Fake {
        fn address(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], self.port))
        }
        fn weight(&self) -> u32 {
            self.weight
        }
        fn load(&self) -> u64 {
            self.load.load(Ordering::Relaxed)
        }
    }

    fn fakes(weights: &[u32]) -> Vec<Arc<Fake>> {
        let fake =
            |(port, weight): (u16, &u32)| Arc::new(Fake { port, weight: *weight, load: AtomicU64::new(0) });
        (1..).zip(weights).map(fake).collect()
    }

    fn ports(order: &Order<Fake>, turns: std::ops::Range<usize>) -> Vec<u16> {
        turns.filter_map(|turn| order.find(turn, b"", |server| Some(server.port))).collect()
    }

    #[test]
    fn servers_take_turns_by_their_weights_and_none_many_times_in_a_row() {
        let order = Order::new(&fakes(&[5, 1, 1]), &Balance::RoundRobin);
        assert_eq!(ports(&order, 0..7), [1, 1, 2, 1, 3, 1, 1]);
        for (weights, expected) in
            [(vec![1, 1], vec![50, 50]), (vec![3, 1], vec![75, 25]), (vec![2, 2, 1], vec![40, 40, 20])]
        {
            let order = Order::new(&fakes(&weights), &Balance::RoundRobin);
            let asked = ports(&order, 0..100);
            let counts: Vec<usize> = (1..=weights.len())
                .map(|port| asked.iter().filter(|asked| usize::from(**asked) == port).count())
                .collect();
            assert_eq!(counts, expected, "{weights:?}");
        }
    }

    #[test]
    fn one_that_is_refused_is_followed_by_each_other() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Hash(HashBy::Path)] {
            let order = Order::new(&fakes(&[3, 1, 2]), &balance);
            let mut offered = Vec::new();
            let found: Option<()> = order.find(4, b"key", |server| {
                offered.push(server.port);
                None
            });
            assert!(found.is_none());
            offered.sort_unstable();
            offered.dedup();
            assert_eq!(offered, [1, 2, 3], "{balance:?}");
        }
        let nobody = Order::<Fake>::new(&[], &Balance::RoundRobin);
        assert_eq!(nobody.find(3, b"", |server| Some(server.port)), None);
    }

    #[test]
    fn the_emptiest_for_its_weight_is_asked() {
        let servers = fakes(&[2, 1]);
        let order = Order::new(&servers, &Balance::LeastConnections);
        let mut counts = BTreeMap::new();
        for turn in 0..30 {
            let port = order.find(turn, b"", |server| {
                server.load.fetch_add(1, Ordering::Relaxed);
                Some(server.port)
            });
            *counts.entry(port.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([(1, 20), (2, 10)]));
        servers[0].load.store(0, Ordering::Relaxed);
        assert!((0..5).all(|turn| order.find(turn, b"", |server| Some(server.port)) == Some(1)));
    }

    #[test]
    fn only_the_keys_of_a_server_that_leaves_move() {
        let servers = fakes(&[1, 1, 1, 1]);
        let balance = Balance::Hash(HashBy::Token);
        let all = Order::new(&servers, &balance);
        let three = Order::new(&servers[..3], &balance);
        let mut moved = 0;
        for key in 0..1000 {
            let key = format!("token-{key}");
            let before = all.find(0, key.as_bytes(), |server| Some(server.port)).unwrap();
            let after = three.find(7, key.as_bytes(), |server| Some(server.port)).unwrap();
            if before == 4 {
                moved += 1;
                // Where it goes is where it goes, too, while the fourth is only refused.
                let skipped = all.find(0, key.as_bytes(), |server| (server.port != 4).then_some(server.port));
                assert_eq!(skipped, Some(after));
            } else {
                assert_eq!(before, after, "{key} stays");
            }
        }
        assert!((150..350).contains(&moved), "{moved}");
    }
}
