//! A stream that carries bytes both ways (RFC 8441 §5), in the place of a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream. Dropped before both sides were done, it is reset.
#[derive(Debug)]
pub struct Switched {
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    /// What came and was not read.
    unread: Bytes,
}

/// Bytes that are written at once.
const MOST: usize = 16 * 1024;

impl Switched {
    /// Of the two halves of a stream.
    #[must_use]
    pub fn new(incoming: RecvStream, outgoing: SendStream<Bytes>) -> Self {
        Self { incoming, outgoing, unread: Bytes::new() }
    }

    /// Why nothing can be written.
    fn gone(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.outgoing.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => broken(&reason.into()),
            Poll::Ready(Err(error)) => broken(&error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

/// A reset is the end of a connection without the end of what it carried (RFC 8441 §5), whatever its reason.
fn broken(error: &h2::Error) -> io::Error {
    let kind = error.get_io().map_or(io::ErrorKind::ConnectionReset, io::Error::kind);
    io::Error::new(kind, error.to_string())
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.unread.is_empty() {
            match ready!(this.incoming.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                Some(Ok(data)) => this.unread = data,
            }
        }
        let count = this.unread.len().min(buf.remaining());
        buf.put_slice(this.unread.get(..count).unwrap_or_default());
        this.unread.advance(count);
        if this.unread.is_empty() {
            this.unread = Bytes::new();
        }
        // Taken is what was read, and not what came.
        this.incoming.flow_control().release_capacity(count).map_err(|error| broken(&error))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(gone) = this.outgoing.poll_reset(cx) {
            return Poll::Ready(Err(broken(&gone.map_or_else(|error| error, Into::into))));
        }
        this.outgoing.reserve_capacity(bytes.len().min(MOST));
        while this.outgoing.capacity() == 0 {
            match ready!(this.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                None => return Poll::Ready(Err(this.gone(cx))),
            }
        }
        let count = this.outgoing.capacity().min(bytes.len()).min(MOST);
        let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        match this.outgoing.send_data(data, false) {
            Ok(()) => Poll::Ready(Ok(count)),
            Err(_) => Poll::Ready(Err(this.gone(cx))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The task of the connection does.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.reserve_capacity(0);
        if self.outgoing.send_data(Bytes::new(), true).is_ok() {
            return Poll::Ready(Ok(()));
        }
        // It was told already, or there is nobody to tell.
        match self.outgoing.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}
