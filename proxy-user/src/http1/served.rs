//! A client's connection: its requests one after another, each with its body, and what answers them.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::framing::{Extent, Message};
use super::head::{self, Wire};
use super::inlet::Inlet;
use super::outlet::{Encoding, Outlet};
use super::{Error, Io, Switched};

/// A client's connection. The body of a request and whoever answers it share it, so that either can be ahead of the other.
#[derive(Debug)]
pub struct Served<S>(Arc<Mutex<Halves<S>>>);

#[derive(Debug)]
struct Halves<S> {
    io: S,
    inlet: Inlet,
    outlet: Outlet,
    /// The client waits for 100 before it sends the body.
    expects: bool,
    /// Who waits for the end of the body, to look for the end of the connection.
    watcher: Option<Waker>,
}

/// A response, without its body.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Of the request.
    pub version: Version,
    /// Whether the request was HEAD.
    pub to_head: bool,
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of a hop.
    pub headers: &'a HeaderMap,
    /// How they were spelled, and what stands behind the status.
    pub wire: &'a Wire,
    /// Whether the connection may be used for another request.
    pub keep_alive: bool,
}

/// Why a response did not get out.
#[derive(Debug)]
pub enum Unanswered {
    /// The client's connection broke.
    Client(io::Error),
    /// The body broke off.
    Body,
}

