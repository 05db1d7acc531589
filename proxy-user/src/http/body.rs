//! Bodies on their way through: counted frame by frame, never collected.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use proxy_journal::{Blame, RemovedCredential};

use super::account::Account;
use crate::authorize::Refusal;
use crate::credentials::{ChunkError, Masker};

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
}

impl Transfer {
    /// Bytes that went to the upstream.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
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
#[derive(Debug, thiserror::Error)]
pub enum Broken<E> {
    /// Whoever sends it broke off.
    #[error("{0}")]
    Sender(E),
    /// The policy does not permit the call any more.
    #[error("the policy does not permit the call any more")]
    Cut,
    /// The client's body is not what its head says, and cannot be signed.
    #[error("{0}")]
    Unsigned(#[from] ChunkError),
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

/// A body of which the beginning may have been read already: it gives the same frames once more, then the rest.
#[derive(Debug)]
pub struct Replay {
    pub(super) frames: VecDeque<Frame<Bytes>>,
    /// What was not read; nothing once the end was.
    pub(super) rest: Option<Incoming>,
    /// How the reading ended, when the client broke off.
    pub(super) broken: Option<hyper::Error>,
    /// What was known of the length before anything was read.
    sized: bool,
}

impl Replay {
    /// A body of which nothing was read.
    #[must_use]
    pub fn of(incoming: Incoming) -> Self {
        let sized = incoming.size_hint().exact().is_some();
        Self { frames: VecDeque::new(), rest: Some(incoming), broken: None, sized }
    }

    /// Has other data in the place of what was read, which was all of it; trailers stay.
    pub(super) fn exchange(&mut self, data: Bytes) {
        self.frames.retain(|frame| !frame.is_data());
        self.frames.push_front(Frame::data(data));
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
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

/// The body of a response on its way to the client: ours, or the upstream's with the account of its call.
#[derive(Debug)]
pub enum ReplyBody<B: Body<Data = Bytes> + Unpin>
where
    B::Error: std::fmt::Display,
{
    /// A text of ours, given out once.
    Text(Option<Bytes>),
    /// What the upstream sends.
    Stream(Box<Metered<B>>),
}

impl<B: Body<Data = Bytes> + Unpin> ReplyBody<B>
where
    B::Error: std::fmt::Display,
{
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::Text(None)
    }

    /// A text of ours.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(Some(text.into()).filter(|text: &Bytes| !text.is_empty()))
    }

    /// What the upstream sends, with what `masker` finds covered; closes the account at its end, and breaks off when the call
    /// lapses.
    #[must_use]
    pub fn stream(inner: B, account: Account, lapse: Lapse, masker: Option<Masker>) -> Self {
        Self::Stream(Box::new(Metered { inner, account, lapse: Some(lapse), masker, behind: None }))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplyBody<B>
where
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Broken<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Stream(stream) => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, length)),
            Self::Stream(stream) => stream.inner.size_hint(),
        }
    }
}

/// A frame that was counted.
type Counted<E> = Result<Frame<Bytes>, Broken<E>>;

/// The upstream's body, counted, with the account of its call.
#[derive(Debug)]
pub struct Metered<B: Body<Data = Bytes> + Unpin> {
    inner: B,
    account: Account,
    /// Nothing once it was cut.
    lapse: Option<Lapse>,
    masker: Option<Masker>,
    /// What comes behind that which was held back.
    behind: Option<Frame<Bytes>>,
}

