//! The moment, as decisions are told it.

use std::time::{SystemTime, UNIX_EPOCH};

use proxy_policy::Moment;

/// Now, by the host's clock. A clock before 1970 is broken: then everything that ends has ended.
#[must_use]
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    Moment(since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(i64::MAX))
}
