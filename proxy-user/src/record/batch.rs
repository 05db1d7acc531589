//! Decisions that are made at the same time, written together: one `write(2)` for all calls that were ready at once, and, in `sync` mode,
//! one `fdatasync(2)` for all that came while the one before was under way.

use std::sync::{Arc, OnceLock};

use proxy_journal::{Allowed, AppendError, Blame, Decision, Outcome, Prepared, Record, Verdict};
use tokio::sync::Notify;
use uuid::Uuid;

use super::options::Durability;
use super::recorder::{Inner, named, now};
use super::state::Pending;
use super::{Receipt, RecordError, Recorder};

/// What became of decisions that waited together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// They are where they must be before the calls go on.
    Written,
    /// They are not in the journal.
    Unwritten(String),
    /// They are in it, and did not reach the disk.
    Unsynced(String),
}

/// Decisions that wait for the same write.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Once it was tried.
    ended: OnceLock<Ended>,
    wake: Notify,
}

impl Batch {
    pub(super) fn end(&self, ended: Ended) {
        let _ = self.ended.set(ended);
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
        let call = decision.id;
        let line = Prepared::new(&Record::Decision(decision), now()).map_err(RecordError::TooLong)?;
        self.join(call, line).await
    }

    /// The same for a call, which has a name.
    ///
    /// # Errors
    /// As above.
    pub async fn begin_call(&self, allowed: &Allowed<'_>) -> Result<Receipt, RecordError> {
        let line = Prepared::allowed(allowed, now()).map_err(RecordError::TooLong)?;
        self.join(allowed.id, line).await
    }

    async fn join(&self, call: Uuid, line: Prepared) -> Result<Receipt, RecordError> {
        let (batch, leads) = {
            let mut state = self.inner.ready()?;
            state.has_room()?;
            let leads = state.batch.is_none();
            let batch = Arc::clone(state.batch.get_or_insert_default());
            state.pending.push(Pending { line, allows: Some(call) });
            if state.durability == Durability::Sync {
                drop(state);
                // It comes to it when it has brought the one before to the disk.
                if leads {
                    self.inner.wake.notify_one();
                }
                (batch, false)
            } else {
                // Nobody else has a call under way who could come with one now.
                let is_alone = leads && state.open.is_empty();
                drop(state);
                if is_alone {
                    self.inner.flush();
                }
                (batch, leads && !is_alone)
            }
        };
        let mut joined = Joined { inner: &self.inner, batch, call: Some(call) };
        if leads {
            tokio::task::yield_now().await;
            if joined.batch.ended.get().is_none() {
                self.inner.flush();
            }
        } else {
            joined.batch.wait().await;
        }
        joined.receipt()
    }
}

/// A decision that is in a batch. Dropped before it is written, it belongs to a call that nobody waits for any more: it is written for the
/// others, and ended.
struct Joined<'a> {
    inner: &'a Arc<Inner>,
    batch: Arc<Batch>,
    /// Taken for the receipt.
    call: Option<Uuid>,
}

impl Joined<'_> {
    /// The receipt, if it was written.
    fn receipt(&mut self) -> Result<Receipt, RecordError> {
        let call = self.call.take();
        match (self.batch.ended.get(), call) {
            (Some(Ended::Written), Some(call)) => Ok(Receipt::new(Arc::clone(self.inner), call)),
            (Some(Ended::Unwritten(why)), _) => {
                Err(self.inner.unwritable(AppendError::Write(std::io::Error::other(why.clone()))))
            }
            (Some(Ended::Unsynced(why)), Some(call)) => {
                // The journal says that it was allowed: it also says that it never went on.
                let error =
                    Some(format!("the call was refused: its decision did not reach the disk ({why})"));
                let refused = Outcome { error, blame: Some(Blame::Host), ..Outcome::default() };
                Receipt::new(Arc::clone(self.inner), call).complete(refused);
                Err(self.inner.unsynced(why.clone()))
            }
            _ => Err(RecordError::Misuse("a decision was not written when its turn had come")),
        }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if self.call.is_none() {
            return;
        }
        if self.batch.ended.get().is_none() {
            self.inner.flush();
        }
        // In `sync` mode it may be written, and not ended: that it was given up is recorded when its outcome can be.
        if self.batch.ended.get().is_none()
            && let Some(call) = self.call.take()
        {
            return Receipt::new(Arc::clone(self.inner), call).complete(given_up());
        }
        if let Ok(receipt) = self.receipt() {
            receipt.complete(given_up());
        }
    }
}

fn given_up() -> Outcome {
    let error = Some("the client went away before the call was sent".to_owned());
    Outcome { error, blame: Some(Blame::Client), ..Outcome::default() }
}