impl<B: Body<Data = Bytes> + Unpin> Metered<B>
where
    B::Error: std::fmt::Display,
{
    fn is_end(&self) -> bool {
        self.inner.is_end_stream()
            && self.behind.is_none()
            && self.masker.as_ref().is_none_or(|it| !it.holds())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Counted<B::Error>>> {
        if let Some(frame) = self.behind.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.lapse {
            None => return Poll::Ready(Some(Err(Broken::Cut))),
            // Asked first: an upstream that always has more would keep it from being heard.
            Some(lapse) => {
                if let Poll::Ready(refusal) = Pin::new(lapse).poll(cx) {
                    self.lapse = None;
                    self.account.cut(&refusal);
                    return Poll::Ready(Some(Err(Broken::Cut)));
                }
            }
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            None => {
                let rest = self.rest();
                self.account.close();
                return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
            }
            Some(Err(error)) => {
                self.account
                    .fail(Blame::Upstream, format!("the upstream broke off in the response: {error}"));
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.account.transfer().add_received(length(data));
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| self.masked(frame)).map_err(Broken::Sender)))
    }

    /// What was held back until the end.
    fn rest(&mut self) -> Option<Bytes> {
        let masker = self.masker.as_mut().filter(|masker| masker.holds())?;
        let (rest, found) = masker.next(Bytes::new(), true);
        if found {
            self.account.transfer().note_reflected();
        }
        Some(rest)
    }

    /// The frame as it may go on.
    fn masked(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let last = self.inner.is_end_stream();
        let Some(masker) = &mut self.masker else { return frame };
        let frame = match frame.into_data() {
            Ok(data) => {
                let (data, found) = masker.next(data, last);
                if found {
                    self.account.transfer().note_reflected();
                }
                return Frame::data(data);
            }
            Err(frame) => frame,
        };
        let frame = match frame.into_trailers() {
            Ok(mut trailers) => {
                if masker.needles().cover_headers(&mut trailers) {
                    self.account.transfer().note_reflected();
                }
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        };
        match self.rest() {
            Some(rest) => {
                self.behind = Some(frame);
                Frame::data(rest)
            }
            None => frame,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Drop for Metered<B> {
    fn drop(&mut self) {
        // A body whose length was known is dropped after its last byte, without a look for the end.
        if self.inner.is_end_stream() {
            self.account.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use http_body_util::BodyExt as _;

    use std::sync::Arc;

    use super::*;
    use crate::http::book::Book;
    use crate::limits::Pass;

    /// A body that gives these frames; one that ends with an error breaks there.
    struct Script(VecDeque<Result<&'static str, &'static str>>, bool);

    impl Body for Script {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            let next = self.0.pop_front();
            Poll::Ready(next.map(|next| next.map(|text| Frame::data(text.into())).map_err(io::Error::other)))
        }

        fn is_end_stream(&self) -> bool {
            self.1 && self.0.is_empty()
        }
    }

    fn reply(book: &Book, frames: &[Result<&'static str, &'static str>], sized: bool) -> ReplyBody<Script> {
        let mut account = Account::open(book.receipt(), Arc::default(), Pass::default());
        account.answered(http::StatusCode::OK);
        ReplyBody::stream(Script(frames.iter().copied().collect(), sized), account, Lapse::never(), None)
    }

    #[tokio::test]
    async fn the_end_of_a_body_completes_its_call_once() {
        let book = Book::new();
        let whole = reply(&book, &[Ok("abc"), Ok("de")], false).collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "abcde");
        let outcomes = book.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!((outcomes[0].status, outcomes[0].bytes_received), (Some(200), 5));
        assert_eq!(outcomes[0].error, None);
    }

    /// A response of a secret that is sent back in pieces, and again in its trailers.
    async fn reflected(bodies: bool) -> (Bytes, http::HeaderMap, bool) {
        let book = Book::new();
        let mut account = Account::open(book.receipt(), Arc::default(), Pass::default());
        account.answered(http::StatusCode::OK);
        let inject = crate::credentials::Inject::bearer();
        let attachment = crate::credentials::Attachment::of_token(inject, b"rk_live_0123456789");
        let masker = Masker::new(Arc::clone(attachment.needles().unwrap()), bodies);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-message", "no rk_live_0123456789".parse().unwrap());
        let data = |text: &'static str| Ok::<_, io::Error>(Frame::data(Bytes::from_static(text.as_bytes())));
        let frames = [data("a rk_live_01"), data("23456789 b rk_live_"), Ok(Frame::trailers(trailers))];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let whole = ReplyBody::stream(body, account, Lapse::never(), Some(masker)).collect().await.unwrap();
        let trailers = whole.trailers().cloned().unwrap();
        let outcomes = book.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        (whole.to_bytes(), trailers, outcomes[0].reflected)
    }

    #[tokio::test]
    async fn what_is_held_back_comes_before_the_trailers_and_these_are_covered_of_every_body() {
        let (body, trailers, found) = reflected(true).await;
        assert_eq!((&body[..], found), (&b"a ****************** b rk_live_"[..], true));
        assert_eq!(trailers["grpc-message"], "no ******************");
        let (body, trailers, found) = reflected(false).await;
        assert_eq!((&body[..], found), (&b"a rk_live_0123456789 b rk_live_"[..], true));
        assert_eq!(trailers["grpc-message"], "no ******************");
    }

    #[tokio::test]
    async fn a_body_of_known_length_that_is_dropped_after_its_last_byte_was_whole() {
        let book = Book::new();
        let mut body = reply(&book, &[Ok("abc")], true);
        body.frame().await.unwrap().unwrap();
        drop(body);
        let outcomes = book.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].error, None);
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_early_blames_the_client() {
        let book = Book::new();
        let mut body = reply(&book, &[Ok("abc"), Ok("de")], true);
        body.frame().await.unwrap().unwrap();
        drop(body);
        let outcomes = book.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].blame, Some(Blame::Client));
        assert!(outcomes[0].error.as_deref().unwrap().contains("before the end of the response"));
        assert_eq!(outcomes[0].bytes_received, 3);
    }

    #[tokio::test]
    async fn a_body_that_breaks_blames_the_upstream() {
        let book = Book::new();
        let result = reply(&book, &[Ok("abc"), Err("reset")], false).collect().await;
        assert!(result.is_err(), "the client must see that it is not whole");
        let outcomes = book.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].blame, Some(Blame::Upstream));
        assert!(outcomes[0].error.as_deref().unwrap().contains("reset"));
    }
}
