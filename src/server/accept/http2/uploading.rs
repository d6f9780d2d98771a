//! A request over HTTP/2 whose body is still to come, and is waited for only so long.
//!
//! Over HTTP/1 Pingora bounds the wait for each piece of a body; over HTTP/2 it waits for as long as the client keeps its
//! stream open. A session of one's own making is the one place where Pingora lets that wait be ended from: all of it is
//! the HTTP/2 session underneath, but for reading the body. A request whose body is there, or that has none, does
//! not come here. How much has to come in which time is the gate's to say (`gate/upload`).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use tokio::time::{Instant, timeout_at};

/// Such a request.
pub(super) struct Uploading {
    inner: HttpSession,
    /// How long a piece of the body may take.
    patience: Duration,
    /// Since when the next piece has been waited for. Pingora gives up a wait whenever something else happens, and begins
    /// another one; it is the same wait.
    since: Option<Instant>,
}

impl Uploading {
    /// The same session, with its body bounded in time if one is still to come.
    pub(super) fn bound(session: ServerSession, patience: Duration) -> ServerSession {
        match session {
            ServerSession::H2(mut inner) if !inner.is_body_done() => {
                inner.set_total_drain_timeout(Some(patience));
                ServerSession::new_custom(Box::new(Self { inner, patience, since: None }))
            }
            other => other,
        }
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>> {
        let since = *self.since.get_or_insert_with(Instant::now);
        // What is there already is taken, however late anybody asks for it.
        let Ok(piece) = timeout_at(since + self.patience, self.inner.read_body_bytes()).await else {
            return Error::e_explain(ErrorType::ReadTimedout, "a piece of the body did not come");
        };
        // A frame without a byte in it is no progress.
        if !matches!(&piece, Ok(Some(bytes)) if bytes.is_empty()) {
            self.since = None;
        }
        piece
    }
}

fn no_messages<T>() -> Result<T> {
    Error::e_explain(ErrorType::InternalError, "HTTP/2 has no messages of its own")
}

#[async_trait]
impl Session for Uploading {
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.next_piece().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.inner.is_body_done() {
            return self.inner.read_body_or_idle(no_body_expected).await;
        }
        self.next_piece().await
    }

    // From here on it is the session underneath.

    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.inner.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.inner.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner.write_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.inner.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        if let Some(patience) = timeout {
            self.patience = patience;
        }
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        Some(self.patience)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.inner.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    // HTTP/2 has nothing besides requests and responses.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        no_messages()
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        no_messages()
    }
}
