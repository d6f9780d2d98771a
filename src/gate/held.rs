//! Holds a request's body back until its signature can be checked, and gives it on afterwards.
//!
//! The whole body is read before a server is connected, bounded by the route's `max_signed_body`, and hashed on the
//! way. Then the session is left as if nobody had read anything, so that whatever proxy the gate is part of forwards
//! it as any other body, with the framing the client chose. Up to 64 KiB Pingora's own buffer for retries does that. A
//! longer body is put in front of its connection again (`again`).

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::policy::Denial;
use crate::policy::signature::{BodyDigest, BodyHash};

mod again;

/// What Pingora's buffer for retries holds (`BODY_BUF_LIMIT`).
const RETRY_BUFFER: u64 = 64 * 1024;
/// What all held bodies together may take, in bytes. A body's copies on its way, while it is given on, come on top.
const ROOM: usize = 256 << 20;
const KIB: usize = 1024;
/// How long, and how much, is still read of a body that was refused.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 8 << 20);

/// What all held bodies share: anybody who has a publishable token can send one, and slowly.
pub(super) struct Room {
    /// Free memory, in KiB.
    free: Arc<Semaphore>,
}

/// A body that was held back.
pub(super) struct Held {
    /// Its hash.
    pub(super) digest: BodyDigest,
    /// Its place in the room, to be kept as long as the body is.
    pub(super) place: Place,
}

/// Memory that a body takes up.
#[derive(Default)]
pub(super) struct Place(Option<OwnedSemaphorePermit>);

impl Room {
    /// Room for [`ROOM`] bytes.
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(ROOM / KIB)) }
    }

    /// Bytes that are taken up just now.
    pub(super) fn taken(&self) -> usize {
        ROOM.saturating_sub(self.free.available_permits() * KIB)
    }

    /// Reads a request's body to its end, and hashes it. The inner error: it is longer than `most` bytes, there is no
    /// room for it, or it took longer than `longest`, which is as long as its signature can be good.
    ///
    /// # Errors
    /// The client left, or what it sends is no body.
    pub(super) async fn hold(
        &self,
        session: &mut Session,
        most: u64,
        longest: Duration,
    ) -> Result<Result<Held, Denial>> {
        let reading = tokio::time::timeout(longest, self.read(session, most));
        reading.await.unwrap_or(Ok(Err(Denial::SignatureStale)))
    }

    async fn read(&self, session: &mut Session, most: u64) -> Result<Result<Held, Denial>> {
        let header = session.req_header();
        let announced = header.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        let expects = header.headers.get(header::EXPECT);
        let expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let downstream = session.as_downstream_mut();
        // Only over HTTP/1 can a longer body be given on again.
        let most = if downstream.as_http1().is_some() { most } else { most.min(RETRY_BUFFER) };
        let mut hash = match BodyHash::begin(most, announced) {
            Ok(hash) => hash,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        if expects {
            downstream.write_continue_response().await.map_err(Error::into_down)?;
        }
        downstream.enable_retry_buffering();
        let (mut body, mut place) = (BytesMut::new(), Place::default());
        if downstream.is_body_done() {
            // The gate itself had to look into it (`own`): it is short, and was kept.
            let read = downstream.get_retry_buffer().unwrap_or_default();
            return Ok(hash
                .update(&read)
                .map(|()| Held { digest: hash.finish(), place })
                .map_err(Into::into));
        }
        while let Some(piece) = downstream.read_request_body().await.map_err(Error::into_down)? {
            if let Err(refusal) = hash.update(&piece) {
                return Ok(Err(refusal.into()));
            }
            if !place.grow(&self.free, body.len() + piece.len()) {
                return Ok(Err(Denial::HeldBodiesFull));
            }
            body.extend_from_slice(&piece);
        }
        if downstream.retry_buffer_truncated() {
            again::read_again(downstream, &body).await?;
        }
        Ok(Ok(Held { digest: hash.finish(), place }))
    }
}

impl Place {
    /// Makes it large enough for so many bytes; `false`: there is no room.
    fn grow(&mut self, free: &Arc<Semaphore>, bytes: usize) -> bool {
        let has = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Ok(more) = u32::try_from(bytes.div_ceil(KIB).saturating_sub(has)) else { return false };
        if more == 0 {
            return true;
        }
        let Ok(more) = free.clone().try_acquire_many_owned(more) else { return false };
        match &mut self.0 {
            Some(place) => place.merge(more),
            None => self.0 = Some(more),
        }
        true
    }
}

/// A body was refused before its end. A client that is still sending would find its connection reset and never read the
/// answer, so what it sends is read for a while, and dropped.
pub(super) async fn linger(session: &mut Session) {
    let (time, most) = LINGER;
    let drain = async {
        let mut read = 0;
        while let Ok(Some(piece)) = session.as_downstream_mut().read_request_body().await {
            read += piece.len();
            if read > most {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(time, drain).await;
}

fn broken<T>(what: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InternalError, what)
}

#[cfg(test)]
mod tests;
