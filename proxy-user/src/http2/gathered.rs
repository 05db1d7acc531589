//! What a connection writes in one turn, in few pieces. The h2 crate writes and flushes each frame of a body for itself, and each would
//! be a record of TLS and a system call of its own: here they are put together, until whoever drives the connection looks at it once more.
//!
//! Invariant: whoever drives a connection asks [`Turn::is_open`] whenever it has nothing more to do, and polls it again if so: reading writes
//! first what was put together. To end a connection writes it as well.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::ahead::{ROOM, give_back, room};

/// Whether something was put together since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Asks, once for each time that something was put together.
    #[must_use]
    pub fn is_open(&self) -> bool {
        // Most turns have nothing.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// A stream under a connection of HTTP/2. What is written in several slices is a frame of a body, and waits for more; what comes in one,
/// when nothing waits, is written at once. A connection that rests has no room for anything.
#[derive(Debug)]
pub struct Gathered<S> {
    inner: S,
    held: Option<Held>,
    turn: Turn,
}

/// What waits: from the one to the other.
struct Held {
    room: Box<[u8]>,
    from: usize,
    to: usize,
    /// As far as it was written to.
    used: usize,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("bytes", &self.get().len()).finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A head with a credential may have been in it.
        self.room.get_mut(..self.used).unwrap_or_default().fill(0);
        give_back(std::mem::take(&mut self.room));
    }
}

impl Held {
    fn get(&self) -> &[u8] {
        self.room.get(self.from..self.to).unwrap_or_default()
    }

    fn new() -> Self {
        Self { room: room(), from: 0, to: 0, used: 0 }
    }

    /// Puts in what has room; how much.
    fn put(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let before = self.to;
        for part in parts {
            let space = self.room.get_mut(self.to..).unwrap_or_default();
            let count = space.len().min(part.len());
            if let (Some(space), Some(part)) = (space.get_mut(..count), part.get(..count)) {
                space.copy_from_slice(part);
            }
            self.to += count;
        }
        self.used = self.used.max(self.to);
        self.to - before
    }
}

