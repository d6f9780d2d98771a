//! Peer 1: Pingora with nothing in it. One upstream, kept connections, no filter, no log.
//!
//! Built in the same run with the same profile and the same allocator as Tollgate. What Tollgate costs is what it
//! adds to this.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use pingora::Result;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

/// Serves until the process is told to stop.
pub(crate) fn serve(listen: &str, upstream: &str, threads: &str) -> anyhow::Result<()> {
    let upstream = upstream.parse().with_context(|| format!("{upstream}: not an address"))?;
    let threads = threads.parse().with_context(|| format!("{threads}: not a number"))?;
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 128, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), Bare { upstream });
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
