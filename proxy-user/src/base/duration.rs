//! Durations as people write them in files: `"250ms"`, `"10s"`, `"5m"`, `"1h"`.
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// Reads `"10s"` and its like; a number without a unit is refused, so that nobody has to guess.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    let length = read(text).ok_or_else(|| help(text))?;
    if length.is_zero() || length > Duration::from_secs(24 * 3600) {
        return Err(format!("{text:?} is out of range; write between \"1ms\" and \"24h\""));
    }
    Ok(length)
}

/// A number and a unit, however long.
fn read(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis)
}

/// The same up to a year, also in days (`"30d"`), for what happens seldom.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_long(text: &str) -> Result<Duration, String> {
    let length = match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(days) => days.ok().map(|days| Duration::from_secs(days.saturating_mul(24 * 3600))),
        None => read(text),
    };
    let length = length.ok_or_else(|| {
        format!(
            "{text:?} is not a duration; write a number and a unit, such as \"10s\", \"5m\", \"12h\" or \"30d\""
        )
    })?;
    if length.is_zero() || length > Duration::from_secs(366 * 24 * 3600) {
        return Err(format!("{text:?} is out of range; write between \"1ms\" and \"366d\""));
    }
    Ok(length)
}

/// [`parse_long`] for `#[serde(deserialize_with)]`.
///
/// # Errors
/// As [`parse_long`].
pub fn deserialize_long<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_long(&text).map_err(D::Error::custom)
}

fn help(text: &str) -> String {
    format!(
        "{text:?} is not a duration; write a number and a unit, such as \"250ms\", \"10s\", \"5m\" or \"1h\""
    )
}

/// For `#[serde(deserialize_with)]`.
///
/// # Errors
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_unit_is_a_duration() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn what_happens_seldom_is_told_in_days() {
        assert_eq!(parse_long("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_long("48h"), Ok(Duration::from_secs(2 * 86_400)));
        assert_eq!(parse_long("4s"), Ok(Duration::from_secs(4)));
        for bad in ["0d", "367d", "8785h", "18446744073709551615d", "0h", "0ms"] {
            assert!(parse_long(bad).is_err_and(|why| why.contains("\"366d\"")), "{bad}");
        }
        for bad in ["d", "1w", "-1d", "5 weeks", "", "18446744073709551616d", "1.5h"] {
            assert!(parse_long(bad).is_err_and(|why| why.contains("\"30d\"")), "{bad}");
        }
    }

    #[test]
    fn a_number_without_a_unit_zero_and_overflow_are_refused() {
        for bad in [
            "10",
            "",
            "s",
            "0s",
            "25h",
            "1d",
            "99999999999999999999s",
            "-1s",
            "1.5s",
            "18446744073709551615h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
