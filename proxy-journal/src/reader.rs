//! Reads a journal line by line in bounded memory. It shows what is written; whether it is true says [`crate::verify`].

use std::io::{self, BufRead, Read as _};

use serde_json::Value;

use crate::line::{self, MAX_LINE};
use crate::record::Record;
use crate::timestamp::Timestamp;
use crate::verify::Fault;

/// One line as bytes, or why there is none.
#[derive(Debug)]
pub(crate) enum RawLine<'a> {
    /// A line, without its newline.
    Whole(&'a [u8]),
    /// A line longer than [`MAX_LINE`]; it was skipped.
    TooLong,
    /// So many bytes stand after the last newline.
    Torn(u64),
}

/// Splits bytes into lines, holding at most one of them.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    inner: R,
    buffer: Vec<u8>,
    /// Lines returned so far.
    pub(crate) number: u64,
    /// Offset of the line that was returned last.
    pub(crate) start: u64,
    /// Offset after the last newline.
    pub(crate) end: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(inner: R) -> Lines<R> {
        Lines { inner, buffer: Vec::new(), number: 0, start: 0, end: 0 }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.buffer.clear();
        let limit = wide(MAX_LINE);
        let read = wide((&mut self.inner).take(limit).read_until(b'\n', &mut self.buffer)?);
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.start = self.end;
        if self.buffer.last() == Some(&b'\n') {
            self.end += read;
            self.buffer.pop();
            return Ok(Some(RawLine::Whole(&self.buffer)));
        }
        let (skipped, ended) = if read == limit { skip_line(&mut self.inner)? } else { (0, false) };
        if ended {
            self.end += read + skipped;
            return Ok(Some(RawLine::TooLong));
        }
        Ok(Some(RawLine::Torn(read + skipped)))
    }
}

/// Reads on to the next newline or the end: how many bytes, and whether there was a newline.
fn skip_line(inner: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let chunk = inner.fill_buf()?;
        if chunk.is_empty() {
            return Ok((skipped, false));
        }
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let used = newline.map_or(chunk.len(), |at| at + 1);
        inner.consume(used);
        skipped += wide(used);
        if newline.is_some() {
            return Ok((skipped, true));
        }
    }
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A kind that this version knows.
    Known(Record),
    /// A kind, or a value of a field, of another version: the whole line as JSON.
    Other(Value),
}

/// One record as it stands in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its sequence number, from 1.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What it says.
    pub content: Content,
    /// The line itself, without its newline.
    pub text: String,
}

impl Entry {
    /// Reads one line, given without its newline. The hash is not compared.
    ///
    /// # Errors
    /// [`Fault::Shape`], [`Fault::Version`] or [`Fault::Json`] when it is not a record.
    pub fn parse(line: &[u8]) -> Result<Entry, Fault> {
        let parts = line::split(line)?;
        let content = match serde_json::from_str(parts.text) {
            Ok(record) => Content::Known(record),
            Err(_) => Content::Other(serde_json::from_str(parts.text).map_err(|_| Fault::Json)?),
        };
        Ok(Entry { seq: parts.seq, time: parts.time, content, text: parts.text.to_owned() })
    }
}

/// What stands in one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A record.
    Entry(Box<Entry>),
    /// A line that is not a record.
    Unreadable {
        /// Number of the line, from 1.
        line: u64,
        /// Why it is not.
        fault: Fault,
    },
    /// The end of the file is not the end of a line: a write in progress, or one that a kill cut off.
    Torn {
        /// How many bytes stand after the last whole line.
        bytes: u64,
    },
}

/// Iterates over the lines of a journal. Ends after the first error of the underlying reader.
#[derive(Debug)]
pub struct Reader<R> {
    lines: Lines<R>,
    failed: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning of a line.
    pub fn new(inner: R) -> Reader<R> {
        Reader { lines: Lines::new(inner), failed: false }
    }

    /// Number of the line that was returned last, from 1.
    pub fn line(&self) -> u64 {
        self.lines.number
    }

    /// Bytes from where reading began to the end of the last whole line: where to go on later.
    pub fn offset(&self) -> u64 {
        self.lines.end
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<io::Result<Item>> {
        if self.failed {
            return None;
        }
        let parsed = match self.lines.next() {
            Ok(Some(RawLine::Whole(line))) => Entry::parse(line),
            Ok(Some(RawLine::TooLong)) => Err(Fault::TooLong),
            Ok(Some(RawLine::Torn(bytes))) => return Some(Ok(Item::Torn { bytes })),
            Ok(None) => return None,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        Some(Ok(match parsed {
            Ok(entry) => Item::Entry(Box::new(entry)),
            Err(fault) => Item::Unreadable { line: self.lines.number, fault },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

    #[test]
    fn a_line_of_any_length_takes_no_more_memory_than_the_longest_allowed() {
        let mut bytes = vec![b'x'; 5 * MAX_LINE];
        bytes.extend_from_slice(b"\nshort\ntail");
        let mut lines = Lines::new(BufReader::new(Cursor::new(bytes)));
        assert!(matches!(lines.next().unwrap(), Some(RawLine::TooLong)));
        assert!(matches!(lines.next().unwrap(), Some(RawLine::Whole(b"short"))));
        assert_eq!((lines.number, lines.start), (2, wide(5 * MAX_LINE + 1)));
        assert!(matches!(lines.next().unwrap(), Some(RawLine::Torn(4))));
        assert!(lines.next().unwrap().is_none());
        assert!(lines.buffer.capacity() <= 2 * MAX_LINE);
    }

    #[test]
    fn a_long_end_without_newline_is_torn_and_not_too_long() {
        let mut lines = Lines::new(BufReader::new(Cursor::new(vec![0; 3 * MAX_LINE])));
        assert!(matches!(lines.next().unwrap(), Some(RawLine::Torn(n)) if n == wide(3 * MAX_LINE)));
    }
}
