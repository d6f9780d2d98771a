//! A caching load balancer on Pingora that gained the gate: the lines that end in `// gate` are all it took.
//!
//! ```sh
//! cargo run --example embed -- --listen 127.0.0.1:8000 --gate gate.yaml 127.0.0.1:9000 127.0.0.1:9001
//! ```
//!
//! `gate.yaml` is described on the crate's front page (`src/lib.rs`). What comes from the cache is judged and charged as
//! well; `X-Cache` says where a response is from.

use std::env;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::lb::selection::RoundRobin;
use pingora::prelude::*;
use pingora::proxy::FailToProxy;
use pingora::server::configuration::ServerConf;
use pingora_cache::cache_control::CacheControl;
use pingora_cache::{CacheKey, CacheMetaDefaults, CachePhase, MemCache, RespCacheable, filters};
use tollgate::{Plugin, gate::Visit}; // gate

const USAGE: &str = "usage: embed --listen ADDRESS --gate gate.yaml SERVER...";
/// What says nothing of it is kept for so long.
const DEFAULTS: CacheMetaDefaults =
    CacheMetaDefaults::new(|status| status.is_success().then_some(Duration::from_mins(1)), 0, 0);

struct Balancer {
    servers: LoadBalancer<RoundRobin>,
    cache: &'static MemCache,
    gate: Arc<Plugin>, // gate
}

struct Exchange {
    began: Instant,
    sent: usize,
    visit: Visit, // gate
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange {
            began: Instant::now(),
            sent: 0,
            visit: self.gate.new_visit(), // gate
        }
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        if session.req_header().uri.path() == "/alive" {
            session.respond_error(200).await?;
            return Ok(true);
        }
        self.gate.request_filter(session, &mut exchange.visit).await // gate
    }

    fn request_cache_filter(&self, session: &mut Session, _: &mut Exchange) -> Result<()> {
        if session.req_header().method == Method::GET {
            session.cache.enable(self.cache, None, None, None, None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, _: &Session, exchange: &mut Exchange) -> Result<CacheKey> {
        let target = exchange.visit.target().unwrap_or_default(); // gate
        Ok(CacheKey::new(target, ""))
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        _: &mut Exchange,
    ) -> Result<RespCacheable> {
        let control = CacheControl::from_resp_headers(response);
        let authorized = session.req_header().headers.contains_key(header::AUTHORIZATION);
        Ok(filters::resp_cacheable(control.as_ref(), response.clone(), authorized, &DEFAULTS))
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> Result<Box<HttpPeer>> {
        let server = self.servers.select(b"", 16);
        let server = server.ok_or_else(|| Error::explain(ErrorType::ConnectError, "no server"))?;
        Ok(Box::new(HttpPeer::new(server, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.gate.upstream_request_filter(session, upstream, &mut exchange.visit).await?; // gate
        upstream.insert_header("Via", "1.1 balancer")
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.gate.response_filter(session, response, &mut exchange.visit).await?; // gate
        let hit = session.cache.phase() == CachePhase::Hit;
        response.insert_header("X-Cache", if hit { "hit" } else { "miss" })
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        exchange.sent += body.as_ref().map_or(0, Bytes::len);
        self.gate.response_body_filter(session, body, end, &mut exchange.visit) // gate
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        eprintln!("failed: {}", error.etype().as_str());
        let error_code = self.gate.fail(session, error, &mut exchange.visit).await; // gate
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        let (method, took) = (session.req_header().method.as_str(), exchange.began.elapsed());
        eprintln!("{method} {} bytes in {took:?}", exchange.sent);
        self.gate.logging(session, error, &mut exchange.visit).await; // gate
    }
}

fn main() -> std::result::Result<(), Box<dyn StdError>> {
    let mut arguments = env::args().skip(1);
    let (mut listen, mut gate, mut servers) = (None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => listen = arguments.next(),
            "--gate" => gate = arguments.next(),
            _ => servers.push(argument),
        }
    }
    let gate = Arc::new(Plugin::open(gate.ok_or(USAGE)?)?); // gate
    let conf = ServerConf {
        grace_period_seconds: Some(1),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let balancer = Balancer {
        servers: LoadBalancer::try_from_iter(servers)?,
        cache: Box::leak(Box::new(MemCache::new())),
        gate: gate.clone(), // gate
    };
    let mut proxy = http_proxy_service(&server.configuration, balancer);
    proxy.add_tcp(&listen.ok_or(USAGE)?);
    server.add_service(proxy);
    server.add_service(gate.service()); // gate
    server.run_forever()
}
