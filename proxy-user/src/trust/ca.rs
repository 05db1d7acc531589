//! The host's own certificate authority: one key, one certificate, made at first start and never replaced by itself.
//!
//! On disk, below the state directory:
//!
//! - `ca/` (0755)
//! - `ca/ca.key` (0600): the private key, ECDSA P-256, as PKCS#8 PEM (RFC 5958)
//! - `ca/ca.pem` (0644): the certificate, for the trust stores of bots
//!
//! The key is written first. A key without a certificate is what a kill in between leaves, and the certificate is
//! issued from it again; a certificate without its key, or anything damaged, is an error and is left as it is.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::files::{self, FileError};
use super::{now, pem, provider, x509};

/// How long a new CA is valid. Replacing it means touching the trust store of every bot; the key never leaves the
/// host, so that a short life would buy little.
const LIFETIME: Duration = Duration::days(5 * 365);

/// How far a new CA is backdated, for containers and machines whose clock is a little behind.
const BACKDATED: Duration = Duration::days(1);

/// How long before its end a CA is warned about at start.
const WARN_BEFORE: Duration = Duration::days(60);

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Why there is no usable CA. The daemon does not start without one.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or made, or others have access to it.
    #[error(transparent)]
    File(#[from] FileError),
    /// No certificate, and the caller may not make one.
    #[error("there is no CA at {} yet: the daemon makes it when it first starts", path.display())]
    NotThere {
        /// Where the certificate would be.
        path: PathBuf,
    },
    /// A certificate whose key is gone.
    #[error("{} is there, but its key {} is not: restore the key, or move the certificate away to have a new CA made at the next start, which every bot must then be given", certificate.display(), key.display())]
    KeyMissing {
        /// The key that is missing.
        key: PathBuf,
        /// The certificate that is there.
        certificate: PathBuf,
    },
    /// A file that is no key or no certificate.
    #[error("{} is damaged ({reason}): restore it, or move the directory {} away to have a new CA made at the next start, which every bot must then be given", path.display(), path.parent().unwrap_or(path).display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Both files are sound, but do not belong together.
    #[error("{} is not the key of {}: restore the file that was replaced", key.display(), certificate.display())]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The certificate of another key.
        certificate: PathBuf,
    },
    /// The certificate is no longer valid, so that no bot accepts what it signs.
    #[error("the CA {} expired on {}: move the directory {} away to have a new CA made at the next start, which every bot must then be given", path.display(), expired.date(), path.parent().unwrap_or(path).display())]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// The last second of its validity.
        expired: OffsetDateTime,
    },
    /// A new key or certificate could not be made.
    #[error("cannot make a new CA")]
    Make(#[source] rcgen::Error),
}

/// The CA's certificate: all of the CA that others may see.
#[derive(Debug, Clone)]
pub struct CaCertificate {
    path: PathBuf,
    der: CertificateDer<'static>,
    facts: x509::Facts,
}

impl CaCertificate {
    /// Reads the certificate of the CA below `state_dir`, without its key.
    ///
    /// # Errors
    /// [`CaError::NotThere`], [`CaError::Damaged`], or [`CaError::File`].
    pub fn open(state_dir: &Path) -> Result<Self, CaError> {
        let path = state_dir.join("ca/ca.pem");
        let content = files::read(&path, CERTIFICATE_MODE)?;
        let content = content.ok_or_else(|| CaError::NotThere { path: path.clone() })?;
        Self::parse(path, &content)
    }

