//! TLS on the bot's leg: we answer as the host that the bot called.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CipherSuite, ServerConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::alpn::Alpn;
use super::ca::Ca;
use super::cache::Cache;
use super::generation::KeyKind;
use super::leaf::{LeafError, Leaves};
use super::names::server_name;
use super::{now, provider};

/// How many configurations are kept, one for each host, ALPN offer and kind of leaf.
const CAPACITY: usize = super::leaf::CAPACITY;

/// Why TLS with a bot did not come about.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is no certificate to answer with.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The bot refused our certificate: it does not know the CA of this host.
    #[error("the client does not trust the CA of this host (alert {alert:?})")]
    Untrusted {
        /// The alert that the client sent.
        alert: AlertDescription,
    },
    /// The bot ended the handshake with another alert.
    #[error("the client ended the TLS handshake (alert {alert:?})")]
    Alert {
        /// The alert that the client sent.
        alert: AlertDescription,
    },
    /// The bot offers no version, suite or protocol that we do, or breaks the rules of TLS.
    #[error("the client's TLS cannot be answered: {0}")]
    Incompatible(rustls::Error),
    /// The bot closed the connection within the handshake. Some clients refuse a certificate this way.
    #[error(
        "the client closed the connection within the TLS handshake, as some do that do not trust the CA of this host"
    )]
    Closed,
    /// The bot did not finish the handshake in time.
    #[error("the client did not finish the TLS handshake within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection of the client broke within the TLS handshake")]
    Broken(#[source] io::Error),
}

/// The TLS server that bots talk to.
pub struct BotTls {
    leaves: Arc<Leaves>,
    /// One key for the session tickets of all hosts, so that they outlive a leaf; see [`Bound`].
    ticketer: Arc<dyn ProducesTickets>,
    configs: Cache<(ServerName<'static>, Alpn, KeyKind), Config>,
    deadline: Duration,
}

#[derive(Clone)]
struct Config {
    leaf: Arc<CertifiedKey>,
    tls: Arc<ServerConfig>,
}

impl fmt::Debug for BotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BotTls").finish_non_exhaustive()
    }
}

impl BotTls {
    /// A server that answers with leaves of `ca`, and gives clients `deadline` for each handshake.
    ///
    /// # Errors
    /// When no keys can be made, which means that the system has no randomness.
    pub fn new(ca: Arc<Ca>, deadline: Duration) -> Result<Self, rustls::Error> {
        let leaves = Leaves::new(ca).map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self {
            leaves: Arc::new(leaves),
            ticketer: Ticketer::new()?,
            configs: Cache::new(CAPACITY),
            deadline,
        })
    }

    /// Does the handshake with a bot that called `host`, over a stream that begins with its ClientHello.
    ///
    /// `host` is a DNS name or an IP address; the certificate is for it, whatever the ClientHello names. `offer` is
    /// what we agree to in ALPN, usually [`Alpn::mirror`] of what the client offers, and `kind` what the client verifies. A client that connects but
    /// verifies only afterwards (Node.js) is accepted here and then just closes.
    ///
    /// # Errors
    /// See [`AcceptError`]. The client was sent the fitting alert.
    pub async fn accept<S>(
        &self,
        stream: S,
        host: &str,
        offer: Alpn,
        kind: KeyKind,
    ) -> Result<TlsStream<S>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if kind == KeyKind::Rsa {
            self.prepare_rsa(host).await?;
        }
        let config = self.config_at(host, offer, kind, now())?;
        match tokio::time::timeout(self.deadline, TlsAcceptor::from(config).accept(stream)).await {
            Ok(accepted) => accepted.map_err(classify),
            Err(_) => Err(AcceptError::Timeout(self.deadline)),
        }
    }

    /// Makes the leaf of a client that verifies RSA alone, where that holds up nobody else: it takes a while.
    async fn prepare_rsa(&self, host: &str) -> Result<(), LeafError> {
        let (leaves, host) = (Arc::clone(&self.leaves), host.to_owned());
        let made = tokio::task::spawn_blocking(move || leaves.leaf(&host, KeyKind::Rsa).map(drop)).await;
        // A panic in there is told once more by who needs the leaf.
        made.unwrap_or(Ok(()))
    }

    /// The configuration for a host, made again when its leaf was.
    fn config_at(
        &self,
        host: &str,
        offer: Alpn,
        kind: KeyKind,
        now: OffsetDateTime,
    ) -> Result<Arc<ServerConfig>, LeafError> {
        let name = server_name(host)?;
        let leaf = self.leaves.leaf_at(&name, kind, now)?;
        let fresh = |config: &Config| Arc::ptr_eq(&config.leaf, &leaf);
        let make = || {
            let tls = self.build(host, leaf.clone(), offer).map_err(|error| LeafError::Mint {
                host: host.to_owned(),
                source: rcgen::Error::RingKeyRejected(error.to_string()),
            })?;
            Ok(Config { leaf: leaf.clone(), tls: Arc::new(tls) })
        };
        self.configs.get_or_make(&(name, offer, kind), fresh, make).map(|config| config.tls)
    }

    fn build(&self, host: &str, leaf: Arc<CertifiedKey>, offer: Alpn) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(host_provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Only(leaf)));
        config.ignore_client_order = true;
        config.alpn_protocols = offer.protocols();
        config.ticketer =
            Arc::new(Bound { host: host.to_ascii_lowercase(), ticketer: self.ticketer.clone() });
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0; // early data can be replayed (RFC 8446 section 8)
        Ok(config)
    }
}

