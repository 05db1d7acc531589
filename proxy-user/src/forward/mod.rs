//! To the upstream: dialled, verified, pooled, sent; or the bytes passed through as they are.
//!
//! [`dial`] opens connections, [`reach`] says to which address of a host, [`transport`] makes them what they are for (verified TLS, or plain), [`pool`] keeps
//! them, [`send`] sends one request over one of them and notices when it must go over another, [`answer`] brings
//! connections back at the end of the response, [`tunnel`] moves bytes both ways, and [`relay`] does so between TCP connections,
//! through a [`pipe`].
//!
//! Invariant: nothing leaves without a [`Permit`] or [`Passage`](crate::authorize::Passage) and a [`Receipt`].
//! Invariant: whom an upstream knows us as is part of a connection's [`Route`], by what the attachment says.
//! Invariant: an [`Attachment`] goes only with [`Forwarder::send_verified`], whose connections proved the host's name, and with
//! [`Forwarder::send_loopback`], whose connections lead to a loopback address. Neither shares a connection with the other, or with
//! calls that have none.

pub mod answer;
pub mod dial;
pub mod error;
mod pipe;
pub mod pool;
mod reach;
pub mod relay;
pub mod send;
pub mod transport;
pub mod tunnel;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use proxy_policy::Insecure;

pub use answer::UpstreamBody;
pub use dial::Dialer;
pub use error::ForwardError;
pub use pool::Route;
pub use relay::relay;
pub use send::Outbound;
pub use transport::Mode;
pub use tunnel::{TunnelEnd, tunnel};

use crate::authorize::Permit;
use crate::base::addr::UpstreamAddr;
use crate::credentials::{Attachment, Fingerprints, Head, Secret, Strip, strip_head};
use crate::http::Transfer;
use crate::record::Receipt;
use crate::trust::UpstreamTls;
use crate::uplink::{self, Uplink};
use pool::Pool;
use transport::{Loopback, Plain, VerifiedTls};

/// What the way to the upstream may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardLimits {
    /// For a name to be resolved before a call over plain HTTP.
    pub resolve_time: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_time: Duration,
    /// How long an unused connection is kept.
    pub idle_time: Duration,
    /// Unused HTTP/1 connections that are kept for one host and address.
    pub idle_per_route: usize,
    /// How long a tunnel may be without a byte in either direction.
    pub tunnel_idle_time: Duration,
}

impl Default for ForwardLimits {
    fn default() -> Self {
        Self {
            resolve_time: Duration::from_secs(10),
            response_time: Duration::from_secs(300),
            idle_time: Duration::from_secs(55),
            idle_per_route: 64,
            tunnel_idle_time: Duration::from_secs(3600),
        }
    }
}

/// A connection that something passes through.
#[derive(Debug)]
pub struct Passed {
    /// It.
    pub tcp: tokio::net::TcpStream,
    /// Where it leads to: the proxy of the site, or the upstream itself.
    pub upstream: UpstreamAddr,
    /// What the proxy was asked for, if it was.
    pub proxied: Option<String>,
}

/// Sends requests to upstreams and keeps the connections to them.
#[derive(Debug)]
pub struct Forwarder {
    dialer: Dialer,
    fingerprints: Fingerprints,
    limits: ForwardLimits,
    verified: Arc<Pool<VerifiedTls>>,
    loopback: Arc<Pool<Loopback>>,
    plain: Arc<Pool<Plain>>,
}

impl Forwarder {
    /// Must be made inside of the runtime: a task drops connections that were idle for too long.
    #[must_use]
    pub fn new(dialer: Dialer, tls: UpstreamTls, fingerprints: Fingerprints, limits: ForwardLimits) -> Self {
        let verified = Pool::new(VerifiedTls::new(tls), &limits);
        let plain = Pool::new(Plain, &limits);
        let loopback = Pool::new(Loopback, &limits);
        verified.evict_in_background();
        loopback.evict_in_background();
        plain.evict_in_background();
        Self { dialer, fingerprints, limits, verified, loopback, plain }
    }

    /// What the way to the upstream may take.
    #[must_use]
    pub fn limits(&self) -> &ForwardLimits {
        &self.limits
    }