    fn parse(path: PathBuf, content: &[u8]) -> Result<Self, CaError> {
        let damaged = |reason: String| CaError::Damaged { path: path.clone(), reason };
        let der = CertificateDer::from_pem_slice(content).map_err(|error| damaged(error.to_string()))?;
        let facts = x509::facts(&der).ok_or_else(|| damaged("no X.509 certificate".to_owned()))?;
        Ok(Self { path, der, facts })
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

/// The CA with its key: what signs leaves.
pub struct Ca {
    certificate: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Ca {
    /// Opens the CA below `state_dir`, which must exist; makes it when there is none.
    ///
    /// Two starts at the same time end up with the same CA.
    ///
    /// # Errors
    /// See [`CaError`]. Nothing that exists is ever overwritten.
    pub fn open_or_create(state_dir: &Path) -> Result<Self, CaError> {
        let directory = state_dir.join("ca");
        let (key_path, certificate_path) = (directory.join("ca.key"), directory.join("ca.pem"));
        files::directory(&directory)?;
        if files::read(&key_path, KEY_MODE)?.is_none() {
            if files::read(&certificate_path, CERTIFICATE_MODE)?.is_some() {
                return Err(CaError::KeyMissing { key: key_path, certificate: certificate_path });
            }
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
            files::create(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes(), KEY_MODE)?;
        }
        let key_pem = files::read(&key_path, KEY_MODE)?;
        let key_pem = key_pem.ok_or(CaError::NotThere { path: key_path.clone() })?;
        let damaged = |reason: String| CaError::Damaged { path: key_path.clone(), reason };
        let key_text = std::str::from_utf8(&key_pem).map_err(|_| damaged("not a text file".to_owned()))?;
        let key = KeyPair::from_pem(key_text).map_err(|error| damaged(error.to_string()))?;

        if files::read(&certificate_path, CERTIFICATE_MODE)?.is_none() {
            let issued = certificate_of(&key).map_err(CaError::Make)?;
            files::create(&certificate_path, pem::certificate(&issued).as_bytes(), CERTIFICATE_MODE)?;
            tracing::info!(path = %certificate_path.display(), "made a new CA");
        }
        let certificate = CaCertificate::open(state_dir)?;
        belong_together(&certificate, &key_path, &key_pem)?;
        check_validity(&certificate, now())?;
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)
            .map_err(|error| CaError::Damaged { path: certificate_path, reason: error.to_string() })?;
        Ok(Self { certificate, issuer })
    }

    /// The certificate, for those who must trust this CA.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The certificate as PEM, with a final newline.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Signs what `params` says about `key`.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        params.signed_by(key, &self.issuer).map(|certificate| certificate.der().clone())
    }
}

/// Whether the certificate was issued for the key.
fn belong_together(certificate: &CaCertificate, key_path: &Path, key_pem: &[u8]) -> Result<(), CaError> {
    let damaged = |path: &Path, reason: String| CaError::Damaged { path: path.to_owned(), reason };
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| damaged(key_path, error.to_string()))?;
    match CertifiedKey::from_der(vec![certificate.der.clone()], key, &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CaError::Mismatch { key: key_path.to_owned(), certificate: certificate.path.clone() })
        }
        Err(error @ rustls::Error::InvalidCertificate(_)) => {
            Err(damaged(&certificate.path, error.to_string()))
        }
        Err(error) => Err(damaged(key_path, error.to_string())),
    }
}

fn check_validity(certificate: &CaCertificate, now: OffsetDateTime) -> Result<(), CaError> {
    let (path, expired) = (certificate.path.clone(), certificate.not_after());
    if expired <= now {
        return Err(CaError::Expired { path, expired });
    }
    if expired - now < WARN_BEFORE {
        tracing::warn!(path = %path.display(), "the CA expires on {}: plan its replacement", expired.date());
    }
    Ok(())
}

/// A new self-signed certificate over `key`: `CN=Vouchsafe CA <host> <first digits of the key's digest>`, so that
/// the CAs of two hosts, or two CAs of one host, are never mistaken for each other.
fn certificate_of(key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let id = digest(&SHA256, &key.subject_public_key_info());
    let id: String = id.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Vouchsafe CA {} {id}", host()));
    params.not_before = now() - BACKDATED;
    params.not_after = now() + LIFETIME;
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.self_signed(key).map(|certificate| certificate.der().clone())
}

/// 16 random bytes as a positive number that is not shortened (RFC 5280 section 4.1.2.2).
pub(super) fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// The host's name as it fits into a common name (64 characters at most, RFC 5280 appendix A.1).
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_graphic).take(40).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
