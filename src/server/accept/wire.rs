//! A client's connection as Pingora sees it: TCP or TLS, in front of which bytes may stand that were looked at already.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::gate::Ahead;

/// Bytes of a response that are gathered into one write: the head and a body of usual length. Pingora's default of 1,460
/// makes two of them as soon as both together are longer, and a write costs more than copying. What may be a stream (a
/// response without a length) is written at once all the same. There is no buffer for reading: heads and bodies are
/// read into buffers of their own, and an idle connection holds none.
const WRITE_BUFFER: usize = 20 << 10;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    io: Ahead<BufWriter<Io>>,
    socket: Arc<SocketDigest>,
    tls: Option<Arc<SslDigest>>,
    alpn: Option<ALPN>,
    since: SystemTime,
    fd: RawFd,
}

/// What is spoken below HTTP.
#[derive(Debug)]
pub(super) enum Io {
    Plain(Ahead<TcpStream>),
    Tls(Box<TlsStream<Ahead<TcpStream>>>),
}

impl Wire {
    /// A connection that comes from `client`.
    pub(super) fn new(io: Io, client: SocketAddr) -> Self {
        let (tcp, tls, alpn) = match &io {
            Io::Plain(ahead) => (ahead.get_ref(), None, None),
            Io::Tls(stream) => {
                let (ahead, connection) = stream.get_ref();
                let alpn = match connection.alpn_protocol() {
                    Some(b"h2") => Some(ALPN::H2),
                    Some(_) => Some(ALPN::H1),
                    None => None,
                };
                let text = |value: Option<String>| value.unwrap_or_default();
                let cipher =
                    text(connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())));
                let version = text(connection.protocol_version().map(|version| format!("{version:?}")));
                let digest = SslDigest::new(cipher, version, None, None, Vec::new());
                (ahead.get_ref(), Some(Arc::new(digest)), alpn)
            }
        };
        let fd = tcp.as_raw_fd();
        let socket = SocketDigest::from_raw_fd(fd);
        // Where the connection comes from, which need not be the socket's other end.
        let _ = socket.peer_addr.set(Some(PeerAddress::Inet(client)));
        let io = Ahead::new(Bytes::new(), BufWriter::with_capacity(WRITE_BUFFER, io));
        Self { io, socket: Arc::new(socket), tls, alpn, since: SystemTime::now(), fd }
    }

    /// Whether HTTP/2 was agreed upon.
    pub(super) fn is_http2(&self) -> bool {
        self.alpn == Some(ALPN::H2)
    }

    /// The client speaks HTTP/2 without having asked.
    pub(super) fn set_http2(&mut self) {
        self.alpn = Some(ALPN::H2);
    }

    /// Puts what was looked at in front again.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.io.put_back(bytes);
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(ahead) => Pin::new(ahead).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Io {
    fn part(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Plain(ahead) => Pin::new(ahead),
            Self::Tls(stream) => Pin::new(stream),
        }
    }
}

impl Wire {
    fn part(&mut self) -> Pin<&mut Ahead<BufWriter<Io>>> {
        Pin::new(&mut self.io)
    }
}

/// Writing goes to a part of the value.
macro_rules! write_to_part {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().part().poll_write(cx, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().part().poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().part().poll_shutdown(cx)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().part().poll_write_vectored(cx, slices)
            }

            // TCP and rustls do, and so does the buffer in front of them.
            fn is_write_vectored(&self) -> bool {
                true
            }
        }
    };
}

write_to_part!(Io);
write_to_part!(Wire);

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // A client that is gone already is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl Ssl for Wire {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.alpn.clone()
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.since, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

/// Looking ahead is done before Pingora gets the connection.
impl Peek for Wire {}
