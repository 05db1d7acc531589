//! Writes decisions before they take effect, outcomes soon after, and keeps what is written on its way to the disk.
//!
//! # What is promised, and what it costs
//!
//! [`Recorder::begin`] returns when one `write(2)` brought the decision into the kernel's page cache: it is there whatever
//! happens to this process, `SIGKILL` included. A thread calls `fdatasync` at least every second, so a loss of power, or
//! of the kernel, can lose that last second. To wait for the disk before each call would cost milliseconds for each.
//!
//! Calls that are decided at the same time are written together ([`Recorder::begin_together`]), with one `write(2)` for all of them.
//!
//! The write is made where it is asked for, under a plain mutex, also on a thread of an async runtime: it takes a few
//! microseconds, less than handing it to another thread and waiting. The line is spelled before the lock is taken; its
//! place in the chain, its hash and the write are under it. When the disk stalls so that the kernel holds up writers,
//! calls wait; that is wanted, because they must not go unrecorded.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use proxy_journal::{
    AppendError, Decision, Head, Outcome, Prepared, Record, Stop, Timestamp, Verdict, Writer, text,
};
use uuid::Uuid;

use super::batch::Batch;
use super::journald::{JournaldHealth, Message, Sink};
use super::store::{self, Options, Store};
use super::{Receipt, RecordError};

/// Longest text of an outcome's error, or of the reason to stop, in bytes: an upstream must not fill the journal.
const MAX_ERROR: usize = 4096;

/// The one writer of a journal. Dropped without [`Recorder::stop`], it still writes what it holds.
#[derive(Debug)]
pub struct Recorder {
    pub(super) inner: Arc<Inner>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

/// What receipts and the flushing thread share with the recorder.
#[derive(Debug)]
pub(super) struct Inner {
    dir: PathBuf,
    state: Mutex<State>,
    /// The flushing thread has a new deadline.
    wake: Condvar,
    /// How long an outcome may wait for a decision that takes it along.
    flush_within: Duration,
    sync: File,
    pub(super) sink: Sink,
    /// Held for as long as anything can be written.
    _lock: File,
}

#[derive(Debug)]
pub(super) struct State {
    writer: Writer<File>,
    /// What is not written yet, in the order in which it came: outcomes, and the decisions of [`Self::batch`].
    pub(super) pending: Vec<Pending>,
    /// The decisions that are written together, as long as they are not.
    pub(super) batch: Option<Arc<Batch>>,
    pending_since: Option<Instant>,
    /// When the flushing thread wakes by itself; `None` while it waits to be told, or works.
    wakes_at: Option<Instant>,
    unsynced_since: Option<Instant>,
    /// Why the last write failed.
    write_fault: Option<String>,
    /// Why the last sync failed.
    sync_fault: Option<String>,
    stopped: bool,
    allowed: u64,
    denied: u64,
    pub(super) open: u64,
}

/// A line that waits to be written.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) line: Prepared,
    /// To allow a call, which waits for it.
    pub(super) is_decision: bool,
}

/// How the journal is, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Why calls are refused at present; `None` when all is well.
    pub error: Option<String>,
    /// Last record of the whole journal: how many there are, and the witness for a verification.
    pub head: Head,
    /// Calls allowed since the daemon started.
    pub allowed: u64,
    /// Calls and connections denied since the daemon started.
    pub denied: u64,
    /// Allowed calls that have not ended.
    pub open: u64,
    /// Outcomes that are not written yet.
    pub pending: usize,
    /// Age of the oldest record that may not be on the disk yet; `None` when all are.
    pub sync_lag: Option<Duration>,
    /// How systemd's journal takes the records.
    pub journald: JournaldHealth,
}

