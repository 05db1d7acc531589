//! The body of a response, which brings its connection back to the pool at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::pool::{Connections, Route};
use crate::http::{Paired, RequestBody, StreamError, Transfer};
use crate::http1::{Exchange, Switched, Wire};
use crate::http2;

/// What the upstream sends.
#[derive(Debug)]
pub struct UpstreamBody {
    inner: Inner,
    wire: Wire,
}

#[derive(Debug)]
enum Inner {
    /// Over HTTP/1; nothing once the connection was brought back.
    Http1(Option<Box<Borrowed>>),
    /// Over HTTP/2.
    Http2(Box<http2::Answer<RequestBody>>),
}

/// An HTTP/1 connection that this response occupies.
#[derive(Debug)]
pub(super) struct Borrowed {
    pub(super) exchange: Exchange<RequestBody>,
    pub(super) connections: Arc<Connections>,
    pub(super) route: Route,
    pub(super) transfer: Arc<Transfer>,
}

impl UpstreamBody {
    pub(super) fn http1(borrowed: Borrowed, wire: Wire) -> Self {
        Self { inner: Inner::Http1(Some(Box::new(borrowed))), wire }
    }

    pub(super) fn http2(answer: http2::Answer<RequestBody>) -> Self {
        Self { inner: Inner::Http2(Box::new(answer)), wire: Wire::default() }
    }

    /// How the head before it stood on the wire.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// The stream, where both sides switch protocols.
    #[must_use]
    pub fn into_switched(mut self) -> Option<Switched> {
        match &mut self.inner {
            Inner::Http1(borrowed) => borrowed.take().map(|borrowed| borrowed.exchange.into_switched()),
            Inner::Http2(_) => None,
        }
    }

    /// Brings the connection back, if it may be used again.
    fn end(&mut self) {
        let Inner::Http1(borrowed) = &mut self.inner else { return };
        let Some(borrowed) = borrowed.take() else { return };
        let Borrowed { exchange, connections, route, transfer } = *borrowed;
        // An answer may come before the end of the request, which then still occupies the connection.
        if transfer.is_whole()
            && let Some(lane) = exchange.finish()
        {
            connections.give_back(&route, lane);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let borrowed = match &mut self.inner {
            Inner::Http2(answer) => return Pin::new(answer).poll_frame(cx).map_err(StreamError::from),
            Inner::Http1(None) => return Poll::Ready(None),
            Inner::Http1(Some(borrowed)) => borrowed,
        };
        let frame = ready!(borrowed.exchange.poll_frame(cx));
        // Behind trailers nobody looks for more.
        if frame.as_ref().is_ok_and(|frame| frame.as_ref().is_none_or(Frame::is_trailers)) {
            self.end();
        }
        Poll::Ready(frame.map_err(StreamError::from).transpose())
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Http1(borrowed) => borrowed.as_ref().is_none_or(|borrowed| borrowed.exchange.is_over()),
            Inner::Http2(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Http1(None) => SizeHint::with_exact(0),
            Inner::Http1(Some(borrowed)) => borrowed.exchange.size_hint(),
            Inner::Http2(answer) => answer.size_hint(),
        }
    }
}

impl Paired for UpstreamBody {
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.inner {
            // It is sent on when the answer is asked for, and over with that.
            Inner::Http1(_) => Poll::Ready(()),
            Inner::Http2(answer) => answer.poll_sending(cx),
        }
    }

    fn take_wire(&mut self) -> Wire {
        std::mem::take(&mut self.wire)
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if matches!(&self.inner, Inner::Http1(Some(borrowed)) if borrowed.exchange.is_over()) {
            self.end();
        }
    }
}
