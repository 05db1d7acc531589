//! Opens a segment for reading, compressed or not, from any place of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use crate::chain::Head;
use crate::line;
use crate::packed;
use crate::reader::{Lines, RawLine};

/// How much is read at once.
const BUFFER: usize = 256 << 10;

/// The bytes of a segment, as they were written.
pub struct Source {
    inner: Inner,
}

enum Inner {
    Plain(BufReader<File>),
    Packed(Box<BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>>),
}

impl Source {
    /// Opens a segment at its beginning.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Source> {
        Source::open_at(path, 0)
    }

    /// Opens a segment at this offset, counted in bytes before it was compressed.
    ///
    /// # Errors
    /// It cannot be opened or read, or a compressed one is shorter than that. (Of one that grows nothing is read yet.)
    pub fn open_at(path: &Path, offset: u64) -> io::Result<Source> {
        let mut file = File::open(path)?;
        if !is_packed(path) {
            file.seek(SeekFrom::Start(offset))?;
            return Ok(Source { inner: Inner::Plain(BufReader::with_capacity(BUFFER, file)) });
        }
        let mut skip = offset;
        let mut at = 0;
        if offset > 0
            && let Some(frames) = packed::frames(&mut file)?
            && let Some(frame) = frames.iter().rev().find(|frame| frame.offset <= offset)
        {
            (at, skip) = (frame.at, offset - frame.offset);
        }
        file.seek(SeekFrom::Start(at))?;
        let decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, file))?;
        let mut reader = BufReader::with_capacity(BUFFER, decoder);
        let skipped = io::copy(&mut (&mut reader).take(skip), &mut io::sink())?;
        if skipped < skip {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than that"));
        }
        Ok(Source { inner: Inner::Packed(Box::new(reader)) })
    }
}

/// The last record of a closed segment, by what it says of itself; `None` when it does not end with one.
///
/// # Errors
/// It cannot be read.
pub fn last_record(path: &Path) -> io::Result<Option<Head>> {
    let mut file = File::open(path)?;
    let from = match is_packed(path) {
        true => packed::frames(&mut file)?.and_then(|frames| frames.last().map(|frame| frame.offset)),
        false => Some(file.metadata()?.len().saturating_sub(2 << 20)),
    };
    let mut text = Vec::new();
    Source::open_at(path, from.unwrap_or(0))?.read_to_end(&mut text)?;
    let line = text.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    let parts = line.and_then(|line| line::split(line).ok());
    Ok(parts.map(|parts| Head { seq: parts.seq, hash: parts.hash }))
}

/// The lines of a segment whose record is of this kind, each with its newline.
///
/// # Errors
/// It cannot be read.
pub fn lines_of_kind(path: &Path, kind: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut lines = Lines::new(Source::open(path)?);
    let mut found = Vec::new();
    while let Some(line) = lines.next()? {
        if let RawLine::Whole(line) = line
            && line::split(line).is_ok_and(|parts| parts.kind() == Some(kind))
        {
            found.push([line, b"\n"].concat());
        }
    }
    Ok(found)
}

/// Whether the segment with this name is compressed: it is closed then, and nothing is written to it.
pub fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(reader) => reader.read(buffer),
            Inner::Packed(reader) => reader.read(buffer),
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.inner {
            Inner::Plain(reader) => reader.fill_buf(),
            Inner::Packed(reader) => reader.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match &mut self.inner {
            Inner::Plain(reader) => reader.consume(amount),
            Inner::Packed(reader) => reader.consume(amount),
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.inner {
            Inner::Plain(_) => "Source(plain)",
            Inner::Packed(_) => "Source(packed)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_segment_reads_as_it_was_written_from_every_place() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a.jsonl"), dir.path().join("a.jsonl.zst"));
        let line = |n: usize| format!("{n} {}\n", "é".repeat(n % 4000));
        let text: String = (0..2000).map(line).collect();
        std::fs::write(&plain, &text).unwrap();
        let mut out = File::create(&packed).unwrap();
        let length = packed::pack(Source::open(&plain).unwrap(), &mut out).unwrap();
        assert_eq!(usize::try_from(length).unwrap(), text.len());
        let frames = packed::frames(&mut File::open(&packed).unwrap()).unwrap().unwrap();
        assert!(frames.len() >= 4, "{frames:?}");
        for offset in [0, 1, 4095, (1 << 20) - 1, 1 << 20, (1 << 20) + 77, text.len() - 1, text.len()] {
            let mut found = Vec::new();
            let at = u64::try_from(offset).unwrap();
            Source::open_at(&packed, at).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == text.as_bytes()[offset..], "from {offset}");
        }
        assert!(Source::open_at(&packed, length + 1).is_err());
        // The frames are what others read too.
        let whole = zstd::stream::decode_all(File::open(&packed).unwrap()).unwrap();
        assert!(whole == text.as_bytes());
        assert!(std::fs::metadata(&packed).unwrap().len() < length / 10);
    }

    #[test]
    fn a_compressed_segment_without_a_table_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("a.jsonl.zst");
        std::fs::write(&packed, zstd::bulk::compress(b"one\ntwo\n", 3).unwrap()).unwrap();
        let mut found = String::new();
        Source::open_at(&packed, 4).unwrap().read_to_string(&mut found).unwrap();
        assert_eq!(found, "two\n");
    }
}
