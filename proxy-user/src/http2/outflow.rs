//! A body on its way out over a stream, frame by frame as the other side has room for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

/// A body, and the stream over which it is sent.
#[derive(Debug)]
pub struct Outflow<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// For which there is no room yet.
    held: Option<Bytes>,
}

/// Why a body did not get out.
#[derive(Debug)]
pub enum Unsent<E> {
    /// The body broke off. The stream is as it was.
    Body(E),
    /// The other side reset the stream, or the connection ended.
    Stream,
}

impl<B> Outflow<B> {
    /// Nothing of it is sent before it is polled.
    #[must_use]
    pub fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, held: None }
    }

    /// Whether it waits for room, and not for the body.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The body.
    pub fn body(&mut self) -> &mut B {
        &mut self.body
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready when the other side does not take any more, whether or not all of it went out.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outflow<B> {
    /// Sends what can be sent; ready when all of it is on its way.
    ///
    /// # Errors
    /// The body broke off, or the stream did.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent<B::Error>>> {
        // Asked first: a body that breaks off because its receiver did is not to blame.
        if self.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Unsent::Stream));
        }
        loop {
            if self.held.is_some() {
                ready!(self.poll_room(cx))?;
                if let Some(data) = self.held.take() {
                    self.send(data, false)?;
                }
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.send(Bytes::new(), true)?;
                    return Poll::Ready(Ok(()));
                }
                Some(frame) => frame.map_err(Unsent::Body)?,
            };
            match frame.into_data() {
                // What comes last need not wait for room: nothing comes behind it.
                Ok(data) if self.body.is_end_stream() => {
                    self.send(data, true)?;
                    return Poll::Ready(Ok(()));
                }
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    // A byte has room for all of it, and more would keep it from others while this one waits.
                    self.stream.reserve_capacity(1);
                    self.held = Some(data);
                }
                Err(frame) => {
                    if let Ok(trailers) = Frame::into_trailers(frame) {
                        self.stream.send_trailers(trailers).map_err(|_| Unsent::Stream)?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent<B::Error>>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Unsent::Stream)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, is_last: bool) -> Result<(), Unsent<B::Error>> {
        self.stream.send_data(data, is_last).map_err(|_| Unsent::Stream)
    }
}
