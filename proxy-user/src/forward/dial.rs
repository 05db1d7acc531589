//! Opening connections: the only place that connects to anything outside of this host's own sockets. [`reach`](super::reach) says where to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proxy_policy::Addresses;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::ForwardError;
use super::reach::lookup;
use crate::base::addr::UpstreamAddr;

/// Opens TCP connections, but none to this proxy.
#[derive(Clone, Debug)]
pub struct Dialer {
    own: Vec<SocketAddr>,
    limit: Duration,
}

impl Dialer {
    /// `own` are the addresses that this proxy listens on: a call to them would come back for ever.
    #[must_use]
    pub fn new(own: Vec<SocketAddr>, limit: Duration) -> Self {
        Self { own, limit }
    }

    /// How long connecting may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Connects.
    ///
    /// # Errors
    /// Refused, unreachable, not in time, or a loop.
    pub async fn dial(&self, upstream: UpstreamAddr) -> Result<TcpStream, ForwardError> {
        let addr = SocketAddr::new(upstream.0.ip().to_canonical(), upstream.0.port());
        if self.is_own(addr) {
            return Err(ForwardError::Loop { addr });
        }
        let stream = match timeout(self.limit, TcpStream::connect(addr)).await {
            Ok(stream) => stream.map_err(|source| ForwardError::Connect { addr, source })?,
            Err(_) => return Err(ForwardError::ConnectTimeout { addr, limit: self.limit }),
        };
        crate::base::socket::prepare(&stream);
        Ok(stream)
    }

    /// Whether there is a server at an address, as far as that can be told: only a clear no is one.
    pub(super) async fn has_server(&self, addr: SocketAddr) -> bool {
        use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let no = [AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable];
        let dialled = self.dial(UpstreamAddr(addr)).await;
        !matches!(dialled, Err(ForwardError::Connect { source, .. }) if no.contains(&source.kind()))
    }

    fn is_own(&self, addr: SocketAddr) -> bool {
        self.own.iter().any(|own| {
            let ip = own.ip().to_canonical();
            own.port() == addr.port() && (ip == addr.ip() || (ip.is_unspecified() && addr.ip().is_loopback()))
        })
    }
}

/// Where a host is; `chosen` when it is among the answers. Only at addresses at which its API may be, if there is one.
pub(super) async fn resolve(
    host: &str,
    chosen: SocketAddr,
    limit: Duration,
    addresses: Option<&Addresses>,
) -> Result<UpstreamAddr, ForwardError> {
    let (port, chosen) = (chosen.port(), chosen.ip().to_canonical());
    let mut all = resolve_all(host, port, limit).await?;
    let mut refused = None;
    all.retain(|addr| match addresses.map_or(Ok(()), |addresses| addresses.check(addr.ip())) {
        Ok(()) => true,
        Err(elsewhere) => {
            refused.get_or_insert(elsewhere);
            false
        }
    });
    match (all.iter().find(|addr| addr.ip() == chosen).or(all.first()), refused) {
        (Some(found), _) => Ok(UpstreamAddr(*found)),
        (None, Some(elsewhere)) => {
            Err(ForwardError::Elsewhere { host: host.to_owned(), elsewhere: Box::new(elsewhere) })
        }
        (None, None) => Err(resolves_to_nothing(host)),
    }
}

/// All addresses of a host, each once.
pub(super) async fn resolve_all(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Vec<SocketAddr>, ForwardError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip.to_canonical(), port)]);
    }
    let failed = |source| ForwardError::Resolve { host: host.to_owned(), source };
    match timeout(limit, lookup(host, port)).await {
        Ok(answers) => answers.map_err(failed),
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}

pub(super) fn resolves_to_nothing(host: &str) -> ForwardError {
    ForwardError::Resolve { host: host.to_owned(), source: std::io::ErrorKind::NotFound.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_spelling_of_our_own_address_is_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dial = |own: &str, to: &str| {
            let dialer =
                Dialer::new(vec![SocketAddr::new(own.parse().unwrap(), port)], Duration::from_secs(5));
            let to = UpstreamAddr(SocketAddr::new(to.parse().unwrap(), port));
            async move { dialer.dial(to).await }
        };
        for (own, to) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
        ] {
            let result = dial(own, to).await;
            assert!(matches!(result, Err(ForwardError::Loop { .. })), "{to} with {own}: {result:?}");
        }
        assert!(dial("127.0.0.2", "127.0.0.1").await.is_ok(), "another address of the same port");
    }

    #[tokio::test]
    async fn an_address_that_the_name_does_not_have_is_not_taken() {
        let limit = Duration::from_secs(5);
        let resolved = resolve("localhost", "192.0.2.7:80".parse().unwrap(), limit, None).await.unwrap();
        assert!(resolved.0.ip().is_loopback() && resolved.0.port() == 80, "{resolved:?}");
        let resolved = resolve("192.0.2.8", "192.0.2.7:80".parse().unwrap(), limit, None).await.unwrap();
        assert_eq!(resolved.0, "192.0.2.8:80".parse().unwrap());
    }
}
