//! Proves one segment by itself: its chain, its tree, its checkpoints. What ties segments together says [`crate::check`].
//!
//! Segments are proved apart from each other, so that as many can be at once as there are processors: each goes on from where its
//! first line says that it does, and afterwards it is looked at whether that is where the one before ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::chain::{ChainHash, Head};
use crate::kept;
use crate::line::Parts;
use crate::signed::{Checkpoint, KeyChange, Retired, SegmentStart};
use crate::timestamp::Timestamp;
use crate::tree::Tree;
use crate::verify::{Break, Fault, SealFault, Walk, walk};

/// What a segment says of itself, after all in it was proved.
#[derive(Debug)]
pub struct Sealed {
    /// The record before its first one.
    pub before: Head,
    /// Its last record that is proved.
    pub head: Head,
    /// How many are.
    pub records: u64,
    /// Length of the proved lines in bytes.
    pub len: u64,
    /// The first break; nothing after it was looked at.
    pub first_break: Option<Break>,
    /// Bytes of a half last line.
    pub torn: Option<u64>,
    /// The tree over its records.
    pub tree: Tree,
    /// Its first record, in every segment but the first of a journal.
    pub start: Option<SegmentStart>,
    /// The records about keys, retired segments and checkpoints, in their order.
    pub marks: Vec<Marked>,
    /// Whether its last record is a checkpoint.
    pub ends_sealed: bool,
    /// Sequence number of the record with the hash that was looked out for.
    pub found: Option<u64>,
    /// How many outcomes name bodies that are kept for auditors.
    pub kept: u64,
}

/// A record about the journal itself.
#[derive(Debug, Clone)]
pub struct Marked {
    /// Where it stands: for [`Break`].
    pub line: u64,
    /// Its offset in the segment.
    pub byte_offset: u64,
    /// Its sequence number.
    pub seq: u64,
    /// Its time.
    pub time: Timestamp,
    /// What it says.
    pub mark: Mark,
}

/// What a record about the journal itself says.
#[derive(Debug, Clone)]
pub enum Mark {
    /// A key takes over; both signatures are right.
    Key(Box<KeyChange>),
    /// A checkpoint, which is about the records before it, and signed by the key that it names.
    Checkpoint(Box<Checkpoint>),
    /// Segments go.
    Retired(Retired),
}

impl Marked {
    /// The break that is here.
    pub fn broken(&self, what: SealFault) -> Break {
        let Marked { line, byte_offset, seq, .. } = *self;
        Break { seq, line, byte_offset, what: Fault::Seal(what) }
    }
}

/// Proves the segment with this number. `after` is where it must go on, when that is known; `look_out` a hash to be found.
///
/// # Errors
/// It cannot be read.
pub fn prove(
    segment: impl BufRead,
    number: Option<u32>,
    after: Option<Head>,
    look_out: Option<ChainHash>,
) -> io::Result<Sealed> {
    prove_looking(segment, number, after, look_out, &[]).map(|(sealed, _)| sealed)
}

/// [`prove`], and the hashes of the records with the sequence numbers that are wanted, as far as they are there.
pub(crate) fn prove_looking(
    segment: impl BufRead,
    number: Option<u32>,
    after: Option<Head>,
    look_out: Option<ChainHash>,
    wanted: &[u64],
) -> io::Result<(Sealed, BTreeMap<u64, ChainHash>)> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    let mut heads = BTreeMap::new();
    let sealed = prove_and(segment, number, after, |parts| {
        if wanted.binary_search(&parts.seq).is_ok() {
            heads.insert(parts.seq, parts.hash);
        }
        let found = (look_out == Some(parts.hash)).then_some(parts.seq);
        serde_json::from_str::<IgnoredAny>(parts.text).map(|_| found).map_err(|_| Fault::Json)
    })?;
    Ok((sealed, heads))
}

