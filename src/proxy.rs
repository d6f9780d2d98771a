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

/// Connections that the gate may let go of are no others' to use.
const LEASHED: u64 = 1;
/// How long a connection may take to stand, where nothing else is said.
const CONNECTING: std::time::Duration = std::time::Duration::from_secs(2);

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
        let (mut peer, server) = self.upstream(journey)?.pick()?;
        let patience = peer.options.connection_timeout.unwrap_or(CONNECTING);
        if let Some(connector) = journey.visit.connector(patience) {
            peer.options.custom_l4 = Some(Arc::new(connector));
            peer.group_key = LEASHED;
        }
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

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        journey: &mut Journey,
    ) -> Result<()> {
        self.gate.request_body_filter(session, body.as_ref(), end_of_stream, &mut journey.visit)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        self.gate.response_filter(session, response, &mut journey.visit).await
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        journey: &mut Journey,
    ) -> Result<Option<std::time::Duration>> {
        Ok(self.gate.upstream_response_body_filter(body, end_of_stream, &mut journey.visit))
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

    /// As Pingora does it, but for this: what has begun to go out is not begun anew.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        _journey: &mut Journey,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        let again = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none();
        if again {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
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
