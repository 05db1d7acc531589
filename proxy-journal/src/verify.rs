//! Proves a journal: every line has its own hash and continues the line before.
//!
//! What this finds: any changed byte, any record removed, inserted, repeated or moved, anything that is not a record.
//!
//! What it cannot find alone: whole records cut off at the end (a shorter chain is a chain too), and a chain that was
//! written anew from the beginning by somebody who may write the file. For both, keep a witness: note the head that a
//! verification printed, somewhere this host cannot write, and give it to the next one ([`Verifier::expecting`]).

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

use crate::chain::{ChainHash, Head};
use crate::key::PublicKey;
use crate::line::{self, FORMAT_VERSION, MAX_LINE, Parts};
use crate::reader::{Lines, RawLine};

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not a line that a journal has.
    #[error("this is not a journal record: {0}")]
    Shape(&'static str),
    /// It has the shape of a record, and is not JSON.
    #[error("this is not a journal record: it is not JSON")]
    Json,
    /// It is longer than [`MAX_LINE`].
    #[error("this is not a journal record: it is longer than {MAX_LINE} bytes")]
    TooLong,
    /// It is of another version of the format.
    #[error("this record has format version {0} and this program reads {FORMAT_VERSION}; use a newer one")]
    Version(u64),
    /// The hash is not that of its bytes.
    #[error("this record was changed: its content does not have the hash that it ends with")]
    Hash,
    /// It is a true record in a wrong place.
    #[error(
        "records were removed, inserted, repeated or moved here: seq is {found} where {expected} belongs"
    )]
    Seq {
        /// The number that continues the record before.
        expected: u64,
        /// The number that it has.
        found: u64,
    },
    /// It has the right number and continues another chain.
    #[error("this record does not continue the one before it: one of the two was replaced")]
    Prev,
    /// A segment that is not the last ends in a half line.
    #[error("this segment ends in a half line of {0} bytes, and another segment follows it")]
    TornInside(u64),
    /// A segment begins in the middle of something.
    #[error("this segment does not begin with its first record: its beginning was cut off")]
    Beginning,
    /// A record that others rely on does not say what is the case.
    #[error("{0}")]
    Seal(SealFault),
}

/// What is wrong with a record that is signed, or that says where segments begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// Such a record does not have the fields that it must have.
    #[error("this record of the journal about itself cannot be read")]
    Unreadable,
    /// A checkpoint is about other records than those before it.
    #[error("this checkpoint is not about the records before it: they, or it, were replaced")]
    Other,
    /// The signature is not that of its key.
    #[error("this checkpoint is not signed by the key that it names")]
    Unsigned,
    /// Another key signed than the one whose turn it is.
    #[error("this checkpoint is signed by {found}, and it is the turn of {expected}")]
    Stranger {
        /// The key that signed until here.
        expected: PublicKey,
        /// The key that it names.
        found: PublicKey,
    },
    /// A key takes over without the word of the one before.
    #[error("a key takes over here that the one before did not sign")]
    Usurper,
    /// A segment has the number of another.
    #[error("this is segment {found}, and not {expected}: files were swapped or renamed")]
    Number {
        /// The number that its file has.
        expected: u32,
        /// The number that it says.
        found: u32,
    },
    /// The segment before ended without a checkpoint.
    #[error("the segment before this one does not end with a checkpoint: its end was cut off")]
    Unsealed,
    /// A record that belongs to another journal.
    #[error("this is of another journal")]
    Journal,
}

/// The first place where a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} (byte {byte_offset}, where record {seq} belongs): {what}")]
pub struct Break {
    /// Sequence number of the record that belongs here.
    pub seq: u64,
    /// Number of the line, from 1.
    pub line: u64,
    /// Offset of the line in bytes.
    pub byte_offset: u64,
    /// What is wrong there.
    pub what: Fault,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Records that are proved, up to the first break.
    pub records: u64,
    /// The first break; nothing after it was looked at.
    pub first_break: Option<Break>,
    /// Bytes of a half-written last line: what a kill leaves, and a write in progress. Never a sign of tampering by
    /// itself, and never part of what is proved.
    pub torn_tail: Option<u64>,
    /// The last proved record.
    pub head: Head,
    /// Sequence number of the record that has the expected hash, when one was expected and is there.
    pub witness: Option<u64>,
}

impl Verification {
    /// Whether every byte is part of the chain.
    pub fn is_whole(&self) -> bool {
        self.first_break.is_none() && self.torn_tail.is_none()
    }
}

/// Verifies one chain, segment after segment, in memory for one line.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
    records: u64,
    expected: Option<ChainHash>,
    witness: Option<u64>,
    /// Where the segment before ended in a half line.
    torn: Option<Break>,
}

