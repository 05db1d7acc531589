//! Makes the index of a segment from its lines, in one reading.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use uuid::Uuid;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::block::{Entry, Rows};
use super::dictionary::Dictionaries;
use super::paths::Collected;
use super::{
    API, CREDENTIAL, DICTIONARIES, EXE, HOST, IDENTITY, KIND, MAGIC, METHOD, REASON, RULE, Row, Summary,
    UNIT, number, paths, short_id, wide,
};
use crate::brief::Brief;
use crate::chain::{ChainHash, Head};
use crate::facts::UNREADABLE;
use crate::reader::{Lines, RawLine};
use crate::timestamp::Timestamp;

/// Quick: the columns by their bytes are what makes it small.
const LEVEL: i32 = 1;

/// Indexes a whole segment, from its first line on, given as it was before it was compressed. Holds the decisions that wait
/// for their outcome, the words, and one block.
///
/// # Errors
/// Reading or writing failed.
pub fn build(segment: impl BufRead, out: impl Write) -> io::Result<Summary> {
    let mut lines = Lines::new(segment);
    let mut builder = Builder::new(out)?;
    let mut torn = 0;
    loop {
        match lines.next()? {
            Some(RawLine::Whole(line)) => builder.line(line)?,
            Some(RawLine::TooLong) => builder.unreadable()?,
            Some(RawLine::Torn(bytes)) => torn = bytes,
            None => return builder.finish(lines.end + torn, torn),
        }
        builder.next_offset = lines.end;
    }
}

/// Makes an index line by line.
struct Builder<W> {
    out: W,
    at: u64,
    packer: Compressor<'static>,
    words: Dictionaries,
    /// Decisions whose outcome has not come yet.
    open: HashMap<Uuid, (Row, Option<Box<str>>)>,
    rows: Rows,
    /// The paths of these rows.
    paths: Collected,
    directory: Vec<u8>,
    blocks: u32,
    summary: Summary,
    /// Where the line begins that comes next.
    next_offset: u64,
    time: Timestamp,
}

impl<W: Write> Builder<W> {
    fn new(out: W) -> io::Result<Builder<W>> {
        let mut packer = Compressor::new(LEVEL)?;
        packer.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Builder {
            out,
            at: 0,
            packer,
            words: Dictionaries::default(),
            open: HashMap::new(),
            rows: Rows::default(),
            paths: Collected::default(),
            directory: Vec::new(),
            blocks: 0,
            summary: Summary {
                length: 0,
                torn: 0,
                records: 0,
                first_seq: 0,
                last_seq: 0,
                last_hash: Head::GENESIS.hash,
                rows: 0,
            },
            next_offset: 0,
            time: Timestamp::from_micros(0),
        })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Ok((parts, brief)) = Brief::of_line(line) else { return self.unreadable() };
        if self.summary.records == 0 {
            self.summary.first_seq = parts.seq;
        }
        self.summary.records += 1;
        (self.summary.last_seq, self.summary.last_hash) = (parts.seq, parts.hash);
        self.time = parts.time;

