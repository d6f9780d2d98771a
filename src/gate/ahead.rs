//! A connection in front of which some bytes stand: bytes that were looked at, and are to be read all the same.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads the bytes first, then the rest; writes go to the rest.
pub(crate) struct Ahead<S> {
    first: Bytes,
    rest: S,
}

impl<S> Ahead<S> {
    pub(crate) fn new(first: Bytes, rest: S) -> Self {
        Self { first, rest }
    }

    /// Puts bytes in front of those that stand there.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.first = if self.first.is_empty() { bytes } else { [bytes, self.first.clone()].concat().into() };
    }

    /// Whether all bytes in front were read.
    pub(crate) fn is_past(&self) -> bool {
        self.first.is_empty()
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.rest
    }

    pub(crate) fn into_inner(self) -> S {
        self.rest
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.rest
    }
}

impl<S: fmt::Debug> fmt::Debug for Ahead<S> {
    /// Never the bytes (law 7).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").field("first", &self.first.len()).field("rest", &self.rest).finish()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_read(cx, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(length));
        if self.first.is_empty() {
            // The last piece would keep the memory of all.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_put_back_is_read_first_and_never_shown() {
        let mut ahead = Ahead::new(Bytes::from_static(b"cd"), &b"ef"[..]);
        ahead.put_back(Bytes::from_static(b"ab"));
        assert_eq!(format!("{ahead:?}"), "Ahead { first: 4, rest: [101, 102] }");
        let mut part = [0; 3];
        ahead.read_exact(&mut part).await.unwrap();
        assert_eq!((&part, ahead.is_past()), (b"abc", false));
        let mut text = String::new();
        ahead.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), ahead.is_past()), ("def", true));
    }
}
