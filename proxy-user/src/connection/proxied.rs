//! What a client asks of a proxy that it meant to reach: a tunnel (`CONNECT`), or a request with a target in absolute form.
//!
//! The kernel turned its connection to us as any other, and the proxy is never called. What the client asks for is a connection, or a
//! call, of the same workload as if it had gone there itself: the host and the port that it named are the destination, which is looked up
//! here, and everything that holds for a direct one holds for it. The journal says so, and which proxy it was.
//!
//! | asked for | becomes |
//! | --- | --- |
//! | a host that an API names, at a mediated port | the tunnel; what is in it is decided |
//! | an address, at a mediated port | the same: which host it is for, only the inside says |
//! | another host, at a mediated port | the tunnel if the policy lets it through, else 403 |
//! | any other port | the tunnel by a network grant for an address of the host, else 403; no request in absolute form |
//! | `0.0.0.0`, `::` | 400: nobody is there, and some systems read it as this host |
//!
//! Invariant: in a tunnel to a host, TLS and requests are for that host.
//! Invariant: what a policy would not let be called in any case is not looked up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::uri::Scheme as UriScheme;
use http::{Method, Request, Version};
use proxy_policy::{Api, Host, Scheme};
use tokio::net::TcpStream;

use super::call::{Calls, Reply};
use super::passage::Way;
use super::services::RefusedBy;
use super::{Connection, told};
use crate::authorize::{Asked, Kind, Refusal, Subject, authorize_passage, entry, refuse_by_name};
use crate::base::addr::OriginalDst;
use crate::base::clock;
use crate::http::interims::Client;
use crate::http::{Incoming, Leg, connect, problem};
use crate::http1::Spelling;
use crate::sniff::Prefixed;

/// What a workload asked a proxy for.
#[derive(Clone, Debug)]
pub(crate) struct Proxied {
    /// Where it connected to.
    pub(super) proxy: OriginalDst,
    /// The host that it named, where that is a name.
    pub(super) host: Option<Host>,
    /// Whether the host was looked up: else the destination is a port alone.
    pub(super) found: bool,
    /// Other addresses of the host.
    pub(super) others: Vec<SocketAddr>,
}

/// Where a host is.
struct Found {
    dst: OriginalDst,
    others: Vec<SocketAddr>,
}

impl Connection {
    /// Answers a request for a tunnel, and serves what is in it.
    pub(super) async fn tunnel(self, stream: Prefixed<TcpStream>) {
        let Self { services, caller, dst: proxy, .. } = &self;
        let request = match connect::read(stream, &services.settings.http).await {
            Ok(request) => request,
            Err(ended) => {
                if let Some(refusal) = told(&ended) {
                    self.refuse(&Asked::of(*proxy, "http", None), &refusal).await;
                }
                return;
            }
        };
        let subject = caller.current(&services.policy, &*services.identifier).await;
        let judged = match &request.target {
            Ok((host, port)) => self.may_tunnel(&subject, host, *port).await,
            Err(refusal) => Err(refusal.clone().into()),
        };
        let No { refusal, at } = match judged {
            Ok(inner) => match request.open().await {
                Some(stream) => return inner.within(stream).await,
                None => return,
            },
            Err(no) => no,
        };
        let target = request.target.as_ref().ok();
        let asked = Asked {
            method: Some(Method::CONNECT.as_str()),
            port: target.map(|(_, port)| *port),
            ..match target {
                Some((host, port)) => {
                    let dst = at.unwrap_or_else(|| nowhere(*port));
                    Asked::of(dst, "tcp", Some(host.name())).through(Some(*proxy))
                }
                None => Asked::of(*proxy, "http", None),
            }
        };
        let entry =
            services.refused(&subject, RefusedBy::Proxy, || entry::refused(&subject, &asked, &refusal));
        let identity = subject.identity().map(|identity| identity.name.as_str());
        request.refuse(problem::response(&refusal, entry, identity, &Method::CONNECT, |text| text)).await;
    }

    /// The connection that the tunnel is, unless it is clear by now that nothing in it could be permitted.
    async fn may_tunnel(&self, subject: &Subject, host: &Host, port: u16) -> Result<Self, No> {
        let Self { services, dst: proxy, .. } = self;
        let settings = &services.settings;
        is_somewhere(host)?;
        let apis = apis(subject, host, port);
        let way = match settings.ports.contains(&port) {
            true => Way::Unmatched(Some(host.clone())),
            false => Way::Network,
        };
        let may_pass = |dst| way.decide(subject, dst, settings.unidentified);
        match &way {
            Way::Network => {
                let refusal = refuse_by_name(subject, host, port, settings.unidentified, clock::now());
                refusal.map_or(Ok(()), Err)?;
            }
            Way::Unmatched(_) if apis.is_empty() && !host.is_address() => drop(may_pass(nowhere(port))?),
            Way::Unmatched(_) | Way::Whole(..) => {}
        }
        let is_plain = apis.iter().any(|api| api.scheme == Scheme::Http);
        if matches!(way, Way::Unmatched(_)) && !is_plain && services.forward.leaves_to_proxy(host.name()) {
            return Ok(self.to(None, host, port, *proxy));
        }
        let mut found = self.find(host, port, &apis).await?;
        if matches!(way, Way::Network) {
            // The rule is for an address, so it is that one and no other.
            let all = std::iter::once(found.dst.0).chain(found.others.iter().copied());
            let open = all.map(OriginalDst).find(|dst| may_pass(*dst).is_ok());
            found.dst = match open {
                Some(dst) => dst,
                None => found.dst,
            };
            // What is recorded of a refusal is the address that it was about.
            may_pass(found.dst).map_err(|refusal| No { refusal, at: Some(found.dst) })?;
            found.others.clear();
        }
        Ok(self.to(Some(found), host, port, *proxy))
    }

