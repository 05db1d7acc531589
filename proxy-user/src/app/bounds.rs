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

/// What it means that refusals have no record of their own.
const UNRECORDED: &str = "refused without a record of their own: more than limits.refusals_per_identity, or the journal could not be \
                          written";

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
    /// Of refusals: of each identity; `None` are those who have none.
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
        Self { kernel, namespaces, services, told: Default::default(), refused: HashMap::new() }
    }

    /// Looks again and again, until it is told to stop; who then has it looks for the last time when nothing more is served.
    pub(super) async fn watch(mut self, mut stop: tokio::sync::watch::Receiver<bool>) -> Self {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = look.tick() => self.look(false),
                _ = stop.wait_for(|stop| *stop) => return self,
            }
        }
    }

    /// Tells what was not told yet.
    pub(super) fn look_for_the_last_time(&mut self) {
        self.look(true);
    }

    fn look(&mut self, last: bool) {
        let mut counters = self.kernel.counters();
        counters.push((NAMESPACES_REFUSED, self.namespaces.refused()));
        for ((name, effect), told) in BOUNDS.iter().zip(&mut self.told) {
            let total = counters.iter().find(|(counter, _)| counter == name).map_or(0, |(_, total)| *total);
            told.tell(&self.services, None, (name, effect), total, last);
        }
        self.look_at_refusals(last);
    }

    fn look_at_refusals(&mut self, last: bool) {
        let counters = &self.services.counters;
        if counters.unrecorded() == self.refused.values().map(|told| told.total).sum::<u64>() {
            return;
        }
        let unknown = (None, counters.unknown().unrecorded());
        let identities =
            counters.identities().into_iter().map(|(name, tally)| (Some(name), tally.unrecorded()));
        for (identity, total) in identities.chain([unknown]).filter(|(_, total)| *total > 0) {
            let told = self.refused.entry(identity.clone()).or_default();
            told.tell(&self.services, identity, (Bound::REFUSALS, UNRECORDED), total, last);
        }
    }
}

impl Told {
    /// Tells the log and the journal what came since it was told, of this counter and what it means; what the journal does not take is told again.
    fn tell(
        &mut self,
        services: &Services,
        identity: Option<String>,
        (counter, effect): (&str, &str),
        total: u64,
        last: bool,
    ) {
        let before = self.total;
        let Some(count) = self.more(total, last) else { return };
        tracing::error!(identity, counter, count, total, "{effect}");
        let (counter, effect) = (counter.to_owned(), effect.to_owned());
        let bound = Record::Bound(Bound { identity, counter, count, total, effect });
        if let Err(error) = services.recorder.note(bound) {
            tracing::error!(%error, "that a bound was reached cannot be recorded");
            self.total = before;
        }
    }

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
