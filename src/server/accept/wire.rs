//! A client's connection as Pingora sees it: TCP or TLS, in front of which bytes may stand that were looked at already.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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

use crate::gate::{Ahead, Appendix};

/// Bytes of a response that are gathered into one write: the head and a body of usual length. Pingora's default of 1,460
/// makes two of them as soon as both together are longer, and a write costs more than copying. What may be a stream (a
/// response without a length) is written at once all the same. There is no buffer for reading: heads and bodies are
/// read into buffers of their own, and an idle connection holds none.
const WRITE_BUFFER: usize = 20 << 10;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    io: Ahead<BufWriter<Io>>,
    appendix: Option<Arc<Appendix>>,
    /// A head with its appendix that does not fit into the buffer, and how much of it is written.
    long_head: Option<(Vec<u8>, usize)>,
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
        let (socket, since) = (Arc::new(socket), SystemTime::now());
        Self { io, appendix: None, long_head: None, socket, tls, alpn, since, fd }
    }

    /// Writes what stands in `appendix` behind the head that comes next.
    pub(super) fn append_by(mut self, appendix: Arc<Appendix>) -> Self {
        self.appendix = Some(appendix);
        self
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
    /// Writes a response's head, as Pingora made it, with the appendix before its last line end.
    fn poll_write_head(
        &mut self,
        cx: &mut Context<'_>,
        appendix: &Appendix,
        head: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(fields) = head.strip_suffix(b"\r\n").filter(|fields| fields.ends_with(b"\r\n")) else {
            // Pingora writes a head in one piece. Should it ever not, the response goes out without the gate's fields.
            debug_assert!(false, "a head in pieces");
            appendix.withdraw();
            return Pin::new(&mut self.io).poll_write(cx, head);
        };
        let buffered = self.io.get_ref().buffer().len();
        let parts = appendix.take(|told| {
            if buffered + head.len() + told.len() < WRITE_BUFFER {
                // All of it goes into the buffer.
                for part in [fields, told, b"\r\n"] {
                    ready!(Pin::new(&mut self.io).poll_write(cx, part))?;
                }
                return Poll::Ready(Ok(None));
            }
            Poll::Ready(Ok::<_, io::Error>(Some([fields, told, b"\r\n"].concat())))
        });
        if let Some(whole) = ready!(parts)? {
            self.long_head = Some((whole, 0));
            return self.poll_write_long_head(cx, head.len());
        }
        Poll::Ready(Ok(head.len()))
    }

    /// Writes on a head that does not fit into the buffer; `length` is its own, without the appendix.
    fn poll_write_long_head(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some((whole, written)) = &mut self.long_head {
            let rest = whole.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.long_head = None;
                break;
            }
            *written += ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
        }
        Poll::Ready(Ok(length))
    }
}

/// Whether a head is one that comes before the response's: 103 and its kin, but not 101, which is one.
fn is_interim(head: &[u8]) -> bool {
    head.strip_prefix(b"HTTP/1.1 1").is_some_and(|rest| !rest.starts_with(b"01"))
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.long_head.is_some() {
            return wire.poll_write_long_head(cx, bytes.len());
        }
        if let Some(appendix) = wire.appendix.as_ref().filter(|appendix| appendix.is_filled())
            && !is_interim(bytes)
        {
            let appendix = appendix.clone();
            return wire.poll_write_head(cx, &appendix, bytes);
        }
        Pin::new(&mut wire.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.long_head.is_some() || wire.appendix.as_ref().is_some_and(|appendix| appendix.is_filled()) {
            // A head stands in the first piece.
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return Pin::new(wire).poll_write(cx, first);
        }
        Pin::new(&mut wire.io).poll_write_vectored(cx, slices)
    }

    // TCP and rustls do, and so does the buffer in front of them.
    fn is_write_vectored(&self) -> bool {
        true
    }
}

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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A head that comes before the response's.
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

    #[tokio::test]
    async fn fields_stand_behind_the_next_head_whatever_its_length() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, (tcp, peer)) = (client.unwrap(), accepted.unwrap());
        let appendix = Arc::<Appendix>::default();
        let io = Io::Plain(Ahead::new(Bytes::new(), tcp));
        let mut wire = Wire::new(io, peer).append_by(appendix.clone());
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(length));
        // What goes into the buffer, what just does not, what is longer than all buffers there are.
        let lengths = [1, WRITE_BUFFER - 60, WRITE_BUFFER, 4 << 20];
        let mut expected = Vec::new();
        for length in lengths {
            let written = head(length);
            let told = "X-Request-Id: 1\r\nVary: Origin\r\n";
            expected.extend_from_slice(HINTS);
            expected.extend_from_slice(written.trim_end_matches("\r\n").as_bytes());
            expected
                .extend_from_slice(format!("\r\n{told}\r\nbodyHTTP/1.1 404 Not Found\r\n\r\n").as_bytes());
        }
        let write = async {
            for length in lengths {
                appendix.fill_with(&[("X-Request-Id", "1"), ("Vary", "Origin")]);
                wire.write_all(HINTS).await.unwrap();
                wire.write_all(head(length).as_bytes()).await.unwrap();
                // Only the head that comes next has them.
                wire.write_all(b"body").await.unwrap();
                wire.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
            }
            Shutdown::shutdown(&mut wire).await;
        };
        let mut read = Vec::new();
        let ((), length) = tokio::join!(write, client.read_to_end(&mut read));
        assert_eq!(length.unwrap(), expected.len());
        assert!(read == expected, "other bytes than expected");
    }
}
