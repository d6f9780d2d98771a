//! The requests of one HTTP/2 connection.
//!
//! Frames and streams are Pingora's and h2's. Here are the limits: how many streams, how long their heads, how long a piece
//! of a body is waited for (`uploading`). Against floods of resets h2 has bounds of its own, which are kept: at most 20
//! streams that were reset before they were taken, and 1,024 resets for a client's mistakes; beyond either the connection
//! is ended (`ENHANCE_YOUR_CALM`). Pingora ends it after 32 malformed requests.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::http::ResponseHeader;
use pingora::prelude::timeout;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

mod uploading;

use super::head::Refusal;
use super::http1::problem;
use super::{Site, Wire};
use crate::gate::reply::Dialect;
use uploading::Uploading;

/// What a client that speaks HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The proxy, for HTTP/2.
pub(super) struct Http2 {
    site: Arc<Site>,
    options: HttpServerOptions,
}

/// Looks at what a client sends first, and leaves it to be read again. `None`: nothing came in time.
pub(super) async fn begins(wire: &mut Wire, patience: std::time::Duration) -> Option<bool> {
    let mut first = BytesMut::with_capacity(4 << 10);
    let look = async {
        loop {
            if !matches!(wire.read_buf(&mut first).await, Ok(1..)) {
                return None;
            }
            if first.starts_with(PREFACE) {
                return Some(true);
            }
            if !PREFACE.starts_with(&first) {
                return Some(false);
            }
        }
    };
    let found = timeout(patience, look).await.ok().flatten()?;
    wire.put_back(first.freeze());
    Some(found)
}

/// Serves requests until one of both sides has enough.
pub(super) async fn serve(site: &Arc<Site>, wire: Wire, stopping: watch::Receiver<bool>) {
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(site.limits().keepalive_timeout);
    let app = Arc::new(Http2 { site: site.clone(), options });
    let _ = app.process_new(Box::new(wire), &stopping).await;
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        let limits = self.site.limits();
        let head = session.req_header();
        let refusal = if head.raw_path().len() > limits.uri_length {
            Some(Refusal::UriTooLong)
        } else if head.headers.len() > limits.request_headers {
            Some(Refusal::TooManyHeaders)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.site.counts.bad_request(refusal.wording().1);
            // A client that is gone already is no news.
            let _ = refuse(&mut session, refusal, self.site.dialect()).await;
            return None;
        }
        session.set_write_timeout(Some(limits.write_timeout));
        let session = Uploading::bound(session, limits.body_timeout);
        self.site.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        let limits = self.site.limits();
        let mut options = default_h2_options();
        options.max_concurrent_streams(limits.http2_streams);
        options.max_header_list_size(u32::try_from(limits.request_header_size).unwrap_or(u32::MAX));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

async fn refuse(session: &mut ServerSession, refusal: Refusal, dialect: Dialect) -> pingora::Result<()> {
    let (status, _, _, detail) = refusal.wording();
    let (kind, body) = match dialect {
        Dialect::Standard => ("application/problem+json", problem(refusal)),
        Dialect::Iex => ("text/html; charset=utf-8", detail.to_owned()),
    };
    let mut response = ResponseHeader::build(status, Some(3))?;
    response.insert_header(http::header::CONTENT_TYPE, kind)?;
    response.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    response.insert_header(http::header::CACHE_CONTROL, "no-store")?;
    session.write_response_header(Box::new(response)).await?;
    session.write_response_body(Bytes::from(body), true).await
}