/// [`prove`], with a look at each line that is proved: whether it is sound JSON, and if it is the one that was looked out for.
pub(crate) fn prove_and(
    segment: impl BufRead,
    number: Option<u32>,
    after: Option<Head>,
    mut look: impl FnMut(&Parts<'_>) -> Result<Option<u64>, Fault>,
) -> io::Result<Sealed> {
    let mut found = Seen { number, ..Seen::default() };
    let Walk { before, head, records, len, first_break, torn } = walk(segment, after, |parts, at| {
        let looked = look(parts)?;
        found.found = found.found.or(looked);
        found.see(parts, at)
    })?;
    let Seen { tree, start, marks, ends_sealed, found, kept, .. } = found;
    Ok(Sealed { before, head, records, len, first_break, torn, tree, start, marks, ends_sealed, found, kept })
}

#[derive(Default)]
struct Seen {
    number: Option<u32>,
    lines: u64,
    /// Sequence number of the first record.
    first: u64,
    tree: Tree,
    start: Option<SegmentStart>,
    marks: Vec<Marked>,
    ends_sealed: bool,
    found: Option<u64>,
    kept: u64,
}

impl Seen {
    fn see(&mut self, parts: &Parts<'_>, at: u64) -> Result<(), Fault> {
        self.lines += 1;
        if self.lines == 1 {
            self.first = parts.seq;
        }
        let kind = parts.kind();
        if self.lines == 1 && parts.seq != 1 && kind != Some("segment") {
            return Err(Fault::Beginning);
        }
        self.ends_sealed = kind == Some("checkpoint");
        match kind {
            Some("segment") => self.begin(parts)?,
            Some("checkpoint") => {
                let checkpoint = read(parts)?;
                self.is_about(&checkpoint, parts)?;
                self.mark(parts, at, Mark::Checkpoint(Box::new(checkpoint)));
            }
            Some("key") => {
                let change: KeyChange = read(parts)?;
                if !change.is_signed(Head { seq: parts.seq - 1, hash: parts.prev }) {
                    return Err(Fault::Seal(SealFault::Usurper));
                }
                self.mark(parts, at, Mark::Key(Box::new(change)));
            }
            Some("retired") => {
                let retired = read(parts)?;
                self.mark(parts, at, Mark::Retired(retired));
            }
            Some("outcome") => self.kept += u64::from(kept::has_bodies(parts.text.as_bytes())),
            _ => {}
        }
        self.tree.push(parts.hash);
        Ok(())
    }

    fn begin(&mut self, parts: &Parts<'_>) -> Result<(), Fault> {
        let start: SegmentStart = read(parts)?;
        if self.lines > 1 {
            return Err(Fault::Seal(SealFault::Unsealed));
        }
        if let Some(expected) = self.number.filter(|number| *number != start.number) {
            return Err(Fault::Seal(SealFault::Number { expected, found: start.number }));
        }
        self.number = Some(start.number);
        self.start = Some(start);
        Ok(())
    }

    /// Whether it is about all records before it, and signed.
    fn is_about(&self, checkpoint: &Checkpoint, parts: &Parts<'_>) -> Result<(), Fault> {
        let is_about = checkpoint.segment == self.number.unwrap_or(1)
            && checkpoint.first == self.first
            && checkpoint.size == self.tree.size()
            && checkpoint.head == parts.prev
            && checkpoint.root == self.tree.root();
        if !is_about {
            return Err(Fault::Seal(SealFault::Other));
        }
        if !checkpoint.is_signed(parts.time) {
            return Err(Fault::Seal(SealFault::Unsigned));
        }
        Ok(())
    }

    fn mark(&mut self, parts: &Parts<'_>, byte_offset: u64, mark: Mark) {
        self.marks.push(Marked { line: self.lines, byte_offset, seq: parts.seq, time: parts.time, mark });
    }
}

fn read<T: DeserializeOwned>(parts: &Parts<'_>) -> Result<T, Fault> {
    serde_json::from_str(parts.text).map_err(|_| Fault::Seal(SealFault::Unreadable))
}
