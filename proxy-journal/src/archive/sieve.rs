//! What is asked of rows beyond a filter: a condition, which is known elsewhere.

use std::ops::RangeInclusive;

use super::Words;
use crate::facts::Ruling;
use crate::index::{ABSENT, Block, ERROR, Entry, INTERRUPTED, Judged, KIND, OTHER, Paths, number};
use crate::timestamp::Timestamp;

/// Judges rows by what an index has of them, so that few lines are read.
pub trait Sieve: Send {
    /// Rows of another index come, whose columns have these words.
    fn enter(&mut self, words: &Words);

    /// Whether a block may have rows that are asked for.
    fn may_be_in(&self, block: &Inside<'_>) -> bool;

    /// Whether a row is asked for. Where paths are missing and would tell more, it may be asked again when they are there.
    fn judge(&mut self, rows: &View<'_>, row: usize) -> Judged;

    /// Whether paths would tell more.
    fn asks_for_paths(&self) -> bool;
}

/// What is known of a block before it is read.
#[derive(Debug, Clone, Copy)]
pub struct Inside<'a>(pub(super) &'a Entry);

impl Inside<'_> {
    /// When its first and its last line are of.
    pub fn times(&self) -> RangeInclusive<Timestamp> {
        Timestamp::from_micros(self.0.first_time)..=Timestamp::from_micros(self.0.last_time)
    }

    /// A bit for each word of a column, modulo 64; `None` where a line may have words that only its decision has.
    pub fn words(&self, column: usize) -> Option<u64> {
        let words = *self.0.words.get(column)?;
        let unpaired = column != KIND && self.0.rulings & 1 != 0 && words & (1 << ABSENT) != 0;
        (!unpaired).then_some(words)
    }
}

/// The rows of a block. Of an outcome whose decision is not in its segment, what the decision says is not known.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) block: &'a Block,
    pub(super) paths: Option<&'a Paths>,
}

impl View<'_> {
    fn paired<T>(&self, row: usize, value: impl FnOnce() -> T) -> Option<T> {
        (!self.block.is_unpaired(row)).then(value)
    }

    /// The number of a word in its column, [`ABSENT`] where there is none; `None` where the line must be read.
    pub fn word(&self, column: usize, row: usize) -> Option<u16> {
        if column != KIND && self.block.is_unpaired(row) {
            return None;
        }
        Some(self.block.word(column, row)).filter(|word| *word != OTHER)
    }

    /// The path, the empty text where there is none; `None` where the line must be read, or paths were not.
    pub fn path(&self, row: usize) -> Option<&str> {
        self.paired(row, || self.paths?.of(row)).flatten().map(Option::unwrap_or_default)
    }

    /// The first eight bytes of its id; 0 where there is none, or none that begins otherwise.
    pub fn id(&self, row: usize) -> u64 {
        self.block.id(row)
    }

    /// When it ended.
    pub fn time(&self, row: usize) -> Timestamp {
        self.block.time(row)
    }

    /// What was decided.
    pub fn ruling(&self, row: usize) -> Option<Option<Ruling>> {
        self.paired(row, || self.block.ruling(row))
    }

    /// The user that called, 0 where none is known.
    pub fn uid(&self, row: usize) -> Option<u32> {
        self.paired(row, || self.block.uid(row))
    }

    /// The process that called, 0 where none is known.
    pub fn pid(&self, row: usize) -> Option<u32> {
        self.paired(row, || self.block.pid(row))
    }

    /// What was answered.
    pub fn status(&self, row: usize) -> Option<u16> {
        self.block.status(row)
    }

    /// Whether it ended with an error.
    pub fn error(&self, row: usize) -> bool {
        self.block.flags(row) & ERROR != 0
    }

    /// Whether it is not known how it ended.
    pub fn interrupted(&self, row: usize) -> bool {
        self.block.flags(row) & INTERRUPTED != 0
    }

    /// Between what its duration is, in microseconds; 0 where none is known.
    pub fn duration(&self, row: usize) -> RangeInclusive<u64> {
        self.block.duration(row).map_or(0..=0, number::within_short)
    }

    /// Between what the bytes are that were sent.
    pub fn sent(&self, row: usize) -> RangeInclusive<u64> {
        number::within_long(self.block.sent_and_received(row).0)
    }

    /// Between what the bytes are that were received.
    pub fn received(&self, row: usize) -> RangeInclusive<u64> {
        number::within_long(self.block.sent_and_received(row).1)
    }
}
