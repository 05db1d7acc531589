//! One generation of the CA: what stores trust, and what signs leaves.
//!
//! Once with ECDSA P-256 and once with RSA, for clients that verify nothing else, there are
//!
//! - a *root*, which stores trust. Its key signs the issuers and is destroyed within the same function;
//! - *issuers*, which sign leaves and share one key. The critical name constraints of each permit a part of the policy's hosts: every
//!   handshake carries one of them, and clients take certificates of some kilobytes only.
//!
//! Some verifiers heed no constraint of what they trust (RFC 5280 section 6.2 lets them); all heed those of an issuer. So with all
//! that is on this host, nobody can be a host that the policy does not name.
//!
//! On disk, in a directory of its own (0700): `ecdsa.key` and `rsa.key` (0600, the issuers' keys, PKCS#8 PEM), `ecdsa.pem` and
//! `rsa.pem` (issuers, then root).

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData,
    RsaKeySize, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};
use zeroize::{Zeroize as _, Zeroizing};

use super::ca_certificate::CaCertificate;
use super::ca_error::CaError;
use super::files::{self, CERTIFICATE_MODE, KEY_MODE};
use super::permitted::Permitted;
use super::{pem, provider};

/// How far a new generation is backdated: a clock that was two days ahead when it was made does no harm.
pub(super) const BACKDATED: Duration = Duration::days(2);

/// The most names that one issuer permits: 2 KiB, of some 25 bytes each.
const NAMES: usize = 64;

/// How roots are called.
const ROOT: &str = "Vouchsafe Root";

/// What a certificate is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA with P-256 and SHA-256: small and fast, and verified by all but the oldest clients.
    Ecdsa,
    /// RSA of 2048 bits, PKCS#1 with SHA-256 in certificates.
    Rsa,
}

impl KeyKind {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Ecdsa, Self::Rsa];

    /// A new key.
    pub(super) fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// A root and its issuers.
struct Line {
    root: CaCertificate,
    issuers: Vec<Signer>,
}

/// An issuer with its key.
struct Signer {
    permitted: Permitted,
    certificate: CaCertificate,
    issuer: Issuer<'static, SharedKey>,
}

/// The key of all issuers of a line.
#[derive(Clone)]
struct SharedKey(Arc<KeyPair>);

impl PublicKeyData for SharedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for SharedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// One generation: its number says its order.
pub(super) struct Generation {
    number: u32,
    permitted: Permitted,
    ecdsa: Line,
    rsa: Line,
}

