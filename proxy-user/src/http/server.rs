//! The server's side of HTTP/1 and HTTP/2 towards the workload.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};

use super::framing::{Fault, Message};
use super::guard::Guarded;
use super::watched::Watched;

/// What a client may take of us before its requests are decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's header, start line included; more is answered with 431.
    pub header_bytes: u32,
    /// Number of header fields; more is answered with 431.
    pub header_fields: usize,
    /// How long a request's header may take, which over HTTP/1 is also how long a connection may be idle.
    pub header_time: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_fields: 256,
            header_time: Duration::from_secs(60),
            streams: 250,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// As HTTP connections end.
    Done,
    /// The client went away, or its connection broke; its calls have said so themselves.
    ClientGone(hyper::Error),
    /// The header was larger than the limit. The client got 431.
    HeaderTooLarge,
    /// A header began and did not end in time. The client got 408.
    HeaderTimeout,
    /// What came is not a request. The client got 400, or an error of HTTP/2.
    Malformed(hyper::Error),
    /// Frames of HTTP/2 came without end that ask for nothing.
    Flooded,
    /// What came can be read in two ways. The client got 400.
    Ambiguous(Fault),
}

/// Answers the requests of one connection.
pub trait Handler: Send + Sync + 'static {
    /// The bodies of its responses.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static;

    /// Answers one request. There is always an answer; what cannot be answered to the end breaks off in its body.
    fn call(self: Arc<Self>, request: Request<Incoming>)
    -> impl Future<Output = Response<Self::Body>> + Send;

    /// Notes requests over HTTP/2 that were refused before anybody could answer them, because they are none: so many.
    fn malformed(&self, count: u32) -> impl Future<Output = ()> + Send;
}

