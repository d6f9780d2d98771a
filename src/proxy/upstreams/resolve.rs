//! From the names of servers to their addresses, at the start and again and again.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Looks a name up. It may block.
pub(super) trait Resolver: Send + Sync {
    /// The addresses of a name, the preferred first.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
pub(super) struct System;

impl Resolver for System {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// All addresses of a server that are used: those of the family that the system prefers. A host that is to be reached over
/// both is one host, and would else have two shares.
pub(super) fn look_up(resolver: &Arc<dyn Resolver>, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found = resolver.resolve(host, port)?;
    let Some(first) = found.first().copied() else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    };
    found.retain(|address| address.is_ipv4() == first.is_ipv4());
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<SocketAddr>);

    impl Resolver for Fixed {
        fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn each_address_of_the_preferred_family_is_used_once() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let cases = [
            (vec!["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"], vec!["10.0.0.1:80", "10.0.0.2:80"]),
            (vec!["[::1]:80", "127.0.0.1:80"], vec!["[::1]:80"]),
            (vec!["127.0.0.1:80", "[::1]:80"], vec!["127.0.0.1:80"]),
        ];
        for (found, used) in cases {
            let resolver: Arc<dyn Resolver> = Arc::new(Fixed(addresses(&found)));
            assert_eq!(look_up(&resolver, "x", 80).unwrap(), addresses(&used));
        }
        let nothing: Arc<dyn Resolver> = Arc::new(Fixed(Vec::new()));
        assert!(look_up(&nothing, "x", 80).is_err());
    }
}
