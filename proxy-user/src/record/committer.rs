//! The thread that brings to the disk what was written, signs it, and begins new segments. In `sync` mode calls wait for it:
//! all that are decided while it waits for the disk are written and brought there together.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proxy_journal::{Head, segment, verify};

use super::RecordError;
use super::batch::Ended;
use super::options::Durability;
use super::recorder::Inner;
use super::state::State;
use super::store::file;

/// How often is looked whether there is room again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// When the thread does what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) flush_within: Duration,
    pub(super) sync_within: Duration,
    pub(super) checkpoint_within: Duration,
    pub(super) key_lifetime: Duration,
    pub(super) segment_age: Duration,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Calls wait for the disk.
    Commit,
    /// Outcomes wait to be written.
    Flush,
    Sync,
    Checkpoint,
    HandOver,
    Rotate(&'static str),
    Room,
}

impl Inner {
    /// The life of the thread.
    pub(super) fn commit_until_stopped(&self, terms: &Terms) {
        // What failed is not tried again before.
        let mut not_before = Instant::now();
        let mut room_at = Instant::now();
        let mut state = self.lock();
        while !state.stopped {
            let now = Instant::now();
            match next(&state, terms, now, not_before, room_at) {
                Ok(task) => {
                    if task == Task::Room {
                        room_at = now + LOOK_FOR_ROOM;
                    }
                    let (done, after) = self.run(task, state);
                    state = after;
                    if !done {
                        not_before = Instant::now() + terms.sync_within;
                    }
                }
                Err(until) => {
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

    /// Does it, and says whether it worked.
    fn run<'a>(&'a self, task: Task, mut state: MutexGuard<'a, State>) -> (bool, MutexGuard<'a, State>) {
        let done = match task {
            Task::Commit => {
                // Those whose decisions are not written have been told.
                let _ = state.append(None, None);
                return self.sync(state);
            }
            Task::Flush => {
                let written = state.append(None, None);
                if written.is_err() && !state.pending.is_empty() {
                    // Again after the same time; the outcomes are still there.
                    state.pending_since = Some(Instant::now());
                }
                Ok(())
            }
            Task::Sync => return self.sync(state),
            Task::Checkpoint => match state.checkpoint() {
                Ok(note) => {
                    drop(state);
                    return self.publish(note);
                }
                Err(error) => Err(error),
            },
            Task::HandOver => {
                drop(state);
                let done = self.hand_over("the key has signed for as long as it may");
                state = self.lock();
                done
            }
            Task::Rotate(why) => {
                // Most of it is on the disk before the lock is taken for the rest.
                let sync = Arc::clone(&state.sync);
                drop(state);
                let synced = sync.sync_data();
                state = self.lock();
                let spilled = state.spilled;
                let rotated =
                    synced.map_err(|error| state.unsynced(&error)).and_then(|()| state.rotate(why, spilled));
                if rotated.is_ok() {
                    self.keeper.wake();
                }
                rotated
            }
            Task::Room => {
                let was = state.spilled;
                state.look_for_room();
                if was && !state.spilled {
                    self.keeper.wake();
                }
                Ok(())
            }
        };
        if let Err(error) = &done {
            tracing::error!(?task, error = %super::chain(error), "the journal cannot be kept as it should be; it is tried again");
        }
        (done.is_ok(), state)
    }

    /// Brings what is written to the disk, and lets those go on that wait for it.
    fn sync<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (bool, MutexGuard<'a, State>) {
        let since = state.unsynced_since.take();
        let waiting = std::mem::take(&mut state.written);
        let reached = (state.writer.len(), state.writer.head());
        let (number, from) = (state.writer.number(), state.synced);
        let again = state.sync_fault.is_some();
        let (file, spilled) = (Arc::clone(&state.sync), state.spilled);
        drop(state);
        let synced = match again {
            // The kernel takes pages that it could not write for clean: what they hold must be written once more.
            true => self.write_again(number, spilled, from, reached),
            false => Ok(()),
        };
        let synced = synced.and_then(|()| file.sync_data());
        let mut state = self.lock();
        match &synced {
            Ok(()) if state.writer.number() == number => state.synced = reached,
            // A segment that was ended meanwhile was brought to the disk then.
            Ok(()) => {}
            Err(_) => state.unsynced_since = since.or(state.unsynced_since),
        }
        state.note_sync(&synced);
        for batch in waiting {
            batch.end(match &synced {
                Ok(()) => Ended::Written,
                Err(error) => Ended::Unsynced(error.to_string()),
            });
        }
        (synced.is_ok(), state)
    }

    /// Writes the bytes of the segment between two places once more, if they are still those that were written.
    pub(super) fn write_again(
        &self,
        number: u32,
        spilled: bool,
        from: (u64, Head),
        to: (u64, Head),
    ) -> io::Result<()> {
        let mut path = self.dir.clone();
        if spilled {
            path.push(segment::SPILL);
        }
        path.push(segment::file_name(number));
        let file = file(&path, OpenOptions::new().read(true).write(true))?;
        let (mine, theirs) = (self.lock().sync.metadata()?, file.metadata()?);
        let mut bytes = vec![0; usize::try_from(to.0 - from.0).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, from.0)?;
        let is_same = (mine.dev(), mine.ino()) == (theirs.dev(), theirs.ino());
        if !is_same || verify::follows(&bytes, from.1) != Some(to.1) {
            return Err(io::Error::other("what was written is not there any more; start the daemon again"));
        }
        file.write_all_at(&bytes, from.0)
    }

    /// Shows a checkpoint to those who keep it elsewhere, after what it is over is on the disk.
    fn publish(&self, note: Option<String>) -> (bool, MutexGuard<'_, State>) {
        let (synced, state) = self.sync(self.lock());
        if let Some(note) = note.filter(|_| synced) {
            self.checkpoints.send_replace(Some(Arc::from(note)));
        }
        (synced, state)
    }

    /// Makes another key sign.
    pub(super) fn hand_over(&self, reason: &str) -> Result<(), RecordError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(RecordError::Stopped);
        }
        state.checkpoint()?;
        // What waits would come between the head that is signed and the record.
        state.append(None, None)?;
        let (key, record) = state.signer.next(state.writer.head(), reason)?;
        let before = state.writer.len();
        let line =
            proxy_journal::Prepared::new(&record, super::recorder::now()).map_err(RecordError::TooLong)?;
        state.append(Some(&line), None)?;
        state.sync.sync_data().map_err(|error| state.unsynced(&error))?;
        let at = |source| RecordError::Open { path: self.dir.clone(), source };
        state.signer.take_over(key).map_err(at)?;
        state.key_since = Instant::now();
        let mut text = vec![0; usize::try_from(state.writer.len() - before).unwrap_or(0)];
        state.sync.read_exact_at(&mut text, before).map_err(at)?;
        state.signer.note(&text).map_err(at)?;
        state.checkpoint()?;
        tracing::info!(key = %state.key(), "another key signs the journal");
        Ok(())
    }
}

/// What is due, or until when nothing is.
fn next(
    state: &State,
    terms: &Terms,
    now: Instant,
    not_before: Instant,
    room_at: Instant,
) -> Result<Task, Option<Instant>> {
    let commit = (state.durability == Durability::Sync
        && (state.batch.is_some() || !state.written.is_empty()))
    .then_some((Task::Commit, now));
    let flush = state.pending_since.map(|since| (Task::Flush, since + terms.flush_within));
    let sync = state.unsynced_since.map(|since| (Task::Sync, (since + terms.sync_within).max(not_before)));
    let checkpoint = state.unsigned_since.map(|since| {
        let at =
            if state.unsigned >= state.checkpoint_records { now } else { since + terms.checkpoint_within };
        (Task::Checkpoint, at.max(not_before))
    });
    let hand_over = Some((Task::HandOver, (state.key_since + terms.key_lifetime).max(not_before)));
    let rotate = match state.is_due(terms.segment_age) {
        Some(why) => Some((Task::Rotate(why), now.max(not_before))),
        None => Some((Task::Rotate("age"), (state.segment_since + terms.segment_age).max(not_before))),
    };
    let room = state.wants_room().then_some((Task::Room, room_at));
    let tasks = [commit, flush, sync, checkpoint, rotate, hand_over, room];
    match tasks.iter().flatten().min_by_key(|(_, at)| *at) {
        Some((task, at)) if *at <= now => Ok(*task),
        Some((_, at)) => Err(Some(*at)),
        None => Err(None),
    }
}
