//! The life of one connection: read this first.
//!
//! ```text
//! accepted ─ identify ─ port not mediated ── pass through (a network grant) or refuse
//!                │
//!              sniff ─────────┬─ TLS, an API names the host ──── intercept ─┐
//!                │             ├─ HTTP without TLS ──────────────────────────┴─ call, call, call …
//!                └── within ── ├─ CONNECT: a tunnel to a host or address, from the port on as if connected there
//!                              ├─ TLS, no API names the host ─┬─ pass through (unmatched = "pass")
//!                              ├─ the server, before the client┤
//!                              ├─ anything else ──────────────┴─ refuse, with an alert where there is TLS
//!                              └─ nothing in time, nonsense ──── refuse
//! ```
//!
//! [`serve`] takes the branch, [`first`] waits for the first bytes, [`call`] does one request, [`token`] answers what asks for a token, [`upgrade`] what a WebSocket becomes, [`proxied`] what a client asks of a proxy that it meant to reach, [`passage`] the
//! connections that go through or are refused as a whole, [`refusals`] records what is refused, [`mistrust`] tells of clients that do not trust us, [`keeping`] opens what bodies are kept in, [`standing`] judges what is open again when the policy changes;
//! [`services`] is what they share.
//!
//! Invariant: every connection that was accepted leaves at least one record in the journal, but for those of a client
//! that kept HTTP open without asking for anything, and those of an identity that is refused too often, which are counted there.

pub mod admission;
mod call;
mod credential;
mod first;
mod inbound;
mod keeping;
mod mistrust;
pub mod passage;
mod proxied;
mod refusals;
mod refusing;
pub mod services;
mod spell;
mod standing;
mod token;
pub mod upgrade;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use proxy_policy::{Host, Scheme};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

pub use services::{Counters, Listening, OpenConnection, RefusedBy, Services, Settings, Tally};

use crate::accept::Accepted;
use crate::authorize::{Asked, Caller, Kind, Refusal};
use crate::base::addr::OriginalDst;
use crate::base::ahead::ReadAhead;
use crate::forward::error::chain;
use crate::http::server::serve_http2;
use crate::http::server1::serve_http1;
use crate::http::{Ended, Leg, connect};
use crate::http1::Io;
use crate::sniff::{ClientHello, Prefixed, Protocol, SniffError};
use crate::trust::{self, Alert, Alpn, BotStream, KeyKind};
use call::Calls;
use first::First;
use mistrust::within_handshake;
use passage::{Dialled, Whole};
use proxied::Proxied;
use services::Held;

/// One connection on its way.
pub(crate) struct Connection {
    pub(crate) services: Arc<Services>,
    pub(crate) caller: Arc<Caller>,
    /// Where it goes, as far as the workload said.
    pub(crate) dst: OriginalDst,
    /// What the workload asked a proxy for: that is where it goes.
    pub(crate) proxied: Option<Box<Proxied>>,
    /// Its handshake has another one encrypted inside, or pretends to.
    pub(crate) ech: bool,
}

/// What is left to do for a connection, in memory of its own.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves one accepted connection to its end; it was counted when it came.
///
/// A connection rests for most of its life, so what finds out how it is served has memory of its own, which is given back before.
pub fn serve(
    accepted: Accepted,
    services: Arc<Services>,
    open: OpenConnection,
) -> impl Future<Output = ()> + Send {
    let begun = Box::pin(begin(accepted, services));
    async move {
        if let Some((rest, _places)) = begun.await {
            rest.await;
        }
        // To the end it is one of those that a drain waits for.
        drop(open);
    }
}

/// The places that an open connection holds: one among all, one among those of its identity.
type Places = (OwnedSemaphorePermit, Held);

/// Finds out whose a connection is and what it speaks; nothing, if that was all.
async fn begin(accepted: Accepted, services: Arc<Services>) -> Option<(Rest, Places)> {
    let Accepted { stream, origin, place, .. } = accepted;
    let caller =
        Caller::identify(Arc::clone(&origin.workload), &services.policy, &*services.identifier).await;
    let caller = Arc::new(caller);
    services.callers.add(&caller);
    let subject = caller.current(&services.policy, &*services.identifier).await;
    let most = services.settings.connections_per_identity;
    let held = services.counters.tally(&subject).hold(most);
    let (dst, proxied, ech) = (origin.dst, None, false);
    let connection = Connection { services: Arc::clone(&services), caller, dst, proxied, ech };
    let Some(held) = held else {
        let whose = match subject.identity() {
            Some(identity) => format!("{} has", identity.name),
            None => "workloads without an identity have".to_owned(),
        };
        let detail = format!("{whose} {most} connections open already (limits.connections_per_identity)");
        let refusal = Refusal::new(Kind::LimitExceeded, detail);
        Box::pin(connection.refuse(&Asked::connection(connection.dst), &refusal)).await;
        return None;
    };
    let rest = Box::pin(connection.way(Prefixed::new(Bytes::new(), stream))).await?;
    Some((rest, (place, held)))
}

