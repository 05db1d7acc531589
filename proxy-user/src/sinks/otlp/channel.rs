//! A connection to a collector that is kept from one request to the next, in HTTP/1.1 or in HTTP/2.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy_policy::SecretRef;
use tokio::task::JoinHandle;

use crate::credentials::{IssuerUrl, Outcall};
use crate::sinks::link::Secrets;
use crate::sinks::way::Trouble;
use crate::trust::{Alpn, UpstreamTls};
use crate::uplink::Uplink;

/// A request, from its first byte to the last one of its answer.
pub(super) const TIME: Duration = Duration::from_secs(15);
/// After so long another connection is opened: what changed meanwhile (addresses of a name, our certificate) is seen then.
const OPEN_FOR: Duration = Duration::from_secs(60);
/// What an answer may have at most, and its header.
const MAX_ANSWER_BYTES: usize = 256 << 10;
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// How a collector is reached.
pub(in crate::sinks) struct Place {
    pub(in crate::sinks) tls: UpstreamTls,
    pub(in crate::sinks) client: Option<(SecretRef, SecretRef)>,
    pub(in crate::sinks) uplink: Option<Arc<Uplink>>,
    pub(in crate::sinks) secrets: Secrets,
}

/// The way to one.
pub(super) struct Channel {
    place: Place,
    url: IssuerUrl,
    alpn: Alpn,
    kept: Option<Open>,
}

/// What a collector said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) body: Vec<u8>,
}

struct Open {
    sender: Sender,
    since: Instant,
    /// Carries the connection; ends with it.
    connection: JoinHandle<Result<(), hyper::Error>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Channel {
    /// `alpn` is HTTP/1.1 or HTTP/2.
    pub(super) fn new(place: Place, url: IssuerUrl, alpn: Alpn) -> Channel {
        Channel { place, url, alpn, kept: None }
    }

    pub(super) fn url(&self) -> &IssuerUrl {
        &self.url
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.place.secrets
    }

    /// Lets go of the connection.
    pub(super) fn reset(&mut self) {
        self.kept = None;
    }

    /// One request, on the connection that is there or on a new one.
    pub(super) async fn call(&mut self, request: &Request<Full<Bytes>>) -> Result<Answer, Trouble> {
        // Taken out while a request is on it: whoever cuts that short leaves no connection behind that has half of one.
        if let Some(mut kept) = self.kept.take().filter(Open::is_fit)
            && let Ok(answer) = kept.call(request.clone()).await
        {
            self.kept = Some(kept);
            return Ok(answer);
        }
        // A collector may close a connection that rests whenever it likes. What it got of the request comes twice at most.
        let mut open = self.open().await?;
        match open.call(request.clone()).await {
            Ok(answer) => {
                self.kept = Some(open);
                Ok(answer)
            }
            Err(what) => {
                let what = open.end().await.unwrap_or(what);
                Err(Trouble::new(format!("{}: {what}", self.url)))
            }
        }
    }

    async fn open(&self) -> Result<Open, Trouble> {
        let broke = |error: hyper::Error| Trouble::new(format!("{}: {}", self.url, told(&error)));
        let mut outcall = Outcall::new(self.place.tls.clone()).through(self.place.uplink.clone());
        if let Some(identity) = self.place.secrets.identity(self.place.client.as_ref())? {
            outcall = outcall.presenting(identity);
        }
        let stream = outcall.open(&self.url, self.alpn).await;
        let stream = TokioIo::new(stream.map_err(|error| Trouble::new(error.to_string()))?);
        let (sender, connection) = if self.alpn == Alpn::Http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MAX_HEADER_BYTES);
            let (sender, connection) = builder.handshake(stream).await.map_err(broke)?;
            (Sender::Http2(sender), tokio::spawn(connection))
        } else {
            let mut builder = http1::Builder::new();
            builder.max_headers(MAX_HEADERS);
            let (sender, connection) = builder.handshake(stream).await.map_err(broke)?;
            (Sender::Http1(sender), tokio::spawn(connection))
        };
        Ok(Open { sender, since: Instant::now(), connection })
    }
}

impl Open {
    fn is_fit(&self) -> bool {
        let closed = match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        };
        !closed && self.since.elapsed() < OPEN_FOR
    }

    async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let exchange = async {
            let answer = self.send(request).await.map_err(|error| told(&error))?;
            read(answer).await
        };
        let answer = tokio::time::timeout(TIME, exchange).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", TIME.as_secs())))
    }

    /// Why the connection ended, if it did: a request that it was cut off from says less (a TLS alert comes there, for one).
    async fn end(&mut self) -> Option<String> {
        let ended = tokio::time::timeout(Duration::from_millis(100), &mut self.connection).await;
        ended.ok()?.ok()?.err().map(|error| told(&error))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn read(answer: Response<Incoming>) -> Result<Answer, String> {
    let (head, mut incoming) = answer.into_parts();
    let (mut body, mut trailers) = (Vec::new(), None);
    while let Some(frame) = incoming.frame().await {
        match frame.map_err(|error| told(&error))?.into_data() {
            Ok(data) if body.len() + data.len() > MAX_ANSWER_BYTES => {
                return Err(format!("its answer has more than {MAX_ANSWER_BYTES} bytes"));
            }
            Ok(data) => body.extend_from_slice(&data),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, trailers, body })
}

/// An error with all that is behind it, in words.
fn told(error: &hyper::Error) -> String {
    let mut text = format!("it broke off: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
