//! Bounds that were reached: what was lost or refused for it is told to the log and the journal. Most are of tables of the kernel side.
//!
//! The programs count; here it is looked at each second, and for the last time when the daemon ends. Each bound is closed
//! by itself: what finds no room is refused, or asked for again; what is refused too often is refused without a record of its own.
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_journal::{Bound, Record};

use super::namespaces::Namespaces;
use crate::{connection::Services, kernel::Kernel};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same bound is told again after this time, with what came meanwhile.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Network namespaces that could not be served.
pub(super) const NAMESPACES_REFUSED: &str = "namespaces_refused";

/// Refusals that have no record of their own.
pub(super) const REFUSALS_UNRECORDED: &str = "refusals_unrecorded";
const UNRECORDED: &str =
    "refusals without a record of their own: there were more than limits.refusals_per_identity";

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
    services: Arc<Services>,
    told: [Told; BOUNDS.len()],
    /// Of refusals: of all together, and of each identity; `None` are those who have none.
    refusals: u64,
    refused: HashMap<Option<String>, Told>,
}

#[derive(Clone, Copy, Default)]
struct Told {
    total: u64,
    at: Option<Instant>,
}

impl Bounds {
    /// At the first look everything is told that was counted since the programs were attached: also what was lost while no
    /// daemon was there.
    pub(super) fn new(kernel: Arc<Kernel>, namespaces: Arc<Namespaces>, services: Arc<Services>) -> Self {
        let (told, refusals, refused) = Default::default();
        Self { kernel, namespaces, services, told, refusals, refused }
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
            let before = told.total;
            let Some(count) = told.more(total, last) else { continue };
            tracing::error!(counter = name, count, total, "{effect}");
            if !is_told(&self.services, None, name, count, total, effect) {
                told.total = before;
            }
        }
        self.look_at_refusals(last);
    }

    fn look_at_refusals(&mut self, last: bool) {
        let counters = &self.services.counters;
        if counters.unrecorded() == self.refusals {
            return;
        }
        let unknown = (None, counters.unknown().unrecorded());
        let identities =
            counters.identities().into_iter().map(|(name, tally)| (Some(name), tally.unrecorded()));
        let mut all = 0;
        for (identity, total) in identities.chain([unknown]).filter(|(_, total)| *total > 0) {
            let told = self.refused.entry(identity.clone()).or_default();
            let before = told.total;
            if let Some(count) = told.more(total, last) {
                tracing::error!(identity, count, total, "{UNRECORDED}");
                if !is_told(&self.services, identity, REFUSALS_UNRECORDED, count, total, UNRECORDED) {
                    told.total = before;
                }
            }
            all += told.total;
        }
        self.refusals = all;
    }
}

/// Tells the journal; what it does not take is told again.
fn is_told(
    services: &Services,
    identity: Option<String>,
    counter: &str,
    count: u64,
    total: u64,
    effect: &str,
) -> bool {
    let (counter, effect) = (counter.to_owned(), effect.to_owned());
    let noted = services.recorder.note(Record::Bound(Bound { identity, counter, count, total, effect }));
    if let Err(error) = &noted {
        tracing::error!(%error, "that a bound was reached cannot be recorded");
    }
    noted.is_ok()
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
