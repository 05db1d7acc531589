//! The certificates that bots must trust: all of the CA that others may see.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use super::ca_error::CaError;
use super::files::{self, CERTIFICATE_MODE};
use super::{pem, x509};

/// Where the roots are, below the state directory.
pub(super) const ROOTS: &str = "ca/ca.pem";

/// A root of this host's CA. Its key was destroyed when it had signed one issuer, so nobody can sign with it any more.
#[derive(Debug, Clone)]
pub struct CaCertificate {
    path: PathBuf,
    der: CertificateDer<'static>,
    facts: x509::Facts,
}

impl CaCertificate {
    /// Every root that bots must trust, newest generation first; never none.
    ///
    /// # Errors
    /// [`CaError::NotThere`], [`CaError::Roots`], or [`CaError::File`].
    pub fn all(state_dir: &Path) -> Result<Vec<Self>, CaError> {
        let path = state_dir.join(ROOTS);
        let content = files::read(&path, CERTIFICATE_MODE)?;
        let content = content.ok_or_else(|| CaError::NotThere { path: path.clone() })?;
        match Self::parse(&path, &content) {
            Ok(roots) if roots.is_empty() => {
                Err(CaError::Roots { path, reason: "no certificate is in it".to_owned() })
            }
            Err(CaError::Damaged { path, reason }) => Err(CaError::Roots { path, reason }),
            read => read,
        }
    }

    /// Every certificate of a PEM file.
    pub(super) fn parse(path: &Path, content: &[u8]) -> Result<Vec<Self>, CaError> {
        let damaged = |reason: String| CaError::Damaged { path: path.to_owned(), reason };
        let each = CertificateDer::pem_slice_iter(content).map(|der| {
            let der = der.map_err(|error| damaged(error.to_string()))?;
            let facts = x509::facts(&der).ok_or_else(|| damaged("no X.509 certificate".to_owned()))?;
            Ok(Self { path: path.to_owned(), der, facts })
        });
        each.collect()
    }

    /// The file that the certificate was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The certificate as PEM, with a final newline.
    pub fn pem(&self) -> String {
        pem::certificate(&self.der)
    }

    /// The certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whether `root` signed it.
    pub(super) fn is_issued_by(&self, root: &Self) -> bool {
        x509::is_signed_by(&self.der, &root.der)
    }

    /// Whether it is over the same key as `other`.
    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        x509::have_one_key(&self.der, &other.der)
    }

    /// The subject, as `CN=…`.
    pub fn subject(&self) -> &str {
        &self.facts.subject
    }

    /// The first second of the validity.
    pub fn not_before(&self) -> OffsetDateTime {
        self.facts.not_before
    }

    /// The last second of the validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.facts.not_after
    }

    /// The SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` writes it: `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        let bytes = digest(&SHA256, &self.der);
        bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}
