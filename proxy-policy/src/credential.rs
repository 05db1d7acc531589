//! What authenticates a call: `[credential.NAME]`, a kind over secrets in stores. Never a secret itself.

mod aws;
mod claims;
mod exec;
mod github_app;
mod hmac;
mod jwt;
mod mtls;
mod oauth2;

use std::fmt;

pub use aws::{AwsCredential, AwsKeyId, AwsKeys, AwsRole};
pub use claims::{ClaimText, Variable};
pub use exec::ExecCredential;
pub use github_app::{GithubAppCredential, GithubLevel};
pub use hmac::{HmacCredential, HmacEncoding, HmacHash, HmacPart, HmacText};
pub use jwt::{ClaimValue, JwtAlgorithm, JwtCredential, JwtKey, JwtPer, JwtSigner};
pub use mtls::MtlsCredential;
pub use oauth2::{OauthClient, OauthClientKey, OauthCredential, OauthExchange, OauthGrant, OauthToken};

use crate::model::{ApiId, CredentialId};
use crate::place::Place;
use crate::rehearsal::Spoken;

/// What authenticates a call: a kind over secrets in stores.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Credential {
    /// Its position in the set.
    pub id: CredentialId,
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// How it authenticates, and with which secrets.
    pub kind: CredentialKind,
    /// The only APIs that it may be used for; empty: any that a grant names it for.
    pub apis: Vec<ApiId>,
    /// Where it may go without TLS; nowhere, unless the policy says so.
    pub insecure: Option<Insecure>,
    /// A call that does no harm, by which it is tried.
    pub probe: Option<Probe>,
}

/// A call that does no harm, by which a credential is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// The call; always `https`.
    pub request: Spoken,
    /// The API that it goes to.
    pub api: ApiId,
}

/// Where a credential may go without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// To loopback addresses of this host.
    Loopback,
}

impl Insecure {
    /// As in a policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
        }
    }
}

/// How a credential authenticates. Two that are equal are the same to whoever issues: what was obtained for one goes on
/// with the other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialKind {
    /// A secret as it is.
    Static(StaticCredential),
    /// A token that this host makes.
    Jwt(Box<JwtCredential>),
    /// A client certificate.
    Mtls(MtlsCredential),
    /// Tokens of an installation of a GitHub App.
    GithubApp(Box<GithubAppCredential>),
    /// Access tokens of an authorization server.
    Oauth2(Box<OauthCredential>),
    /// What a program prints.
    Exec(Box<ExecCredential>),
    /// A signature of AWS.
    Aws(Box<AwsCredential>),
    /// A signature with a shared key.
    Hmac(Box<HmacCredential>),
}

/// `kind = "static"`: a secret as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaticCredential {
    /// Where the secret is.
    pub secret: SecretRef,
}

impl CredentialKind {
    pub(crate) const NAMES: &'static [&'static str] =
        &["static", "jwt", "mtls", "github-app", "oauth2", "exec", "aws", "hmac"];

    /// As in a policy file.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::Jwt(_) => "jwt",
            Self::Mtls(_) => "mtls",
            Self::GithubApp(_) => "github-app",
            Self::Oauth2(_) => "oauth2",
            Self::Exec(_) => "exec",
            Self::Aws(_) => "aws",
            Self::Hmac(_) => "hmac",
        }
    }

    /// Whether the API has to say how it is attached, because the kind does not know that itself.
    #[must_use]
    pub fn wants_inject(&self) -> bool {
        match self {
            Self::Static(_) => true,
            Self::Jwt(_)
            | Self::Mtls(_)
            | Self::GithubApp(_)
            | Self::Oauth2(_)
            | Self::Exec(_)
            | Self::Aws(_)
            | Self::Hmac(_) => false,
        }
    }

    /// The secrets that it needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::Static(kind) => vec![&kind.secret],
            Self::Jwt(kind) => match &kind.signer {
                JwtSigner::Host => Vec::new(),
                JwtSigner::Key(key) => vec![&key.key],
            },
            Self::Mtls(kind) if kind.certificate == kind.key => vec![&kind.key],
            Self::Mtls(kind) => vec![&kind.certificate, &kind.key],
            Self::GithubApp(kind) => vec![&kind.private_key],
            Self::Oauth2(kind) => kind.secrets(),
            Self::Exec(_) => Vec::new(),
            Self::Aws(kind) => kind.secrets(),
            Self::Hmac(kind) => vec![&kind.secret],
        }
    }

    /// What it authenticates with, for people: `vault:stripe/restricted`.
    #[must_use]
    pub fn source(&self) -> String {
        if let Self::Exec(kind) = self {
            return format!("the program {}", kind.program);
        }
        let secrets: Vec<_> = self.secrets().iter().map(ToString::to_string).collect();
        match secrets.is_empty() {
            true => "the issuer of this host".to_owned(),
            false => secrets.join(", "),
        }
    }
}

/// A store of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Store {
    /// The daemon's own.
    Vault,
    /// A credential that systemd hands to the daemon's unit (systemd.exec(5), `LoadCredential=`).
    Systemd,
    /// A file, by its absolute path.
    File,
    /// A variable of the daemon's environment.
    Env,
    /// HashiCorp Vault or OpenBao, by a path of its HTTP API and a field of what is there.
    Hashicorp,
    /// What a program prints that the daemon's configuration names.
    Exec,
    /// None: a token that this host issues about the identity, for the audience that is the name.
    Issuer,
}

impl Store {
    /// As in a reference.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Systemd => "systemd",
            Self::File => "file",
            Self::Env => "env",
            Self::Hashicorp => "hashicorp",
            Self::Exec => "exec",
            Self::Issuer => "issuer",
        }
    }
}

/// Where a secret is: `vault:stripe/restricted`. Never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef {
    pub(crate) store: Store,
    pub(crate) name: String,
}

impl SecretRef {
    /// Reads a reference, as in `vault:stripe/restricted`.
    ///
    /// # Errors
    /// What is wrong and what to do; nothing of what was written, which might be a secret in the wrong place.
    pub fn parse(text: &str) -> Result<Self, String> {
        crate::draft::parse_reference(text)
            .map_err(|problem| format!("{}; {}", problem.message, problem.help))
    }

    /// A secret of the daemon's own store, by its name.
    #[must_use]
    pub fn vault(name: &str) -> Self {
        Self { store: Store::Vault, name: name.to_owned() }
    }

    /// A token of this host for an audience.
    #[must_use]
    pub fn issuer(audience: &str) -> Self {
        Self { store: Store::Issuer, name: audience.to_owned() }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Store {
        self.store
    }

    /// The name in the store.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.store.as_str(), self.name)
    }
}
