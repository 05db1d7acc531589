//! The body of a response, which brings its connection back to the pool at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{Connections, Lane, Route};
use crate::http::Transfer;

/// What the upstream sends.
#[derive(Debug)]
pub struct UpstreamBody {
    inner: Incoming,
    connection: Option<Borrowed>,
}

/// An HTTP/1 connection that this response occupies.
#[derive(Debug)]
pub(super) struct Borrowed {
    pub(super) connections: Arc<Connections>,
    pub(super) route: Route,
    pub(super) lane: Lane,
    pub(super) transfer: Arc<Transfer>,
}

impl UpstreamBody {
    pub(super) fn new(inner: Incoming, connection: Option<Borrowed>) -> Self {
        Self { inner, connection }
    }

    fn ended(&mut self) {
        let Some(borrowed) = self.connection.take() else { return };
        // An answer may come before the end of the request, which then still occupies the connection.
        if borrowed.transfer.is_whole() {
            borrowed.connections.give_back(&borrowed.route, borrowed.lane);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        // Behind trailers nobody looks for more.
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers)) {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.ended();
        }
    }
}
