//! One request over one connection, spelled for its version of HTTP; over another one if the first was stale.
//!
//! | a request that was sent, and its connection fails before the response | |
//! | --- | --- |
//! | `REFUSED_STREAM`, or GOAWAY with a last stream before it | not processed (RFC 9113 §8.7): may be sent again |
//! | HTTP/1, a kept connection ends without a byte, and the method is idempotent | as if not (RFC 9112 §9.3.1): may be sent again |
//! | anything else | may have been processed: never sent again |
//!
//! What may be sent again is [`ForwardError::Untaken`]; whoever has the request sends it, over a new connection.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::timeout;

use super::ForwardLimits;
use super::answer::{Borrowed, UpstreamBody};
use super::dial::Dialer;
use super::error::ForwardError;
use super::pool::{Pool, Route, Sender, Shared};
use super::transport::Transport;
use crate::credentials::Head;
use crate::http::{Interims, RequestBody, Transfer};
use crate::http1::lane::Asking;
use crate::http1::{self, Exchange, Fault, Lane, Spelling, Wire};

/// A request that is ready but for the credential and the spelling.
#[derive(Debug)]
pub struct Outbound {
    /// The method.
    pub method: Method,
    /// The path in normal form, and the query.
    pub target: PathAndQuery,
    /// The host that was decided on, with its port unless it is the scheme's.
    pub authority: Authority,
    /// The headers without those of the client's hop.
    pub headers: HeaderMap,
    /// How the client spelled their names.
    pub spelling: Option<Spelling>,
    /// The body.
    pub body: RequestBody,
    /// The counters of the body.
    pub transfer: Arc<Transfer>,
    /// Where interim answers go.
    pub interims: Interims,
    /// Whether the request asks to switch protocols.
    pub upgrade: bool,
    /// Whether it was sent already, to nobody who took it: only another connection will do.
    pub again: bool,
}

impl Outbound {
    /// What a credential can be part of.
    pub(super) fn head(&mut self) -> Head<'_> {
        Head {
            method: &self.method,
            target: &mut self.target,
            authority: &self.authority,
            headers: &mut self.headers,
        }
    }

    /// What is sent, and what the response is judged by.
    fn split(self) -> (Asked, RequestBody) {
        let Self {
            method,
            target,
            authority,
            headers,
            spelling,
            body,
            transfer,
            interims,
            upgrade,
            again: _,
        } = self;
        (Asked { method, target, authority, headers, spelling, transfer, interims, upgrade }, body)
    }
}

/// A request without its body.
struct Asked {
    method: Method,
    target: PathAndQuery,
    authority: Authority,
    headers: HeaderMap,
    /// How the client spelled their names.
    spelling: Option<Spelling>,
    transfer: Arc<Transfer>,
    interims: Interims,
    upgrade: bool,
}

impl Asked {
    /// The request over HTTP/1.
    fn over_http1(&mut self, lane: Lane, body: RequestBody) -> Result<Exchange<RequestBody>, ForwardError> {
        let host = self.authority.as_str();
        let mut named = self.headers.get_all(HOST).iter();
        // Nearly always it is what the client said.
        let is_named =
            named.next().is_some_and(|name| name.as_bytes() == host.as_bytes()) && named.next().is_none();
        if !is_named {
            let host =
                HeaderValue::from_str(host).map_err(|error| ForwardError::Spell { source: error.into() })?;
            self.headers.insert(HOST, host);
        }
        let (method, headers, spelling) = (&self.method, &self.headers, self.spelling.as_ref());
        Ok(lane.send(&Asking { method, target: self.target.as_str(), headers, spelling }, body))
    }

    /// The request over HTTP/2, without its body.
    fn over_http2(&mut self, scheme: Scheme) -> Result<Request<()>, ForwardError> {
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(self.target.clone());
        parts.authority = Some(self.authority.clone());
        parts.scheme = Some(scheme);
        let uri = Uri::from_parts(parts).map_err(|error| ForwardError::Spell { source: error.into() })?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = std::mem::take(&mut self.headers);
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(TRANSFER_ENCODING);
        Ok(request)
    }
}