impl Default for Verifier {
    fn default() -> Verifier {
        Verifier::new()
    }
}

impl Verifier {
    /// For a chain from its first record.
    pub fn new() -> Verifier {
        Verifier { head: Head::GENESIS, records: 0, expected: None, witness: None, torn: None }
    }

    /// Looks out for the record with this hash: the head that an earlier verification printed.
    #[must_use]
    pub fn expecting(mut self, head: ChainHash) -> Verifier {
        self.expected = Some(head);
        self
    }

    /// Verifies the next segment. Stops at the first break; a half last line is one when another segment follows it.
    ///
    /// # Errors
    /// When `segment` cannot be read.
    pub fn run(&mut self, segment: impl BufRead) -> io::Result<Verification> {
        if let Some(place) = self.torn {
            return Ok(self.found(Some(place), None));
        }
        let (expected, witness) = (self.expected, &mut self.witness);
        let walk = walk(segment, Some(self.head), |parts, _| {
            serde_json::from_str::<IgnoredAny>(parts.text).map_err(|_| Fault::Json)?;
            if expected == Some(parts.hash) {
                *witness = Some(parts.seq);
            }
            Ok(())
        })?;
        self.head = walk.head;
        self.records += walk.records;
        self.torn = walk.torn.map(|bytes| Break {
            seq: walk.head.seq.saturating_add(1),
            line: walk.records + 1,
            byte_offset: walk.len,
            what: Fault::TornInside(bytes),
        });
        Ok(self.found(walk.first_break, walk.torn))
    }

    fn found(&self, first_break: Option<Break>, torn_tail: Option<u64>) -> Verification {
        let Verifier { records, head, witness, .. } = *self;
        Verification { records, first_break, torn_tail, head, witness }
    }
}

/// The last record of these lines, when they are a chain that follows `head` to its end.
pub fn follows(lines: &[u8], head: Head) -> Option<Head> {
    let walk = walk(lines, Some(head), |_, _| Ok(())).ok()?;
    (walk.first_break.is_none() && walk.torn.is_none()).then_some(walk.head)
}

/// What walking along a segment found.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The record before the first line, as that one names it.
    pub(crate) before: Head,
    pub(crate) head: Head,
    pub(crate) records: u64,
    /// Length of the proved lines in bytes.
    pub(crate) len: u64,
    pub(crate) first_break: Option<Break>,
    pub(crate) torn: Option<u64>,
}

/// Walks along the chain from `head`, or from where the first line says that it goes on, to its first break. Each proved line is shown
/// to `see`, with its offset, which says whether its content is sound.
pub(crate) fn walk(
    segment: impl BufRead,
    head: Option<Head>,
    mut see: impl FnMut(&Parts<'_>, u64) -> Result<(), Fault>,
) -> io::Result<Walk> {
    let mut lines = Lines::new(segment);
    let before = head.unwrap_or(Head::GENESIS);
    let mut walk = Walk { before, head: before, records: 0, len: 0, first_break: None, torn: None };
    let mut anywhere = head.is_none();
    while let Some(line) = lines.next()? {
        let at = walk.len;
        let step = match line {
            RawLine::Torn(bytes) => {
                walk.torn = Some(bytes);
                break;
            }
            RawLine::TooLong => Err(Fault::TooLong),
            RawLine::Whole(line) => line::split(line).and_then(|parts| {
                if std::mem::take(&mut anywhere) {
                    walk.before = Head { seq: parts.seq.saturating_sub(1), hash: parts.prev };
                    walk.head = walk.before;
                }
                prove(&parts, walk.head)?;
                see(&parts, at)?;
                Ok(Head { seq: parts.seq, hash: parts.hash })
            }),
        };
        match step {
            Ok(next) => walk.head = next,
            Err(what) => {
                let (line, byte_offset) = (lines.number, lines.start);
                walk.first_break =
                    Some(Break { seq: walk.head.seq.saturating_add(1), line, byte_offset, what });
                break;
            }
        }
        walk.records += 1;
        walk.len = lines.end;
    }
    Ok(walk)
}

/// Proves that one line follows `head`.
fn prove(parts: &Parts<'_>, head: Head) -> Result<(), Fault> {
    if ChainHash::of(parts.hashed.as_bytes()) != parts.hash {
        return Err(Fault::Hash);
    }
    let expected = head.seq.saturating_add(1);
    if parts.seq != expected {
        return Err(Fault::Seq { expected, found: parts.seq });
    }
    if parts.prev != head.hash {
        return Err(Fault::Prev);
    }
    Ok(())
}
