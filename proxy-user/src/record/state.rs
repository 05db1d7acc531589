//! What is written and what waits: the state that all who record share, under one lock.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use proxy_journal::{AppendError, Head, Prepared, PublicKey, Record, SegmentStart, Writer, segment};
use uuid::Uuid;

use super::RecordError;
use super::batch::{Batch, Ended};
use super::options::Durability;
use super::recorder::now;
use super::signal::Signal;
use super::signer::Signer;
use super::space::{Reserve, is_full};
use super::store::{self, Store};

/// The writer, and everything that waits for it.
#[derive(Debug)]
pub(super) struct State {
    dir: PathBuf,
    pub(super) writer: Writer<File>,
    pub(super) signal: Arc<Signal>,
    /// The segment that is written to, once more.
    pub(super) sync: Arc<File>,
    pub(super) signer: Signer,
    pub(super) durability: Durability,
    /// What is not written yet, in the order in which it came: outcomes, and the decisions of [`Self::batch`].
    pub(super) pending: Vec<Pending>,
    /// The decisions that are written together, as long as they are not.
    pub(super) batch: Option<Arc<Batch>>,
    /// Those that are written, and wait for the disk.
    pub(super) written: Vec<Arc<Batch>>,
    pub(super) pending_since: Option<Instant>,
    /// When the flushing thread wakes by itself; `None` while it waits to be told, or works.
    pub(super) wakes_at: Option<Instant>,
    pub(super) unsynced_since: Option<Instant>,
    /// How much of the segment is on the disk, and its last record there.
    pub(super) synced: (u64, Head),
    /// Records that no checkpoint is over, and since when there are any.
    pub(super) unsigned: u64,
    pub(super) unsigned_since: Option<Instant>,
    /// When the segment was begun.
    pub(super) segment_since: Instant,
    /// Bytes of bodies that are kept of its calls.
    pub(super) captured: u64,
    /// When the key took over.
    pub(super) key_since: Instant,
    /// Why the last write failed.
    pub(super) write_fault: Option<String>,
    /// Why the last sync failed.
    pub(super) sync_fault: Option<String>,
    pub(super) reserve: Reserve,
    /// Where it goes on when there is no room.
    pub(super) spill: Option<PathBuf>,
    /// The segment that is written to is there.
    pub(super) spilled: bool,
    pub(super) boot_id: String,
    /// When a segment is long enough, and a checkpoint is due by number.
    pub(super) segment_bytes: u64,
    pub(super) checkpoint_records: u64,
    pub(super) stopped: bool,
    pub(super) allowed: u64,
    pub(super) denied: u64,
    /// Allowed calls that have not ended, decided in this run.
    pub(super) open: HashSet<Uuid, RandomState>,
}

/// A line that waits to be written.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) line: Prepared,
    /// The call that it allows, which waits for it.
    pub(super) allows: Option<Uuid>,
}

/// How many open calls the first record of a segment names, at most: it must fit into a line. Those beyond are as calls of a run whose
/// end nobody recorded.
const MAX_CARRIED: usize = 20_000;

/// Bodies of a segment may take so many times the room of its records.
const MOST_CAPTURED: u64 = 16;

/// Why there is no room for calls.
const NO_ROOM: &str = "the disk is full";

impl State {
    pub(super) fn new(dir: &Path, store: Store, reserve: Reserve) -> (State, File) {
        let Store { writer, sync, spilled, signer, lock } = store;
        let now = Instant::now();
        let since = |file: std::io::Result<std::time::SystemTime>| {
            let age = file.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            now.checked_sub(age).unwrap_or(now)
        };
        let (segment_since, key_since) =
            (since(sync.metadata().and_then(|meta| meta.created())), since(signer.made()));
        let signal = Arc::new(Signal::default());
        signal.reached(writer.head().seq);
        let state = State {
            signal,
            dir: dir.to_owned(),
            synced: (writer.len(), writer.head()),
            writer,
            sync,
            signer,
            durability: Durability::Fast,
            pending: Vec::new(),
            batch: None,
            written: Vec::new(),
            pending_since: None,
            wakes_at: None,
            unsynced_since: None,
            unsigned: 1,
            unsigned_since: Some(now),
            segment_since,
            captured: 0,
            key_since,
            write_fault: None,
            sync_fault: None,
            reserve,
            spill: None,
            spilled,
            boot_id: String::new(),
            segment_bytes: u64::MAX,
            checkpoint_records: u64::MAX,
            stopped: false,
            allowed: 0,
            denied: 0,
            open: HashSet::default(),
        };
        (state, lock)
    }