/// Serves HTTP/1.0 and 1.1 until the client is done, or the drain lets the last request end.
///
/// In the drain each response says that it is the last one (`connection: close`). A connection that rests then is closed,
/// but not at once: a request may be on its way, and one that is answered need not be sent again.
///
/// After a WebSocket that was asked for and is not given, the connection ends: the client may have gone on as if it was.
pub async fn serve_http1<S, H>(
    stream: S,
    limits: &HttpLimits,
    drain: watch::Receiver<bool>,
    handler: Arc<H>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    let begun = Arc::new(AtomicBool::new(false));
    let (seen, last) = (Arc::clone(&begun), drain.clone());
    let stream = Guarded::new(stream, Message::Requests);
    let signals = Arc::clone(stream.signals());
    let service = service_fn(move |request| {
        let (handler, last, signals) = (Arc::clone(&handler), last.clone(), Arc::clone(&signals));
        seen.store(true, Ordering::Relaxed);
        // A call is kilobytes of state, which would be moved from hand to hand.
        Box::pin(async move {
            let mut response = handler.call(request).await;
            let is_last = *last.borrow() || signals.is_free();
            if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        })
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_header_size(header_bytes)
        .max_headers(limits.header_fields)
        .max_buf_size(header_bytes.saturating_mul(4).max(8192))
        .preserve_header_case(true)
        // The response is the upstream's: it brings its own date, or none.
        .auto_date_header(false)
        // A client that has sent all and shuts down its side still wants the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = connection;
    let mut draining = pin!(drained(drain));
    let mut draining_now = false;
    let result = tokio::select! {
        result = &mut connection => result,
        () = draining.as_mut() => {
            draining_now = true;
            let grace = if begun.load(Ordering::Relaxed) { REST } else { FIRST_REQUEST };
            if let Ok(result) = tokio::time::timeout(grace, &mut connection).await {
                result
            } else {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    let (stream, fault, unread) = match connection.into_parts() {
        Some(parts) => {
            let guarded = parts.io.into_inner();
            let fault = guarded.signals().fault();
            (Some(guarded.into_inner()), fault, parts.read_buf)
        }
        // It is a WebSocket now.
        None => (None, None, Bytes::new()),
    };
    let ended = match result {
        Ok(()) => Ended::Done,
        // hyper has answered.
        Err(error) if error.is_parse_too_large() => Ended::HeaderTooLarge,
        Err(error) if error.is_parse() => fault.map_or(Ended::Malformed(error), Ended::Ambiguous),
        Err(error) if error.is_timeout() => {
            // Something came, but not all of a header.
            if let Some(mut stream) = stream.filter(|_| !unread.is_empty()) {
                answer_timeout(&mut stream).await;
                return Ended::HeaderTimeout;
            }
            // Kept alive for long enough.
            return Ended::Done;
        }
        Err(error) => return Ended::ClientGone(error),
    };
    if let Some(mut stream) = stream {
        linger(&mut stream, if draining_now { LINGER_DRAINING } else { LINGER_TIME }).await;
    }
    ended
}

/// Serves HTTP/2 until the client is done, or the drain (GOAWAY) lets the last requests end. One that has asked for nothing
/// yet may ask first; but not for longer than a header may take.
pub async fn serve_http2<S, H>(
    stream: S,
    limits: &HttpLimits,
    drain: watch::Receiver<bool>,
    handler: Arc<H>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let begun = Arc::new(Notify::new());
    let seen = Arc::clone(&begun);
    let stream = Watched::new(stream);
    let findings = Arc::clone(stream.findings());
    let answers = Arc::clone(&handler);
    let served = Arc::new(AtomicBool::new(false));
    let any = Arc::clone(&served);
    let service = service_fn(move |request| {
        let handler = Arc::clone(&answers);
        any.store(true, Ordering::Relaxed);
        // Kept for whoever asks later.
        seen.notify_one();
        Box::pin(async move { Ok::<_, Infallible>(handler.call(request).await) })
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // h2 answers 431 to more by itself, unseen; what is between is refused, and recorded, with its request.
            .max_header_list_size(limits.header_bytes.saturating_mul(4).max(SEEN_HEADER_LIST))
            .max_concurrent_streams(limits.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut draining = pin!(async {
        drained(drain).await;
        let _ = tokio::time::timeout(FIRST_REQUEST, begun.notified()).await;
    });
    let mut is_draining = false;
    let mut first = pin!(tokio::time::sleep(limits.header_time));
    let mut is_late = false;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = first.as_mut(), if !is_late => {
                is_late = true;
                if !served.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                    // It may have come just now.
                    let ended = tokio::time::timeout(REST, connection.as_mut()).await;
                    if !served.load(Ordering::Relaxed) {
                        return if findings.is_asked() { Ended::HeaderTimeout } else { Ended::Done };
                    }
                    if let Ok(result) = ended {
                        break result;
                    }
                }
            }
            () = draining.as_mut(), if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            count = findings.resets() => handler.malformed(count).await,
        }
    };
    if let Some(count) = findings.take_resets() {
        handler.malformed(count).await;
    }
    match result {
        Ok(()) => Ended::Done,
        Err(_) if findings.is_flooded() => Ended::Flooded,
        Err(error) if is_protocol_error(&error) => Ended::Malformed(error),
        Err(error) => Ended::ClientGone(error),
    }
}

/// Bytes of one request's body that may be under way before the upstream took them.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for all requests of a connection.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of an HTTP/2 header list (RFC 9113 §10.5.1: names, values and 32 for each field) that are read at least,
/// to refuse and record them.
const SEEN_HEADER_LIST: u32 = 2 * 1024 * 1024;
/// Bytes that one stream may have waiting to be written.
const MAX_SEND_BUFFER: usize = 256 * 1024;

/// What is still read, and for how long, of a client whose request was answered before its end.
const LINGER_BYTES: u64 = 16 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// The same in the drain, of a connection that is only resting.
const LINGER_DRAINING: Duration = Duration::from_millis(200);

/// How long a connection may rest in the drain until it is closed.
const REST: Duration = Duration::from_millis(500);
/// How long one may take in the drain until its first request: it was accepted, so it is served.
const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// Ends when the drain begins; never, when whoever would begin it is gone.
async fn drained(mut drain: watch::Receiver<bool>) {
    if drain.wait_for(|draining| *draining).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether the peer broke the rules of HTTP/2, as opposed to the connection being gone.
fn is_protocol_error(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return false;
        }
        source = cause.source();
    }
    // Otherwise it is an error of h2 with a reason of its own.
    std::error::Error::source(error).is_some()
}

/// Writes the answer to a header that did not come in time. Best effort: the connection is closed after it.
async fn answer_timeout<S: AsyncWrite + Unpin>(stream: &mut S) {
    const ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let write = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    // Whoever does not send does perhaps not read, either.
    let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
}

/// Ends our half and reads on for a while: to close a socket with bytes unread resets it, and the reset can overtake our
/// answer (RFC 9112 §9.6).
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, time: Duration) {
    let drain = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(time, drain).await;
}
