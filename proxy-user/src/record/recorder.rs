//! Writes decisions before they take effect, outcomes soon after, and keeps what is written on its way to the disk.
//!
//! # What is promised, and what it costs
//!
//! In `fast` mode [`Recorder::begin_together`] returns when one `write(2)` brought the decision into the kernel's page cache: it is there
//! whatever happens to this process, `SIGKILL` included. A thread calls `fdatasync` at least every second, so a loss of power, or
//! of the kernel, can lose that last second. In `sync` mode it returns when the disk has it ([`super::committer`]), which costs each call
//! what its disk takes.
//!
//! Calls that are decided at the same time are written together, with one `write(2)` for all of them.
//!
//! The write is made where it is asked for, under a plain mutex, also on a thread of an async runtime: it takes a few
//! microseconds, less than handing it to another thread and waiting. The line is spelled before the lock is taken; its
//! place in the chain, its hash and the write are under it. When the disk stalls so that the kernel holds up writers,
//! calls wait; that is wanted, because they must not go unrecorded.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use proxy_journal::{
    AppendError, Decision, Head, Outcome, Prepared, PublicKey, Record, Stop, Timestamp, Verdict, text,
};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::batch::Ended;
use super::capture::Captures;
use super::captures::{self, Call, Work};
use super::committer::Terms;
use super::keeper::{Bell, Keep};
use super::options::{Durability, Options};
use super::signal::Signal;
use super::space::Reserve;
use super::state::{Pending, State};
use super::{Receipt, RecordError, store};

/// Longest text of an outcome's error, or of the reason to stop, in bytes: an upstream must not fill the journal.
const MAX_ERROR: usize = 4096;

/// The one writer of a journal. Dropped without [`Recorder::stop`], it still writes what it holds.
#[derive(Debug)]
pub struct Recorder {
    pub(super) inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where bodies are kept for auditors, if there are any.
    captures: Option<Mutex<Sender<Work>>>,
}

/// What receipts and the flushing thread share with the recorder.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    state: Mutex<State>,
    /// The committing thread has a new deadline.
    pub(super) wake: Condvar,
    /// How long an outcome may wait for a decision that takes it along.
    flush_within: Duration,
    pub(super) keeper: Bell,
    /// The newest checkpoint, as a signed note, when what it is over is on the disk.
    pub(super) checkpoints: watch::Sender<Option<Arc<str>>>,
    /// Held for as long as anything can be written.
    _lock: File,
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
    /// When a call counts as recorded.
    pub durability: Durability,
    /// Number of the segment that is written to.
    pub segment: u32,
    /// Whether it is where the journal spills, because its own disk is full.
    pub spilled: bool,
    /// The key that signs.
    pub key: PublicKey,
    /// Records that no checkpoint is over yet.
    pub unsigned: u64,
}

