//! How much may be called: `"100/min burst 20"`, `"5 at once"`, `"10000/month"`, `"2 GiB/day"`.

use std::{str::FromStr, time::Duration};

use crate::diagnostic::{Problem, quote};
use crate::place::Spanned;

/// The limits of one identity, grant, API or host. All hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Each one, as it was written.
    pub each: Vec<Spanned<Limit>>,
    /// How long a call that is over one waits for its turn before it is refused; zero: not at all.
    pub wait: Duration,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    text: String,
    bound: Bound,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Calls per time, spread by the generic cell rate algorithm (ITU-T I.371): `burst` at once, then one after the other.
    Rate {
        /// How many in one `per`.
        calls: u32,
        /// One second, minute or hour.
        per: Duration,
        /// How many without a pause in between.
        burst: u32,
    },
    /// Calls that are open at the same time.
    AtOnce(u32),
    /// Calls in one calendar day or month, UTC.
    Calls {
        /// How many.
        most: u64,
        /// In which time.
        per: Period,
    },
    /// Bytes of bodies, both ways together, in one calendar day or month, UTC.
    Bytes {
        /// How many.
        most: u64,
        /// In which time.
        per: Period,
    },
}

/// A time that begins at midnight, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

impl Period {
    /// As in a policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// More calls per second than this are no limit but a mistake.
const MOST_CALLS: u32 = 1_000_000;

impl Limit {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let bound = match words.as_slice() {
            [number, "at", "once"] => Bound::AtOnce(count(text, number)?),
            [amount] => per_time(text, amount, None)?,
            [amount, "burst", burst] => per_time(text, amount, Some(count(text, burst)?))?,
            [number, rest] => bytes(text, &format!("{number}{rest}"))?,
            _ => return Err(not_a_limit(text)),
        };
        Ok(Self { text: text.to_owned(), bound })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What is limited.
    #[must_use]
    pub fn bound(&self) -> Bound {
        self.bound
    }
}

impl FromStr for Limit {
    /// What is wrong, in words.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|problem| format!("{}; {}", problem.message, problem.help))
    }
}

fn per_time(text: &str, amount: &str, burst: Option<u32>) -> Result<Bound, Problem> {
    let (number, unit) = amount.split_once('/').ok_or_else(|| not_a_limit(text))?;
    if number.chars().any(|c| c.is_ascii_alphabetic()) {
        return if burst.is_none() { bytes(text, amount) } else { Err(no_burst(text)) };
    }
    let seconds = match unit {
        "s" | "sec" | "second" => 1,
        "min" | "minute" => 60,
        "h" | "hour" => 3600,
        _ => {
            let per = period(text, unit)?;
            let most = count(text, number)?.into();
            return if burst.is_none() { Ok(Bound::Calls { most, per }) } else { Err(no_burst(text)) };
        }
    };
    let calls = count(text, number)?;
    let burst = burst.unwrap_or(calls);
    Ok(Bound::Rate { calls, per: Duration::from_secs(seconds), burst })
}

fn bytes(text: &str, amount: &str) -> Result<Bound, Problem> {
    let (size, unit) = amount.split_once('/').ok_or_else(|| not_a_limit(text))?;
    let digits = size.len() - size.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, scale) = size.split_at(digits);
    let scale: u64 = match scale {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(not_a_limit(text)),
    };
    let number: Option<u64> = number.parse().ok().filter(|number| *number > 0);
    let most = number.and_then(|number| number.checked_mul(scale)).ok_or_else(|| out_of_range(text))?;
    Ok(Bound::Bytes { most, per: period(text, unit)? })
}

fn period(text: &str, unit: &str) -> Result<Period, Problem> {
    match unit {
        "d" | "day" => Ok(Period::Day),
        "month" => Ok(Period::Month),
        _ => Err(Problem::new(
            format!("the limit {} has no time that is known", quote(text)),
            "calls go by /s, /min, /h, /day or /month; bytes by /day or /month",
        )),
    }
}

fn count(text: &str, number: &str) -> Result<u32, Problem> {
    let parsed: Option<u32> =
        number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok()).flatten();
    match parsed {
        Some(0) => Err(Problem::new(
            format!("the limit {} allows nothing", quote(text)),
            "remove the grant, or deny what must not be called",
        )),
        Some(number) if number <= MOST_CALLS => Ok(number),
        Some(_) => Err(out_of_range(text)),
        None if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) => Err(not_a_limit(text)),
        None => Err(out_of_range(text)),
    }
}

fn out_of_range(text: &str) -> Problem {
    Problem::new(
        format!("the limit {} is out of range", quote(text)),
        format!("write at most {MOST_CALLS} calls, and at most 16777215 TiB"),
    )
}

fn no_burst(text: &str) -> Problem {
    Problem::new(
        format!("the limit {} cannot have a burst", quote(text)),
        "a burst belongs to a rate: /s, /min or /h; give both limits in a list",
    )
}

fn not_a_limit(text: &str) -> Problem {
    Problem::new(
        format!("{} is not a limit", quote(text)),
        "write such as \"100/min burst 20\", \"5 at once\", \"10000/day\", \"2 GiB/day\", or a list of these",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> Bound {
        Limit::parse(text).unwrap().bound()
    }

    #[test]
    fn limits_read_as_people_say_them() {
        let minute = Duration::from_secs(60);
        assert_eq!(bound("100/min burst 20"), Bound::Rate { calls: 100, per: minute, burst: 20 });
        assert_eq!(bound("100/minute"), Bound::Rate { calls: 100, per: minute, burst: 100 });
        assert_eq!(bound("3/s"), Bound::Rate { calls: 3, per: Duration::from_secs(1), burst: 3 });
        assert_eq!(bound("7/h burst 1"), Bound::Rate { calls: 7, per: Duration::from_secs(3600), burst: 1 });
        assert_eq!(bound("5 at once"), Bound::AtOnce(5));
        assert_eq!(bound("1000/day"), Bound::Calls { most: 1000, per: Period::Day });
        assert_eq!(bound("20000/month"), Bound::Calls { most: 20_000, per: Period::Month });
        assert_eq!(bound("2 GiB/day"), Bound::Bytes { most: 2 << 30, per: Period::Day });
        assert_eq!(bound("500MiB/month"), Bound::Bytes { most: 500 << 20, per: Period::Month });
    }

    #[test]
    fn what_is_no_limit_says_how_one_is_written() {
        for (text, what) in [
            ("", "is not a limit"),
            ("100", "is not a limit"),
            ("fast", "is not a limit"),
            ("100/week", "no time that is known"),
            ("0/min", "allows nothing"),
            ("-1/min", "is not a limit"),
            ("1.5/min", "is not a limit"),
            ("100/min burst 0", "allows nothing"),
            ("100/day burst 5", "cannot have a burst"),
            ("1GiB/day burst 5", "cannot have a burst"),
            ("99999999999/s", "out of range"),
            ("2 GB/day", "is not a limit"),
            ("99999999 TiB/day", "out of range"),
            ("0 KiB/day", "out of range"),
            ("1 GiB/min", "no time that is known"),
            ("5 at twice", "is not a limit"),
        ] {
            let problem = Limit::parse(text).unwrap_err();
            assert!(problem.message.contains(what), "{text}: {}", problem.message);
        }
    }
}