/// Sends a request and waits for the head of the response.
pub(super) async fn send<T: Transport>(
    pool: &Pool<T>,
    dialer: &Dialer,
    limits: &ForwardLimits,
    route: &Route,
    outbound: Box<Outbound>,
) -> Result<Response<UpstreamBody>, ForwardError> {
    let kept = if outbound.again { None } else { pool.connections().take(route) };
    let (sender, reused) = match kept {
        Some(sender) => (sender, true),
        None => (open(pool, dialer, route, &outbound.transfer).await?, false),
    };
    outbound.transfer.note_reached(route.addr.0, sender.addr().0);
    let number = sender.number();
    let (mut asked, body) = outbound.split();
    let exchanged = exchange(pool, limits, route, &mut asked, sender, body, reused).await;
    let forget = || {
        if let Some(number) = number {
            pool.connections().forget(route, number);
        }
    };
    let body = match exchanged {
        Ok(response) => return Ok(response),
        Err(Failed::Unsent(body, _)) if reused && !asked.transfer.is_taken() => body,
        Err(Failed::Unsent(_, error) | Failed::Sent(error)) => {
            if matches!(error, ForwardError::Untaken { .. }) {
                forget();
            }
            return Err(error);
        }
    };
    // The connection had gone stale while it waited, and nothing of the request was sent.
    forget();
    let sender = open(pool, dialer, route, &asked.transfer).await?;
    asked.transfer.note_reached(route.addr.0, sender.addr().0);
    // Hardly ever, so calls have no room for it.
    let exchanged = Box::pin(exchange(pool, limits, route, &mut asked, sender, *body, false)).await;
    exchanged.map_err(|failed| match failed {
        Failed::Unsent(_, error) | Failed::Sent(error) => error,
    })
}

/// Opens a connection; where that ended, when it came to an end elsewhere than was chosen, is for the journal.
async fn open<T: Transport>(
    pool: &Pool<T>,
    dialer: &Dialer,
    route: &Route,
    transfer: &Transfer,
) -> Result<Sender, ForwardError> {
    // Kilobytes of state, which calls over a connection that is open already have no use for.
    let opened = Box::pin(pool.open(route, dialer)).await;
    opened.inspect_err(|error| {
        if let Some(addr) = error.reached() {
            transfer.note_reached(route.addr.0, addr);
        }
    })
}

/// Whether the server said that it did not process the request of this stream.
///
/// In the h2 crate, of streams that were opened only those behind the last one of a GOAWAY end with that GOAWAY; the others end as their
/// connection does.
fn is_refused(error: &h2::Error) -> bool {
    error.is_remote()
        && match error.reason() {
            // Once more would be too much again.
            Some(h2::Reason::ENHANCE_YOUR_CALM) => false,
            reason => error.is_go_away() || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)),
        }
}

enum Failed {
    /// The body came back as it was, and nothing was sent.
    Unsent(Box<RequestBody>, ForwardError),
    /// The upstream may have seen it.
    Sent(ForwardError),
}

impl From<ForwardError> for Failed {
    fn from(error: ForwardError) -> Self {
        Self::Sent(error)
    }
}

async fn exchange<T: Transport>(
    pool: &Pool<T>,
    limits: &ForwardLimits,
    route: &Route,
    asked: &mut Asked,
    sender: Sender,
    body: RequestBody,
    reused: bool,
) -> Result<Response<UpstreamBody>, Failed> {
    let addr = sender.addr().0;
    let response = match sender {
        Sender::Http1(lane) => over_http1(pool, limits, route, asked, lane, body, reused).await?,
        Sender::Http2(shared) => over_http2::<T>(limits, asked, shared, body).await?,
    };
    asked.transfer.settle();
    // Over HTTP/2 it is nobody's framing, but would be that of the client over HTTP/1.
    if response.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Failed::Sent(ForwardError::Ambiguous { addr, fault: Fault::Lengths }));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asked.upgrade {
        return Err(Failed::Sent(ForwardError::Unasked { addr }));
    }
    Ok(response)
}

