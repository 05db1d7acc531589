//! Opens connections to receivers, over TLS or not, and gets the secrets that they want.
//!
//! They are the daemon's own: they do not go through ourselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use proxy_policy::SecretRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::way::Trouble;
use crate::base::socket;
use crate::config::SinkTls;
use crate::credentials::{Credentials, Secret};
use crate::kernel::{unacknowledged, window};
use crate::trust::{Alpn, ClientIdentity, UpstreamTls, VerifiedStream};

/// Until TCP stands.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a receiver may take nothing at all.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

/// Where secrets are.
#[derive(Clone)]
pub(super) struct Secrets(Option<Arc<Credentials>>);

impl Secrets {
    pub(super) fn new(credentials: Option<Arc<Credentials>>) -> Secrets {
        Secrets(credentials)
    }

    /// A secret as it is now.
    pub(super) fn get(&self, reference: &SecretRef) -> Result<Arc<Secret>, Trouble> {
        let none = || "this command reads no secrets".to_owned();
        let held = self.0.as_ref().ok_or_else(none).and_then(|credentials| credentials.at_hand(reference));
        held.map_err(|why| Trouble::new(format!("the secret {reference} cannot be had: {why}")))
    }

    /// What this host proves itself with.
    pub(super) fn identity(
        &self,
        client: Option<&(SecretRef, SecretRef)>,
    ) -> Result<Option<ClientIdentity>, Trouble> {
        let Some((certificate, key)) = client else { return Ok(None) };
        let (certificate, key) = (self.get(certificate)?, self.get(key)?);
        let identity = ClientIdentity::new(certificate.expose(), key.expose());
        identity.map(Some).map_err(|error| Trouble::new(format!("client_certificate: {error}")))
    }
}

/// How a receiver is reached.
pub(super) struct Dial {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<(UpstreamTls, SinkTls)>,
    pub(super) secrets: Secrets,
}

/// An open connection.
pub(super) struct Link {
    stream: Stream,
    /// The largest window that its receiver has shown.
    largest: u32,
    /// Since when the receiver is seen not to read.
    unread_since: Option<Instant>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<VerifiedStream>),
}

impl Dial {
    /// Connects, and verifies who is there.
    pub(super) async fn open(&self) -> Result<Link, Trouble> {
        let place = crate::uplink::authority(&self.host, self.port);
        let tcp = match tokio::time::timeout(CONNECT_WITHIN, connect(&self.host, self.port)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Err(Trouble::new(format!("no connection to {place}: {error}"))),
            Err(_) => {
                let within = CONNECT_WITHIN.as_secs();
                return Err(Trouble::new(format!("no connection to {place} within {within} s")));
            }
        };
        socket::prepare(&tcp);
        let Some((tls, spoken)) = &self.tls else { return Ok(Link::of(Stream::Plain(tcp))) };
        let identity = self.secrets.identity(spoken.client.as_ref())?;
        let name = spoken.name.as_deref().unwrap_or(&self.host);
        match tls.connect_as(tcp, name, Alpn::Nothing, identity.as_ref()).await {
            Ok(stream) => Ok(Link::of(Stream::Tls(Box::new(stream)))),
            Err(error) => Err(Trouble::new(error.to_string())),
        }
    }
}

async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let all: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "its name has no address");
    for address in all {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Link {
    fn of(stream: Stream) -> Link {
        Link { stream, largest: 0, unread_since: None }
    }

    /// Writes all of it, for as long as the receiver takes anything.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match &mut self.stream {
            Stream::Plain(stream) => write(stream, bytes).await,
            Stream::Tls(stream) => write(stream.as_mut(), bytes).await,
        }
    }

    /// Bytes that the receiver does not have yet, as far as that is seen from here: those that its host has not acknowledged; and all of
    /// them while less than half of the room is left that it had, for then it does not read. (One that has read everything shows
    /// more: Linux tells of a window that has doubled, `tcp_cleanup_rbuf` in net/ipv4/tcp.c.) It is trouble when the receiver has gone.
    pub(super) fn waiting(&mut self) -> Result<u64, Trouble> {
        let closed = match &mut self.stream {
            Stream::Plain(stream) => is_closed(stream),
            Stream::Tls(stream) => is_closed(stream.as_mut()),
        };
        let tcp = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        closed?;
        let none = |error| Trouble::new(format!("the connection is none: {error}"));
        // In this order: the window is one of after what was acknowledged.
        let waiting = unacknowledged(tcp).map_err(none)?;
        let window = window(tcp).map_err(none)?.unwrap_or(u32::MAX);
        if window < self.largest / 2 {
            self.unread_since.get_or_insert_with(Instant::now);
            return Ok(u64::MAX);
        }
        self.largest = self.largest.max(window);
        self.unread_since = None;
        Ok(waiting)
    }

    /// For how long the receiver is seen not to read.
    pub(super) fn unread_for(&self) -> Duration {
        self.unread_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Says that nothing more comes, and waits until the receiver says so too: then it has read everything.
    pub(super) async fn end(&mut self) -> bool {
        match &mut self.stream {
            Stream::Plain(stream) => end(stream).await,
            Stream::Tls(stream) => end(stream.as_mut()).await,
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), Trouble> {
    let broke = |error: std::io::Error| Trouble::new(format!("the receiver broke the connection: {error}"));
    let slow = |_| Trouble::new(format!("the receiver took nothing for {} s", WRITE_WITHIN.as_secs()));
    while !bytes.is_empty() {
        let written = tokio::time::timeout(WRITE_WITHIN, stream.write(bytes)).await.map_err(slow)?;
        let written = written.map_err(broke)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    tokio::time::timeout(WRITE_WITHIN, stream.flush()).await.map_err(slow)?.map_err(broke)
}

/// Looks whether it was closed or broken. What the receiver says, which these protocols have nothing for, is dropped.
fn is_closed(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Trouble> {
    let mut dropped = [0; 1024];
    for _ in 0..16 {
        match stream.read(&mut dropped).now_or_never() {
            None => return Ok(()),
            Some(Ok(0)) => return Err(Trouble::new("the receiver closed the connection")),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                return Err(Trouble::new(format!("the receiver broke the connection: {error}")));
            }
        }
    }
    Ok(())
}

async fn end(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    if stream.shutdown().await.is_err() {
        return false;
    }
    let mut dropped = [0; 1024];
    loop {
        match stream.read(&mut dropped).await {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
