//! `[hashicorp]`: HashiCorp Vault or OpenBao, where references `hashicorp:PATH#FIELD` lead. No secret stands here, only where it is.

use std::fmt;

use proxy_policy::{SecretRef, Store};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::issuer::is_place;

/// `[hashicorp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashicorp {
    /// Where it is, as in `VAULT_ADDR`, without a slash at its end.
    pub address: String,
    /// The namespace that paths are in.
    pub namespace: Option<String>,
    /// How the daemon logs in.
    pub login: HashicorpLogin,
}

/// How the daemon logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashicorpLogin {
    /// `token`: with one that somebody else got.
    Token(SecretRef),
    /// `[hashicorp.approle]`
    Approle {
        /// Which role: no secret.
        role_id: String,
        /// Where its secret is.
        secret_id: SecretRef,
        /// Where the method is.
        mount: String,
    },
    /// `[hashicorp.jwt]`
    Jwt {
        /// Which role.
        role: String,
        /// What it shows.
        token: HashicorpJwt,
        /// Where the method is.
        mount: String,
    },
    /// `[hashicorp.tls]`
    Tls {
        /// Where the certificate is.
        certificate: SecretRef,
        /// Where its key is.
        key: SecretRef,
        /// Which role; without it, any that takes the certificate.
        role: Option<String>,
        /// Where the method is.
        mount: String,
    },
}

/// The token of a login by JWT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashicorpJwt {
    /// One of this host's issuer about the daemon, for this audience.
    Issued(String),
    /// A secret.
    Secret(SecretRef),
}

impl HashicorpLogin {
    /// The secrets that it needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::Token(token) | Self::Jwt { token: HashicorpJwt::Secret(token), .. } => vec![token],
            Self::Approle { secret_id, .. } => vec![secret_id],
            Self::Jwt { token: HashicorpJwt::Issued(_), .. } => Vec::new(),
            Self::Tls { certificate, key, .. } => vec![certificate, key],
        }
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    address: String,
    namespace: Option<String>,
    token: Option<Reference>,
    approle: Option<Approle>,
    jwt: Option<Jwt>,
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approle {
    role_id: String,
    secret_id: Reference,
    mount: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    role: String,
    audience: Option<String>,
    token: Option<Reference>,
    mount: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: Reference,
    key: Reference,
    role: Option<String>,
    mount: Option<String>,
}

/// A reference to a secret of this host. What is written in its place may be a secret: no error repeats it.
pub(super) struct Reference(pub(super) SecretRef);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl serde::de::Visitor<'_> for Read {
            type Value = Reference;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference to a secret, such as \"vault:NAME\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Reference, E> {
                let help = "a login is never typed in: name where it is, as \"vault:NAME\", \"file:/PATH\", \
                            \"systemd:NAME\" or \"env:NAME\"";
                match SecretRef::parse(text) {
                    Ok(it) if !matches!(it.store(), Store::Hashicorp | Store::Exec | Store::Issuer) => {
                        Ok(Reference(it))
                    }
                    Ok(_) => Err(E::custom(format!("the login must be a secret of this host; {help}"))),
                    Err(_) => {
                        Err(E::custom(format!("this is not a reference to a secret of this host; {help}")))
                    }
                }
            }
        }
        deserializer.deserialize_str(Read)
    }
}

impl<'de> Deserialize<'de> for Hashicorp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.checked().map_err(D::Error::custom)
    }
}

impl Written {
    fn checked(self) -> Result<Hashicorp, &'static str> {
        let address = self.address.strip_suffix('/').unwrap_or(&self.address).to_owned();
        if !is_place(&address) {
            return Err(
                "hashicorp.address must be an https URL (http only for 127.0.0.1, [::1] and localhost) without user, \
                 query and fragment; write address = \"https://vault.example.com:8200\"",
            );
        }
        if self.namespace.as_deref().is_some_and(|it| !is_path(it.trim_matches('/'))) {
            return Err("hashicorp.namespace is not the path of a namespace, such as \"team/bots\"");
        }
        let namespace = self.namespace.map(|it| it.trim_matches('/').to_owned());
        let login = match (self.token, self.approle, self.jwt, self.tls) {
            (Some(token), None, None, None) => HashicorpLogin::Token(token.0),
            (None, Some(it), None, None) => {
                let (role_id, mount) = (named(it.role_id)?, mount(it.mount, "approle")?);
                HashicorpLogin::Approle { role_id, secret_id: it.secret_id.0, mount }
            }
            (None, None, Some(it), None) => {
                let token = match (it.audience, it.token) {
                    (Some(audience), None) => HashicorpJwt::Issued(named(audience)?),
                    (None, Some(token)) => HashicorpJwt::Secret(token.0),
                    _ => {
                        return Err(
                            "hashicorp.jwt needs one of audience (this host's issuer says who the daemon is) and token",
                        );
                    }
                };
                HashicorpLogin::Jwt { role: named(it.role)?, token, mount: mount(it.mount, "jwt")? }
            }
            (None, None, None, Some(it)) => HashicorpLogin::Tls {
                certificate: it.certificate.0,
                key: it.key.0,
                role: it.role.map(named).transpose()?,
                mount: mount(it.mount, "cert")?,
            },
            _ => {
                return Err(
                    "hashicorp needs exactly one login: token, [hashicorp.approle], [hashicorp.jwt] or [hashicorp.tls]",
                );
            }
        };
        if matches!(login, HashicorpLogin::Tls { .. }) && !address.starts_with("https:") {
            return Err("hashicorp.tls needs an https address: over http nobody sees the certificate");
        }
        Ok(Hashicorp { address, namespace, login })
    }
}

