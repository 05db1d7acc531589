//! Bodies on their way through: counted frame by frame, never collected. Those of requests; [`super::reply`] has the others.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use proxy_journal::RemovedCredential;
use tokio::sync::{Notify, SemaphorePermit};

use super::unpack::UnpackError;
use crate::authorize::Refusal;
use crate::credentials::ChunkError;
use crate::http1::{self, Wire};
use crate::http2::{self, Breaks};
use crate::record::NotKept;

/// Counters of one call, shared by the two directions.
#[derive(Debug, Default)]
pub struct Transfer {
    sent: AtomicU64,
    received: AtomicU64,
    pub(super) taken: AtomicBool,
    pub(super) whole: AtomicBool,
    pub(super) broken: AtomicBool,
    pub(super) cut: AtomicBool,
    removed: OnceLock<Vec<RemovedCredential>>,
    reflected: AtomicBool,
    repeated: AtomicBool,
    answered: AtomicBool,
    unkept: OnceLock<NotKept>,
    elsewhere: Mutex<Option<SocketAddr>>,
    returned: Mutex<Returned>,
    is_back: Notify,
}

/// What became of a request's body that was given to a connection which did not take the request.
#[derive(Debug, Default)]
enum Returned {
    /// It is under way.
    #[default]
    NotYet,
    /// It can be sent again, as it came.
    Whole(Replay),
    /// It cannot, or nobody will ask for it.
    Settled,
}

impl Transfer {
    /// Bytes that went to the upstream.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes at which address the call is in the end, if that is another one than was chosen.
    pub fn note_reached(&self, chosen: SocketAddr, reached: SocketAddr) {
        let elsewhere = (chosen != reached).then_some(reached);
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere;
    }

    /// The address at which it is, if that is another one than was chosen.
    #[must_use]
    pub fn elsewhere(&self) -> Option<SocketAddr> {
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that came from the upstream.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether anything of the request's body was taken, so that it cannot be sent a second time.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether the request's body was read to its end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Whether the client broke off in the request's body.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Notes that the request's body must be kept for auditors, and cannot be.
    pub(super) fn note_unkept(&self, why: NotKept) {
        let _ = self.unkept.set(why);
    }

    /// Why the request's body cannot be kept, if it must be.
    #[must_use]
    pub fn unkept(&self) -> Option<&NotKept> {
        self.unkept.get()
    }

    /// Has the request's body break off at the next look: the call is not permitted any more.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// Notes what was taken out of the request before it was sent.
    pub fn note_removed(&self, removed: Vec<(String, String)>) {
        let removed =
            removed.into_iter().map(|(place, fingerprint)| RemovedCredential { place, fingerprint });
        let _ = self.removed.set(removed.collect());
    }

    /// Notes that the upstream sent the secret back, and that it was covered.
    pub fn note_reflected(&self) {
        self.reflected.store(true, Ordering::Release);
    }

    /// Whether the upstream sent the secret back.
    #[must_use]
    pub fn is_reflected(&self) -> bool {
        self.reflected.load(Ordering::Acquire)
    }

    /// Notes that the call is sent once more, with another credential.
    pub fn note_repeated(&self) {
        self.repeated.store(true, Ordering::Release);
        self.taken.store(false, Ordering::Release);
        *self.returned() = Returned::NotYet;
    }

    /// Notes that the call is sent once more, because nobody processed it, or as if nobody had. Its bytes are counted anew.
    pub fn restart(&self) {
        self.repeated.store(true, Ordering::Release);
        self.taken.store(false, Ordering::Release);
        self.sent.store(0, Ordering::Relaxed);
        *self.returned() = Returned::NotYet;
    }

    /// Notes that the upstream begins to answer: what was kept of the request's body to send it again is let go.
    pub fn settle(&self) {
        *self.returned() = Returned::Settled;
    }

    /// The request's body, if it comes back as it was. The connection that had it lets go of it at about the time at which it fails.
    pub async fn come_back(&self) -> Option<Replay> {
        const SOON: Duration = Duration::from_secs(1);
        let is_under_way = matches!(*self.returned(), Returned::NotYet);
        if is_under_way {
            let _ = tokio::time::timeout(SOON, self.is_back.notified()).await;
        }
        match std::mem::replace(&mut *self.returned(), Returned::Settled) {
            Returned::Whole(body) => Some(body),
            Returned::NotYet | Returned::Settled => None,
        }
    }

    /// Gives a body back; nothing, if it cannot be sent again.
    pub(super) fn give_back(&self, body: Option<Replay>) {
        let mut returned = self.returned();
        if matches!(*returned, Returned::NotYet) {
            *returned = body.map_or(Returned::Settled, Returned::Whole);
        }
        drop(returned);
        // Kept for whoever waits later.
        self.is_back.notify_one();
    }

    fn returned(&self) -> MutexGuard<'_, Returned> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was sent once more.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.repeated.load(Ordering::Acquire)
    }

    /// Notes that it is answered here, and sent to nobody.
    pub fn note_answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Whether it was answered here.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// What was taken out of the request.
    #[must_use]
    pub fn removed(&self) -> &[RemovedCredential] {
        self.removed.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds to the bytes that went to the upstream.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the bytes that came from the upstream.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Why a body breaks off.
#[derive(Debug)]
pub enum Broken<E> {
    /// Whoever sends it broke off.
    Sender(E),
    /// The policy does not permit the call any more.
    Cut,
    /// Behind the body stands what belongs into the head.
    Trailer(HeaderName),
    /// The client's body is not what its head says, and cannot be signed.
    Unsigned(ChunkError),
    /// It must be looked through, and cannot be unpacked for that.
    Packed(UnpackError),
    /// It must be kept for auditors, and cannot be.
    Unkept(NotKept),
}

impl<E: fmt::Display> fmt::Display for Broken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sender(error) => write!(f, "{error}"),
            Self::Cut => f.write_str("the policy does not permit the call any more"),
            Self::Trailer(name) => write!(f, "{name} stands in the trailers"),
            Self::Unsigned(error) => write!(f, "{error}"),
            Self::Unkept(error) => write!(f, "{error}"),
            Self::Packed(error) => write!(f, "it cannot be unpacked: {error}"),
        }
    }
}