impl<S: Io + 'static> Served<S> {
    /// Serves a stream.
    #[must_use]
    pub fn new(io: S) -> Self {
        let (inlet, outlet) = (Inlet::new(Message::Requests), Outlet::new());
        Self(Arc::new(Mutex::new(Halves { io, inlet, outlet, expects: false, watcher: None })))
    }

    fn halves(&self) -> MutexGuard<'_, Halves<S>> {
        lock(&self.0)
    }

    /// The next head, of at most `most` bytes; nothing when the client is done.
    ///
    /// # Errors
    /// It is none, or does not come whole.
    pub async fn head(&self, most: usize) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| {
            let Halves { io, inlet, .. } = &mut *self.halves();
            inlet.poll_head(io, cx, most)
        })
        .await
    }

    /// Ends when part of a head is here.
    pub async fn begins(&self) {
        poll_fn(|_| if self.is_within_head() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Whether part of a head came, and the rest did not.
    #[must_use]
    pub fn is_within_head(&self) -> bool {
        !self.halves().inlet.is_empty()
    }

    /// How many bytes were written so far, if some wait to be: the client does not take them.
    #[must_use]
    pub fn waits_to_write(&self) -> Option<u64> {
        let halves = self.halves();
        (!halves.outlet.is_flushed()).then(|| halves.outlet.written())
    }

    /// Whether what follows may not be HTTP any more.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.halves().inlet.framing().is_free()
    }

    /// The body of the request whose head was taken last.
    #[must_use]
    pub fn body(&self, expects: bool) -> Arriving {
        let mut halves = self.halves();
        let extent = halves.inlet.extent();
        halves.expects = expects && extent != Extent::None;
        let left = match extent {
            Extent::None => Some(0),
            Extent::Length(length) => Some(length),
            Extent::Chunks | Extent::UntilClose => None,
        };
        let source = (extent != Extent::None).then(|| Arc::clone(&self.0) as Arc<dyn Source>);
        Arriving { source, left }
    }

    /// Where interim responses go.
    #[must_use]
    pub fn interims(&self) -> Interims {
        Interims(Arc::clone(&self.0) as Arc<dyn Source>)
    }

    /// Ends when the connection breaks, once the request is here as a whole.
    pub async fn gone(&self) -> io::Error {
        poll_fn(|cx| {
            let mut halves = self.halves();
            let Halves { io, inlet, watcher, .. } = &mut *halves;
            let framing = inlet.framing();
            if framing.is_free() {
                return Poll::Pending;
            }
            if !framing.is_over() {
                *watcher = Some(cx.waker().clone());
                return Poll::Pending;
            }
            inlet.poll_ahead(io, cx)
        })
        .await
    }

    /// Answers; whether the connection may be used for another request, as far as the response goes.
    ///
    /// # Errors
    /// The client went away, or the body broke off.
    pub async fn answer<B>(&self, answer: Answer<'_>, body: B) -> Result<bool, Unanswered>
    where
        B: Body<Data = Bytes>,
    {
        let (encoding, keep_alive) = encoding(&answer, &body);
        {
            let mut halves = self.halves();
            halves.expects = false;
            write_head(halves.outlet.begin(encoding), &answer, encoding, keep_alive);
        }
        let mut body = pin!(body);
        let mut has_ended = encoding == Encoding::None;
        let written = poll_fn(|cx| self.poll_answer(cx, body.as_mut(), &mut has_ended)).await;
        match written {
            Err(Unanswered::Body) => {
                // What came is for the client, and then it learns that this is not all.
                let flush = poll_fn(|cx| {
                    let Halves { io, outlet, .. } = &mut *self.halves();
                    outlet.poll_write(io, cx)
                });
                let _ = tokio::time::timeout(FLUSH, flush).await;
                Err(Unanswered::Body)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(keep_alive),
        }
    }

    fn poll_answer<B>(
        &self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut B>,
        has_ended: &mut bool,
    ) -> Poll<Result<(), Unanswered>>
    where
        B: Body<Data = Bytes>,
    {
        loop {
            let has_room = {
                let Halves { io, outlet, .. } = &mut *self.halves();
                if *has_ended || !outlet.has_room() {
                    ready!(outlet.poll_write(io, cx)).map_err(Unanswered::Client)?;
                }
                !*has_ended
            };
            if !has_room {
                return Poll::Ready(Ok(()));
            }
            // Not while the halves are held: a body can be the upstream's answer that sends the request's.
            let frame = body.as_mut().poll_frame(cx);
            let Halves { io, inlet, outlet, watcher, .. } = &mut *self.halves();
            let put = match frame {
                Poll::Pending => {
                    ready!(outlet.poll_write(io, cx)).map_err(Unanswered::Client)?;
                    let framing = inlet.framing();
                    if framing.is_over()
                        && let Poll::Ready(error) = inlet.poll_ahead(io, cx)
                    {
                        return Poll::Ready(Err(Unanswered::Client(error)));
                    }
                    *watcher = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Unanswered::Body)),
                Poll::Ready(None) => {
                    *has_ended = true;
                    outlet.end(None)
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let put = outlet.data(data);
                        if put.is_ok() && body.is_end_stream() {
                            *has_ended = true;
                            outlet.end(None)
                        } else {
                            put
                        }
                    }
                    Err(frame) => {
                        *has_ended = true;
                        outlet.end(frame.trailers_ref())
                    }
                },
            };
            if put.is_err() {
                return Poll::Ready(Err(Unanswered::Body));
            }
        }
    }

    /// Whether another request may follow: the last one was read to its end, or what is left of it is here already.
    pub fn next(&self) -> bool {
        let Halves { io, inlet, .. } = &mut *self.halves();
        if inlet.framing().is_free() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..MOST_SKIPPED {
            if inlet.framing().is_over() {
                inlet.begin();
                return true;
            }
            if !matches!(inlet.poll_body(io, &mut cx), Poll::Ready(Ok(_))) {
                return false;
            }
        }
        false
    }

    /// Writes a few bytes of ours, as far as they can be written in the time.
    pub async fn say(&self, text: &'static [u8], time: std::time::Duration) {
        self.halves().outlet.begin(Encoding::None).extend_from_slice(text);
        let written = poll_fn(|cx| {
            let Halves { io, outlet, .. } = &mut *self.halves();
            outlet.poll_write(io, cx)
        });
        let _ = tokio::time::timeout(time, written).await;
    }

    /// The stream, and what was read of it; nothing while a body is still out.
    #[must_use]
    pub fn into_inner(self) -> Option<(S, Bytes)> {
        let halves = Arc::try_unwrap(self.0).ok()?.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Halves { io, mut inlet, .. } = halves;
        Some((io, inlet.take_rest()))
    }
}

/// Frames of a request that nobody wanted, and that are here already, which are skipped to keep a connection.
const MOST_SKIPPED: usize = 16;
/// How long what came of a response that broke off may take to get out.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(2);

fn lock<T: ?Sized>(halves: &Mutex<T>) -> MutexGuard<'_, T> {
    halves.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the body of a response is framed, and whether the connection is kept after it (RFC 9112 §6).
fn encoding(answer: &Answer<'_>, body: &impl Body) -> (Encoding, bool) {
    let status = answer.status.as_u16();
    if answer.to_head || matches!(status, 100..=199 | 204 | 304) {
        return (Encoding::None, answer.keep_alive);
    }
    let said = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    match said.or(known) {
        Some(length) => (Encoding::Length(length), answer.keep_alive),
        None if answer.version == Version::HTTP_11 => (Encoding::Chunked, answer.keep_alive),
        None => (Encoding::UntilClose, false),
    }
}

