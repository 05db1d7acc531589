//! Until when a grant holds: a date or a moment of a policy, and the moment of a decision.

use std::fmt;

use toml::value::{Datetime, Offset};

use crate::diagnostic::Problem;

/// A moment: seconds since 1970-01-01T00:00:00Z. The crate has no clock; whoever asks for a decision says when it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

impl Moment {
    /// Of a date the beginning of that day in UTC; of a date with time and offset that moment. Messages call it `key`.
    pub(crate) fn of(key: &str, value: &Datetime) -> Result<Self, Problem> {
        let help = match key {
            "until" => {
                "write a date, which holds to its end in UTC (until = 2027-01-31), or a moment with its offset (2027-01-31T18:00:00Z)"
            }
            _ => {
                "write a moment with its offset, such as 2027-01-31T18:00:00Z, or a date, which begins in UTC"
            }
        };
        let Some(date) = value.date else {
            return Err(Problem::new(format!("\"{key}\" has no date"), help));
        };
        let days = days_since_epoch(i64::from(date.year), i64::from(date.month), i64::from(date.day));
        let Some(time) = value.time else { return Ok(Self(days * DAY)) };
        let Some(offset) = value.offset else {
            let message =
                format!("\"{key}\" has a time without an offset, so it is not certain when that is");
            return Err(Problem::new(message, help));
        };
        let minutes = match offset {
            Offset::Z => 0,
            Offset::Custom { minutes } => i64::from(minutes),
        };
        let of_day =
            i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
        Ok(Self(days * DAY + of_day - minutes * 60))
    }
}

/// The end of a grant. `Display` as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    text: String,
    end: Moment,
}

impl Until {
    /// Of a date the end of that day in UTC; of a date with time and offset that moment.
    pub(crate) fn of(value: &Datetime) -> Result<Self, Problem> {
        let Moment(seconds) = Moment::of("until", value)?;
        let end = if value.time.is_none() { seconds + DAY } else { seconds };
        Ok(Self { text: value.to_string(), end: Moment(end) })
    }

    /// The first moment at which it does not hold any more.
    #[must_use]
    pub fn end(&self) -> Moment {
        self.end
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        now >= self.end
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const DAY: i64 = 24 * 60 * 60;

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Result<i64, Problem> {
        Until::of(&text.parse().unwrap()).map(|until| until.end.0)
    }

    #[test]
    fn a_date_holds_to_its_end_and_a_moment_until_it_is_there() {
        assert_eq!(end("1970-01-01").unwrap(), DAY);
        assert_eq!(end("2027-01-31").unwrap(), 1_801_440_000);
        assert_eq!(end("2027-01-31T00:00:00Z").unwrap(), 1_801_440_000 - DAY);
        assert_eq!(end("2024-02-29T12:30:05+02:00").unwrap(), 1_709_202_605);
        let until = Until::of(&"2027-01-31".parse().unwrap()).unwrap_or_else(|_| panic!());
        assert!(!until.is_over(Moment(1_801_439_999)) && until.is_over(Moment(1_801_440_000)));
    }

    #[test]
    fn a_time_of_which_it_is_not_certain_when_it_is_is_refused() {
        assert!(end("2027-01-31T10:00:00").unwrap_err().message.contains("without an offset"));
        assert!(end("10:00:00").unwrap_err().message.contains("no date"));
    }
}
