//! A request to an upstream and its answer, over one stream of a connection that others share.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::shared::Underway;
use super::{Arriving, Outflow, Unsent};

/// How long a server that is asked for 100 has until the body is sent all the same (RFC 9110 §10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);
/// Interim answers of one request. Over HTTP/1 there are no more either.
const MOST_INTERIMS: u32 = 32;

/// The body of a request on its way; nothing once it is over.
struct Sending<B: Body> {
    out: Option<Outflow<B>>,
    /// For 100 before it is sent.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// Sends what can be sent. That the server does not take more is no error: it may have answered.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(out) = &mut self.out else { return Poll::Ready(()) };
        if let Some(waits) = &mut self.waits {
            ready!(waits.as_mut().poll(cx));
            self.waits = None;
        }
        if let Err(Unsent::Body(_)) = ready!(out.poll(cx)) {
            // Whatever it broke off for, the request is not wanted any more.
            out.reset(Reason::CANCEL);
        }
        self.out = None;
        Poll::Ready(())
    }
}

/// A request that was sent, before its answer.
pub struct Exchange<B: Body> {
    response: ResponseFuture,
    sending: Sending<B>,
    underway: Underway,
}

impl<B: Body<Data = Bytes> + Unpin> Exchange<B> {
    /// A request whose head was sent; `out` is its body, if it has one. `waits`: that is sent when the server asks for it by 100, or
    /// after a while.
    #[must_use]
    pub(super) fn new(
        response: ResponseFuture,
        out: Option<Outflow<B>>,
        waits: bool,
        underway: Underway,
    ) -> Self {
        let waits = (waits && out.is_some()).then(|| Box::pin(tokio::time::sleep(CONTINUE)));
        Self { response, sending: Sending { out, waits }, underway }
    }

    /// Sends on, and waits for the answer; `interim` gets what comes before it.
    ///
    /// # Errors
    /// The stream was reset, by either side, or its connection ended.
    pub async fn answer(
        mut self,
        mut interim: impl FnMut(StatusCode, HeaderMap),
    ) -> Result<Response<Answer<B>>, h2::Error> {
        let mut left = MOST_INTERIMS;
        let response = poll_fn(|cx| self.poll_head(cx, &mut left, &mut interim)).await?;
        if self.sending.waits.take().is_some() {
            // It is answered without the body, which the client need not send any more.
            self.sending.out = None;
        }
        let (head, stream) = response.into_parts();
        let incoming = Arriving::new(stream, &head.headers);
        let Self { sending, underway, .. } = self;
        Ok(Response::from_parts(head, Answer { incoming, sending, _underway: underway }))
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        left: &mut u32,
        interim: &mut impl FnMut(StatusCode, HeaderMap),
    ) -> Poll<Result<Response<RecvStream>, h2::Error>> {
        loop {
            let _ = self.sending.poll(cx);
            let head = match ready!(self.response.poll_informational(cx)).transpose()? {
                Some(head) => head.into_parts().0,
                None => return Pin::new(&mut self.response).poll(cx),
            };
            // HTTP/2 has no 101 (RFC 9113 §8.6).
            if *left == 0 || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(Reason::PROTOCOL_ERROR.into()));
            }
            *left -= 1;
            match head.status {
                StatusCode::CONTINUE => self.sending.waits = None,
                status => interim(status, head.headers),
            }
        }
    }
}

/// The body of an answer, which sends on what is left of its request.
pub struct Answer<B: Body> {
    incoming: Arriving,
    sending: Sending<B>,
    _underway: Underway,
}

impl<B: Body<Data = Bytes> + Unpin> Answer<B> {
    /// Sends on, whether or not anybody takes the answer; ready when there is nothing left to send.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sending.poll(cx)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let _ = self.sending.poll(cx);
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B: Body> fmt::Debug for Answer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}
