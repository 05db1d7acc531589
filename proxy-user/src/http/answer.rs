//! One request over HTTP/2, from its head to the last byte of its answer, and of its own body.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::body::{Incoming, Paired as _};
use super::interims::Client;
use super::server::Handler;
use crate::http1::{OnSwitch, Switched};
use crate::http2::{Answering, Arriving, Breaks as _, Outflow, Unsent, switched};

/// How long a client may take to see an answer, before a stream is reset on which it still sends.
const LINGER: Duration = Duration::from_secs(1);

/// Answers a request. Ends when the client does not want the answer any more, or takes nothing of it for `write_time`, too.
pub(super) async fn answer<H: Handler>(
    handler: Arc<H>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    write_time: Duration,
) {
    let answering = Answering::new(respond);
    let Some((request, switch)) = arriving(request, &answering) else {
        return answering.reset(Reason::PROTOCOL_ERROR);
    };
    let reply = {
        // A call is kilobytes of state: it is moved once, and gone as soon as there is an answer.
        let mut call = Box::pin(handler.call(request, None, Client::Http2(answering.interims())));
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(reply) => Poll::Ready(Some(reply)),
            Poll::Pending => answering.poll_gone(cx).map(|()| None),
        })
        .await
    };
    let Some(reply) = reply else { return };
    let (head, body) = reply.into_parts();
    let mut head = Response::from_parts(head, ());
    if let Some((give, stream)) = switch
        && head.status().is_success()
    {
        if give.is_closed() {
            // It would be a tunnel to the client, and there is nobody behind it.
            return answering.reset(Reason::CANCEL);
        }
        head.headers_mut().remove(CONTENT_LENGTH);
        if let Ok(outgoing) = answering.answer(head, false) {
            // If nobody takes it, it is reset.
            let _ = give.send(Box::new(switched::Switched::new(stream, outgoing)));
        }
        return;
    }
    let is_ended = body.is_end_stream();
    if !is_ended && let Some(length) = body.size_hint().exact() {
        head.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let Ok(stream) = answering.answer(head, is_ended) else {
        return answering.reset(Reason::INTERNAL_ERROR);
    };
    let mut out = Outflow::new(stream, body).patient_for(write_time);
    if !is_ended {
        let sent = poll_fn(|cx| {
            let polled = out.poll(cx);
            if polled.is_pending() && out.is_held() {
                // The client may take nothing until it has sent more.
                let _ = out.body().poll_other(cx);
            }
            polled
        });
        match sent.await {
            Ok(()) => {}
            Err(Unsent::Stream) => return,
            Err(Unsent::Body(error)) => {
                let reason = error.reason();
                // What came is for the client, and then it learns that this is not all.
                yield_once().await;
                return out.reset(reason);
            }
        }
    }
    if answering.is_left() {
        // It is whole, and no more of the request is taken. A reset behind it (RFC 9113 §8.1) some clients, curl 7.88 among them, take for
        // that of the answer: they have time to end the stream themselves.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| out.poll_gone(cx))).await;
        return;
    }
    // A request may go on behind its answer.
    poll_fn(|cx| match out.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => out.body().poll_other(cx),
    })
    .await;
}

/// Whom the stream is given to if the protocol is switched, and what comes over it.
type Switch = (oneshot::Sender<Switched>, RecvStream);

/// The request with its body, or, where it asks for another protocol, with what that becomes; nothing for one that is none.
fn arriving(
    request: Request<RecvStream>,
    answering: &Answering,
) -> Option<(Request<Incoming>, Option<Switch>)> {
    let (mut head, stream) = request.into_parts();
    if head.method == Method::CONNECT && head.extensions.get::<Protocol>().is_some() {
        if head.headers.contains_key(CONTENT_LENGTH) {
            return None;
        }
        let (give, take) = OnSwitch::new();
        head.extensions.insert(take);
        return Some((Request::from_parts(head, Incoming::Empty), Some((give, stream))));
    }
    let expects = asks_for_100(&head.headers);
    let body = Arriving::new(stream, &head.headers).answered(|| answering.interims(), expects);
    Some((Request::from_parts(head, Incoming::Http2(body)), None))
}

/// Whether the client waits to be asked for the body (RFC 9110 §10.1.1).
fn asks_for_100(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Lets the connection write what it has.
async fn yield_once() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
