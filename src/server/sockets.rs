//! Listening sockets of this process: taken over from the process before, given by systemd, or bound here.
//!
//! Each is kept here as long as the process lives, beside the copy that is served. So they can be handed on to the next
//! process, and whoever connects meanwhile waits in their queue instead of being refused.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::listen;

use super::ServeError;

/// How many connections may wait to be taken: as many as the system allows, since a hand-over may take a moment.
const QUEUE: i32 = 4096;

/// A socket, and the address that the configuration names it by; its port may be 0.
pub(super) struct Kept {
    pub(super) named: SocketAddr,
    pub(super) socket: TcpListener,
    taken: bool,
}

/// The sockets.
#[derive(Default)]
pub(super) struct Sockets(Vec<Kept>);

impl Sockets {
    /// Sockets that were given to this process.
    pub(super) fn given(sockets: impl IntoIterator<Item = (SocketAddr, TcpListener)>) -> Self {
        let kept = |(named, socket)| Kept { named, socket, taken: false };
        Self(sockets.into_iter().map(kept).collect())
    }

    /// Sockets that systemd opened for this process (`LISTEN_FDS`), by their own addresses. What is no TCP socket is
    /// said in the log and left alone.
    pub(super) fn of_systemd() -> Self {
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..given.len() {
            match given.take_tcp_listener(at).map(|socket| socket.map(|it| (it.local_addr(), it))) {
                Ok(Some((Ok(address), socket))) => sockets.push((address, socket)),
                Ok(None) => {}
                Ok(Some((Err(error), _))) | Err(error) => {
                    tracing::warn!(%error, "a file that systemd handed over is no listening TCP socket; it is not used");
                }
            }
        }
        Self::given(sockets)
    }

    /// The socket for an address, the one that is there or a new one.
    pub(super) fn listen(
        &mut self,
        what: &'static str,
        address: SocketAddr,
    ) -> Result<TcpListener, ServeError> {
        let failed = |source| ServeError::Listen { what, address, source };
        if let Some(socket) = self.take(address) {
            return Ok(socket);
        }
        let socket = TcpListener::bind(address).map_err(failed)?;
        let copy = socket.try_clone().map_err(failed)?;
        self.keep(address, copy);
        Ok(socket)
    }

    /// The socket that is there for an address, as a copy to be served. Each is given out once.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |kept: &&mut Kept| !kept.taken && kept.named == address;
        let kept = self.0.iter_mut().find(is_it)?;
        let copy = kept.socket.try_clone().ok()?;
        kept.taken = true;
        Some(copy)
    }

    /// Keeps a copy of a socket that was bound elsewhere for this address.
    pub(super) fn keep(&mut self, named: SocketAddr, socket: TcpListener) {
        // The queue of the standard library is short. One that stays so is no reason not to listen.
        let _ = listen(&socket, QUEUE);
        self.0.push(Kept { named, socket, taken: true });
    }

    /// Closes those that nobody took: the configuration names them no more.
    pub(super) fn drop_unused(&mut self) {
        self.0.retain(|kept| {
            if !kept.taken {
                tracing::info!(address = %kept.named, "a socket that was handed over is closed: no listener has this address");
            }
            kept.taken
        });
    }

    /// All can be taken again: what served them has ended.
    pub(super) fn give_back(&mut self) {
        for kept in &mut self.0 {
            kept.taken = false;
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.0.iter()
    }
}
