//! Bytes both ways, as they are: for connections that pass through, and for what a WebSocket becomes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proxy_journal::Blame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::http::Transfer;

/// Bytes on their way in each direction.
const BUFFER: usize = 32 * 1024;

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
    let moved = AtomicU64::new(0);
    let up = pump(client_in, upstream_out, |bytes| {
        transfer.add_sent(bytes);
        moved.fetch_add(1, Ordering::Relaxed);
    });
    let down = pump(upstream_in, client_out, |bytes| {
        transfer.add_received(bytes);
        moved.fetch_add(1, Ordering::Relaxed);
    });
    let both = async {
        let up = async {
            up.await.map_err(|broken| match broken {
                Broken::Read(error) => TunnelEnd::Client(error),
                Broken::Write(error) => TunnelEnd::Upstream(error),
            })
        };
        let down = async {
            down.await.map_err(|broken| match broken {
                Broken::Read(error) => TunnelEnd::Upstream(error),
                Broken::Write(error) => TunnelEnd::Client(error),
            })
        };
        match tokio::try_join!(up, down) {
            Ok(((), ())) => TunnelEnd::Done,
            Err(end) => end,
        }
    };
    tokio::select! {
        end = both => end,
        () = quiet(&moved, idle) => TunnelEnd::Idle(idle),
    }
}

/// Ends when nothing moved for at least `idle`.
async fn quiet(moved: &AtomicU64, idle: Duration) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
}

async fn pump<R, W>(mut from: R, mut to: W, mut note: impl FnMut(u64)) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => count,
            // TLS that ends without close_notify has ended all the same; what it carries has its own framing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(Broken::Read(error)),
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).await.map_err(Broken::Write)?;
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
