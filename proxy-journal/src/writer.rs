//! Appends records to a journal, one line for each, chained by hashes.
//!
//! # Format, version 1
//!
//! A segment (`journal-00000001.jsonl`) holds one JSON object per line, UTF-8, each ended by one `\n`, at most 1 MiB:
//!
//! ```text
//! {"v":1,"seq":7,"time":"2026-11-24T20:00:00.123456Z","prev":"<64 hex>","kind":"decision", … ,"hash":"<64 hex>"}
//! ```
//!
//! * `v` is the version of the format, `seq` counts records from 1 without gaps, `time` says in UTC when the event
//!   happened. Order is that of `seq`; times may step back by some milliseconds, and as the clock is set.
//! * `hash` is SHA-256 over the exact bytes of the line up to, and without, `,"hash":"`. `prev` is the `hash` of the line
//!   before; in the first line it is 64 zeros. Hashes are in lower case.
//! * The first four fields and the last stand in this order, without blanks, in this one spelling. What lies between is
//!   the record ([`crate::Record`]), whose fields may grow. Nothing needs a canonical form: to verify is to compare text.
//! * Characters that steer terminals (controls, direction marks) are always spelled by their `\u` escape.
//! * A restart does not begin a new chain: `seq` and `prev` go on, and a `start` record says which version writes.
//!
//! * A segment ends with a checkpoint ([`crate::signed`]), and the next one, which has the next number, begins with a `segment` record.
//!   The chain goes on over both. A segment that is closed may be compressed ([`crate::packed`]).
//! * A change of what is hashed needs a new `v`.
//!
//! # Why the chain never goes on over a torn line
//!
//! All lines of one append go out with one write. The head in memory moves only after that write succeeded as a whole.
//! After a failed or short write the writer cuts the segment back to its length before; when that fails too, it is *torn*
//! and cuts again before anything else is written, refusing every append until it worked. So what follows a good
//! line is a good line, or the end. When the process dies between write and cut, [`crate::recover()`] does the cutting.

use std::io::{self, Write as _};

use serde::Serialize as _;
use uuid::Uuid;

use crate::allowed::{self, Allowed};
use crate::chain::{ChainHash, Head};
use crate::line::{CLOSE, ENVELOPE, HASH, MAX_LINE, OPEN, PREV, TIME};
use crate::note::Note;
use crate::record::{Outcome, Record};
use crate::recover::Recovery;
use crate::segment::Segment;
use crate::text::SafeJson;
use crate::timestamp::Timestamp;
use crate::tree::Tree;

/// Why nothing was appended. The journal is as it was before, or will be before the next append.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The record makes a line longer than [`MAX_LINE`], or cannot be spelled as JSON.
    #[error("the record is too long for the journal ({bytes} bytes, at most {MAX_LINE})")]
    TooLong {
        /// Length of the record.
        bytes: usize,
    },
    /// The record cannot be spelled as JSON.
    #[error("the record cannot be spelled as JSON")]
    Spell(#[source] serde_json::Error),
    /// The write failed; the segment was cut back, and the next append may succeed.
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    /// The write failed and left a half line that cannot be cut off; every append tries to cut again first.
    #[error("the journal ends in a half line that cannot be cut off")]
    Torn(#[source] io::Error),
}

/// A record made ready outside of any lock: spelled, with its time, without its place in the chain.
#[derive(Debug, Clone)]
pub struct Prepared {
    time: Timestamp,
    /// `,"kind":…` up to, and without, the closing brace.
    body: Vec<u8>,
}

impl Prepared {
    /// Spells `record`, which happened at `time`.
    ///
    /// # Errors
    /// [`AppendError::TooLong`] when it cannot be a line of the journal.
    pub fn new(record: &Record, time: Timestamp) -> Result<Prepared, AppendError> {
        let mut body = Vec::with_capacity(768);
        let mut json = serde_json::Serializer::with_formatter(&mut body, SafeJson);
        record.serialize(&mut json).map_err(AppendError::Spell)?;
        if let Some(brace) = body.first_mut() {
            *brace = b',';
        }
        body.pop();
        Self::fitting(body, time)
    }

    /// The same of a decision that a call goes on, as its type would spell it.
    ///
    /// # Errors
    /// As above.
    pub fn allowed(allowed: &Allowed<'_>, time: Timestamp) -> Result<Prepared, AppendError> {
        let mut body = Vec::with_capacity(1280);
        allowed.spell(&mut body);
        Self::fitting(body, time)
    }

    /// The same of an outcome.
    ///
    /// # Errors
    /// As above.
    pub fn outcome(outcome: &Outcome, time: Timestamp) -> Result<Prepared, AppendError> {
        let mut body = Vec::with_capacity(384);
        allowed::spell_outcome(&mut body, outcome);
        Self::fitting(body, time)
    }

    fn fitting(body: Vec<u8>, time: Timestamp) -> Result<Prepared, AppendError> {
        match body.len() + ENVELOPE > MAX_LINE {
            true => Err(AppendError::TooLong { bytes: body.len() }),
            false => Ok(Prepared { time, body }),
        }
    }
}

/// Where an appended record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence number.
    pub seq: u64,
    /// Offset of its line in the segment, in bytes.
    pub offset: u64,
}

