//! The server's side of HTTP/1.0 and 1.1 towards the workload.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep, sleep};

use super::body::{Incoming, Paired};
use super::interims::Client;
use super::server::{Ended, FIRST_REQUEST, Handler, HttpLimits, REST, drained};
use crate::http1::head::{self, RequestHead};
use crate::http1::served::{Answer, Unanswered};
use crate::http1::{Error, HeadError, Io, OnSwitch, Served, Switched};
use crate::sniff::Prefixed;

/// What is still read, and for how long, of a client whose request was answered before its end.
const LINGER_BYTES: u64 = 16 * 1024 * 1024;
pub(super) const LINGER_TIME: Duration = Duration::from_secs(2);
/// The same in the drain, of a connection that is only resting.
const LINGER_DRAINING: Duration = Duration::from_millis(200);
/// How long an answer of ours to what is no request may take.
pub(super) const SAY: Duration = Duration::from_secs(1);

/// Serves HTTP/1.0 and 1.1 until the client is done, or the drain lets the last request end.
///
/// In the drain each response says that it is the last one (`connection: close`). A connection that rests then is closed,
/// but not at once: a request may be on its way, and one that is answered need not be sent again.
///
/// After a WebSocket that was asked for and is not given, the connection ends: the client may have gone on as if it was.
pub fn serve_http1<'a, S, H>(
    stream: S,
    limits: &'a HttpLimits,
    drain: watch::Receiver<bool>,
    handler: Arc<H>,
) -> impl Future<Output = Ended> + Send + use<'a, S, H>
where
    S: Io + 'static,
    H: Handler,
{
    let served = Served::new(stream);
    // A block and not a function, which would have room for its arguments twice.
    async move {
        let most = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
        let mut draining = pin!(drained(drain.clone()));
        // It is set anew only when it goes off: a request costs no timer.
        let mut timer = pin!(sleep(limits.header_time));
        // Until when a connection may rest in the drain.
        let mut until = None;
        let mut begun = false;
        // How it ends is boxed: a connection that goes on needs no room for that.
        loop {
            // A client that has just come has something to ask.
            let mut deadline = Instant::now() + if begun { limits.idle_time } else { limits.header_time };
            let mut is_within = false;
            let awaited = loop {
                tokio::select! {
                    biased;
                    head = served.head(most) => break Awaited::Head(head),
                    () = served.begins(), if !is_within => {
                        is_within = true;
                        deadline = Instant::now() + limits.header_time;
                        timer.as_mut().reset(until.map_or(deadline, |until| deadline.min(until)));
                    }
                    () = draining.as_mut(), if until.is_none() => {
                        let grace = if begun { REST } else { FIRST_REQUEST };
                        let end = Instant::now() + grace;
                        until = Some(end);
                        timer.as_mut().reset(end.min(deadline));
                    }
                    () = timer.as_mut() => {
                        let now = Instant::now();
                        match until {
                            Some(until) if now >= until && !served.is_within_head() => break Awaited::Drained,
                            Some(until) if now < until => timer.as_mut().reset(until.min(deadline)),
                            _ if now >= deadline => break Awaited::Late,
                            _ => timer.as_mut().reset(deadline),
                        }
                    }
                }
            };
            let head = match awaited {
                Awaited::Head(Ok(Some(head))) => head,
                Awaited::Head(Ok(None)) => return Box::pin(close(served, LINGER_TIME, Ended::Done)).await,
                Awaited::Head(Err(error)) => return Box::pin(refuse(served, error)).await,
                Awaited::Late if served.is_within_head() => return Box::pin(late(served)).await,
                // Kept alive for long enough.
                Awaited::Late => return Ended::Done,
                Awaited::Drained => return Box::pin(close(served, LINGER_DRAINING, Ended::Done)).await,
            };
            begun = true;
            let Begun { mut call, to, switch } = match call(&served, &head, limits, &handler) {
                Ok(begun) => begun,
                Err(error) => return Box::pin(refuse(served, error.into())).await,
            };
            drop(head);
            let reply = tokio::select! {
                biased;
                reply = &mut call => reply,
                error = served.gone() => return Ended::ClientGone(Error::Io(error).into()),
            };
            drop(call);
            let (switches, answering) = answer(&served, reply, to, limits, &drain, timer.as_mut());
            let keep_alive = match answering.await {
                Ok(keep_alive) => keep_alive,
                Err(Unanswered::Client(error)) => return Ended::ClientGone(Error::Io(error).into()),
                // Whoever had the body has told it.
                Err(Unanswered::Body) => return Ended::Done,
            };
            if switches {
                if let (Some(switch), Some((stream, unread))) = (switch, served.into_inner()) {
                    // If nobody takes it, it is closed.
                    let _ = switch.send(Box::new(Prefixed::new(unread, stream)));
                }
                return Ended::Done;
            }
            if !keep_alive || !served.next() {
                let time = if *drain.borrow() { LINGER_DRAINING } else { LINGER_TIME };
                return Box::pin(close(served, time, Ended::Done)).await;
            }
        }
    }
}

/// A call that was begun.
struct Begun<F> {
    /// In memory of its own: a call is kilobytes of state, which would be moved from hand to hand, and a connection that rests needs no
    /// room for it.
    call: Pin<Box<F>>,
    to: To,
    /// Whom the stream is given to if the protocol is switched.
    switch: Option<oneshot::Sender<Switched>>,
}