impl<E: Error> Error for Broken<E> {}

impl<E: Breaks> Breaks for Broken<E> {
    fn reason(&self) -> Reason {
        match self {
            Self::Sender(error) => error.reason(),
            _ => Reason::INTERNAL_ERROR,
        }
    }
}

impl<E> From<ChunkError> for Broken<E> {
    fn from(error: ChunkError) -> Self {
        Self::Unsigned(error)
    }
}

/// Ends when a call is not permitted any more, with the refusal. Never, for most calls.
pub struct Lapse(pub Pin<Box<dyn Future<Output = Refusal> + Send>>);

impl Lapse {
    /// What cannot lapse.
    #[must_use]
    pub fn never() -> Self {
        Self(Box::pin(std::future::pending()))
    }
}

impl Future for Lapse {
    type Output = Refusal;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Refusal> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lapse")
    }
}

pub(super) fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

/// What a body comes over broke off.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A connection over HTTP/1.
    #[error(transparent)]
    Http1(#[from] http1::Error),
    /// A stream of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl StreamError {
    /// What the system, or TLS, said of the connection.
    #[must_use]
    pub fn io(&self) -> Option<&std::io::Error> {
        match self {
            Self::Http1(http1::Error::Io(error)) => Some(error),
            Self::Http1(_) => None,
            Self::Http2(error) => error.get_io(),
        }
    }
}

impl Breaks for StreamError {
    fn reason(&self) -> Reason {
        match self {
            Self::Http1(_) => Reason::INTERNAL_ERROR,
            Self::Http2(error) => Breaks::reason(error),
        }
    }
}

/// A body behind which another one is under way the other way: that of the request that it answers.
pub trait Paired: Body {
    /// Sends the other one on while nobody takes this one; ready when there is nothing left of it.
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// How the head before it stood on the wire, to be told to the client. Given once.
    fn take_wire(&mut self) -> Wire {
        Wire::default()
    }
}

/// The body of a message as it arrives.
#[derive(Debug)]
pub enum Incoming {
    /// Over HTTP/1.
    Http1(http1::Arriving),
    /// Over HTTP/2.
    Http2(http2::Arriving),
    /// None.
    Empty,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(StreamError::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(StreamError::from),
            Self::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

/// A body of which the beginning may have been read already: it gives the same frames once more, then the rest.
#[derive(Debug)]
pub struct Replay {
    pub(super) frames: VecDeque<Frame<Bytes>>,
    /// What was not read; nothing once the end was.
    pub(super) rest: Option<Incoming>,
    /// How the reading ended, when the client broke off.
    pub(super) broken: Option<StreamError>,
    /// What was known of the length before anything was read.
    sized: bool,
    /// Its place among those that are held whole.
    room: Option<SemaphorePermit<'static>>,
    /// Something was put into it: it is not as it came.
    pub(super) exchanged: bool,
}

impl Replay {
    /// A body of which nothing was read.
    #[must_use]
    pub fn of(incoming: Incoming) -> Self {
        let sized = incoming.size_hint().exact().is_some();
        Self {
            frames: VecDeque::new(),
            rest: Some(incoming),
            broken: None,
            sized,
            room: None,
            exchanged: false,
        }
    }

    /// Gives the place back when it is gone.
    pub(super) fn hold(&mut self, room: SemaphorePermit<'static>) {
        self.room = Some(room);
    }

    /// The same once more, if it is here as a whole: what was read of it is shared.
    #[must_use]
    pub fn copy(&self) -> Option<Self> {
        let ended = self.rest.as_ref().is_none_or(Body::is_end_stream);
        if !ended || self.broken.is_some() {
            return None;
        }
        let mut frames = VecDeque::with_capacity(self.frames.len());
        for frame in &self.frames {
            frames.push_back(match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => Frame::data(data.clone()),
                (_, Some(trailers)) => Frame::trailers(trailers.clone()),
                (None, None) => return None,
            });
        }
        let exchanged = self.exchanged;
        Some(Self { frames, rest: None, broken: None, sized: self.sized, room: None, exchanged })
    }

    /// Has other data in the place of what was read, which was all of it; trailers stay.
    pub(super) fn exchange(&mut self, data: Bytes) {
        self.frames.retain(|frame| !frame.is_data());
        self.frames.push_front(Frame::data(data));
        self.exchanged = true;
    }

    /// Puts what was taken of it back.
    pub(super) fn put_back(&mut self, mut taken: VecDeque<Frame<Bytes>>) {
        taken.append(&mut self.frames);
        self.frames = taken;
    }

    /// Leaves nothing in its place.
    pub(super) fn take(&mut self) -> Self {
        let Self { sized, exchanged, .. } = *self;
        let gone = Self { frames: VecDeque::new(), rest: None, broken: None, sized, room: None, exchanged };
        std::mem::replace(self, gone)
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.broken.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.frames.iter().filter_map(Frame::data_ref).map(length).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        match rest.exact() {
            // A body that came without a length goes on without one: there may be trailers behind it.
            Some(rest) if self.sized => SizeHint::with_exact(read + rest),
            _ => {
                let mut hint = SizeHint::new();
                hint.set_lower(read + rest.lower());
                hint
            }
        }
    }
}
