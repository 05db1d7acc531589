//! Tables of the kernel side that were full: what was lost or refused for it is told to the log and the journal.
//!
//! The programs count; here it is looked at each second, and for the last time when the daemon ends. Each bound is closed
//! by itself: what finds no room is refused, or asked for again.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_journal::{Bound, Record};

use super::namespaces::Namespaces;
use crate::{kernel::Kernel, record::Recorder};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same bound is told again after this time, with what came meanwhile.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Network namespaces that could not be served.
pub(super) const NAMESPACES_REFUSED: &str = "namespaces_refused";

/// Counters that say that something was full, and what that means.
const BOUNDS: [(&str, &str); 5] = [
    (
        "events_lost",
        "refusals of the kernel side that are not in this journal; who was asked for is asked again",
    ),
    ("origin_lost", "connections that were closed: too many waited for their accept"),
    (
        "programs_lost",
        "processes whose program is not known, so they match no exe and no sha256: there are too many",
    ),
    ("refused_no_storage", "sockets that were refused: the kernel had no memory for what is known of them"),
    (NAMESPACES_REFUSED, "network namespaces whose connections are held back: too many are served"),
];

/// What was told of each bound.
pub(super) struct Bounds {
    kernel: Arc<Kernel>,
    namespaces: Arc<Namespaces>,
    recorder: Arc<Recorder>,
    told: [Told; BOUNDS.len()],
}

#[derive(Clone, Copy, Default)]
struct Told {
    total: u64,
    at: Option<Instant>,
}

impl Bounds {
    /// At the first look everything is told that was counted since the programs were attached: also what was lost while no
    /// daemon was there.
    pub(super) fn new(kernel: Arc<Kernel>, namespaces: Arc<Namespaces>, recorder: Arc<Recorder>) -> Self {
        Self { kernel, namespaces, recorder, told: Default::default() }
    }

    /// Looks again and again, until it is told to stop; then once more.
    pub(super) async fn watch(mut self, mut stop: tokio::sync::watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let last = tokio::select! {
                _ = look.tick() => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            self.look(last);
            if last {
                return;
            }
        }
    }

    fn look(&mut self, last: bool) {
        let mut counters = self.kernel.counters();
        counters.push((NAMESPACES_REFUSED, self.namespaces.refused()));
        for ((name, effect), told) in BOUNDS.iter().zip(&mut self.told) {
            let total = counters.iter().find(|(counter, _)| counter == name).map_or(0, |(_, total)| *total);
            let Some(count) = told.more(total, last) else { continue };
            tracing::error!(counter = name, count, total, "{effect}");
            let (counter, effect) = ((*name).to_owned(), (*effect).to_owned());
            if let Err(error) = self.recorder.note(Record::Bound(Bound { counter, count, total, effect })) {
                tracing::error!(%error, "that a bound was reached cannot be recorded");
            }
        }
    }
}

impl Told {
    /// How many came since it was told; nothing when there are none, or when it was told a moment ago.
    fn more(&mut self, total: u64, last: bool) -> Option<u64> {
        let count = total.saturating_sub(self.total);
        if count == 0 || (!last && self.at.is_some_and(|at| at.elapsed() < TELL_AGAIN)) {
            return None;
        }
        *self = Self { total, at: Some(Instant::now()) };
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_once_and_what_comes_soon_after_with_the_next() {
        let mut told = Told::default();
        assert_eq!(told.more(0, false), None);
        assert_eq!(told.more(3, false), Some(3));
        assert_eq!(told.more(3, true), None);
        assert_eq!(told.more(5, false), None, "not every second");
        assert_eq!(told.more(6, true), Some(3), "but at the end");
    }

    #[test]
    fn every_bound_has_a_counter_of_the_kernel_side_or_is_ours() {
        for (name, _) in BOUNDS {
            assert!(name == NAMESPACES_REFUSED || proxy_common::COUNTER_NAMES.contains(&name), "{name}");
        }
    }
}
