//! Signs tokens: JSON Web Signatures (RFC 7515) in their compact form.
//!
//! A key is parsed once for each version of its secret, and then held by the cryptographic library, which wipes it.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proxy_policy::JwtAlgorithm;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::trust::{KeyForm, PrivateKeyError, PrivateKeyPem};

/// A private key that signs with one algorithm. No `Debug`.
pub(super) struct SigningKey(Kind);

enum Kind {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(Box<RsaKeyPair>),
}

/// The key cannot sign so. Nothing of it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadKey {
    /// There is none.
    #[error(transparent)]
    Unreadable(#[from] PrivateKeyError),
    /// It is a key of something else.
    #[error("its private key is not one of {}: {}", .0.as_str(), wanted(*.0))]
    Other(JwtAlgorithm),
}

fn elliptic(der: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()
}

fn wanted(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::Es256 => "an elliptic curve key on P-256",
        JwtAlgorithm::EdDsa => "an Ed25519 key as PKCS #8",
        JwtAlgorithm::Rs256 => "an RSA key of 2048 to 8192 bits",
        _ => "this daemon does not know it",
    }
}

impl SigningKey {
    /// Reads a key as PEM: PKCS #8, SEC 1 or PKCS #1.
    ///
    /// # Errors
    /// [`BadKey`].
    pub(super) fn from_pem(algorithm: JwtAlgorithm, pem: &Secret) -> Result<Self, BadKey> {
        let key = PrivateKeyPem::parse(pem.expose())?;
        let (der, other) = (key.der(), BadKey::Other(algorithm));
        match (algorithm, key.form()) {
            (_, KeyForm::Pkcs8) => Self::from_pkcs8(algorithm, der),
            (JwtAlgorithm::Es256, KeyForm::Sec1) => elliptic(der).map(|key| Self(Kind::Es256(key))),
            (JwtAlgorithm::Rs256, KeyForm::Pkcs1) => {
                RsaKeyPair::from_der(der).ok().map(|key| Self(Kind::Rs256(Box::new(key))))
            }
            _ => None,
        }
        .ok_or(other)
    }

    /// Reads a key as PKCS #8; `None` when it is none for this algorithm.
    pub(super) fn from_pkcs8(algorithm: JwtAlgorithm, der: &[u8]) -> Option<Self> {
        let kind = match algorithm {
            JwtAlgorithm::Es256 => Kind::Es256(elliptic(der)?),
            // Also without the public key, as OpenSSL writes it.
            JwtAlgorithm::EdDsa => Kind::EdDsa(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?),
            JwtAlgorithm::Rs256 => Kind::Rs256(Box::new(RsaKeyPair::from_pkcs8(der).ok()?)),
            _ => return None,
        };
        Some(Self(kind))
    }

    /// A new key, and the same as PKCS #8; `None` when the library makes none.
    pub(super) fn generate(algorithm: JwtAlgorithm) -> Option<(Self, Zeroizing<Vec<u8>>)> {
        let der = match algorithm {
            JwtAlgorithm::Es256 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
                key.to_pkcs8v1().ok()?.as_ref().to_vec()
            }
            JwtAlgorithm::EdDsa => Ed25519KeyPair::generate().ok()?.to_pkcs8v1().ok()?.as_ref().to_vec(),
            JwtAlgorithm::Rs256 => {
                let key = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
                AsDer::<Pkcs8V1Der<'_>>::as_der(&key).ok()?.as_ref().to_vec()
            }
            _ => return None,
        };
        let der = Zeroizing::new(der);
        Some((Self::from_pkcs8(algorithm, &der)?, der))
    }

    fn algorithm(&self) -> JwtAlgorithm {
        match &self.0 {
            Kind::Es256(_) => JwtAlgorithm::Es256,
            Kind::EdDsa(_) => JwtAlgorithm::EdDsa,
            Kind::Rs256(_) => JwtAlgorithm::Rs256,
        }
    }

    /// A signed token with these claims; `None` when the library refuses.
    pub(super) fn sign(&self, key_id: Option<&str>, claims: &Map<String, Value>) -> Option<Secret> {
        let mut header = json!({ "alg": self.algorithm().as_str(), "typ": "JWT" });
        if let (Some(key_id), Some(header)) = (key_id, header.as_object_mut()) {
            header.insert("kid".to_owned(), key_id.into());
        }
        let claims = serde_json::to_vec(claims).ok()?;
        let header = serde_json::to_vec(&header).ok()?;
        let encoded = |bytes: usize| bytes.div_ceil(3) * 4;
        // At its final size from the start: a buffer that grew would leave copies behind in freed memory.
        let mut token = String::with_capacity(encoded(header.len()) + encoded(claims.len()) + 1400);
        BASE64_URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let message = token.as_bytes();
        let random = SystemRandom::new();
        let signature = match &self.0 {
            Kind::Es256(key) => key.sign(&random, message).ok()?.as_ref().to_vec(),
            Kind::EdDsa(key) => key.try_sign(message).ok()?.as_ref().to_vec(),
            Kind::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                signature
            }
        };
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(Secret::new(token.into_bytes()))
    }

    /// The public key as a JSON Web Key (RFC 7517), without a name.
    pub(super) fn public_jwk(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match &self.0 {
            Kind::Es256(key) => {
                // A point that is not compressed: 4, x, y.
                let (x, y) = key
                    .public_key()
                    .as_ref()
                    .get(1..)
                    .unwrap_or_default()
                    .split_at_checked(32)
                    .unwrap_or_default();
                json!({ "crv": "P-256", "kty": "EC", "x": text(x), "y": text(y) })
            }
            Kind::EdDsa(key) => {
                json!({ "crv": "Ed25519", "kty": "OKP", "x": text(key.public_key().as_ref()) })
            }
            Kind::Rs256(key) => {
                let key = key.public_key();
                let exponent = text(key.exponent().big_endian_without_leading_zero());
                json!({ "e": exponent, "kty": "RSA", "n": text(key.modulus().big_endian_without_leading_zero()) })
            }
        };
        match jwk {
            Value::Object(jwk) => jwk,
            _ => Map::new(),
        }
    }

    /// The name of the key by what it is (RFC 7638).
    pub(super) fn thumbprint(&self) -> String {
        // Members in the order of the alphabet and no spaces, which is how this map is written.
        let jwk = Value::Object(self.public_jwk()).to_string();
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, jwk.as_bytes()))
    }
}

#[cfg(test)]
#[path = "jws_tests.rs"]
pub(super) mod tests;
