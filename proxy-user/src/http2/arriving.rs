//! The body of a message as it arrives over a stream. What is taken of it is asked for again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body, Frame, SizeHint};

use super::Interims;

/// The body of a message.
#[derive(Debug)]
pub struct Arriving {
    stream: RecvStream,
    /// Bytes that are still to come, where that is known. The h2 crate holds the sender to it.
    left: Option<u64>,
    /// The stream that it is answered on, where there is one.
    answered: Option<Interims>,
    /// Its sender waits for 100 before it sends (RFC 9110 §10.1.1).
    expects: bool,
    /// All data came; trailers may follow.
    is_data_over: bool,
}

impl Arriving {
    /// The body behind this head.
    #[must_use]
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let left = if stream.is_end_stream() { Some(0) } else { said };
        Self { stream, left, answered: None, expects: false, is_data_over: false }
    }

    /// The same of a request that is answered there; `expects`: whose client waits to be asked for it.
    #[must_use]
    pub fn answered(mut self, interims: impl FnOnce() -> Interims, expects: bool) -> Self {
        if !self.stream.is_end_stream() {
            (self.answered, self.expects) = (Some(interims()), expects);
        }
        self
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        while !this.is_data_over {
            let data = match this.stream.poll_data(cx) {
                Poll::Pending => {
                    if std::mem::take(&mut this.expects)
                        && let Some(interims) = &this.answered
                    {
                        interims.send(StatusCode::CONTINUE, HeaderMap::new());
                    }
                    return Poll::Pending;
                }
                Poll::Ready(data) => data.transpose()?,
            };
            this.expects = false;
            match data {
                None => this.is_data_over = true,
                // A frame with nothing in it.
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    this.stream.flow_control().release_capacity(data.len())?;
                    if let Some(left) = &mut this.left {
                        *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(answered) = self.answered.take().filter(|_| !self.stream.is_end_stream()) {
            answered.leave();
        }
    }
}
