//! The roots that upstream servers are verified against: the system's, and those the operator names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_native_certs::{CertificateResult, load_native_certs};

use super::ca_certificate::CaCertificate;
use super::{generation, pem, x509};

/// Why there are no roots to verify with.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A configured file cannot be read.
    #[error("cannot read the root certificates {}", path.display())]
    Unreadable {
        /// The configured file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A configured file holds no certificate.
    #[error("{} holds no certificate: give it as PEM, with `-----BEGIN CERTIFICATE-----`", path.display())]
    Empty {
        /// The configured file.
        path: PathBuf,
    },
    /// A configured file holds something that is no certificate.
    #[error("certificate {number} of {} is damaged: {reason}", path.display())]
    Damaged {
        /// The configured file.
        path: PathBuf,
        /// Which of its certificates, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The system's trust store is missing or empty.
    #[error(
        "the system has no root certificates ({reason}): install the package ca-certificates, or name root files in the configuration and turn the system's off"
    )]
    NoSystemRoots {
        /// What went wrong.
        reason: String,
    },
    /// Neither the system's roots nor a file: no server could ever be verified.
    #[error("no root certificates: turn the system's on, or name at least one root file")]
    Nothing,
    /// The verifier could not be built from the roots.
    #[error("the root certificates cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// The system's roots, or those that SSL_CERT_FILE and SSL_CERT_DIR name. What cannot be read of them is left out as
/// long as something remains.
fn system(found: CertificateResult) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    if found.certs.is_empty() {
        let reason = found.errors.first().map_or("none were found".to_owned(), ToString::to_string);
        return Err(RootsError::NoSystemRoots { reason });
    }
    for error in &found.errors {
        tracing::warn!(%error, "a part of the system's root certificates cannot be read");
    }
    Ok(found.certs)
}

/// The reading of the system's roots, which goes on: there are hundreds of files.
pub struct SystemRoots(Option<JoinHandle<CertificateResult>>);

impl SystemRoots {
    /// Begins it.
    #[must_use]
    pub fn begin() -> Self {
        // Without a thread they are read when they are wanted.
        Self(thread::Builder::new().name("roots".to_owned()).spawn(load_native_certs).ok())
    }

    /// What is wrong with some of them is told here: when it begins, there may be no log yet.
    fn end(self) -> Result<Vec<CertificateDer<'static>>, RootsError> {
        system(match self.0.map(JoinHandle::join) {
            Some(Ok(found)) => found,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => load_native_certs(),
        })
    }
}

/// The certificates of a PEM file, all of them sound.
fn file(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let content =
        fs::read(path).map_err(|source| RootsError::Unreadable { path: path.to_owned(), source })?;
    let mut certificates = Vec::new();
    for (at, certificate) in CertificateDer::pem_slice_iter(&content).enumerate() {
        certificates.push(certificate.map_err(|error| RootsError::Damaged {
            path: path.to_owned(),
            number: at + 1,
            reason: error.to_string(),
        })?);
    }
    if certificates.is_empty() { Err(RootsError::Empty { path: path.to_owned() }) } else { Ok(certificates) }
}

/// Whether a root names itself one of this host's: of a former generation, which the store still has.
fn is_former(root: &CertificateDer<'_>, this_host: &str) -> bool {
    x509::facts(root).is_some_and(|facts| facts.subject.starts_with(this_host))
}

/// The roots to verify upstream servers with. `own` and what was it are left out even when it stands in the system's trust store, as
/// it does on hosts where bots use that: a server that shows one of our leaves is ourselves, not the API.
pub(super) fn store(
    extra: &[PathBuf],
    system: Option<SystemRoots>,
    own: &[CaCertificate],
) -> Result<RootCertStore, RootsError> {
    let system = system.map(SystemRoots::end).transpose()?.unwrap_or_default();
    without(own, system, extra)
}

fn without(
    own: &[CaCertificate],
    system: Vec<CertificateDer<'static>>,
    extra: &[PathBuf],
) -> Result<RootCertStore, RootsError> {
    let is_own = |root: &CertificateDer<'_>| own.iter().any(|ours| ours.der() == root);
    let mut store = RootCertStore::empty();
    if !system.is_empty() {
        let this_host = generation::roots_of_this_host();
        let others = system.into_iter().filter(|root| !is_own(root) && !is_former(root, &this_host));
        let (_, ignored) = store.add_parsable_certificates(others);
        if ignored > 0 {
            tracing::debug!(ignored, "some of the system's root certificates cannot be parsed");
        }
    }
    for path in extra {
        for (at, root) in file(path)?.into_iter().enumerate().filter(|(_, root)| !is_own(root)) {
            store.add(root).map_err(|error| RootsError::Damaged {
                path: path.clone(),
                number: at + 1,
                reason: error.to_string(),
            })?;
        }
    }
    if store.is_empty() { Err(RootsError::Nothing) } else { Ok(store) }
}

/// The system's roots and `own` as one PEM text, for clients that take a single file (SSL_CERT_FILE,
/// REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, CURL_CA_BUNDLE).
///
/// # Errors
/// [`RootsError::NoSystemRoots`].
pub fn bundle(own: &[CaCertificate]) -> Result<String, RootsError> {
    let is_own = |root: &CertificateDer<'_>| own.iter().any(|ours| ours.der() == root);
    let others = system(load_native_certs())?.into_iter().filter(|root| !is_own(root));
    Ok(own.iter().map(CaCertificate::pem).chain(others.map(|root| pem::certificate(&root))).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::super::Ca;
    use super::*;

    #[test]
    fn our_own_ca_is_no_root_although_the_systems_trust_store_has_it_for_the_bots() {
        let state = || tempfile::tempdir().unwrap();
        let (own, former, other) = (state(), state(), CertificateParams::default());
        let ca = |state: &tempfile::TempDir| Ca::for_tests(state.path()).roots();
        let (own, former) = (ca(&own), ca(&former));
        let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        let ders = |roots: &[CaCertificate]| roots.iter().map(|root| root.der().clone()).collect::<Vec<_>>();
        let system = [ders(&own), ders(&former), vec![other.clone()]].concat();
        let subject =
            |store: &RootCertStore| store.roots.iter().map(|root| root.subject.to_vec()).collect::<Vec<_>>();
        let theirs = subject(&without(&[], vec![other], &[]).unwrap());
        assert_eq!(subject(&without(&own, system, &[]).unwrap()), theirs);
        assert!(matches!(without(&own, ders(&own), &[]), Err(RootsError::Nothing)));
    }
}
