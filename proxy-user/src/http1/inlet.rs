//! What comes over a connection: heads, and the bodies behind them, read into no more room than they need.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, ReadBuf};

use super::framing::{Extent, Framing, Message, Part};
use super::{Error, HeadError, Io, head};

/// Bytes that are read at a time where it is not known how many there are; one room for all connections of a thread.
const SCRATCH: usize = 32 * 1024;
/// Bytes of a body of known length that are read at a time, into room of their own.
const BATCH: usize = 64 * 1024;
/// From so many bytes on, a room of their own is worth it.
const WORTH: u64 = 16 * 1024;
/// Bytes of a trailer section.
const MOST_TRAILERS: usize = 16 * 1024;
/// Bytes of later messages that are taken while one is answered, to notice a client that goes away.
const AHEAD: usize = 16 * 1024;

/// Bytes of a head that is not whole which are looked at.
const LOOKED_AT: usize = 1024;

thread_local! {
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The incoming half of a connection.
#[derive(Debug)]
pub struct Inlet {
    /// What was read and not taken.
    buf: BytesMut,
    /// How much of it [`Framing`] has seen, within a head.
    scanned: usize,
    framing: Framing,
    /// Of the trailers.
    section: BytesMut,
    eof: bool,
    is_request: bool,
}

impl Inlet {
    /// Before the first byte.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Self {
            buf: BytesMut::new(),
            scanned: 0,
            framing: Framing::new(message),
            section: BytesMut::new(),
            eof: false,
            is_request: message == Message::Requests,
        }
    }

    /// Before the next message.
    pub fn begin(&mut self) {
        self.framing.begin();
        self.scanned = 0;
    }

    /// How the message is framed.
    #[must_use]
    pub fn framing(&mut self) -> &mut Framing {
        &mut self.framing
    }

    /// Whether nothing was read that was not taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Whether the other side has ended its half.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.eof
    }

    /// What was read and not taken.
    pub fn take_rest(&mut self) -> Bytes {
        self.buf.split().freeze()
    }

    /// The next head, of at most `most` bytes; nothing when the connection ends before it.
    pub fn poll_head<S: Io + ?Sized>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            while let Some(rest) = self.buf.get(self.scanned..).filter(|rest| !rest.is_empty()) {
                let (part, taken) = self.framing.step(rest).map_err(|found| found.fault)?;
                self.scanned += taken;
                if self.scanned > most {
                    return Poll::Ready(Err(HeadError::TooLarge.into()));
                }
                if part == Part::Head {
                    let head = self.buf.split_to(self.scanned).freeze();
                    self.scanned = 0;
                    if self.buf.is_empty() {
                        self.buf = BytesMut::new();
                    }
                    return Poll::Ready(Ok(Some(head)));
                }
            }
            // What is no HTTP is answered at once, and not after the time for a head. Of a long one, each look would cost more.
            if (1..=LOOKED_AT).contains(&self.buf.len()) {
                head::plausible(&self.buf, self.is_request)?;
            }
            if self.eof {
                let is_clean = self.buf.is_empty();
                return Poll::Ready(if is_clean { Ok(None) } else { Err(Error::Incomplete) });
            }
            if let Err(error) = ready!(self.poll_fill(io, cx)) {
                let error = Error::Io(error);
                // TLS that ends without a word, between messages.
                let is_clean = self.is_request && self.buf.is_empty() && error.is_ended();
                return Poll::Ready(if is_clean { Ok(None) } else { Err(error) });
            }
        }
    }

    /// The next frame of the body; nothing at its end.
    pub fn poll_body<S: Io + ?Sized>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        loop {
            if self.framing.is_over() {
                return Poll::Ready(Ok(None));
            }
            if self.buf.is_empty() {
                if self.eof {
                    if self.framing.is_until_close() {
                        self.framing.has_no_body();
                        continue;
                    }
                    return Poll::Ready(Err(Error::Incomplete));
                }
                let filled = match self.framing.left() {
                    Some(left) if left >= WORTH => self.poll_fill_batch(io, cx, left),
                    _ => self.poll_fill(io, cx),
                };
                ready!(filled)?;
                continue;
            }
            let (part, taken) = self.framing.step(&self.buf).map_err(|found| found.fault)?;
            let piece = self.buf.split_to(taken);
            if self.buf.is_empty() {
                // Lets go of the room that the piece shares.
                self.buf = BytesMut::new();
            }
            match part {
                Part::Data => return Poll::Ready(Ok(Some(Frame::data(piece.freeze())))),
                Part::Trailers => {
                    self.section.extend_from_slice(&piece);
                    if self.section.len() > MOST_TRAILERS {
                        return Poll::Ready(Err(HeadError::TooLarge.into()));
                    }
                    if self.framing.is_over() {
                        let section = std::mem::take(&mut self.section).freeze();
                        let trailers: HeaderMap = head::trailers(&section)?;
                        if !trailers.is_empty() {
                            return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                        }
                    }
                }
                Part::Head | Part::Inner => {}
            }
        }
    }

    /// Reads ahead of what is asked for; ready with what ended the connection, if that happens. A client that ends its half may still
    /// wait for the answer: that is nothing.
    pub fn poll_ahead<S: Io + ?Sized>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Error> {
        while !self.eof && self.buf.len() < AHEAD {
            if let Err(error) = ready!(self.poll_fill(io, cx)) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// Whether a connection that rests is as it was left: still open, and nothing came.
    pub fn is_quiet<S: Io + ?Sized>(&mut self, io: &mut S) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.buf.is_empty() && !self.eof && self.poll_fill(io, &mut cx).is_pending()
    }

    /// Reads what is there.
    fn poll_fill<S: Io + ?Sized>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ROOM.with_borrow_mut(|room| {
            let mut read = ReadBuf::new(room);
            ready!(Pin::new(io).poll_read(cx, &mut read))?;
            self.eof |= read.filled().is_empty();
            self.buf.extend_from_slice(read.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Reads what is there of `left` bytes into room of its own.
    fn poll_fill_batch<S: Io + ?Sized>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        left: u64,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
        let mut batch = BytesMut::with_capacity(most);
        while batch.len() < most {
            let polled = pin!(io.read_buf(&mut batch)).poll(cx);
            match polled {
                Poll::Ready(Ok(0)) => {
                    self.eof = true;
                    break;
                }
                Poll::Ready(Ok(_)) => {}
                // What came goes on first; the error stays.
                Poll::Ready(Err(_)) if !batch.is_empty() => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if !batch.is_empty() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        self.buf = batch;
        Poll::Ready(Ok(()))
    }

    /// How the body is framed whose head was just taken.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.framing.extent()
    }

    /// Whether the message is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.framing.is_over()
    }

    /// Bytes of the body that are still to come, where that is known.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match self.framing.extent() {
            Extent::None if self.framing.is_over() => SizeHint::with_exact(0),
            Extent::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(
        text: &[u8],
        message: Message,
        piece: usize,
    ) -> Result<(Bytes, Vec<u8>, Option<HeaderMap>), Error> {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let sent = text.to_vec();
        let send = tokio::spawn(async move {
            for piece in sent.chunks(piece) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut inlet = Inlet::new(message);
        let read = std::future::poll_fn(|cx| inlet.poll_head(&mut ours, cx, 4096)).await?;
        let head = read.ok_or(Error::Incomplete)?;
        let (mut data, mut trailers) = (Vec::new(), None);
        while let Some(frame) = std::future::poll_fn(|cx| inlet.poll_body(&mut ours, cx)).await? {
            match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        send.await.unwrap();
        Ok((head, data, trailers))
    }

    #[tokio::test]
    async fn a_message_is_the_same_however_it_comes() {
        let large = "x".repeat(100_000);
        let messages = [
            (Message::Requests, "GET / HTTP/1.1\r\na: b\r\n\r\n".to_owned(), String::new(), 0),
            (Message::Requests, "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc".to_owned(), "abc".to_owned(), 0),
            (
                Message::Requests,
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nx-sum: 1\r\nb: 2\r\n\r\n".to_owned(),
                "abcde".to_owned(),
                2,
            ),
            (Message::Responses, "HTTP/1.1 200 OK\r\n\r\nuntil the end".to_owned(), "until the end".to_owned(), 0),
            (Message::Responses, "HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n".to_owned(), String::new(), 0),
            (Message::Responses, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3  \r\nabc\r\n0\r\n\r\n".to_owned(), "abc".to_owned(), 0),
            (
                Message::Responses,
                format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{large}"),
                large.clone(),
                0,
            ),
        ];
        for (message, text, data, trailers) in messages {
            for piece in [1, 7, 4096, 1 << 20] {
                if text.len() > 10_000 && piece < 100 {
                    continue;
                }
                let (head, got, had) = read(text.as_bytes(), message, piece).await.unwrap();
                let end = text.find("\r\n\r\n").unwrap() + 4;
                assert_eq!(head, &text.as_bytes()[..end]);
                assert_eq!(String::from_utf8(got).unwrap(), data, "in pieces of {piece}");
                assert_eq!(had.map_or(0, |trailers| trailers.len()), trailers, "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_not_whole() {
        for text in [
            "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\ncontent-length: 30000\r\n\r\nab",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
            "POST / HTTP/1.1\r\na: b\r\n",
        ] {
            let read = read(text.as_bytes(), Message::Requests, 5).await;
            assert!(matches!(read, Err(Error::Incomplete)), "{text:?}: {read:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_become_a_head_is_refused_before_its_end() {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(b"\x01\x02 nonsense").await.unwrap();
        let mut inlet = Inlet::new(Message::Requests);
        let read = std::future::poll_fn(|cx| inlet.poll_head(&mut ours, cx, 4096)).await;
        assert!(matches!(read, Err(Error::Head(HeadError::Invalid(_)))), "{read:?}");
        theirs.write_all(&[b'a'; 4000]).await.unwrap();
        let mut inlet = Inlet::new(Message::Requests);
        let read = std::future::poll_fn(|cx| inlet.poll_head(&mut ours, cx, 1000)).await;
        assert!(matches!(read, Err(Error::Head(HeadError::TooLarge))), "{read:?}");
    }
}
