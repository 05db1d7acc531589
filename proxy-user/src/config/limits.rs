//! `[limits]`: what clients may take of this host, and how long they may take for it.

use std::time::Duration;

use proxy_policy::{Bound, Limit};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::base::duration;

/// `[limits]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Until the client has said what it speaks.
    #[serde(deserialize_with = "duration::deserialize")]
    pub sniff_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Until a request's head is complete; of the first one, also until it begins.
    #[serde(deserialize_with = "duration::deserialize")]
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer that is there for it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_timeout: Duration,
    /// How long an open connection may rest.
    #[serde(deserialize_with = "duration::deserialize")]
    pub idle_timeout: Duration,
    /// Connections from bots at once.
    pub connections: usize,
    /// How many of them one identity may have, and all workloads without one together.
    pub connections_per_identity: usize,
    /// How many refusals of one identity have a record of their own, and of all workloads without one together.
    pub refusals_per_identity: Rate,
    /// How long calls that are open may go on at a stop or restart; new ones are served meanwhile.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sniff_timeout: Duration::from_secs(5),
            header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(90),
            connections: 10_000,
            connections_per_identity: 6_000,
            // A minute and a half of a bot that is wrong 100 times a second; then some 5 GiB a day of lines, before they are compressed.
            refusals_per_identity: Rate { number: 50, per: Duration::from_secs(1), burst: 5_000 },
            drain: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// What cannot work, and what to do.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match () {
            () if !(1024..=1 << 20).contains(&self.header_bytes) => {
                Some("limits.header_bytes must be between 1024 and 1048576")
            }
            () if self.connections == 0 => Some("limits.connections must be at least 1"),
            () if self.connections_per_identity == 0 => {
                Some("limits.connections_per_identity must be at least 1")
            }
            () => None,
        }
    }
}

/// So many in one `per`, of which `burst` may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub number: u32,
    /// In which time.
    pub per: Duration,
    /// How many of them without a pause in between.
    pub burst: u32,
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HELP: &str =
            "write how many in a second, minute or hour, and how many of them at once: \"50/s burst 5000\"";
        let text = String::deserialize(deserializer)
            .map_err(|_| D::Error::custom(format!("this is no rate; {HELP}")))?;
        match text.parse::<Limit>().map(|limit| limit.bound()) {
            Ok(Bound::Rate { calls: number, per, burst }) => Ok(Self { number, per, burst }),
            _ => Err(D::Error::custom(format!("{text:?} is no rate; {HELP}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    #[test]
    fn values_that_cannot_work_are_refused() {
        let error = |text: &str| {
            Config::parse(Path::new("v.toml"), &format!("[limits]\n{text}")).unwrap_err().to_string()
        };
        assert!(error("header_bytes = 1000").contains("between 1024 and 1048576"));
        assert!(error("connections = 0").contains("connections must be at least 1"));
        assert!(
            error("connections_per_identity = 0").contains("connections_per_identity must be at least 1")
        );
        for rate in ["50", "\"5\"", "\"5/day\"", "\"5 at once\"", "\"1 MiB/day\"", "\"0/s\""] {
            let text = error(&format!("refusals_per_identity = {rate}"));
            assert!(text.starts_with("v.toml:2:25: error:") && text.contains("is no rate; write"), "{text}");
        }
    }
}
