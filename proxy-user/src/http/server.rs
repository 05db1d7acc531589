//! The server's side of HTTP/2 towards the workload, and what it has in common with that of HTTP/1 ([`super::server1`]).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::answer;
use super::body::{Incoming, Paired, StreamError};
use super::interims::Client;
use crate::http1::{Fault, Spelling};
use crate::http2::bell::{Bell, Part};
use crate::http2::gathered::{Gathered, Turn};
use crate::http2::watched::{Findings, Watched};
use crate::http2::{Breaks, CONNECTION_WINDOW, STREAM_WINDOW};

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
    type Body: Paired<Data = Bytes, Error: Breaks> + Unpin + Send + 'static;

    /// Answers one request, of which the names were spelled so; what comes before the answer goes to `client`. There is always an answer; what cannot be answered to the
    /// end breaks off in its body.
    fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        spelling: Option<Spelling>,
        client: Client,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Notes requests over HTTP/2 that were refused before anybody could answer them, because they are none: so many.
    fn malformed(&self, count: u32) -> impl Future<Output = ()> + Send;
}

/// Serves HTTP/2 until the client is done, or the drain (GOAWAY) lets the last requests end. One that rests for too long is ended so,
/// too, as is one whose header takes too long. In the drain, one that has asked for nothing yet may ask first.
///
/// All requests of the connection are answered in this task.
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
    let stream = Watched::new(stream);
    let findings = Arc::clone(stream.findings());
    let stream = Gathered::new(stream);
    let turn = stream.turn();
    let mut timer = pin!(sleep(limits.header_time));
    let opening = h2::server::Builder::new()
        // h2 answers 431 to more by itself, unseen; what is between is refused, and recorded, with its request.
        .max_header_list_size(limits.header_bytes.saturating_mul(4).max(SEEN_HEADER_LIST))
        .max_concurrent_streams(limits.streams)
        .enable_connect_protocol()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .handshake(stream);
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = timer.as_mut() => return Ended::Done,
        () = async { drained(drain.clone()).await; sleep(FIRST_REQUEST).await } => return Ended::Done,
    };
    let connection = match opened {
        Ok(connection) => connection,
        Err(error) => return ended(error, &findings),
    };
    let write_time = limits.write_time;
    let begin = |request, respond| answer(Arc::clone(&handler), request, respond, write_time);
    let note = |count| {
        let handler = Arc::clone(&handler);
        async move { handler.malformed(count).await }
    };
    let (answers, rest) = (FuturesUnordered::new(), Rest::new(limits));
    let mut talk = Talk { connection, answers, begin, note, noting: None, findings: &findings, turn, rest };
    let (bell, mut draining) = (Bell::new(), pin!(drained(drain)));
    let result = poll_fn(|cx| {
        if talk.rest.drained.is_none() && draining.as_mut().poll(cx).is_ready() {
            talk.rest.drained = Some(Instant::now());
            talk.rest.is_sooner = true;
            bell.ring(Part::Connection);
        }
        loop {
            let looked = bell.attend(cx, |cx, part| match part {
                Part::Streams => talk.answer(cx),
                Part::Connection => talk.listen(cx, &bell),
            });
            if let Poll::Ready(result) = looked {
                return Poll::Ready(Some(result));
            }
            if std::mem::take(&mut talk.rest.is_sooner) {
                timer.as_mut().reset(talk.rest.end());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match talk.rested() {
                Rested::Until(time) => timer.as_mut().reset(time),
                Rested::Told => bell.ring(Part::Connection),
                Rested::Over => return Poll::Ready(None),
            }
        }
    })
    .await;
    let Talk { mut connection, answers, noting, rest, .. } = talk;
    drop(answers);
    if let Some(noting) = noting {
        noting.await;
    }
    if let Some(count) = findings.take_resets() {
        handler.malformed(count).await;
    }
    match result {
        Some(Err(error)) => return ended(error, &findings),
        Some(Ok(())) => {}
        None => {
            connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            // Its end writes what waits.
            let _ = timeout(REST, poll_fn(|cx| connection.poll_closed(cx))).await;
        }
    }
    if rest.is_late && findings.is_within_header() { Ended::HeaderTimeout } else { Ended::Done }
}

/// A connection, and the requests that are answered.
struct Talk<'a, S, F, B, N, M> {
    connection: h2::server::Connection<Gathered<Watched<S>>, Bytes>,
    answers: FuturesUnordered<F>,
    /// Begins to answer a request.
    begin: B,
    /// Notes requests that are none.
    note: N,
    noting: Option<Pin<Box<M>>>,
    findings: &'a Findings,
    turn: Turn,
    rest: Rest,
}