    /// Opens a connection for a tunnel, past any proxy of the site.
    ///
    /// # Errors
    /// The upstream cannot be reached, or is this proxy itself.
    pub async fn dial(&self, upstream: UpstreamAddr) -> Result<tokio::net::TcpStream, ForwardError> {
        self.dialer.dial(upstream).await
    }

    /// Opens a connection that passes through to a host, or to the first of several addresses that answers: through the proxy of the
    /// site where that leads there.
    ///
    /// # Errors
    /// What the first one said, when none does; or what the proxy said.
    pub async fn pass(
        &self,
        host: Option<&str>,
        first: UpstreamAddr,
        others: &[SocketAddr],
    ) -> Result<Passed, ForwardError> {
        if let Some(uplink) = self.dialer.uplink(host, first.ip()) {
            let target = match host {
                Some(host) => uplink::authority(host, first.port()),
                None => first.0.to_string(),
            };
            let (tcp, upstream) = self.dialer.tunnel(uplink, &target).await?;
            return Ok(Passed { tcp, upstream, proxied: Some(target) });
        }
        let error = match self.dial(first).await {
            Ok(tcp) => return Ok(Passed { tcp, upstream: first, proxied: None }),
            Err(error) => error,
        };
        for other in others.iter().copied().map(UpstreamAddr) {
            if let Ok(tcp) = self.dial(other).await {
                return Ok(Passed { tcp, upstream: other, proxied: None });
            }
        }
        Err(error)
    }

    /// What the proxy of the site is asked for when a request goes this way; nothing when it goes directly.
    #[must_use]
    pub fn proxied(&self, route: &Route) -> Option<String> {
        self.dialer.uplink(route.name(), route.addr.ip()).map(|_| route.target())
    }

    /// Whether a name is not looked up here, because the proxy of the site leads there and alone can do it.
    #[must_use]
    pub fn leaves_to_proxy(&self, name: &str) -> bool {
        let uplink = self.dialer.uplink(Some(name), Ipv4Addr::UNSPECIFIED.into());
        uplink.is_some_and(Uplink::resolves) && name.parse::<IpAddr>().is_err()
    }

    /// Sends a request over TLS to a server that proved to be the route's host, with the credential if there is one.
    /// What the client brought in its place is taken out first.
    ///
    /// # Errors
    /// The upstream cannot be reached, does not prove its name, breaks off or takes too long.
    pub async fn send_verified(
        &self,
        permit: &Permit,
        _receipt: &Receipt,
        route: &Route,
        mut outbound: Box<Outbound>,
        attachment: Option<&Attachment>,
    ) -> Result<Response<UpstreamBody>, ForwardError> {
        if let Some(what) = permit.strip() {
            self.take_out(&mut outbound, attachment, what)?;
        }
        if let Some(attachment) = attachment
            && let Some(chunks) = attachment.attach(&mut outbound.head())?
        {
            outbound.body.sign(chunks);
        }
        let client = attachment.and_then(Attachment::client).cloned();
        let route = Route { client, ..route.clone() };
        send::send(&self.verified, &self.dialer, &self.limits, &route, outbound).await
    }

    /// Sends a request with its credential over plain HTTP to a loopback address. What the client brought in its place is taken out
    /// first.
    ///
    /// # Errors
    /// The credential may not go without TLS, the route or the connection leads elsewhere than to a loopback address; or the
    /// upstream cannot be reached, breaks off or takes too long.
    pub async fn send_loopback(
        &self,
        permit: &Permit,
        _receipt: &Receipt,
        route: &Route,
        mut outbound: Box<Outbound>,
        attachment: &Attachment,
    ) -> Result<Response<UpstreamBody>, ForwardError> {
        let credential = permit.credential().and_then(|id| permit.live().credential(id));
        let named = |addr| {
            let credential = credential.map(|credential| credential.name.clone());
            ForwardError::NotLoopback { credential, addr }
        };
        let may = credential.is_some_and(|it| it.insecure == Some(Insecure::Loopback));
        if !may || attachment.client().is_some() || !Loopback::is_at(route.addr.0) {
            return Err(named(route.addr.0));
        }
        if let Some(what) = permit.strip() {
            self.take_out(&mut outbound, Some(attachment), what)?;
        }
        if let Some(chunks) = attachment.attach(&mut outbound.head())? {
            outbound.body.sign(chunks);
        }
        let sent = send::send(&self.loopback, &self.dialer, &self.limits, route, outbound).await;
        sent.map_err(|error| match error {
            ForwardError::NotLoopback { addr, .. } => named(addr),
            error => error,
        })
    }

