//! A leash on the connection to an upstream: lets go of it at once, also while nothing comes from it.
//!
//! Pingora waits for the next bytes of an upstream and offers no way to end that wait from outside. So where a response
//! may be a stream, the connection is made here, and its reads end with an error as soon as the leash is pulled. Pingora
//! then comes to `fail_to_proxy`, where the stream is ended in good order. A connection on a leash is used for one
//! exchange. Knows nothing of why.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, OrErr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A leash. It connects one upstream connection, and is pulled at most once.
#[derive(Debug, Default)]
pub(super) struct Leash(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pulled: bool,
    waker: Option<Waker>,
}

impl Leash {
    /// Ends the reads of the connection.
    pub(super) fn pull(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.pulled = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether reads have ended; else whoever reads is woken when they do.
    fn is_pulled(&self, context: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        if !state.pulled && !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        state.pulled
    }
}

/// Makes a connection on a leash.
#[derive(Debug)]
pub struct Connector {
    pub(super) leash: Arc<Leash>,
    /// How long a connection may take to stand.
    pub(super) patience: Duration,
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "not an internet address");
        };
        let connected = tokio::time::timeout(self.patience, TcpStream::connect(*address)).await;
        let connected = connected.map_err(|_| Error::explain(ErrorType::ConnectTimedout, "connecting"))?;
        let socket = connected.or_err(ErrorType::ConnectError, "connecting")?;
        socket.set_nodelay(true).or_err(ErrorType::ConnectError, "setting up a socket")?;
        let leashed = Leashed { socket, leash: self.leash.clone(), gives_way: GIVE_WAY };
        Ok(VirtualSocketStream::new(Box::new(leashed)).into())
    }
}

/// A connection on a leash.
#[derive(Debug)]
struct Leashed {
    socket: TcpStream,
    leash: Arc<Leash>,
    /// How often the first read gives way still.
    gives_way: u8,
}

/// Pingora 0.9 takes the end of a request without a body, if it comes to it only after the upstream's 101, for the end of
/// the WebSocket. A quick upstream makes that happen. So the first read gives way to what else its task has to do.
const GIVE_WAY: u8 = 3;

impl AsyncRead for Leashed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.leash.is_pulled(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.gives_way > 0 {
            self.gives_way -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Leashed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl VirtualSocket for Leashed {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            _ => Ok(()),
        }
    }
}
