//! The index of a closed segment, `journal-00000007.idx`: where its lines are, and what they can be looked for by.
//!
//! A cache, never evidence: it can be removed at any time, is made anew from the segment ([`build()`]), and what is shown
//! is read from the segment. One that was changed could hide a record from a search, and from nothing else; the chain does
//! not cover it. It is read as bytes of anybody ([`Index`]): every length has a bound, every place is checked.
//!
//! There is a row for each line that a person sees: a call that ended (with where its decision is), a refusal, another
//! record; and for each decision whose outcome is in no line here. The file is, in little-endian numbers:
//!
//! ```text
//! block*        rows, by columns, and each column by its bytes (all the lowest, then the next): one frame of zstd;
//!               then the paths of its rows, by themselves because few look at them ([`Paths`]): one frame of zstd
//! dictionaries  for each of the columns of DICTIONARIES: count u32, then (length u16, UTF-8)*: one frame of zstd
//! directory     ENTRY bytes for each block, what is in it: one frame of zstd
//! footer        FOOTER bytes: the segment that it is of, lengths of the two parts before, MAGIC
//! ```
//!
//! A column of a dictionary has 0 where there is nothing, [`ABSENT`], and [`OTHER`] for what is not in the dictionary (too
//! long, or too many): the line has to be read then. Durations are rounded to three digits or so ([`number`]).

mod block;
mod build;
mod dictionary;
pub mod number;
mod paths;
mod read;
mod select;

use crate::chain::ChainHash;
use crate::facts::Ruling;
use crate::timestamp::Timestamp;

pub use build::build;
pub use read::{BadIndex, Index};

pub(crate) use block::{Block, Entry};
pub use paths::Paths;
pub use select::Judged;
pub(crate) use select::Selection;

/// Ends the file; the last byte is the version.
const MAGIC: [u8; 8] = *b"VSJIDX\0\x02";

/// Most rows of a block.
const ROWS: usize = 4096;

/// The columns that have a dictionary, in their order.
/// How many there are.
pub const DICTIONARIES: usize = 10;
/// The column of the kind.
pub const KIND: usize = 0;
/// The column of the identity.
pub const IDENTITY: usize = 1;
/// The column of the API.
pub const API: usize = 2;
/// The column of the unit.
pub const UNIT: usize = 3;
/// The column of the host.
pub const HOST: usize = 4;
/// The column of the rule.
pub const RULE: usize = 5;
/// The column of the method.
pub const METHOD: usize = 6;
/// The column of the credential.
pub const CREDENTIAL: usize = 7;
/// The column of the executable.
pub const EXE: usize = 8;
/// The column of the reason.
pub const REASON: usize = 9;

/// In the column of a dictionary: there is nothing.
pub const ABSENT: u16 = 0;
/// In the column of a dictionary: something that is not in it.
pub const OTHER: u16 = u16::MAX;

/// The outcome ended with an error.
pub(crate) const ERROR: u8 = 1;
/// The outcome is not known.
pub(crate) const INTERRUPTED: u8 = 2;
/// The decision of this outcome is not in this segment.
pub(crate) const UNPAIRED: u8 = 4;
/// There is a status.
pub(crate) const ANSWERED: u8 = 8;
/// There is a duration.
pub(crate) const ENDED: u8 = 16;

/// The segment that an index is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Its length in bytes, before it was compressed.
    pub length: u64,
    /// How many of them are a half last line.
    pub torn: u64,
    /// How many records it has.
    pub records: u64,
    /// Sequence number of its first record; 0 when it has none.
    pub first_seq: u64,
    /// Sequence number of its last record.
    pub last_seq: u64,
    /// Hash of its last record.
    pub last_hash: ChainHash,
    /// How many rows the index has.
    pub rows: u64,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where the line begins in the segment.
    pub offset: u64,
    /// Where the decision begins that it is the outcome of.
    pub decision: Option<u64>,
    /// When it happened.
    pub time: Timestamp,
    /// The first eight bytes of its id; 0 without one.
    pub id: u64,
    /// What was decided.
    pub ruling: Option<Ruling>,
    /// What was answered.
    pub status: Option<u16>,
    /// The number of its duration in microseconds ([`number::short`]).
    pub duration: Option<u16>,
    /// Bytes that were sent and received ([`number::long`]).
    pub sent: u64,
    /// As `sent`.
    pub received: u64,
    /// It ended with an error.
    pub error: bool,
    /// How it ended is not known.
    pub interrupted: bool,
    /// It is an outcome, and its decision is not in this segment.
    pub unpaired: bool,
    /// The user that called; 0 where none is known.
    pub uid: u32,
    /// The process that called; 0 where none is known.
    pub pid: u32,
    /// Numbers in the dictionaries.
    pub(crate) words: [u16; DICTIONARIES],
}

impl Row {
    /// The number of its word in the dictionary of a column.
    pub fn word(&self, column: usize) -> u16 {
        self.words.get(column).copied().unwrap_or(OTHER)
    }
}

/// The first eight bytes of an id: in its first 48 bits the milliseconds of its call.
pub fn short_id(id: uuid::Uuid) -> u64 {
    id.as_u64_pair().0
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