async fn over_http1<T: Transport>(
    pool: &Pool<T>,
    limits: &ForwardLimits,
    route: &Route,
    asked: &mut Asked,
    lane: Lane,
    body: RequestBody,
    reused: bool,
) -> Result<Response<UpstreamBody>, ForwardError> {
    let (addr, transfer) = (lane.addr(), Arc::clone(&asked.transfer));
    let mut exchange = asked.over_http1(lane, body)?;
    let interims = &mut asked.interims;
    let head = {
        let head = pin!(exchange.head(|head| interims.send(head.status, head.headers, head.wire)));
        in_time(head, limits.response_time, addr, &transfer).await?
    };
    let head = match head {
        Ok(head) => head,
        Err(_) if transfer.unkept().is_some() => return Err(unkept(&transfer)),
        Err(source) if transfer.is_broken() => return Err(ForwardError::Client { source: source.into() }),
        Err(http1::Error::Ambiguous(fault)) => return Err(ForwardError::Ambiguous { addr, fault }),
        Err(source) => {
            let idempotent = asked.method.is_idempotent();
            let is_untaken = reused && idempotent && !exchange.is_answered() && source.is_ended();
            let source = source.into();
            return Err(match is_untaken {
                true => ForwardError::Untaken { addr, source },
                false => ForwardError::Broken { addr, source },
            });
        }
    };
    let http1::head::ResponseHead { status, headers, wire, keep_alive: _ } = head;
    let (connections, route) = (Arc::clone(pool.connections()), route.clone());
    let body = UpstreamBody::http1(Borrowed { exchange, connections, route, transfer }, wire);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The request's body could not be kept.
fn unkept(transfer: &Transfer) -> ForwardError {
    transfer.unkept().cloned().map_or(ForwardError::Unrecorded, ForwardError::Unkept)
}

async fn over_http2<T: Transport>(
    limits: &ForwardLimits,
    asked: &mut Asked,
    mut shared: Shared,
    body: RequestBody,
) -> Result<Response<UpstreamBody>, Failed> {
    let (addr, transfer) = (shared.addr.0, Arc::clone(&asked.transfer));
    let failed = |source: h2::Error| match (transfer.is_broken(), is_refused(&source)) {
        _ if transfer.unkept().is_some() => unkept(&transfer),
        (true, _) => ForwardError::Client { source: source.into() },
        (false, true) => ForwardError::Untaken { addr, source: source.into() },
        (false, false) => ForwardError::Broken { addr, source: source.into() },
    };
    // Asked here, as long as the request is as it was.
    if let Some(error) = shared.handle.closed() {
        return Err(Failed::Unsent(Box::new(body), failed(error)));
    }
    let waits =
        asked.headers.get(EXPECT).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let request = asked.over_http2(T::scheme())?;
    let exchange = shared.handle.begin(request, body, waits).map_err(|error| match error {
        // Closed just now: it did not take it either.
        error if error.is_io() || error.is_go_away() => ForwardError::Untaken { addr, source: error.into() },
        error => failed(error),
    })?;
    let interims = &mut asked.interims;
    let answer = pin!(exchange.answer(|status, headers| interims.send(status, headers, Wire::default())));
    let answer = in_time(answer, limits.response_time, addr, &transfer).await?;
    answer.map(|answer| answer.map(UpstreamBody::http2)).map_err(|error| failed(error).into())
}

/// Waits for the head of the response, as long as the request's body goes on or the time is not over.
async fn in_time<R>(
    mut sending: Pin<&mut impl Future<Output = R>>,
    limit: Duration,
    addr: SocketAddr,
    transfer: &Transfer,
) -> Result<R, ForwardError> {
    let progress = || (transfer.sent(), transfer.is_whole());
    let mut before = progress();
    loop {
        match timeout(limit, sending.as_mut()).await {
            Ok(sent) => return Ok(sent),
            Err(_) if progress() != before => before = progress(),
            Err(_) if !transfer.is_whole() => {
                return Err(ForwardError::RequestStalled { addr, limit });
            }
            Err(_) => return Err(ForwardError::ResponseTimeout { addr, limit }),
        }
    }
}
