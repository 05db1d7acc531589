//! What goes out over a connection: heads and bodies, in as few writes as there can be.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::{Error, Io, head};

/// Data that is larger is not copied behind what is there already.
const COPIED: usize = 4096;
/// Room for a head and a small body behind it.
const ROOM: usize = 1024;
/// So much may wait to be written before more is taken.
const ENOUGH: usize = 32 * 1024;

/// How the body of a message is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// There is none.
    None,
    /// So many bytes are to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

/// The outgoing half of a connection.
#[derive(Debug)]
pub struct Outlet {
    /// What is written first.
    out: BytesMut,
    /// Large data behind it.
    data: Bytes,
    /// And behind that.
    tail: &'static [u8],
    encoding: Encoding,
    /// Written, but perhaps not flushed.
    unflushed: bool,
    /// Bytes that were written.
    written: u64,
}

impl Outlet {
    /// Nothing to write.
    #[must_use]
    pub fn new() -> Self {
        let (out, data) = (BytesMut::new(), Bytes::new());
        Self { out, data, tail: &[], encoding: Encoding::None, unflushed: false, written: 0 }
    }

    /// Where a head is written to; the body will be framed as said.
    pub fn begin(&mut self, encoding: Encoding) -> &mut BytesMut {
        self.encoding = encoding;
        if self.out.capacity() == 0 {
            self.out.reserve(ROOM);
        }
        &mut self.out
    }

    /// Whether more may be put in before this is written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.out.len() < ENOUGH
    }

    /// Puts data of the body in. There must be room.
    ///
    /// # Errors
    /// The body is longer than was said.
    pub fn data(&mut self, data: Bytes) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        match &mut self.encoding {
            Encoding::None => return Err(Error::Body("there is a body where there can be none".to_owned())),
            Encoding::Length(left) => {
                *left = left
                    .checked_sub(length)
                    .ok_or_else(|| Error::Body("the body is longer than its head says".to_owned()))?;
            }
            Encoding::UntilClose => {}
            Encoding::Chunked => {
                use std::fmt::Write as _;
                let _ = write!(self.out, "{length:x}\r\n");
            }
        }
        let tail: &'static [u8] = if self.encoding == Encoding::Chunked { b"\r\n" } else { b"" };
        if data.len() <= COPIED {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
        Ok(())
    }

    /// Puts the end of the body in, with its trailers where they can be.
    ///
    /// # Errors
    /// The body is shorter than was said.
    pub fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        match self.encoding {
            Encoding::Length(0) | Encoding::None | Encoding::UntilClose => {}
            Encoding::Length(_) => {
                return Err(Error::Body("the body is shorter than its head says".to_owned()));
            }
            Encoding::Chunked => {
                self.settle();
                self.out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    head::write_fields(&mut self.out, trailers, None);
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.encoding = Encoding::None;
        Ok(())
    }

    /// Has all that waits be in one piece.
    fn settle(&mut self) {
        if !self.data.is_empty() || !self.tail.is_empty() {
            self.out.extend_from_slice(&self.data);
            self.out.extend_from_slice(self.tail);
            self.data = Bytes::new();
            self.tail = &[];
        }
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether nothing waits, nor is under way in a layer below.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// Writes all that waits, and has it leave.
    pub fn poll_write<S: Io + ?Sized>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            self.unflushed = true;
            let slices = [IoSlice::new(&self.out), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let first =
                usize::from(self.out.is_empty()) + usize::from(self.out.is_empty() && self.data.is_empty());
            let slices = slices.get(first..).unwrap_or_default();
            let written = match slices {
                [one] | [one, ..] if !io.is_write_vectored() || slices.len() == 1 => {
                    ready!(Pin::new(&mut *io).poll_write(cx, one))?
                }
                _ if self.data.is_empty() && self.tail.is_empty() => {
                    ready!(Pin::new(&mut *io).poll_write(cx, &self.out))?
                }
                slices => ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
            // A connection that rests holds no room.
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes were written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    fn advance(&mut self, written: usize) {
        self.written += u64::try_from(written).unwrap_or(u64::MAX);
        let of_out = written.min(self.out.len());
        self.out.advance(of_out);
        let of_data = (written - of_out).min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        self.tail = self.tail.get(written - of_out - of_data..).unwrap_or_default();
    }
}

impl Default for Outlet {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Writes pieces through a pipe of `room` bytes.
    async fn written(encoding: Encoding, pieces: &[&[u8]], room: usize) -> Result<Vec<u8>, Error> {
        let (mut ours, mut theirs) = tokio::io::duplex(room);
        let read = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all
        });
        let mut outlet = Outlet::new();
        outlet.begin(encoding).extend_from_slice(b"head\r\n\r\n");
        for piece in pieces {
            if !outlet.has_room() {
                std::future::poll_fn(|cx| outlet.poll_write(&mut ours, cx)).await?;
            }
            outlet.data(Bytes::copy_from_slice(piece))?;
        }
        outlet.end(None)?;
        std::future::poll_fn(|cx| outlet.poll_write(&mut ours, cx)).await?;
        assert!(outlet.is_flushed());
        drop(ours);
        Ok(read.await.unwrap())
    }

    #[tokio::test]
    async fn a_body_is_written_as_its_encoding_says_whatever_room_there_is() {
        let large = vec![b'x'; 10_000];
        for room in [1, 100, 1 << 20] {
            let plain = written(Encoding::Length(10_003), &[b"abc", &large], room).await.unwrap();
            assert_eq!(plain.len(), 8 + 10_003);
            assert!(plain.starts_with(b"head\r\n\r\nabcxx"));
            let chunked = written(Encoding::Chunked, &[b"abc", b"", &large, b"d"], room).await.unwrap();
            let expected =
                [b"head\r\n\r\n3\r\nabc\r\n2710\r\n", &large[..], b"\r\n1\r\nd\r\n0\r\n\r\n"].concat();
            assert_eq!(chunked, expected);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_as_long_as_its_head_says_is_an_error() {
        assert!(written(Encoding::Length(4), &[b"abc"], 100).await.is_err());
        assert!(written(Encoding::Length(2), &[b"abc"], 100).await.is_err());
        assert!(written(Encoding::None, &[b"abc"], 100).await.is_err());
        assert!(written(Encoding::None, &[], 100).await.is_ok());
    }
}
