//! Tollgate's own proxy: a `ProxyHttp` that calls the gate in each phase and picks a server.
//!
//! Owns which server of an upstream gets a request, and when a failed try may be repeated. What may pass is the
//! gate's to say.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::gate::{Gate, Visit};

mod upstreams;

pub use upstreams::{HostHeader, Upstream, UpstreamError, UpstreamSettings, Upstreams};

/// The proxy.
pub struct Proxy {
    gate: Arc<Gate>,
    upstreams: Upstreams,
}

/// One request's state: the gate's, and how often a server was tried.
pub struct Journey {
    visit: Visit,
    tries: usize,
}

impl Proxy {
    /// A proxy over a gate and its upstreams.
    pub fn new(gate: Arc<Gate>, upstreams: Upstreams) -> Self {
        Self { gate, upstreams }
    }

    fn upstream(&self, journey: &Journey) -> Result<&Upstream> {
        let name = journey.visit.upstream();
        let found = name.and_then(|name| self.upstreams.get(name));
        found.ok_or_else(|| Error::explain(ErrorType::InternalError, "an admitted request has no upstream"))
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Journey;

    fn new_ctx(&self) -> Journey {
        Journey { visit: self.gate.new_visit(), tries: 0 }
    }

    async fn request_filter(&self, session: &mut Session, journey: &mut Journey) -> Result<bool> {
        self.gate.request_filter(session, &mut journey.visit).await
    }

    async fn upstream_peer(&self, _session: &mut Session, journey: &mut Journey) -> Result<Box<HttpPeer>> {
        let (peer, server) = self.upstream(journey)?.pick()?;
        journey.tries += 1;
        journey.visit.note_server(server);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        self.gate.upstream_request_filter(session, upstream, &mut journey.visit).await?;
        self.upstream(journey)?.address_host(upstream, journey.visit.server())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        self.gate.response_filter(session, response, &mut journey.visit).await
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        journey: &mut Journey,
    ) -> Result<Option<std::time::Duration>> {
        self.gate.response_body_filter(session, body, end_of_stream, &mut journey.visit)
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, journey: &mut Journey) {
        self.gate.logging(session, error, &mut journey.visit).await;
    }

    /// Nothing was sent to a server that could not be reached, so the next one may be asked, whatever the method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        journey: &mut Journey,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let servers = self.upstream(journey).map_or(0, Upstream::len);
        error.set_retry(journey.tries < servers);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        journey: &mut Journey,
    ) -> FailToProxy {
        let error_code = self.gate.fail(session, error, &mut journey.visit).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Pingora's own error line quotes the request line, and with it the token. The gate has said what matters.
    fn suppress_error_log(&self, _session: &Session, _journey: &Journey, _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, journey: &Journey) -> String {
        format!("request {}", journey.visit.request_id())
    }
}
