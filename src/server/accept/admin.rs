//! TLS for the admin API: handshakes are made beside the one who waits for connections, so that none holds up another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;

/// How many handshakes may be under way.
const AT_ONCE: usize = 64;

/// Connections that speak TLS.
pub(in crate::server) struct Encrypted {
    address: io::Result<SocketAddr>,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Encrypted {
    /// Takes connections from a socket, on the runtime it is called in, until it is dropped.
    pub(in crate::server) fn start(
        socket: std::net::TcpListener,
        certificates: Arc<Certificates>,
        patience: Duration,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let (done, ready) = mpsc::channel(AT_ONCE);
        let address = listener.local_addr();
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(AT_ONCE));
            loop {
                let accepted = tokio::select! {
                    () = done.closed() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, peer)) = accepted else {
                    tokio::time::sleep(super::BREATH).await;
                    continue;
                };
                let Ok(place) = room.clone().try_acquire_owned() else { continue };
                // Answers are small and whole; a delay to gather more would only cost time.
                let _ = stream.set_nodelay(true);
                let (done, acceptor) = (done.clone(), TlsAcceptor::from(certificates.current()));
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(patience, acceptor.accept(stream)).await {
                        let _ = done.send((stream, peer)).await;
                    }
                    drop(place);
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}
