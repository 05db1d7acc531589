//! A body on its way out over a stream, frame by frame as the other side has room for it.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep};

/// A body, and the stream over which it is sent.
#[derive(Debug)]
pub struct Outflow<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// For which there is no room yet.
    held: Option<Bytes>,
    patience: Option<Patience>,
}

/// How long the other side may take nothing. A body that never waits for room costs no timer, and one that does costs one.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// What was sent, and what of it when the timer was set; counted in frames.
    sent: u64,
    seen: u64,
}

impl Patience {
    /// Ready when nothing was sent for as long as the limit says; at most twice as long until that is noticed.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { limit, timer, sent, seen } = self;
        let timer = timer.get_or_insert_with(|| {
            *seen = *sent;
            Box::pin(sleep(*limit))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            if seen == sent {
                return Poll::Ready(());
            }
            *seen = *sent;
            timer.as_mut().reset(Instant::now() + *limit);
        }
    }
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
        Self { stream, body, held: None, patience: None }
    }

    /// Resets the stream when the other side takes nothing for `limit`, though there is something for it.
    #[must_use]
    pub fn patient_for(mut self, limit: Duration) -> Self {
        self.patience = Some(Patience { limit, timer: None, sent: 0, seen: 0 });
        self
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
                if self.poll_room(cx)?.is_pending() {
                    let Some(patience) = &mut self.patience else { return Poll::Pending };
                    ready!(patience.poll_over(cx));
                    self.reset(Reason::CANCEL);
                    return Poll::Ready(Err(Unsent::Stream));
                }
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
        if let Some(patience) = &mut self.patience {
            patience.sent += 1;
        }
        self.stream.send_data(data, is_last).map_err(|_| Unsent::Stream)
    }
}
