//! Reads a journal on from a place as it grows: over its segments, over their compression, over what retention took away.
//!
//! [`Follower::next`] never waits: at the end it says [`Step::End`], and is asked again later. What it has read is a
//! [`Cursor`], which can be kept and gone on from in another process. A half line is left for the next time.
//!
//! What was read may not be there any more: a write that failed was cut back, power was lost before the disk had it, or somebody
//! put another journal there. So a place holds the hash of the record before it, which stands in the bytes before it; and a
//! cursor holds some older places, to go back to the latest one that still is what it was.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::chain::ChainHash;
use crate::line::{self, MAX_LINE};
use crate::reader::Entry;
use crate::segment;
use crate::source::Source;
use crate::timestamp::Timestamp;
use crate::verify::Fault;

/// What every line ends with: the digits of its hash, a quotation mark, a brace, the newline.
const TAIL: usize = 64 + 3;
/// How many older places a cursor has.
const ANCHORS: usize = 8;
/// How far apart they are at least, by the clock of the records, or by their number.
const ANCHOR_US: u64 = 2_000_000;
const ANCHOR_RECORDS: u64 = 4096;
/// How often a segment that is moved or compressed just now is looked for again.
const TRIES: usize = 5;

/// Between two lines of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the next line in it, in bytes before it was compressed.
    pub offset: u64,
    /// Sequence number of the record before; 0 when it is not known.
    pub seq: u64,
    /// Hash of the record before, when that is known.
    #[serde(serialize_with = "spell", deserialize_with = "unspell")]
    pub hash: Option<ChainHash>,
}

impl Place {
    /// The beginning of a segment.
    #[must_use]
    pub fn start_of(segment: u32) -> Place {
        Place { segment, offset: 0, seq: 0, hash: None }
    }
}

fn spell<S: Serializer>(hash: &Option<ChainHash>, serializer: S) -> Result<S::Ok, S::Error> {
    hash.map(|hash| hash.to_string()).serialize(serializer)
}

fn unspell<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ChainHash>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| ChainHash::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not a hash")))
        .transpose()
}

/// How far somebody has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Where reading goes on.
    pub place: Place,
    /// Places before it, the oldest first.
    #[serde(default)]
    pub anchors: VecDeque<Place>,
}

impl From<Place> for Cursor {
    fn from(place: Place) -> Cursor {
        Cursor { place, anchors: VecDeque::new() }
    }
}

/// One line of a journal whose shape is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its sequence number.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The line itself, without its newline.
    pub text: String,
}

impl Line {
    /// What it says.
    ///
    /// # Errors
    /// [`Fault::Json`] when it is none.
    pub fn entry(&self) -> Result<Entry, Fault> {
        Entry::parse(self.text.as_bytes())
    }
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A record.
    Line(Line),
    /// A line that is none. It was skipped.
    Unreadable(Fault),
    /// So many records from this one on are not there any more: retention took them before they were read.
    Lost {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// What was read before is not in the journal as it was read. It goes on at an earlier record that still is; or, when
    /// there is none, at the beginning of another journal.
    Changed {
        /// Last record that was read.
        read: u64,
        /// Last record that is still what it was; 0 when there is none.
        back_to: u64,
    },
    /// Nothing more, at present.
    End,
}

/// Reads on.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    cursor: Cursor,
    /// The segment of the place, read up to it; `None`: it is to be opened.
    open: Option<Open>,
    /// Record after which nothing is read as yet.
    bound: u64,
    /// Time of the last anchor.
    anchored_us: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    source: Source,
    path: PathBuf,
    inode: u64,
}

/// What reading a line came to.
enum Got {
    Step(Step),
    /// The end of the segment.
    End,
    /// A line without an end is at the end of the segment. It was not taken.
    Half,
    /// What comes is not to be read yet.
    Behind,
}

impl Follower {
    /// Goes on at a place that was kept. Nothing is opened yet.
    #[must_use]
    pub fn resume(dir: &Path, cursor: Cursor) -> Follower {
        Follower {
            dir: dir.to_owned(),
            cursor,
            open: None,
            bound: u64::MAX,
            anchored_us: 0,
            buffer: Vec::new(),
        }
    }

