//! The phases of a request that was let through: its way to the upstream, the answer, the end.
//!
//! Owns what a failure on the way means for the client. What the upstream gets is `forward`'s, how a flowing answer is paid
//! for `flowing`'s and `metered`'s, and statuses are [`reply`]'s.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::facts::Request;
use super::metered::Metered;
use super::reply::told::Told;
use super::reply::{self, Failure};
use super::visit::{self, Late, Verdict};
use super::{Gate, Visit, flowing, forward, held, traced};
use crate::policy::Denial;
use crate::telemetry::Ended;

impl Gate {
    /// A piece of the request's body has come, for a `ProxyHttp`'s `request_body_filter`.
    ///
    /// A last piece without a byte in it, which is how many clients end a body over HTTP/2, is taken out: Pingora 0.9.1 writes
    /// it to an HTTP/1 upstream as a last chunk, and then the last chunk. The second one would stand on the connection in
    /// front of the next request, whose answer it would get.
    ///
    /// # Errors
    /// The body is longer than it may be, or comes too slowly: it goes no further.
    pub fn request_body_filter(
        &self,
        session: &Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        visit: &mut Visit,
    ) -> Result<()> {
        if session.as_downstream().was_upgraded() {
            return Ok(());
        }
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        let Some(piece) = body else { return Ok(()) };
        let now = Instant::now();
        let uploads = visit.rules.settings.uploads;
        let Err(late) = visit.upload.count(&uploads, piece.len(), end_of_stream, now) else {
            return Ok(());
        };
        visit.late = Some(late);
        Err(Error::new_down(ErrorType::Custom("request body refused")))
    }

