//! Decisions that are made at the same time, written together: one `write(2)` for all calls that were ready at once.

use std::sync::{Arc, OnceLock};

use proxy_journal::{AppendError, Blame, Decision, Outcome, Prepared, Record, Verdict};
use tokio::sync::Notify;

use super::journald::Message;
use super::recorder::{Inner, Pending, named, now};
use super::{Receipt, RecordError, Recorder};

/// Decisions that wait for the same write.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Once it was tried; if it failed, why.
    ended: OnceLock<Result<(), String>>,
    wake: Notify,
}

impl Batch {
    pub(super) fn end(&self, written: Result<(), String>) {
        let _ = self.ended.set(written);
        self.wake.notify_waiters();
    }

    async fn wait(&self) {
        let mut woken = std::pin::pin!(self.wake.notified());
        // From here on it hears of it.
        woken.as_mut().enable();
        if self.ended.get().is_none() {
            woken.await;
        }
    }
}

impl Recorder {
    /// As [`Recorder::begin`], together with the other calls that are ready now. The first of them lets the others have their turn, and
    /// then writes for all. A call that is alone does not wait.
    ///
    /// # Errors
    /// The decision is not in the journal: the call must be refused.
    pub async fn begin_together(&self, decision: Decision) -> Result<Receipt, RecordError> {
        if decision.verdict != Verdict::Allow {
            return Err(RecordError::Misuse("there is no receipt for a decision that denies"));
        }
        let decision = named(decision);
        let record = Record::Decision(Arc::clone(&decision));
        let line = Prepared::new(&record, now()).map_err(RecordError::TooLong)?;
        let (batch, leads) = {
            let mut state = self.inner.ready()?;
            let leads = state.batch.is_none();
            let batch = Arc::clone(state.batch.get_or_insert_default());
            state.pending.push(Pending { line, is_decision: true });
            // Nobody else has a call under way who could come with one now.
            let is_alone = leads && state.open == 0;
            drop(state);
            if is_alone {
                self.inner.flush();
            }
            (batch, leads && !is_alone)
        };
        let mut joined = Joined { inner: &self.inner, batch, decision: Some(decision) };
        if leads {
            tokio::task::yield_now().await;
            if joined.batch.ended.get().is_none() {
                self.inner.flush();
            }
        } else {
            joined.batch.wait().await;
        }
        let receipt = joined.receipt()?;
        self.inner.sink.show(Message::Record(record));
        Ok(receipt)
    }
}

/// A decision that is in a batch. Dropped before it is written, it belongs to a call that nobody waits for any more: it is written for the
/// others, and ended.
struct Joined<'a> {
    inner: &'a Arc<Inner>,
    batch: Arc<Batch>,
    /// Taken for the receipt.
    decision: Option<Arc<Decision>>,
}

impl Joined<'_> {
    /// The receipt, if it was written.
    fn receipt(&mut self) -> Result<Receipt, RecordError> {
        let decision = self.decision.take();
        match (self.batch.ended.get(), decision) {
            (Some(Ok(())), Some(decision)) => Ok(Receipt::new(Arc::clone(self.inner), decision)),
            (Some(Err(why)), _) => {
                Err(self.inner.unwritable(AppendError::Write(std::io::Error::other(why.clone()))))
            }
            _ => Err(RecordError::Misuse("a decision was not written when its turn had come")),
        }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if self.decision.is_none() {
            return;
        }
        if self.batch.ended.get().is_none() {
            self.inner.flush();
        }
        if let Ok(receipt) = self.receipt() {
            let error = Some("the client went away before the call was sent".to_owned());
            receipt.complete(Outcome { error, blame: Some(Blame::Client), ..Outcome::default() });
        }
    }
}