impl Hashicorp {
    /// What cannot work together with the rest, and what to do.
    pub(super) fn problem(&self, has_issuer: bool) -> Option<&'static str> {
        let issued = matches!(self.login, HashicorpLogin::Jwt { token: HashicorpJwt::Issued(_), .. });
        (issued && !has_issuer).then_some(
            "hashicorp.jwt.audience wants a token of this host's issuer, and there is none; add [issuer], or write token \
             in its place",
        )
    }
}

fn named(text: String) -> Result<String, &'static str> {
    let fits = !text.is_empty() && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(text).ok_or("role, role_id and audience have 1 to 256 visible ASCII characters")
}

fn mount(written: Option<String>, usual: &str) -> Result<String, &'static str> {
    let written = written.as_deref().unwrap_or(usual).trim_matches('/');
    let mount = written.strip_prefix("auth/").unwrap_or(written).to_owned();
    is_path(&mount)
        .then_some(mount)
        .ok_or("mount is the path of the login method below auth/, such as \"approle\"")
}

pub(super) fn is_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    path.len() <= 256 && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const ADDRESS: &str = "[hashicorp]\naddress = \"https://vault.test:8200/\"\n";

    fn parsed(more: &str) -> Result<Hashicorp, String> {
        let config = Config::parse(Path::new("v.toml"), &format!("{ADDRESS}{more}"));
        config.map(|it| it.hashicorp.unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn exactly_one_login_is_there_and_it_is_a_reference() {
        let token = parsed("token = \"vault:hashicorp\"\nnamespace = \"/team/bots/\"").unwrap();
        assert_eq!(token.address, "https://vault.test:8200");
        assert_eq!(token.namespace.as_deref(), Some("team/bots"));
        assert_eq!(token.login, HashicorpLogin::Token(SecretRef::parse("vault:hashicorp").unwrap()));
        let role = parsed("[hashicorp.approle]\nrole_id = \"r\"\nsecret_id = \"systemd:s\"").unwrap().login;
        assert!(matches!(&role, HashicorpLogin::Approle { mount, .. } if mount == "approle"));
        assert_eq!(role.secrets().len(), 1);
        let jwt = "[hashicorp.jwt]\nrole = \"r\"\nmount = \"auth/jwt2\"\n";
        let by_file = parsed(&format!("{jwt}token = \"file:/run/token\"")).unwrap().login;
        assert!(matches!(&by_file, HashicorpLogin::Jwt { mount, .. } if mount == "jwt2"));
        let tls = parsed("[hashicorp.tls]\ncertificate = \"file:/c\"\nkey = \"file:/k\"").unwrap().login;
        assert!(matches!(&tls, HashicorpLogin::Tls { mount, role: None, .. } if mount == "cert"));
        let issued = format!("{jwt}audience = \"https://vault.test\"");
        assert!(parsed(&issued).unwrap_err().contains("add [issuer]"));
        let issuer = "\n[issuer]\nurl = \"https://h.test\"\nlisten = \"127.0.0.1:8765\"";
        assert!(parsed(&format!("{issued}{issuer}")).is_ok());
        for (more, says) in [
            ("", "exactly one login"),
            (
                "token = \"env:T\"\n[hashicorp.approle]\nrole_id = \"r\"\nsecret_id = \"vault:s\"",
                "exactly one",
            ),
            (jwt, "needs one of audience"),
            ("token = \"env:T\"\nnonsense = 1", "unknown field"),
            ("token = \"env:T\"\nnamespace = \"a b\"", "namespace"),
            ("[hashicorp.approle]\nrole_id = \"\"\nsecret_id = \"vault:s\"", "visible"),
            ("[hashicorp.approle]\nrole_id = \"r\"\nsecret_id = \"vault:s\"\nmount = \"../sys\"", "mount"),
        ] {
            let text = parsed(more).unwrap_err();
            assert!(text.contains(says), "{more}: {text}");
        }
    }

    #[test]
    fn a_login_that_was_typed_in_is_never_repeated() {
        for typed in ["hvs.CANARY", "hashicorp:a/CANARY#b", "exec:CANARY", "vault:CANARY key"] {
            let text = parsed(&format!("token = \"{typed}\"")).unwrap_err();
            assert!(text.contains("never typed in") && !text.contains("CANARY"), "{text}");
        }
    }

    #[test]
    fn only_verified_tls_or_loopback_is_an_address() {
        let with = |address: &str| {
            let text = format!("[hashicorp]\naddress = \"{address}\"\ntoken = \"vault:t\"\n");
            Config::parse(Path::new("v.toml"), &text).map(drop).map_err(|error| error.to_string())
        };
        for good in ["https://vault.test", "http://127.0.0.1:8200", "http://[::1]:8200/", "https://v/prefix"]
        {
            assert_eq!(with(good), Ok(()));
        }
        for bad in
            ["http://vault.test", "vault.test", "https://", "https://u@v", "https://v?x", "https://v#x"]
        {
            assert!(with(bad).unwrap_err().contains("hashicorp.address"), "{bad}");
        }
        let tls = "[hashicorp]\naddress = \"http://127.0.0.1:1\"\n[hashicorp.tls]\ncertificate = \"file:/c\"\nkey = \"file:/k\"";
        let text = Config::parse(Path::new("v.toml"), tls).unwrap_err().to_string();
        assert!(text.contains("needs an https"), "{text}");
    }
}
