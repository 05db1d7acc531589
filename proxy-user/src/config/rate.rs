//! A rate as it is written: `"50/s burst 5000"`.

use std::time::Duration;

use proxy_policy::{Bound, Limit};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

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
        let text = String::deserialize(deserializer)?;
        match text.parse::<Limit>().map(|limit| limit.bound()) {
            Ok(Bound::Rate { calls: number, per, burst }) => Ok(Self { number, per, burst }),
            _ => Err(D::Error::custom(format!(
                "{text:?} is no rate; write how many in a second, minute or hour, and how many of them at once: \"50/s burst 5000\""
            ))),
        }
    }
}
