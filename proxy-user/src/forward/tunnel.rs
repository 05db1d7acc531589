//! Bytes both ways, as they are, between ends of any kind: for what a WebSocket over TLS becomes. Where both ends are
//! TCP, [`relay`](super::relay) does it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use proxy_journal::Blame;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::http::Transfer;

/// Bytes that are read at once.
pub(super) const BUFFER: usize = 32 * 1024;

/// How a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// Both sides were done.
    Done,
    /// Nothing came from either side for so long.
    Idle(Duration),
    /// The client's side broke.
    Client(io::Error),
    /// The upstream's side broke.
    Upstream(io::Error),
}

impl TunnelEnd {
    /// Who is to blame, and the error in words; `None` when all went well.
    #[must_use]
    pub fn failure(&self) -> Option<(Blame, String)> {
        match self {
            Self::Done => None,
            Self::Idle(time) => Some((Blame::Client, format!("nothing was sent for {} s", time.as_secs()))),
            Self::Client(error) => Some((Blame::Client, format!("the client's connection broke: {error}"))),
            Self::Upstream(error) => {
                Some((Blame::Upstream, format!("the upstream's connection broke: {error}")))
            }
        }
    }
}

/// Moves bytes until both sides are done. When one side ends its half, the other half goes on.
pub async fn tunnel<C, U>(client: C, upstream: U, transfer: &Transfer, idle: Duration) -> TunnelEnd
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (client_in, client_out) = tokio::io::split(client);
    let (upstream_in, upstream_out) = tokio::io::split(upstream);
    let moved = Moved::default();
    let up = pump(client_in, upstream_out, |bytes| {
        transfer.add_sent(bytes);
        moved.note();
    });
    let down = pump(upstream_in, client_out, |bytes| {
        transfer.add_received(bytes);
        moved.note();
    });
    let both = async {
        let up = async { up.await.map_err(Broken::upwards) };
        let down = async { down.await.map_err(Broken::downwards) };
        match tokio::try_join!(up, down) {
            Ok(((), ())) => TunnelEnd::Done,
            Err(end) => end,
        }
    };
    tokio::select! {
        end = both => end,
        () = moved.quiet(idle) => TunnelEnd::Idle(idle),
    }
}

/// Whether anything moves.
#[derive(Debug, Default)]
pub(super) struct Moved(AtomicU64);

impl Moved {
    /// Something moved.
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends when nothing moved for at least `idle`.
    pub(super) async fn quiet(&self, idle: Duration) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(idle).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

/// What broke of one direction.
pub(super) enum Broken {
    Read(io::Error),
    Write(io::Error),
}

impl Broken {
    /// On the way from the client to the upstream.
    pub(super) fn upwards(self) -> TunnelEnd {
        match self {
            Self::Read(error) => TunnelEnd::Client(error),
            Self::Write(error) => TunnelEnd::Upstream(error),
        }
    }

    /// On the way from the upstream to the client.
    pub(super) fn downwards(self) -> TunnelEnd {
        match self {
            Self::Read(error) => TunnelEnd::Upstream(error),
            Self::Write(error) => TunnelEnd::Client(error),
        }
    }
}

/// Gives a buffer of this thread for as long as `with` runs, so that a tunnel that waits has none. What is in it before is
/// of others, and must not be looked at.
pub(super) fn scratch<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local!(static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice()));
    SCRATCH.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => with(&mut buffer),
        // A tunnel within a tunnel.
        Err(_) => with(&mut vec![0; BUFFER]),
    })
}

async fn pump<R, W>(mut from: R, mut to: W, note: impl Fn(u64)) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let (count, rest) = poll_fn(|cx| {
            scratch(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                match ready!(Pin::new(&mut from).poll_read(cx, &mut buffer)) {
                    // TLS that ends without close_notify has ended all the same; what it carries has its own framing.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                    result => result.map_err(Broken::Read)?,
                }
                let filled = buffer.filled();
                let written = match filled.is_empty() {
                    true => 0,
                    false => match Pin::new(&mut to).poll_write(cx, filled) {
                        Poll::Ready(written) => written.map_err(Broken::Write)?,
                        Poll::Pending => 0,
                    },
                };
                Poll::Ready(Ok((filled.len(), filled.get(written..).unwrap_or_default().to_vec())))
            })
        })
        .await?;
        if count == 0 {
            break;
        }
        to.write_all(&rest).await.map_err(Broken::Write)?;
        to.flush().await.map_err(Broken::Write)?;
        note(u64::try_from(count).unwrap_or(u64::MAX));
    }
    match to.shutdown().await {
        // Whoever is gone already cannot be told that we are done.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result.map_err(Broken::Write),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_half_that_ends_leaves_the_other_half_open() {
        let (mut bot, client) = tokio::io::duplex(16);
        let (upstream, mut server) = tokio::io::duplex(16);
        let transfer = Arc::new(Transfer::default());
        let running = tokio::spawn({
            let transfer = Arc::clone(&transfer);
            async move { tunnel(client, upstream, &transfer, Duration::from_secs(60)).await }
        });
        bot.write_all(b"request").await.unwrap();
        bot.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"request");
        server.write_all(b"late answer").await.unwrap();
        drop(server);
        let mut got = Vec::new();
        bot.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"late answer");
        assert!(matches!(running.await.unwrap(), TunnelEnd::Done));
        assert_eq!((transfer.sent(), transfer.received()), (7, 11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_with_a_byte_now_and_then_in_one_direction_goes_on() {
        let (bot, client) = tokio::io::duplex(16);
        let (upstream, mut server) = tokio::io::duplex(16);
        let speaking = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                server.write_all(b"tick").await.unwrap();
            }
            drop((bot, server));
        };
        let transfer = Transfer::default();
        let (end, ()) = tokio::join!(tunnel(client, upstream, &transfer, Duration::from_secs(60)), speaking);
        assert!(!matches!(end, TunnelEnd::Idle(_)), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_without_a_byte_ends() {
        let (_bot, client) = tokio::io::duplex(16);
        let (upstream, _server) = tokio::io::duplex(16);
        let end = tunnel(client, upstream, &Transfer::default(), Duration::from_secs(60)).await;
        assert!(matches!(end, TunnelEnd::Idle(_)), "{end:?}");
    }
}
