//! The direct way: a plain request and its answer, in one task.
//!
//! Pingora's way through a proxy is made for all that HTTP can be: two tasks in one with channels between them, a copy of
//! the request, a pool that watches each of its connections. Most requests need none of it. Those that
//! [`Gate::plain_head`] finds plain go here: their head is written as bytes, and the answer goes to the client piece by
//! piece. Nothing is decided here: whose turn it is, what an answer or a failure means, and what is told of it is said by
//! the same methods of the same [`Proxy`], in the order in which Pingora calls them. Whatever is to be tried again goes
//! Pingora's way.

use std::time::Duration;

use http::{HeaderName, Version, header};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::HttpTask;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, OrErr, Result};
use tokio::io::AsyncWriteExt;

mod answer;
mod rewound;

use answer::Answer;

use super::{Journey, Proxy};
use crate::config::HostHeader;
use crate::gate::{Changes, Gate, PlainHead};
use crate::policy::route::Rewrite;

/// How a request went on the direct way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Its client has its answer.
    Answered,
    /// Pingora is to take it: it is not plain, or is tried again.
    Long,
}

/// What is changed in the head besides what the gate does.
struct OwnChanges<'r> {
    rewrite: Option<&'r Rewrite>,
    /// The `Host` is the upstream's own.
    own_host: bool,
}

impl Changes for OwnChanges<'_> {
    fn target(&self, judged: &str) -> Option<String> {
        self.rewrite.map(|rewrite| rewrite.path.apply(judged).into_owned())
    }

    fn leaves_out(&self, name: &str) -> bool {
        let same = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str());
        (self.own_host && same(&header::HOST))
            || self.rewrite.is_some_and(|rewrite| {
                let set = rewrite.request.set.iter().map(|(name, _)| name);
                rewrite.request.remove.iter().chain(set).any(same)
            })
    }
}

impl Proxy {
    /// Takes a request that was let through to its upstream and its answer back, if it is plain.
    pub(super) async fn go_directly(&self, session: &mut Session, journey: &mut Journey) -> Result<Way> {
        journey.choose_upstream();
        let upstream = journey.upstream()?.clone();
        if upstream.settings().http2 {
            return Ok(Way::Long);
        }
        let rewrite = journey.visit.rewrite().cloned();
        let host = rewrite.as_ref().and_then(|rewrite| rewrite.host.as_deref());
        let by_server = upstream.settings().host == HostHeader::Server;
        let changes = OwnChanges { rewrite: rewrite.as_deref(), own_host: host.is_some() || by_server };
        let Some(mut head) = Gate::plain_head(session, &journey.visit, &changes) else {
            return Ok(Way::Long);
        };
        journey.take_server(session)?;
        Gate::end_plain_head(&mut journey.visit, &mut head);
        let ticket = journey.ticket()?;
        end_head(&mut head, &changes, host.or(by_server.then(|| ticket.authority())))?;
        let peer = journey.peer_in_time()?;
        let (stream, reused) = match journey.ticket()?.take_idle() {
            Some(stream) => (stream, true),
            None => match self.connector.new_stream(&*peer).await {
                Ok(stream) => (stream, false),
                Err(mut error) => {
                    error.as_up();
                    let error = self.fail_to_connect(session, &peer, journey, error);
                    return if error.retry() { Ok(Way::Long) } else { Err(error.into_up()) };
                }
            },
        };
        match self.exchange(session, journey, stream, &head.end(), &peer).await {
            Ok(kept) => {
                if let (Some(stream), Some(ticket)) = (kept, &journey.ticket) {
                    ticket.keep(stream);
                }
                Ok(Way::Answered)
            }
            Err(error) => {
                let error = self.error_while_proxy(&peer, session, error, journey, reused);
                if error.retry() { Ok(Way::Long) } else { Err(error) }
            }
        }
    }