/// What of a request its answer depends on.
#[derive(Clone, Copy)]
struct To {
    version: http::Version,
    is_head: bool,
    keep_alive: bool,
    /// It asked for another protocol.
    is_free: bool,
}

/// Reads a head, and begins the call that it is.
fn call<S: Io + 'static, H: Handler>(
    served: &Served<S>,
    head: &Bytes,
    limits: &HttpLimits,
    handler: &Arc<H>,
) -> Result<Begun<impl Future<Output = Response<H::Body>> + Send + use<S, H>>, HeadError> {
    let RequestHead { method, uri, version, headers, spelling, expects, keep_alive } =
        head::request(head, limits.header_fields)?;
    let is_head = method == http::Method::HEAD;
    let interims = match version {
        http::Version::HTTP_11 => Client::Http1(served.interims()),
        _ => Client::Deaf,
    };
    let mut request = Request::new(Incoming::Http1(served.body(expects)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    let is_free = served.is_free();
    let switch = is_free.then(|| {
        let (give, take) = OnSwitch::new();
        request.extensions_mut().insert(take);
        give
    });
    let call = Box::pin(Arc::clone(handler).call(request, spelling, interims));
    Ok(Begun { call, to: To { version, is_head, keep_alive, is_free }, switch })
}

/// Whether the protocol is switched, and what answers, in memory of its own as well: whether the connection may be used for another request,
/// as far as the response goes.
fn answer<S, B>(
    served: &Served<S>,
    reply: Response<B>,
    to: To,
    limits: &HttpLimits,
    drain: &watch::Receiver<bool>,
    timer: Pin<&mut Sleep>,
) -> (bool, Pin<Box<impl Future<Output = Result<bool, Unanswered>>>>)
where
    S: Io + 'static,
    B: Paired<Data = Bytes>,
{
    let switches = reply.status() == StatusCode::SWITCHING_PROTOCOLS;
    let is_last = *drain.borrow() || to.is_free || says_close(&reply);
    (switches, Box::pin(answer_with(served, reply, to, is_last, limits.write_time, timer)))
}

async fn answer_with<S, B>(
    served: &Served<S>,
    reply: Response<B>,
    to: To,
    is_last: bool,
    write_time: Duration,
    mut timer: Pin<&mut Sleep>,
) -> Result<bool, Unanswered>
where
    S: Io + 'static,
    B: Paired<Data = Bytes>,
{
    let (mut head, mut body) = reply.into_parts();
    let wire = body.take_wire();
    if is_last && head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let answer = Answer {
        version: to.version,
        to_head: to.is_head,
        status: head.status,
        headers: &head.headers,
        wire: &wire,
        keep_alive: to.keep_alive && !is_last,
    };
    let mut answering = pin!(served.answer(answer, body));
    let mut waited = None;
    loop {
        tokio::select! {
            biased;
            answered = answering.as_mut() => return answered,
            () = timer.as_mut() => {
                let waits = served.waits_to_write();
                if waits.is_some() && waits == waited {
                    return Err(Unanswered::Client(stalled(write_time)));
                }
                waited = waits;
                timer.as_mut().reset(Instant::now() + write_time);
            }
        }
    }
}

fn says_close<B>(reply: &Response<B>) -> bool {
    reply.headers().get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOO_LONG: &[u8] = b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Answers a head that did not come in time.
pub(super) async fn late<S: Io + 'static>(served: Served<S>) -> Ended {
    served.say(TIMEOUT, SAY).await;
    Ended::HeaderTimeout
}

/// Answers what is no request, which is the last of its connection.
pub(super) async fn refuse<S: Io + 'static>(served: Served<S>, error: Error) -> Ended {
    let (text, ended) = match error {
        Error::Io(_) | Error::Incomplete | Error::Body(_) => return Ended::ClientGone(error.into()),
        Error::Ambiguous(fault) => (BAD, Ended::Ambiguous(fault)),
        Error::Head(HeadError::TooLarge) => (TOO_LARGE, Ended::HeaderTooLarge),
        Error::Head(HeadError::TargetTooLong) => (TOO_LONG, Ended::Malformed(error.into())),
        Error::Head(HeadError::Invalid(_)) => (BAD, Ended::Malformed(error.into())),
    };
    served.say(text, SAY).await;
    close(served, LINGER_TIME, ended).await
}

/// Ends our half and reads on for a while: to close a socket with bytes unread resets it, and the reset can overtake our
/// answer (RFC 9112 §9.6).
pub(super) async fn close<S: Io + 'static>(served: Served<S>, time: Duration, ended: Ended) -> Ended {
    if let Some((mut stream, _)) = served.into_inner() {
        let drain = async {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _: Result<io::Result<u64>, _> = tokio::time::timeout(time, drain).await;
    }
    ended
}

fn stalled(time: Duration) -> io::Error {
    let text = format!("the client took nothing of an answer for {time:?}");
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// What came of waiting for a head.
enum Awaited {
    Head(Result<Option<Bytes>, Error>),
    /// For too long.
    Late,
    /// The drain ends a connection that rests.
    Drained,
}
