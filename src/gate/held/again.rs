//! A request whose body was read, to be read once more: its connection is given the same bytes again.
//!
//! Pingora forwards what it reads from its session and nothing else, and a session's body can be read once. So the session
//! is taken apart, and a new one is made over the same connection, in front of which the request's head and body stand
//! once more; bytes that a client sent ahead of its next request come after them. The head in force stays the one that was
//! judged: only what the new session needs of its own is parsed anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::header;
use pingora::Result;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};

use super::broken;
use crate::gate::Ahead;

/// Lets `body`, which was read to its end, be read once more.
pub(super) async fn read_again(session: &mut ServerSession, body: &[u8]) -> Result<()> {
    let ServerSession::H1(session) = session else { return broken("only an HTTP/1 body can be read again") };
    let first = wire(&session.get_headers_raw_bytes(), &session.req_header().headers, body);
    // Something has to stand in the session's place meanwhile.
    let (nothing, _) = tokio::io::duplex(1);
    let mut old = std::mem::replace(session, HttpSession::new(Box::new(nothing)));
    let head = old.req_header().clone();
    let timeouts = (old.get_read_timeout(), old.get_write_timeout(), old.get_total_drain_timeout());
    let keepalive = (old.get_keepalive_timeout(), old.get_keepalive_reuses_remaining());
    let (pipelining, tasks) = (old.pipelining_enabled(), old.proxy_tasks_enabled());
    let context = old.take_connection_user_context();
    let stream = take_apart(old, first).await?;

    let mut new = HttpSession::new(stream);
    new.set_read_timeout(timeouts.0);
    new.set_write_timeout(timeouts.1);
    new.set_total_drain_timeout(timeouts.2);
    new.set_keepalive_reuses_remaining(keepalive.1);
    new.set_pipelining_enabled(pipelining);
    new.set_proxy_tasks_enabled(tasks);
    new.set_connection_user_context(context);
    if new.read_request().await?.is_none() {
        return broken("a request that was read once cannot be read again");
    }
    *new.req_header_mut() = head;
    new.set_server_keepalive(keepalive.0);
    *session = new;
    Ok(())
}

/// The request as it came: its head byte for byte, its body in the framing that the head names.
fn wire(head: &[u8], headers: &http::HeaderMap, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(head.len() + body.len() + 32);
    bytes.extend_from_slice(head);
    if headers.contains_key(header::TRANSFER_ENCODING) {
        bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    } else {
        bytes.extend_from_slice(body);
    }
    bytes
}

/// The connection of a session, in front of which these bytes stand, and then what its client had sent ahead.
async fn take_apart(mut session: HttpSession, mut first: BytesMut) -> Result<Stream> {
    let stream = if session.will_keepalive() {
        // With pipelining on, what was read ahead is handed out; without, it would be lost unnoticed.
        session.set_pipelining_enabled(true);
        let Some(reusable) = session.reuse().await? else { return broken("a connection cannot be kept") };
        let (stream, ahead) = reusable.into_parts();
        first.extend_from_slice(&ahead.unwrap_or_default());
        stream
    } else {
        // Nothing is read after this request.
        session.into_inner()
    };
    let first = first.freeze();
    if !stream.as_any().is::<Again>() {
        return Ok(Box::new(Again::new(first, stream)));
    }
    // An earlier request on this connection was given back, too: one layer is enough.
    match stream.into_any().downcast::<Again>() {
        Ok(mut again) => {
            again.put_back(first);
            Ok(again)
        }
        Err(_) => broken("a connection is of another type than it says"),
    }
}

/// A connection that is given bytes again.
type Again = Ahead<Stream>;

#[async_trait]
impl Shutdown for Again {
    async fn shutdown(&mut self) {
        self.get_mut().shutdown().await;
    }
}

impl UniqueID for Again {
    fn id(&self) -> UniqueIDType {
        self.get_ref().id()
    }
}

impl Ssl for Again {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.get_ref().get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.get_ref().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.get_ref().selected_alpn_proto()
    }
}

impl GetTimingDigest for Again {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.get_ref().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.get_ref().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.get_ref().get_write_pending_time()
    }
}

impl GetProxyDigest for Again {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.get_ref().get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.get_mut().set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Again {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.get_ref().get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.get_mut().set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for Again {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.is_past() { self.get_mut().try_peek(buffer).await } else { Ok(false) }
    }
}