    /// Whether a call may be begun, as far as there is room.
    pub(super) fn has_room(&self) -> Result<(), RecordError> {
        match self.reserve.spent && !self.spilled {
            false => Ok(()),
            true => Err(RecordError::Unwritable {
                path: self.dir.clone(),
                source: AppendError::Write(std::io::ErrorKind::StorageFull.into()),
            }),
        }
    }

    /// Writes everything pending, then `last`, with one write. When it fails nothing is written, the decisions are refused, and the
    /// outcomes stay pending. `allows`: the call that `last` allows.
    pub(super) fn append(
        &mut self,
        last: Option<&Prepared>,
        allows: Option<Uuid>,
    ) -> Result<(), RecordError> {
        if self.pending.is_empty() && last.is_none() {
            return Ok(());
        }
        let Err(source) = self.try_append(last) else {
            self.open.extend(allows);
            self.allowed += u64::from(allows.is_some());
            return Ok(());
        };
        let no_room = matches!(&source, AppendError::Write(error) if is_full(error));
        if no_room && !self.reserve.spent {
            self.reserve.spend();
            if self.spill.is_some() && !self.spilled && self.rotate("space", true).is_ok() {
                tracing::error!(journal = %self.dir.display(), "the disk is full: the journal goes on where it spills");
                return self.append(last, allows);
            }
            tracing::error!(journal = %self.dir.display(), "the disk is full: calls are refused until there is room");
            // What is no call goes on by the reserve.
            self.refuse_waiting(NO_ROOM);
            self.write_fault = Some(NO_ROOM.to_owned());
            if allows.is_none() {
                return self.append(last, None);
            }
            return Err(RecordError::Unwritable { path: self.dir.clone(), source });
        }
        if self.write_fault.is_none() {
            tracing::error!(journal = %self.dir.display(), error = describe(&source), "the journal cannot be written: calls are refused");
        }
        self.write_fault = Some(describe(&source));
        self.refuse_waiting(&describe(&source));
        Err(RecordError::Unwritable { path: self.dir.clone(), source })
    }

    fn try_append(&mut self, last: Option<&Prepared>) -> Result<(), AppendError> {
        self.writer.append_all(self.pending.iter().map(|pending| &pending.line).chain(last))?;
        self.signal.reached(self.writer.head().seq);
        let now = Instant::now();
        self.unsigned += u64::try_from(self.pending.len()).unwrap_or(u64::MAX) + u64::from(last.is_some());
        self.unsigned_since.get_or_insert(now);
        for id in self.pending.drain(..).filter_map(|pending| pending.allows) {
            self.allowed += 1;
            self.open.insert(id);
        }
        if let Some(batch) = self.batch.take() {
            match self.durability {
                Durability::Fast => batch.end(Ended::Written),
                Durability::Sync => self.written.push(batch),
            }
        }
        self.pending_since = None;
        self.unsynced_since.get_or_insert(now);
        if !self.reserve.spent && self.write_fault.take().is_some() {
            tracing::info!(journal = %self.dir.display(), "the journal can be written again");
        }
        Ok(())
    }

    /// Tells those whose decisions wait to be written that they are not.
    fn refuse_waiting(&mut self, why: &str) {
        self.pending.retain(|pending| pending.allows.is_none());
        if let Some(batch) = self.batch.take() {
            batch.end(Ended::Unwritten(why.to_owned()));
        }
    }

    /// Signs all records of the segment so far, if any is not signed yet.
    pub(super) fn checkpoint(&mut self) -> Result<Option<String>, RecordError> {
        if self.unsigned == 0 {
            return Ok(None);
        }
        // What it is over is on its way to the disk before it.
        self.append(None, None)?;
        let at = now();
        let Some(note) = self.writer.note(self.signer.journal(), at) else { return Ok(None) };
        let checkpoint = self.signer.sign(&note);
        let text = checkpoint.signed_note(at);
        let line =
            Prepared::new(&Record::Checkpoint(Box::new(checkpoint)), at).map_err(RecordError::TooLong)?;
        self.append(Some(&line), None)?;
        (self.unsigned, self.unsigned_since) = (0, None);
        Ok(Some(text))
    }

