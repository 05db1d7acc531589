//! TLS on the API's leg: an ordinary client that verifies the server for the name that was called.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::alpn::Alpn;
use super::ca_certificate::CaCertificate;
use super::client_identity::{ClientIdentity, Presented};
use super::names::{BadHost, server_name};
use super::provider;
use super::roots::{self, RootsError, SystemRoots};

/// How many servers' sessions are kept for resumption.
const SESSIONS: usize = 1024;

/// What kept us from a verified connection to the API, as far as a bot needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFault {
    /// The name called is no host name.
    BadName,
    /// The certificate is for other names.
    NameMismatch,
    /// No root that we trust stands behind the certificate.
    UnknownIssuer,
    /// The certificate is no longer valid.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is unacceptable for another reason.
    BadCertificate,
    /// No version, suite or protocol in common, or the server refused or broke the handshake.
    Handshake,
    /// The server closed or reset the connection within the handshake.
    Closed,
    /// The server did not finish the handshake in time.
    Timeout,
    /// The server asked for no client certificate, or for none like ours.
    NotAsked,
}

impl UpstreamFault {
    /// The fault in words for the bot: a closed list that says nothing of the host or the upstream's internals.
    pub fn for_bot(self) -> &'static str {
        match self {
            Self::BadName => "the API's host name is invalid",
            Self::NameMismatch => "the API's server has a certificate for another name",
            Self::UnknownIssuer => "the API's server has a certificate of an unknown authority",
            Self::Expired => "the certificate of the API's server has expired",
            Self::NotYetValid => "the certificate of the API's server is not valid yet",
            Self::BadCertificate => "the certificate of the API's server is not acceptable",
            Self::Handshake => "the API's server and the proxy cannot agree on TLS",
            Self::Closed => "the API's server closed the connection within the TLS handshake",
            Self::Timeout => "the API's server did not finish the TLS handshake in time",
            Self::NotAsked => "the API's server asked for no client certificate",
        }
    }

    /// What the operator can do about it.
    fn advice(self) -> &'static str {
        match self {
            Self::BadName => "correct the host in the API's file",
            Self::NameMismatch => "check the host in the API's file and where its name resolves to",
            Self::UnknownIssuer => "if the server is yours, add its root to the configured root files",
            Self::Expired | Self::NotYetValid => "check the server's certificate and the clock of this host",
            Self::BadCertificate => "check the server's certificate",
            Self::Handshake => "check that TLS 1.2 or 1.3 is spoken on that port",
            Self::NotAsked => {
                "a server that asks for none does not know who calls: check its host and port, which certificates it wants, \
                 or take the credential off the grant"
            }
            Self::Closed | Self::Timeout => "check that the server is up and that TLS is spoken on that port",
        }
    }
}

/// Why TLS with an upstream server did not come about. `Display` is for the operator, [`UpstreamFault::for_bot`] for
/// the bot.
#[derive(Debug, thiserror::Error)]
#[error("TLS with `{host}` failed: {source}; {}", fault.advice())]
pub struct ConnectError {
    /// The host that was called.
    pub host: String,
    /// What is wrong.
    pub fault: UpstreamFault,
    /// What the layer beneath said.
    pub source: io::Error,
}

/// The TLS client that talks to APIs.
///
/// Sessions are resumed (a resumed session was verified for the same name when it began); early data is never sent,
/// because it can be replayed.
#[derive(Clone)]
pub struct UpstreamTls {
    nothing: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    http2_or_http1: Arc<ClientConfig>,
    deadline: Duration,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// A client that trusts the PEM files `extra_roots` and, with `system_roots`, the system's trust store, but never
    /// `own`, the roots of this host. It gives servers `deadline` for each handshake.
    ///
    /// # Errors
    /// See [`RootsError`]; each names the file to blame.
    pub fn new(
        extra_roots: &[PathBuf],
        system_roots: bool,
        own: &[CaCertificate],
        deadline: Duration,
    ) -> Result<Self, RootsError> {
        Self::with(extra_roots, system_roots.then(SystemRoots::begin), own, deadline)
    }

