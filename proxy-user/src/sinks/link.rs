//! Opens connections to receivers, over TLS or not, and gets the secrets that they want.
//!
//! They are the daemon's own: they do not go through ourselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use proxy_policy::SecretRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::way::Trouble;
use crate::base::socket;
use crate::config::SinkTls;
use crate::credentials::{Credentials, Secret};
use crate::kernel::unacknowledged;
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
pub(super) enum Link {
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
        let Some((tls, spoken)) = &self.tls else { return Ok(Link::Plain(tcp)) };
        let identity = self.secrets.identity(spoken.client.as_ref())?;
        let name = spoken.name.as_deref().unwrap_or(&self.host);
        match tls.connect_as(tcp, name, Alpn::Nothing, identity.as_ref()).await {
            Ok(stream) => Ok(Link::Tls(Box::new(stream))),
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
    /// Writes all of it, for as long as the receiver takes anything.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self {
            Link::Plain(stream) => write(stream, bytes).await,
            Link::Tls(stream) => write(stream.as_mut(), bytes).await,
        }
    }

    /// Bytes that the receiver's host does not have yet. It is trouble when the receiver has gone.
    pub(super) fn waiting(&mut self) -> Result<u64, Trouble> {
        let closed = match self {
            Link::Plain(stream) => is_closed(stream),
            Link::Tls(stream) => is_closed(stream.as_mut()),
        };
        let tcp = match self {
            Link::Plain(stream) => stream,
            Link::Tls(stream) => stream.get_ref().0,
        };
        closed?;
        unacknowledged(tcp).map_err(|error| Trouble::new(format!("the connection is none: {error}")))
    }

    /// Says that nothing more comes, and waits until the receiver says so too: then it has read everything.
    pub(super) async fn end(&mut self) -> bool {
        match self {
            Link::Plain(stream) => end(stream).await,
            Link::Tls(stream) => end(stream.as_mut()).await,
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