/// A connection whose TLS ends here.
struct Intercepted {
    connection: Connection,
    /// In memory of its own, so that it is handed on without being moved.
    stream: Box<BotStream>,
    host: Host,
    http2: bool,
}

/// What a client's TLS is to us.
enum Tls {
    /// It ends here.
    Intercepted(Intercepted),
    /// For a host that no API names.
    Unmatched(Connection, Prefixed<TcpStream>, Host),
    /// For the host of an API, and passed on as it is.
    Whole(Connection, Box<Dialled>),
}

impl Connection {
    /// Serves what is within the tunnel that a connection became.
    fn within(self, stream: Prefixed<TcpStream>) -> Rest {
        Box::pin(async move {
            if let Some(rest) = Box::pin(self.way(stream)).await {
                rest.await;
            }
        })
    }

    /// How what is within a connection, or within the tunnel that it became, is served; nothing, if it is over.
    async fn way(self, mut stream: Prefixed<TcpStream>) -> Option<Rest> {
        if !self.services.settings.ports.contains(&self.dst.port()) {
            return Some(Box::pin(self.network(stream)));
        }
        let sniffed = match Box::pin(self.first(&mut stream)).await {
            Ok(First::Client(sniffed)) => sniffed,
            Ok(First::Server(upstream)) => {
                return Some(Box::pin(self.pass(stream, "tcp", None, Some(upstream))));
            }
            Err(error) => {
                let refusal = Refusal::new(Kind::UnknownProtocol, chain(&error));
                Box::pin(self.refuse(&self.asked(), &refusal)).await;
                // Only TLS is told and then found to be wrong.
                if matches!(error, SniffError::Invalid(_) | SniffError::TooLarge { .. }) {
                    Box::pin(trust::refuse(&mut stream, Alert::DecodeError)).await;
                }
                return None;
            }
        };
        let is_connect = self.proxied.is_none() && connect::is_asked(&sniffed.prefix);
        let (stream, named) = (stream.behind(sniffed.prefix), self.named().cloned());
        // Each in memory of its own, so that a connection takes what its own way needs and not what the largest one does.
        Some(match sniffed.protocol {
            Protocol::Tls(hello) => match Box::pin(self.tls(stream, hello)).await? {
                Tls::Intercepted(Intercepted { connection, stream, host, http2 }) => {
                    connection.http(stream, Scheme::Https, Some(host), http2)
                }
                Tls::Whole(connection, dialled) => Box::pin(async move { connection.carry(*dialled).await }),
                Tls::Unmatched(connection, stream, host) => {
                    Box::pin(async move { connection.pass(stream, "tls", Some(&host), None).await })
                }
            },
            Protocol::Http1 if is_connect => Box::pin(self.tunnel(stream)),
            Protocol::Http1 => self.http(stream, Scheme::Http, named, false),
            Protocol::Http2 => self.http(stream, Scheme::Http, named, true),
            Protocol::Opaque => Box::pin(self.pass(stream, "tcp", None, None)),
        })
    }

