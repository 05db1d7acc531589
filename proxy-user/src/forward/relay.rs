//! Bytes both ways between two TCP connections, as they are: moved by the kernel where there are many of them.
//!
//! Few bytes are read and written, which takes the fewest system calls; once a read finds as much as it asked for, what
//! follows goes through a [`Pipe`] and is never copied, until it becomes little again. A connection that rests holds
//! neither a buffer nor a pipe. Nothing is read while what was read before is not written: so a side that does not read
//! stops the other one.
//!
//! What ends otherwise than by both sides being done ends by a reset, on both sides: nobody takes it for a whole.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::pipe::{Pipe, is_refused};
use super::tunnel::{Broken, Moved, TunnelEnd, scratch};
use crate::http::Transfer;

/// The ends of a tunnel, which are reset unless it ended well.
struct Ends {
    client: TcpStream,
    upstream: TcpStream,
    well: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.well {
            // One that is gone already needs none.
            let _ = self.client.set_zero_linger();
            let _ = self.upstream.set_zero_linger();
        }
    }
}

/// Moves bytes until both sides are done; `first` was read from the client already, and goes first. When one side ends its
/// half, the other half goes on. When it is dropped before its end, both sides are reset.
pub async fn relay(
    client: TcpStream,
    first: Bytes,
    upstream: TcpStream,
    transfer: &Transfer,
    idle: Duration,
) -> TunnelEnd {
    let mut ends = Ends { client, upstream, well: false };
    let moved = Moved::default();
    let end = {
        let Ends { client, upstream, .. } = &mut ends;
        let (client_in, client_out) = client.split();
        let (upstream_in, upstream_out) = upstream.split();
        // Pinned here, and not moved: each move of a future is a place for it in the one that moves it.
        let up = pin!(pump(client_in, upstream_out, first, |bytes| {
            transfer.add_sent(bytes);
            moved.note();
        }));
        let down = pin!(pump(upstream_in, client_out, Bytes::new(), |bytes| {
            transfer.add_received(bytes);
            moved.note();
        }));
        tokio::select! {
            end = both(up, down) => end,
            () = moved.quiet(idle) => TunnelEnd::Idle(idle),
        }
    };
    ends.well = matches!(end, TunnelEnd::Done);
    end
}

/// Runs both directions to their ends. Each gives its source back at its end: one that has nothing more to send can still break.
async fn both<'a>(
    mut up: Pin<&mut impl Future<Output = Result<ReadHalf<'a>, Broken>>>,
    mut down: Pin<&mut impl Future<Output = Result<ReadHalf<'a>, Broken>>>,
) -> TunnelEnd {
    tokio::select! {
        done = &mut up => match done {
            Err(broken) => broken.upwards(),
            Ok(client) => tokio::select! {
                done = &mut down => done.map_or_else(Broken::downwards, |_| TunnelEnd::Done),
                error = lost(client.as_ref()) => TunnelEnd::Client(error),
            },
        },
        done = &mut down => match done {
            Err(broken) => broken.downwards(),
            Ok(upstream) => tokio::select! {
                done = &mut up => done.map_or_else(Broken::upwards, |_| TunnelEnd::Done),
                error = lost(upstream.as_ref()) => TunnelEnd::Upstream(error),
            },
        },
    }
}

/// Ends when the connection breaks: for whoever does not read from it.
async fn lost(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => stream.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        Err(error) => error,
    }
}

/// Waits until `to` takes more (seldom: the memory for it is taken when it is needed); what comes from `from` waits meanwhile, but that it broke is noticed.
async fn room(from: &TcpStream, to: &TcpStream) -> Result<(), Broken> {
    tokio::select! {
        biased;
        ready = to.writable() => ready.map_err(Broken::Write),
        error = lost(from) => Err(Broken::Read(error)),
    }
}

