//! The proof that a call's decision is in the journal, and the one way to record how it ended.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_journal::{Blame, Outcome};
use uuid::Uuid;

use super::recorder::Inner;

/// Whoever forwards a call must hold this. Only [`super::Recorder::begin`] makes one, and it ends with one outcome: the
/// one given to [`Receipt::complete`], or, when it is dropped, `abandoned`.
#[must_use = "a call whose receipt is dropped is recorded as abandoned"]
pub struct Receipt {
    call: Uuid,
    begun: Instant,
    /// Taken when the outcome is recorded.
    recorder: Option<Arc<Inner>>,
}

impl Receipt {
    pub(super) fn new(recorder: Arc<Inner>, call: Uuid) -> Receipt {
        Receipt { call, begun: Instant::now(), recorder: Some(recorder) }
    }

    /// Names the call: in the journal, in logs, and to the client.
    pub fn id(&self) -> Uuid {
        self.call
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
        outcome.id = self.call;
        if outcome.duration_us == 0 {
            outcome.duration_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        recorder.end(self.call, outcome);
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
        f.debug_tuple("Receipt").field(&self.call).finish()
    }
}