    /// Sends a request over plain HTTP. No credential can come here, and those of the client are taken out when the
    /// host is an API's.
    ///
    /// # Errors
    /// The upstream cannot be reached, breaks off or takes too long.
    pub async fn send_plain(
        &self,
        permit: &Permit,
        _receipt: &Receipt,
        route: &Route,
        mut outbound: Box<Outbound>,
    ) -> Result<Response<UpstreamBody>, ForwardError> {
        if let Some(what) = permit.strip() {
            self.take_out(&mut outbound, None, what)?;
        }
        send::send(&self.plain, &self.dialer, &self.limits, route, outbound).await
    }

    /// Takes out what the client brought, and notes that for the journal.
    fn take_out(
        &self,
        outbound: &mut Outbound,
        attachment: Option<&Attachment>,
        what: &Strip,
    ) -> Result<(), ForwardError> {
        let removed = strip_head(&mut outbound.head(), attachment, what)?;
        if !removed.is_empty() {
            outbound.transfer.note_removed(removed.told(&self.fingerprints));
        }
        Ok(())
    }

    /// Notes for the journal what a client brought with a request that is answered here, besides `more`, which was in its body.
    ///
    /// # Errors
    /// What is left of the request is none.
    pub fn note_brought(
        &self,
        permit: &Permit,
        head: &mut Head<'_>,
        more: Vec<(String, Secret)>,
        transfer: &Transfer,
    ) -> Result<(), ForwardError> {
        let Some(what) = permit.strip() else { return Ok(()) };
        let mut removed = strip_head(head, None, what)?;
        more.into_iter().for_each(|(place, value)| removed.add(place, value));
        if !removed.is_empty() {
            transfer.note_removed(removed.told(&self.fingerprints));
        }
        Ok(())
    }

    /// All addresses of a host that a workload asked a proxy for.
    ///
    /// # Errors
    /// The name does not resolve.
    pub async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ForwardError> {
        dial::resolve_all(host, port, self.limits.resolve_time).await
    }

    /// The address to which a plain request to `host` goes: the one that the workload chose if the name resolves to
    /// it, else the first that it resolves to. Without TLS nothing else ties the address to the host.
    ///
    /// # Errors
    /// The name does not resolve, or to nothing at which its API may be.
    pub async fn resolve(
        &self,
        permit: &Permit,
        host: &str,
        chosen: SocketAddr,
    ) -> Result<UpstreamAddr, ForwardError> {
        let addresses = permit.addresses().map(|addresses| &**addresses);
        dial::resolve(host, chosen, self.limits.resolve_time, addresses).await
    }

    /// The address to which a plain request with a credential goes: of several that the name resolves to the one at which there is a
    /// server. What the workload chose does not count, who may have put a server of its own where there was none.
    ///
    /// # Errors
    /// The name does not resolve, or there are servers at several of its addresses.
    pub async fn resolve_loopback(
        &self,
        host: &str,
        chosen: SocketAddr,
    ) -> Result<UpstreamAddr, ForwardError> {
        let all = dial::resolve_all(host, chosen.port(), self.limits.resolve_time).await?;
        let first = all.first().copied().ok_or_else(|| dial::resolves_to_nothing(host))?;
        if let Some(away) = all.iter().find(|addr| !Loopback::is_at(**addr)) {
            // Nothing is sent there, for [`Forwarder::send_loopback`] refuses it.
            return Ok(UpstreamAddr(*away));
        }
        if all.len() == 1 {
            return Ok(UpstreamAddr(first));
        }
        let mut found = None;
        for addr in all {
            if !self.dialer.has_server(addr).await {
                continue;
            }
            if let Some(one) = found.replace(addr) {
                return Err(ForwardError::SeveralServers { host: host.to_owned(), one, other: addr });
            }
        }
        Ok(UpstreamAddr(found.unwrap_or(first)))
    }
}
