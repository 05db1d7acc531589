//! A bot and a server on real connections, and the relay between them.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::tunnel::BUFFER;
use super::*;

const LONG: Duration = Duration::from_secs(60);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

/// A bot, a server, and what is between them.
struct Between {
    bot: TcpStream,
    server: TcpStream,
    transfer: Arc<Transfer>,
    end: JoinHandle<TunnelEnd>,
}

async fn between(first: &'static [u8], idle: Duration) -> Between {
    let (bot, client) = pair().await;
    let (upstream, server) = pair().await;
    let transfer = Arc::new(Transfer::default());
    let end = tokio::spawn({
        let transfer = Arc::clone(&transfer);
        async move { relay(client, Bytes::from_static(first), upstream, &transfer, idle).await }
    });
    Between { bot, server, transfer, end }
}

/// How it ended, which takes no time.
async fn ended(end: JoinHandle<TunnelEnd>) -> TunnelEnd {
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("it did not end").unwrap()
}

/// Bytes of which no two places look the same for long.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Reads to the end, in pieces of this size, and holds it against the pattern.
async fn read_pattern(stream: &mut TcpStream, piece: usize) -> usize {
    let (mut at, mut buffer) = (0, vec![0; piece]);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return at,
            count => {
                assert!(buffer[..count] == pattern(at, count)[..], "wrong bytes after {at}");
                at += count;
            }
        }
    }
}

#[tokio::test]
async fn many_bytes_and_few_ones_come_as_they_were_sent_and_are_counted() {
    let Between { mut bot, mut server, transfer, end } = between(b"", LONG).await;
    let sizes = [1, 70_000, 3, BUFFER, BUFFER + 1, 1_000_000, 5, 2_000_000, 100, 32, 400_000];
    let total: usize = sizes.iter().sum();
    let send = async |stream: &mut TcpStream| {
        let mut at = 0;
        for size in sizes {
            stream.write_all(&pattern(at, size)).await.unwrap();
            at += size;
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
    };
    let ((), up) = tokio::join!(send(&mut bot), read_pattern(&mut server, 9_999));
    let ((), down) = tokio::join!(send(&mut server), read_pattern(&mut bot, 100_000));
    assert_eq!((up, down), (total, total));
    assert!(matches!(ended(end).await, TunnelEnd::Done));
    assert_eq!((transfer.sent(), transfer.received()), (total as u64, total as u64));
}

#[tokio::test]
async fn what_was_read_before_goes_first_and_is_counted() {
    let Between { mut bot, mut server, transfer, end } = between(b"hello ", LONG).await;
    bot.write_all(b"world").await.unwrap();
    bot.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"hello world");
    server.write_all(b"late answer").await.unwrap();
    drop(server);
    got.clear();
    bot.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"late answer");
    assert!(matches!(ended(end).await, TunnelEnd::Done));
    assert_eq!((transfer.sent(), transfer.received()), (11, 11));
}

#[tokio::test]
async fn an_upstream_that_ends_its_half_still_gets_what_the_client_says() {
    let Between { mut bot, mut server, end, .. } = between(b"", LONG).await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = Vec::new();
    bot.read_to_end(&mut got).await.unwrap();
    bot.write_all(b"one more thing").await.unwrap();
    drop(bot);
    got.clear();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"one more thing");
    assert!(matches!(ended(end).await, TunnelEnd::Done));
}

/// Whether the connection was reset, not closed.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let read = stream.read_to_end(&mut Vec::new()).await;
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_reset_of_one_side_is_one_for_the_other_and_whose_it_was_is_told() {
    for is_bot in [true, false] {
        let Between { mut bot, mut server, end, .. } = between(b"", LONG).await;
        bot.write_all(b"a").await.unwrap();
        server.read_u8().await.unwrap();
        let (breaks, mut stays) = if is_bot { (bot, server) } else { (server, bot) };
        breaks.set_zero_linger().unwrap();
        drop(breaks);
        assert!(is_reset(&mut stays).await);
        let end = ended(end).await;
        assert_eq!(matches!(end, TunnelEnd::Client(_)), is_bot, "{end:?}");
        assert_eq!(matches!(end, TunnelEnd::Upstream(_)), !is_bot, "{end:?}");
    }
}

#[tokio::test]
async fn a_side_that_ended_its_half_and_then_breaks_is_noticed_while_the_other_is_silent() {
    for is_bot in [true, false] {
        let Between { mut bot, mut server, end, .. } = between(b"", LONG).await;
        let (breaks, stays) = if is_bot { (&mut bot, &mut server) } else { (&mut server, &mut bot) };
        breaks.shutdown().await.unwrap();
        assert_eq!(stays.read(&mut [0]).await.unwrap(), 0);
        breaks.set_zero_linger().unwrap();
        let mut stays = if is_bot { server } else { std::mem::replace(&mut bot, server) };
        drop(bot);
        let end = ended(end).await;
        assert_eq!(matches!(end, TunnelEnd::Client(_)), is_bot, "{end:?}");
        let written = async {
            while stays.write_all(&[0; 1000]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, written).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_breaks_while_the_upstream_does_not_read_is_noticed() {
    let Between { bot, server, end, .. } = between(b"", LONG).await;
    let chunk = vec![0; 1 << 20];
    // Until nothing more goes: both windows are full, and the pipe.
    while tokio::time::timeout(Duration::from_millis(300), bot.writable()).await.is_ok() {
        let _ = bot.try_write(&chunk);
    }
    bot.set_zero_linger().unwrap();
    drop(bot);
    assert!(matches!(ended(end).await, TunnelEnd::Client(_)));
    drop(server);
}

#[tokio::test]
async fn a_side_that_does_not_read_stops_the_other_one() {
    let Between { bot, mut server, end, .. } = between(b"", LONG).await;
    let (mut sent, chunk) = (0, vec![7; 1 << 20]);
    while tokio::time::timeout(Duration::from_millis(300), bot.writable()).await.is_ok() {
        sent += bot.try_write(&chunk).unwrap_or(0);
        assert!(sent < 64 << 20, "nothing stops it");
    }
    let reading = tokio::spawn(async move { server.read_to_end(&mut Vec::new()).await.unwrap() });
    drop(bot);
    assert_eq!(reading.await.unwrap(), sent);
    assert!(matches!(ended(end).await, TunnelEnd::Done));
}

#[tokio::test]
async fn a_relay_that_is_dropped_or_rests_for_too_long_resets_both_sides() {
    let Between { mut bot, mut server, end, .. } = between(b"", Duration::from_millis(50)).await;
    assert!(matches!(ended(end).await, TunnelEnd::Idle(_)));
    assert!(is_reset(&mut bot).await && is_reset(&mut server).await);
    let Between { mut bot, mut server, end, .. } = between(b"", LONG).await;
    bot.write_all(b"a").await.unwrap();
    server.read_u8().await.unwrap();
    end.abort();
    assert!(is_reset(&mut bot).await && is_reset(&mut server).await);
}

#[tokio::test]
async fn a_relay_that_rests_is_small() {
    let (_bot, client) = pair().await;
    let (upstream, _server) = pair().await;
    let transfer = Transfer::default();
    let relay = relay(client, Bytes::new(), upstream, &transfer, LONG);
    assert!(size_of_val(&relay) <= 4_096, "{} bytes", size_of_val(&relay));
}
