//! What a TCP connection becomes before a request goes over it. Two types, so that one cannot be taken for the other.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::ForwardError;
use super::pool::Route;
use crate::trust::{Alpn, UpstreamStream, UpstreamTls};

/// Which versions of HTTP will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The upstream chooses by ALPN; without TLS it is HTTP/1.
    Any,
    /// HTTP/1, for upgrades.
    Http1,
    /// HTTP/2 without TLS by prior knowledge, as the client has it (RFC 9113 §3.3).
    Http2,
}

/// What the connection turned out to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::VerifiedTls {}
    impl Sealed for super::Plain {}
}

/// One of the two kinds of transport.
pub trait Transport: sealed::Sealed + Send + Sync + 'static {
    /// The stream that HTTP is spoken over.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// `http` or `https`.
    const SCHEME: &'static str;

    /// Makes the transport out of a connection to the route's address.
    fn establish(
        &self,
        tcp: TcpStream,
        route: &Route,
    ) -> impl Future<Output = Result<(Self::Stream, Speaks), ForwardError>> + Send;
}

/// TLS to a server that proved to be the host. The only transport that carries a credential.
#[derive(Debug)]
pub struct VerifiedTls {
    tls: UpstreamTls,
}

impl VerifiedTls {
    /// Over the trust that `tls` has.
    #[must_use]
    pub fn new(tls: UpstreamTls) -> Self {
        Self { tls }
    }
}

impl Transport for VerifiedTls {
    type Stream = UpstreamStream;

    const SCHEME: &'static str = "https";

    async fn establish(&self, tcp: TcpStream, route: &Route) -> Result<(Self::Stream, Speaks), ForwardError> {
        let alpn = match route.mode {
            Mode::Any => Alpn::Http2OrHttp1,
            Mode::Http1 => Alpn::Http1,
            Mode::Http2 => Alpn::Http2,
        };
        let connecting = self.tls.connect_as(tcp, &route.host, alpn, route.client.as_ref()).await;
        let stream = connecting.map_err(|source| ForwardError::Tls { addr: route.addr.0, source })?;
        let speaks =
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Speaks::Http2 } else { Speaks::Http1 };
        Ok((stream, speaks))
    }
}

/// Plain TCP, whose other end proves nothing.
#[derive(Debug)]
pub struct Plain;

impl Transport for Plain {
    type Stream = TcpStream;

    const SCHEME: &'static str = "http";

    async fn establish(&self, tcp: TcpStream, route: &Route) -> Result<(TcpStream, Speaks), ForwardError> {
        Ok((tcp, if route.mode == Mode::Http2 { Speaks::Http2 } else { Speaks::Http1 }))
    }
}
