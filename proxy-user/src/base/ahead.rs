//! A TCP stream that is read in few system calls: TLS asks for a few kilobytes at a time, however much there is.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use nix::errno::Errno;
use nix::sys::uio::readv;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are taken besides those that are asked for; and that a connection of HTTP/2 writes in one piece.
pub(crate) const ROOM: usize = 64 * 1024;
/// Of fewer than these a room is not kept: they are copied.
const WORTH: usize = ROOM / 4;
/// Rooms that a thread keeps, for all of its streams.
const KEPT: usize = 4;

thread_local! {
    static ROOMS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Reads as what was read already, followed by the stream. What comes in one piece with that which is asked for is kept for the next
/// read; a stream that rests keeps nothing.
#[derive(Debug)]
pub struct ReadAhead {
    ahead: Ahead,
    tcp: TcpStream,
}

/// What was read and not taken.
#[derive(Debug)]
enum Ahead {
    Some(Bytes),
    /// From the second to the third.
    Room(Box<[u8]>, usize, usize),
}

impl Ahead {
    const NOTHING: Self = Self::Some(Bytes::new());

    fn of(room: Box<[u8]>, length: usize) -> Self {
        if length >= WORTH {
            return Self::Room(room, 0, length);
        }
        let some = Bytes::copy_from_slice(room.get(..length).unwrap_or_default());
        give_back(room);
        Self::Some(some)
    }

    fn get(&self) -> &[u8] {
        match self {
            Self::Some(some) => some,
            Self::Room(room, from, to) => room.get(*from..*to).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Some(some) => some.advance(count),
            Self::Room(_, from, _) => *from += count,
        }
        if self.get().is_empty()
            && let Self::Room(room, ..) = std::mem::replace(self, Self::NOTHING)
        {
            give_back(room);
        }
    }
}

/// A room of this thread's. What is in it before is of others, and must not be looked at.
pub(crate) fn room() -> Box<[u8]> {
    ROOMS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; ROOM].into_boxed_slice())
}

/// Gives a room back.
pub(crate) fn give_back(room: Box<[u8]>) {
    // A thread that ends has none any more.
    let _ = ROOMS.try_with(|rooms| {
        let mut rooms = rooms.borrow_mut();
        if rooms.len() < KEPT {
            rooms.push(room);
        }
    });
}

impl ReadAhead {
    /// Reads as `ahead`, which was read from `tcp`, followed by the stream.
    #[must_use]
    pub fn new(ahead: Bytes, tcp: TcpStream) -> Self {
        Self { ahead: Ahead::Some(ahead), tcp }
    }

    /// Reads into `asked` and, behind that, into `besides`; `None` if there is nothing to read.
    ///
    /// A read that does not fill its room has emptied the socket. Told as `WouldBlock`, it has tokio wait for the next event instead of
    /// asking the socket once more; an event that comes meanwhile is another one than that which is taken back.
    fn take(&self, asked: &mut [u8], besides: &mut [u8]) -> Option<io::Result<usize>> {
        let room = asked.len() + besides.len();
        let mut short = None;
        let read = self.tcp.try_io(Interest::READABLE, || {
            loop {
                match readv(&self.tcp, &mut [IoSliceMut::new(asked), IoSliceMut::new(besides)]) {
                    Ok(read) if read > 0 && read < room => {
                        short = Some(read);
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Err(Errno::EINTR) => {}
                    read => return read.map_err(io::Error::from),
                }
            }
        });
        match (short, read) {
            (Some(short), _) => Some(Ok(short)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            (None, read) => Some(read),
        }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let ahead = this.ahead.get();
        if !ahead.is_empty() {
            let count = ahead.len().min(buf.remaining());
            buf.put_slice(ahead.get(..count).unwrap_or_default());
            this.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(this.tcp.poll_read_ready(cx))?;
            let (asked, mut besides) = (buf.initialize_unfilled(), room());
            let wanted = asked.len();
            match this.take(asked, &mut besides) {
                None => give_back(besides),
                Some(Err(error)) => {
                    give_back(besides);
                    return Poll::Ready(Err(error));
                }
                Some(Ok(read)) => {
                    buf.advance(read.min(wanted));
                    this.ahead = Ahead::of(besides, read.saturating_sub(wanted));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            // What is written most of the time; the system call for one piece costs less.
            [one] => Pin::new(&mut self.tcp).poll_write(cx, one),
            bufs => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn pair(ahead: &'static [u8]) -> (ReadAhead, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (near, far) = (near.unwrap(), far.unwrap().0);
        far.set_nodelay(true).unwrap();
        (ReadAhead::new(Bytes::from_static(ahead), near), far)
    }

    /// Bytes of which no two thousand are the same.
    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * at / 7 + at) % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn everything_is_read_once_and_in_order_whatever_the_size_of_the_reads_and_of_the_writes() {
        for (write, read) in [(1, 1), (1, 4096), (1000, 7), (4096, 4096), (100_000, 4096), (300_000, 70_000)]
        {
            let (mut near, mut far) = pair(b"before").await;
            let sent = text((write * 20).min(600_000));
            let all = sent.clone();
            let writing = tokio::spawn(async move {
                for piece in all.chunks(write) {
                    far.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let (mut got, mut buffer) = (Vec::new(), vec![0; read]);
            loop {
                match near.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&buffer[..count]),
                }
            }
            writing.await.unwrap();
            assert!(got == [b"before", &sent[..]].concat(), "writes of {write}, reads of {read}");
            assert!(near.ahead.get().is_empty());
        }
    }

    #[tokio::test]
    async fn what_came_with_the_rest_is_read_without_asking_again() {
        let (mut near, mut far) = pair(b"").await;
        far.write_all(&text(10_000)).await.unwrap();
        let mut buffer = [0; 100];
        for rest in (0..100).rev() {
            near.read_exact(&mut buffer).await.unwrap();
            assert_eq!(near.ahead.get().len(), rest * 100, "it has left the socket at once");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_event_is_lost_between_a_read_and_the_wait_for_the_next() {
        let connections: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn(async {
                    let (mut near, mut far) = pair(b"").await;
                    // Each answer is asked for by the one before: one that is not noticed ends the test.
                    let far = tokio::spawn(async move {
                        let mut buffer = [0; 64];
                        for _ in 0..3000 {
                            far.read_exact(&mut buffer).await.unwrap();
                            far.write_all(&buffer[..13]).await.unwrap();
                            far.write_all(&buffer[13..]).await.unwrap();
                        }
                    });
                    let mut buffer = [0; 64];
                    for _ in 0..3000 {
                        near.write_all(&buffer).await.unwrap();
                        near.read_exact(&mut buffer).await.unwrap();
                    }
                    far.await.unwrap();
                })
            })
            .collect();
        for connection in connections {
            tokio::time::timeout(std::time::Duration::from_secs(60), connection).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_and_an_error_are_told() {
        let (mut near, far) = pair(b"x").await;
        drop(far);
        let mut buffer = [0; 8];
        assert_eq!(near.read(&mut buffer).await.unwrap(), 1);
        assert_eq!(near.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(near.read(&mut buffer).await.unwrap(), 0);
        let (mut near, far) = pair(b"").await;
        far.set_zero_linger().unwrap();
        drop(far);
        assert_eq!(near.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