impl Recorder {
    /// Opens or makes the journal in `dir`, repairs what a kill left, closes the calls that were open then as
    /// interrupted, and writes `start`, or what the options have instead of it; then it is on the disk.
    ///
    /// # Errors
    /// [`RecordError`]: the directory is in use, may be written by others, is broken, or cannot be written.
    pub fn open(dir: &Path, options: Options) -> Result<Recorder, RecordError> {
        let Store { writer, sync, lock, begun } = store::open(dir, &options)?;
        let sink = Sink::start(options.journald.as_deref());
        for record in begun {
            sink.show(Message::Record(record));
        }
        let state = State {
            writer,
            pending: Vec::new(),
            batch: None,
            pending_since: None,
            wakes_at: None,
            unsynced_since: None,
            write_fault: None,
            sync_fault: None,
            stopped: false,
            allowed: 0,
            denied: 0,
            open: 0,
        };
        let (state, wake) = (Mutex::new(state), Condvar::new());
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            state,
            wake,
            flush_within: options.flush_within,
            sync,
            sink,
            _lock: lock,
        });
        let flusher = {
            let inner = Arc::clone(&inner);
            let run = move || inner.flush_until_stopped(options.flush_within, options.sync_within);
            std::thread::Builder::new().name("journal".to_owned()).spawn(run)
        };
        let flusher = flusher.map_err(|source| RecordError::Open { path: dir.to_owned(), source })?;
        Ok(Recorder { inner, flusher: Mutex::new(Some(flusher)) })
    }

    /// Writes the decision to allow a call, before the first byte of it goes anywhere. A nil `id` is replaced by a new one
    /// (UUID version 7).
    ///
    /// # Errors
    /// The decision is not in the journal: the call must be refused.
    pub fn begin(&self, decision: Decision) -> Result<Receipt, RecordError> {
        if decision.verdict != Verdict::Allow {
            return Err(RecordError::Misuse("there is no receipt for a decision that denies"));
        }
        let decision = self.inner.decide(decision)?;
        Ok(Receipt::new(Arc::clone(&self.inner), decision))
    }

    /// Writes the decision to deny a call or a connection, and returns its id. A nil `id` is replaced as in `begin`.
    ///
    /// # Errors
    /// The denial is not in the journal. It stands nevertheless.
    pub fn refused(&self, decision: Decision) -> Result<Uuid, RecordError> {
        if decision.verdict != Verdict::Deny {
            return Err(RecordError::Misuse("a decision that allows needs a receipt"));
        }
        self.inner.decide(decision).map(|decision| decision.id)
    }

    /// Writes a record that stands by itself: a policy that was loaded or refused, a connection past the proxy.
    ///
    /// # Errors
    /// It is not in the journal.
    pub fn note(&self, record: Record) -> Result<(), RecordError> {
        if matches!(record, Record::Decision(_) | Record::Outcome(_)) {
            return Err(RecordError::Misuse("decisions and outcomes are not notes"));
        }
        self.inner.write(&record, |_| ())?;
        self.inner.sink.show(Message::Record(record));
        Ok(())
    }

    /// How the journal is.
    pub fn health(&self) -> Health {
        let journald = self.inner.sink.health();
        let state = self.inner.lock();
        let error = state.write_fault.as_ref().or(state.sync_fault.as_ref());
        Health {
            error: error.cloned(),
            head: state.writer.head(),
            allowed: state.allowed,
            denied: state.denied,
            open: state.open,
            pending: state.pending.len(),
            sync_lag: state.unsynced_since.map(|since| since.elapsed()),
            journald,
        }
    }

    /// Ends on purpose: writes what is pending and `stop`, waits for the disk and ends the threads. Call it when no call is
    /// open any more; the outcome of one that still is, is written when it ends. A second `stop` does nothing.
    ///
    /// # Errors
    /// What was to be written is not in the journal or not on the disk.
    pub fn stop(&self, reason: &str) -> Result<(), RecordError> {
        self.close(Some(reason))
    }

    fn close(&self, reason: Option<&str>) -> Result<(), RecordError> {
        let flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(flusher) = flusher else { return Ok(()) };
        let stop =
            reason.map(|reason| Record::Stop(Stop { reason: text::shorten(reason, MAX_ERROR).to_owned() }));
        let last = stop.as_ref().map(|stop| Prepared::new(stop, now())).transpose();
        let last = last.map_err(RecordError::TooLong)?;
        let written = {
            let mut state = self.inner.lock();
            state.stopped = true;
            state.append(&self.inner.dir, last.as_ref())
        };
        self.inner.wake.notify_all();
        if flusher.join().is_err() {
            tracing::error!("the thread that syncs the journal ended in a panic");
        }
        if let (Some(stop), Ok(())) = (stop, &written) {
            self.inner.sink.show(Message::Record(stop));
        }
        self.inner.sink.stop();
        written?;
        let why = |error: std::io::Error| error.to_string();
        self.inner.sync.sync_data().map_err(|error| self.inner.unsynced(why(error)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Err(error) = self.close(None) {
            tracing::error!(%error, "the journal was not closed well");
        }
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs between a write and the change of the head.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsynced(&self, why: String) -> RecordError {
        RecordError::Unsynced { path: self.dir.clone(), why }
    }

    /// Writes a decision, with the outcomes before it.
    fn decide(&self, decision: Decision) -> Result<Arc<Decision>, RecordError> {
        let decision = named(decision);
        let record = Record::Decision(Arc::clone(&decision));
        self.write(&record, |state| match decision.verdict {
            Verdict::Allow => {
                state.allowed += 1;
                state.open += 1;
            }
            Verdict::Deny => state.denied += 1,
        })?;
        self.sink.show(Message::Record(record));
        Ok(decision)
    }

    /// Writes a record with everything that is pending, and notes its effect before anybody else can look.
    fn write(&self, record: &Record, effect: impl FnOnce(&mut State)) -> Result<(), RecordError> {
        let prepared = Prepared::new(record, now()).map_err(RecordError::TooLong)?;
        let mut state = self.ready()?;
        let synced_before = state.unsynced_since.is_none();
        state.append(&self.dir, Some(&prepared))?;
        effect(&mut state);
        drop(state);
        if synced_before {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The state, if something may be written.
    pub(super) fn ready(&self) -> Result<MutexGuard<'_, State>, RecordError> {
        let state = self.lock();
        if state.stopped {
            return Err(RecordError::Stopped);
        }
        match &state.sync_fault {
            Some(why) => Err(self.unsynced(why.clone())),
            None => Ok(state),
        }
    }

    /// Writes everything that is pending; whoever waits for it learns whether it was.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        let synced_before = state.unsynced_since.is_none();
        // It is logged, and told to those whose decisions it were.
        let _ = state.append(&self.dir, None);
        drop(state);
        if synced_before {
            self.wake.notify_one();
        }
    }

    pub(super) fn unwritable(&self, source: AppendError) -> RecordError {
        RecordError::Unwritable { path: self.dir.clone(), source }
    }

    /// Takes the outcome of an allowed call.
    pub(super) fn end(&self, decision: &Arc<Decision>, mut outcome: Outcome) {
        if let Some(error) = &mut outcome.error {
            error.truncate(text::shorten(error, MAX_ERROR).len());
        }
        let record = Record::Outcome(outcome);
        let prepared = Prepared::new(&record, now());
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        match prepared {
            Ok(line) => state.pending.push(Pending { line, is_decision: false }),
            // Its only text is cut to a length that fits.
            Err(error) => tracing::error!(call = %decision.id, %error, "an outcome cannot be spelled"),
        }
        let since = *state.pending_since.get_or_insert_with(Instant::now);
        // It wakes soon enough by itself as long as it was told of an outcome that a decision took along since.
        let tell = state.wakes_at.is_none_or(|at| at > since + self.flush_within);
        if state.stopped {
            // The thread that would write it is gone. A failure is logged there.
            let _ = state.append(&self.dir, None);
        }
        drop(state);
        if tell {
            self.wake.notify_one();
        }
        if let Record::Outcome(outcome) = record {
            self.sink.show(Message::Ended(Arc::clone(decision), outcome));
        }
    }

    /// The life of the flushing thread: writes outcomes that no decision took along, and syncs.
    fn flush_until_stopped(&self, flush_within: Duration, sync_within: Duration) {
        let mut sync_not_before = Instant::now();
        let mut state = self.lock();
        while !state.stopped {
            let now = Instant::now();
            let flush_at = state.pending_since.map(|since| since + flush_within);
            let sync_at = state.unsynced_since.map(|since| (since + sync_within).max(sync_not_before));
            if flush_at.is_some_and(|at| at <= now) {
                if state.append(&self.dir, None).is_err() {
                    // Again after the same time; the outcomes are still there.
                    state.pending_since = Some(now);
                }
            } else if sync_at.is_some_and(|at| at <= now) {
                let since = state.unsynced_since.take();
                drop(state);
                let synced = self.sync.sync_data();
                state = self.lock();
                if synced.is_err() {
                    state.unsynced_since = since;
                    sync_not_before = Instant::now() + sync_within;
                }
                state.note_sync(&self.dir, synced);
            } else {
                let until = flush_at.into_iter().chain(sync_at).min();
                state.wakes_at = until;
                state = match until {
                    Some(at) => {
                        let waited = self.wake.wait_timeout(state, at.saturating_duration_since(now));
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                state.wakes_at = None;
            }
        }
    }
}

impl State {
    /// Writes everything pending, then `last`, with one write. When it fails nothing is written, the decisions are refused, and the
    /// outcomes stay pending.
    fn append(&mut self, dir: &Path, last: Option<&Prepared>) -> Result<(), RecordError> {
        if self.pending.is_empty() && last.is_none() {
            return Ok(());
        }
        let batch = self.batch.take();
        match self.writer.append_all(self.pending.iter().map(|pending| &pending.line).chain(last)) {
            Ok(_) => {
                let begun = self.pending.iter().filter(|pending| pending.is_decision).count();
                let begun = u64::try_from(begun).unwrap_or(u64::MAX);
                self.allowed += begun;
                self.open += begun;
                self.pending.clear();
                if let Some(batch) = batch {
                    batch.end(Ok(()));
                }
                self.pending_since = None;
                self.unsynced_since.get_or_insert_with(Instant::now);
                if self.write_fault.take().is_some() {
                    tracing::info!(journal = %dir.display(), "the journal can be written again");
                }
                Ok(())
            }
            Err(source) => {
                if self.write_fault.is_none() {
                    tracing::error!(journal = %dir.display(), error = describe(&source), "the journal cannot be written: calls are refused");
                }
                self.write_fault = Some(describe(&source));
                self.pending.retain(|pending| !pending.is_decision);
                if let Some(batch) = batch {
                    batch.end(Err(describe(&source)));
                }
                Err(RecordError::Unwritable { path: dir.to_owned(), source })
            }
        }
    }

    fn note_sync(&mut self, dir: &Path, synced: std::io::Result<()>) {
        match synced {
            Ok(()) => {
                if self.sync_fault.take().is_some() {
                    tracing::info!(journal = %dir.display(), "the journal reaches its disk again");
                }
            }
            Err(error) => {
                if self.sync_fault.is_none() {
                    tracing::error!(journal = %dir.display(), %error, "the journal does not reach its disk: calls are refused");
                }
                self.sync_fault = Some(format!("the journal does not reach its disk: {error}"));
            }
        }
    }
}

fn describe(error: &AppendError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The decision with its id.
pub(super) fn named(mut decision: Decision) -> Arc<Decision> {
    if decision.id.is_nil() {
        decision.id = Uuid::now_v7();
    }
    Arc::new(decision)
}

pub(super) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
