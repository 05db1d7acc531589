//! `[rotation.NAME]`: how a secret of the daemon's own store is made anew, and what becomes of the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy_policy::{SecretRef, Store};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::exec::Exec;
use super::hashicorp::{Hashicorp, HashicorpLogin, is_path};
use super::issuer::is_place;
use crate::base::duration;

/// Somebody waits for the command that makes one.
const LONGEST: Duration = Duration::from_secs(25);
/// Until programs have to be done.
const USUAL: Duration = Duration::from_secs(10);
/// Where AWS gives out access keys, for all of its regions.
const IAM: &str = "https://iam.amazonaws.com/";

/// All of them, by the name of the secret.
pub type Rotations = BTreeMap<String, Rotation>;

/// `[rotation.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Who makes a new one, and ends it.
    pub maker: Maker,
    /// It is made anew when it is as old as this; without it, when somebody says so.
    pub every: Option<Duration>,
    /// For how long the one before is still taken.
    pub overlap: Duration,
    /// How long each program may take, or an API until it takes a new one.
    pub timeout: Duration,
}

/// Who makes a secret anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Programs.
    Programs {
        /// The absolute path of the program that makes a new one and prints it, and its arguments. It gets the current one on its
        /// standard input.
        make: Vec<String>,
        /// The program that ends the one that it gets on its standard input, and its arguments; without it, nothing ends it.
        revoke: Option<Vec<String>>,
        /// As whom the programs run; `None`: as the daemon.
        user: Option<String>,
        /// Variables of the daemon that they get.
        env: Vec<String>,
    },
    /// `provider = "aws"`: the secret is an access key, both parts in one text, which makes its own successor.
    Aws {
        /// Where access keys are given out (IAM).
        url: String,
    },
    /// `provider = "hashicorp"`: the secret is what `[hashicorp.approle]` logs in with.
    Hashicorp {
        /// The name of the role.
        role_name: String,
    },
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    make: Option<Vec<String>>,
    revoke: Option<Vec<String>>,
    user: Option<String>,
    env: Option<Vec<String>>,
    provider: Option<String>,
    url: Option<String>,
    role_name: Option<String>,
    #[serde(default, deserialize_with = "some_long")]
    every: Option<Duration>,
    #[serde(default = "one_hour", deserialize_with = "duration::deserialize_long")]
    overlap: Duration,
    #[serde(default, deserialize_with = "some")]
    timeout: Option<Duration>,
}

fn some_long<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize_long(deserializer).map(Some)
}

fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(deserializer).map(Some)
}

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

impl<'de> Deserialize<'de> for Rotation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.checked().map_err(D::Error::custom)
    }
}

impl Written {
    fn checked(self) -> Result<Rotation, &'static str> {
        let of_programs = self.revoke.is_some() || self.user.is_some() || self.env.is_some();
        let usual = if self.make.is_some() { USUAL } else { LONGEST };
        let maker = match (self.make, self.provider.as_deref(), self.url, self.role_name) {
            (Some(make), None, None, None) => Maker::Programs {
                make,
                revoke: self.revoke,
                user: self.user,
                env: self.env.unwrap_or_default(),
            },
            (None, Some(_), _, _) if of_programs => {
                return Err("revoke, user and env are of programs; a provider makes and ends secrets itself");
            }
            (None, Some("aws"), url, None) => {
                let url = url.unwrap_or_else(|| IAM.to_owned());
                if !is_place(url.trim_end_matches('/')) {
                    return Err(
                        "url must be an https URL (http only for 127.0.0.1, [::1] and localhost) without user, \
                                query and fragment",
                    );
                }
                Maker::Aws { url }
            }
            (None, Some("hashicorp"), None, Some(role_name)) if is_path(&role_name) => {
                Maker::Hashicorp { role_name }
            }
            (None, Some("hashicorp"), ..) => {
                return Err(
                    "provider = \"hashicorp\" needs the name of the AppRole: role_name = \"vouchsafe\"",
                );
            }
            (None, Some("aws"), ..) => return Err("role_name is of provider = \"hashicorp\""),
            (None, Some(_), ..) => return Err("provider is \"aws\" or \"hashicorp\""),
            _ => return Err("a rotation needs exactly one of make (a program) and provider"),
        };
        let timeout = self.timeout.unwrap_or(usual);
        Ok(Rotation { maker, every: self.every, overlap: self.overlap, timeout })
    }
}

/// What cannot work, and what to do. Nothing of an argument, which might be a secret in the wrong place.
pub(super) fn problem(rotations: &Rotations, hashicorp: Option<&Hashicorp>) -> Option<String> {
    rotations.iter().find_map(|(name, rotation)| {
        if !is_secret_name(name) {
            return Some(
                "a name in [rotation.NAME] is that of a secret of the store, such as [rotation.\"stripe/restricted\"]".to_owned(),
            );
        }
        if matches!(rotation.maker, Maker::Hashicorp { .. }) && !is_secret_id(name, hashicorp) {
            return Some(format!(
                "rotation.\"{name}\".provider is \"hashicorp\", which makes secret ids; name the one that is the secret_id of \
                 [hashicorp.approle], vault:{name}"
            ));
        }
        rotation.problem().map(|what| format!("rotation.\"{name}\".{what}"))
    })
}