    /// Sends the head and hands the answer on. The connection, if it may be used again.
    async fn exchange(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        mut stream: Stream,
        head: &[u8],
        peer: &HttpPeer,
    ) -> Result<Option<Stream>> {
        send(&mut stream, head, peer.options.write_timeout).await.map_err(Error::into_up)?;
        let mut answer = Answer::new(stream, peer.options.read_timeout);
        loop {
            answer.hurry(journey.next_wait());
            let mut response = tokio::select! {
                biased;
                read = answer.read_head() => read.map_err(Error::into_up)?,
                gone = session.as_downstream_mut().read_body_or_idle(true) => return Err(gone_early(gone)),
            };
            let is_interim = response.status.is_informational();
            let ended = !is_interim && answer.is_ended();
            self.upstream_response_filter(session, &mut response, journey).await?;
            frame(&mut response, ended)?;
            self.response_filter(session, &mut response, journey).await?;
            session.write_response_header(response, ended).await.map_err(Error::into_down)?;
            if is_interim {
                continue;
            }
            if !ended && let Err(error) = self.hand_on(session, journey, &mut answer).await {
                return Err(break_off(session, error).await);
            }
            break;
        }
        session.as_downstream_mut().finish_body().await.map_err(Error::into_down)?;
        Ok(answer.into_stream().await)
    }

    /// Hands the body on, piece by piece.
    async fn hand_on(&self, session: &mut Session, journey: &mut Journey, answer: &mut Answer) -> Result<()> {
        loop {
            answer.hurry(journey.next_wait());
            let mut piece = tokio::select! {
                biased;
                read = answer.read_piece() => read.map_err(Error::into_up)?,
                gone = session.as_downstream_mut().read_body_or_idle(true) => return Err(gone_early(gone)),
            };
            let ended = answer.is_ended();
            wait(self.upstream_response_body_filter(session, &mut piece, ended, journey)?).await;
            wait(self.response_body_filter(session, &mut piece, ended, journey)?).await;
            let piece = piece.unwrap_or_default();
            session.write_response_body(Some(piece), false).await.map_err(Error::into_down)?;
            if ended {
                return Ok(());
            }
        }
    }
}

/// Adds the `Host` and what else is set, once the server is known.
fn end_head(
    head: &mut PlainHead<'_, OwnChanges<'_>>,
    changes: &OwnChanges<'_>,
    host: Option<&str>,
) -> Result<()> {
    if let Some(host) = host {
        head.host(host)?;
    }
    for (name, value) in changes.rewrite.iter().flat_map(|rewrite| &rewrite.request.set) {
        head.add(name, value);
    }
    Ok(())
}

async fn send(stream: &mut Stream, head: &[u8], patience: Option<Duration>) -> Result<()> {
    let write = async {
        stream.write_all(head).await.or_err(ErrorType::WriteError, "writing a request")?;
        stream.flush().await.or_err(ErrorType::WriteError, "writing a request")
    };
    match patience {
        Some(patience) => match pingora::prelude::timeout(patience, write).await {
            Ok(written) => written,
            Err(_) => Err(Error::explain(ErrorType::WriteTimedout, "writing a request")),
        },
        None => write.await,
    }
}

/// A response whose end nothing but the connection's tells goes on in chunks, so that the client's may stay.
fn frame(response: &mut ResponseHeader, ended: bool) -> Result<()> {
    let has_no_body = response.status.is_informational() || matches!(response.status.as_u16(), 204 | 304);
    let is_framed = response.headers.contains_key(header::TRANSFER_ENCODING)
        || response.headers.contains_key(header::CONTENT_LENGTH);
    if has_no_body || is_framed || ended {
        return Ok(());
    }
    response.set_version(Version::HTTP_11);
    response.insert_header(header::TRANSFER_ENCODING, "chunked")
}

async fn wait(time: Option<Duration>) {
    if let Some(time) = time {
        tokio::time::sleep(time).await;
    }
}

/// The client gets what came until an error, which is returned.
async fn break_off(session: &mut Session, error: Box<Error>) -> Box<Error> {
    if *error.esource() == ErrorSource::Downstream {
        return error;
    }
    let rest = vec![HttpTask::Body(None, false), HttpTask::Failed(error)];
    let broken = session.as_downstream_mut().response_duplex_vec(rest).await;
    broken
        .err()
        .unwrap_or_else(|| Error::explain(ErrorType::InternalError, "a body broke off without an error"))
}

/// The client has gone, or says something it should not.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn gone_early(came: Result<Option<bytes::Bytes>>) -> Box<Error> {
    match came {
        Err(error) => error.into_down(),
        Ok(_) => Error::explain(ErrorType::ConnectionClosed, "the client's side ended").into_down(),
    }
}
