//! Certificates for the hosts that bots call, minted when first asked for.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey};
use time::{Duration, OffsetDateTime};

use super::ca::Ca;
use super::cache::Cache;
use super::generation::{Generation, KeyKind, serial};
use super::names::{BadHost, server_name};
use super::{now, provider};

/// How long a leaf is valid, from its backdated begin.
const LIFETIME: Duration = Duration::hours(24);

/// How far a leaf is backdated, for bots whose clock is behind.
const BACKDATED: Duration = Duration::hours(1);

/// A leaf with less left than this is minted again.
const RENEW_BEFORE: Duration = Duration::hours(8);

/// How many leaves are kept. One takes about 2 KiB.
pub(super) const CAPACITY: usize = 16 * 1024;

/// The longest common name (RFC 5280 appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Why there is no leaf for a host.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The host's name cannot be certified.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// The CA is not for this host: the policy that names it came after the connection, or no generation is valid by the clock.
    #[error(
        "the CA of this host may not sign for `{host}` now: see `vouchsafe ca show`, and whether the clock is right"
    )]
    NotPermitted {
        /// The host.
        host: String,
    },
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
    /// Of whom it is: a leaf ends with its generation.
    generation: u32,
    from: OffsetDateTime,
    renew: OffsetDateTime,
}

/// What leaves of one kind are for.
struct LeafKey {
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
}

impl LeafKey {
    fn new(kind: KeyKind) -> Result<Self, rcgen::Error> {
        let key = kind.generate()?;
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider().key_provider.load_private_key(pkcs8);
        let signer = signer.map_err(|error| rcgen::Error::RingKeyRejected(error.to_string()))?;
        Ok(Self { key, signer })
    }
}

/// The leaves of the CA.
///
/// All of one kind share one key, which is made at start (RSA: when first needed) and lives only in memory: whoever could read one key
/// of this process could read all of them, and a key per host would only cost. The chain is the leaf and its issuer, because who
/// trusts the root has it (RFC 8446 section 4.4.2 lets the root be left out).
pub struct Leaves {
    ca: Arc<Ca>,
    ecdsa: LeafKey,
    rsa: OnceLock<LeafKey>,
    cache: Cache<(ServerName<'static>, KeyKind), Minted>,
}

impl Leaves {
    /// Makes the key that the leaves share.
    ///
    /// # Errors
    /// When no key can be made, which means that the system has no randomness.
    pub fn new(ca: Arc<Ca>) -> Result<Self, rcgen::Error> {
        let ecdsa = LeafKey::new(KeyKind::Ecdsa)?;
        Ok(Self { ca, ecdsa, rsa: OnceLock::new(), cache: Cache::new(CAPACITY) })
    }

    /// The leaf for a host: a DNS name in any case, or an IP address without brackets. The first of RSA takes some tenths of a second.
    ///
    /// # Errors
    /// See [`LeafError`].
    pub fn leaf(&self, host: &str, kind: KeyKind) -> Result<Arc<CertifiedKey>, LeafError> {
        self.leaf_at(&server_name(host)?, kind, now())
    }

    pub(super) fn leaf_at(
        &self,
        name: &ServerName<'static>,
        kind: KeyKind,
        now: OffsetDateTime,
    ) -> Result<Arc<CertifiedKey>, LeafError> {
        let signer = self.ca.signer(name, now);
        let signer = signer.ok_or_else(|| LeafError::NotPermitted { host: name.to_str().into_owned() })?;
        let fresh = |minted: &Minted| {
            minted.generation == signer.number() && minted.from <= now && now < minted.renew
        };
        let minted =
            self.cache.get_or_make(&(name.clone(), kind), fresh, || self.mint(&signer, name, kind, now));
        minted.map(|minted| minted.leaf)
    }

    /// The key that leaves of a kind share.
    fn key(&self, kind: KeyKind) -> Result<&LeafKey, rcgen::Error> {
        match kind {
            KeyKind::Ecdsa => Ok(&self.ecdsa),
            KeyKind::Rsa => match self.rsa.get() {
                Some(key) => Ok(key),
                // Of two that are made at the same time, one is taken.
                None => LeafKey::new(kind).map(|key| self.rsa.get_or_init(|| key)),
            },
        }
    }

    fn mint(
        &self,
        signer: &Generation,
        name: &ServerName<'static>,
        kind: KeyKind,
        now: OffsetDateTime,
    ) -> Result<Minted, LeafError> {
        let host = name.to_str();
        let failed = |source| LeafError::Mint { host: host.clone().into_owned(), source };
        let key = self.key(kind).map_err(failed)?;
        let from = (now - BACKDATED).max(signer.not_before());
        let end = (from + LIFETIME).min(signer.not_after());
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![alt_name(name).map_err(failed)?];
        params.distinguished_name = DistinguishedName::new();
        // Only people read it: clients look at the alternative names (RFC 9525 section 6.3).
        match name {
            ServerName::DnsName(_) if host.len() <= MAX_COMMON_NAME => {
                params.distinguished_name.push(DnType::CommonName, &*host);
            }
            _ => params.distinguished_name.push(DnType::OrganizationName, "Vouchsafe"),
        }
        params.not_before = from;
        params.not_after = end;
        params.serial_number = Some(serial().map_err(failed)?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = usages(kind);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let chain = signer.sign(kind, name, &params, &key.key);
        let chain = chain.ok_or_else(|| LeafError::NotPermitted { host: host.clone().into_owned() })?;
        let chain = chain.map_err(failed)?;
        let leaf = Arc::new(CertifiedKey::new(chain, Arc::clone(&key.signer)));
        // In the last hours of the CA each leaf is used to its end, instead of one being minted for each connection.
        let renew = if end == signer.not_after() { end } else { end - RENEW_BEFORE };
        Ok(Minted { leaf, generation: signer.number(), from, renew })
    }
}

/// What a leaf's key may do. We offer no suite in which a client encrypts to it, but some old clients ask for it of RSA.
fn usages(kind: KeyKind) -> Vec<KeyUsagePurpose> {
    match kind {
        KeyKind::Ecdsa => vec![KeyUsagePurpose::DigitalSignature],
        KeyKind::Rsa => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
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
