//! Indexes beside their segments: found, weighed, made anew, written so that nobody reads half of one.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Cursor, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::{Archive, Indexes};
use crate::index::{self, BadIndex, Index, Summary};
use crate::line::{self, MAX_LINE};
use crate::packed;
use crate::source::{Source, is_packed};

/// Name of the index of a segment: `journal-00000007.idx`.
pub fn index_name(number: u32) -> String {
    format!("journal-{number:08}.idx")
}

/// Where the index of the segment with this path lies.
pub(super) fn index_path(segment: &Path, number: u32) -> PathBuf {
    segment.with_file_name(index_name(number))
}

/// Something to read an index from.
pub(super) trait Bytes: Read + Seek + Send {}

impl<T: Read + Seek + Send> Bytes for T {}

/// An index from wherever.
pub(super) type Loaded = Index<Box<dyn Bytes>>;

/// What became of the index of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It lay there, and is right.
    There,
    /// It was made, and lies there now.
    Written,
    /// It was made, and cannot be written there.
    NotWritten,
    /// The segment still grows: it has none.
    Open,
}

impl Archive {
    /// The index of a part, made if need be.
    pub(super) fn index(&mut self, part: usize) -> io::Result<&mut Loaded> {
        if self.loaded.as_ref().is_none_or(|(loaded, _)| *loaded != part) {
            let (index, _) = self.load(part, false)?;
            self.loaded = Some((part, index));
        }
        match &mut self.loaded {
            Some((_, index)) => Ok(index),
            None => Err(io::Error::other("an index is not there")),
        }
    }

    /// Goes over all segments, and makes the indexes that are missing; all of them with `anew`. Says the number of each
    /// segment, what became of its index, and what the index says.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn make_indexes(
        &mut self,
        anew: bool,
        mut each: impl FnMut(u32, Kept, &Summary) -> io::Result<()>,
    ) -> io::Result<()> {
        for part in 0..self.parts.len() {
            let number = self.parts.get(part).map_or(0, |part| part.number);
            let (mut index, mut kept) = match self.load(part, anew) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                loaded => loaded?,
            };
            if kept == Kept::There && index.check().is_err() {
                (index, kept) = self.load(part, true)?;
            }
            // Each is held but once.
            self.shared.memory().remove(&part);
            each(number, kept, index.summary())?;
        }
        Ok(())
    }

    pub(super) fn load(&mut self, at: usize, anew: bool) -> io::Result<(Loaded, Kept)> {
        let next = self.parts.get(at + 1).map(|part| part.path.clone());
        let Some(part) = self.parts.get_mut(at) else { return Err(io::Error::other("no such segment")) };
        let known = self.shared.memory().get(&at).cloned();
        if let Some(bytes) = known {
            return Ok((in_memory(bytes)?, Kept::NotWritten));
        }
        if !part.path.exists()
            && let Some((_, path)) =
                crate::segment::list(&self.dir)?.into_iter().find(|(number, _)| *number == part.number)
        {
            part.path = path;
        }
        let path = index_path(&part.path, part.number);
        if part.closed
            && !anew
            && self.indexes != Indexes::Ignore
            && let Ok(index) = beside(&path)
            && (part.fits == Some(*index.summary()) || fits(index.summary(), &part.path, next.as_deref())?)
        {
            part.fits = Some(*index.summary());
            return Ok((index, Kept::There));
        }
        let mut bytes = Vec::new();
        index::build(Source::open(&part.path)?, &mut bytes)?;
        let kept = match (part.closed, self.indexes) {
            (false, _) => Kept::Open,
            (true, Indexes::Keep) if write(&path, &bytes).is_ok() => Kept::Written,
            (true, _) => Kept::NotWritten,
        };
        let bytes: Arc<[u8]> = bytes.into();
        if kept != Kept::Written {
            self.shared.memory().insert(at, Arc::clone(&bytes));
        }
        Ok((in_memory(bytes)?, kept))
    }
}