/// Moves everything in one direction, and ends that half of `to`.
async fn pump<'a>(
    mut from: ReadHalf<'a>,
    mut to: WriteHalf<'a>,
    first: Bytes,
    note: impl Fn(u64),
) -> Result<ReadHalf<'a>, Broken> {
    write_all(from.as_ref(), to.as_ref(), &first, &note).await?;
    drop(first);
    let (mut many, mut may_splice) = (false, true);
    loop {
        let pipe = if many { Pipe::take() } else { None };
        let is_over = match pipe {
            Some(pipe) => match splice(from.as_ref(), to.as_ref(), pipe, &note).await? {
                Spliced::End => true,
                Spliced::Waits { much } => {
                    many = much;
                    if much {
                        from.as_ref().readable().await.map_err(Broken::Read)?;
                    }
                    false
                }
                Spliced::Refused => {
                    (many, may_splice) = (false, false);
                    false
                }
            },
            None => {
                let copied = copy(&mut from, to.as_ref(), &note).await?;
                many = may_splice && copied == Copied::AsMuchAsFits;
                copied == Copied::End
            }
        };
        if is_over {
            break;
        }
    }
    match to.shutdown().await {
        // Whoever is gone already cannot be told that we are done.
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Write(error)),
        _ => Ok(from),
    }
}

#[derive(PartialEq, Eq)]
enum Copied {
    /// There is nothing more to come.
    End,
    /// All that had come.
    Some,
    /// There may be more.
    AsMuchAsFits,
}

/// Waits for bytes and copies them.
async fn copy(from: &mut ReadHalf<'_>, to: &TcpStream, note: &impl Fn(u64)) -> Result<Copied, Broken> {
    let (copied, rest) = poll_fn(|cx| {
        scratch(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)).map_err(Broken::Read)?;
            let filled = buffer.filled();
            let copied = match filled.len() {
                0 => Copied::End,
                count if count == buffer.capacity() => Copied::AsMuchAsFits,
                _ => Copied::Some,
            };
            if copied == Copied::End {
                return Poll::Ready(Ok((copied, Vec::new())));
            }
            let written = match to.try_write(filled) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Poll::Ready(Err(Broken::Write(error))),
            };
            noted(written, note);
            Poll::Ready(Ok((copied, filled.get(written..).unwrap_or_default().to_vec())))
        })
    })
    .await?;
    write_all((*from).as_ref(), to, &rest, note).await?;
    Ok(copied)
}

async fn write_all(
    from: &TcpStream,
    to: &TcpStream,
    mut bytes: &[u8],
    note: &impl Fn(u64),
) -> Result<(), Broken> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(count) => {
                noted(count, note);
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Box::pin(room(from, to)).await?,
            Err(error) => return Err(Broken::Write(error)),
        }
    }
    Ok(())
}

enum Spliced {
    /// There is nothing more to come.
    End,
    /// Nothing more has come by now; `much`: it was worth it.
    Waits { much: bool },
    /// The system does not do it. Nothing was moved.
    Refused,
}

/// Moves what has come through a pipe, until nothing more has.
async fn splice(
    from: &TcpStream,
    to: &TcpStream,
    mut pipe: Pipe,
    note: &impl Fn(u64),
) -> Result<Spliced, Broken> {
    let mut much = true;
    loop {
        match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(0) => return Ok(Spliced::End),
            // Less than a read takes at once is cheaper to read.
            Ok(count) => much = count >= super::tunnel::BUFFER,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Spliced::Waits { much }),
            Err(error) if is_refused(&error) => return Ok(Spliced::Refused),
            Err(error) => return Err(Broken::Read(error)),
        }
        while pipe.holds() > 0 {
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(count) => noted(count, note),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Box::pin(room(from, to)).await?,
                Err(error) => return Err(Broken::Write(error)),
            }
        }
        // A connection that never rests must let others have their turn.
        tokio::task::coop::consume_budget().await;
        if !much {
            return Ok(Spliced::Waits { much });
        }
    }
}

fn noted(count: usize, note: &impl Fn(u64)) {
    note(u64::try_from(count).unwrap_or(u64::MAX));
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
