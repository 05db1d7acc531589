//! Certificates for the hosts that bots call, minted when first asked for.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey};
use time::{Duration, OffsetDateTime};

use super::ca::{Ca, serial};
use super::cache::Cache;
use super::names::{BadHost, server_name};
use super::{now, provider};

/// How long a leaf is valid, from its backdated begin.
const LIFETIME: Duration = Duration::hours(24);

/// How far a leaf is backdated, for bots whose clock is behind.
const BACKDATED: Duration = Duration::hours(1);

/// A leaf with less left than this is minted again.
const RENEW_BEFORE: Duration = Duration::hours(8);

/// How many hosts are kept. A leaf takes about 2 KiB.
const CAPACITY: usize = 4096;

/// The longest common name (RFC 5280 appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Why there is no leaf for a host.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The host's name cannot be certified.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// The CA expired while the daemon was running.
    #[error("the CA expired on {}: run `vouchsafe ca show` and replace it", .0.date())]
    CaExpired(OffsetDateTime),
    /// The certificate could not be made.
    #[error("cannot mint a certificate for `{host}`")]
    Mint {
        /// The host.
        host: String,
        /// What failed.
        source: rcgen::Error,
    },
}

#[derive(Clone)]
struct Minted {
    leaf: Arc<CertifiedKey>,
    from: OffsetDateTime,
    renew: OffsetDateTime,
}

/// The leaves of one CA.
///
/// All of them share one key, which is made at start and lives only in memory: whoever could read one key of this
/// process could read all of them, and a key per host would only cost. The chain is the leaf alone, because who trusts
/// the CA has it (RFC 8446 section 4.4.2 lets the root be left out).
pub struct Leaves {
    ca: Arc<Ca>,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    cache: Cache<ServerName<'static>, Minted>,
}

impl Leaves {
    /// Makes the key that the leaves share.
    ///
    /// # Errors
    /// When no key can be made, which means that the system has no randomness.
    pub fn new(ca: Arc<Ca>) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider().key_provider.load_private_key(pkcs8);
        let signer = signer.map_err(|error| rcgen::Error::RingKeyRejected(error.to_string()))?;
        Ok(Self { ca, key, signer, cache: Cache::new(CAPACITY) })
    }

    /// The leaf for a host: a DNS name in any case, or an IP address without brackets.
    ///
    /// # Errors
    /// See [`LeafError`].
    pub fn leaf(&self, host: &str) -> Result<Arc<CertifiedKey>, LeafError> {
        self.leaf_at(&server_name(host)?, now())
    }

    pub(super) fn leaf_at(
        &self,
        name: &ServerName<'static>,
        now: OffsetDateTime,
    ) -> Result<Arc<CertifiedKey>, LeafError> {
        let fresh = |minted: &Minted| minted.from <= now && now < minted.renew;
        self.cache.get_or_make(name, fresh, || self.mint(name, now)).map(|minted| minted.leaf)
    }

    fn mint(&self, name: &ServerName<'static>, now: OffsetDateTime) -> Result<Minted, LeafError> {
        let ca_end = self.ca.certificate().not_after();
        if ca_end <= now {
            return Err(LeafError::CaExpired(ca_end));
        }
        let host = name.to_str();
        let failed = |source| LeafError::Mint { host: host.clone().into_owned(), source };
        let from = now - BACKDATED;
        let end = (from + LIFETIME).min(ca_end);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![alt_name(name).map_err(failed)?];
        params.distinguished_name = DistinguishedName::new();
        let common_name = if host.len() <= MAX_COMMON_NAME { &host } else { "Vouchsafe" };
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = from;
        params.not_after = end;
        params.serial_number = Some(serial().map_err(failed)?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = self.ca.sign(&params, &self.key).map_err(failed)?;
        let leaf = Arc::new(CertifiedKey::new(vec![certificate], self.signer.clone()));
        // In the last hours of the CA each leaf is used to its end, instead of one being minted for each connection.
        let renew = if end == ca_end { end } else { end - RENEW_BEFORE };
        Ok(Minted { leaf, from, renew })
    }
}

fn alt_name(name: &ServerName<'static>) -> Result<SanType, rcgen::Error> {
    match name {
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(IpAddr::from(*address))),
        name => Ok(SanType::DnsName(Ia5String::try_from(name.to_str().into_owned())?)),
    }
}

#[cfg(test)]
#[path = "leaf_tests.rs"]
mod tests;
