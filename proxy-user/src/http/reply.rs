//! The body of a response on its way to the client: counted, looked through, and with the account of its call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use proxy_journal::Blame;

use super::account::Account;
use super::body::{Broken, Lapse, Paired, length};
use super::hop;
use super::reflect::{self, Cover};
use super::taps::Held;
use super::unpack::{Next, UnpackError, Unpacker};
use crate::http1::Wire;
use crate::record::Capture;

/// How many frames that give nothing to hand on are taken before others have their turn.
const TURNS: usize = 16;

/// The body of a response on its way to the client: ours, or the upstream's with the account of its call.
#[derive(Debug)]
pub enum ReplyBody<B: Body<Data = Bytes> + Unpin>
where
    B::Error: std::fmt::Display,
{
    /// A text of ours, given out once.
    Text(Option<Bytes>),
    /// Nothing behind the upstream's head.
    Head(Box<Wire>),
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

    /// What the upstream sends, looked through as `cover` says; closes the account at its end, and breaks off when the call
    /// lapses.
    #[must_use]
    pub fn stream(
        inner: B,
        account: Account,
        lapse: Lapse,
        cover: Option<Cover>,
        capture: Option<Capture>,
    ) -> Self {
        let (lapse, behind, held) = (Some(lapse), None, Held::Nothing);
        Self::Stream(Box::new(Metered { inner, account, lapse, cover, behind, capture, held }))
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
            Self::Head(_) => Poll::Ready(None),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Head(_) => true,
            Self::Stream(stream) => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, length)),
            Self::Head(_) => SizeHint::with_exact(0),
            // How long it is unpacked, nobody knows.
            Self::Stream(stream) if stream.is_packed() => SizeHint::default(),
            Self::Stream(stream) => stream.inner.size_hint(),
        }
    }
}

