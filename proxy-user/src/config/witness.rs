//! `[[journal.witness]]`: who gets signed checkpoints.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

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
    #[serde(default)]
    pub url: Option<String>,
    /// A time stamp authority (RFC 3161), which signs the checkpoint's hash with its time.
    #[serde(default)]
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
        let address = url.as_ref().or(timestamp.as_ref())?;
        let uri = address.parse::<http::Uri>().ok();
        let fits =
            uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        (!fits).then(|| {
            format!("{address:?} of the witness {name:?} is no address; write \"https://host/path\"")
        })
    }
}
