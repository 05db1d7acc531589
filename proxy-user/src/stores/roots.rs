//! What the stores are to hold: the living roots of the host's CA.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::clock;
use crate::trust::{CaCertificate, CaError};

/// The SHA-256 of a certificate: 64 small hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The first 16 digits, by which a certificate is named in stores. Nobody but the CA chooses what is digested, so
    /// that two of ours never share them.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..Self::SHORT).unwrap_or(&self.0)
    }

    /// How many digits [`Fingerprint::short`] has.
    pub const SHORT: usize = 16;
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(digit) { Ok(Self(text)) } else { Err("no SHA-256") }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One root of ours.
#[derive(Debug, Clone)]
pub struct Root {
    /// The certificate.
    pub der: Vec<u8>,
    /// The same as PEM, with a final newline.
    pub pem: String,
    /// Its fingerprint.
    pub id: Fingerprint,
    /// What it is and until when, for people.
    pub about: String,
}

impl From<&CaCertificate> for Root {
    fn from(certificate: &CaCertificate) -> Self {
        let der = certificate.der().to_vec();
        // Nothing that a file of ours has in a comment line may end the line.
        let subject: String = certificate.subject().chars().filter(|c| !c.is_control()).collect();
        Self {
            id: Fingerprint::of(&der),
            pem: certificate.pem(),
            about: format!("{subject}, until {}", certificate.not_after().date()),
            der,
        }
    }
}

/// The roots that stores are to hold, newest generation first. None at all while ours are taken out.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<Root>);

impl Roots {
    /// The roots of the CA below `state`, without those that have ended.
    ///
    /// # Errors
    /// There is no CA yet, or its file is damaged.
    pub fn of_ca(state: &Path) -> Result<Self, CaError> {
        let now = clock::now().0;
        let living = |root: &&CaCertificate| root.not_after().unix_timestamp() > now;
        Ok(Self(CaCertificate::all(state)?.iter().filter(living).map(Root::from).collect()))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Root> {
        self.0.iter()
    }

    /// Whether this certificate is one of them.
    #[must_use]
    pub fn has(&self, id: &Fingerprint) -> bool {
        self.0.iter().any(|root| root.id == *id)
    }

    /// The fingerprints.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<Fingerprint> {
        self.0.iter().map(|root| root.id.clone()).collect()
    }

    /// Whether nothing of ours is to be in a store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them as one PEM text.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.iter().map(|root| root.pem.as_str()).collect()
    }
}

/// The fingerprint that a name of ours begins with: `PREFIX` + 16 digits + `SUFFIX`.
pub(super) fn named<'a>(name: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    let short = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (short.len() == Fingerprint::SHORT && short.bytes().all(digit)).then_some(short)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::trust::Ca;

    /// So many roots.
    pub(crate) fn some(count: usize) -> Roots {
        let mut roots = Vec::new();
        while roots.len() < count {
            let state = tempfile::tempdir().unwrap();
            Ca::for_tests(state.path());
            roots.extend(CaCertificate::all(state.path()).unwrap().iter().map(Root::from));
        }
        roots.truncate(count);
        Roots(roots)
    }

    /// Some of these.
    pub(crate) fn part(of: &Roots, range: std::ops::Range<usize>) -> Roots {
        Roots(of.0[range].to_vec())
    }

    #[test]
    fn a_fingerprint_is_what_openssl_calls_it_and_nothing_else_passes_for_one() {
        let state = tempfile::tempdir().unwrap();
        Ca::for_tests(state.path());
        let all = CaCertificate::all(state.path()).unwrap();
        let root = Root::from(&all[0]);
        let shown = all[0].fingerprint().replace(':', "").to_lowercase();
        assert_eq!(root.id.to_string(), shown);
        assert_eq!(root.id.short(), &shown[..16]);
        for wrong in [shown[1..].to_owned(), shown.to_uppercase(), format!("{}/", &shown[1..])] {
            assert!(Fingerprint::try_from(wrong).is_err());
        }
        let ids = all.iter().map(|certificate| Root::from(certificate).id).collect();
        assert_eq!(Roots::of_ca(state.path()).unwrap().ids(), ids);
    }

    #[test]
    fn only_names_that_we_give_are_ours() {
        let ours = |name| named(name, "vouchsafe-", ".crt");
        assert_eq!(ours("vouchsafe-0123456789abcdef.crt"), Some("0123456789abcdef"));
        for theirs in
            ["vouchsafe-ca.crt", "vouchsafe-0123456789ABCDEF.crt", "vouchsafe-0123456789abcdef0.crt", "x.crt"]
        {
            assert_eq!(ours(theirs), None, "{theirs}");
        }
    }
}