/// Answers with one leaf, whatever the client names.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Session tickets of one host, taken by no other. rustls holds the name of the client's hello against the one in the ticket;
/// of clients that give none, all addresses would look the same.
#[derive(Debug)]
struct Bound {
    host: String,
    ticketer: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        self.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.ticketer.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        // No host has a byte of zero.
        self.ticketer.encrypt(&[self.host.as_bytes(), &[0], plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.ticketer.decrypt(cipher)?;
        let plain = plain.strip_prefix(self.host.as_bytes())?.strip_prefix(&[0])?;
        Some(plain.to_vec())
    }
}

/// Whether this alert refuses a certificate: OpenSSL says unknown_ca, Go bad_certificate, BoringSSL and Java
/// certificate_unknown.
fn refuses(alert: AlertDescription) -> bool {
    use AlertDescription::{BadCertificate, CertificateUnknown, UnknownCA};
    matches!(alert, UnknownCA | BadCertificate | CertificateUnknown)
}

/// The alert by which a client refused our certificate, when an error of reading from it says so: some verify only after the
/// handshake.
#[must_use]
pub fn refused_by(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) if refuses(*alert) => Some(format!("{alert:?}")),
        _ => None,
    }
}

fn classify(error: io::Error) -> AcceptError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) if refuses(*alert) => {
            AcceptError::Untrusted { alert: *alert }
        }
        Some(rustls::Error::AlertReceived(alert)) => AcceptError::Alert { alert: *alert },
        Some(other) => AcceptError::Incompatible(other.clone()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => AcceptError::Closed,
        None => AcceptError::Broken(error),
    }
}

/// With AES-128-GCM before the others, whatever the client prefers: on this host nothing is won by AES-256, and SHA-256 has
/// instructions of its own on most processors, unlike SHA-384.
fn host_provider() -> Arc<CryptoProvider> {
    let fast = [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let mut ours = (*provider()).clone();
    ours.cipher_suites.sort_by_key(|suite| !fast.contains(&suite.suite()));
    Arc::new(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_answered_with_its_new_leaf_when_the_old_one_was_replaced() {
        let state = tempfile::tempdir().unwrap();
        let ca = Arc::new(Ca::for_tests(state.path()));
        let tls = BotTls::new(ca, Duration::from_secs(10)).unwrap();
        let start = now();
        let at = |hours| {
            let then = start + time::Duration::hours(hours);
            tls.config_at("api.test", Alpn::Http1, KeyKind::Ecdsa, then).unwrap()
        };
        let first = at(0);
        assert!(Arc::ptr_eq(&first, &at(1)), "the same for as long as the leaf is");
        assert!(!Arc::ptr_eq(&first, &at(20)));
    }

    #[test]
    fn a_client_that_does_not_know_the_ca_is_recognized_by_the_alert_of_each_library() {
        use AlertDescription::{BadCertificate, CertificateUnknown, HandshakeFailure, UnknownCA};
        let classified = |alert| classify(io::Error::other(rustls::Error::AlertReceived(alert)));
        for alert in [UnknownCA, BadCertificate, CertificateUnknown] {
            assert!(matches!(classified(alert), AcceptError::Untrusted { .. }), "{alert:?}");
        }
        assert!(matches!(classified(HandshakeFailure), AcceptError::Alert { .. }));
    }
}
