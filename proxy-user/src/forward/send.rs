//! One request over one connection, spelled for its version of HTTP; over another one if the first was stale.
//!
//! | a request that was sent, and its connection fails before the response | |
//! | --- | --- |
//! | `REFUSED_STREAM`, or GOAWAY with a last stream before it | not processed (RFC 9113 §8.7): may be sent again |
//! | HTTP/1, a kept connection ends without a byte, and the method is idempotent | as if not (RFC 9112 §9.3.1): may be sent again |
//! | anything else | may have been processed: never sent again |
//!
//! What may be sent again is [`ForwardError::Untaken`]; whoever has the request sends it, over a new connection.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::ForwardLimits;
use super::answer::{Borrowed, UpstreamBody};
use super::dial::Dialer;
use super::error::ForwardError;
use super::pool::{Pool, Route, Sender};
use super::transport::Transport;
use crate::credentials::Head;
use crate::http::framing::Fault;
use crate::http::{RequestBody, Transfer};

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

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
    /// Of the client's request; hyper keeps the case of header names there.
    pub extensions: Extensions,
    /// The body.
    pub body: RequestBody,
    /// The counters of the body.
    pub transfer: Arc<Transfer>,
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

    /// Takes out what a request is made of; [`Outbound`] keeps what is the same for all versions.
    fn spell(self, sender: &Sender, scheme: &str) -> Result<(Request<RequestBody>, Template), ForwardError> {
        let Self { method, target, authority, headers, extensions, body, transfer, upgrade, again: _ } = self;
        let idempotent = method.is_idempotent();
        let template = Template { target, authority, transfer, upgrade, idempotent };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        *request.extensions_mut() = extensions;
        template.apply(&mut request, sender, scheme)?;
        Ok((request, template))
    }
}

/// What is needed to spell a request again.
struct Template {
    target: PathAndQuery,
    authority: Authority,
    transfer: Arc<Transfer>,
    upgrade: bool,
    idempotent: bool,
}

impl Template {
    fn apply(
        &self,
        request: &mut Request<RequestBody>,
        sender: &Sender,
        scheme: &str,
    ) -> Result<(), ForwardError> {
        let spell = |source: http::Error| ForwardError::Spell { source };
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(self.target.clone());
        match sender {
            Sender::Http1(_) => {
                *request.version_mut() = Version::HTTP_11;
                let host = HeaderValue::from_str(self.authority.as_str()).map_err(|e| spell(e.into()))?;
                request.headers_mut().insert(HOST, host);
                if needs_chunks(request.method(), request.body()) {
                    request.headers_mut().insert(TRANSFER_ENCODING, CHUNKED);
                }
            }
            Sender::Http2(_) => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                request.headers_mut().remove(TRANSFER_ENCODING);
                parts.authority = Some(self.authority.clone());
                parts.scheme = Some(Scheme::try_from(scheme).map_err(|e| spell(e.into()))?);
            }
        }
        *request.uri_mut() = Uri::from_parts(parts).map_err(|e| spell(e.into()))?;
        Ok(())
    }
}

/// Whether a body must be announced, because hyper sends none of unknown length with these methods by itself.
fn needs_chunks(method: &Method, body: &RequestBody) -> bool {
    let rarely_has_one = matches!(*method, Method::GET | Method::HEAD);
    rarely_has_one && !body.is_end_stream() && body.size_hint().exact().is_none()
}

/// Sends a request and waits for the head of the response.
pub(super) async fn send<T: Transport>(
    pool: &Pool<T>,
    dialer: &Dialer,
    limits: &ForwardLimits,
    route: &Route,
    outbound: Outbound,
) -> Result<Response<UpstreamBody>, ForwardError> {
    let kept = if outbound.again { None } else { pool.connections().take(route) };
    let (sender, reused) = match kept {
        Some(sender) => (sender, true),
        None => (pool.open(route, dialer).await?, false),
    };
    let number = sender.number();
    let (request, template) = outbound.spell(&sender, T::SCHEME)?;
    let exchanged = exchange(pool, limits, route, &template, sender, request, reused).await;
    let forget = || {
        if let Some(number) = number {
            pool.connections().forget(route, number);
        }
    };
    let mut request = match exchanged {
        Ok(response) => return Ok(response),
        Err(Failed::Unsent(request, _)) if reused && !template.transfer.is_taken() => request,
        Err(Failed::Unsent(_, error) | Failed::Sent(error)) => {
            if matches!(error, ForwardError::Untaken { .. }) {
                forget();
            }
            return Err(error);
        }
    };
    // The connection had gone stale while it waited, and nothing of the request was sent.
    forget();
    let sender = pool.open(route, dialer).await?;
    template.apply(&mut request, &sender, T::SCHEME)?;
    exchange(pool, limits, route, &template, sender, *request, false).await.map_err(|failed| match failed {
        Failed::Unsent(_, error) | Failed::Sent(error) => error,
    })
}

