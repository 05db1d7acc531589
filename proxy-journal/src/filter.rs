//! Which calls somebody wants to see.

use std::str::FromStr;

use crate::facts::{Facts, Ruling};
use crate::timestamp::Timestamp;

/// What is shown. Of each list one must fit; an empty list fits everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Kinds: `call`, or those of other records.
    pub kinds: Vec<Pattern>,
    /// Kinds that are not shown unless they are in `kinds`.
    pub quiet: Vec<&'static str>,
    /// Identities; `unknown` is also a workload without one.
    pub identities: Vec<Pattern>,
    /// APIs.
    pub apis: Vec<Pattern>,
    /// Units of systemd.
    pub units: Vec<Pattern>,
    /// Hosts.
    pub hosts: Vec<Pattern>,
    /// What was decided.
    pub rulings: Vec<Ruling>,
    /// What was answered.
    pub statuses: Vec<StatusRange>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether a line is shown.
    pub fn matches(&self, facts: &Facts) -> bool {
        self.fits_kind(Some(&facts.kind))
            && self.fits_time(facts.time, facts.time)
            && self.fits_identity(facts.identity.as_deref())
            && fits(&self.apis, facts.api.as_deref())
            && fits(&self.units, facts.unit.as_deref())
            && fits(&self.hosts, facts.host.as_deref())
            && self.fits_ruling(facts.ruling)
            && self.fits_status(facts.status)
    }

    pub(crate) fn fits_kind(&self, kind: Option<&str>) -> bool {
        if self.kinds.is_empty() {
            return kind.is_none_or(|kind| !self.quiet.contains(&kind));
        }
        fits(&self.kinds, kind)
    }

    /// Whether something between these two can be in the time that is asked for.
    pub(crate) fn fits_time(&self, first: Timestamp, last: Timestamp) -> bool {
        self.since.is_none_or(|since| last >= since) && self.until.is_none_or(|until| first < until)
    }

    pub(crate) fn fits_identity(&self, identity: Option<&str>) -> bool {
        fits(&self.identities, Some(identity.unwrap_or("unknown")))
    }

    pub(crate) fn fits_ruling(&self, ruling: Option<Ruling>) -> bool {
        self.rulings.is_empty() || ruling.is_some_and(|ruling| self.rulings.contains(&ruling))
    }

    pub(crate) fn fits_status(&self, status: Option<u16>) -> bool {
        self.statuses.is_empty()
            || status.is_some_and(|status| self.statuses.iter().any(|range| range.has(status)))
    }
}

/// Whether one of the patterns fits, or none is asked for.
pub(crate) fn fits(patterns: &[Pattern], text: Option<&str>) -> bool {
    patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.fits(text)))
}

/// A name, or several by `*`, which stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether it fits the whole text.
    pub fn fits(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            let Some((_, after)) = text.split_once(part) else { return false };
            text = after;
        }
        text.ends_with(last)
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }
}

/// A status, or a class of them: `404`, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Whether this status is in it.
    pub fn has(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }

    /// Whether one of this class can be in it.
    pub(crate) fn touches(self, class: u8) -> bool {
        (crate::facts::status_class(Some(self.first))..=crate::facts::status_class(Some(self.last)))
            .contains(&class)
    }
}

impl FromStr for StatusRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<StatusRange, &'static str> {
        const WRONG: &str = "a status is a number as 404, or a class as 5xx";
        let (first, last) = match text.strip_suffix("xx") {
            Some(class) => {
                let class: u16 = class.parse().map_err(|_| WRONG)?;
                (class.saturating_mul(100), class.saturating_mul(100).saturating_add(99))
            }
            None => {
                let one = text.parse().map_err(|_| WRONG)?;
                (one, one)
            }
        };
        if (100..=599).contains(&first) { Ok(StatusRange { first, last }) } else { Err(WRONG) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_name_and_a_star_any_part_of_it() {
        let fits = |pattern: &str, text: &str| Pattern::from(pattern).fits(text);
        assert!(fits("bot", "bot") && !fits("bot", "bot2") && !fits("bot", "a bot"));
        assert!(fits("*.test", "api.test") && !fits("*.test", "api.test.evil"));
        assert!(fits("a*b*c", "axxbyyc") && fits("a*b*c", "abc") && !fits("a*b*c", "acb"));
        assert!(fits("*", "") && fits("**", "x") && !fits("a*a", "a"));
    }

    #[test]
    fn a_status_is_one_or_a_class() {
        let range = |text: &str| text.parse::<StatusRange>();
        assert!(range("404").unwrap().has(404) && !range("404").unwrap().has(405));
        assert!(range("5xx").unwrap().has(599) && !range("5xx").unwrap().has(499));
        assert!(range("5xx").unwrap().touches(5) && !range("5xx").unwrap().touches(4));
        for wrong in ["", "xx", "6xx", "99", "4x", "4xxx", "-1", "99999"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
