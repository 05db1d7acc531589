//! `kind = "jwt"`: a JSON Web Token (RFC 7519) that this host makes.

use std::time::Duration;

use super::SecretRef;
use super::claims::ClaimText;

/// A token that is made for a call, or for all calls of a while.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtCredential {
    /// Who makes it, and for whom.
    pub signer: JwtSigner,
    /// Who may take it (`aud`); at least one.
    pub audience: Vec<ClaimText>,
    /// What else it says.
    pub claims: Vec<(String, ClaimValue)>,
    /// For how long it lasts.
    pub ttl: Duration,
    /// How often it is made anew.
    pub per: JwtPer,
}

/// Who makes a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtSigner {
    /// This host as an issuer, as its configuration says; the subject is the identity.
    Host,
    /// Whoever has a key.
    Key(JwtKey),
}

/// A key that signs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtKey {
    /// Where the private key is.
    pub key: SecretRef,
    /// What it signs with.
    pub algorithm: JwtAlgorithm,
    /// The name under which the receiver knows the key (`kid`).
    pub key_id: Option<String>,
    /// Who makes it (`iss`).
    pub issuer: Option<ClaimText>,
    /// For whom it is made (`sub`).
    pub subject: ClaimText,
}

/// A signature of a token (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwtAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
}

impl JwtAlgorithm {
    pub(crate) const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    /// From the word in a token, and in a policy file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }

    /// As in a token, and in a policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }
}

/// How often a token is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtPer {
    /// For each call.
    Call,
    /// When the one before is about to end.
    Ttl,
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimValue {
    /// A text.
    Text(ClaimText),
    /// A list of texts.
    Texts(Vec<ClaimText>),
    /// An integer.
    Integer(i64),
    /// True or false.
    Boolean(bool),
}

impl ClaimValue {
    pub(crate) fn texts(&self) -> &[ClaimText] {
        match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::Texts(texts) => texts,
            Self::Integer(_) | Self::Boolean(_) => &[],
        }
    }
}

impl JwtCredential {
    /// All texts that have places in them.
    pub fn texts(&self) -> impl Iterator<Item = &ClaimText> {
        let claims = self.claims.iter().flat_map(|(_, value)| value.texts());
        let own = match &self.signer {
            JwtSigner::Host => None,
            JwtSigner::Key(key) => Some(key.issuer.iter().chain([&key.subject])),
        };
        own.into_iter().flatten().chain(&self.audience).chain(claims)
    }
}
