//! A closed segment, compressed: zstd in its seekable format, so that a record in its middle is read without all before it.
//!
//! `journal-00000007.jsonl.zst` is what `zstdcat` and every other reader of zstd understands: frames of whole lines, each about
//! a mebibyte before it was compressed, and after them the table of frames
//! (<https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md>, without
//! checksums: the chain has better ones), which readers that do not know it skip. What the chain proves are the lines, and
//! not this file: a table that lies leads to bytes that are not what belongs there.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use zstd::bulk::Compressor;

/// About how many bytes of lines are in a frame; a longer line is in a longer one.
const FRAME: usize = 1 << 20;

/// Marks the table as something that readers of zstd skip.
const SKIPPABLE: u32 = 0x184D_2A5E;
/// Ends the table.
const SEEKABLE: u32 = 0x8F92_EAB1;
/// Number of frames, descriptor, magic number.
const FOOTER: u64 = 9;
const ENTRY: u64 = 8;

/// How hard zstd tries. What repeats in records is so near and so long that the quickest level finds it: of a journal under load it makes a
/// thirteenth, and its own default (3) takes twice as long to make a twelfth.
const LEVEL: i32 = 1;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it begins in the file.
    pub(crate) at: u64,
    /// Where what it holds begins in the segment, before it was compressed.
    pub(crate) offset: u64,
    /// How many bytes of the segment it holds.
    pub(crate) length: u64,
}

/// Compresses a whole segment, and says how many bytes it had.
///
/// # Errors
/// Reading or writing failed.
pub fn pack(from: impl BufRead, to: impl Write) -> io::Result<u64> {
    let mut packing = Packing::new(from, to)?;
    loop {
        let length = packing.fill_buf()?.len();
        if length == 0 {
            return packing.finish();
        }
        packing.consume(length);
    }
}

/// A segment that is read, and compressed as far as it was.
pub(crate) struct Packing<R, W> {
    from: R,
    packer: Packer<W>,
    /// What went wrong, to say it when more is asked for.
    failed: Option<io::Error>,
}

impl<R: BufRead, W: Write> Packing<R, W> {
    pub(crate) fn new(from: R, to: W) -> io::Result<Self> {
        let (frame, table) = (Vec::new(), Vec::new());
        let packer = Packer { to, compressor: Compressor::new(LEVEL)?, frame, table, total: 0 };
        Ok(Self { from, packer, failed: None })
    }

    /// Ends the file, and says how many bytes the segment had.
    pub(crate) fn finish(self) -> io::Result<u64> {
        self.failed.map_or(Ok(()), Err)?;
        self.packer.finish()
    }
}

impl<R: BufRead, W: Write> BufRead for Packing<R, W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.from.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        let Self { from, packer, failed } = self;
        if amount == 0 || failed.is_some() {
            return;
        }
        // What was shown is there still, and nothing is read for it.
        let taken = from.fill_buf().and_then(|bytes| packer.take(bytes.get(..amount).unwrap_or(bytes)));
        *failed = taken.err();
        from.consume(amount);
    }
}

impl<R: BufRead, W: Write> Read for Packing<R, W> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(to)?;
        self.consume(read);
        Ok(read)
    }
}

/// Compresses what it gets, in frames of whole lines.
struct Packer<W> {
    to: W,
    compressor: Compressor<'static>,
    /// Lines that are not compressed yet.
    frame: Vec<u8>,
    table: Vec<u8>,
    total: u64,
}

impl<W: Write> Packer<W> {
    /// A frame ends with the first line that makes it long enough.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            // The line end that ends the frame is not before this.
            let least = FRAME.saturating_sub(self.frame.len() + 1);
            let end =
                bytes.get(least..).and_then(|rest| memchr::memchr(b'\n', rest)).map(|at| least + at + 1);
            let Some((ending, rest)) = end.and_then(|end| bytes.split_at_checked(end)) else { break };
            self.frame.extend_from_slice(ending);
            self.end_frame()?;
            bytes = rest;
        }
        self.frame.extend_from_slice(bytes);
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let packed = self.compressor.compress(&self.frame)?;
        self.to.write_all(&packed)?;
        for length in [packed.len(), self.frame.len()] {
            let length = u32::try_from(length).map_err(|_| io::Error::other("a line of gigabytes"))?;
            self.table.extend_from_slice(&length.to_le_bytes());
        }
        self.total += wide(self.frame.len());
        self.frame.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.end_frame()?;
        let Self { mut to, table, total, .. } = self;
        let frames = wide(table.len()) / ENTRY;
        let frames = u32::try_from(frames).map_err(|_| io::Error::other("a segment of petabytes"))?;
        let length =
            u32::try_from(wide(table.len()) + FOOTER).map_err(|_| io::Error::other("too many frames"))?;
        to.write_all(&SKIPPABLE.to_le_bytes())?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(&table)?;
        to.write_all(&frames.to_le_bytes())?;
        to.write_all(&[0])?;
        to.write_all(&SEEKABLE.to_le_bytes())?;
        Ok(total)
    }
}

