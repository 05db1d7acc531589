//! The moment, as decisions are told it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_policy::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Now, by the host's clock. A clock before 1970 is broken: then everything that ends has ended. Each call asks several times, so it is the
/// clock that the kernel keeps anyway (`CLOCK_REALTIME_COARSE`, clock_gettime(2)): behind by a tick or two of some milliseconds, by more where a host
/// takes the processor away that keeps it.
#[must_use]
pub fn now() -> Moment {
    let seconds = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    Moment(if seconds < 0 { i64::MAX } else { seconds })
}

/// Now, in microseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How long it is until [`now`] is a moment; nothing when it is.
#[must_use]
pub fn until(moment: Moment) -> Duration {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let since = Duration::try_from(now).unwrap_or(Duration::MAX);
    Duration::from_secs(u64::try_from(moment.0).unwrap_or(0)).saturating_sub(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_what_the_host_says_and_a_moment_is_reached_when_it_is_now() {
        let host = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let (before, now, after) = (host(), now(), host());
        assert!((before - 1..=after).contains(&now.0), "{before} {now:?} {after}");
        assert_eq!(until(now), Duration::ZERO);
        let left = until(Moment(now.0 + 100));
        assert!(Duration::from_secs(90) < left && left <= Duration::from_secs(100), "{left:?}");
    }

    #[test]
    fn who_waits_until_a_moment_has_it_then() {
        let next = Moment(now().0 + 1);
        std::thread::sleep(until(next));
        // By one of the next ticks of the kernel.
        let late = std::time::Instant::now() + Duration::from_secs(2);
        while now() < next {
            assert!(std::time::Instant::now() < late, "it never comes");
            std::thread::sleep(until(next).max(Duration::from_millis(1)));
        }
    }
}