/// The only way to write a journal. One per segment: nobody else may write to it (the caller locks).
#[derive(Debug)]
pub struct Writer<S> {
    segment: S,
    number: u32,
    head: Head,
    /// Over the records of the segment.
    tree: Tree,
    /// Length of the segment up to the last good line.
    len: u64,
    /// A failed write may have left bytes beyond `len`.
    torn: bool,
    buffer: Vec<u8>,
    /// The hashes of the records in the buffer.
    hashes: Vec<ChainHash>,
}

impl<S: Segment> Writer<S> {
    /// Begins a new chain in an empty segment.
    pub fn new(segment: S) -> Writer<S> {
        let (buffer, hashes, tree) = (Vec::new(), Vec::new(), Tree::default());
        Writer { segment, number: 1, head: Head::GENESIS, tree, len: 0, torn: false, buffer, hashes }
    }

    /// Goes on where [`crate::recover()`] found the end of this segment.
    pub fn resume(segment: S, recovery: &Recovery) -> Writer<S> {
        let Recovery { number, head, len, ref tree, .. } = *recovery;
        Writer { number, head, len, tree: tree.clone(), ..Writer::new(segment) }
    }

    /// Goes on in an empty segment, which gets the next number, with this as its first record: a `segment` record. Returns the segment
    /// that is closed by it.
    ///
    /// # Errors
    /// See [`AppendError`]; it goes on in the old one, and the new one is given back.
    pub fn rotate(&mut self, segment: S, first: &Prepared) -> Result<S, (AppendError, S)> {
        if self.torn
            && let Err(error) = self.segment.cut_back(self.len)
        {
            return Err((AppendError::Torn(error), segment));
        }
        let next = Writer { number: self.number.saturating_add(1), head: self.head, ..Writer::new(segment) };
        let old = std::mem::replace(self, next);
        match self.append_all([first]) {
            Ok(_) => Ok(old.segment),
            Err(error) => Err((error, std::mem::replace(self, old).segment)),
        }
    }

    /// What a checkpoint of the segment so far says; `None` while it has no record.
    pub fn note(&self, journal: Uuid, time: Timestamp) -> Option<Note> {
        let (size, root) = (self.tree.size(), self.tree.root());
        let first = (self.head.seq + 1).saturating_sub(size);
        let (segment, head) = (self.number, self.head.hash);
        (size > 0).then_some(Note { journal, segment, first, size, head, root, time })
    }

    /// Number of the segment.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Appends one record.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended.
    pub fn append(&mut self, record: &Record, time: Timestamp) -> Result<Appended, AppendError> {
        let prepared = Prepared::new(record, time)?;
        self.append_all([&prepared])
    }

    /// Appends several records with one write, all or none, and says where the last one stands.
    ///
    /// # Errors
    /// See [`AppendError`]; none was appended.
    pub fn append_all<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a Prepared>,
    ) -> Result<Appended, AppendError> {
        if self.torn {
            self.segment.cut_back(self.len).map_err(AppendError::Torn)?;
            self.torn = false;
        }
        self.buffer.clear();
        self.hashes.clear();
        let mut head = self.head;
        let mut at = Appended { seq: head.seq, offset: self.len };
        for record in records {
            at.offset = self.len + bytes(&self.buffer);
            head = link(&mut self.buffer, head, record);
            self.hashes.push(head.hash);
            at.seq = head.seq;
        }
        if let Err(error) = self.segment.write_all(&self.buffer) {
            return Err(match self.segment.cut_back(self.len) {
                Ok(()) => AppendError::Write(error),
                Err(cut) => {
                    self.torn = true;
                    AppendError::Torn(cut)
                }
            });
        }
        self.len += bytes(&self.buffer);
        self.head = head;
        for hash in &self.hashes {
            self.tree.push(*hash);
        }
        // One huge record must not hold its memory for good.
        self.buffer.shrink_to(64 << 10);
        Ok(at)
    }

    /// The end of the chain: a witness that an auditor can keep.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Length of the segment in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is written to.
    pub fn segment(&self) -> &S {
        &self.segment
    }

    /// Gives the segment back.
    pub fn into_segment(self) -> S {
        self.segment
    }
}

fn bytes(buffer: &[u8]) -> u64 {
    u64::try_from(buffer.len()).unwrap_or(u64::MAX)
}

/// Adds the line of `record` after `head` and returns the new head.
fn link(buffer: &mut Vec<u8>, head: Head, record: &Prepared) -> Head {
    let start = buffer.len();
    let seq = head.seq + 1;
    buffer.extend_from_slice(OPEN.as_bytes());
    // Writing into a Vec does not fail.
    let _ = write!(buffer, "{seq}");
    buffer.extend_from_slice(TIME.as_bytes());
    record.time.spell(buffer);
    buffer.extend_from_slice(PREV.as_bytes());
    buffer.extend_from_slice(&head.hash.hex());
    buffer.push(b'"');
    buffer.extend_from_slice(&record.body);
    let hash = ChainHash::of(buffer.get(start..).unwrap_or_default());
    buffer.extend_from_slice(HASH.as_bytes());
    buffer.extend_from_slice(&hash.hex());
    buffer.extend_from_slice(CLOSE.as_bytes());
    buffer.push(b'\n');
    Head { seq, hash }
}

#[cfg(test)]
mod tests;
