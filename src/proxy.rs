//! Tollgate's own proxy: a `ProxyHttp` that calls the gate in each phase and picks a server.
//!
//! Owns which server of an upstream gets a request, and when a failed try may be repeated. What may pass is the
//! gate's to say.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};

use crate::config::HostHeader;
use crate::gate::{Appendix, Gate};

mod direct;
mod journey;
mod rewrite;
mod setup;
mod upstreams;

pub use journey::Journey;
pub use setup::{InForce, Setup};
pub use upstreams::{Upstream, UpstreamError, Upstreams};

use direct::Way;
use upstreams::{Again, time_left};

/// Connections that the gate may let go of are no others' to use.
const LEASHED: u64 = 1;
/// Where the numbers of such connections begin over HTTP/2, where a connection may be shared as soon as it stands.
const LEASHED_HTTP2: u64 = 1 << 62;
/// How long a connection may take to stand, where nothing else is said.
const CONNECTING: Duration = Duration::from_secs(2);

/// The proxy.
pub struct Proxy {
    gate: Arc<Gate>,
    setup: InForce,
    leashed: AtomicU64,
    /// Makes the connections of the direct way.
    connector: TransportConnector,
}

impl Proxy {
    /// A proxy over a gate and the setup in force.
    pub fn new(gate: Arc<Gate>, setup: InForce) -> Self {
        // It keeps none itself: each server does.
        let connector = TransportConnector::new(Some(ConnectorOptions::new(0)));
        Self { gate, setup, leashed: AtomicU64::new(LEASHED_HTTP2), connector }
    }

    /// Which connections a request may share that lets go of its own.
    fn leashed_group(&self, http2: bool) -> u64 {
        if http2 { self.leashed.fetch_add(1, Ordering::Relaxed) } else { LEASHED }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Journey;

    fn new_ctx(&self) -> Journey {
        let setup = self.setup.get();
        Journey::new(self.gate.new_visit_by(setup.rules.clone()), setup)
    }

    /// None: Pingora's own, for compression, is off by default and costs each request some calls all the same.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// What the connection brings along for each of its requests: where fields of response heads go.
    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        journey: &mut Journey,
        connection: Box<dyn Any + Send + Sync>,
    ) {
        if let Ok(appendix) = connection.downcast::<Arc<Appendix>>() {
            journey.visit.append_by(*appendix);
        }
    }

    async fn request_filter(&self, session: &mut Session, journey: &mut Journey) -> Result<bool> {
        self.gate.request_filter(session, &mut journey.visit).await
    }

    async fn upstream_peer(&self, session: &mut Session, journey: &mut Journey) -> Result<Box<HttpPeer>> {
        journey.choose_upstream();
        journey.take_server(session)?;
        let ticket = journey.ticket()?;
        let patience = ticket.peer().options.connection_timeout.unwrap_or(CONNECTING);
        let Some(connector) = journey.visit.connector(patience) else {
            return Ok(Box::new(HttpPeer::clone(&*journey.peer_in_time()?)));
        };
        // What may become a stream is not bound in all.
        let mut peer = HttpPeer::clone(ticket.peer());
        peer.options.custom_l4 = Some(Arc::new(connector));
        peer.group_key = self.leashed_group(journey.upstream()?.settings().http2);
        Ok(Box::new(peer))
    }

    /// A plain request is answered here (`false`); all others go Pingora's way.
    async fn proxy_upstream_filter(&self, session: &mut Session, journey: &mut Journey) -> Result<bool> {
        Ok(self.go_directly(session, journey).await? == Way::Long)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        self.gate.upstream_request_filter(session, upstream, &mut journey.visit).await?;
        if let (HostHeader::Server, Some(ticket)) = (journey.upstream()?.settings().host, &journey.ticket) {
            upstream.insert_header(header::HOST, ticket.authority())?;
        }
        match journey.visit.rewrite() {
            Some(rewrite) => rewrite::request(rewrite, journey.visit.target().unwrap_or_default(), upstream),
            None => Ok(()),
        }
    }

