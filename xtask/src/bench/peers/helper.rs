//! The bench's own servers, which it runs in the stage's network: one that sends events and takes bodies, and a relay that
//! delays, because not every kernel has netem.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

/// The names of the tasks on the command line.
pub(super) const SERVE: &str = "serve";
pub(super) const DELAY: &str = "delay";

/// From the client to the far server and back.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(20);
/// From one event to the next.
pub(super) const EVENT_PACE: Duration = Duration::from_millis(5);
/// Events of one stream.
pub(super) const EVENTS: u32 = 200;
/// Nothing is silent for so long.
const LIMIT: Duration = Duration::from_secs(60);

/// What the hidden task `bench-peer` does.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Plain HTTP: `/v1/own/events` sends events that say when they were sent, everything else takes a body.
    Serve { listen: SocketAddr },
    /// Hands bytes on, later.
    Delay { listen: SocketAddr, to: SocketAddr },
}

/// Does what the hidden task is told to, until it is ended.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.task {
        Task::Serve { listen } => each(listen, serve),
        Task::Delay { listen, to } => each(listen, move |stream| delay(stream, to)),
    }
}

fn each(listen: SocketAddr, what: impl Fn(TcpStream) -> Result<()> + Clone + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    for stream in listener.incoming() {
        let (stream, what) = (stream?, what.clone());
        std::thread::spawn(move || {
            let outcome = stream.set_nodelay(true).map_err(Into::into).and_then(|()| what(stream));
            if let Err(error) = outcome {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

/// Nanoseconds since the epoch; server and client share the clock.
pub(super) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    if head.starts_with("GET /v1/own/events ") {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        )?;
        for _ in 0..EVENTS {
            std::thread::sleep(EVENT_PACE);
            stream.write_all(format!("data: {}\n\n", now()).as_bytes())?;
        }
        return Ok(());
    }
    let taken = take_body(&mut reader, &head)?;
    let body = taken.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    Ok(())
}

/// Reads a body to its end, whatever it is framed with, and returns its bytes.
fn take_body(reader: &mut impl std::io::BufRead, head: &str) -> Result<u64> {
    let fields = || head.lines().filter_map(|line| line.split_once(':'));
    let field = |name: &str| fields().find(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1.trim());
    if let Some(length) = field("content-length") {
        let length = length.parse().context("the length is no number")?;
        return Ok(std::io::copy(&mut reader.take(length), &mut std::io::sink())?);
    }
    let mut taken = 0;
    while field("transfer-encoding").is_some() {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).context("a chunk has no size")?;
        std::io::copy(&mut reader.by_ref().take(size), &mut std::io::sink())?;
        reader.read_line(&mut line)?;
        taken += size;
        if size == 0 {
            break;
        }
    }
    Ok(taken)
}

/// A relay cannot delay a handshake of TCP, which the kernel does: so the first bytes are late by a whole round trip more.
fn delay(client: TcpStream, to: SocketAddr) -> Result<()> {
    let server = TcpStream::connect(to)?;
    server.set_nodelay(true)?;
    let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || later(from_server, to_client, Duration::ZERO));
    let there = later(client, server, ROUND_TRIP);
    back.join().unwrap_or(Ok(()))?;
    there
}

/// Hands on what it reads half a round trip later; `first` is what the first bytes wait beside.
fn later(mut from: TcpStream, mut to: TcpStream, first: Duration) -> Result<()> {
    let (send, receive) = mpsc::sync_channel::<(Instant, Vec<u8>)>(1024);
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        for (due, bytes) in receive {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            to.write_all(&bytes)?;
        }
        to.shutdown(Shutdown::Write)
    });
    let mut first = Some(first);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        // Later bytes do not overtake the first: they are sent in turn.
        let due = Instant::now() + ROUND_TRIP / 2 + first.take().unwrap_or_default();
        let bytes = buffer.get(..read).unwrap_or_default().to_vec();
        if read == 0 || send.send((due, bytes)).is_err() {
            break;
        }
    }
    drop(send);
    // The other end may be gone, which is how connections end.
    let _ = writer.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_to_its_end_whatever_frames_it() {
        let mut plain: &[u8] = b"12345rest";
        assert_eq!(take_body(&mut plain, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n").unwrap(), 5);
        assert_eq!(plain, b"rest");
        let mut chunked: &[u8] = b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nrest";
        assert_eq!(
            take_body(&mut chunked, "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").unwrap(),
            13
        );
        assert_eq!(chunked, b"rest");
        let mut none: &[u8] = b"rest";
        assert_eq!(take_body(&mut none, "POST / HTTP/1.1\r\n\r\n").unwrap(), 0);
        assert!(take_body(&mut b"x\r\n".as_slice(), "POST /\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn bytes_arrive_a_round_trip_late_and_the_first_ones_two() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).unwrap();
            }
        });
        let relay = TcpListener::bind("127.0.0.1:0").unwrap();
        // Before the relay can have begun.
        let mut begun = Instant::now();
        let mut client = TcpStream::connect(relay.local_addr().unwrap()).unwrap();
        std::thread::spawn(move || delay(relay.accept().unwrap().0, to));
        for trips in [2, 1] {
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
            // Not less; how much more, the machine says.
            assert!(begun.elapsed() >= ROUND_TRIP * trips);
            begun = Instant::now();
        }
    }
}
