//! `[[journal.witness]]`: who gets signed checkpoints.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::base::duration;

/// One witness: exactly one of `command`, `url` and `timestamp` says of what kind.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// What it is called, in logs and `status`, and for files of its answers.
    pub name: String,
    /// A program and its arguments, which gets the checkpoint on its standard input.
    #[serde(default)]
    pub command: Vec<String>,
    /// Where the checkpoint is sent by `POST`, as `text/plain`.
    #[serde(default, deserialize_with = "address")]
    pub url: Option<String>,
    /// A time stamp authority (RFC 3161), which signs the checkpoint's hash with its time.
    #[serde(default, deserialize_with = "address")]
    pub timestamp: Option<String>,
    /// How often it gets the newest one, at most.
    #[serde(default = "every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
}

fn every() -> Duration {
    Duration::from_secs(60)
}

impl Witness {
    /// What cannot work, and what to do.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { name, command, url, timestamp, .. } = self;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || name.len() > 64 || !name.chars().all(plain) {
            return Some(format!("{name:?} cannot be the name of a witness: use letters, digits, - and _"));
        }
        let kinds = [!command.is_empty(), url.is_some(), timestamp.is_some()];
        if kinds.iter().filter(|is| **is).count() != 1 {
            return Some(format!(
                "the witness {name:?} needs exactly one of command = [\"/path\", \"argument\"], url = \"https://…\" and \
                 timestamp = \"https://…\""
            ));
        }
        if command.first().is_some_and(|program| !Path::new(program).is_absolute()) {
            return Some(format!("the command of the witness {name:?} must begin with /"));
        }
        None
    }
}

/// Where a witness is asked: what is not of this host, by TLS alone.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |what: &str| Err(D::Error::custom(format!("{text:?} {what}; write \"https://host/path\"")));
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is no address") };
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() => wrong("is no address"),
        _ if text.contains(['@', '#']) => wrong("has a user or a fragment, which nothing is done with"),
        Some("https") => Ok(Some(text)),
        Some("http") if is_here => Ok(Some(text)),
        Some("http") => wrong("is of another host, to which nothing goes without TLS"),
        _ => wrong("is no address"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn parsed(rest: &str) -> Result<Config, String> {
        let text = format!("[[journal.witness]]\nname = \"w\"\n{rest}\n");
        Config::parse(Path::new("v.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_that_cannot_be_asked_is_an_error_with_its_place() {
        for (address, why) in [
            ("w.example", "is no address"),
            ("ftp://w.example/", "is no address"),
            ("http://w.example/", "is of another host, to which nothing goes without TLS"),
            ("http://127.0.0.1.example/", "is of another host"),
            ("https://user@w.example/", "has a user"),
        ] {
            for kind in ["url", "timestamp"] {
                let told = parsed(&format!("every = \"1m\"\n{kind} = \"{address}\"")).unwrap_err();
                let place = format!("v.toml:4:{}: ", kind.len() + 4);
                assert!(told.starts_with(&place) && told.contains(why), "{told}");
            }
        }
        for address in ["http://127.0.0.1:1/", "http://localhost/x", "http://[::1]/", "https://w.example/x"] {
            assert!(parsed(&format!("url = \"{address}\"")).is_ok(), "{address}");
        }
    }
}
