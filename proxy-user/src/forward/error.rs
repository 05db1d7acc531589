//! What can go wrong on the way to the upstream.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_policy::Elsewhere;

use crate::authorize::{Kind, Refusal};
pub use crate::base::causes::chain;
use crate::credentials::Misplaced;
use crate::http::StreamError;
use crate::http::reflect::Closed;
use crate::http1::Fault;
use crate::record::NotKept;
use crate::trust::{ConnectError, UpstreamFault};
use crate::uplink::UplinkError;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The address is one that this proxy listens on.
    #[error("{addr} is this proxy itself")]
    Loop {
        /// The address.
        addr: SocketAddr,
    },
    /// The name does not resolve.
    #[error("the host {host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("no connection to {addr}")]
    Connect {
        /// The address.
        addr: SocketAddr,
        /// What the socket said.
        source: io::Error,
    },
    /// No TCP connection in time.
    #[error("no connection to {addr} within {} s", limit.as_secs_f32())]
    ConnectTimeout {
        /// The address.
        addr: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// Nobody answers at the address that was chosen, nor at the others of the host.
    #[error("{}; of the other addresses of {host}: {others}", chain(first))]
    Nowhere {
        /// The name.
        host: String,
        /// What became of the chosen one.
        first: Box<ForwardError>,
        /// What became of the others.
        others: String,
    },
    /// The host is at an address at which its API may not be.
    #[error("{host} is not called there: {elsewhere}{}", .elsewhere.line.as_ref().map(|line| format!("; if it is there, write {line} in its API")).unwrap_or_default())]
    Elsewhere {
        /// The name.
        host: String,
        /// The address, and why not.
        elsewhere: Box<Elsewhere>,
    },
    /// The proxy of the site does not lead there.
    #[error("{source}")]
    Uplink {
        /// Where the proxy is, if that is known.
        addr: Option<SocketAddr>,
        /// Why not.
        source: UplinkError,
    },
    /// A name that the proxy of the site would look up does not resolve here, so that it cannot be held against the policy.
    #[error(
        "{}; where only the proxy of the site can look names up, write proxy_resolves = true below [upstream] (docs/operating.md)",
        chain(source)
    )]
    UnknownHere {
        /// What the resolver said.
        source: Box<ForwardError>,
    },
    /// The policy says where the API is, and only the proxy of the site looks its name up.
    #[error(
        "the policy says at which addresses the API of {host} is, and where {host} is only the proxy {proxy} knows ([upstream]          proxy_resolves); name the host in no_proxy, or leave its addresses to the proxy and take them out of the API"
    )]
    Unchecked {
        /// The name.
        host: String,
        /// The proxy.
        proxy: String,
    },
    /// The server did not prove to be the host, or does not speak TLS as we demand.
    #[error("nothing was sent to {addr}: {source}")]
    Tls {
        /// The address.
        addr: SocketAddr,
        /// What the handshake said.
        source: ConnectError,
    },
    /// A credential that goes without TLS to loopback addresses alone would have gone elsewhere.
    #[error(
        "the credential {} goes over plain HTTP to a loopback address alone, and {addr} is none; nothing was sent",
        credential.as_deref().unwrap_or("of the call")
    )]
    NotLoopback {
        /// Its name, where that is known.
        credential: Option<String>,
        /// The address.
        addr: SocketAddr,
    },
    /// A name has several loopback addresses with a server at each: whoever calls would choose which one gets the credential.
    #[error(
        "there are servers at {one} and at {other}, both {host}, and a credential goes over plain HTTP to one that nobody chooses; \
         nothing was sent; name the address in place of {host} in the hosts of the API, or have the name mean one address alone"
    )]
    SeveralServers {
        /// The name.
        host: String,
        /// One of its addresses.
        one: SocketAddr,
        /// Another one.
        other: SocketAddr,
    },
    /// The connection broke before the head of the response, or what came is not HTTP.
    #[error("the server at {addr} broke off before its response")]
    Broken {
        /// The address.
        addr: SocketAddr,
        /// What the connection said.
        source: StreamError,
    },
    /// The server, or the end of its connection, says that the request was not processed.
    #[error("the server at {addr} did not take the request")]
    Untaken {
        /// The address.
        addr: SocketAddr,
        /// What the connection said.
        source: StreamError,
    },
    /// The head of the response can be read in two ways.
    #[error("the response of the server at {addr} can be read in two ways: {fault}")]
    Ambiguous {
        /// The address.
        addr: SocketAddr,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The client broke off in its request.
    #[error("the client broke off in its request")]
    Client {
        /// What the connection said.
        source: StreamError,
    },
    /// The request's body must be kept for auditors, and cannot be.
    #[error(transparent)]
    Unkept(NotKept),
    /// The head of the response did not come in time.
    #[error("no response from {addr} within {} s after the request", limit.as_secs_f32())]
    ResponseTimeout {
        /// The address.
        addr: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// The request's body went on for so long, and neither side moved.
    #[error("the request to {addr} made no progress for {} s", limit.as_secs_f32())]
    RequestStalled {
        /// The address.
        addr: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// The request has no place for the credential.
    #[error("{0}; nothing was sent")]
    Misplaced(#[from] Misplaced),
    /// The request cannot be spelled for the upstream.
    #[error("the request cannot be spelled for the upstream")]
    Spell {
        /// Why.
        source: http::Error,
    },
    /// The call is over in the journal already, so nothing may be sent for it.
    #[error("the call has no receipt")]
    Unrecorded,
    /// What the server answered must be looked through, and cannot be.
    #[error("the response is not passed on: {0}")]
    Closed(#[from] Closed),
    /// The server changed the protocol although nobody asked for it.
    #[error("the server at {addr} switched protocols unasked")]
    Unasked {
        /// The address.
        addr: SocketAddr,
    },
}

impl ForwardError {
    /// The address at which it went wrong, where a connection was there.
    #[must_use]
    pub fn reached(&self) -> Option<SocketAddr> {
        match self {
            Self::Tls { addr, .. } | Self::Broken { addr, .. } => Some(*addr),
            Self::Uplink { addr, .. } => *addr,
            _ => None,
        }
    }

    /// What the client gets: the error without addresses and causes, which are for the journal.
    #[must_use]
    pub fn refusal(&self, host: &str) -> Refusal {
        let (kind, detail) = match self {
            Self::Loop { .. } => (Kind::Internal, format!("{host} leads back to the proxy of this host")),
            Self::Unrecorded => (Kind::Internal, "the call was over before it was sent".to_owned()),
            Self::Resolve { .. } => {
                (Kind::UpstreamUnreachable, format!("the name {host} cannot be resolved"))
            }
            Self::Connect { .. } => {
                (Kind::UpstreamUnreachable, format!("{host} does not accept the connection"))
            }
            Self::ConnectTimeout { .. } => {
                (Kind::UpstreamTimeout, format!("{host} cannot be reached in time"))
            }
            Self::Nowhere { first, .. } => {
                let Refusal { kind, detail, .. } = first.refusal(host);
                (kind, detail)
            }
            Self::Elsewhere { .. } => {
                let detail = format!(
                    "{host} has an address at which the policy does not let its API be; the journal names it"
                );
                (Kind::AddressRefused, detail)
            }
            Self::UnknownHere { source } => {
                let Refusal { kind, detail, .. } = source.refusal(host);
                (kind, detail)
            }
            Self::Unchecked { .. } => {
                let detail = format!(
                    "the policy says at which addresses the API of {host} is, and that cannot be known here; the journal says why"
                );
                (Kind::AddressRefused, detail)
            }
            Self::Uplink { source: UplinkError::NotReached { status: 504, .. }, .. } => (
                Kind::UpstreamTimeout,
                format!("{host} cannot be reached in time from the proxy of this network"),
            ),
            Self::Uplink { source: UplinkError::NotReached { status, .. }, .. } => {
                let detail = format!("{host} cannot be reached from the proxy of this network ({status})");
                (Kind::UpstreamUnreachable, detail)
            }
            Self::Uplink { source: UplinkError::Refused { status, .. }, .. } => {
                (Kind::ProxyFailed, format!("the proxy of this network refuses to lead to {host} ({status})"))
            }
            Self::Uplink { .. } => {
                let detail =
                    format!("the proxy of this network does not lead to {host}; the journal says why");
                (Kind::ProxyFailed, detail)
            }
            Self::Tls { source, .. } => {
                let kind = match source.fault {
                    UpstreamFault::Timeout => Kind::UpstreamTimeout,
                    UpstreamFault::Closed | UpstreamFault::Handshake => Kind::UpstreamFailed,
                    _ => Kind::UpstreamUntrusted,
                };
                (kind, format!("{host}: {}; nothing was sent to it", source.fault.for_bot()))
            }
            Self::NotLoopback { credential, .. } => {
                let credential = credential.as_deref().unwrap_or("of the grant");
                let detail = format!(
                    "the credential {credential} goes over plain HTTP to a loopback address alone, and {host} is at \
                     another; nothing was sent"
                );
                (Kind::CredentialUnavailable, detail)
            }
            Self::Untaken { .. } => (Kind::UpstreamFailed, format!("{host} did not take the request")),
            Self::SeveralServers { .. } => {
                let detail = format!(
                    "the credential of the grant goes over plain HTTP to one server of this host, and {host} are several; \
                     nothing was sent"
                );
                (Kind::CredentialUnavailable, detail)
            }
            Self::Broken { .. } => (Kind::UpstreamFailed, format!("{host} broke off before its response")),
            Self::Ambiguous { fault, .. } => {
                (Kind::UpstreamFailed, format!("the response of {host} can be read in two ways: {fault}"))
            }
            Self::Unasked { .. } => (Kind::UpstreamFailed, format!("{host} switched protocols unasked")),
            Self::Closed(why) => {
                (Kind::UpstreamFailed, format!("the response of {host} is not passed on: {why}"))
            }
            Self::Client { .. } => (Kind::ClientGone, "the request's body broke off".to_owned()),
            Self::Unkept(_) => {
                (Kind::JournalUnwritable, "its body must be kept for auditors, and cannot be".to_owned())
            }
            Self::ResponseTimeout { .. } => {
                (Kind::UpstreamTimeout, format!("{host} did not respond in time"))
            }
            Self::RequestStalled { .. } => {
                (Kind::RequestTimeout, "the request's body made no progress".to_owned())
            }
            Self::Misplaced(why @ Misplaced::Crowded) => (Kind::LimitExceeded, why.to_string()),
            Self::Misplaced(why) => (Kind::BadRequest, why.to_string()),
            Self::Spell { .. } => (Kind::BadRequest, "the request cannot be forwarded as it is".to_owned()),
        };
        Refusal::new(kind, detail).with_internal(chain(self))
    }
}
