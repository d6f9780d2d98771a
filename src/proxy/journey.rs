//! One request's way through the proxy: what the gate keeps of it, and which servers were tried.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::Setup;
use super::upstreams::{NoServer, Slot, Ticket, Upstream, time_left};
use crate::config::HashBy;
use crate::gate::{UPSTREAM_BUSY, UPSTREAM_RESTING, Visit};
use crate::policy::query;

/// One request's state: the gate's, and where it goes.
pub struct Journey {
    pub(super) visit: Visit,
    /// Where it may go; of the same configuration as what it is judged by.
    setup: Arc<Setup>,
    /// Its upstream, once it is to be forwarded.
    pub(super) upstream: Option<Arc<Upstream>>,
    /// Its place at the server that is asked now.
    pub(super) ticket: Option<Ticket>,
    /// The servers tried so far.
    pub(super) tried: Vec<SocketAddr>,
    /// When it was forwarded, if it is bound in all.
    pub(super) bound: Option<Instant>,
    /// An answer came that is not taken: another try follows.
    pub(super) again: bool,
    slot: Option<Slot>,
}

impl Journey {
    pub(super) fn new(visit: Visit, setup: Arc<Setup>) -> Self {
        let tried = Vec::new();
        Self { visit, setup, upstream: None, ticket: None, tried, bound: None, again: false, slot: None }
    }

    /// Finds the upstream that its route names.
    pub(super) fn choose_upstream(&mut self) {
        if self.upstream.is_none() {
            let name = self.visit.upstream();
            self.upstream = name.and_then(|name| self.setup.upstreams.get(name)).cloned();
        }
    }

    /// Its upstream; there is one once a server was to be chosen.
    pub(super) fn upstream(&self) -> Result<&Arc<Upstream>> {
        let missing = || Error::explain(ErrorType::InternalError, "an admitted request has no upstream");
        self.upstream.as_ref().ok_or_else(missing)
    }

    /// Its place at the server that was chosen.
    pub(super) fn ticket(&self) -> Result<&Ticket> {
        let missing = || Error::explain(ErrorType::InternalError, "a request has no server");
        self.ticket.as_ref().ok_or_else(missing)
    }

    /// How long its next wait for a server may be, if it is bound in all: at least a moment, as no time is no bound.
    pub(super) fn next_wait(&self) -> Option<Duration> {
        let left = time_left(self.upstream.as_ref()?.settings(), self.bound?)?;
        Some(left.max(Duration::from_millis(1)))
    }

    /// How its server is connected to, with what is left of its time in all.
    pub(super) fn peer_in_time(&mut self) -> Result<Arc<HttpPeer>> {
        self.bound.get_or_insert_with(Instant::now);
        let peer = self.ticket()?.peer();
        let Some(left) = self.next_wait() else { return Ok(peer.clone()) };
        let mut peer = HttpPeer::clone(peer);
        for timeout in [
            &mut peer.options.read_timeout,
            &mut peer.options.write_timeout,
            &mut peer.options.connection_timeout,
            &mut peer.options.total_connection_timeout,
        ] {
            *timeout = timeout.map(|timeout| timeout.min(left));
        }
        Ok(Arc::new(peer))
    }

    /// Takes the next server.
    pub(super) fn take_server(&mut self, session: &Session) -> Result<()> {
        // The place at a server that was tried before is given back first.
        self.ticket = None;
        let upstream = self.upstream()?.clone();
        if self.slot.is_none() {
            self.slot = Some(upstream.enter().map_err(refuse)?);
        }
        let key = upstream.hash_by().map(|by| self.key(session, by));
        let ticket = upstream.pick(key.as_deref().unwrap_or_default(), &self.tried).map_err(refuse)?;
        self.tried.push(ticket.address());
        self.visit.note_server(ticket.name().clone());
        self.ticket = Some(ticket);
        Ok(())
    }

    /// What is hashed to choose a server. Where a request does not have it, its client's address is.
    fn key(&self, session: &Session, by: &HashBy) -> Cow<'_, [u8]> {
        let target = self.visit.target().unwrap_or_default();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let key = match by {
            HashBy::Client => None,
            HashBy::Token => self.visit.token_id().map(|id| Cow::Borrowed(id.as_bytes())),
            HashBy::Path => Some(Cow::Borrowed(path.as_bytes())),
            HashBy::Header(name) => {
                session.req_header().headers.get(name).map(|value| Cow::Owned(value.as_bytes().to_vec()))
            }
            HashBy::Query(name) => query::values(query, name).into_iter().next().map(Cow::Owned),
        };
        key.unwrap_or_else(|| {
            let client = self.visit.client().map(|client| client.to_string());
            Cow::Owned(client.unwrap_or_default().into_bytes())
        })
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn refuse(why: NoServer) -> Box<Error> {
    match why {
        NoServer::Busy => Error::explain(UPSTREAM_BUSY, "as many requests are under way as may be"),
        NoServer::AllOpen => Error::explain(UPSTREAM_RESTING, "all servers are left alone for a while"),
    }
}
