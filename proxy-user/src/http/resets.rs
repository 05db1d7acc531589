//! What the h2 crate refuses by itself: it resets the stream of a request that is none, and tells nobody but the client. So the frames
//! that go to the client are followed for that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// RFC 9113 §4.1: length, type, flags, stream.
const HEAD: usize = 9;
/// RFC 9113 §6.4: its payload is the error.
const RST_STREAM: u8 = 3;
const CODE: usize = 4;
/// RFC 9113 §7. The h2 crate gives it to malformed requests alone; what else ends a stream has other codes.
const PROTOCOL_ERROR: [u8; CODE] = [0, 0, 0, 1];

/// The streams that were reset because of what came.
#[derive(Debug, Default)]
pub struct Resets {
    count: AtomicU32,
    more: Notify,
}

impl Resets {
    /// Waits for some: how many.
    pub async fn some(&self) -> u32 {
        loop {
            if let Some(count) = self.take() {
                return count;
            }
            self.more.notified().await;
        }
    }

    /// Those that were not taken yet.
    pub fn take(&self) -> Option<u32> {
        Some(self.count.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
    }

    fn note(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.more.notify_one();
    }
}

/// A stream of HTTP/2 whose outgoing frames are followed.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    frames: Frames,
    resets: Arc<Resets>,
}

/// Where in the frames we are.
#[derive(Debug, Default)]
struct Frames {
    /// The head of a frame, and behind it the code of one that resets a stream; as far as it came.
    head: [u8; HEAD + CODE],
    filled: usize,
    /// Bytes of a payload that nobody looks at.
    skip: usize,
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8], resets: &Resets) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let taken = self.skip.min(bytes.len());
                self.skip -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            // Only the head of a RST_STREAM stays until its payload is here.
            let wanted = if self.filled < HEAD { HEAD } else { HEAD + CODE };
            let space = self.head.get_mut(self.filled..wanted).unwrap_or_default();
            let taken = space.len().min(bytes.len());
            for (place, byte) in space.iter_mut().zip(bytes) {
                *place = *byte;
            }
            self.filled += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.filled < wanted {
                return;
            }
            let [a, b, c, kind, ..] = self.head;
            if wanted == HEAD && kind == RST_STREAM {
                continue;
            }
            if wanted == HEAD {
                self.skip = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            } else if self.head.ends_with(&PROTOCOL_ERROR) {
                resets.note();
            }
            self.filled = 0;
        }
    }
}

impl<S> Watched<S> {
    /// Follows what goes out over `inner`.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, frames: Frames::default(), resets: Arc::default() }
    }

    /// What was found.
    #[must_use]
    pub fn resets(&self) -> &Arc<Resets> {
        &self.resets
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        this.frames.feed(bytes.get(..count).unwrap_or(bytes), &this.resets);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, parts))?;
        let mut left = count;
        for part in parts {
            let written = part.get(..left.min(part.len())).unwrap_or(part);
            this.frames.feed(written, &this.resets);
            left -= written.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_reset_because_of_what_came_is_found_however_it_is_written() {
        let found = [frame(RST_STREAM, &PROTOCOL_ERROR), frame(4, &[]), frame(0, &[3; 300])].concat();
        let other = [frame(RST_STREAM, &[0, 0, 0, 8]), frame(0, &PROTOCOL_ERROR), frame(6, &found)].concat();
        let all = [&other[..], &found, &other, &found].concat();
        for size in 1..all.len() {
            let (mut frames, resets) = (Frames::default(), Resets::default());
            for piece in all.chunks(size) {
                frames.feed(piece, &resets);
            }
            assert_eq!((resets.take(), resets.take()), (Some(2), None), "in pieces of {size}");
        }
    }
}