        let id = brief.id();
        let mut words = [0; DICTIONARIES];
        let rule = brief.rule();
        let texts = [
            (KIND, Some(brief.shown_kind())),
            (IDENTITY, brief.identity.as_ref().map(|text| &*text.0)),
            (API, brief.api.as_ref().map(|text| &*text.0)),
            (UNIT, brief.unit()),
            (HOST, brief.host.as_ref().map(|text| &*text.0)),
            (RULE, rule.as_deref()),
            (METHOD, brief.method()),
            (CREDENTIAL, brief.credential()),
            (EXE, brief.exe()),
            (REASON, brief.reason()),
        ];
        for ((column, text), word) in texts.into_iter().zip(&mut words) {
            *word = self.words.number(column, text);
        }
        let mut row = Row {
            offset: self.next_offset,
            decision: None,
            time: parts.time,
            id: id.map_or(0, short_id),
            ruling: brief.ruling(),
            status: brief.status,
            duration: brief.duration_us.map(number::short),
            sent: brief.bytes_sent,
            received: brief.bytes_received,
            error: brief.is_error(),
            interrupted: brief.interrupted,
            unpaired: false,
            uid: brief.uid().unwrap_or(0),
            pid: brief.pid().unwrap_or(0),
            words,
        };
        if brief.is_opening()
            && let Some(id) = id
        {
            self.open.insert(id, (row, paths::kept(brief.path()).map(Into::into)));
            return Ok(());
        }
        if brief.is_outcome() {
            let near = |(decision, _): &(Row, _)| u32::try_from(row.offset - decision.offset).is_ok();
            match id.filter(|id| self.open.get(id).is_some_and(near)).and_then(|id| self.open.remove(&id)) {
                Some((decision, path)) => {
                    row.decision = Some(decision.offset);
                    (row.words, row.ruling) = (decision.words, decision.ruling);
                    (row.uid, row.pid) = (decision.uid, decision.pid);
                    return self.push(row, path.as_deref(), false);
                }
                None => row.unpaired = true,
            }
        }
        self.push(row, paths::kept(brief.path()), false)
    }

    fn unreadable(&mut self) -> io::Result<()> {
        let mut words = [0; DICTIONARIES];
        if let Some(kind) = words.get_mut(KIND) {
            *kind = self.words.number(KIND, Some(UNREADABLE));
        }
        let row = Row {
            offset: self.next_offset,
            decision: None,
            time: self.time,
            id: 0,
            ruling: None,
            status: None,
            duration: None,
            sent: 0,
            received: 0,
            error: false,
            interrupted: false,
            unpaired: false,
            uid: 0,
            pid: 0,
            words,
        };
        self.push(row, None, false)
    }

    fn push(&mut self, row: Row, path: Option<&str>, open: bool) -> io::Result<()> {
        self.summary.rows += 1;
        if self.rows.is_full_for(&row) {
            self.end_block(open)?;
        }
        self.rows.push(row);
        self.paths.push(path);
        Ok(())
    }

    fn end_block(&mut self, open: bool) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let (mut entry, bytes): (Entry, _) = self.rows.take(open);
        let packed = self.packer.compress(&bytes)?;
        let paths = self.paths.take();
        let packed_paths = self.packer.compress(&paths)?;
        let short =
            |length: usize| u32::try_from(length).map_err(|_| io::Error::other("a block of gigabytes"));
        entry.at = self.at;
        (entry.packed, entry.packed_paths) = (short(packed.len())?, short(packed_paths.len())?);
        entry.paths = short(paths.len())?;
        entry.write(&mut self.directory);
        self.blocks += 1;
        self.write(&packed)?;
        self.write(&packed_paths)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += wide(bytes.len());
        self.out.write_all(bytes)
    }

    fn finish(mut self, length: u64, torn: u64) -> io::Result<Summary> {
        self.end_block(false)?;
        let mut open: Vec<_> = self.open.drain().map(|(_, opening)| opening).collect();
        open.sort_by_key(|(row, _)| row.offset);
        for (row, path) in open {
            self.push(row, path.as_deref(), true)?;
        }
        self.end_block(true)?;
        (self.summary.length, self.summary.torn) = (length, torn);

        let words = self.words.bytes();
        let directory = std::mem::take(&mut self.directory);
        let (packed_words, packed_directory) =
            (self.packer.compress(&words)?, self.packer.compress(&directory)?);
        self.write(&packed_words)?;
        self.write(&packed_directory)?;
        let footer = Footer {
            summary: self.summary,
            blocks: self.blocks,
            words: wide(words.len()),
            packed_words: wide(packed_words.len()),
            packed_directory: wide(packed_directory.len()),
        };
        self.write(&footer.bytes())?;
        self.out.flush()?;
        Ok(self.summary)
    }
}

/// The end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) summary: Summary,
    pub(super) blocks: u32,
    /// Length of the dictionaries.
    pub(super) words: u64,
    pub(super) packed_words: u64,
    pub(super) packed_directory: u64,
}

/// Bytes of the footer.
pub(super) const FOOTER: usize = 10 * 8 + 64 + 8;

impl Footer {
    fn bytes(&self) -> Vec<u8> {
        let Summary { length, torn, records, first_seq, last_seq, last_hash, rows } = self.summary;
        let numbers = [
            length,
            torn,
            records,
            first_seq,
            last_seq,
            rows,
            u64::from(self.blocks),
            self.words,
            self.packed_words,
            self.packed_directory,
        ];
        let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.extend_from_slice(&last_hash.hex());
        bytes.extend_from_slice(&MAGIC);
        bytes
    }

    pub(super) fn read(bytes: &[u8; FOOTER]) -> Option<Footer> {
        let rest = bytes.strip_suffix(&MAGIC)?;
        let (hash, rest) = (std::str::from_utf8(rest.last_chunk::<64>()?).ok()?, rest.get(..10 * 8)?);
        let mut numbers = [0; 10];
        for (number, bytes) in numbers.iter_mut().zip(rest.chunks_exact(8)) {
            *number = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let [length, torn, records, first_seq, last_seq, rows, blocks, words, packed_words, packed_directory] =
            numbers;
        let last_hash = ChainHash::from_hex(hash)?;
        let summary = Summary { length, torn, records, first_seq, last_seq, last_hash, rows };
        let blocks = u32::try_from(blocks).ok()?;
        Some(Footer { summary, blocks, words, packed_words, packed_directory })
    }
}
