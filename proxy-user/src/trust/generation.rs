//! One generation of the CA: what stores trust, and what signs leaves.
//!
//! Once with ECDSA P-256 and once with RSA, for clients that verify nothing else, there are
//!
//! - a *root*, which stores trust. Its key signs one issuer and is destroyed within the same function;
//! - an *issuer*, which signs leaves, and whose critical name constraints permit the hosts of the policy.
//!
//! Some verifiers heed no constraint of what they trust (RFC 5280 section 6.2 lets them); all heed those of an issuer. So with all
//! that is on this host, nobody can be a host that the policy does not name.
//!
//! On disk, in a directory of its own (0700): `ecdsa.key` and `rsa.key` (0600, the issuers' keys, PKCS#8 PEM), `ecdsa.pem` and
//! `rsa.pem` (issuer, then root).

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData as _,
    RsaKeySize, SerialNumber,
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

/// A root and its issuer.
struct Line {
    root: CaCertificate,
    certificate: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
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
                let issued = Issued::by(root, &issuer, permitted, now, lifetime).map_err(CaError::Make)?;
                let key = Zeroizing::new(issuer.serialize_pem());
                files::create(&directory.join(format!("{}.key", kind.name())), key.as_bytes(), KEY_MODE)?;
                files::create(
                    &directory.join(format!("{}.pem", kind.name())),
                    issued.pem.as_bytes(),
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
        let damaged = |line: &Line, reason: &str| CaError::Damaged {
            path: line.certificate.path().to_owned(),
            reason: reason.to_owned(),
        };
        let of = |line: &Line| {
            Permitted::of(line.certificate.der())
                .ok_or_else(|| damaged(line, "the issuer does not say which hosts it is for"))
        };
        let permitted = of(&ecdsa)?;
        if of(&rsa)? != permitted {
            return Err(damaged(&rsa, "it is for other hosts than ecdsa.pem"));
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
        let lines = [&self.ecdsa, &self.rsa];
        let each = lines.map(|line| line.root.not_before().max(line.certificate.not_before()));
        each.into_iter().max().unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Until when all of it is valid.
    pub(super) fn not_after(&self) -> OffsetDateTime {
        let lines = [&self.ecdsa, &self.rsa];
        let each = lines.map(|line| line.root.not_after().min(line.certificate.not_after()));
        each.into_iter().min().unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    pub(super) fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.not_before() <= now && now < self.not_after()
    }

    /// Signs what `params` says about `key`: the chain to send, leaf first and without the root.
    pub(super) fn sign(
        &self,
        kind: KeyKind,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<Vec<CertificateDer<'static>>, rcgen::Error> {
        let line = self.line(kind);
        let leaf = params.signed_by(key, &line.issuer)?;
        Ok(vec![leaf.der().clone(), line.certificate.der().clone()])
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
        let [issuer, ecdsa] = certificates(&directory.join("ecdsa.pem"))?;
        let [_, rsa] = certificates(&directory.join("rsa.pem"))?;
        let permitted = Permitted::of(issuer.der());
        Ok(Self {
            number,
            made: issuer.not_before() + BACKDATED,
            not_after: issuer.not_after().min(ecdsa.not_after()),
            permits: permitted.iter().flat_map(Permitted::names).collect(),
            roots: vec![ecdsa, rsa],
        })
    }
}

/// What a root that is no more has signed.
struct Issued {
    /// Issuer, then root.
    pem: String,
}

impl Issued {
    fn by(
        mut root_key: KeyPair,
        key: &KeyPair,
        permitted: &Permitted,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<Self, rcgen::Error> {
        let params = |name: &str, key: &KeyPair, below: u8| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, format!("{name} {} {}", host(), id(key)));
            params.not_before = now - BACKDATED;
            params.not_after = now + lifetime;
            params.serial_number = Some(serial()?);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.name_constraints = Some(permitted.constraints());
            Ok::<_, rcgen::Error>(params)
        };
        let mut issuer = params("Vouchsafe CA", key, 0)?;
        issuer.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issuer.use_authority_key_identifier_extension = true;
        let root = CertifiedIssuer::self_signed(params(ROOT, &root_key, 1)?, &root_key)?;
        let issuer = issuer.signed_by(key, &root)?;
        let pem = [pem::certificate(issuer.der()), pem::certificate(root.der())].concat();
        drop(root);
        root_key.zeroize();
        Ok(Self { pem })
    }
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

        let [certificate, root] = certificates(&path)?;
        belong_together(&certificate, &key_path, &key_pem)?;
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key)
            .map_err(|error| damaged(&path, error.to_string()))?;
        Ok(Self { root, certificate, issuer })
    }
}

/// The issuer of a line, and its root.
fn certificates(path: &Path) -> Result<[CaCertificate; 2], CaError> {
    let damaged = |reason: &str| CaError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let both = CaCertificate::parse(path, &read(path, CERTIFICATE_MODE)?)?;
    let Ok([issuer, root]) = <[CaCertificate; 2]>::try_from(both) else {
        return Err(damaged("not an issuer and its root"));
    };
    match issuer.is_issued_by(&root) {
        true => Ok([issuer, root]),
        false => Err(damaged("the issuer is not one of this root")),
    }
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
