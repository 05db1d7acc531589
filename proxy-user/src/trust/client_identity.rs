//! What we prove ourselves with to a server: a client certificate and its key.
//!
//! Each identity is one of its own: two are never equal, also of the same certificate. Whoever keeps connections keeps
//! them apart by it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use time::OffsetDateTime;

use super::private_key::{PrivateKeyError, PrivateKeyPem};
use super::{now, pem, x509};

/// A client certificate with its key. Clones are the same identity.
#[derive(Clone)]
pub struct ClientIdentity(Arc<Inner>);

struct Inner {
    number: u64,
    key: Arc<CertifiedKey>,
    subject: String,
    not_after: OffsetDateTime,
}

/// Why nobody can be proved with these. Nothing of a key is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdentityError {
    /// There is no certificate.
    #[error("it holds no certificate as PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// One of the certificates cannot be read.
    #[error("certificate {0} of it is damaged")]
    Damaged(usize),
    /// There is no key that can be read.
    #[error("{0}")]
    Key(#[from] PrivateKeyError),
    /// The key is none that signs a handshake.
    #[error("its private key is none for TLS: it must be RSA, ECDSA or Ed25519")]
    OtherKey,
    /// Key and certificate are not of each other.
    #[error("the private key is not that of the certificate; the certificate of the key must come first")]
    Mismatch,
}

impl ClientIdentity {
    /// Of PEM texts: the certificate of the key first, then those that lead to its root; and the key, which may stand in
    /// the same text.
    ///
    /// # Errors
    /// [`ClientIdentityError`].
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, ClientIdentityError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut chain = Vec::new();
        for (_, body) in pem::blocks(certificates).filter(|(label, _)| *label == "CERTIFICATE") {
            let der = pem::decode(body).ok_or(ClientIdentityError::Damaged(chain.len() + 1))?;
            chain.push(CertificateDer::from(der.to_vec()));
        }
        let first = chain.first().ok_or(ClientIdentityError::NoCertificate)?;
        let facts = x509::facts(first).ok_or(ClientIdentityError::Damaged(1))?;
        let key = PrivateKeyPem::parse(key)?;
        let key = any_supported_type(&key.for_rustls()).map_err(|_| ClientIdentityError::OtherKey)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(ClientIdentityError::Mismatch),
            Err(_) => return Err(ClientIdentityError::Damaged(1)),
        }
        Ok(Self(Arc::new(Inner {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            key: Arc::new(key),
            subject: facts.subject,
            not_after: facts.not_after,
        })))
    }

    /// Whom the certificate names, for people.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The last second of its validity.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.not_after
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        now() > self.0.not_after
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("number", &self.0.number).finish_non_exhaustive()
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for ClientIdentity {}

impl Hash for ClientIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

/// An identity within one handshake, and whether the server asked for it.
#[derive(Debug)]
pub(super) struct Presented {
    identity: ClientIdentity,
    asked: AtomicBool,
}

impl Presented {
    pub(super) fn new(identity: ClientIdentity) -> Self {
        Self { identity, asked: AtomicBool::new(false) }
    }

    /// Whether the server asked, and the certificate went to it.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = &self.identity.0.key;
        // Without a scheme in common, rustls would go on without a certificate.
        key.key.choose_scheme(schemes)?;
        self.asked.store(true, Ordering::Release);
        Some(Arc::clone(key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "client_identity_tests.rs"]
mod tests;
