//! Some thousand rows by columns, and what is in them in short.

use std::cell::OnceCell;

use super::{
    ANSWERED, DICTIONARIES, ENDED, ERROR, INTERRUPTED, KIND, ROWS, Row, Ruling, UNPAIRED, number, wide,
};
use crate::facts::status_class;
use crate::timestamp::Timestamp;

/// Bytes of each column: offset, distance of the decision, time, id, ruling, flags, status, duration, sent, received, user,
/// process, words.
const WIDTHS: [usize; WORDS + DICTIONARIES] =
    [4, 4, 4, 8, 1, 1, 2, 2, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2];
const OFFSET: usize = 0;
const DISTANCE: usize = 1;
const TIME: usize = 2;
const ID: usize = 3;
const RULING: usize = 4;
const FLAGS: usize = 5;
const STATUS: usize = 6;
const DURATION: usize = 7;
const SENT: usize = 8;
const RECEIVED: usize = 9;
const UID: usize = 10;
const PID: usize = 11;
const WORDS: usize = 12;

/// Bytes of a row.
const ROW: usize = 62;

/// Bytes of an entry of the directory.
pub(super) const ENTRY: usize = 152;

/// What is in a block, so that most are not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it begins in the file.
    pub(super) at: u64,
    /// How many bytes it has there.
    pub(super) packed: u32,
    /// How many bytes the paths have that follow there.
    pub(super) packed_paths: u32,
    /// How many bytes the paths are.
    pub(super) paths: u32,
    /// How many rows it has.
    pub(super) rows: u32,
    pub(super) first_offset: u64,
    pub(crate) first_time: u64,
    pub(crate) last_time: u64,
    /// Ids that are not 0.
    pub(super) first_id: u64,
    pub(super) last_id: u64,
    /// A bit for each word of each dictionary, modulo 64.
    pub(crate) words: [u64; DICTIONARIES],
    /// A bit for each ruling; the lowest for none.
    pub(crate) rulings: u8,
    /// A bit for each class of status; the lowest for none.
    pub(super) classes: u8,
    /// Whether its rows are decisions whose outcome is not in this segment.
    pub(super) open: bool,
}