    /// Where the host of a request in absolute form is; nothing where the policy has no answer but no, which is given in the usual way, or
    /// where only the proxy of the site can tell.
    async fn may_be_called(
        &self,
        subject: &Subject,
        host: &Host,
        port: u16,
    ) -> Result<Option<Found>, Refusal> {
        let settings = &self.services.settings;
        is_somewhere(host)?;
        if !settings.ports.contains(&port) {
            let detail = format!(
                "{host} is at port {port}, which is not mediated (kernel.ports): requests by way of a proxy go to \
                 mediated ports; a tunnel (CONNECT) goes where network grants permit"
            );
            return Err(Refusal::new(Kind::NotGranted, detail));
        }
        let apis: Vec<&Api> =
            subject.live().set().api_for(Scheme::Http, host.name(), port).into_iter().collect();
        let passes = || {
            authorize_passage(subject, Scheme::Http, Some(host), port, settings.unidentified, clock::now())
        };
        let is_known = !apis.is_empty();
        if !is_known && (passes().is_err() || self.services.forward.leaves_to_proxy(host.name())) {
            return Ok(None);
        }
        self.find(host, port, &apis).await.map(Some)
    }

    /// Looks a host up. Of its addresses, one at which one of its APIs may be is first.
    async fn find(&self, host: &Host, port: u16, apis: &[&Api]) -> Result<Found, Refusal> {
        let found = self.services.forward.look_up(host.name(), port).await;
        let mut all = found.map_err(|error| error.refusal(host.name()))?;
        let fits = |addr: &SocketAddr| apis.iter().any(|api| api.addresses.check(addr.ip()).is_ok());
        let first = all.iter().position(fits).unwrap_or(0);
        if all.is_empty() {
            let detail = format!("the name {} has no address", host.name());
            return Err(Refusal::new(Kind::UpstreamUnreachable, detail));
        }
        let dst = OriginalDst(all.remove(first));
        Ok(Found { dst, others: all })
    }

    /// The same workload's connection to what it asked the proxy for.
    fn to(&self, found: Option<Found>, host: &Host, port: u16, proxy: OriginalDst) -> Self {
        let is_found = found.is_some();
        let Found { dst, others } = found.unwrap_or(Found { dst: nowhere(port), others: Vec::new() });
        let named = Some(host).filter(|host| !host.is_address()).cloned();
        let proxied = Proxied { proxy, host: named, found: is_found, others };
        Self {
            services: Arc::clone(&self.services),
            caller: Arc::clone(&self.caller),
            dst,
            proxied: Some(Box::new(proxied)),
            ech: false,
        }
    }
}

impl Calls {
    /// Whether the target is in the form that a client writes for a proxy. Within a tunnel, and over TLS, that is no other host's.
    pub(super) fn is_for_a_proxy(&self, request: &Request<Incoming>) -> bool {
        self.leg.scheme == Scheme::Http
            && self.connection.proxied.is_none()
            && request.version() != Version::HTTP_2
            && request.uri().scheme() == Some(&UriScheme::HTTP)
    }

    /// Answers such a request: as a call of the host that it names.
    pub(super) async fn of_a_proxy(
        self: Arc<Self>,
        request: Request<Incoming>,
        spelling: Option<Spelling>,
        client: Client,
    ) -> Reply {
        let Connection { services, caller, dst: proxy, .. } = &self.connection;
        let uri = request.uri();
        let host = uri.authority().and_then(|authority| Host::parse(authority.as_str()).ok());
        // What is wrong with it, the facts of the request say.
        let Some(host) = host else { return self.one(request, spelling, client).await };
        let port = host.port().unwrap_or(Scheme::Http.default_port());
        let subject = caller.current(&services.policy, &*services.identifier).await;
        let found = match self.connection.may_be_called(&subject, &host, port).await {
            Ok(found) => found,
            Err(refusal) => {
                let method = request.method();
                let asked = Asked {
                    method: Some(method.as_str()),
                    path: Some(uri.path()),
                    has_query: uri.query().is_some(),
                    port: Some(port),
                    ..Asked::of(nowhere(port), "http", Some(host.name())).through(Some(*proxy))
                };
                return self.refuse(&subject, &asked, &refusal, method);
            }
        };
        let is_here = |found: &Found| found.dst == *proxy || found.others.contains(&proxy.0);
        if found.as_ref().is_some_and(is_here) {
            // The host itself was called.
            return self.one(request, spelling, client).await;
        }
        let inner = self.connection.to(found, &host, port, *proxy);
        let leg = Leg { scheme: Scheme::Http, host: Some(host), port, address: inner.address() };
        Arc::new(Self::new(inner, leg, false)).one(request, spelling, client).await
    }
}

/// Why there is no tunnel.
struct No {
    refusal: Refusal,
    /// The address that it is about, where one is.
    at: Option<OriginalDst>,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, at: None }
    }
}

/// A port, and no address.
fn nowhere(port: u16) -> OriginalDst {
    OriginalDst(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
}

/// An address that is none is no destination.
fn is_somewhere(host: &Host) -> Result<(), Refusal> {
    match host.name().parse::<IpAddr>() {
        Ok(ip) if ip.to_canonical().is_unspecified() => {
            Err(Refusal::new(Kind::BadRequest, format!("{} is no address of anybody", host.name())))
        }
        _ => Ok(()),
    }
}

/// The APIs that name the host, over either scheme.
fn apis<'s>(subject: &'s Subject, host: &Host, port: u16) -> Vec<&'s Api> {
    let set = subject.live().set();
    let both = [Scheme::Https, Scheme::Http].into_iter();
    both.filter_map(|scheme| set.api_for(scheme, host.name(), port)).collect()
}
