//! The requests of one HTTP/1 connection.
//!
//! Pingora's own loop reads a head for as long as each byte of it comes within a minute, and up to 1 MiB. Here the head is
//! read first, bounded in size, count and time; Pingora then finds all of it there, and reads nothing more.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::head::{Refusal, Scan, Step};
use super::{Site, Wire};
use crate::config::Limits;
use crate::gate::Appendix;
use crate::gate::reply::Dialect;

/// A head of usual length is read at once.
const USUAL_HEAD: usize = 4 << 10;
/// How long, and how much, is still read after a refusal: a connection that is closed with bytes unread takes the
/// refusal with it.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// What came.
enum Head {
    /// A whole head, and perhaps more.
    Whole(BytesMut),
    /// Nothing, or less than a head, and nothing will.
    Nothing,
    /// What is not read on.
    Refused(Refusal),
}

/// Serves requests until one of both sides has enough.
pub(super) async fn serve(site: &Arc<Site>, wire: Wire, stopping: watch::Receiver<bool>) {
    let appendix = Arc::<Appendix>::default();
    let mut stream: Stream = Box::new(wire.append_by(appendix.clone()));
    let mut idle = Idle::new(site.closing.subscribe());
    let mut kept: Option<HttpPersistentSettings> = None;
    let mut is_first = true;
    loop {
        let limits = site.limits();
        let patience = if is_first { limits.header_timeout } else { limits.keepalive_timeout };
        let head = match read_head(&mut stream, &limits, patience, &mut idle).await {
            Head::Whole(head) => head,
            Head::Nothing => return,
            Head::Refused(refusal) => {
                site.counts.bad_request(refusal.wording().1);
                return refuse(&mut stream, refusal, site.dialect()).await;
            }
        };
        let mut session = ServerSession::new_http1(stream);
        match kept.take() {
            Some(kept) => kept.apply_to_session(&mut session),
            None if limits.keepalive_requests > 0 => {
                session.set_keepalive_reuses_remaining(Some(limits.keepalive_requests - 1));
            }
            None => {}
        }
        session.set_keepalive(Some(limits.header_timeout.as_secs().max(1)));
        session.set_read_timeout(Some(limits.body_timeout));
        session.set_write_timeout(Some(limits.write_timeout));
        session.set_total_drain_timeout(Some(limits.body_timeout));
        session.set_pipelined_prefix(head);
        session.set_connection_user_context(Some(Box::new(appendix.clone())));
        let Some(reused) = site.proxy.process_new_http(session, &stopping).await else { return };
        (stream, kept) = reused.consume();
        is_first = false;
    }
}

/// Waiting between requests: as long as a client may be idle, and while idle connections are not closed.
struct Idle {
    /// Set anew only when it has fired: a request that comes in time costs it nothing.
    timer: Pin<Box<Sleep>>,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Idle {
    fn new(mut closing: watch::Receiver<bool>) -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        let closing = async move { drop(closing.wait_for(|closing| *closing).await) };
        Self { timer, closing: Box::pin(closing) }
    }

    /// Reads what comes within `patience`. `None`: nothing did, or it is not waited for any longer. What has come already is read
    /// in any case: while the gate stops, a kept connection may have one more request, as its client may be sending it just now.
    async fn read(
        &mut self,
        stream: &mut Stream,
        buffer: &mut BytesMut,
        patience: Duration,
    ) -> Option<std::io::Result<usize>> {
        let mut read = pin!(stream.read_buf(buffer));
        let mut until = None;
        poll_fn(|cx| {
            if let Poll::Ready(read) = read.as_mut().poll(cx) {
                return Poll::Ready(Some(read));
            }
            if self.closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            let until = *until.get_or_insert_with(|| Instant::now() + patience);
            if self.timer.deadline() > until {
                self.timer.as_mut().reset(until);
            }
            while self.timer.as_mut().poll(cx).is_ready() {
                if self.timer.deadline() >= until {
                    return Poll::Ready(None);
                }
                self.timer.as_mut().reset(until);
            }
            Poll::Pending
        })
        .await
    }
}

async fn read_head(stream: &mut Stream, limits: &Limits, patience: Duration, idle: &mut Idle) -> Head {
    let mut buffer = BytesMut::with_capacity(USUAL_HEAD);
    if !matches!(idle.read(stream, &mut buffer, patience).await, Some(Ok(1..))) {
        return Head::Nothing;
    }
    let mut scan = Scan::default();
    match scan.look(&buffer, limits) {
        Step::Whole => return Head::Whole(buffer),
        Step::Refuse(refusal) => return Head::Refused(refusal),
        Step::More => {}
    }
    let rest = async {
        loop {
            buffer.reserve(USUAL_HEAD);
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return None;
            }
            match scan.look(&buffer, limits) {
                Step::Whole => return Some(Ok(())),
                Step::Refuse(refusal) => return Some(Err(refusal)),
                Step::More => {}
            }
        }
    };
    match timeout(limits.header_timeout, rest).await {
        Ok(Some(Ok(()))) => Head::Whole(buffer),
        Ok(Some(Err(refusal))) => Head::Refused(refusal),
        Ok(None) => Head::Nothing,
        Err(_) => Head::Refused(Refusal::Late),
    }
}

/// Says why, and closes.
async fn refuse(stream: &mut Stream, refusal: Refusal, dialect: Dialect) {
    let (status, code, title, detail) = refusal.wording();
    let (kind, body) = match dialect {
        Dialect::Standard => ("application/problem+json", problem(refusal)),
        Dialect::Iex => ("text/html; charset=utf-8", detail.to_owned()),
    };
    tracing::debug!(code, "a request was refused by its head");
    let answer = format!(
        "HTTP/1.1 {status} {title}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let farewell = async {
        stream.write_all(answer.as_bytes()).await?;
        AsyncWriteExt::shutdown(stream).await?;
        let mut left = LINGER.1;
        let mut unread = vec![0; USUAL_HEAD];
        while left > 0 {
            match stream.read(&mut unread).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // A client that is gone already is no news.
    let _ = timeout(LINGER.0, farewell).await;
}

/// The problem document of a refusal.
pub(super) fn problem(refusal: Refusal) -> String {
    let (status, code, title, detail) = refusal.wording();
    let body = serde_json::json!({
        "type": format!("urn:tollgate:problem:{code}"),
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    });
    body.to_string()
}
