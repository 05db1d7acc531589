//! `[issuer]`: this host as an issuer of tokens about its workloads.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use proxy_policy::{ClaimText, JwtAlgorithm, Variable};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::base::duration;

/// `[issuer]`
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Who it is (`iss`): where others find its discovery and keys.
    pub url: String,
    /// Whom a token is about: a text with `{identity}`.
    #[serde(default = "identity", deserialize_with = "subject")]
    pub subject: ClaimText,
    /// How long a token lasts.
    #[serde(default = "five_minutes", deserialize_with = "duration::deserialize")]
    pub ttl: Duration,
    /// How long a key signs.
    #[serde(default = "a_week", deserialize_with = "duration::deserialize_long")]
    pub rotate_every: Duration,
    /// How long a key is published before it signs: longer than others keep the keys that they have fetched.
    #[serde(default = "an_hour", deserialize_with = "duration::deserialize_long")]
    pub publish_ahead: Duration,
    /// What new keys sign with.
    #[serde(default = "es256", deserialize_with = "algorithm")]
    pub algorithm: JwtAlgorithm,
    /// The folder where discovery and keys are written.
    pub publish: Option<PathBuf>,
    /// A loopback address where they are served over HTTP.
    pub listen: Option<SocketAddr>,
}

fn identity() -> ClaimText {
    ClaimText::of(Variable::Identity)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn a_week() -> Duration {
    Duration::from_secs(7 * 86_400)
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

fn es256() -> JwtAlgorithm {
    JwtAlgorithm::Es256
}

fn subject<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClaimText, D::Error> {
    let text = String::deserialize(deserializer)?;
    let subject = ClaimText::parse(&text).map_err(|what| D::Error::custom(format!("subject has {what}")))?;
    let places: Vec<Variable> = subject.variables().collect();
    match places.as_slice() {
        [Variable::Identity] => Ok(subject),
        _ => Err(D::Error::custom(
            "subject must have {identity} once, and no other place, so that no two identities are one; \
             write subject = \"spiffe://example.org/{identity}\"",
        )),
    }
}

fn algorithm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JwtAlgorithm, D::Error> {
    let text = String::deserialize(deserializer)?;
    JwtAlgorithm::parse(&text).ok_or_else(|| D::Error::custom("known algorithms: ES256, EdDSA, RS256"))
}

impl Issuer {
    /// What cannot work, and what to do.
    pub(super) fn problem(&self, ports: &[u16]) -> Option<&'static str> {
        if !is_place(&self.url) {
            return Some(
                "issuer.url must be an https URL (http only for 127.0.0.1, [::1] and localhost) without user, query, \
                 fragment and a slash at its end",
            );
        }
        if self.ttl < Duration::from_secs(1) || self.ttl > Duration::from_secs(3600) {
            return Some("issuer.ttl must be between 1s and 1h; nobody can take a token back");
        }
        if self.publish_ahead < Duration::from_secs(1) || self.rotate_every < self.publish_ahead * 2 {
            return Some(
                "issuer.publish_ahead must be at least 1s, and issuer.rotate_every at least twice as long: a key is \
                 published before it signs",
            );
        }
        if self.publish.is_none() && self.listen.is_none() {
            return Some(
                "issuer has neither publish nor listen, so nobody could find its keys; write publish = \"/var/www/issuer\" or \
                 listen = \"127.0.0.1:8765\"",
            );
        }
        if self.publish.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            return Some("issuer.publish must be an absolute path");
        }
        match self.listen {
            Some(listen) if !listen.ip().is_loopback() || listen.port() == 0 => Some(
                "issuer.listen must be a loopback address with a port; let a web server publish the keys to others",
            ),
            Some(listen) if ports.contains(&listen.port()) => {
                Some("issuer.listen has a port that is mediated itself (kernel.ports); choose another")
            }
            _ => None,
        }
    }
}

/// Whether it is a URL that is called over TLS, or on this host, without a slash at its end.
pub(super) fn is_place(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
    let known = scheme == "https" || (scheme == "http" && loopback);
    known && !host.is_empty() && rest.chars().all(plain) && !url.ends_with('/')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const LEAST: &str = "[issuer]\nurl = \"https://host.example\"\nlisten = \"127.0.0.1:8765\"\n";

    fn error(more: &str) -> String {
        Config::parse(Path::new("v.toml"), &format!("{LEAST}{more}")).unwrap_err().to_string()
    }

    #[test]
    fn an_issuer_needs_a_url_and_a_place_for_its_keys() {
        let config = Config::parse(Path::new("v.toml"), LEAST).unwrap();
        let issuer = config.issuer.unwrap();
        assert_eq!((issuer.ttl, issuer.algorithm), (Duration::from_secs(300), JwtAlgorithm::Es256));
        assert_eq!(issuer.subject.fill(|_| Some("bot")).as_deref(), Some("bot"));
        assert!(Config::parse(Path::new("v.toml"), "").unwrap().issuer.is_none());
        let text =
            Config::parse(Path::new("v.toml"), "[issuer]\nurl = \"https://a\"").unwrap_err().to_string();
        assert!(text.contains("neither publish nor listen"), "{text}");
        let text = Config::parse(Path::new("v.toml"), "[issuer]\nlisten = \"127.0.0.1:1\"").unwrap_err();
        assert!(text.to_string().contains("url"), "{text}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (more, says) in [
            ("subject = \"bot\"", "{identity} once"),
            ("subject = \"{identity}/{api}\"", "{identity} once"),
            ("subject = \"{nobody}\"", "not known"),
            ("ttl = \"2h\"", "1s and 1h"),
            ("ttl = \"500ms\"", "1s and 1h"),
            ("rotate_every = \"1h\"", "twice as long"),
            ("publish_ahead = \"500ms\"", "at least 1s"),
            ("algorithm = \"HS256\"", "known algorithms"),
            ("publish = \"www\"", "absolute"),
            ("nonsense = 1", "unknown field"),
        ] {
            let text = error(more);
            assert!(text.contains(says), "{more}: {text}");
        }
        for (listen, says) in
            [("0.0.0.0:8765", "loopback"), ("127.0.0.1:0", "loopback"), ("127.0.0.1:443", "mediated")]
        {
            let text = LEAST.replace("127.0.0.1:8765", listen);
            let text = Config::parse(Path::new("v.toml"), &text).unwrap_err().to_string();
            assert!(text.contains(says), "{listen}: {text}");
        }
        for url in ["http://host.example", "https://a/", "https://u@a", "https://a?b", "a", "https://"] {
            let text = LEAST.replace("https://host.example", url);
            let text = Config::parse(Path::new("v.toml"), &text).unwrap_err().to_string();
            assert!(text.contains("issuer.url"), "{url}: {text}");
        }
    }
}
