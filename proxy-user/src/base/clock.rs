//! The moment, as decisions are told it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_policy::Moment;

/// Now, by the host's clock. A clock before 1970 is broken: then everything that ends has ended.
#[must_use]
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    Moment(since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(i64::MAX))
}

/// Now, in microseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How long it is until a moment, by the host's clock; nothing when it is there.
#[must_use]
pub fn until(moment: Moment) -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX);
    Duration::from_secs(u64::try_from(moment.0).unwrap_or(0)).saturating_sub(since)
}
