//! `kind = "oauth2"`: access tokens of an authorization server (RFC 6749).

use super::claims::{ClaimText, Variable};
use super::{JwtAlgorithm, JwtCredential, JwtSigner, SecretRef, Store};

/// Access tokens of an authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OauthCredential {
    /// Where tokens are issued.
    pub token_url: String,
    /// What a token is given for.
    pub grant: OauthGrant,
    /// Who asks, as the server knows it.
    pub client_id: Option<String>,
    /// How the client proves itself.
    pub client: OauthClient,
    /// What the token may do.
    pub scopes: Vec<String>,
    /// For whom the token is, by name.
    pub audience: Vec<String>,
    /// For whom the token is, by URL (RFC 8707).
    pub resource: Vec<String>,
}

/// What a token is given for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OauthGrant {
    /// For the client itself (RFC 6749 §4.4).
    ClientCredentials,
    /// For a token that somebody was given for it (RFC 6749 §6); in the daemon's own store, which gets each new one.
    RefreshToken(SecretRef),
    /// For a signed token (RFC 7523 §2.1).
    JwtBearer(Box<JwtCredential>),
    /// For a token about somebody (RFC 8693).
    TokenExchange(Box<OauthExchange>),
}

/// What is exchanged for a token (RFC 8693 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OauthExchange {
    /// On whose behalf.
    pub subject: OauthToken,
    /// Who acts for it.
    pub actor: Option<OauthToken>,
    /// What is wanted.
    pub requested_type: Option<String>,
}

/// A token that is shown to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OauthToken {
    /// Where it is, or that this host issues it.
    pub token: SecretRef,
    /// What it is (RFC 8693 §3).
    pub token_type: String,
}

/// How a client proves itself (RFC 6749 §2.3, RFC 7523 §2.2, RFC 8705).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OauthClient {
    /// Not at all, or by what it is given a token for.
    Public,
    /// By a secret in the header.
    Basic(SecretRef),
    /// By a secret in the body.
    Post(SecretRef),
    /// By a token that it signs.
    PrivateKeyJwt(OauthClientKey),
    /// By a certificate on the connection.
    Mtls {
        /// Where the certificate is, with those that lead to its root (PEM).
        certificate: SecretRef,
        /// Where its private key is (PEM); the same place when both stand in one text.
        key: SecretRef,
    },
}

/// The key of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OauthClientKey {
    /// Where the private key is.
    pub key: SecretRef,
    /// What it signs with.
    pub algorithm: JwtAlgorithm,
    /// The name under which the server knows the key (`kid`).
    pub key_id: Option<String>,
    /// As whom the server takes such a token (`aud`); `None`: by the URL of its tokens.
    pub audience: Option<String>,
}

impl OauthCredential {
    /// Whether a token is on behalf of one identity, and for it alone.
    #[must_use]
    pub fn is_for_identity(&self) -> bool {
        let of_host = |token: &OauthToken| token.token.store() == Store::Issuer;
        match &self.grant {
            OauthGrant::ClientCredentials | OauthGrant::RefreshToken(_) => false,
            OauthGrant::JwtBearer(assertion) => {
                assertion.signer == JwtSigner::Host
                    || assertion.texts().flat_map(ClaimText::variables).any(|it| it == Variable::Identity)
            }
            OauthGrant::TokenExchange(exchange) => {
                of_host(&exchange.subject) || exchange.actor.as_ref().is_some_and(of_host)
            }
        }
    }

    /// The secrets that it needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        let mut all: Vec<&SecretRef> = match &self.grant {
            OauthGrant::ClientCredentials => Vec::new(),
            OauthGrant::RefreshToken(token) => vec![token],
            OauthGrant::JwtBearer(assertion) => match &assertion.signer {
                JwtSigner::Host => Vec::new(),
                JwtSigner::Key(key) => vec![&key.key],
            },
            OauthGrant::TokenExchange(exchange) => {
                let tokens = [Some(&exchange.subject), exchange.actor.as_ref()];
                let secrets = tokens.into_iter().flatten().map(|it| &it.token);
                secrets.filter(|it| it.store() != Store::Issuer).collect()
            }
        };
        match &self.client {
            OauthClient::Public => {}
            OauthClient::Basic(secret) | OauthClient::Post(secret) => all.push(secret),
            OauthClient::PrivateKeyJwt(key) => all.push(&key.key),
            OauthClient::Mtls { certificate, key } if certificate == key => all.push(key),
            OauthClient::Mtls { certificate, key } => all.extend([certificate, key]),
        }
        all
    }
}