fn in_memory(bytes: Arc<[u8]>) -> io::Result<Loaded> {
    Index::open(Box::new(Cursor::new(bytes)) as Box<dyn Bytes>).map_err(io::Error::other)
}

/// Makes the index of a closed segment, if it has none that is right. It is read through what `through` makes of it.
///
/// # Errors
/// The segment cannot be read.
pub fn keep_index<R: io::BufRead>(
    segment: &Path,
    number: u32,
    through: impl FnOnce(Source) -> R,
) -> io::Result<Kept> {
    let path = index_path(segment, number);
    if let Ok(index) = beside(&path)
        && fits(index.summary(), segment, None)?
    {
        return Ok(Kept::There);
    }
    let mut bytes = Vec::new();
    index::build(through(Source::open(segment)?), &mut bytes)?;
    Ok(if write(&path, &bytes).is_ok() { Kept::Written } else { Kept::NotWritten })
}

/// Compresses a closed segment, and makes its index from the same reading; which must be put beside it ([`put_index`]).
///
/// # Errors
/// Reading or writing failed.
pub fn pack_indexed(from: impl io::BufRead, to: impl Write, index: impl Write) -> io::Result<()> {
    let mut packing = packed::Packing::new(from, to)?;
    index::build(&mut packing, index)?;
    packing.finish().map(|_| ())
}

/// Puts an index beside its segment.
///
/// # Errors
/// It cannot be written there.
pub fn put_index(segment: &Path, number: u32, index: &[u8]) -> io::Result<()> {
    write(&index_path(segment, number), index)
}

/// Opens an index that lies beside its segment: a file, and nothing that leads elsewhere.
fn beside(path: &Path) -> Result<Loaded, BadIndex> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(BadIndex::Shape("it is no file"));
    }
    Index::open(Box::new(BufReader::with_capacity(32 << 10, file)))
}

/// Writes an index so that there is a whole one or none.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let made = path.with_extension(format!("idx.{}", std::process::id()));
    // What one of the same number left that was killed.
    let _ = fs::remove_file(&made);
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&made);
    let written = file.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&made, path));
    if written.is_err() {
        let _ = fs::remove_file(&made);
    }
    written
}

/// Whether an index is that of this segment: as long, and with the same last record. That is the one that the next segment
/// continues, which is sooner read than the end of a compressed one.
fn fits(summary: &Summary, path: &Path, next: Option<&Path>) -> io::Result<bool> {
    let length = length(path)?;
    if length != summary.length {
        return Ok(false);
    }
    let mut line = Vec::new();
    if let Some(Ok(next)) = next.map(Source::open)
        && next.take(MAX_LINE as u64).read_until(b'\n', &mut line).is_ok()
        && line.pop().is_some()
        && let Ok(first) = line::split(&line)
        && (first.seq, first.prev) == (summary.last_seq.saturating_add(1), summary.last_hash)
    {
        return Ok(true);
    }
    let mut window = 64 << 10;
    loop {
        let from = length.saturating_sub(window);
        let mut bytes = Vec::new();
        Source::open_at(path, from)?.read_to_end(&mut bytes)?;
        let last = bytes.rsplit(|byte| *byte == b'\n').find_map(|line| line::split(line).ok());
        match last {
            Some(last) => return Ok((last.seq, last.hash) == (summary.last_seq, summary.last_hash)),
            None if from == 0 => return Ok(summary.records == 0),
            None if window > 4 * MAX_LINE as u64 => return Ok(false),
            None => window *= 8,
        }
    }
}

/// Bytes of a closed segment, before it was compressed.
fn length(path: &Path) -> io::Result<u64> {
    if !is_packed(path) {
        return Ok(path.metadata()?.len());
    }
    match packed::frames(&mut File::open(path)?)? {
        Some(frames) => Ok(frames.last().map_or(0, |frame| frame.offset.saturating_add(frame.length))),
        None => io::copy(&mut Source::open(path)?, &mut io::sink()),
    }
}
