//! The body of a request on its way to the upstream: counted, without credentials or framing in its trailers, and signed anew where the client
//! signs it in chunks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::{Broken, Replay, StreamError, Transfer, length};
use super::facts;
use super::taps::{Held, RequestTap};
use crate::authorize::Permit;
use crate::credentials::{ChunkError, Chunks, Strip, strip};
use crate::record::NotKept;

/// The body of a request on its way to the upstream. Its trailers cannot bring a credential.
#[derive(Debug)]
pub struct RequestBody {
    inner: Replay,
    transfer: Arc<Transfer>,
    /// Whose credential headers do not pass in trailers.
    strip: Option<Arc<Strip>>,
    /// Signs it anew, chunk by chunk.
    chunks: Option<Box<Chunks>>,
    /// What was taken so far, to send it again if nobody processed it; nothing when that is too much, or it is not as it came.
    kept: Option<Kept>,
    had_body: bool,
    /// Where it is kept for auditors, as it came.
    tap: Option<RequestTap>,
    /// Its place in the body as it came, and what waits there.
    at: u64,
    held: Held,
}

/// Bytes of a body that are kept until the upstream begins to answer, and frames: small ones take room, too.
const MOST_KEPT: u64 = 64 * 1024;
const MOST_FRAMES: usize = 64;

#[derive(Debug, Default)]
struct Kept {
    frames: VecDeque<Frame<Bytes>>,
    bytes: u64,
}

impl Kept {
    /// Whether there was room for it. Data is shared, not copied.
    fn add(&mut self, frame: &Frame<Bytes>) -> bool {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => {
                self.bytes += length(data);
                self.frames.push_back(Frame::data(data.clone()));
            }
            (_, Some(trailers)) => self.frames.push_back(Frame::trailers(trailers.clone())),
            (None, None) => return false,
        }
        self.bytes <= MOST_KEPT && self.frames.len() <= MOST_FRAMES
    }
}

impl RequestBody {
    /// Wraps what the server gave.
    #[must_use]
    pub fn new(inner: Replay, transfer: Arc<Transfer>, permit: &Permit) -> Self {
        let strip = permit.strip().cloned();
        let ended = inner.is_end_stream();
        transfer.whole.store(ended, Ordering::Release);
        let kept = (!ended && !inner.exchanged).then(Kept::default);
        Self {
            inner,
            transfer,
            strip,
            chunks: None,
            kept,
            had_body: !ended,
            tap: None,
            at: 0,
            held: Held::Nothing,
        }
    }

    /// Has it kept for auditors.
    #[must_use]
    pub fn tapped(mut self, tap: Option<RequestTap>) -> Self {
        self.tap = tap.filter(|_| self.had_body);
        self
    }

    /// Keeps what came, unless something was put into it: then it was kept before.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let (Some(tap), Some(data)) = (&self.tap, frame.data_ref().filter(|_| !self.inner.exchanged)) {
            tap.push(self.at, data);
            self.at += length(data);
        }
    }

    fn unkept<T>(&self, why: NotKept) -> Poll<Option<Result<T, Broken<StreamError>>>> {
        self.transfer.note_unkept(why.clone());
        Poll::Ready(Some(Err(Broken::Unkept(why))))
    }

    /// Has its chunks signed anew on their way. Their lengths stay.
    pub fn sign(&mut self, chunks: Chunks) {
        self.chunks = Some(Box::new(chunks));
    }

    /// What goes on of a frame; nothing as long as a chunk is not whole.
    fn signed(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, ChunkError> {
        let Some(chunks) = &mut self.chunks else { return Ok(Some(frame)) };
        match frame.into_data() {
            Ok(data) => {
                let data = chunks.feed(&data)?;
                if self.inner.is_end_stream() {
                    chunks.finish()?;
                }
                Ok(Some(data).filter(|data| !data.is_empty()).map(Frame::data))
            }
            Err(other) => Ok(Some(other)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken<StreamError>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.transfer.cut.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(Broken::Cut)));
        }
        loop {
            if let Some(tap) = &this.tap {
                let kept = match this.held.is_nothing() {
                    true => tap.poll_room(cx),
                    false => tap.poll_end(cx),
                };
                if let Err(why) = ready!(kept) {
                    return this.unkept(why);
                }
                if !this.held.is_nothing() {
                    // It is not asked again.
                    this.tap = None;
                    return Poll::Ready(this.held.take().map(Ok));
                }
            }
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
            if let Some(Ok(frame)) = &frame {
                this.keep(frame);
            }
            this.transfer.taken.store(true, Ordering::Release);
            if let (Some(kept), Some(Ok(frame))) = (&mut this.kept, &frame)
                && !kept.add(frame)
            {
                this.kept = None;
            }
            let mut frame = match frame {
                None => {
                    if let Some(Err(error)) = this.chunks.as_ref().map(|chunks| chunks.finish()) {
                        this.transfer.broken.store(true, Ordering::Release);
                        return Poll::Ready(Some(Err(Broken::Unsigned(error))));
                    }
                    this.transfer.whole.store(true, Ordering::Release);
                    if this.tap.is_some() {
                        this.held = Held::End;
                        continue;
                    }
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    this.kept = None;
                    this.transfer.broken.store(true, Ordering::Release);
                    return Poll::Ready(Some(Err(Broken::Sender(error))));
                }
                Some(Ok(frame)) => match this.signed(frame) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => continue,
                    Err(error) => {
                        this.transfer.broken.store(true, Ordering::Release);
                        return Poll::Ready(Some(Err(Broken::Unsigned(error))));
                    }
                },
            };
            if let Some(data) = frame.data_ref() {
                this.transfer.add_sent(length(data));
            }
            if let Some(trailers) = frame.trailers_mut() {
                if let Some(name) = facts::misplaced(trailers) {
                    this.transfer.broken.store(true, Ordering::Release);
                    return Poll::Ready(Some(Err(Broken::Trailer(name.clone()))));
                }
                if let Some(names) = &this.strip {
                    strip(trailers, None, names);
                }
            }
            if this.inner.is_end_stream() {
                this.transfer.whole.store(true, Ordering::Release);
            }
            if this.tap.is_some() && (this.inner.is_end_stream() || frame.is_trailers()) {
                this.held = Held::Frame(frame);
                continue;
            }
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_nothing() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.had_body {
            return;
        }
        let body = self.kept.take().map(|kept| {
            let mut body = self.inner.take();
            body.put_back(kept.frames);
            body
        });
        self.transfer.give_back(body);
    }
}