impl<S> Gathered<S> {
    /// Puts together what is written to `inner`.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, held: None, turn: Turn::default() }
    }

    /// Whether something waits.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes all that waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, held.get()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.from += written;
            if held.get().is_empty() {
                self.held = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all that waits, and sees that it has gone out: TLS takes some that it keeps.
    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Puts it to what waits; where there is no room, all of that goes out before.
    fn poll_hold(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if self.held.as_ref().is_some_and(|held| held.to == ROOM) {
            ready!(self.poll_clear(cx))?;
        }
        let count = self.held.get_or_insert_with(Held::new).put(parts);
        self.turn.0.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut failed = None;
        if self.held.is_some()
            && let Poll::Ready(Err(error)) = self.poll_clear(cx)
        {
            failed = Some(error);
        }
        // That the other side takes nothing, or nothing any more, is no reason not to read from it: it may wait for that, or have answered.
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        match failed {
            Some(error) if read.is_pending() => Poll::Ready(Err(error)),
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.held {
            Some(_) => self.poll_hold(cx, &[IoSlice::new(bytes)]),
            None => Pin::new(&mut self.inner).poll_write(cx, bytes),
        }
    }

    /// What waits is not written: see [`Turn`].
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.held {
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_clear(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (parts, &self.held) {
            ([one], None) => Pin::new(&mut self.inner).poll_write(cx, one),
            _ => self.poll_hold(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use bytes::Bytes;
    use http::{Request, Response};
    use proptest::prelude::*;

    use super::*;

    /// A stream that takes so much at a time, or nothing; from which this comes; and of which the other side may be gone.
    #[derive(Debug, Default)]
    struct Sink {
        takes: Vec<usize>,
        comes: Vec<u8>,
        is_broken: bool,
        keeps: bool,
        writes: Vec<Vec<u8>>,
        flushed: usize,
    }

    impl AsyncRead for Sink {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.comes.pop() {
                Some(byte) => buf.put_slice(&[byte]),
                None => return Poll::Pending,
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let most = self.takes.pop().unwrap_or(usize::MAX).min(buf.len());
            if most == 0 {
                return Poll::Pending;
            }
            self.writes.push(buf[..most].to_vec());
            Poll::Ready(Ok(most))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed += 1;
            if self.keeps { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn frame(stream: &mut Gathered<Sink>, head: &[u8], payload: &[u8]) -> Poll<usize> {
        let parts = [IoSlice::new(head), IoSlice::new(payload)];
        Pin::new(stream).poll_write_vectored(&mut cx(), &parts).map(Result::unwrap)
    }

    fn read(stream: &mut Gathered<Sink>) {
        assert!(Pin::new(stream).poll_read(&mut cx(), &mut ReadBuf::new(&mut [0])).is_pending());
    }

    fn comes(stream: &mut Gathered<Sink>) -> Poll<io::Result<u8>> {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        std::task::ready!(Pin::new(stream).poll_read(&mut cx(), &mut buf))?;
        Poll::Ready(Ok(byte[0]))
    }

    #[test]
    fn frames_of_a_turn_are_one_piece_and_what_comes_alone_does_not_wait() {
        let mut stream = Gathered::new(Sink::default());
        let turn = stream.turn();
        let alone = Pin::new(&mut stream).poll_write_vectored(&mut cx(), &[IoSlice::new(b"alone")]);
        assert!(matches!(alone, Poll::Ready(Ok(5))) && !turn.is_open());
        for payload in ["one", "two"] {
            assert_eq!(frame(&mut stream, b"=", payload.as_bytes()), Poll::Ready(4));
            assert!(Pin::new(&mut stream).poll_flush(&mut cx()).is_ready());
        }
        assert!(matches!(Pin::new(&mut stream).poll_write(&mut cx(), b"behind"), Poll::Ready(Ok(6))));
        assert_eq!((stream.inner.writes.len(), stream.inner.flushed), (1, 0));
        assert!(turn.is_open() && !turn.is_open(), "it is said once");
        read(&mut stream);
        assert_eq!(stream.inner.writes, [&b"alone"[..], b"=one=twobehind"]);
        assert_eq!(stream.inner.flushed, 1, "TLS may have kept some of it");
        assert!(stream.held.is_none() && !turn.is_open());
    }

    #[test]
    fn a_side_that_takes_nothing_stops_what_is_written_when_there_is_no_room_and_is_read_from() {
        let mut stream = Gathered::new(Sink { takes: vec![0, 0, 0], comes: vec![9], ..Sink::default() });
        assert_eq!(frame(&mut stream, b"1234", &[7; ROOM]), Poll::Ready(ROOM));
        assert!(matches!(comes(&mut stream), Poll::Ready(Ok(9))));
        assert_eq!(frame(&mut stream, b"", b"rest"), Poll::Pending);
        assert!(stream.turn().is_open() && stream.inner.writes.is_empty());
        assert!(Pin::new(&mut stream).poll_shutdown(&mut cx()).is_pending(), "not before what waits");
        assert_eq!(frame(&mut stream, b"", b"rest"), Poll::Ready(4));
        assert!(Pin::new(&mut stream).poll_shutdown(&mut cx()).is_ready());
        assert_eq!(stream.inner.writes.concat().len(), ROOM + 4);
    }

    #[test]
    fn where_there_is_no_room_what_waits_goes_out_before_anything_more_is_put_together() {
        // TLS takes it, and keeps it.
        let mut stream = Gathered::new(Sink { keeps: true, ..Sink::default() });
        assert_eq!(frame(&mut stream, &[1; ROOM], b""), Poll::Ready(ROOM));
        assert_eq!(frame(&mut stream, b"", b"behind"), Poll::Pending);
        assert!(Pin::new(&mut stream).poll_flush(&mut cx()).is_pending());
        assert!(stream.held.is_none() && stream.inner.writes.concat() == [1; ROOM]);
        stream.inner.keeps = false;
        assert_eq!(frame(&mut stream, b"", b"behind"), Poll::Ready(6));
        assert!(stream.held.as_ref().is_some_and(|held| held.get() == b"behind"));
    }

    #[test]
    fn of_a_side_that_has_gone_what_it_said_is_read_before_that_is_told() {
        let mut stream = Gathered::new(Sink { is_broken: true, comes: vec![2, 1], ..Sink::default() });
        assert_eq!(frame(&mut stream, b"head", b"payload"), Poll::Ready(11));
        assert!(matches!(comes(&mut stream), Poll::Ready(Ok(1))));
        assert!(matches!(comes(&mut stream), Poll::Ready(Ok(2))));
        let told = comes(&mut stream);
        assert!(
            matches!(&told, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe),
            "{told:?}"
        );
    }

    #[test]
    fn an_end_waits_until_all_is_written() {
        let mut stream = Gathered::new(Sink { keeps: true, ..Sink::default() });
        assert_eq!(frame(&mut stream, b"head", b"payload"), Poll::Ready(11));
        assert!(Pin::new(&mut stream).poll_shutdown(&mut cx()).is_pending());
        assert_eq!((stream.inner.writes.concat().len(), stream.inner.flushed), (11, 1));
    }

    #[test]
    fn nothing_stays_in_a_room_that_others_get_and_none_of_it_is_shown() {
        let mut stream = Gathered::new(Sink::default());
        assert_eq!(frame(&mut stream, b"credential ", b"of somebody"), Poll::Ready(22));
        let shown = format!("{stream:?}");
        assert!(shown.contains("bytes: 22") && shown.len() < 300, "{shown}");
        read(&mut stream);
        assert!(room().iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn answers_of_several_streams_that_are_there_together_are_written_in_one_piece() {
        /// Counts what is written.
        struct Counted<S>(S, Arc<std::sync::Mutex<Vec<usize>>>);
        impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }
        impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                let written = Pin::new(&mut self.0).poll_write(cx, buf);
                if let Poll::Ready(Ok(count)) = &written {
                    self.1.lock().unwrap().push(*count);
                }
                written
            }
            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }
            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_shutdown(cx)
            }
        }
        const STREAMS: usize = 4;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let writes = Arc::default();
        let client = async {
            let (sender, connection) = h2::client::handshake(theirs).await.unwrap();
            let driving = tokio::spawn(connection);
            let answers = (0..STREAMS).map(|_| {
                let mut sender = sender.clone();
                async move {
                    let request = Request::builder().uri("https://api.test/").body(()).unwrap();
                    let (response, _) = sender.send_request(request, true).unwrap();
                    let mut body = response.await.unwrap().into_body();
                    let mut all = 0;
                    while let Some(data) = body.data().await {
                        body.flow_control().release_capacity(data.as_ref().unwrap().len()).unwrap();
                        all += data.unwrap().len();
                    }
                    all
                }
            });
            let answers = futures_util::future::join_all(answers).await;
            drop(sender);
            driving.await.unwrap().unwrap();
            answers
        };
        let server = async {
            let stream = Gathered::new(Counted(ours, Arc::clone(&writes)));
            let turn = stream.turn();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut asked = Vec::new();
            while asked.len() < STREAMS {
                asked.push(connection.accept().await.unwrap().unwrap().1);
            }
            writes.lock().unwrap().clear();
            for mut respond in asked {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from(vec![1; 9000]), true).unwrap();
            }
            let mut pieces = Vec::new();
            let end = poll_fn(|cx| {
                let polled = connection.poll_accept(cx).map(|end| end.is_none());
                if polled.is_pending() && turn.is_open() {
                    cx.waker().wake_by_ref();
                }
                if pieces.len() < 2 {
                    pieces.push(writes.lock().unwrap().clone());
                }
                polled
            });
            assert!(end.await);
            pieces
        };
        let (answers, pieces) = tokio::join!(client, server);
        assert_eq!(answers, [9000; STREAMS]);
        let [first, second] = &pieces[..] else { panic!("{pieces:?}") };
        assert!(first.is_empty(), "{pieces:?}");
        assert!(second.len() == 1 && second[0] > STREAMS * 9000, "{pieces:?}");
    }

    /// What is done with a stream.
    #[derive(Clone, Debug)]
    enum Step {
        Alone(usize),
        Frame(usize),
        Flush,
        Read,
    }

    proptest! {
        #[test]
        fn all_that_is_written_arrives_once_and_in_order(
            steps in prop::collection::vec(
                prop_oneof![
                    2 => (1_usize..300).prop_map(Step::Alone),
                    4 => (0_usize..40_000).prop_map(Step::Frame),
                    1 => Just(Step::Flush),
                    1 => Just(Step::Read),
                ],
                0..24,
            ),
            takes in prop::collection::vec(prop_oneof![Just(0_usize), 1_usize..70_000], 0..24),
        ) {
            let mut stream = Gathered::new(Sink { takes, ..Sink::default() });
            let mut sent = Vec::new();
            for step in steps {
                match step {
                    Step::Alone(length) | Step::Frame(length) => {
                        let head = [u8::try_from(sent.len() % 251).unwrap(); 9];
                        let payload = vec![u8::try_from(sent.len() % 241).unwrap(); length];
                        let slices = match step {
                            Step::Frame(_) => vec![IoSlice::new(&head), IoSlice::new(&payload)],
                            _ => vec![IoSlice::new(&payload)],
                        };
                        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                        if let Poll::Ready(count) = Pin::new(&mut stream).poll_write_vectored(&mut cx(), &slices) {
                            let count = count.unwrap();
                            prop_assert!(count > 0 && count <= all.len());
                            sent.extend_from_slice(&all[..count]);
                        }
                    }
                    Step::Flush => prop_assert!(Pin::new(&mut stream).poll_flush(&mut cx()).is_ready()),
                    Step::Read => read(&mut stream),
                }
            }
            while Pin::new(&mut stream).poll_shutdown(&mut cx()).is_pending() {}
            prop_assert_eq!(stream.inner.writes.concat(), sent);
            prop_assert!(stream.held.is_none());
        }
    }
}
