//! The life of one connection: read this first.
//!
//! ```text
//! accepted ─ identify ─ port not mediated ── pass through (a network grant) or refuse
//!                │
//!              sniff ─────────┬─ TLS, an API names the host ──── intercept ─┐
//!                              ├─ HTTP without TLS ──────────────────────────┴─ call, call, call …
//!                              ├─ TLS, no API names the host ─┬─ pass through (unmatched = "pass")
//!                              ├─ the server, before the client┤
//!                              ├─ anything else ──────────────┴─ refuse, with an alert where there is TLS
//!                              └─ nothing in time, nonsense ──── refuse
//! ```
//!
//! [`serve`] takes the branch, [`first`] waits for the first bytes, [`call`] does one request, [`token`] answers what asks for a token, [`upgrade`] what a WebSocket becomes, [`passage`] the
//! connections that go through or are refused as a whole, [`standing`] judges what is open again when the policy changes;
//! [`services`] is what they share.
//!
//! Invariant: every connection that was accepted leaves at least one record in the journal, but for those of a client
//! that kept HTTP open without asking for anything.

pub mod admission;
mod call;
mod credential;
mod first;
pub mod passage;
pub mod services;
mod standing;
mod token;
pub mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use proxy_policy::{Host, Scheme};
use tokio::net::TcpStream;

pub use services::{Counters, Listening, OpenConnection, Services, Settings, Tally};

use crate::accept::Accepted;
use crate::authorize::{Asked, Caller, Kind, Refusal};
use crate::base::addr::OriginalDst;
use crate::base::ahead::ReadAhead;
use crate::forward::error::chain;
use crate::http::server::serve_http2;
use crate::http::server1::serve_http1;
use crate::http::{Ended, Leg};
use crate::http1::Io;
use crate::sniff::{ClientHello, Prefixed, Protocol, SniffError};
use crate::trust::{self, Alert, Alpn, BotStream};
use call::Calls;
use first::First;

/// One connection on its way.
pub(crate) struct Connection {
    pub(crate) services: Arc<Services>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) dst: OriginalDst,
}

/// Serves one accepted connection to its end; it was counted when it came.
pub async fn serve(accepted: Accepted, services: Arc<Services>, open: OpenConnection) {
    // The place among the open connections is held to the end.
    let Accepted { mut stream, origin, place: _place, .. } = accepted;
    let _open = open;
    let caller =
        Caller::identify(Arc::clone(&origin.workload), &services.policy, &*services.identifier).await;
    let caller = Arc::new(caller);
    services.callers.add(&caller);
    let subject = caller.current(&services.policy, &*services.identifier).await;
    let most = services.settings.connections_per_identity;
    let held = services.counters.tally(&subject).hold(most);
    let connection = Connection { services: Arc::clone(&services), caller, dst: origin.dst };
    let Some(_held) = held else {
        let whose = match subject.identity() {
            Some(identity) => format!("{} has", identity.name),
            None => "workloads without an identity have".to_owned(),
        };
        let detail = format!("{whose} {most} connections open already (limits.connections_per_identity)");
        let refusal = Refusal::new(Kind::LimitExceeded, detail);
        return connection.refuse(&Asked::connection(connection.dst), &refusal).await;
    };
    if !services.settings.ports.contains(&connection.dst.port()) {
        return Box::pin(connection.network(stream)).await;
    }
    let sniffed = match Box::pin(connection.first(&mut stream)).await {
        Ok(First::Client(sniffed)) => sniffed,
        Ok(First::Server(upstream)) => {
            let stream = Prefixed::new(Bytes::new(), stream);
            return Box::pin(connection.pass(stream, "tcp", None, Some(upstream))).await;
        }
        Err(error) => {
            let refusal = Refusal::new(Kind::UnknownProtocol, chain(&error));
            connection.refuse(&Asked::connection(connection.dst), &refusal).await;
            // Only TLS is told and then found to be wrong.
            if matches!(error, SniffError::Invalid(_) | SniffError::TooLarge { .. }) {
                trust::refuse(&mut stream, Alert::DecodeError).await;
            }
            return;
        }
    };
    let stream = Prefixed::new(sniffed.prefix, stream);
    // Each in memory of its own, so that a connection takes what its own way needs and not what the largest one does.
    match sniffed.protocol {
        Protocol::Tls(hello) => {
            // The handshake's memory is given back before the first request.
            let intercepted = Box::pin(connection.tls(stream, hello)).await;
            if let Some(Intercepted { connection, stream, host, http2 }) = intercepted {
                Box::pin(connection.http(stream, Some(host), http2)).await;
            }
        }
        Protocol::Http1 => Box::pin(connection.http(stream, None, false)).await,
        Protocol::Http2 => Box::pin(connection.http(stream, None, true)).await,
        Protocol::Opaque => Box::pin(connection.pass(stream, "tcp", None, None)).await,
    }
}