/// Reads the table at the end of a compressed segment; `None` when there is none that fits: then it is read from its beginning.
///
/// # Errors
/// Reading failed.
pub(crate) fn frames(file: &mut (impl io::Read + Seek)) -> io::Result<Option<Vec<Frame>>> {
    let end = file.seek(SeekFrom::End(0))?;
    let Some(at) = end.checked_sub(FOOTER) else { return Ok(None) };
    file.seek(SeekFrom::Start(at))?;
    let (count, rest) = (number(file)?, u64::from(byte(file)?));
    if number(file)? != SEEKABLE || rest != 0 {
        return Ok(None);
    }
    let size = u64::from(count) * ENTRY;
    let Some(begin) = at.checked_sub(size + 8) else { return Ok(None) };
    file.seek(SeekFrom::Start(begin))?;
    if number(file)? != SKIPPABLE || u64::from(number(file)?) != size + FOOTER {
        return Ok(None);
    }
    let (mut found, mut next, mut offset) = (Vec::new(), 0, 0);
    let mut table = io::BufReader::new(file.by_ref().take(size));
    for _ in 0..count {
        let (packed, length) = (u64::from(number(&mut table)?), u64::from(number(&mut table)?));
        found.push(Frame { at: next, offset, length });
        next += packed;
        offset += length;
    }
    Ok((next == begin).then_some(found))
}

fn number(from: &mut impl io::Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn byte(from: &mut impl io::Read) -> io::Result<u8> {
    let mut bytes = [0; 1];
    from.read_exact(&mut bytes)?;
    let [byte] = bytes;
    Ok(byte)
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    /// Lines of all lengths, some of them longer than a frame, with and without an end of the last one.
    fn segment(ends: bool) -> Vec<u8> {
        let mut text = Vec::new();
        for length in
            [0, 1, 700_000, 400_000, FRAME - 2, 5, FRAME - 1, 3 * FRAME, 9, FRAME / 2, FRAME / 2 - 1]
        {
            text.extend((0..length).map(|at| b'a' + u8::try_from(at % 23).unwrap()));
            text.push(b'\n');
        }
        if !ends {
            text.extend_from_slice(b"half a line");
        }
        text
    }

    #[test]
    fn frames_end_with_the_line_that_makes_them_long_enough_however_the_segment_is_read() {
        for ends in [true, false] {
            let text = segment(ends);
            let mut whole = Vec::new();
            assert_eq!(pack(text.as_slice(), &mut whole).unwrap(), wide(text.len()));
            for room in [1000, 4099, FRAME, 3 * FRAME + 1] {
                let mut packed = Vec::new();
                pack(BufReader::with_capacity(room, text.as_slice()), &mut packed).unwrap();
                assert!(packed == whole, "read in pieces of {room} bytes");
            }
            assert!(zstd::stream::decode_all(whole.as_slice()).unwrap() == text);
            let frames = frames(&mut Cursor::new(&whole)).unwrap().unwrap();
            let mut at = 0;
            for (number, frame) in frames.iter().enumerate() {
                let (from, length) =
                    (usize::try_from(frame.offset).unwrap(), usize::try_from(frame.length).unwrap());
                assert_eq!(from, at);
                at += length;
                let held = &text[from..at];
                let before =
                    held[..held.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                assert!(before < FRAME, "frame {number} goes on behind {before} bytes of whole lines");
                if number + 1 < frames.len() {
                    assert!(held.ends_with(b"\n") && length >= FRAME, "frame {number} has {length} bytes");
                }
            }
            assert_eq!(at, text.len());
        }
    }

    #[test]
    fn what_could_not_be_written_is_told_by_whoever_is_asked_next() {
        /// Has no room once.
        struct Full(Option<usize>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if let Some(room) = self.0.take() {
                    self.0 = Some(room.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?);
                }
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let text = segment(true);
        let mut whole = Vec::new();
        pack(text.as_slice(), &mut whole).unwrap();
        for room in [0, 100, whole.len() - 1] {
            let failed = pack(BufReader::with_capacity(4099, text.as_slice()), Full(Some(room))).unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::StorageFull, "room for {room} bytes");
        }
        pack(text.as_slice(), Full(Some(whole.len()))).unwrap();
        // At the end of the file, where nothing more is read.
        let mut packing = Packing::new(text.as_slice(), Full(Some(0))).unwrap();
        let length = packing.fill_buf().unwrap().len();
        packing.consume(length);
        assert_eq!(packing.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