    /// An answer has come. Where the request may be tried again because of its status, this is the place: the gate has
    /// not charged for it yet, and nothing of it has gone out.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.as_downstream().is_upgrade_req() {
            let unasked = "101 to a request that asked for no upgrade";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, unasked).into_up());
        }
        let status = response.status.as_u16();
        let Some(upstream) = journey.upstream.clone() else { return Ok(()) };
        if let Some(ticket) = &mut journey.ticket {
            if upstream.is_failure(status) {
                ticket.fail("it answered with such a status");
            } else {
                ticket.succeed();
            }
        }
        let method = &session.req_header().method;
        let whole = session.response_written().is_none() && !session.as_ref().retry_buffer_truncated();
        if whole && upstream.tries_again(Again::Status(status), method, journey.tried.len()) {
            journey.again = true;
            let mut error = Error::explain(ErrorType::HTTPStatus(status), "a status that is tried again");
            error.set_retry(true);
            return Err(error.into_up());
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        journey: &mut Journey,
    ) -> Result<()> {
        self.gate.request_body_filter(session, body, end_of_stream, &mut journey.visit)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        if self.gate.is_stopping() {
            // The last response on this connection, and it says so.
            session.set_keepalive(None);
        }
        if let Some(rewrite) = journey.visit.rewrite() {
            rewrite::response(rewrite, response)?;
        }
        self.gate.response_filter(session, response, &mut journey.visit).await
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        journey: &mut Journey,
    ) -> Result<Option<Duration>> {
        if let (Some(began), Some(upstream), false) = (journey.bound, &journey.upstream, end_of_stream)
            && time_left(upstream.settings(), began).is_some_and(|left| left.is_zero())
        {
            let late = Error::explain(ErrorType::ReadTimedout, "the request took too long in all");
            return Err(late.into_up());
        }
        Ok(self.gate.upstream_response_body_filter(body, end_of_stream, &mut journey.visit))
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        journey: &mut Journey,
    ) -> Result<Option<Duration>> {
        self.gate.response_body_filter(session, body, end_of_stream, &mut journey.visit)
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, journey: &mut Journey) {
        self.gate.logging(session, error, &mut journey.visit).await;
    }

    /// Nothing was sent to a server that could not be reached, so the next one may be asked, whatever the method.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        journey: &mut Journey,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(upstream) = journey.upstream.clone() else { return error };
        if let Some(ticket) = &mut journey.ticket {
            // An internal error is our own: no socket was to be had.
            if *error.etype() != ErrorType::InternalError {
                ticket.fail("it cannot be connected to");
            }
            if matches!(error.etype(), ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert) {
                // Nothing of a request is in this error: none was sent.
                let (server, error) = (ticket.name(), &error);
                let upstream = journey.visit.upstream();
                tracing::warn!(upstream, %server, %error, "a server does not pass as the one it should be");
            }
        }
        let method = &session.req_header().method;
        error.set_retry(upstream.tries_again(Again::Connect, method, journey.tried.len()));
        error
    }

    /// What has begun to go out is not begun anew. Before that, a request may be tried again if it may be done twice.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        journey: &mut Journey,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        if std::mem::take(&mut journey.again) {
            error.set_retry(true);
            return error;
        }
        let begun = session.response_written().is_some();
        let of_server = *error.esource() == ErrorSource::Upstream;
        let method = &session.req_header().method;
        let whole = !begun && !session.as_ref().retry_buffer_truncated();
        // An idle connection may be closed in the moment it is used; the server is not to blame for that.
        let closed_idle = reused && error.retry == RetryType::ReusedOnly;
        if whole && method.is_idempotent() {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        if error.retry() {
            if let Some(upstream) = &journey.upstream {
                upstream.note_reuse();
            }
            return error;
        }
        if of_server
            && !begun
            && !closed_idle
            && let Some(ticket) = &mut journey.ticket
        {
            ticket.fail("it broke off, or took too long");
        }
        let timed_out = matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        if let Some(upstream) = &journey.upstream
            && whole
            && of_server
            && !timed_out
            && upstream.tries_again(Again::Reset, method, journey.tried.len())
        {
            error.set_retry(true);
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