/// Whether the daemon logs in with this secret of its store.
fn is_secret_id(name: &str, hashicorp: Option<&Hashicorp>) -> bool {
    let is_it = |it: &SecretRef| it.store() == Store::Vault && it.name() == name;
    matches!(hashicorp.map(|it| &it.login), Some(HashicorpLogin::Approle { secret_id, .. }) if is_it(secret_id))
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
    fn problem(&self) -> Option<String> {
        if !(Duration::from_secs(1)..=LONGEST).contains(&self.timeout) {
            return Some("timeout must be between 1s and 25s".to_owned());
        }
        let Maker::Programs { make, revoke, user, env } = &self.maker else { return None };
        let commands = [("make", Some(make)), ("revoke", revoke.as_ref())];
        commands.into_iter().find_map(|(key, command)| {
            // With the bounds of all programs of the configuration.
            let (user, env) = (user.clone(), env.clone());
            let exec =
                Exec { command: command?.clone(), user, timeout: self.timeout, env, every: one_hour() };
            let what = exec.problem()?;
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
        assert_eq!((rotation.overlap, rotation.timeout), (one_hour(), USUAL));
        let Maker::Programs { make, revoke: None, .. } = &rotation.maker else { panic!("{rotation:?}") };
        assert_eq!(make.len(), 2);
    }

    #[test]
    fn a_provider_makes_what_it_gives_out_itself() {
        let rotations = parsed("[rotation.aws]\nprovider = \"aws\"\noverlap = \"2h\"").unwrap();
        assert_eq!(rotations["aws"].maker, Maker::Aws { url: IAM.to_owned() });
        assert_eq!(rotations["aws"].timeout, LONGEST);
        let id = "[rotation.id]\nprovider = \"hashicorp\"\nrole_name = \"vouchsafe\"\n";
        let login = |secret: &str| {
            format!(
                "[hashicorp]\naddress = \"https://v.test\"\n[hashicorp.approle]\nrole_id = \"r\"\nsecret_id = \"{secret}\"\n"
            )
        };
        let rotations = parsed(&format!("{id}{}", login("vault:id"))).unwrap();
        assert_eq!(rotations["id"].maker, Maker::Hashicorp { role_name: "vouchsafe".to_owned() });
        for other in ["vault:other", "file:/id"] {
            let error = parsed(&format!("{id}{}", login(other))).unwrap_err();
            assert!(error.contains("secret_id of [hashicorp.approle]"), "{error}");
        }
        assert!(parsed(id).unwrap_err().contains("secret_id of"));
    }

    #[test]
    fn what_cannot_work_is_told_without_what_was_written() {
        let make = "make = [\"/opt/key\"]\n";
        let aws = "provider = \"aws\"\n";
        for (table, words) in [
            ("[rotation.\"a b\"]\nmake = [\"/opt/key\"]".to_owned(), "name"),
            ("[rotation.\"a.previous\"]\nmake = [\"/opt/key\"]".to_owned(), "name"),
            ("[rotation.a]\nmake = [\"CANARY\"]".to_owned(), "make must begin"),
            (format!("[rotation.a]\n{make}revoke = []"), "revoke must begin"),
            (format!("[rotation.a]\n{make}timeout = \"1m\""), "25s"),
            (format!("[rotation.a]\n{make}env = [\"A=CANARY\"]"), "env"),
            (format!("[rotation.a]\n{make}every = \"30\""), "not a duration"),
            ("[rotation.a]\nevery = \"1h\"".to_owned(), "exactly one of make"),
            (format!("[rotation.a]\n{make}{aws}"), "exactly one of make"),
            (format!("[rotation.a]\n{aws}user = \"x\""), "of programs"),
            (format!("[rotation.a]\n{aws}role_name = \"x\""), "role_name is of"),
            (format!("[rotation.a]\n{aws}url = \"http://CANARY.test/\""), "https URL"),
            ("[rotation.a]\nprovider = \"CANARY\"".to_owned(), "\"aws\" or \"hashicorp\""),
            ("[rotation.a]\nprovider = \"hashicorp\"".to_owned(), "role_name ="),
            (format!("[rotation.a]\n{make}role_name = \"x\""), "exactly one of make"),
        ] {
            let error = parsed(&table).unwrap_err();
            // A part of the file is shown as it stands, by whoever may read it.
            let told = error.lines().last().unwrap();
            assert!(told.contains(words) && !told.contains("CANARY"), "{error}");
        }
    }
}
