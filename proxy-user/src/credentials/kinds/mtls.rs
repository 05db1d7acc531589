//! `kind = "mtls"`: a client certificate, by which the server knows the connection.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use proxy_policy::MtlsCredential;

use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::secret::Secret;
use super::super::sources::{Held, SourceError, Sources};
use crate::trust::{ClientIdentity, ClientIdentityError};

/// A credential of this kind at work.
pub(super) struct Mtls {
    name: Arc<str>,
    kind: MtlsCredential,
    sources: Arc<Sources>,
    made: ArcSwapOption<Made>,
}

/// One version of certificate and key.
struct Made {
    certificate: Weak<Secret>,
    key: Weak<Secret>,
    identity: Result<ClientIdentity, ClientIdentityError>,
}

impl Made {
    fn is_of(&self, certificate: &Arc<Secret>, key: &Arc<Secret>) -> bool {
        std::ptr::eq(self.certificate.as_ptr(), Arc::as_ptr(certificate))
            && std::ptr::eq(self.key.as_ptr(), Arc::as_ptr(key))
    }
}

impl Mtls {
    pub(super) fn new(name: Arc<str>, kind: MtlsCredential, sources: Arc<Sources>) -> Self {
        Self { name, kind, sources, made: ArcSwapOption::empty() }
    }

    /// Certificate and key stand together, and are read together, so that they are of one version.
    fn one_text(&self) -> bool {
        self.kind.certificate == self.kind.key
    }

    fn attachment(&self, certificate: Result<Held, SourceError>, key: Result<Held, SourceError>) -> Provided {
        let (certificate, key) = match (certificate, key) {
            (Ok(certificate), Ok(key)) => (certificate, key),
            (Err(error), _) | (_, Err(error)) => {
                // What is gone proves nobody any more.
                self.made.store(None);
                return Err(CredentialError::source(&self.name, error));
            }
        };
        let identity = self.identity(&certificate.secret, &key.secret)?;
        if identity.has_ended() {
            let problem = format!(
                "its certificate ({}) ended at {}; store a new one with `vouchsafe secret set {}`",
                identity.subject(),
                identity.not_after(),
                self.kind.certificate.name()
            );
            return Err(self.not_obtained(problem));
        }
        Ok(Attachment::of_client(identity, self.kind.key.name(), key.version))
    }

    fn identity(
        &self,
        certificate: &Arc<Secret>,
        key: &Arc<Secret>,
    ) -> Result<ClientIdentity, CredentialError> {
        let mut made = self.made.load_full().filter(|made| made.is_of(certificate, key));
        if made.is_none() {
            let new = Arc::new(Made {
                certificate: Arc::downgrade(certificate),
                key: Arc::downgrade(key),
                identity: ClientIdentity::new(certificate.expose(), key.expose()),
            });
            // Whoever comes second takes the first one's: one version is one identity, and shares its connections.
            let before = self.made.rcu(|current| match current {
                Some(current) if current.is_of(certificate, key) => Arc::clone(current),
                _ => Arc::clone(&new),
            });
            made = Some(before.filter(|before| before.is_of(certificate, key)).unwrap_or(new));
        }
        let identity = made.as_ref().map(|made| made.identity.clone());
        identity.unwrap_or(Err(ClientIdentityError::NoCertificate)).map_err(|error| {
            let place = match error {
                ClientIdentityError::Key(_) | ClientIdentityError::OtherKey => &self.kind.key,
                _ => &self.kind.certificate,
            };
            let name = place.name();
            self.not_obtained(format!(
                "the secret {name} is no client certificate with its key: {error}; set it again with `vouchsafe secret set {name}`"
            ))
        })
    }

    fn not_obtained(&self, problem: String) -> CredentialError {
        CredentialError::NotObtained { credential: self.name.to_string(), problem }
    }
}

impl Provider for Mtls {
    fn ready(&self, _ask: &Ask<'_>) -> Option<Provided> {
        let certificate = self.sources.held(&self.kind.certificate)?;
        let key = match self.one_text() {
            true => certificate.clone(),
            false => self.sources.held(&self.kind.key)?,
        };
        Some(self.attachment(certificate, key))
    }

    fn provide<'a>(&'a self, _ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(async move {
            let certificate = self.sources.fetch(&self.kind.certificate).await;
            let key = match self.one_text() {
                true => certificate.clone(),
                false => self.sources.fetch(&self.kind.key).await,
            };
            self.attachment(certificate, key)
        })
    }
}

#[cfg(test)]
#[path = "mtls_tests.rs"]
mod tests;