    /// Ends the segment, and goes on in the next one: here or, when it must be, where the journal spills.
    pub(super) fn rotate(&mut self, reason: &str, spill: bool) -> Result<(), RecordError> {
        let to = match &self.spill {
            Some(spilled) if spill => spilled.clone(),
            _ => self.dir.clone(),
        };
        self.unsigned = self.unsigned.max(1);
        // Its end first: where there is no room for that, nothing of the next one may be.
        self.checkpoint()?;
        self.sync.sync_data().map_err(|error| self.unsynced(&error))?;
        self.synced = (self.writer.len(), self.writer.head());
        let number = self.writer.number() + 1;
        let path = to.join(segment::file_name(number));
        let open = |source| RecordError::Open { path: path.clone(), source };
        let file = store::make_segment(&to, number).map_err(open)?;
        let sync = Arc::new(file.try_clone().map_err(open)?);
        let start = Record::Segment(SegmentStart {
            number,
            journal: Some(self.signer.journal()),
            key: Some(self.signer.public()),
            reason: reason.to_owned(),
            boot_id: self.boot_id.clone(),
            open: self.open.iter().copied().take(MAX_CARRIED).collect(),
        });
        let line = Prepared::new(&start, now()).map_err(RecordError::TooLong)?;
        if let Err((source, file)) = self.writer.rotate(file, &line) {
            drop(file);
            let _ = std::fs::remove_file(&path);
            return Err(RecordError::Unwritable { path: to, source });
        }
        self.signal.reached(self.writer.head().seq);
        let now = Instant::now();
        let before = self.synced.1;
        (self.sync, self.synced, self.segment_since, self.spilled) = (sync, (0, before), now, spill);
        self.captured = 0;
        (self.unsigned, self.unsigned_since) = (1, Some(now));
        self.unsynced_since.get_or_insert(now);
        Ok(())
    }

    pub(super) fn unsynced(&self, error: &std::io::Error) -> RecordError {
        RecordError::Unsynced { path: self.dir.clone(), why: error.to_string() }
    }

    /// Notes what came of bringing what was written to the disk.
    pub(super) fn note_sync(&mut self, synced: &std::io::Result<()>) {
        match synced {
            Ok(()) => {
                if self.sync_fault.take().is_some() {
                    tracing::info!(journal = %self.dir.display(), "the journal reaches its disk again");
                }
            }
            Err(error) => {
                if self.sync_fault.is_none() {
                    tracing::error!(journal = %self.dir.display(), %error, "the journal does not reach its disk: calls are refused");
                }
                self.sync_fault = Some(format!("the journal does not reach its disk: {error}"));
            }
        }
    }

    /// Tries whether there is room again, after there was none.
    pub(super) fn look_for_room(&mut self) {
        if !self.reserve.refill() {
            return;
        }
        self.write_fault = None;
        tracing::info!(journal = %self.dir.display(), "there is room on the disk of the journal again");
        if self.spilled
            && let Err(error) = self.rotate("space", false)
        {
            self.reserve.spend();
            tracing::error!(%error, "the journal does not come back from where it spilled");
        }
    }

    /// Whether calls are held back for want of room, or the journal is where it spills: then it is looked whether there is some again.
    pub(super) fn wants_room(&self) -> bool {
        self.reserve.spent || self.spilled
    }

    /// The key that signs.
    pub(super) fn key(&self) -> PublicKey {
        self.signer.public()
    }

    /// Whether the committing thread must be told of what was written, after it had nothing to do before.
    pub(super) fn is_pressing(&self) -> bool {
        !self.written.is_empty()
            || self.wants_room()
            || self.is_long()
            || self.unsigned >= self.checkpoint_records
    }

    /// Whether the segment is long enough, alone or with what is kept of bodies: all of that goes when the segment goes.
    fn is_long(&self) -> bool {
        self.writer.len() >= self.segment_bytes || self.captured / MOST_CAPTURED >= self.segment_bytes
    }

    /// Whether the segment is due to end, and why.
    pub(super) fn is_due(&self, age: Duration) -> Option<&'static str> {
        if self.is_long() {
            Some("size")
        } else if self.segment_since.elapsed() >= age {
            Some("age")
        } else {
            None
        }
    }
}

pub(super) fn describe(error: &AppendError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
