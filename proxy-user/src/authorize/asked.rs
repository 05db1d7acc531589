//! What a workload asks for: of a request the checked [`Facts`], of anything else as much as is known ([`Asked`]).

use std::borrow::Cow;
use std::net::IpAddr;

use http::Method;
use proxy_policy::{Body, BodyFault, BodyState, CallKind, CallPath, Host, Scheme};

use crate::base::addr::OriginalDst;

/// What a request asks for, after it was checked to be unambiguous (`http::facts`): what is decided on is forwarded.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// How the upstream is spoken to.
    pub scheme: Scheme,
    /// The one host that SNI and authority name. Its `port` is without meaning.
    pub host: Cow<'a, Host>,
    /// The port that the workload connected to, which the authority does not contradict.
    pub port: u16,
    /// The address that it connected to, where that is known: an API is not called everywhere.
    pub address: Option<IpAddr>,
    /// The method as the client sent it; methods are case-sensitive (RFC 9110 §9.1).
    pub method: &'a Method,
    /// The path in normal form.
    pub path: CallPath<'a>,
    /// What stands after the first `?`, as the client sent it.
    pub query: Option<&'a str>,
    /// Whether it is a gRPC call or the upgrade to a WebSocket.
    pub kind: CallKind,
}

impl<'a> Facts<'a> {
    /// The same for the journal.
    #[must_use]
    pub fn asked(&'a self, dst: OriginalDst, proxy: Option<OriginalDst>) -> Asked<'a> {
        Asked {
            dst,
            proxy,
            scheme: Some(self.scheme.as_str()),
            host: Some(self.host.name()),
            port: Some(self.port),
            method: Some(self.method.as_str()),
            path: Some(self.path.as_str()),
            has_query: self.query.is_some(),
            ech: false,
        }
    }
}

/// What conditions look at, gathered when one asked.
#[derive(Debug, Default)]
pub struct Seen {
    /// The headers as they will be forwarded, each name once.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: SeenBody,
}

/// How far a body is known.
#[derive(Debug, Default)]
pub enum SeenBody {
    /// No condition asked for it.
    #[default]
    NotRead,
    /// It is JSON.
    Json(Body),
    /// It was looked at as far as it can be.
    Fault(BodyFault),
}

impl SeenBody {
    pub(super) fn state(&self) -> BodyState<'_> {
        match self {
            Self::NotRead => BodyState::NotRead,
            Self::Json(body) => BodyState::Json(body),
            Self::Fault(fault) => BodyState::Fault(*fault),
        }
    }
}

/// What is known of a connection or a request, for the journal. Nothing in it was checked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where the workload connected to, or what it asked a proxy for.
    pub dst: OriginalDst,
    /// The proxy that it asked.
    pub proxy: Option<OriginalDst>,
    /// `http`, `https`, `tls` or `tcp`.
    pub scheme: Option<&'a str>,
    /// The host, when one was named.
    pub host: Option<&'a str>,
    /// The port of the host.
    pub port: Option<u16>,
    /// The method of a request.
    pub method: Option<&'a str>,
    /// The path of a request, without its query.
    pub path: Option<&'a str>,
    /// Whether the request had a query.
    pub has_query: bool,
    /// Whether the handshake has another one encrypted inside, or pretends to.
    pub ech: bool,
}

impl<'a> Asked<'a> {
    /// A connection of which not more than its destination is known.
    #[must_use]
    pub fn connection(dst: OriginalDst) -> Self {
        Self {
            dst,
            proxy: None,
            scheme: None,
            host: None,
            port: None,
            method: None,
            path: None,
            has_query: false,
            ech: false,
        }
    }

    /// A connection that speaks `scheme`, to `host` if it named one.
    #[must_use]
    pub fn of(dst: OriginalDst, scheme: &'a str, host: Option<&'a str>) -> Self {
        let port = host.is_some().then(|| dst.0.port());
        Self { scheme: Some(scheme), host, port, ..Self::connection(dst) }
    }

    /// The same, of a handshake that may have another one inside.
    #[must_use]
    pub fn hiding(self, ech: bool) -> Self {
        Self { ech, ..self }
    }

    /// The same, asked for by way of a proxy.
    #[must_use]
    pub fn through(self, proxy: Option<OriginalDst>) -> Self {
        Self { proxy, ..self }
    }
}
