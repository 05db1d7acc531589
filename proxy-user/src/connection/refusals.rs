//! Refusals: each has a record of its own, unless there are too many of one identity, or the journal cannot be written. Those are counted, and the
//! journal is told how many (`app::bounds`): otherwise a bot that is refused as fast as it can ask could fill the disk, or have the oldest
//! segments removed.

use std::time::Duration;

use proxy_journal::Decision;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::services::{RefusedBy, Services};
use crate::authorize::Subject;
use crate::forward::error::chain;

impl Services {
    /// Counts a refusal, and records it; the id of its record, if it has one. It stands all the same.
    pub fn refused(
        &self,
        subject: &Subject,
        by: RefusedBy,
        decision: impl FnOnce() -> Decision,
    ) -> Option<Uuid> {
        let tally = self.counters.tally(subject);
        tally.count_denied();
        if !tally.take_record(by, now()) {
            return None;
        }
        let decision = decision();
        let refusal = decision.refusal.clone();
        match self.recorder.refused(decision) {
            Ok(id) => Some(id),
            Err(error) => {
                tally.count_unrecorded();
                tracing::error!(error = %chain(&error), refusal = refusal.as_deref(), "a refusal cannot be recorded");
                None
            }
        }
    }

    /// Takes the place of a record for what is kept from a workload and is no decision; that there is none is counted.
    pub fn take_record(&self, subject: &Subject, by: RefusedBy) -> bool {
        self.counters.tally(subject).take_record(by, now())
    }

    /// Counts what is refused because the journal cannot be written.
    pub(super) fn refused_without_record(&self, subject: &Subject) {
        let tally = self.counters.tally(subject);
        tally.count_denied();
        tally.count_unrecorded();
    }
}

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
}
