//! Reads a private key out of PEM (RFC 7468) without leaving copies of it behind.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

use super::pem;

/// How a private key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// PKCS #8 (RFC 5958), of any algorithm.
    Pkcs8,
    /// SEC 1 (RFC 5915), of elliptic curves.
    Sec1,
    /// PKCS #1 (RFC 8017), of RSA.
    Pkcs1,
}

/// A private key as DER, wiped when it is dropped. No `Debug`.
pub struct PrivateKeyPem {
    form: KeyForm,
    der: Zeroizing<Vec<u8>>,
}

/// There is no private key that can be read. Nothing of the text is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// No block of PEM has one.
    #[error(
        "it holds no private key as PEM (-----BEGIN PRIVATE KEY-----, EC PRIVATE KEY or RSA PRIVATE KEY)"
    )]
    None,
    /// It is under a passphrase.
    #[error("its private key is under a passphrase: store it without one, for example by `openssl pkey`")]
    Encrypted,
    /// What stands between its lines is no base64.
    #[error("its private key is damaged")]
    Damaged,
}

impl PrivateKeyPem {
    /// The first private key of a text; other blocks, such as certificates, are passed over.
    ///
    /// # Errors
    /// [`PrivateKeyError`].
    pub fn parse(text: &[u8]) -> Result<Self, PrivateKeyError> {
        for (label, body) in pem::blocks(text) {
            let form = match label {
                "PRIVATE KEY" => KeyForm::Pkcs8,
                "EC PRIVATE KEY" => KeyForm::Sec1,
                "RSA PRIVATE KEY" => KeyForm::Pkcs1,
                "ENCRYPTED PRIVATE KEY" => return Err(PrivateKeyError::Encrypted),
                _ => continue,
            };
            // The header of an old form that is encrypted (RFC 1421): `Proc-Type: 4,ENCRYPTED`.
            if body.contains(':') {
                return Err(PrivateKeyError::Encrypted);
            }
            return Ok(Self { form, der: pem::decode(body).ok_or(PrivateKeyError::Damaged)? });
        }
        Err(PrivateKeyError::None)
    }

    /// How it is written.
    #[must_use]
    pub fn form(&self) -> KeyForm {
        self.form
    }

    /// The DER. Whoever calls it answers for where it goes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// For rustls, borrowed.
    pub(super) fn for_rustls(&self) -> PrivateKeyDer<'_> {
        let der = self.der.as_slice();
        match self.form {
            KeyForm::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
            KeyForm::Sec1 => PrivateSec1KeyDer::from(der).into(),
            KeyForm::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }

    #[test]
    fn the_first_key_is_read_whatever_stands_before_it() {
        let key = key();
        let alone = PrivateKeyPem::parse(key.as_bytes()).unwrap();
        assert_eq!(alone.form(), KeyForm::Pkcs8);
        assert_eq!(alone.der(), rcgen::KeyPair::from_pem(&key).unwrap().serialize_der());
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let behind = PrivateKeyPem::parse(format!("{certificate}{key}").as_bytes()).unwrap();
        assert_eq!(behind.der(), alone.der());
        let windows = PrivateKeyPem::parse(key.replace('\n', "\r\n").as_bytes()).unwrap();
        assert_eq!(windows.der(), alone.der());
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_panics() {
        let refused = |text: &str| PrivateKeyPem::parse(text.as_bytes()).err().unwrap();
        for text in
            ["", "CANARY", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n-----END X-----"]
        {
            assert_eq!(refused(text), PrivateKeyError::None, "{text}");
        }
        let block =
            |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        assert_eq!(refused(&block("ENCRYPTED PRIVATE KEY", "AAAA")), PrivateKeyError::Encrypted);
        let old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA";
        assert_eq!(refused(&block("RSA PRIVATE KEY", old)), PrivateKeyError::Encrypted);
        assert_eq!(refused(&block("PRIVATE KEY", "!!!")), PrivateKeyError::Damaged);
        let whole = key();
        for length in 0..whole.len() - 30 {
            assert!(PrivateKeyPem::parse(&whole.as_bytes()[..length]).is_err(), "{length}");
        }
    }
}