/// Whether the server said that it did not process the request of this stream.
///
/// In the h2 crate, of streams that were opened only those behind the last one of a GOAWAY end with that GOAWAY; the others end as their
/// connection does.
fn is_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.filter(|error| error.is_remote()).is_some_and(|error| match error.reason() {
        // Once more would be too much again.
        Some(h2::Reason::ENHANCE_YOUR_CALM) => false,
        reason => error.is_go_away() || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)),
    })
}

/// Whether the connection ended, as one does that its server closed.
fn is_ended(error: &hyper::Error) -> bool {
    // The last one is TLS that ends without a word.
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || source.is_some_and(|error| {
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        })
}

enum Failed {
    /// The request came back as it was.
    Unsent(Box<Request<RequestBody>>, ForwardError),
    /// The upstream may have seen it.
    Sent(ForwardError),
}

async fn exchange<T: Transport>(
    pool: &Pool<T>,
    limits: &ForwardLimits,
    route: &Route,
    template: &Template,
    sender: Sender,
    request: Request<RequestBody>,
    reused: bool,
) -> Result<Response<UpstreamBody>, Failed> {
    let transfer = &template.transfer;
    let failed = |source: hyper::Error| {
        if transfer.is_broken() {
            return ForwardError::Client { source };
        }
        ForwardError::Broken { addr: route.addr.0, source }
    };
    let (response, connection) = match sender {
        Sender::Http1(mut lane) => {
            if let Err(error) = lane.sender.ready().await {
                return Err(Failed::Unsent(Box::new(request), failed(error)));
            }
            lane.signals.expect();
            let sending = lane.sender.try_send_request(request);
            let response = head(sending, limits.response_time, route, transfer).await;
            let response = response.map_err(|failed| match (failed, lane.signals.fault()) {
                (Failed::Sent(ForwardError::Broken { addr, .. }), Some(fault)) => {
                    Failed::Sent(ForwardError::Ambiguous { addr, fault })
                }
                (Failed::Sent(ForwardError::Broken { addr, source }), None)
                    if reused && template.idempotent && !lane.signals.is_answered() && is_ended(&source) =>
                {
                    Failed::Sent(ForwardError::Untaken { addr, source })
                }
                (failed, _) => failed,
            })?;
            (response, Some(lane))
        }
        Sender::Http2(mut shared) => {
            if let Err(error) = shared.sender.ready().await {
                return Err(Failed::Unsent(Box::new(request), failed(error)));
            }
            let sending = shared.sender.try_send_request(request);
            let response = head(sending, limits.response_time, route, transfer).await;
            let response = response.map_err(|failed| match failed {
                Failed::Sent(ForwardError::Broken { addr, source }) if is_refused(&source) => {
                    Failed::Sent(ForwardError::Untaken { addr, source })
                }
                failed => failed,
            })?;
            (response, None)
        }
    };
    transfer.settle();
    // Over HTTP/2 it is nobody's framing, but would be that of the client over HTTP/1.
    if response.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Failed::Sent(ForwardError::Ambiguous { addr: route.addr.0, fault: Fault::Lengths }));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match template.upgrade {
            true => Ok(response.map(|body| UpstreamBody::new(body, None))),
            false => Err(Failed::Sent(ForwardError::Unasked { addr: route.addr.0 })),
        };
    }
    let borrowed = connection.map(|lane| Borrowed {
        connections: Arc::clone(pool.connections()),
        route: route.clone(),
        lane,
        transfer: Arc::clone(transfer),
    });
    Ok(response.map(|body| UpstreamBody::new(body, borrowed)))
}

type Sent = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<RequestBody>>>;

/// Waits for the head of the response, as long as the request's body goes on or the time is not over.
async fn head(
    sending: impl Future<Output = Sent>,
    limit: Duration,
    route: &Route,
    transfer: &Transfer,
) -> Result<Response<Incoming>, Failed> {
    let mut sending = std::pin::pin!(sending);
    let progress = || (transfer.sent(), transfer.is_whole());
    let mut before = progress();
    let sent = loop {
        match timeout(limit, sending.as_mut()).await {
            Ok(sent) => break sent,
            Err(_) if progress() != before => before = progress(),
            Err(_) if !transfer.is_whole() => {
                return Err(Failed::Sent(ForwardError::RequestStalled { addr: route.addr.0, limit }));
            }
            Err(_) => return Err(Failed::Sent(ForwardError::ResponseTimeout { addr: route.addr.0, limit })),
        }
    };
    sent.map_err(|mut error| {
        let request = error.take_message();
        let source = error.into_error();
        let error = match transfer.is_broken() {
            true => ForwardError::Client { source },
            false => ForwardError::Broken { addr: route.addr.0, source },
        };
        match request {
            Some(request) => Failed::Unsent(Box::new(request), error),
            None => Failed::Sent(error),
        }
    })
}
