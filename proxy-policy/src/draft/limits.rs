//! `limit` and `wait`, wherever they stand.

use std::time::Duration;

use toml::de::DeValue;

use crate::diagnostic::{Problem, quote};
use crate::limit::{Bound, Limit, Limits};
use crate::place::Spanned;
use crate::read::{Reader, Section};

/// The longest wait that a policy may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Reads the limits under `key`, and how long calls wait for them.
pub(super) fn read(section: &Section<'_>, key: &str, reader: &mut Reader<'_>) -> Limits {
    let texts = match section.value(key) {
        Some(DeValue::Array(_)) => reader.strings(section, key),
        _ => reader.string(section, key).into_iter().collect(),
    };
    let mut each: Vec<Spanned<Limit>> = Vec::new();
    for text in &texts {
        let Some(limit) = reader.parse(text, Limit::parse) else { continue };
        let same = each.iter().find(|other| is_of_one_kind(other.bound(), limit.bound()));
        if let Some(other) = same {
            let message = format!("{} and {} limit the same", quote(other.as_str()), quote(limit.as_str()));
            reader.findings.error(limit.place, message, "both would hold: keep the narrower one");
            continue;
        }
        each.push(limit);
    }
    let wait = reader.parsed(section, "wait", parse_wait).map(|wait| wait.value).unwrap_or_default();
    Limits { each, wait }
}

/// A wait without anything that it waits for.
pub(super) fn check_wait(section: &Section<'_>, keys: &[&str], reader: &mut Reader<'_>) {
    if section.has("wait") && !keys.iter().any(|key| section.has(key)) {
        reader.findings.error(
            reader.key_place(section, "wait"),
            "\"wait\" says how long a call waits for a limit, and there is none",
            "add limit = \"100/min\", or remove it",
        );
    }
}

fn is_of_one_kind(a: Bound, b: Bound) -> bool {
    match (a, b) {
        (Bound::Rate { per: a, .. }, Bound::Rate { per: b, .. }) => a == b,
        (Bound::AtOnce(_), Bound::AtOnce(_)) => true,
        (Bound::Calls { per: a, .. }, Bound::Calls { per: b, .. })
        | (Bound::Bytes { per: a, .. }, Bound::Bytes { per: b, .. }) => a == b,
        _ => false,
    }
}

fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis = match (number.parse::<u64>(), unit) {
        (Ok(number), "ms") => Some(number),
        (Ok(number), "s") => number.checked_mul(1000),
        _ => None,
    };
    millis.map(Duration::from_millis).filter(|wait| !wait.is_zero() && *wait <= LONGEST_WAIT).ok_or_else(
        || {
            Problem::new(
                format!("{} is not a time that a call may wait", quote(text)),
                "write such as \"500ms\" or \"2s\", at most \"60s\"",
            )
        },
    )
}