    /// The same, with those of the system's roots that are being read, if any are wanted.
    ///
    /// # Errors
    /// As [`UpstreamTls::new`].
    pub fn with(
        extra_roots: &[PathBuf],
        system: Option<SystemRoots>,
        own: &[CaCertificate],
        deadline: Duration,
    ) -> Result<Self, RootsError> {
        let roots = roots::store(extra_roots, system, own)?;
        let mut base = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(RootsError::Unusable)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        base.resumption = Resumption::in_memory_sessions(SESSIONS);
        base.enable_early_data = false;
        // The clones share the verifier and the sessions.
        let with = |offer: Alpn| {
            let mut config = base.clone();
            config.alpn_protocols = offer.protocols();
            Arc::new(config)
        };
        Ok(Self {
            nothing: with(Alpn::Nothing),
            http1: with(Alpn::Http1),
            http2: with(Alpn::Http2),
            http2_or_http1: with(Alpn::Http2OrHttp1),
            deadline,
        })
    }

    /// Does the handshake with a server and verifies that it is `host`: a DNS name or an IP address. The stream tells
    /// by `get_ref().1.alpn_protocol()` what was negotiated.
    ///
    /// # Errors
    /// See [`ConnectError`]. No byte of a request was sent.
    pub async fn connect<S>(&self, stream: S, host: &str, offer: Alpn) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_as(stream, host, offer, None).await
    }

    /// The same, and proves who we are if `identity` says so: only a connection whose server asked for the certificate,
    /// and got it, is handed out. It is never resumed and resumes none, so none carries another identity.
    ///
    /// # Errors
    /// See [`ConnectError`]. No byte of a request was sent.
    pub async fn connect_as<S>(
        &self,
        stream: S,
        host: &str,
        offer: Alpn,
        identity: Option<&ClientIdentity>,
    ) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |fault, source| ConnectError { host: host.to_owned(), fault, source };
        let name = server_name(host).map_err(|error: BadHost| {
            failed(UpstreamFault::BadName, io::Error::new(io::ErrorKind::InvalidInput, error))
        })?;
        let config = match offer {
            Alpn::Nothing => &self.nothing,
            Alpn::Http10 | Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
            Alpn::Http2OrHttp1 => &self.http2_or_http1,
        };
        let presented = identity.map(|identity| Arc::new(Presented::new(identity.clone())));
        let config = match &presented {
            None => Arc::clone(config),
            Some(presented) => {
                let mut own = ClientConfig::clone(config);
                own.resumption = Resumption::disabled();
                own.client_auth_cert_resolver = Arc::<Presented>::clone(presented);
                Arc::new(own)
            }
        };
        let connecting = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(self.deadline, connecting).await {
            Ok(Ok(_)) if presented.is_some_and(|presented| !presented.was_asked()) => {
                let text = "the server did not ask for a client certificate";
                Err(failed(UpstreamFault::NotAsked, io::Error::other(text)))
            }
            Ok(connected) => connected.map_err(|error| failed(classify(&error), error)),
            Err(_) => {
                let text = format!("no end of the handshake within {} ms", self.deadline.as_millis());
                Err(failed(UpstreamFault::Timeout, io::Error::new(io::ErrorKind::TimedOut, text)))
            }
        }
    }
}

fn classify(error: &io::Error) -> UpstreamFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        None => UpstreamFault::Closed,
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                UpstreamFault::NameMismatch
            }
            CertificateError::UnknownIssuer => UpstreamFault::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => UpstreamFault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                UpstreamFault::NotYetValid
            }
            _ => UpstreamFault::BadCertificate,
        },
        Some(rustls::Error::NoCertificatesPresented) => UpstreamFault::BadCertificate,
        Some(rustls::Error::AlertReceived(AlertDescription::CloseNotify)) => UpstreamFault::Closed,
        Some(_) => UpstreamFault::Handshake,
    }
}
