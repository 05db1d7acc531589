//! The options that say which calls are wanted.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use proxy_journal::archive::{Call, Sieve};
use proxy_journal::{Facts, Filter, Pattern, Ruling, StatusRange, Timestamp};
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, macros::format_description};

use super::condition::Condition;
use crate::base::clock;

/// Which calls are wanted: of an option that is given more than once, one value must fit.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Which calls")]
pub(super) struct FilterArgs {
    /// Of this identity (`unknown`: of none); `*` stands for anything, here and below
    #[arg(long, value_name = "NAME")]
    identity: Vec<String>,
    /// Of this unit of systemd; `bot` is also `bot.service`
    #[arg(long, value_name = "UNIT")]
    unit: Vec<String>,
    /// To this API
    #[arg(long, value_name = "NAME")]
    api: Vec<String>,
    /// To this host
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// That were decided so
    #[arg(long, value_name = "VERDICT", value_enum)]
    verdict: Vec<Verdict>,
    /// Of this kind: `call`, or another kind of record, as `policy` or `start`
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Answered so: `404`, or a class as `5xx`
    #[arg(long, value_name = "STATUS")]
    status: Vec<StatusRange>,
    /// Not before this: `2h` ago (s, m, h, d, w), `2026-11-24`, `2026-11-24T20:00:00Z`, `today`, `yesterday` (UTC)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// For which this holds, in CEL: `status >= 500 && path.startsWith("/v1/")`
    #[arg(long = "where", value_name = "CEL")]
    condition: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verdict {
    Allow,
    Deny,
    Observed,
}

/// What is wanted, read and checked.
pub(super) struct Wanted {
    pub(super) filter: Filter,
    condition: Option<Condition>,
    /// Lines for which the condition could not be evaluated.
    failed: AtomicU64,
}

impl FilterArgs {
    /// Whether a time is given from which everything is wanted.
    pub(super) fn has_beginning(&self) -> bool {
        self.since.is_some()
    }

    /// Reads the options.
    ///
    /// # Errors
    /// One cannot be read.
    pub(super) fn wanted(&self) -> anyhow::Result<Wanted> {
        let now = u64::try_from(clock::now().0).unwrap_or(0);
        let patterns =
            |texts: &[String]| texts.iter().map(|text| Pattern::from(text.as_str())).collect::<Vec<_>>();
        let time = |option: &str, text: &Option<String>| {
            text.as_ref()
                .map(|text| parse_time(text, now).with_context(|| format!("{option} {text:?}")))
                .transpose()
        };
        let mut units = patterns(&self.unit);
        for unit in self.unit.iter().filter(|unit| !unit.contains(['.', '*'])) {
            units.push(Pattern::from(format!("{unit}.service").as_str()));
        }
        let ruling = |verdict: &Verdict| match verdict {
            Verdict::Allow => Ruling::Allow,
            Verdict::Deny => Ruling::Deny,
            Verdict::Observed => Ruling::Observed,
        };
        let filter = Filter {
            kinds: patterns(&self.kind),
            // They come every few seconds, and say nothing to a person.
            quiet: vec!["checkpoint", "segment"],
            identities: patterns(&self.identity),
            apis: patterns(&self.api),
            units,
            hosts: patterns(&self.host),
            rulings: self.verdict.iter().map(ruling).collect(),
            statuses: self.status.clone(),
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
        };
        let condition = self.condition.as_deref().map(Condition::parse).transpose()?;
        Ok(Wanted { filter, condition, failed: AtomicU64::new(0) })
    }
}

impl Wanted {
    /// Whether nothing was said: then everything is wanted, also what is not shown to people.
    pub(super) fn is_everything(&self) -> bool {
        let everything = Filter { quiet: self.filter.quiet.clone(), ..Filter::default() };
        self.condition.is_none() && self.filter == everything
    }

    /// What the condition makes of the rows of indexes.
    pub(super) fn sieve(&self) -> Option<Box<dyn Sieve>> {
        self.condition.as_ref().map(Condition::sieve)
    }

    /// Whether this is wanted, as far as the index does not tell it.
    pub(super) fn holds(&self, call: &Call) -> bool {
        self.condition_holds(&call.facts)
    }

    /// Whether this is wanted.
    pub(super) fn matches(&self, facts: &Facts) -> bool {
        self.filter.matches(facts) && self.condition_holds(facts)
    }

    fn condition_holds(&self, facts: &Facts) -> bool {
        let Some(condition) = &self.condition else { return true };
        condition.holds(facts).unwrap_or_else(|| {
            self.failed.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    /// Says on standard error for how many lines the condition could not be evaluated.
    pub(super) fn tell(&self) {
        let failed = self.failed.load(Ordering::Relaxed);
        if failed > 0 {
            eprintln!("vouchsafe: --where could not be evaluated for {failed} lines, which are left out");
        }
    }
}

/// A time as a person writes it; `now` in seconds.
fn parse_time(text: &str, now: u64) -> anyhow::Result<Timestamp> {
    let seconds = |seconds: u64| Timestamp::from_micros(seconds.saturating_mul(1_000_000));
    let day = 86_400;
    let text = text.trim();
    match text {
        "today" => return Ok(seconds(now - now % day)),
        "yesterday" => return Ok(seconds((now - now % day).saturating_sub(day))),
        "now" => return Ok(seconds(now)),
        _ => {}
    }
    let unit = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(day),
        'w' => Some(7 * day),
        _ => None,
    };
    if let Some(size) = text.chars().next_back().and_then(unit)
        && let Some(digits) = text.get(..text.len() - 1)
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        let count: u64 = digits.parse().context("is longer ago than there are years")?;
        return Ok(seconds(now.saturating_sub(count.saturating_mul(size))));
    }
    let nanos = match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(date) => date.midnight().assume_utc().unix_timestamp_nanos(),
        Err(_) => match OffsetDateTime::parse(text, &Rfc3339) {
            Ok(time) => time.unix_timestamp_nanos(),
            Err(_) => {
                bail!("is no time: write 2h (ago), 2026-11-24, 2026-11-24T20:00:00Z, today or yesterday")
            }
        },
    };
    Ok(Timestamp::from_micros(u64::try_from(nanos / 1000).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_write_it() {
        // 2026-11-24T20:00:00Z
        let now = 1_795_550_400;
        let at = |text: &str| parse_time(text, now).map(|time| time.to_string()).unwrap_or_default();
        assert_eq!(at("2h"), "2026-11-24T18:00:00.000000Z");
        assert_eq!(at("90s"), "2026-11-24T19:58:30.000000Z");
        assert_eq!(at("1w"), "2026-11-17T20:00:00.000000Z");
        assert_eq!(at("today"), "2026-11-24T00:00:00.000000Z");
        assert_eq!(at("yesterday"), "2026-11-23T00:00:00.000000Z");
        assert_eq!(at("2026-11-20"), "2026-11-20T00:00:00.000000Z");
        assert_eq!(at("2026-11-20T01:02:03.5+02:00"), "2026-11-19T23:02:03.500000Z");
        assert_eq!(at("99999999999999999h"), "1970-01-01T00:00:00.000000Z");
        for wrong in ["", "h", "2 hours", "-2h", "2026-13-01", "20:00", "é", "2é"] {
            assert!(parse_time(wrong, now).is_err(), "{wrong}");
        }
    }
}
