//! A stream whose first bytes were read already and are given out again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads as `prefix` followed by the stream; writes go straight to the stream.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    /// Puts `prefix`, which was read from `stream`, back in front of it.
    pub fn new(prefix: Bytes, stream: S) -> Self {
        Self { prefix, stream }
    }

    /// The bytes that are still to be replayed.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The stream beneath. What is read from it directly overtakes the prefix.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream beneath, mutably. What is read from it directly overtakes the prefix.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The same behind `first`, which was read from this one before what it still has.
    #[must_use]
    pub fn behind(self, first: Bytes) -> Self {
        let Self { prefix, stream } = self;
        let prefix = match (first.is_empty(), prefix.is_empty()) {
            (true, _) => prefix,
            (_, true) => first,
            (false, false) => [first, prefix].concat().into(),
        };
        Self { prefix, stream }
    }

    /// The bytes that were not replayed yet, and the stream.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.prefix, self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(count));
        if self.prefix.is_empty() {
            self.prefix = Bytes::new(); // lets go of the buffer for the rest of the connection
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn the_prefix_is_read_first_whatever_the_size_of_the_reads() {
        for size in 1..12 {
            let (mut far, near) = tokio::io::duplex(64);
            far.write_all(b" world").await.unwrap();
            drop(far);
            let mut stream = Prefixed::new(Bytes::from_static(b"hello"), near);
            let (mut read, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => read.extend_from_slice(&buffer[..count]),
                }
            }
            assert_eq!(read, b"hello world", "reads of {size}");
        }
    }

    #[tokio::test]
    async fn what_was_read_and_not_used_is_read_again_before_what_is_left() {
        for (first, left) in [("", ""), ("one ", ""), ("", "two "), ("one ", "two ")] {
            let (mut far, near) = tokio::io::duplex(64);
            far.write_all(b"three").await.unwrap();
            drop(far);
            let mut stream = Prefixed::new(left.into(), near).behind(first.into());
            let mut read = String::new();
            stream.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, format!("{first}{left}three"));
        }
    }

    #[tokio::test]
    async fn an_empty_prefix_is_no_end_of_file() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(b"later").await.unwrap();
        let mut buffer = [0; 5];
        Prefixed::new(Bytes::new(), near).read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"later");
    }

    #[tokio::test]
    async fn writes_and_half_close_pass_through() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut stream = Prefixed::new(Bytes::from_static(b"unread"), near);
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"answer");
        assert_eq!(stream.into_parts().0.as_ref(), b"unread");
    }

    #[tokio::test]
    async fn a_stream_that_writes_vectored_says_so_through_the_wrapper() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(Prefixed::new(Bytes::new(), tcp).is_write_vectored());
    }
}