impl Entry {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.to_le_bytes());
        for number in [self.packed, self.packed_paths, self.paths, self.rows] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.first_offset, self.first_time, self.last_time, self.first_id, self.last_id] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for words in self.words {
            out.extend_from_slice(&words.to_le_bytes());
        }
        out.extend_from_slice(&[self.rulings, self.classes, u8::from(self.open), 0, 0, 0, 0, 0]);
    }

    /// Reads one entry; `None` when it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Entry> {
        let mut rest = bytes;
        let at = take(&mut rest)?;
        let (packed, packed_paths) = (take_half(&mut rest)?, take_half(&mut rest)?);
        let (paths, rows) = (take_half(&mut rest)?, take_half(&mut rest)?);
        let [first_offset, first_time, last_time, first_id, last_id] =
            [take(&mut rest)?, take(&mut rest)?, take(&mut rest)?, take(&mut rest)?, take(&mut rest)?];
        let mut words = [0; DICTIONARIES];
        for word in &mut words {
            *word = take(&mut rest)?;
        }
        let [rulings, classes, open, ..] = *rest else { return None };
        let fits = rows > 0 && usize::try_from(rows).is_ok_and(|rows| rows <= ROWS);
        let open = open == 1;
        let entry = Entry {
            at,
            packed,
            packed_paths,
            paths,
            rows,
            first_offset,
            first_time,
            last_time,
            first_id,
            last_id,
            words,
            rulings,
            classes,
            open,
        };
        fits.then_some(entry)
    }
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_half(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

/// Rows that become a block.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    times: Option<(u64, u64)>,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether the block must be ended before this row.
    pub(super) fn is_full_for(&self, row: &Row) -> bool {
        let Some(first) = self.rows.first() else { return false };
        let (from, to) = self.spread(row.time.micros());
        self.rows.len() >= ROWS
            || u32::try_from(row.offset.saturating_sub(first.offset)).is_err()
            || u32::try_from(to - from).is_err()
    }

    fn spread(&self, time: u64) -> (u64, u64) {
        self.times.map_or((time, time), |(from, to)| (from.min(time), to.max(time)))
    }

    pub(super) fn push(&mut self, row: Row) {
        self.times = Some(self.spread(row.time.micros()));
        self.rows.push(row);
    }

    /// The entry and the bytes, and begins anew.
    pub(super) fn take(&mut self, open: bool) -> (Entry, Vec<u8>) {
        let rows = std::mem::take(&mut self.rows);
        let (first_time, last_time) = self.times.take().unwrap_or_default();
        let first_offset = rows.first().map_or(0, |row| row.offset);
        let mut entry = Entry {
            rows: u32::try_from(rows.len()).unwrap_or(0),
            first_offset,
            first_time,
            last_time,
            first_id: u64::MAX,
            open,
            ..Entry::default()
        };
        let mut columns: [Vec<u64>; WIDTHS.len()] = Default::default();
        for row in &rows {
            if row.id != 0 {
                entry.first_id = entry.first_id.min(row.id);
                entry.last_id = entry.last_id.max(row.id);
            }
            let ruling = row.ruling.map_or(0, |ruling| ruling as u8);
            entry.rulings |= 1 << ruling;
            entry.classes |= 1 << status_class(row.status);
            for (bits, word) in entry.words.iter_mut().zip(row.words) {
                *bits |= 1 << (word % 64);
            }
            let values = [
                row.offset.saturating_sub(first_offset),
                row.decision.map_or(0, |decision| row.offset.saturating_sub(decision)),
                row.time.micros().saturating_sub(first_time),
                row.id,
                u64::from(ruling),
                u64::from(flags(row)),
                u64::from(row.status.unwrap_or(0)),
                u64::from(row.duration.unwrap_or(0)),
                u64::from(number::long(row.sent)),
                u64::from(number::long(row.received)),
                u64::from(row.uid),
                u64::from(row.pid),
            ];
            let values = values.into_iter().chain(row.words.map(u64::from));
            for (column, value) in columns.iter_mut().zip(values) {
                column.push(value);
            }
        }
        let mut bytes = Vec::with_capacity(rows.len() * ROW);
        for (column, width) in columns.iter().zip(WIDTHS) {
            for place in 0..width {
                bytes.extend(column.iter().map(|value| value.to_le_bytes().get(place).copied().unwrap_or(0)));
            }
        }
        (entry, bytes)
    }
}

fn flags(row: &Row) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    bit(row.error, ERROR)
        | bit(row.interrupted, INTERRUPTED)
        | bit(row.unpaired, UNPAIRED)
        | bit(row.status.is_some(), ANSWERED)
        | bit(row.duration.is_some(), ENDED)
}

/// A block that was read.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// Those that were asked for.
    columns: [OnceCell<Vec<u64>>; WIDTHS.len()],
    rows: usize,
    first_offset: u64,
    first_time: u64,
}

impl Block {
    /// The bytes of a block with this entry, unpacked; `None` when they do not fit.
    pub(super) fn new(entry: &Entry, bytes: Vec<u8>) -> Option<Block> {
        let rows = usize::try_from(entry.rows).ok()?;
        let (first_offset, first_time) = (entry.first_offset, entry.first_time);
        let columns = Default::default();
        (bytes.len() == rows * ROW).then_some(Block { bytes, columns, rows, first_offset, first_time })
    }

    /// How many bytes a block with so many rows has.
    pub(super) fn size(rows: u32) -> usize {
        usize::try_from(rows).unwrap_or(0).saturating_mul(ROW)
    }

