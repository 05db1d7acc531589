//! A stream of HTTP/1 whose bytes are followed on their way to hyper ([`super::framing`]): what can be read in two ways never gets there.
//!
//! Of a head that is at fault, hyper gets a beginning and then a byte that no head may have, so that it refuses it as any other
//! malformed one; of a body, an error. What came before, pipelined, is served.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Fault, Framing, Message};

/// No message may have it in its head (RFC 9110 §5.5, RFC 9112 §3).
const NUL: u8 = 0;

/// What a [`Guarded`] stream and whoever uses its connection tell each other.
#[derive(Debug, Default)]
pub struct Signals {
    /// A response is expected next.
    expected: AtomicBool,
    /// A byte came since then.
    answered: AtomicBool,
    /// A WebSocket was asked for: what comes behind it was not looked at.
    free: AtomicBool,
    fault: OnceLock<Fault>,
}

impl Signals {
    /// Before a request is sent: what comes next is its response.
    pub fn expect(&self) {
        self.answered.store(false, Ordering::Release);
        self.expected.store(true, Ordering::Release);
    }

    /// Whether anything came after the last [`Signals::expect`].
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Whether bytes may have passed that were not looked at.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.free.load(Ordering::Acquire)
    }

    /// What was at fault, if anything was.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }
}

/// A stream whose incoming messages are followed.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    framing: Framing,
    message: Message,
    signals: Arc<Signals>,
}

impl<S> Guarded<S> {
    /// Follows what comes over `inner`.
    #[must_use]
    pub fn new(inner: S, message: Message) -> Self {
        Self { inner, framing: Framing::new(message), message, signals: Arc::default() }
    }

    /// For whoever uses the connection.
    #[must_use]
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// The stream, whose bytes are not followed any more.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Follows what was read into `buf` behind its first `before` bytes, and takes out what may not go on.
    fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let came = buf.filled_mut().get_mut(before..).unwrap_or_default();
        if came.is_empty() {
            return Ok(());
        }
        if self.message == Message::Responses {
            if self.signals.expected.load(Ordering::Acquire) {
                self.signals.expected.store(false, Ordering::Release);
                self.framing.expect();
            }
            self.signals.answered.store(true, Ordering::Release);
        }
        let Err(found) = self.framing.feed(came) else {
            if self.message == Message::Requests && self.framing.is_free() {
                self.signals.free.store(true, Ordering::Release);
            }
            return Ok(());
        };
        let _ = self.signals.fault.set(found.fault);
        match came.get_mut(found.at) {
            Some(byte) if found.in_head => {
                *byte = NUL;
                buf.set_filled(before + found.at + 1);
            }
            _ if found.at > 0 => buf.set_filled(before + found.at),
            _ => {
                buf.set_filled(before);
                return Err(broken(found.fault));
            }
        }
        Ok(())
    }
}

fn broken(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(fault) = this.signals.fault() {
            return Poll::Ready(Err(broken(fault)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        Poll::Ready(this.follow(buf, before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