impl<S, F, B, N, M> Talk<'_, S, F, B, N, M>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
    B: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    N: Fn(u32) -> M,
    M: Future<Output = ()>,
{
    /// Goes on with the requests.
    fn answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let was_busy = !self.answers.is_empty();
        while let Poll::Ready(Some(())) = self.answers.poll_next_unpin(cx) {}
        if was_busy && self.answers.is_empty() {
            self.rest.since = Instant::now();
            self.rest.is_sooner |= self.rest.closing.is_some();
        }
        Poll::Pending
    }

    /// Goes on with the connection: writes what the requests send, and takes those that come. Ready at its end.
    fn listen(&mut self, cx: &mut Context<'_>, bell: &Bell) -> Poll<Result<(), h2::Error>> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(asked) => {
                    let Some((request, respond)) = asked.transpose()? else { return Poll::Ready(Ok(())) };
                    self.rest.has_begun = true;
                    self.answers.push((self.begin)(request, respond));
                    bell.ring(Part::Streams);
                }
                // Once more, for what it has put together.
                Poll::Pending if self.turn.is_open() => {}
                Poll::Pending => break,
            }
        }
        let is_within = self.findings.is_within_header();
        if is_within != self.rest.within.is_some() {
            self.rest.within = is_within.then(Instant::now);
            self.rest.is_sooner |= is_within;
        }
        if self.rest.drained.is_some() && self.rest.has_begun && self.rest.closing.is_none() {
            self.close();
            bell.ring(Part::Connection);
        }
        if self.noting.is_none() {
            self.noting = self.findings.take_resets().map(|count| Box::pin((self.note)(count)));
        }
        if self.noting.as_mut().is_some_and(|noting| noting.as_mut().poll(cx).is_ready()) {
            self.noting = None;
            bell.ring(Part::Connection);
        }
        Poll::Pending
    }

    /// Says that no more requests are taken. Those that are on their way still are.
    fn close(&mut self) {
        self.connection.graceful_shutdown();
        self.rest.closing = Some(Instant::now());
        self.rest.is_sooner = true;
    }

    /// What becomes of the connection when its time is over.
    fn rested(&mut self) -> Rested {
        let now = Instant::now();
        if self.rest.is_stuck(self.findings.unwritten(), now) {
            return Rested::Over;
        }
        let is_closing = self.rest.closing.is_some();
        if !self.answers.is_empty() || self.connection.has_streams() {
            let Rest { header_time, idle_time, write_time, .. } = self.rest;
            let look = header_time.min(idle_time).min(write_time);
            return Rested::Until(now + if is_closing { REST } else { look });
        }
        // In the drain, what has begun has its time all the same.
        let end = match self.rest.within {
            Some(begun) if !self.rest.is_late => begun + self.rest.header_time,
            _ => self.rest.end(),
        };
        if now < end {
            return Rested::Until(end);
        }
        if is_closing {
            return Rested::Over;
        }
        self.rest.is_late = true;
        self.close();
        Rested::Told
    }
}

/// See [`Talk::rested`].
enum Rested {
    /// It has time until then.
    Until(Instant),
    /// The client is told, and has a while then.
    Told,
    /// It is ended.
    Over,
}

/// For how long a connection may rest. It is looked at only when the timer goes off: a request costs none.
struct Rest {
    header_time: Duration,
    idle_time: Duration,
    write_time: Duration,
    /// How much was written when it was first seen that the client takes no more, and when that was.
    stuck: Option<(u32, Instant)>,
    /// Since when nothing is asked.
    since: Instant,
    /// Something was asked.
    has_begun: bool,
    /// When the header began of which part is here.
    within: Option<Instant>,
    /// When the drain began.
    drained: Option<Instant>,
    /// When the client was told that no more is taken.
    closing: Option<Instant>,
    /// Because it rested for too long.
    is_late: bool,
    /// Its end is sooner than the timer knows.
    is_sooner: bool,
}

impl Rest {
    fn new(limits: &HttpLimits) -> Self {
        let HttpLimits { header_time, idle_time, write_time, .. } = *limits;
        Self {
            header_time,
            idle_time,
            write_time,
            stuck: None,
            since: Instant::now(),
            has_begun: false,
            within: None,
            drained: None,
            closing: None,
            is_late: false,
            is_sooner: false,
        }
    }

    /// Whether the client took nothing of what is there for it, for too long. `unwritten`: it does not take more now, and that much was
    /// written.
    fn is_stuck(&mut self, unwritten: Option<u32>, now: Instant) -> bool {
        self.stuck = match (unwritten, self.stuck) {
            (Some(written), Some((before, since))) if written == before => Some((before, since)),
            (unwritten, _) => unwritten.map(|written| (written, now)),
        };
        self.stuck.is_some_and(|(_, since)| now - since >= self.write_time)
    }

    /// When it is over, if nothing is asked until then.
    fn end(&self) -> Instant {
        let limit = match self.within {
            Some(begun) => begun + self.header_time,
            // A client that has just come has something to ask.
            None => self.since + if self.has_begun { self.idle_time } else { self.header_time },
        };
        match (self.closing, self.drained) {
            (Some(closing), _) => self.since.max(closing) + REST,
            (None, Some(drained)) => limit.min(drained + FIRST_REQUEST),
            (None, None) => limit,
        }
    }
}

/// Bytes of an HTTP/2 header list (RFC 9113 §10.5.1: names, values and 32 for each field) that are read at least,
/// to refuse and record them.
const SEEN_HEADER_LIST: u32 = 2 * 1024 * 1024;
/// Bytes that one stream may have waiting to be written.
const MAX_SEND_BUFFER: usize = 128 * 1024;

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

/// Whether the client broke the rules of HTTP/2, as opposed to having gone away.
fn ended(error: h2::Error, findings: &Findings) -> Ended {
    if findings.is_flooded() {
        Ended::Flooded
    } else if error.is_io() || error.is_remote() {
        Ended::ClientGone(error.into())
    } else {
        Ended::Malformed(error.into())
    }
}
