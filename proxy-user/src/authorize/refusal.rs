//! Why something is refused: a closed list, with what the client gets to see of each.

use std::time::Duration;

use http::StatusCode;
use proxy_journal::{Basis, Blame, Rule};
use proxy_policy::Bound;

/// What kind of refusal. The list is closed: nothing else is ever said to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The identity has no grant for the call, or a deny matches.
    NotGranted,
    /// The API is not called at the address that the workload chose, or that its host has.
    AddressRefused,
    /// No API names the host, and the identity may not call such hosts.
    UnknownHost,
    /// No identity matches the workload.
    UnknownWorkload,
    /// Several identities match the workload.
    AmbiguousWorkload,
    /// Nothing is known of the protocol that the connection speaks.
    UnknownProtocol,
    /// The request can be read in more than one way, or not at all.
    BadRequest,
    /// The method is one that a proxy like this never forwards.
    MethodNotAllowed,
    /// The request did not come in time.
    RequestTimeout,
    /// SNI, authority and destination disagree.
    Misdirected,
    /// The header of the request is larger than the limit.
    HeaderTooLarge,
    /// A limit of the policy is used up, or the upstream asked for a pause.
    LimitExceeded,
    /// The credential that the grant names cannot be had.
    CredentialUnavailable,
    /// The upstream does not answer at all.
    UpstreamUnreachable,
    /// The upstream did not prove to be the host.
    UpstreamUntrusted,
    /// The upstream broke off, or answered with something that is not HTTP.
    UpstreamFailed,
    /// The upstream took too long.
    UpstreamTimeout,
    /// The proxy of the site, through which upstreams are reached, does not lead there.
    ProxyFailed,
    /// The client went away before it had its answer.
    ClientGone,
    /// The journal cannot be written: nothing is forwarded unrecorded.
    JournalUnwritable,
    /// The host's own settings keep the call from being forwarded.
    Internal,
}

impl Kind {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 21] = [
        Self::NotGranted,
        Self::AddressRefused,
        Self::UnknownHost,
        Self::UnknownWorkload,
        Self::AmbiguousWorkload,
        Self::UnknownProtocol,
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Misdirected,
        Self::HeaderTooLarge,
        Self::LimitExceeded,
        Self::CredentialUnavailable,
        Self::UpstreamUnreachable,
        Self::UpstreamUntrusted,
        Self::UpstreamFailed,
        Self::UpstreamTimeout,
        Self::ProxyFailed,
        Self::ClientGone,
        Self::JournalUnwritable,
        Self::Internal,
    ];

    /// Status of the answer (RFC 9110 §15, RFC 6585 §5).
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotGranted
            | Self::AddressRefused
            | Self::UnknownHost
            | Self::UnknownWorkload
            | Self::AmbiguousWorkload
            | Self::UnknownProtocol => StatusCode::FORBIDDEN,
            Self::BadRequest | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::CredentialUnavailable
            | Self::UpstreamUnreachable
            | Self::UpstreamUntrusted
            | Self::UpstreamFailed
            | Self::ProxyFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::JournalUnwritable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A few words for a person; always the same for a kind.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::NotGranted => "The policy does not grant this call",
            Self::AddressRefused => "The policy does not let the API be at this address",
            Self::UnknownHost => "No API of the policy names this host",
            Self::UnknownWorkload => "The policy does not know this program",
            Self::AmbiguousWorkload => "Several identities match this program",
            Self::UnknownProtocol => "The protocol is not known",
            Self::BadRequest => "The request is not acceptable",
            Self::MethodNotAllowed => "The method is never forwarded",
            Self::RequestTimeout => "The request did not come in time",
            Self::Misdirected => "The request names another host than the connection",
            Self::HeaderTooLarge => "The header is too large",
            Self::LimitExceeded => "A limit is used up",
            Self::CredentialUnavailable => "The credential is not available",
            Self::UpstreamUnreachable => "The API's server cannot be reached",
            Self::UpstreamUntrusted => "The API's server did not prove its name",
            Self::UpstreamFailed => "The API's server broke off",
            Self::UpstreamTimeout => "The API's server took too long",
            Self::ProxyFailed => "The proxy of this host's network does not lead there",
            Self::ClientGone => "The client went away",
            Self::JournalUnwritable => "The call cannot be recorded",
            Self::Internal => "The call cannot be forwarded",
        }
    }

    /// The name of the kind for programs: the end of the problem's `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::NotGranted => "not-granted",
            Self::AddressRefused => "address-refused",
            Self::UnknownHost => "unknown-host",
            Self::UnknownWorkload => "unknown-workload",
            Self::AmbiguousWorkload => "ambiguous-workload",
            Self::UnknownProtocol => "unknown-protocol",
            Self::BadRequest => "bad-request",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::Misdirected => "misdirected",
            Self::HeaderTooLarge => "header-too-large",
            Self::LimitExceeded => "limit-exceeded",
            Self::CredentialUnavailable => "credential-unavailable",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamUntrusted => "upstream-untrusted",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::ProxyFailed => "proxy-failed",
            Self::ClientGone => "client-gone",
            Self::JournalUnwritable => "journal-unwritable",
            Self::Internal => "internal",
        }
    }

    /// Who is to blame.
    #[must_use]
    pub fn blame(self) -> Blame {
        match self {
            Self::NotGranted
            | Self::AddressRefused
            | Self::UnknownHost
            | Self::UnknownWorkload
            | Self::AmbiguousWorkload
            | Self::LimitExceeded => Blame::Policy,
            Self::UnknownProtocol
            | Self::BadRequest
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::Misdirected
            | Self::HeaderTooLarge
            | Self::ClientGone => Blame::Client,
            Self::UpstreamUnreachable
            | Self::UpstreamUntrusted
            | Self::UpstreamFailed
            | Self::UpstreamTimeout => Blame::Upstream,
            Self::CredentialUnavailable | Self::ProxyFailed | Self::JournalUnwritable => Blame::Host,
            Self::Internal => Blame::Us,
        }
    }
}

/// A refusal: its kind, what exactly, and the rule if one decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the closed list.
    pub kind: Kind,
    /// What exactly, for the client; never a secret and never what a workload must not know of the host.
    pub detail: String,
    /// What exactly, for the journal and the operator, when there is more to say.
    pub internal: Option<Box<str>>,
    /// The rule that decided.
    pub rule: Option<Rule>,
    /// What is used up, and for how long.
    pub over: Option<Box<Over>>,
    /// What it is based on, if a policy was asked.
    pub basis: Option<Box<Basis>>,
}

/// A call that came too soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// After which time it is worth to try again.
    pub retry_after: Duration,
    /// The limit, when it is one of the policy; else the upstream asked for it.
    pub limit: Option<Bound>,
}

impl Refusal {
    /// Without a rule.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), internal: None, rule: None, over: None, basis: None }
    }

    /// With more for the operator than for the client.
    #[must_use]
    pub fn with_internal(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into().into());
        self
    }

    /// With what it is based on.
    #[must_use]
    pub fn with_basis(self, basis: impl Into<Box<Basis>>) -> Self {
        Self { basis: Some(basis.into()), ..self }
    }

    /// What goes into the journal.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.internal.as_deref().unwrap_or(&self.detail)
    }

    /// Status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }
}
