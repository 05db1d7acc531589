//! Opening connections: the only place that connects to anything outside of this host's own sockets. [`reach`](super::reach) says where to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proxy_policy::Addresses;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{ForwardError, chain};
use super::reach::lookup;
use crate::base::addr::UpstreamAddr;
use crate::uplink::{Uplink, UplinkError};

/// Opens TCP connections, but none to this proxy.
#[derive(Clone, Debug)]
pub struct Dialer {
    own: Vec<SocketAddr>,
    limit: Duration,
    uplink: Option<Arc<Uplink>>,
}

impl Dialer {
    /// `own` are the addresses that this proxy listens on: a call to them would come back for ever.
    #[must_use]
    pub fn new(own: Vec<SocketAddr>, limit: Duration) -> Self {
        Self { own, limit, uplink: None }
    }

    /// The same through the proxy of the site, if there is one, to what is not reached directly.
    #[must_use]
    pub fn through(self, uplink: Option<Arc<Uplink>>) -> Self {
        Self { uplink, ..self }
    }

    /// The proxy of the site, if it leads to a host, which is at an address as far as that is known.
    pub(super) fn uplink(&self, host: Option<&str>, address: IpAddr) -> Option<&Uplink> {
        self.uplink.as_deref().filter(|uplink| uplink.takes(host, address))
    }

    /// A tunnel to `target` (host and port) through the proxy of the site; with the proxy's address.
    ///
    /// # Errors
    /// The proxy cannot be reached, is we ourselves, or does not open one in time.
    pub(super) async fn tunnel(
        &self,
        uplink: &Uplink,
        target: &str,
    ) -> Result<(TcpStream, UpstreamAddr), ForwardError> {
        let late = || UplinkError::Timeout {
            proxy: uplink.told(),
            target: target.to_owned(),
            limit: uplink.limit(),
        };
        let mut reached = None;
        let opened = timeout(uplink.limit(), self.connect_to(uplink, target, &mut reached)).await;
        match opened {
            Ok(Err(Broken::Asked(source))) => Err(ForwardError::Uplink { addr: reached, source }),
            Ok(Err(Broken::Loop(error))) => Err(error),
            Ok(Ok(opened)) => Ok(opened),
            Err(_) => Err(ForwardError::Uplink { addr: reached, source: late() }),
        }
    }

    async fn connect_to(
        &self,
        uplink: &Uplink,
        target: &str,
        reached: &mut Option<SocketAddr>,
    ) -> Result<(TcpStream, UpstreamAddr), Broken> {
        let unreachable = |why| UplinkError::Unreachable { proxy: uplink.told(), why };
        let (host, port) = uplink.place();
        let all = resolve_all(host, port, uplink.limit()).await;
        let mut why = "its name has no address".to_owned();
        for addr in all.map_err(|error| unreachable(chain(&error)))? {
            *reached = Some(addr);
            match self.dial(UpstreamAddr(addr)).await {
                Ok(mut tcp) => {
                    uplink.ask(&mut tcp, target).await?;
                    return Ok((tcp, UpstreamAddr(addr)));
                }
                Err(error @ ForwardError::Loop { .. }) => return Err(Broken::Loop(error)),
                Err(error) => why = chain(&error),
            }
        }
        Err(unreachable(why).into())
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
            let is_here = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
            // The kernel takes an unspecified address for this host.
            let one_is_any = ip.is_unspecified() || addr.ip().is_unspecified();
            own.port() == addr.port()
                && (ip == addr.ip() || (one_is_any && is_here(ip) && is_here(addr.ip())))
        })
    }
}

/// Why there is no tunnel.
enum Broken {
    Asked(UplinkError),
    /// What is named as the proxy of the site is this proxy.
    Loop(ForwardError),
}

impl From<UplinkError> for Broken {
    fn from(error: UplinkError) -> Self {
        Self::Asked(error)
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
            ("127.0.0.1", "0.0.0.0"),
            ("127.0.0.1", "::"),
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