impl Recorder {
    /// Opens or makes the journal in `dir`, repairs what a kill left, closes the calls that were open then as
    /// interrupted, and writes `start`, or what the options have instead of it; then it is on the disk.
    ///
    /// # Errors
    /// [`RecordError`]: the directory is in use, may be written by others, is broken, or cannot be written.
    pub fn open(dir: &Path, options: Options) -> Result<Recorder, RecordError> {
        let store = store::open(dir, &options)?;
        let opened = |source| RecordError::Open { path: dir.to_owned(), source };
        let reserve = Reserve::take(dir, options.reserve).map_err(opened)?;
        if reserve.spent {
            tracing::error!(journal = %dir.display(), "there is no room for the reserve of the journal (journal.reserve): calls are refused until there is");
        }
        let (mut state, lock) = State::new(dir, store, reserve);
        state.durability = options.durability;
        state.spill.clone_from(&options.spill);
        state.boot_id.clone_from(&options.start.boot_id);
        (state.segment_bytes, state.checkpoint_records) = (options.segment_bytes, options.checkpoint_records);
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            state: Mutex::new(state),
            wake: Condvar::new(),
            flush_within: options.flush_within,
            keeper: Bell::default(),
            checkpoints: watch::channel(None).0,
            _lock: lock,
        });
        let mut recorder = Recorder { inner: Arc::clone(&inner), threads: Mutex::default(), captures: None };
        let terms = Terms {
            flush_within: options.flush_within,
            sync_within: options.sync_within,
            checkpoint_within: options.checkpoint_within,
            key_lifetime: options.key_lifetime,
            segment_age: options.segment_age,
        };
        let (compress, keep_for, keep_bytes) = (options.compress, options.keep_for, options.keep_bytes);
        let keep = Keep { compress, keep_for, keep_bytes };
        if !options.auditors.is_empty() {
            let (work, orders) = channel();
            recorder.captures = Some(Mutex::new(work.clone()));
            let (auditors, durability, reserve) = (options.auditors, options.durability, options.reserve);
            let terms = captures::Terms { auditors, durability, reserve };
            let keeping = Arc::clone(&inner);
            // The first of them, so that it is the first to end.
            recorder
                .spawn("journal-bodies", move || keeping.keep_bodies(&terms, work, &orders))
                .map_err(opened)?;
        }
        let committing = Arc::clone(&inner);
        recorder.spawn("journal", move || committing.commit_until_stopped(&terms)).map_err(opened)?;
        recorder.spawn("journal-keeper", move || inner.keep_until_stopped(&keep)).map_err(opened)?;
        Ok(recorder)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
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
        let receipt = Receipt::new(Arc::clone(&self.inner), decision.id);
        self.inner.reach_disk()?;
        Ok(receipt)
    }

    /// Opens what the bodies of a call of `identity` are kept in, at most `most` bytes of each, before anything of it goes anywhere.
    ///
    /// # Errors
    /// They cannot be kept: the call must be refused.
    pub async fn capture(
        &self,
        receipt: &Receipt,
        identity: Option<&str>,
        most: u64,
        has_request: bool,
    ) -> Result<Captures, RecordError> {
        let failed = |why: Arc<str>| RecordError::Uncaptured { path: self.inner.dir.clone(), why };
        let work = self.captures.as_ref().ok_or_else(|| failed("no auditors are named".into()))?;
        let (answer, opened) = oneshot::channel();
        let open = Work::Open {
            call: Call { id: receipt.id(), identity: identity.map(Arc::from) },
            most,
            has_request,
            answer,
        };
        let sent = work.lock().unwrap_or_else(PoisonError::into_inner).send(open);
        let opened = match sent {
            Ok(()) => opened.await.ok(),
            Err(_) => None,
        };
        opened.unwrap_or_else(|| Err("the thread that writes them has ended".into())).map_err(failed)
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
        self.inner.write(&record, None)
    }

    /// Tells how far the journal is written.
    pub fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.inner.lock().signal)
    }

    /// How the journal is.
    pub fn health(&self) -> Health {
        let state = self.inner.lock();
        let error = state.write_fault.as_ref().or(state.sync_fault.as_ref());
        Health {
            error: error.cloned(),
            head: state.writer.head(),
            allowed: state.allowed,
            denied: state.denied,
            open: u64::try_from(state.open.len()).unwrap_or(u64::MAX),
            pending: state.pending.len(),
            sync_lag: state.unsynced_since.map(|since| since.elapsed()),
            durability: state.durability,
            segment: state.writer.number(),
            spilled: state.spilled,
            key: state.key(),
            unsigned: state.unsigned,
        }
    }

    /// The newest checkpoint, as a signed note, from the time on when what it is over is on the disk.
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.checkpoints.subscribe()
    }

    /// Makes another key sign, and destroys the one that did. Blocks on the disk.
    ///
    /// # Errors
    /// The old one goes on.
    pub fn hand_over(&self, reason: &str) -> Result<PublicKey, RecordError> {
        self.inner.hand_over(reason)?;
        Ok(self.inner.lock().key())
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
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if threads.is_empty() {
            return Ok(());
        }
        let mut threads = threads.into_iter();
        if let Some(work) = &self.captures {
            let _ = work.lock().unwrap_or_else(PoisonError::into_inner).send(Work::Stop);
            // What it still has to write are outcomes, which come before the end.
            if threads.next().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that keeps bodies ended in a panic");
            }
        }
        let stop =
            reason.map(|reason| Record::Stop(Stop { reason: text::shorten(reason, MAX_ERROR).to_owned() }));
        let last = stop.as_ref().map(|stop| Prepared::new(stop, now())).transpose();
        let last = last.map_err(RecordError::TooLong)?;
        let written = {
            let mut state = self.inner.lock();
            state.stopped = true;
            state.append(last.as_ref(), None).and_then(|()| state.checkpoint())
        };
        self.inner.wake.notify_all();
        self.inner.keeper.end();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal ended in a panic");
            }
        }
        let synced = self.inner.reach_disk_now();
        for batch in std::mem::take(&mut self.inner.lock().written) {
            batch.end(match &synced {
                Ok(()) => Ended::Written,
                Err(error) => Ended::Unsynced(super::chain(error)),
            });
        }
        let note = written?;
        synced?;
        if let Some(note) = note {
            self.inner.checkpoints.send_replace(Some(Arc::from(note)));
        }
        Ok(())
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

    pub(super) fn unsynced(&self, why: String) -> RecordError {
        RecordError::Unsynced { path: self.dir.clone(), why }
    }

    /// Writes a decision, with the outcomes before it.
    fn decide(&self, decision: Decision) -> Result<Arc<Decision>, RecordError> {
        let decision = named(decision);
        let record = Record::Decision(Arc::clone(&decision));
        self.write(&record, Some(&decision))?;
        Ok(decision)
    }

    /// Writes a record with everything that is pending, and notes its effect before anybody else can look.
    fn write(&self, record: &Record, decision: Option<&Decision>) -> Result<(), RecordError> {
        let prepared = Prepared::new(record, now()).map_err(RecordError::TooLong)?;
        let mut state = self.ready()?;
        let synced_before = state.unsynced_since.is_none();
        let allows =
            decision.filter(|decision| decision.verdict == Verdict::Allow).map(|decision| decision.id);
        if allows.is_some() {
            state.has_room()?;
        }
        let written = state.append(Some(&prepared), allows);
        state.denied += u64::from(written.is_ok() && decision.is_some() && allows.is_none());
        let tell = synced_before || state.is_pressing();
        drop(state);
        if tell {
            self.wake.notify_one();
        }
        written
    }

    /// Writes a record of the journal about itself, signs it and waits for the disk.
    pub(super) fn note_now(&self, record: &Record) -> Result<(), RecordError> {
        self.write(record, None)?;
        self.lock().checkpoint()?;
        self.reach_disk_now()
    }

    /// In `sync` mode, waits for the disk. Blocks.
    fn reach_disk(&self) -> Result<(), RecordError> {
        let durability = self.lock().durability;
        if durability == Durability::Sync { self.reach_disk_now() } else { Ok(()) }
    }

    fn reach_disk_now(&self) -> Result<(), RecordError> {
        let file = Arc::clone(&self.lock().sync);
        file.sync_data().map_err(|error| self.unsynced(error.to_string()))
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
        let _ = state.append(None, None);
        let tell = synced_before || state.is_pressing();
        drop(state);
        if tell {
            self.wake.notify_one();
        }
    }

    pub(super) fn unwritable(&self, source: AppendError) -> RecordError {
        RecordError::Unwritable { path: self.dir.clone(), source }
    }

    /// Takes the outcome of an allowed call.
    pub(super) fn end(&self, call: Uuid, mut outcome: Outcome) {
        if let Some(error) = &mut outcome.error {
            error.truncate(text::shorten(error, MAX_ERROR).len());
        }
        let prepared = Prepared::outcome(&outcome, now());
        let mut state = self.lock();
        state.open.remove(&call);
        match prepared {
            Ok(line) => state.pending.push(Pending { line, allows: None }),
            // Its only text is cut to a length that fits.
            Err(error) => tracing::error!(%call, %error, "an outcome cannot be spelled"),
        }
        let since = *state.pending_since.get_or_insert_with(Instant::now);
        // It wakes soon enough by itself as long as it was told of an outcome that a decision took along since.
        let tell = state.wakes_at.is_none_or(|at| at > since + self.flush_within);
        if state.stopped {
            // The thread that would write it is gone. A failure is logged there.
            let _ = state.append(None, None);
        }
        drop(state);
        if tell {
            self.wake.notify_one();
        }
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