impl Generation {
    /// Makes a generation for `permitted` in the empty directory `directory`, valid for `lifetime` from `now`. Some tenths of a second,
    /// most of it for RSA.
    pub(super) fn make(
        directory: &Path,
        permitted: &Permitted,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<(), CaError> {
        // The two RSA keys take the longest and nothing of each other.
        std::thread::scope(|scope| {
            let issuer_key = scope.spawn(|| KeyKind::Rsa.generate());
            let root_key = KeyKind::Rsa.generate();
            let ecdsa = KeyKind::Ecdsa.generate().and_then(|root| Ok((root, KeyKind::Ecdsa.generate()?)));
            let issuer_key = issuer_key.join().unwrap_or(Err(rcgen::Error::RingUnspecified));
            let rsa = root_key.and_then(|root| Ok((root, issuer_key?)));
            for (kind, keys) in [(KeyKind::Ecdsa, ecdsa), (KeyKind::Rsa, rsa)] {
                let (root, issuer) = keys.map_err(CaError::Make)?;
                let issued = issued(root, &issuer, permitted, now, lifetime).map_err(CaError::Make)?;
                let key = Zeroizing::new(issuer.serialize_pem());
                files::create(&directory.join(format!("{}.key", kind.name())), key.as_bytes(), KEY_MODE)?;
                files::create(
                    &directory.join(format!("{}.pem", kind.name())),
                    issued.as_bytes(),
                    CERTIFICATE_MODE,
                )?;
            }
            Ok(())
        })
    }

    /// Reads what [`Generation::make`] made.
    pub(super) fn open(directory: &Path, number: u32) -> Result<Self, CaError> {
        files::directory(directory)?;
        let [ecdsa, rsa] = KeyKind::ALL.map(|kind| Line::open(directory, kind));
        let (ecdsa, rsa) = (ecdsa?, rsa?);
        let permitted = ecdsa.permitted();
        if rsa.permitted() != permitted {
            return Err(CaError::Damaged {
                path: rsa.root.path().to_owned(),
                reason: "it is for other hosts than ecdsa.pem".to_owned(),
            });
        }
        Ok(Self { number, permitted, ecdsa, rsa })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn permitted(&self) -> &Permitted {
        &self.permitted
    }

    pub(super) fn permits(&self, name: &ServerName<'_>) -> bool {
        self.permitted.permits(name)
    }

    fn line(&self, kind: KeyKind) -> &Line {
        match kind {
            KeyKind::Ecdsa => &self.ecdsa,
            KeyKind::Rsa => &self.rsa,
        }
    }

    /// What bots must trust.
    pub(super) fn roots(&self) -> impl Iterator<Item = &CaCertificate> {
        KeyKind::ALL.into_iter().map(|kind| &self.line(kind).root)
    }

    /// When it was made.
    pub(super) fn made(&self) -> OffsetDateTime {
        self.not_before() + BACKDATED
    }

    /// From when on all of it is valid.
    pub(super) fn not_before(&self) -> OffsetDateTime {
        let all = self.certificates().map(CaCertificate::not_before);
        all.max().unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Until when all of it is valid.
    pub(super) fn not_after(&self) -> OffsetDateTime {
        let all = self.certificates().map(CaCertificate::not_after);
        all.min().unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    fn certificates(&self) -> impl Iterator<Item = &CaCertificate> {
        let lines = [&self.ecdsa, &self.rsa].into_iter();
        lines.flat_map(|line| line.issuers.iter().map(|one| &one.certificate).chain([&line.root]))
    }

    pub(super) fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.not_before() <= now && now < self.not_after()
    }

    /// Signs what `params` says about `key`, for `name`: the chain to send, leaf first and without the root. `None` when it may not.
    pub(super) fn sign(
        &self,
        kind: KeyKind,
        name: &ServerName<'_>,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Option<Result<Vec<CertificateDer<'static>>, rcgen::Error>> {
        let signer = self.line(kind).issuers.iter().find(|one| one.permitted.permits(name))?;
        let leaf = params.signed_by(key, &signer.issuer);
        Some(leaf.map(|leaf| vec![leaf.der().clone(), signer.certificate.der().clone()]))
    }
}

/// A generation as everybody may know it.
#[derive(Debug, Clone)]
pub struct About {
    /// Its number.
    pub number: u32,
    /// When it was made.
    pub made: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
    /// The domains, each with all below it, and addresses that it permits.
    pub permits: Vec<String>,
    /// What bots must trust: of ECDSA, and of RSA.
    pub roots: Vec<CaCertificate>,
}

impl Generation {
    pub(super) fn about(&self) -> About {
        About {
            number: self.number,
            made: self.made(),
            not_after: self.not_after(),
            permits: self.permitted.names().collect(),
            roots: self.roots().cloned().collect(),
        }
    }
}

impl About {
    /// From the files of a generation, without its keys.
    pub(super) fn read(directory: &Path, number: u32) -> Result<Self, CaError> {
        let (issuers, ecdsa) = certificates(&directory.join("ecdsa.pem"))?;
        let (_, rsa) = certificates(&directory.join("rsa.pem"))?;
        Ok(Self {
            number,
            made: ecdsa.not_before() + BACKDATED,
            not_after: ecdsa.not_after(),
            permits: Permitted::all(issuers.iter().map(|(permitted, _)| permitted)).names().collect(),
            roots: vec![ecdsa, rsa],
        })
    }
}

/// What a root that is no more has signed for the key: issuers, then root, as PEM.
fn issued(
    mut root_key: KeyPair,
    key: &KeyPair,
    permitted: &Permitted,
    now: OffsetDateTime,
    lifetime: Duration,
) -> Result<String, rcgen::Error> {
    let params = |name: String, below: u8| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now - BACKDATED;
        params.not_after = now + lifetime;
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok::<_, rcgen::Error>(params)
    };
    let mut root = params(format!("{ROOT} {} {}", host(), id(&root_key)), 1)?;
    // Those who look into a store shall see it; what holds are the issuers.
    root.name_constraints = (permitted.len() <= NAMES).then(|| permitted.constraints());
    let root = CertifiedIssuer::self_signed(root, &root_key)?;
    let mut whole = String::new();
    for (at, part) in permitted.parts(NAMES).iter().enumerate() {
        // Names differ, so that no client takes one for another that it has seen.
        let mut issuer = params(format!("Vouchsafe CA {} {} {}", host(), id(key), at + 1), 0)?;
        issuer.name_constraints = Some(part.constraints());
        issuer.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issuer.use_authority_key_identifier_extension = true;
        whole.push_str(&pem::certificate(issuer.signed_by(key, &root)?.der()));
    }
    whole.push_str(&pem::certificate(root.der()));
    drop(root);
    root_key.zeroize();
    Ok(whole)
}

impl Line {
    fn open(directory: &Path, kind: KeyKind) -> Result<Self, CaError> {
        let file = |extension: &str| directory.join(format!("{}.{extension}", kind.name()));
        let (key_path, path) = (file("key"), file("pem"));
        let damaged = |path: &Path, reason: String| CaError::Damaged { path: path.to_owned(), reason };
        let key_pem = read(&key_path, KEY_MODE)?;
        let text =
            std::str::from_utf8(&key_pem).map_err(|_| damaged(&key_path, "not a text file".to_owned()))?;
        let key = KeyPair::from_pem(text).map_err(|error| damaged(&key_path, error.to_string()))?;
        let key = SharedKey(Arc::new(key));

        let (issuers, root) = certificates(&path)?;
        // The key is that of the first; of the others it is enough that theirs is the same.
        if let Some((_, first)) = issuers.first() {
            belong_together(first, &key_path, &key_pem)?;
            if issuers.iter().any(|(_, other)| !other.has_key_of(first)) {
                return Err(damaged(&path, "its issuers have different keys".to_owned()));
            }
        }
        let each = issuers.into_iter().map(|(permitted, certificate)| {
            let issuer = Issuer::from_ca_cert_der(certificate.der(), key.clone())
                .map_err(|error| damaged(&path, error.to_string()))?;
            Ok::<_, CaError>(Signer { permitted, certificate, issuer })
        });
        Ok(Self { root, issuers: each.collect::<Result<_, _>>()? })
    }

    /// What all issuers permit together.
    fn permitted(&self) -> Permitted {
        Permitted::all(self.issuers.iter().map(|one| &one.permitted))
    }
}

/// The issuers of a line with what they permit, and their root.
fn certificates(path: &Path) -> Result<(Vec<(Permitted, CaCertificate)>, CaCertificate), CaError> {
    let damaged = |reason: &str| CaError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let mut issuers = CaCertificate::parse(path, &read(path, CERTIFICATE_MODE)?)?;
    let root = issuers.pop().filter(|_| !issuers.is_empty());
    let root = root.ok_or_else(|| damaged("not issuers and their root"))?;
    let each = issuers.into_iter().map(|issuer| {
        if !issuer.is_issued_by(&root) {
            return Err(damaged("an issuer is not one of this root"));
        }
        let permitted = Permitted::of(issuer.der());
        let permitted = permitted.ok_or_else(|| damaged("an issuer does not say which hosts it is for"))?;
        Ok((permitted, issuer))
    });
    Ok((each.collect::<Result<_, _>>()?, root))
}

/// A file that must be there.
fn read(path: &Path, most: u32) -> Result<Zeroizing<Vec<u8>>, CaError> {
    let missing = || CaError::Damaged { path: path.to_owned(), reason: "it is not there".to_owned() };
    files::read(path, most)?.ok_or_else(missing)
}

/// Whether the certificate was issued for the key.
fn belong_together(certificate: &CaCertificate, key_path: &Path, key_pem: &[u8]) -> Result<(), CaError> {
    let damaged = |path: &Path, reason: String| CaError::Damaged { path: path.to_owned(), reason };
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| damaged(key_path, error.to_string()))?;
    match CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CaError::Mismatch { key: key_path.to_owned(), certificate: certificate.path().to_owned() })
        }
        Err(error @ rustls::Error::InvalidCertificate(_)) => {
            Err(damaged(certificate.path(), error.to_string()))
        }
        Err(error) => Err(damaged(key_path, error.to_string())),
    }
}

/// The first digits of a key's digest: the CAs of two hosts, or two generations of one, are never mistaken for each other.
fn id(key: &KeyPair) -> String {
    let id = digest(&SHA256, &key.subject_public_key_info());
    id.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
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

/// How the subjects of all roots of this host begin.
pub(super) fn roots_of_this_host() -> String {
    format!("CN={ROOT} {} ", host())
}

/// The host's name as it fits into a common name (64 characters at most, RFC 5280 appendix A.1).
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_graphic).take(38).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}
