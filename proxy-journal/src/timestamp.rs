//! When something happened: UTC in microseconds, spelled in one way only.

use std::fmt;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// Microseconds since 1970-01-01T00:00:00Z, at most the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// 9999-12-31T23:59:59.999999Z.
const LAST: u64 = 253_402_300_799_999_999;

impl Timestamp {
    /// From microseconds since the epoch; what lies beyond the year 9999 becomes its last microsecond.
    pub const fn from_micros(micros: u64) -> Timestamp {
        Timestamp(if micros > LAST { LAST } else { micros })
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Time from `before` to this; zero when that is later.
    pub const fn since(self, before: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(before.0))
    }

    /// Appends `2026-11-24T20:00:00.123456Z` (always 27 bytes).
    pub(crate) fn spell(self, out: &mut Vec<u8>) {
        let seconds = i64::try_from(self.0 / 1_000_000).unwrap_or(0);
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second) = at.time().as_hms();
        let micros = self.0 % 1_000_000;
        // Writing into a Vec does not fail.
        let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    }

    /// Reads exactly the spelling that is written, `2026-11-24T20:00:00.123456Z`; any other is `None`.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if bytes.len() != 27 || marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
            return None;
        }
        let date = Date::from_calendar_date(
            i32::try_from(digits(bytes.get(0..4)?)?).ok()?,
            Month::try_from(small(bytes.get(5..7)?)?).ok()?,
            small(bytes.get(8..10)?)?,
        )
        .ok()?;
        let time = Time::from_hms_micro(
            small(bytes.get(11..13)?)?,
            small(bytes.get(14..16)?)?,
            small(bytes.get(17..19)?)?,
            digits(bytes.get(20..26)?)?,
        )
        .ok()?;
        let nanos = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp_nanos();
        u64::try_from(nanos / 1000).ok().map(Timestamp)
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')))
    })
}

fn small(text: &[u8]) -> Option<u8> {
    u8::try_from(digits(text)?).ok()
}

impl From<SystemTime> for Timestamp {
    /// A time before 1970 becomes 1970: a clock so wrong must not stop the journal.
    fn from(at: SystemTime) -> Timestamp {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(LAST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(27);
        self.spell(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_spelled_in_utc_with_microseconds() {
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(1_795_550_400_123_456).to_string(), "2026-11-24T20:00:00.123456Z");
        assert_eq!(Timestamp::from_micros(u64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn another_spelling_of_a_time_is_refused() {
        for text in [
            "2026-11-24T20:00:00Z",
            "2026-11-24 20:00:00.123456Z",
            "2026-13-24T20:00:00.123456Z",
            "2026-11-24T24:00:00.123456Z",
            "2026-11-24T20:00:00.12345+Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back(micros in 0..=LAST) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }
    }
}
