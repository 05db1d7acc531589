//! The proof that a call's decision is in the journal, and the one way to record how it ended.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_journal::{Blame, Decision, Outcome};
use uuid::Uuid;

use super::recorder::Inner;

/// Whoever forwards a call must hold this. Only [`super::Recorder::begin`] makes one, and it ends with one outcome: the
/// one given to [`Receipt::complete`], or, when it is dropped, `abandoned`.
#[must_use = "a call whose receipt is dropped is recorded as abandoned"]
pub struct Receipt {
    decision: Arc<Decision>,
    begun: Instant,
    /// Taken when the outcome is recorded.
    recorder: Option<Arc<Inner>>,
}

impl Receipt {
    pub(super) fn new(recorder: Arc<Inner>, decision: Arc<Decision>) -> Receipt {
        Receipt { decision, begun: Instant::now(), recorder: Some(recorder) }
    }

    /// Names the call: in the journal, in logs, and to the client.
    pub fn id(&self) -> Uuid {
        self.decision.id
    }

    /// The decision as it is in the journal.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    pub(super) fn shared(&self) -> Arc<Decision> {
        Arc::clone(&self.decision)
    }

    /// Time since the decision was written.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Records how the call ended. Its `id` is set here; `duration_us` too when it is 0. Never fails for the caller: an
    /// outcome that cannot be written is kept until it can, and no call is begun before.
    pub fn complete(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&mut self, mut outcome: Outcome) {
        let Some(recorder) = self.recorder.take() else { return };
        outcome.id = self.decision.id;
        if outcome.duration_us == 0 {
            outcome.duration_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        recorder.end(&self.decision, outcome);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let error = Some("abandoned".to_owned());
        self.finish(Outcome { error, blame: Some(Blame::Us), ..Outcome::default() });
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.decision.id).finish()
    }
}
