//! `[journal]`: how the journal is kept, and where its records go besides.

use std::path::PathBuf;
use std::time::Duration;

use age::x25519::Recipient;
use http::HeaderName;
use serde::Deserialize;
use serde::de::Error as _;

use super::redaction::QueryNames;
use super::sinks::Sinks;
use super::witness::Witness;
use crate::base::{duration, size};

/// `[journal]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// When a call may go on: when its record is in the kernel's page cache, or on the disk.
    pub durability: Durability,
    /// After so many records there is a signed checkpoint,
    pub checkpoint_records: u64,
    /// and after this time at the latest, if there was any.
    #[serde(deserialize_with = "duration::deserialize")]
    pub checkpoint_within: Duration,
    /// How long one key signs.
    #[serde(deserialize_with = "duration::deserialize_long")]
    pub key_lifetime: Duration,
    /// A segment ends when it has so many bytes,
    #[serde(deserialize_with = "size::deserialize")]
    pub segment_size: u64,
    /// or this age.
    #[serde(deserialize_with = "duration::deserialize_long")]
    pub segment_age: Duration,
    /// Whether closed segments are compressed.
    pub compress: bool,
    /// How long closed segments are kept; `None`: for ever.
    #[serde(deserialize_with = "some_duration")]
    pub keep: Option<Duration>,
    /// How much room closed segments may take; `None`: as much as there is.
    #[serde(deserialize_with = "size::deserialize_some")]
    pub keep_size: Option<u64>,
    /// Bytes of the disk that are kept for the ends of calls when there is no room for more.
    #[serde(deserialize_with = "size::deserialize")]
    pub reserve: u64,
    /// What happens when the disk is full.
    pub on_full: OnFull,
    /// Where the journal goes on then, with `on_full = "spill"`.
    pub spill: Option<PathBuf>,
    /// Who gets signed checkpoints, to keep them where this host cannot change them.
    pub witness: Vec<Witness>,
    /// journald's socket; empty: off.
    pub journald: PathBuf,
    /// The parameters of queries whose values are told apart by fingerprints.
    pub fingerprint_query: QueryNames,
    /// The headers whose values are.
    #[serde(deserialize_with = "super::redaction::header_names")]
    pub fingerprint_headers: Vec<HeaderName>,
    /// Whom bodies are kept for, where a grant says so: public keys of age, one of whose owners can read them.
    #[serde(deserialize_with = "auditors")]
    pub auditors: Vec<Recipient>,
    /// Where records go, by name.
    pub sinks: Sinks,
}

/// When a call may go on.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Its record survives the daemon.
    #[default]
    Fast,
    /// Its record survives a loss of power.
    Sync,
}

/// What happens when the disk is full.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// No call without a record.
    #[default]
    Refuse,
    /// The journal goes on elsewhere.
    Spill,
}

/// Auditors, at most: each makes the head of every file longer.
const MOST_AUDITORS: usize = 16;

fn auditors<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Recipient>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)
        .map_err(|_| D::Error::custom("this is no list of public keys; write auditors = [\"age1…\"]"))?;
    if texts.len() > MOST_AUDITORS {
        return Err(D::Error::custom(format!("more than {MOST_AUDITORS} auditors")));
    }
    let parse = |text: &String| {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            // Not repeated: it is a secret, and this is logged.
            let why = "this is a secret key, which this host must not have: write its public key, age1…, and make another pair, \
                       because this one was written here";
            return Err(D::Error::custom(why));
        }
        text.parse::<Recipient>().map_err(|why| {
            D::Error::custom(format!(
                "{text:?} is no public key of age ({why}); write what `age-keygen` prints, age1…"
            ))
        })
    };
    texts.iter().map(parse).collect()
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize_long(deserializer).map(Some)
}

impl Default for Journal {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            durability: Durability::Fast,
            checkpoint_records: 1000,
            checkpoint_within: Duration::from_secs(10),
            key_lifetime: day * 30,
            segment_size: 64 << 20,
            segment_age: day,
            compress: true,
            keep: None,
            keep_size: None,
            reserve: 16 << 20,
            on_full: OnFull::Refuse,
            spill: None,
            witness: Vec::new(),
            fingerprint_query: QueryNames::None,
            fingerprint_headers: Vec::new(),
            auditors: Vec::new(),
            journald: PathBuf::from("/run/systemd/journal/socket"),
            sinks: Sinks::new(),
        }
    }
}

impl Journal {
    /// What cannot work, and what to do.
    pub(super) fn problem(&self) -> Option<String> {
        if self.checkpoint_records == 0 {
            return Some("journal.checkpoint_records must be at least 1".to_owned());
        }
        if !(1 << 20..=4 << 30).contains(&self.segment_size) {
            return Some("journal.segment_size must be between \"1 MiB\" and \"4 GiB\"".to_owned());
        }
        match (self.on_full, &self.spill) {
            (OnFull::Spill, None) => {
                return Some(
                    "journal.on_full = \"spill\" needs a directory on another file system; write spill = \"/path\""
                        .to_owned(),
                );
            }
            (OnFull::Refuse, Some(_)) => {
                return Some(
                    "journal.spill is for journal.on_full = \"spill\"; write that, or take spill away"
                        .to_owned(),
                );
            }
            (OnFull::Spill, Some(path)) if !path.is_absolute() => {
                return Some("journal.spill must begin with /".to_owned());
            }
            _ => {}
        }
        self.witness.iter().find_map(Witness::problem).or_else(|| {
            let mut names: Vec<&str> = self.witness.iter().map(|witness| witness.name.as_str()).collect();
            names.sort_unstable();
            let twice = names.windows(2).find_map(|two| (two.first() == two.last()).then(|| two.first()));
            twice
                .flatten()
                .map(|name| format!("there are two witnesses of the name {name:?}; give each its own"))
        })
    }
}