/// A connection whose TLS ends here.
struct Intercepted {
    connection: Connection,
    /// In memory of its own, so that it is handed on without being moved.
    stream: Box<BotStream>,
    host: Host,
    http2: bool,
}

impl Connection {
    /// What is inside of the client's TLS, if that ends here; else it is served to its end.
    async fn tls(self, mut stream: Prefixed<TcpStream>, hello: ClientHello) -> Option<Intercepted> {
        // Without SNI the client can only mean the address, and will check the certificate against it.
        let named = match hello.server_name.as_deref() {
            Some(name) => Host::parse(name),
            None => Host::parse(&bracketed(self.dst)),
        };
        let host = match named {
            Ok(host) => host,
            Err(error) => {
                let refusal =
                    Refusal::new(Kind::BadRequest, format!("the TLS handshake names no host: {error}"));
                self.refuse(&Asked::of(self.dst, "tls", hello.server_name.as_deref()), &refusal).await;
                trust::refuse(&mut stream, Alert::UnrecognizedName).await;
                return None;
            }
        };
        let live = self.services.policy.live();
        if live.set().api_for(Scheme::Https, host.name(), self.dst.port()).is_some() {
            self.intercept(stream, &hello, host).await
        } else {
            Box::pin(self.pass(stream, "tls", Some(&host), None)).await;
            None
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
        let refusal = match self.services.bot_tls.accept(stream, host.name(), alpn).await {
            Ok(stream) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                return Some(Intercepted { connection: self, stream: Box::new(stream), host, http2 });
            }
            Err(error) => Refusal::new(Kind::BadRequest, chain(&error)),
        };
        self.refuse(&Asked::of(self.dst, "https", Some(host.name())), &refusal).await;
        None
    }

    /// Serves the requests of a connection: over TLS when there is a `host`, plain otherwise.
    async fn http<S>(self, stream: S, host: Option<Host>, http2: bool)
    where
        S: Io + 'static,
    {
        let scheme = if host.is_some() { Scheme::Https } else { Scheme::Http };
        let leg = Leg { scheme, host, port: self.dst.port(), address: Some(self.dst.ip()) };
        let calls = Arc::new(Calls::new(self, leg, http2));
        let services = Arc::clone(&calls.connection.services);
        let limits = &services.settings.http;
        let drain = services.drain.clone();
        let ended = match http2 {
            true => Box::pin(serve_http2(stream, limits, drain, Arc::clone(&calls))).await,
            false => Box::pin(serve_http1(stream, limits, drain, Arc::clone(&calls))).await,
        };
        let refusal = match ended {
            Ended::Done => return,
            Ended::ClientGone(error) => {
                tracing::debug!(error = %chain(&error), "the client's connection ended");
                return;
            }
            Ended::HeaderTooLarge => {
                Refusal::new(Kind::HeaderTooLarge, "the header is larger than the limit")
            }
            Ended::HeaderTimeout => Refusal::new(Kind::RequestTimeout, "the header did not end in time"),
            Ended::Malformed(error) => {
                Refusal::new(Kind::BadRequest, format!("what came is not a request: {}", chain(&error)))
            }
            Ended::Flooded => {
                Refusal::new(Kind::BadRequest, "frames of HTTP/2 came without end that ask for nothing")
            }
            Ended::Ambiguous(fault) => {
                Refusal::new(Kind::BadRequest, format!("the request can be read in two ways: {fault}"))
            }
        };
        calls.connection.refuse(&calls.asked(), &refusal).await;
    }
}

/// An address as the host of an authority.
fn bracketed(dst: OriginalDst) -> String {
    match dst.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