    /// Writes what the upstream gets: the judged target, no credential, and who the request is from.
    ///
    /// # Errors
    /// Without a [`Pass`](super::Pass) nothing is sent (law 9).
    #[expect(clippy::unused_async, reason = "a Pingora phase is async")]
    pub async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        let (Verdict::Passed(_), Some(policy)) = (&visit.verdict, &visit.trail.policy) else {
            return Error::e_explain(
                ErrorType::InternalError,
                "a request without a Pass was to be forwarded",
            );
        };
        let request = Request::read(session, &[]);
        upstream.set_raw_path(visit.trail.wire.as_bytes())?;
        if !upstream.headers.contains_key(http::header::HOST)
            && let Some(host) = request.host()
        {
            // From HTTP/2 to HTTP/2 it stood with the target, which is another one now.
            upstream.insert_header(http::header::HOST, host)?;
        }
        forward::strip(upstream)?;
        forward::join_cookies(upstream)?;
        if let Some((_, route)) = &visit.trail.route
            && (route.price.reads_body() || (visit.leash.is_some() && route.price.is_known_late()))
        {
            forward::ask_whole(upstream);
        }
        if visit.held.is_some() {
            // What a client waits for before it sends its body was said here.
            upstream.remove_header(&http::header::EXPECT);
        }
        let sender =
            forward::Sender { token: &policy.id, account: &policy.account, request_id: &visit.request_id };
        forward::introduce(upstream, &sender)?;
        let settings = &visit.rules.settings;
        let trusted = request.is_from(&settings.trusted_proxies);
        forward::trace(upstream, &request, trusted, settings.forwarded)?;
        match &mut visit.traced {
            Some(traced) => traced.tell(upstream),
            None => Ok(()),
        }
    }

    /// The response begins: charges or gives back, and writes the gate's headers.
    pub async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        if is_interim(response.status) {
            return Ok(());
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // What is spoken now has pauses of its own; how long they may be is the upstream's `read_timeout` to say.
            session.as_downstream_mut().set_read_timeout(None);
        }
        let now = Instant::now();
        if let (Some(decided), None) = (visit.decided, visit.answered) {
            let seconds = now.duration_since(decided).as_secs_f64();
            self.counts(visit).upstream(response.status.as_u16(), seconds);
        }
        visit.answered = Some(now);
        if let Some(traced) = &mut visit.traced {
            traced.answered(response.status.as_u16());
        }
        if let Some(leash) = &visit.leash
            && flowing::is_bare(&session.req_header().method, response)
        {
            leash.pull();
        }
        let Verdict::Passed(pass) = &mut visit.verdict else { return Ok(()) };
        if pass.is_late() || (response.status.as_u16() < 400 && flowing::is_stream(response)) {
            self.begin_flow(session, response, visit).await?;
        } else {
            pass.begin_response(response.status.as_u16());
        }
        let Verdict::Passed(pass) = &visit.verdict else { return Ok(()) };
        let passing = visit.passing();
        if let Some(appendix) = &visit.appendix {
            appendix.fill(|told| reply::tell(told, response, pass, &passing));
            return Ok(());
        }
        let mut told = Told::default();
        reply::tell(&mut told, response, pass, &passing);
        told.put_into(response)
    }

    /// A piece of the response's body has come, for a `ProxyHttp`'s `upstream_response_body_filter`: where a stream waits
    /// for credits, Pingora is told to wait a little. Without this call it works as well, and waits longer.
    pub fn upstream_response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        visit: &mut Visit,
    ) -> Option<Duration> {
        let Verdict::Passed(pass) = &mut visit.verdict else { return None };
        pass.metered()?.prepare(body, end_of_stream)
    }

    /// A piece of the response's body goes by: untouched, or cut where the credits end.
    pub fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        visit: &mut Visit,
    ) -> Result<Option<Duration>> {
        let mut wait = None;
        if let Verdict::Passed(pass) = &mut visit.verdict {
            wait = pass.pass_body(body, end_of_stream);
        }
        if end_of_stream && let Some(leash) = &visit.leash {
            leash.pull();
        }
        visit.bytes_out += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(wait)
    }

    /// The request has ended, however: settles what is open, counts and logs.
    #[expect(clippy::unused_async, reason = "a Pingora phase is async")]
    pub async fn logging(&self, session: &mut Session, _error: Option<&Error>, visit: &mut Visit) {
        let status = status_of(session).map_or(0, |status| status.as_u16());
        // No response began, so nothing is charged; what was taken goes back.
        if let Verdict::Passed(pass) = &mut visit.verdict {
            pass.begin_response(599);
            pass.end_response(visit.bytes_out);
        }
        let (now, bytes_in) = (Instant::now(), session.body_bytes_read() as u64);
        let trace = visit.trace_id(session);
        self.write_down(visit, &session.req_header().method, visit::End { status, bytes_in, now, trace });
        if let Some(tracer) = &self.tracer
            && let Some(trace) = traced::spans(tracer, session, visit, status, now)
        {
            tracer.finish(trace);
        }
    }

    /// Counts a request that has ended, and writes its line.
    pub(super) fn write_down(&self, visit: &Visit, method: &http::Method, end: visit::End) {
        let visit::End { status, bytes_in, now, .. } = end;
        let seconds = now.duration_since(visit.started).as_secs_f64();
        let counts = self.counts(visit);
        counts.request(visit.verdict_name(), status, seconds);
        self.metrics.ended(visit::method_name(method), status, bytes_in, visit.bytes_out);
        if let Some(log) = &self.access_log {
            let ended = Ended {
                key: if log.is_sampled() { visit.sampling_key() } else { 0 },
                refused: matches!(visit.verdict, Verdict::Denied(_)),
                failed: status == 0 || status >= 500 || visit.failure.is_some(),
                took: now.duration_since(visit.started),
            };
            if let Some(part) = log.choose(&ended) {
                log.write(&visit::log_line(visit, method, end, part));
            }
        }
    }

    /// Answers an admitted request that came to nothing; for a `ProxyHttp`'s `fail_to_proxy`. The status sent, or 0
    /// if the client is gone or has its response already.
    pub async fn fail(&self, session: &mut Session, error: &Error, visit: &mut Visit) -> u16 {
        if let Some(appendix) = &visit.appendix {
            appendix.withdraw();
        }
        if session.response_written().is_some()
            && let Verdict::Passed(pass) = &mut visit.verdict
            && let Some(farewell) = pass.metered().and_then(Metered::farewell)
        {
            // The gate let go of the upstream: the stream ends in good order.
            visit.bytes_out += farewell.len() as u64;
            let _ = session.as_downstream_mut().write_response_body(farewell, true).await;
            return 0;
        }
        let failure = match visit.late.take() {
            Some(Late::Failed(failure)) => failure,
            Some(Late::Denied(denial)) => return self.refuse_late(session, denial, visit).await,
            None => match failure_of(error) {
                Some(failure) => failure,
                None => return 0,
            },
        };
        visit.failure = Some(failure);
        if let Verdict::Passed(pass) = &mut visit.verdict {
            pass.begin_response(599);
        }
        if !matches!(failure, Failure::BadRequest | Failure::RequestTimeout) {
            self.counts(visit).failed(failure.code());
            // The error's text may quote the request, so only its kind is told (law 7).
            tracing::warn!(
                request_id = %visit.request_id,
                trace_id = visit.trace_id(session).map(tracing::field::display),
                failure = failure.code(),
                upstream = visit.trail.upstream(),
                server = visit.server.as_deref(),
                kind = error.etype().as_str(),
                "a request was admitted and came to nothing"
            );
        }
        if status_of(session).is_some() {
            return 0;
        }
        let answer = reply::answer_failure(failure);
        let (dialect, origin) = (visit.rules.dialect(), visit.origin.as_ref());
        match reply::send(dialect, session, &answer, &visit.request_id, origin).await {
            Ok(()) => answer.status,
            Err(_) => 0,
        }
    }

    /// A response that had begun to come cannot be paid for.
    async fn refuse_late(
        &self,
        session: &mut Session,
        denial: crate::policy::Denial,
        visit: &mut Visit,
    ) -> u16 {
        let answer = Self::answer(&denial, &visit.rules, &visit.trail);
        let token = visit.trail.policy.as_deref().map(|policy| &policy.id);
        self.meter.refused(token, denial.code());
        let unread = matches!(denial, Denial::BodyTooLarge { .. });
        visit.verdict = Verdict::Denied(denial);
        if status_of(session).is_some() {
            return 0;
        }
        let (dialect, origin) = (visit.rules.dialect(), visit.origin.as_ref());
        let sent = reply::send(dialect, session, &answer, &visit.request_id, origin).await;
        if sent.is_ok() && unread {
            held::linger(session).await;
        }
        sent.map_or(0, |()| answer.status)
    }
}

