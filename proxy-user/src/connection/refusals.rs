//! Refusals: each has a record of its own, unless there are too many of one identity. Those are counted, and the journal is told how many
//! (`app::bounds`): otherwise a bot that is refused as fast as it can ask could fill the disk, or have the oldest segments removed.

use std::time::Duration;

use proxy_journal::Decision;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::services::Services;
use crate::authorize::Subject;
use crate::forward::error::chain;

impl Services {
    /// Counts a refusal, and records it; the id of its record. It has none when there were too many, or when it cannot be written, which is
    /// logged. It stands all the same.
    pub fn refused(&self, subject: &Subject, decision: impl FnOnce() -> Decision) -> Option<Uuid> {
        let tally = self.counters.tally(subject);
        tally.count_denied();
        if !tally.is_recorded(now()) {
            return None;
        }
        match self.recorder.refused(decision()) {
            Ok(id) => Some(id),
            Err(error) => {
                tracing::error!(error = %chain(&error), "a refusal cannot be recorded");
                None
            }
        }
    }

    /// Whether what is kept from a workload, and is no decision, has a record of its own.
    pub fn is_recorded(&self, subject: &Subject) -> bool {
        self.counters.tally(subject).is_recorded(now())
    }
}

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
}
