//! Amounts of bytes in `vouchsafe.toml`, written as in policies: `"64 MiB"`.

use proxy_policy::parse_size;
use serde::{Deserialize, Deserializer, de::Error as _};

/// [`parse_size`] for `#[serde(deserialize_with)]`.
///
/// # Errors
/// As [`parse_size`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// [`deserialize`] of what may be left out.
///
/// # Errors
/// As [`parse_size`].
pub fn deserialize_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserialize(deserializer).map(Some)
}