/// 100, 103 and their kin come before the response; 101 is one.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The status of the response that a client has, at least in part.
fn status_of(session: &Session) -> Option<StatusCode> {
    session.response_written().map(|response| response.status).filter(|status| !is_interim(*status))
}

/// The error of a `ProxyHttp`'s `upstream_peer` that has as many requests under way as it may have: the client is told 503,
/// and gets its credits back.
pub const UPSTREAM_BUSY: ErrorType = ErrorType::Custom("UpstreamBusy");
/// The error of a `ProxyHttp`'s `upstream_peer` that leaves all its servers alone for a while: the same.
pub const UPSTREAM_RESTING: ErrorType = ErrorType::Custom("UpstreamResting");

/// What an error means for the client; `None`: the client is gone.
fn failure_of(error: &Error) -> Option<Failure> {
    match (error.esource(), error.etype()) {
        (_, etype) if *etype == UPSTREAM_BUSY => Some(Failure::UpstreamBusy),
        (_, etype) if *etype == UPSTREAM_RESTING => Some(Failure::UpstreamResting),
        (
            ErrorSource::Upstream,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout,
        ) => Some(Failure::UpstreamTimeout),
        (ErrorSource::Upstream, _) => Some(Failure::UpstreamUnavailable),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Failure::RequestTimeout),
        (
            ErrorSource::Downstream,
            ErrorType::WriteTimedout
            | ErrorType::WriteError
            | ErrorType::ReadError
            | ErrorType::ConnectionClosed,
        ) => None,
        (ErrorSource::Downstream, _) => Some(Failure::BadRequest),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Failure::Internal),
    }
}
