//! Waiting on conditions, never on time.

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine; only a test that fails waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value; panics after half a minute. `what` completes the sentence "… did not happen".
#[track_caller]
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {} s", LIMIT.as_secs());
        std::thread::sleep(POLL);
    }
}