    /// From the first record that is there.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn from_start(dir: &Path) -> io::Result<Follower> {
        let first = segment::list(dir)?.first().map_or(1, |(number, _)| *number);
        Ok(Follower::resume(dir, Place::start_of(first).into()))
    }

    /// From what is written from now on.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn from_end(dir: &Path) -> io::Result<Follower> {
        for _ in 0..TRIES {
            let Some((number, path)) = segment::list(dir)?.pop() else { break };
            match line_before(number, &path, u64::MAX) {
                Ok(place) => return Ok(Follower::resume(dir, place.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Follower::from_start(dir)
    }

    /// From a place between two lines of a segment, as it was read otherwise.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn from_place(dir: &Path, segment: u32, offset: u64) -> io::Result<Follower> {
        for _ in 0..TRIES {
            let all = segment::list(dir)?;
            let Some((_, path)) = all.iter().find(|(number, _)| *number == segment) else { break };
            match line_before(segment, path, offset) {
                Ok(place) => return Ok(Follower::resume(dir, place.into())),
                // It is being compressed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // It is gone; what comes after it is found.
        Ok(Follower::resume(dir, Place { segment, offset, seq: 0, hash: None }.into()))
    }

    /// How far it has read.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Reads nothing behind this record until told otherwise. Who writes the journal knows what stands in it for good; what is
    /// behind that may be cut back.
    pub fn read_up_to(&mut self, seq: u64) {
        self.bound = seq;
    }

    /// The next step. Does not wait.
    ///
    /// # Errors
    /// The journal cannot be read. It is tried again at the next call, from the same place.
    #[expect(clippy::should_implement_trait, reason = "at its end it is asked again: it is no iterator")]
    pub fn next(&mut self) -> io::Result<Step> {
        let step = self.step();
        if step.is_err() {
            self.open = None;
        }
        step
    }

    fn step(&mut self) -> io::Result<Step> {
        loop {
            match self.read()? {
                Got::Step(step) => return Ok(step),
                Got::Behind => return Ok(Step::End),
                Got::End | Got::Half => {}
            }
            // What is written to a segment is written before the next one begins: once there is one, this one stays as it is.
            let Some(next) = self.next_segment()? else { return self.end() };
            let here = self.cursor.place.clone();
            match self.read()? {
                Got::Step(step) => return Ok(step),
                Got::Behind => return Ok(Step::End),
                Got::End | Got::Half => {}
            }
            if self.cursor.place == here {
                self.anchor(here);
                self.cursor.place.segment = next;
                self.cursor.place.offset = 0;
                self.open = None;
            }
        }
    }

    /// One line, of the segment of the place.
    fn read(&mut self) -> io::Result<Got> {
        if self.open.is_none()
            && let Some(other) = self.reopen()?
        {
            return Ok(other);
        }
        let Some(open) = &mut self.open else { return Ok(Got::End) };
        self.buffer.clear();
        self.buffer.shrink_to(64 << 10);
        let most = wide(MAX_LINE);
        let read = wide((&mut open.source).take(most).read_until(b'\n', &mut self.buffer)?);
        if read == 0 {
            return Ok(Got::End);
        }
        if self.buffer.last() != Some(&b'\n') {
            return self.half(read);
        }
        self.buffer.pop();
        let parts = match line::split(&self.buffer) {
            Ok(parts) => parts,
            Err(fault) => return self.unreadable(read, fault),
        };
        if parts.seq > self.bound {
            // Read again when it may be.
            self.open = None;
            return Ok(Got::Behind);
        }
        let place = &self.cursor.place;
        let line = Line { seq: parts.seq, time: parts.time, text: parts.text.to_owned() };
        let hash = parts.hash;
        if place.hash.is_some_and(|hash| parts.prev != hash) {
            let (before, is_first) = (place.seq, place.offset == 0);
            if is_first && before > 0 && line.seq > before + 1 {
                // From here on it is as if it had begun here.
                self.cursor.place = Place::start_of(place.segment);
                self.open = None;
                return Ok(Got::Step(Step::Lost { first: before + 1, last: line.seq - 1 }));
            }
            if !self.stands(line.seq)? {
                return self.go_back().map(Got::Step);
            }
        }
        self.advance(read, line.seq, Some(hash), Some(line.time));
        Ok(Got::Step(Step::Line(line)))
    }

    /// A line that is no record: skipped, if it is one at all.
    fn unreadable(&mut self, length: u64, fault: Fault) -> io::Result<Got> {
        let seq = self.cursor.place.seq;
        if !self.stands(seq + 1)? {
            return self.go_back().map(Got::Step);
        }
        self.advance(length, seq, None, None);
        Ok(Got::Step(Step::Unreadable(fault)))
    }

    /// A line without an end: it is waited for, or it is longer than any record, and skipped once it has one.
    fn half(&mut self, read: u64) -> io::Result<Got> {
        let mut length = read;
        let is_long = read == wide(MAX_LINE);
        while let Some(open) = self.open.as_mut().filter(|_| is_long) {
            let chunk = open.source.fill_buf()?;
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let used = newline.map_or(chunk.len(), |at| at + 1);
            open.source.consume(used);
            length += wide(used);
            if newline.is_some() {
                return self.unreadable(length, Fault::TooLong);
            }
            if used == 0 {
                break;
            }
        }
        self.open = None;
        Ok(Got::Half)
    }

    fn advance(&mut self, bytes: u64, seq: u64, hash: Option<ChainHash>, time: Option<Timestamp>) {
        let us = time.map_or(self.anchored_us, Timestamp::micros);
        let last = self.cursor.anchors.back().map_or(0, |anchor| anchor.seq);
        if us.abs_diff(self.anchored_us) >= ANCHOR_US || seq.abs_diff(last) >= ANCHOR_RECORDS {
            let before = self.cursor.place.clone();
            self.anchor(before);
            self.anchored_us = us;
        }
        let place = &mut self.cursor.place;
        (place.offset, place.seq, place.hash) = (place.offset + bytes, seq, hash);
    }

    /// Keeps a place to go back to, if it can be told again.
    fn anchor(&mut self, place: Place) {
        let anchors = &mut self.cursor.anchors;
        if place.hash.is_none() || place.offset == 0 || anchors.back() == Some(&place) {
            return;
        }
        anchors.push_back(place);
        if anchors.len() > ANCHORS {
            anchors.pop_front();
        }
    }

    /// Opens the segment of the place; what there is instead of a line, when it cannot be.
    fn reopen(&mut self) -> io::Result<Option<Got>> {
        for _ in 0..TRIES {
            let all = segment::list(&self.dir)?;
            let wanted = self.cursor.place.segment;
            let Some((_, path)) = all.iter().find(|(number, _)| *number == wanted) else {
                match all.iter().find(|(number, _)| *number > wanted) {
                    // What is lost, its first record tells.
                    Some((number, _)) => {
                        (self.cursor.place.segment, self.cursor.place.offset) = (*number, 0);
                        continue;
                    }
                    None if all.is_empty() => return Ok(Some(Got::Behind)),
                    None => return self.go_back().map(|step| Some(Got::Step(step))),
                }
            };
            match Open::at(path, &self.cursor.place) {
                Ok(Some(open)) => {
                    self.open = Some(open);
                    return Ok(None);
                }
                Ok(None) => return self.go_back().map(|step| Some(Got::Step(step))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // It is being moved. The next look finds it.
        Ok(Some(Got::Behind))
    }

    /// Whether what was read last is still there, although the record behind it, which has this number, is none that follows it.
    fn stands(&self, seq: u64) -> io::Result<bool> {
        let place = &self.cursor.place;
        if place.offset > 0 {
            let Some(open) = &self.open else { return Ok(true) };
            return match stands(&open.path, place) {
                // Compressed, or taken away, since it was opened: what is open is what it was.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                stands => stands,
            };
        }
        let before = self.cursor.anchors.back().filter(|anchor| anchor.seq == place.seq);
        let all = segment::list(&self.dir)?;
        let path = before.and_then(|anchor| all.iter().find(|(number, _)| *number == anchor.segment));
        match (before, path) {
            (Some(anchor), Some((_, path))) => stands(path, anchor),
            _ => Ok(seq > place.seq),
        }
    }

    /// Goes back to the latest place that still is what it was.
    fn go_back(&mut self) -> io::Result<Step> {
        let read = self.cursor.place.seq;
        self.open = None;
        let all = segment::list(&self.dir)?;
        while let Some(anchor) = self.cursor.anchors.pop_back() {
            let Some((_, path)) = all.iter().find(|(number, _)| *number == anchor.segment) else { continue };
            if stands(path, &anchor).unwrap_or(false) {
                let back_to = anchor.seq;
                self.cursor.place = anchor;
                return Ok(Step::Changed { read, back_to });
            }
        }
        self.cursor.place = Place::start_of(all.first().map_or(1, |(number, _)| *number));
        Ok(Step::Changed { read, back_to: 0 })
    }

    /// The segment after this one, when there is one.
    fn next_segment(&self) -> io::Result<Option<u32>> {
        let here = self.cursor.place.segment;
        Ok(segment::list(&self.dir)?.into_iter().map(|(number, _)| number).find(|number| *number > here))
    }

    /// At the end of all: what is open may not be what is at its path any more.
    fn end(&mut self) -> io::Result<Step> {
        let here = self.cursor.place.offset;
        let is_current = |open: &Open| {
            let at = std::fs::metadata(&open.path);
            at.is_ok_and(|meta| meta.ino() == open.inode && (open.is_packed() || meta.len() >= here))
        };
        // Else cut back, moved or gone: looked at anew.
        self.open = self.open.take().filter(is_current);
        Ok(Step::End)
    }
}

impl Open {
    /// A segment at a place; nothing when the place is not there as it was.
    fn at(path: &Path, place: &Place) -> io::Result<Option<Open>> {
        let inode = std::fs::metadata(path)?.ino();
        if !stands(path, place)? {
            return Ok(None);
        }
        Ok(Some(Open { source: Source::open_at(path, place.offset)?, path: path.to_owned(), inode }))
    }

    fn is_packed(&self) -> bool {
        crate::source::is_packed(&self.path)
    }
}

/// Whether the line that ends at a place is the one that did.
fn stands(path: &Path, place: &Place) -> io::Result<bool> {
    let (Some(hash), true) = (place.hash, place.offset > 0) else { return Ok(true) };
    let Some(at) = place.offset.checked_sub(wide(TAIL)) else { return Ok(false) };
    let mut tail = [0; TAIL];
    let read = Source::open_at(path, at).and_then(|mut source| source.read_exact(&mut tail));
    match read {
        Ok(()) => Ok(tail.starts_with(&hash.hex()) && tail.ends_with(b"\"}\n")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The place behind the last whole line of a segment that ends before this offset.
fn line_before(number: u32, path: &Path, before: u64) -> io::Result<Place> {
    let mut bytes = Vec::new();
    let begin = if crate::source::is_packed(path) {
        Source::open(path)?.take(before).read_to_end(&mut bytes)?;
        0
    } else {
        let mut file = File::open(path)?;
        let before = before.min(file.metadata()?.len());
        // The last whole line, and a half one behind it.
        let begin = before.saturating_sub(2 * wide(MAX_LINE));
        file.seek(SeekFrom::Start(begin))?;
        file.take(before - begin).read_to_end(&mut bytes)?;
        begin
    };
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        return Ok(Place::start_of(number));
    };
    let whole = bytes.get(..end).unwrap_or_default();
    let last = whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let offset = begin + wide(end) + 1;
    Ok(match line::split(last) {
        Ok(parts) => Place { segment: number, offset, seq: parts.seq, hash: Some(parts.hash) },
        Err(_) => Place { segment: number, offset, seq: 0, hash: None },
    })
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
