//! What a TCP connection becomes before a request goes over it. Three types, so that one cannot be taken for another.

use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::Scheme;
use tokio::net::TcpStream;

use super::error::ForwardError;
use super::pool::Route;
use crate::base::ahead::ReadAhead;
use crate::http1::Io;
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
    impl Sealed for super::Loopback {}
    impl Sealed for super::Plain {}
}

/// One of the three kinds of transport.
pub trait Transport: sealed::Sealed + Send + Sync + 'static {
    /// The stream that HTTP is spoken over.
    type Stream: Io + 'static;

    /// `http` or `https`.
    fn scheme() -> Scheme;

    /// Makes the transport out of a connection to the route's address.
    fn establish(
        &self,
        tcp: TcpStream,
        route: &Route,
    ) -> impl Future<Output = Result<(Self::Stream, Speaks), ForwardError>> + Send;
}

/// TLS to a server that proved to be the host. Every credential may go over it.
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

    fn scheme() -> Scheme {
        Scheme::HTTPS
    }

    async fn establish(&self, tcp: TcpStream, route: &Route) -> Result<(Self::Stream, Speaks), ForwardError> {
        let alpn = match route.mode {
            Mode::Any => Alpn::Http2OrHttp1,
            Mode::Http1 => Alpn::Http1,
            Mode::Http2 => Alpn::Http2,
        };
        let connecting = self
            .tls
            .connect_as(ReadAhead::new(Bytes::new(), tcp), &route.host, alpn, route.client.as_ref())
            .await;
        let stream = connecting.map_err(|source| ForwardError::Tls { addr: route.addr.0, source })?;
        let speaks =
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Speaks::Http2 } else { Speaks::Http1 };
        Ok((stream, speaks))
    }
}

/// Plain TCP to a loopback address: a credential may go over it that says so.
#[derive(Debug)]
pub struct Loopback;

impl Loopback {
    /// Whether what is sent to an address stays on this host, whatever its routes say: 127.0.0.0/8 and ::1 (RFC 1122 section
    /// 3.2.1.3, RFC 4291 section 2.5.3), also as IPv4 within IPv6.
    #[must_use]
    pub fn is_at(addr: SocketAddr) -> bool {
        addr.ip().to_canonical().is_loopback()
    }
}

impl Transport for Loopback {
    type Stream = TcpStream;

    fn scheme() -> Scheme {
        Scheme::HTTP
    }

    async fn establish(&self, tcp: TcpStream, route: &Route) -> Result<(TcpStream, Speaks), ForwardError> {
        // What it is connected to, and not what somebody meant to connect to.
        let peer = tcp.peer_addr().map_err(|source| ForwardError::Connect { addr: route.addr.0, source })?;
        if !Self::is_at(peer) {
            return Err(ForwardError::NotLoopback { credential: None, addr: peer });
        }
        Plain.establish(tcp, route).await
    }
}

/// Plain TCP, whose other end proves nothing. No credential goes over it.
#[derive(Debug)]
pub struct Plain;

impl Transport for Plain {
    type Stream = TcpStream;

    fn scheme() -> Scheme {
        Scheme::HTTP
    }

    async fn establish(&self, tcp: TcpStream, route: &Route) -> Result<(TcpStream, Speaks), ForwardError> {
        Ok((tcp, if route.mode == Mode::Http2 { Speaks::Http2 } else { Speaks::Http1 }))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::base::addr::UpstreamAddr;

    #[test]
    fn a_loopback_address_is_one_in_every_spelling_and_nothing_else_is() {
        for (ip, is) in [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("128.0.0.1", false),
            ("126.255.255.255", false),
            ("10.0.0.1", false),
            ("169.254.0.1", false),
            ("::2", false),
            // IPv4-compatible (RFC 4291 section 2.5.5.1, deprecated): another address.
            ("::7f00:1", false),
            ("64:ff9b::7f00:1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(Loopback::is_at(SocketAddr::new(ip.parse().unwrap(), 80)), is, "{ip}");
        }
    }

    /// Brings a network of its own up for this thread, which has the address besides loopback; `false` where nobody may.
    fn network_with(address: &str) -> bool {
        use nix::sched::{CloneFlags, unshare};
        let ip =
            |arguments: &[&str]| Command::new("ip").args(arguments).status().is_ok_and(|it| it.success());
        unshare(CloneFlags::CLONE_NEWNET).is_ok()
            && ip(&["link", "set", "lo", "up"])
            && ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])
    }

    #[test]
    fn what_counts_is_where_a_connection_leads_and_not_where_it_was_meant_to() {
        let thread = std::thread::spawn(|| {
            if !network_with("203.0.113.1") {
                assert!(!nix::unistd::geteuid().is_root(), "root cannot make a network namespace");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let meant: SocketAddr = "127.0.0.1:80".parse().unwrap();
                let route = Route::new("api.test".into(), UpstreamAddr(meant), Mode::Http1);
                for (address, fits) in [("127.0.0.1:0", true), ("203.0.113.1:0", false)] {
                    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                    let established = Loopback.establish(tcp, &route).await;
                    match established {
                        Ok(_) => assert!(fits, "{address}"),
                        Err(ForwardError::NotLoopback { .. }) => assert!(!fits, "{address}"),
                        Err(error) => panic!("{address}: {error}"),
                    }
                }
            });
        });
        thread.join().unwrap();
    }
}
