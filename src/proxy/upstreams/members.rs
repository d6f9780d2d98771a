//! Which servers an upstream has: found by their names, kept as long as they are found, laid out for choosing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pingora::upstreams::peer::HttpPeer;

use super::Inner;
use super::balance::Order;
use super::circuit::Circuit;
use super::idle::{self, Idle};
use super::resolve::look_up;
use super::server::Server;
use crate::config::WeightedServer;

/// Streams that share one HTTP/2 connection at most.
const STREAMS: usize = 100;

/// An address, and which server of the configuration is there.
pub(super) type Found<'s> = (SocketAddr, &'s WeightedServer);

impl Inner {
    /// All servers.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.all.lock().clone()
    }

    /// Every server's addresses. `failed` says what stands for one that cannot be looked up.
    pub(super) fn look_up_all<E>(
        &self,
        failed: &mut dyn FnMut(String, io::Error) -> Result<Vec<SocketAddr>, E>,
    ) -> Result<Vec<Found<'_>>, E> {
        let mut all: Vec<Found<'_>> = Vec::new();
        for entry in &self.settings.servers {
            let server = &entry.server;
            let addresses = match look_up(&self.resolver, &server.host, server.port) {
                Ok(addresses) => addresses,
                Err(error) => failed(server.to_string(), error)?,
            };
            for address in addresses {
                // Two names may lead to one address; the first has it.
                if !all.iter().any(|(known, _)| *known == address) {
                    all.push((address, entry));
                }
            }
        }
        Ok(all)
    }

    /// Takes what was found as the servers; those that are known already stay what they are. Whether something changed.
    pub(super) fn replace(&self, found: &[Found<'_>]) -> bool {
        let changed = {
            let mut all = self.all.lock();
            let same = |(server, (address, _)): (&Arc<Server>, &Found<'_>)| server.address == *address;
            if all.len() == found.len() && all.iter().zip(found).all(same) {
                return false;
            }
            let server = |(address, entry): &Found<'_>| {
                let known = all.iter().find(|server| server.address == *address);
                known.cloned().unwrap_or_else(|| Arc::new(self.make(*address, entry)))
            };
            let new: Vec<Arc<Server>> = found.iter().map(server).collect();
            !std::mem::replace(&mut *all, new).is_empty()
        };
        self.arrange();
        changed
    }

    /// Lays the servers out for choosing: those that are well; where none is, all of them. For if all seem ill, it is as
    /// likely the check that is wrong, and nothing is gained by asking nobody.
    pub(super) fn arrange(&self) {
        let all = self.all.lock();
        let mut chosen: Vec<Arc<Server>> = all.iter().filter(|server| server.is_healthy()).cloned().collect();
        if chosen.is_empty() {
            if !all.is_empty() {
                tracing::error!(upstream = %self.name, "no server is well; all are asked all the same");
            }
            chosen.clone_from(&all);
        }
        self.order.store(Arc::new(Order::new(&chosen, &self.settings.balance)));
    }

    fn make(&self, address: SocketAddr, entry: &WeightedServer) -> Server {
        let settings = &self.settings;
        let name: Arc<str> = address.to_string().into();
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(settings.connect_timeout);
        peer.options.total_connection_timeout = Some(settings.connect_timeout);
        peer.options.read_timeout = Some(settings.read_timeout);
        peer.options.write_timeout = Some(settings.write_timeout);
        peer.options.idle_timeout = Some(settings.idle_timeout);
        if let Some(tls) = &self.tls {
            tls.dress(&mut peer, &entry.server.host);
        }
        if settings.http2 {
            // Without TLS there is nothing to agree by, so HTTP/2 is taken for granted.
            peer.options.set_http_version(2, if self.tls.is_some() { 1 } else { 2 });
            peer.options.max_h2_streams = STREAMS;
        }
        Server {
            upstream: self.name.clone(),
            address,
            metrics: self.server_metrics.of_server(&self.name, &name),
            name,
            authority: entry.server.to_string().into(),
            weight: entry.weight,
            peer: Arc::new(peer),
            circuit: settings.circuit.as_ref().map(Circuit::new),
            healthy: true.into(),
            streak: 0.into(),
            idle: Idle::new(self.room.clone()),
        }
    }

    /// Looks all names up again. One that cannot be found keeps its addresses.
    pub(super) fn refresh(&self) {
        let known = self.servers();
        let found = self.look_up_all(&mut |server, error| {
            tracing::error!(
                upstream = %self.name,
                server,
                %error,
                "a server's name cannot be looked up; the addresses known are kept"
            );
            let kept = known.iter().filter(|known| *known.authority == *server);
            Ok::<_, std::convert::Infallible>(kept.map(|known| known.address).collect())
        });
        let Ok(found) = found;
        if self.replace(&found) {
            let servers: Vec<String> = found.iter().map(|(address, _)| address.to_string()).collect();
            tracing::info!(upstream = %self.name, servers = servers.join(" "), "the servers' addresses changed");
        }
    }
}

/// Looks names up again and again, until it is aborted.
pub(super) async fn follow_names(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(inner.settings.resolve_interval).await;
        let asked = inner.clone();
        if tokio::task::spawn_blocking(move || asked.refresh()).await.is_err() {
            tracing::error!(upstream = %inner.name, "looking up names failed");
        }
    }
}

/// Closes idle connections that may not be used any more, until it is aborted.
pub(super) async fn tend_idle(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(idle::LOOK_EVERY).await;
        let now = std::time::Instant::now();
        for server in inner.servers() {
            server.idle.look(now);
        }
    }
}