    /// What is known of the connection as a whole.
    fn asked(&self) -> Asked<'_> {
        Asked::connection(self.dst).through(self.proxy())
    }

    /// The same, once it speaks `scheme`, to `host` if it named one.
    fn asked_of<'a>(&self, scheme: &'a str, host: Option<&'a str>) -> Asked<'a> {
        Asked::of(self.dst, scheme, host).through(self.proxy()).hiding(self.ech && scheme == "tls")
    }

    /// The proxy that the workload asked.
    fn proxy(&self) -> Option<OriginalDst> {
        self.proxied.as_ref().map(|proxied| proxied.proxy)
    }

    /// The address that the workload wants; nothing where it named a host that was not looked up.
    fn address(&self) -> Option<IpAddr> {
        let is_known = self.proxied.as_ref().is_none_or(|proxied| proxied.found);
        is_known.then(|| self.dst.ip())
    }

    /// The host that the workload asked a proxy for.
    fn named(&self) -> Option<&Host> {
        self.proxied.as_ref()?.host.as_ref()
    }

    /// What the client's TLS is to us, if it is not over already.
    async fn tls(mut self, mut stream: Prefixed<TcpStream>, hello: ClientHello) -> Option<Tls> {
        self.ech = hello.ech;
        // Without SNI the client can only mean the address, and will check the certificate against it.
        let named = match hello.server_name.as_deref() {
            Some(name) => Host::parse(name),
            None => match self.named() {
                Some(host) => Ok(host.clone()),
                None => Host::parse(&bracketed(self.dst)),
            },
        };
        let host = match named {
            Ok(host) if self.named().is_some_and(|asked| asked.name() != host.name()) => {
                let asked = self.named().map(Host::name).unwrap_or_default();
                let detail = format!("the TLS handshake is for {}, the tunnel was for {asked}", host.name());
                self.refuse(
                    &self.asked_of("tls", Some(host.name())),
                    &Refusal::new(Kind::Misdirected, detail),
                )
                .await;
                trust::refuse(&mut stream, Alert::UnrecognizedName).await;
                return None;
            }
            Ok(host) => host,
            Err(error) => {
                let refusal =
                    Refusal::new(Kind::BadRequest, format!("the TLS handshake names no host: {error}"));
                self.refuse(&self.asked_of("tls", hello.server_name.as_deref()), &refusal).await;
                trust::refuse(&mut stream, Alert::UnrecognizedName).await;
                return None;
            }
        };
        let live = self.services.policy.live();
        if live.set().api_for(Scheme::Https, host.name(), self.dst.port()).is_some() {
            // Only by its SNI a connection says whose it is without being looked into.
            if live.set().has_whole() && hello.server_name.is_some() {
                stream = match Box::pin(self.begin_whole(stream, &host)).await {
                    Whole::Not(stream) => stream,
                    Whole::Dialled(dialled) => return Some(Tls::Whole(self, dialled)),
                    Whole::Over => return None,
                };
            }
            Box::pin(self.intercept(stream, &hello, host)).await.map(Tls::Intercepted)
        } else {
            // Carried when the memory of this is given back.
            Some(Tls::Unmatched(self, stream, host))
        }
    }

    /// Ends the client's TLS here, with a certificate for the host.
    async fn intercept(
        self,
        stream: Prefixed<TcpStream>,
        hello: &ClientHello,
        host: Host,
    ) -> Option<Intercepted> {
        let alpn = Alpn::mirror(&hello.alpn);
        let (read, tcp) = stream.into_parts();
        let stream = ReadAhead::new(read, tcp);
        let kind = if hello.ecdsa { KeyKind::Ecdsa } else { KeyKind::Rsa };
        let error = match self.services.bot_tls.accept(stream, host.name(), alpn, kind).await {
            Ok(stream) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                return Some(Intercepted { connection: self, stream: Box::new(stream), host, http2 });
            }
            Err(error) => error,
        };
        let asked = self.asked_of("https", Some(host.name()));
        match within_handshake(&error, &self.caller.workload()) {
            Some(refused) => Box::pin(self.mistrusted(&asked, refused, &chain(&error))).await,
            None => self.refuse(&asked, &Refusal::new(Kind::BadRequest, chain(&error))).await,
        }
        None
    }

    /// Serves the requests of a connection.
    fn http<S>(self, stream: S, scheme: Scheme, host: Option<Host>, http2: bool) -> Rest
    where
        S: Io + 'static,
    {
        let leg = Leg { scheme, host, port: self.dst.port(), address: self.address() };
        let drain = self.services.drain.clone();
        let calls = Arc::new(Calls::new(self, leg, http2));
        match http2 {
            true => Box::pin(async move {
                let limits = &calls.connection.services.settings.http;
                let ended = serve_http2(stream, limits, drain, Arc::clone(&calls)).await;
                Box::pin(over(&calls, ended)).await;
            }),
            false => Box::pin(async move {
                let limits = &calls.connection.services.settings.http;
                let ended = serve_http1(stream, limits, drain, Arc::clone(&calls)).await;
                Box::pin(over(&calls, ended)).await;
            }),
        }
    }
}

/// Tells of what ended a connection for requests.
async fn over(calls: &Calls, ended: Ended) {
    let doubted = calls.doubt.as_ref().and_then(|doubt| calls.connection.doubted(doubt, &ended));
    if let Some((refused, what)) = doubted {
        calls.connection.mistrusted(&calls.asked(), refused, &what).await;
    } else if let Some(refusal) = told(&ended) {
        calls.connection.refuse(&calls.asked(), &refusal).await;
    }
}

/// What the journal is told of how a connection ended.
fn told(ended: &Ended) -> Option<Refusal> {
    let (kind, detail) = match ended {
        Ended::Done => return None,
        Ended::ClientGone(error) => {
            tracing::debug!(error = %chain(error), "the client's connection ended");
            return None;
        }
        Ended::HeaderTooLarge => (Kind::HeaderTooLarge, "the header is larger than the limit".to_owned()),
        Ended::HeaderTimeout => (Kind::RequestTimeout, "the header did not end in time".to_owned()),
        Ended::Malformed(error) => {
            (Kind::BadRequest, format!("what came is not a request: {}", chain(error)))
        }
        Ended::Flooded => {
            (Kind::BadRequest, "frames of HTTP/2 came without end that ask for nothing".to_owned())
        }
        Ended::Ambiguous(fault) => {
            (Kind::BadRequest, format!("the request can be read in two ways: {fault}"))
        }
    };
    Some(Refusal::new(kind, detail))
}

/// An address as the host of an authority.
fn bracketed(dst: OriginalDst) -> String {
    match dst.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
