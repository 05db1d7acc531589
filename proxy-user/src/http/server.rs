//! The server's side of HTTP/2 towards the workload, and what it has in common with that of HTTP/1 ([`super::server1`]).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use super::body::{Incoming, StreamError};
use super::watched::Watched;
use crate::http1::Fault;

/// What a client may take of us before its requests are decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's header, start line included; more is answered with 431.
    pub header_bytes: u32,
    /// Number of header fields; more is answered with 431.
    pub header_fields: usize,
    /// How long a request's header may take.
    pub header_time: Duration,
    /// How long a client may take nothing of an answer; at most twice as long until that is noticed.
    pub write_time: Duration,
    /// How long a connection may rest between two requests.
    pub idle_time: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_fields: 256,
            header_time: Duration::from_secs(60),
            write_time: Duration::from_secs(300),
            idle_time: Duration::from_secs(90),
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
    ClientGone(StreamError),
    /// The header was larger than the limit. The client got 431.
    HeaderTooLarge,
    /// A header began and did not end in time. The client got 408.
    HeaderTimeout,
    /// What came is not a request. The client got 400, or an error of HTTP/2.
    Malformed(StreamError),
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
        Box::pin(async move { Ok::<_, Infallible>(handler.call(request.map(Incoming::Http2)).await) })
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // h2 answers 431 to more by itself, unseen; what is between is refused, and recorded, with its request.
            .max_header_list_size(limits.header_bytes.saturating_mul(4).max(SEEN_HEADER_LIST))
            .max_concurrent_streams(limits.streams)
            .enable_connect_protocol()
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
        Err(error) if is_protocol_error(&error) => Ended::Malformed(error.into()),
        Err(error) => Ended::ClientGone(error.into()),
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

/// How long a connection may rest in the drain until it is closed.
pub(super) const REST: Duration = Duration::from_millis(500);
/// How long one may take in the drain until its first request: it was accepted, so it is served.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// Ends when the drain begins; never, when whoever would begin it is gone.
pub(super) async fn drained(mut drain: watch::Receiver<bool>) {
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
