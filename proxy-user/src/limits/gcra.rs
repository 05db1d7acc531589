//! A rate with a burst: the generic cell rate algorithm, virtual scheduling (ITU-T I.371, annex A.1).
//!
//! One number says it all: the theoretical arrival time, at which the next call would come if calls came evenly. No lock
//! and no allocation; what was taken can be given back.
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// One rate.
#[derive(Debug)]
pub struct Gcra {
    /// Nanoseconds between two calls of an even stream, rounded up.
    interval: u64,
    /// How much earlier than evenly a call may come, nanoseconds.
    tolerance: u64,
    /// Nanoseconds since the start of the clock.
    arrival: AtomicU64,
}

/// The turn of one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// How long the call has to wait for it.
    pub wait: Duration,
    /// When the next one would come.
    next: u64,
}

impl Gcra {
    /// `calls` in one `per`, of which `burst` may come at once. Zeros count as ones.
    #[must_use]
    pub fn new(calls: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(calls.max(1)));
        let tolerance = interval.saturating_mul(u64::from(burst.max(1) - 1));
        Self { interval, tolerance, arrival: AtomicU64::new(0) }
    }

    /// Takes the turn of a call that comes now (since the start of the clock).
    ///
    /// # Errors
    /// It would have to wait longer than `patience`; then nothing is taken. The error is how long.
    pub fn take(&self, now: Duration, patience: Duration) -> Result<Turn, Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let wait = Duration::from_nanos(arrival.saturating_sub(self.tolerance).saturating_sub(now));
            if wait > patience {
                return Err(wait);
            }
            let next = arrival.max(now).saturating_add(self.interval);
            match self.arrival.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Turn { wait, next }),
                Err(newer) => arrival = newer,
            }
        }
    }

    /// Gives back the turn of a call that is not made, if it is the last one that was given. Those that came after wait for
    /// their own: moved up, a caller who gives many back could bring the rest of his to one moment.
    pub fn give_back(&self, turn: &Turn) {
        let before = turn.next.saturating_sub(self.interval);
        let _ = self.arrival.compare_exchange(turn.next, before, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    fn wait(rate: &Gcra, now: Duration, patience: Duration) -> Result<Duration, Duration> {
        rate.take(now, patience).map(|turn| turn.wait)
    }

    #[test]
    fn a_burst_passes_and_then_one_after_the_other() {
        let rate = Gcra::new(60, Duration::from_secs(60), 3);
        let at = Duration::from_secs(1000);
        for _ in 0..3 {
            assert_eq!(wait(&rate, at, NO_WAIT), Ok(Duration::ZERO));
        }
        assert_eq!(wait(&rate, at, NO_WAIT), Err(Duration::from_secs(1)));
        assert_eq!(wait(&rate, at + Duration::from_millis(400), NO_WAIT), Err(Duration::from_millis(600)));
        assert_eq!(wait(&rate, at + Duration::from_secs(1), NO_WAIT), Ok(Duration::ZERO));
        assert_eq!(wait(&rate, at + Duration::from_secs(1), NO_WAIT), Err(Duration::from_secs(1)));
        // Rested, it has its whole burst again, and not more.
        let later = at + Duration::from_secs(100);
        assert_eq!((0..10).filter(|_| rate.take(later, NO_WAIT).is_ok()).count(), 3);
    }

    #[test]
    fn who_waits_has_a_turn_of_his_own() {
        let rate = Gcra::new(10, Duration::from_secs(1), 1);
        let at = Duration::from_secs(5);
        let patience = Duration::from_millis(250);
        let mut turns: Vec<_> = (0..4).map(|_| rate.take(at, patience)).collect();
        let millis = Duration::from_millis;
        let waits: Vec<_> = turns.iter().map(|turn| turn.as_ref().map(|turn| turn.wait)).collect();
        assert_eq!(waits, [Ok(millis(0)), Ok(millis(100)), Ok(millis(200)), Err(&millis(300))]);
        turns.pop();
        rate.give_back(&turns.pop().unwrap().unwrap());
        assert_eq!(wait(&rate, at, patience), Ok(millis(200)));
    }

    /// Otherwise many calls that wait, all but the last of which go away, would make the rest come at once.
    #[test]
    fn a_turn_that_is_given_back_from_the_middle_moves_nobody_up() {
        let rate = Gcra::new(10, Duration::from_secs(1), 1);
        let (at, patience) = (Duration::from_secs(5), Duration::from_secs(1));
        let first = rate.take(at, patience).unwrap();
        let second = rate.take(at, patience).unwrap();
        let third = rate.take(at, patience).unwrap();
        for turn in [&first, &second] {
            rate.give_back(turn);
        }
        assert_eq!(wait(&rate, at, patience), Ok(Duration::from_millis(300)));
        assert_eq!(third.wait, Duration::from_millis(200));
    }

    #[test]
    fn threads_together_get_no_more_than_one_alone() {
        let rate = Arc::new(Gcra::new(1000, Duration::from_secs(1), 500));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let rate = Arc::clone(&rate);
                std::thread::spawn(move || {
                    (0..1000).filter(|_| rate.take(Duration::from_secs(9), NO_WAIT).is_ok()).count()
                })
            })
            .collect();
        let sum: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 500);
    }

    proptest! {
        /// In no window more pass than the burst and what the rate gives in it.
        #[test]
        fn no_window_has_more_than_burst_and_rate(
            calls in 1_u32..50,
            burst in 1_u32..20,
            gaps in proptest::collection::vec(0_u64..200, 1..300),
        ) {
            let per = Duration::from_secs(1);
            let rate = Gcra::new(calls, per, burst);
            let mut now = Duration::from_secs(3);
            let mut passed = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if rate.take(now, NO_WAIT).is_ok() {
                    passed.push(now);
                }
            }
            for (index, from) in passed.iter().enumerate() {
                for (count, to) in passed.iter().skip(index).enumerate() {
                    let given = (*to - *from).as_secs_f64() * f64::from(calls);
                    prop_assert!(count as f64 + 1.0 <= f64::from(burst) + given + 1e-6);
                }
            }
        }

        /// What is refused now passes after the time that it was told to wait.
        #[test]
        fn whoever_waits_as_he_was_told_passes(calls in 1_u32..50, burst in 1_u32..20, tries in 1_usize..100) {
            let rate = Gcra::new(calls, Duration::from_secs(1), burst);
            let now = Duration::from_secs(3);
            let refused = (0..tries).find_map(|_| rate.take(now, NO_WAIT).err());
            if let Some(refused) = refused {
                prop_assert_eq!(wait(&rate, now + refused, NO_WAIT), Ok(Duration::ZERO));
            }
        }
    }
}