impl<B: Paired<Data = Bytes> + Unpin> Paired for ReplyBody<B>
where
    B::Error: std::fmt::Display,
{
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Text(_) | Self::Head(_) => Poll::Ready(()),
            Self::Stream(stream) => stream.poll_other(cx),
        }
    }

    fn take_wire(&mut self) -> Wire {
        match self {
            Self::Text(_) => Wire::default(),
            Self::Head(wire) => std::mem::take(&mut **wire),
            Self::Stream(stream) => stream.inner.take_wire(),
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
    cover: Option<Cover>,
    /// What comes behind that which was held back.
    behind: Option<Frame<Bytes>>,
    /// Where it is kept for auditors, as the client gets it.
    capture: Option<Capture>,
    held: Held,
}

impl<B: Body<Data = Bytes> + Unpin> Metered<B> {
    fn is_packed(&self) -> bool {
        self.cover.as_ref().is_some_and(|cover| cover.unpacker.is_some())
    }

    /// Whether all of the data came, and was unpacked.
    fn is_through(&self) -> bool {
        let unpacker = self.cover.as_ref().and_then(|cover| cover.unpacker.as_ref());
        self.inner.is_end_stream() && unpacker.is_none_or(Unpacker::is_whole)
    }

    fn unpacker(&mut self) -> Option<&mut Unpacker> {
        self.cover.as_mut().and_then(|cover| cover.unpacker.as_mut())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Metered<B>
where
    B::Error: std::fmt::Display,
{
    fn is_end(&self) -> bool {
        self.held.is_nothing() && self.is_all_here()
    }

    fn is_all_here(&self) -> bool {
        let holds = self.cover.as_ref().is_some_and(|cover| cover.masker.holds());
        self.is_through() && self.behind.is_none() && !holds
    }

    /// Whether the call is not permitted any more, which is then told.
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(lapse) = &mut self.lapse else { return true };
        if let Poll::Ready(refusal) = Pin::new(lapse).poll(cx) {
            self.lapse = None;
            self.account.cut(&refusal);
        }
        self.lapse.is_none()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Counted<B::Error>>> {
        let frame = match self.capture.is_some() {
            true => ready!(self.poll_kept(cx)),
            false => ready!(self.poll_next(cx)),
        };
        // Behind trailers nobody looks for more.
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers)) {
            self.account.close();
        }
        Poll::Ready(frame)
    }

    /// The same with what passes kept: the last of it waits until all before it is.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Counted<B::Error>>> {
        loop {
            let Some(capture) = &mut self.capture else { return Poll::Ready(None) };
            let kept = match self.held.is_nothing() {
                true => capture.poll_room(cx),
                false => capture.poll_end(cx),
            };
            if let Err(why) = ready!(kept) {
                self.account.fail(Blame::Host, why.to_string());
                return Poll::Ready(Some(Err(Broken::Unkept(why))));
            }
            if !self.held.is_nothing() {
                self.capture = None;
                return Poll::Ready(self.held.take().map(Ok));
            }
            let frame = match ready!(self.poll_next(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.held = Held::End;
                    continue;
                }
            };
            if let (Some(capture), Some(data)) = (&mut self.capture, frame.data_ref()) {
                capture.push(data);
            }
            if frame.is_trailers() || self.is_all_here() {
                self.held = Held::Frame(frame);
                continue;
            }
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Counted<B::Error>>> {
        if let Some(frame) = self.behind.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        // Asked first: an upstream that always has more would keep it from being heard.
        if self.is_cut(cx) {
            return Poll::Ready(Some(Err(Broken::Cut)));
        }
        for _ in 0..TURNS {
            // What came goes on before more is taken.
            match self.unpacker().map(Unpacker::next_piece) {
                Some(Ok(Next::Piece(piece))) => {
                    return Poll::Ready(Some(Ok(self.masked(Frame::data(piece)))));
                }
                Some(Ok(Next::Busy)) => break,
                Some(Err(error)) => return Poll::Ready(Some(Err(self.spoiled(error)))),
                Some(Ok(Next::More)) | None => {}
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose() {
                Ok(frame) => frame.map(Frame::into_data),
                Err(error) => {
                    let what = format!("the upstream broke off in the response: {error}");
                    self.account.fail(Blame::Upstream, what);
                    return Poll::Ready(Some(Err(Broken::Sender(error))));
                }
            };
            if let Some(Ok(data)) = frame {
                self.account.transfer().add_received(length(&data));
                match self.unpacker() {
                    Some(unpacker) => unpacker.push(data),
                    None => return Poll::Ready(Some(Ok(self.masked(Frame::data(data))))),
                }
                continue;
            }
            if let Some(Err(error)) = self.unpacker().map(Unpacker::end) {
                return Poll::Ready(Some(Err(self.spoiled(error))));
            }
            return Poll::Ready(match frame.and_then(Result::err) {
                Some(trailers) => Some(Ok(self.masked(trailers))),
                None => self.rest().map(|rest| Ok(Frame::data(rest))),
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The end of a body that cannot be unpacked.
    fn spoiled(&mut self, error: UnpackError) -> Broken<B::Error> {
        self.account.fail(Blame::Upstream, format!("the response cannot be unpacked: {error}"));
        Broken::Packed(error)
    }

    /// What was held back until the end.
    fn rest(&mut self) -> Option<Bytes> {
        let masker = self.cover.as_mut().map(|cover| &mut cover.masker).filter(|masker| masker.holds())?;
        let (rest, found) = masker.next(Bytes::new(), true);
        if found {
            self.account.transfer().note_reflected();
        }
        Some(rest)
    }

    /// The frame as it may go on.
    fn masked(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let (last, packed) = (self.is_through(), self.is_packed());
        let Some(Cover { masker, .. }) = &mut self.cover else { return frame };
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
                if packed {
                    trailers = hop::without(&trailers, reflect::is_digest);
                }
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

impl<B: Paired<Data = Bytes> + Unpin> Metered<B>
where
    B::Error: std::fmt::Display,
{
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_cut(cx) { Poll::Ready(()) } else { self.inner.poll_other(cx) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Drop for Metered<B> {
    fn drop(&mut self) {
        // A body whose length was known is dropped after its last byte, without a look for the end.
        if self.is_through() && self.held.is_nothing() {
            self.account.close();
        }
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
