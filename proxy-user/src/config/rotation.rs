//! `[rotation.NAME]`: how a secret of the daemon's own store is made anew, and what becomes of the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::exec::Exec;
use crate::base::duration;

/// Somebody waits for the command that makes one.
const LONGEST: Duration = Duration::from_secs(25);

/// All of them, by the name of the secret.
pub type Rotations = BTreeMap<String, Rotation>;

/// `[rotation.NAME]`
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The absolute path of the program that makes a new one and prints it, and its arguments. It gets the current one on its
    /// standard input.
    pub make: Vec<String>,
    /// The program that ends the one that it gets on its standard input, and its arguments; without it, nothing ends it.
    pub revoke: Option<Vec<String>>,
    /// It is made anew when it is as old as this; without it, when somebody says so.
    #[serde(default, deserialize_with = "some_long")]
    pub every: Option<Duration>,
    /// For how long the one before is still taken.
    #[serde(default = "one_hour", deserialize_with = "duration::deserialize_long")]
    pub overlap: Duration,
    /// As whom the programs run; `None`: as the daemon.
    pub user: Option<String>,
    /// How long each may take.
    #[serde(default = "ten_seconds", deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Variables of the daemon that they get.
    #[serde(default)]
    pub env: Vec<String>,
}

fn some_long<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize_long(deserializer).map(Some)
}

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// What cannot work, and what to do. Nothing of an argument, which might be a secret in the wrong place.
pub(super) fn problem(rotations: &Rotations) -> Option<String> {
    rotations.iter().find_map(|(name, rotation)| {
        if !is_secret_name(name) {
            return Some(
                "a name in [rotation.NAME] is that of a secret of the store, such as [rotation.\"stripe/restricted\"]".to_owned(),
            );
        }
        rotation.problem().map(|what| format!("rotation.\"{name}\".{what}"))
    })
}

/// The name of a secret of the store that has room for what stands beside it.
fn is_secret_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let parts = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let beside = name.ends_with(".next") || name.ends_with(".previous");
    name.len() <= 119 && starts_well && name.bytes().all(plain) && parts && !beside
}

impl Rotation {
    /// What is run, with the bounds of all programs of the configuration.
    fn as_exec(&self, command: &[String]) -> Exec {
        let Self { user, timeout, env, .. } = self.clone();
        Exec { command: command.to_vec(), user, timeout, env, every: one_hour() }
    }

    fn problem(&self) -> Option<String> {
        if self.timeout > LONGEST {
            return Some("timeout must be at most 25s".to_owned());
        }
        let commands = [("make", Some(&self.make)), ("revoke", self.revoke.as_ref())];
        commands.into_iter().find_map(|(key, command)| {
            let what = self.as_exec(command?).problem()?;
            Some(match what.strip_prefix("command") {
                Some(rest) => format!("{key}{rest}"),
                None => what.to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parsed(text: &str) -> Result<Rotations, String> {
        Config::parse(Path::new("v.toml"), text).map(|it| it.rotation).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rotation_says_how_and_how_often() {
        let text = "[rotation.\"stripe/restricted\"]\nmake = [\"/opt/key\", \"new\"]\nevery = \"30d\"";
        let rotations = parsed(text).unwrap();
        let rotation = &rotations["stripe/restricted"];
        assert_eq!(rotation.every, Some(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!((rotation.overlap, rotation.timeout), (one_hour(), ten_seconds()));
        assert_eq!((&rotation.revoke, rotation.make.len()), (&None, 2));
    }

    #[test]
    fn what_cannot_work_is_told_without_what_was_written() {
        let make = "make = [\"/opt/key\"]\n";
        for (table, words) in [
            ("[rotation.\"a b\"]\nmake = [\"/opt/key\"]".to_owned(), "name"),
            ("[rotation.\"a.previous\"]\nmake = [\"/opt/key\"]".to_owned(), "name"),
            ("[rotation.a]\nmake = [\"CANARY\"]".to_owned(), "make must begin"),
            (format!("[rotation.a]\n{make}revoke = []"), "revoke must begin"),
            (format!("[rotation.a]\n{make}timeout = \"1m\""), "25s"),
            (format!("[rotation.a]\n{make}env = [\"A=CANARY\"]"), "env"),
            (format!("[rotation.a]\n{make}every = \"30\""), "not a duration"),
        ] {
            let error = parsed(&table).unwrap_err();
            assert!(error.contains(words) && !error.contains("CANARY"), "{error}");
        }
    }
}
