//! So many calls or bytes in a calendar day or month, UTC.
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use proxy_policy::Period;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, Time};

/// What was used in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The period: days or months since the year 0.
    pub period: i32,
    /// How much.
    pub amount: u64,
}

/// Counts what is used of one limit; how much that may be is for the asker to say.
#[derive(Debug)]
pub struct Quota {
    per: Period,
    used: Mutex<Used>,
}

impl Quota {
    /// One with what was used before.
    #[must_use]
    pub fn new(per: Period, used: Used) -> Self {
        Self { per, used: Mutex::new(used) }
    }

    /// Takes `amount` of `most`.
    ///
    /// # Errors
    /// There is not so much left; the error is how long until there is.
    pub fn take(&self, amount: u64, most: u64, now: SystemTime) -> Result<(), Duration> {
        let mut used = self.current(now);
        match used.amount.checked_add(amount).filter(|sum| *sum <= most) {
            Some(sum) => {
                used.amount = sum;
                Ok(())
            }
            None => Err(until_next(self.per, now)),
        }
    }

    /// Whether anything is left of `most`.
    ///
    /// # Errors
    /// Nothing; the error is how long until there is.
    pub fn check(&self, most: u64, now: SystemTime) -> Result<(), Duration> {
        if self.current(now).amount < most { Ok(()) } else { Err(until_next(self.per, now)) }
    }

    /// Counts what was used already.
    pub fn add(&self, amount: u64, now: SystemTime) {
        let mut used = self.current(now);
        used.amount = used.amount.saturating_add(amount);
    }

    /// Gives back what was taken at that time for a call that is not made; nothing, when its period is over.
    pub fn give_back(&self, amount: u64, taken: SystemTime) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.period == number(self.per, taken) {
            used.amount = used.amount.saturating_sub(amount);
        }
    }

    /// What is used by now.
    #[must_use]
    pub fn used(&self, now: SystemTime) -> Used {
        *self.current(now)
    }

    /// The count of the period that `now` is in. A clock that is set back does not give anything back.
    fn current(&self, now: SystemTime) -> std::sync::MutexGuard<'_, Used> {
        let period = number(self.per, now);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if period > used.period {
            *used = Used { period, amount: 0 };
        }
        used
    }
}

/// Which day or month it is.
fn number(per: Period, now: SystemTime) -> i32 {
    let now = OffsetDateTime::from(now);
    match per {
        Period::Day => now.to_julian_day(),
        Period::Month => now.year() * 12 + i32::from(u8::from(now.month())),
    }
}

/// How long until the next one begins.
fn until_next(per: Period, now: SystemTime) -> Duration {
    let now = OffsetDateTime::from(now);
    let next = match per {
        Period::Day => now.date().next_day(),
        Period::Month => {
            let (year, month) = match now.month() {
                time::Month::December => (now.year() + 1, time::Month::January),
                month => (now.year(), month.next()),
            };
            time::Date::from_calendar_date(year, month, 1).ok()
        }
    };
    next.map_or(Duration::from_secs(86_400), |next| {
        (next.with_time(Time::MIDNIGHT).assume_utc() - now).unsigned_abs()
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn at(when: OffsetDateTime) -> SystemTime {
        when.into()
    }

    #[test]
    fn a_day_ends_at_midnight_utc_and_a_month_with_its_last_day() {
        let noon = at(datetime!(2026-12-31 12:00 UTC));
        let next = at(datetime!(2027-01-01 00:00 UTC));
        for per in [Period::Day, Period::Month] {
            let quota = Quota::new(per, Used::default());
            assert_eq!(quota.take(2, 3, noon), Ok(()));
            let left = Duration::from_secs(12 * 3600);
            assert_eq!(quota.take(2, 3, noon), Err(left));
            assert_eq!(quota.take(1, 3, noon), Ok(()));
            assert_eq!(quota.check(3, noon), Err(left));
            quota.give_back(1, noon);
            assert_eq!(quota.check(3, noon), Ok(()));
            assert_eq!(quota.take(3, 3, next), Ok(()));
            // What was taken before midnight is not given back after it.
            quota.give_back(1, noon);
            assert!(quota.take(1, 3, next).is_err());
        }
        let month = Quota::new(Period::Month, Used::default());
        assert_eq!(month.take(1, 1, at(datetime!(2026-02-01 00:00 UTC))), Ok(()));
        let refused = month.take(1, 1, at(datetime!(2026-02-28 23:59 UTC)));
        assert_eq!(refused, Err(Duration::from_secs(60)));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_back() {
        let quota = Quota::new(Period::Day, Used::default());
        assert_eq!(quota.take(5, 5, at(datetime!(2026-06-02 10:00 UTC))), Ok(()));
        assert!(quota.take(1, 5, at(datetime!(2026-06-01 10:00 UTC))).is_err());
        assert!(quota.take(1, 5, at(datetime!(2026-06-02 11:00 UTC))).is_err());
        assert!(quota.take(1, 5, at(datetime!(2026-06-03 00:00 UTC))).is_ok());
    }

    #[test]
    fn what_is_used_beyond_is_counted_and_refuses_what_comes() {
        let quota = Quota::new(Period::Day, Used::default());
        let now = at(datetime!(2026-06-02 10:00 UTC));
        quota.add(1000, now);
        assert!(quota.check(1000, now).is_err() && quota.check(1001, now).is_ok());
        assert_eq!(quota.used(now).amount, 1000);
    }
}