    /// How many rows it has.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    fn value(&self, column: usize, row: usize) -> u64 {
        let Some(values) = self.columns.get(column) else { return 0 };
        values.get_or_init(|| self.column(column)).get(row).copied().unwrap_or(0)
    }

    /// All values of a column: put together plane by plane, which is several times as fast as row by row.
    fn column(&self, column: usize) -> Vec<u64> {
        let before: usize = WIDTHS.iter().take(column).sum();
        let width = WIDTHS.get(column).copied().unwrap_or(0);
        let mut values = vec![0; self.rows];
        for place in 0..width {
            let plane = self.bytes.get((before + place) * self.rows..).unwrap_or_default();
            for (value, byte) in values.iter_mut().zip(plane) {
                *value |= u64::from(*byte) << (8 * place);
            }
        }
        values
    }

    fn half(&self, column: usize, row: usize) -> u16 {
        // The columns that are asked for have two bytes.
        u16::try_from(self.value(column, row)).unwrap_or(u16::MAX)
    }

    pub(crate) fn word(&self, column: usize, row: usize) -> u16 {
        self.half(WORDS + column, row)
    }

    pub(crate) fn ruling(&self, row: usize) -> Option<Ruling> {
        Ruling::of_number(u8::try_from(self.value(RULING, row)).unwrap_or(0))
    }

    pub(crate) fn time(&self, row: usize) -> Timestamp {
        Timestamp::from_micros(self.first_time.saturating_add(self.value(TIME, row)))
    }

    pub(crate) fn id(&self, row: usize) -> u64 {
        self.value(ID, row)
    }

    pub(crate) fn flags(&self, row: usize) -> u8 {
        u8::try_from(self.value(FLAGS, row)).unwrap_or(0)
    }

    pub(crate) fn is_unpaired(&self, row: usize) -> bool {
        self.flags(row) & UNPAIRED != 0
    }

    pub(crate) fn status(&self, row: usize) -> Option<u16> {
        (self.flags(row) & ANSWERED != 0).then(|| self.half(STATUS, row))
    }

    /// The number of its duration ([`number::short`]).
    pub(crate) fn duration(&self, row: usize) -> Option<u16> {
        (self.flags(row) & ENDED != 0).then(|| self.half(DURATION, row))
    }

    /// The numbers of the bytes that were sent and received ([`number::long`]).
    pub(crate) fn sent_and_received(&self, row: usize) -> (u32, u32) {
        (self.long(SENT, row), self.long(RECEIVED, row))
    }

    pub(crate) fn uid(&self, row: usize) -> u32 {
        self.long(UID, row)
    }

    pub(crate) fn pid(&self, row: usize) -> u32 {
        self.long(PID, row)
    }

    fn long(&self, column: usize, row: usize) -> u32 {
        // The columns that are asked for have four bytes.
        u32::try_from(self.value(column, row)).unwrap_or(u32::MAX)
    }

    /// The whole row.
    pub(crate) fn row(&self, row: usize) -> Row {
        let flags = self.flags(row);
        let offset = self.first_offset.saturating_add(self.value(OFFSET, row));
        let distance = self.value(DISTANCE, row);
        let (sent, received) = self.sent_and_received(row);
        let mut words = [0; DICTIONARIES];
        for (column, word) in words.iter_mut().enumerate() {
            *word = self.word(KIND + column, row);
        }
        Row {
            offset,
            decision: (distance > 0).then(|| offset.saturating_sub(distance)),
            time: self.time(row),
            id: self.id(row),
            ruling: self.ruling(row),
            status: self.status(row),
            duration: self.duration(row),
            sent: number::of_long(sent),
            received: number::of_long(received),
            error: flags & ERROR != 0,
            interrupted: flags & INTERRUPTED != 0,
            unpaired: flags & UNPAIRED != 0,
            uid: self.uid(row),
            pid: self.pid(row),
            words,
        }
    }
}

/// Bytes of a block at most, however it was packed.
pub(super) fn most_packed() -> u64 {
    wide(ROWS * ROW + 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_are_what_they_are_said_to_be() {
        assert_eq!(WIDTHS.iter().sum::<usize>(), ROW);
        let mut bytes = Vec::new();
        let entry =
            Entry { rows: 1, at: 7, words: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], open: true, ..Entry::default() };
        entry.write(&mut bytes);
        assert_eq!(bytes.len(), ENTRY);
        assert_eq!(Entry::read(&bytes), Some(entry));
    }
}