fn write_head(out: &mut BytesMut, answer: &Answer<'_>, encoding: Encoding, keep_alive: bool) {
    head::write_status_line(out, answer.version, answer.status, answer.wire.reason.as_ref());
    let headers = answer.headers;
    let status = answer.status.as_u16();
    if matches!(status, 100..=199 | 204) && headers.contains_key(CONTENT_LENGTH) {
        let mut headers = headers.clone();
        headers.remove(CONTENT_LENGTH);
        head::write_fields(out, &headers, answer.wire.spelling.as_ref());
    } else {
        head::write_fields(out, headers, answer.wire.spelling.as_ref());
    }
    match encoding {
        Encoding::Length(length) if !headers.contains_key(CONTENT_LENGTH) => {
            use std::fmt::Write as _;
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Encoding::Chunked if !headers.contains_key(TRANSFER_ENCODING) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        _ => {}
    }
    if !headers.contains_key(CONNECTION) && answer.status != StatusCode::SWITCHING_PROTOCOLS {
        match (keep_alive, answer.version) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, Version::HTTP_10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, _) => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A frame, and whether it is the last.
type Piece = (Option<Frame<Bytes>>, bool);

/// Where the body of a request comes from.
trait Source: Send + Sync {
    /// The next frame, and whether it is the last.
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Piece, Error>>;

    /// Puts the head of an interim response before the response.
    fn interim(&self, write: &mut dyn FnMut(&mut BytesMut));
}

impl<S: Io> Source for Mutex<Halves<S>> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Piece, Error>> {
        let Halves { io, inlet, outlet, expects, watcher } = &mut *lock(self);
        if std::mem::take(expects) {
            outlet.begin(Encoding::None).extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // What does not fit now goes before the response.
            if let Poll::Ready(Err(error)) = outlet.poll_write(io, cx) {
                return Poll::Ready(Err(error.into()));
            }
        }
        let frame = ready!(inlet.poll_body(io, cx))?;
        let is_over = inlet.framing().is_over();
        if is_over && let Some(watcher) = watcher.take() {
            watcher.wake();
        }
        Poll::Ready(Ok((frame, is_over)))
    }

    fn interim(&self, write: &mut dyn FnMut(&mut BytesMut)) {
        let Halves { io, outlet, .. } = &mut *lock(self);
        write(outlet.begin(Encoding::None));
        // What does not fit now goes before the response, which also finds out whether the client is gone.
        let _ = outlet.poll_write(io, &mut Context::from_waker(Waker::noop()));
    }
}

/// Where interim responses go, while there is no response.
#[derive(Clone)]
pub struct Interims(Arc<dyn Source>);

impl Interims {
    /// Sends one: its status, its fields, and how they stood on the wire.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap, wire: &Wire) {
        self.0.interim(&mut |out| {
            head::write_status_line(out, Version::HTTP_11, status, wire.reason.as_ref());
            head::write_fields(out, headers, wire.spelling.as_ref());
            out.extend_from_slice(b"\r\n");
        });
    }
}

impl fmt::Debug for Interims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interims")
    }
}

/// The body of a request as it arrives.
pub struct Arriving {
    /// Nothing once it is over.
    source: Option<Arc<dyn Source>>,
    left: Option<u64>,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("is_over", &self.source.is_none()).field("left", &self.left).finish()
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(source) = &self.source else { return Poll::Ready(None) };
        let polled = ready!(source.poll_frame(cx));
        let (frame, is_over) = match polled {
            Ok(frame) => frame,
            Err(error) => {
                self.source = None;
                return Poll::Ready(Some(Err(error)));
            }
        };
        if let (Some(left), Some(data)) = (&mut self.left, frame.as_ref().and_then(Frame::data_ref)) {
            *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
        }
        if is_over {
            self.source = None;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Gives the stream, once the client has got 101.
#[derive(Clone)]
pub struct OnSwitch(Arc<Mutex<Option<oneshot::Receiver<Switched>>>>);

impl OnSwitch {
    /// With who gives it.
    #[must_use]
    pub fn new() -> (oneshot::Sender<Switched>, Self) {
        let (give, take) = oneshot::channel();
        (give, Self(Arc::new(Mutex::new(Some(take)))))
    }

    /// The stream; nothing when the client went away before.
    pub async fn stream(self) -> Option<Switched> {
        let take = lock(&self.0).take()?;
        take.await.ok()
    }
}

impl fmt::Debug for OnSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSwitch")
    }
}
