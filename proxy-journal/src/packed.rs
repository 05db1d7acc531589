//! A closed segment, compressed: zstd in its seekable format, so that a record in its middle is read without all before it.
//!
//! `journal-00000007.jsonl.zst` is what `zstdcat` and every other reader of zstd understands: frames of whole lines, each about
//! a mebibyte before it was compressed, and after them the table of frames
//! (<https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md>, without
//! checksums: the chain has better ones), which readers that do not know it skip. What the chain proves are the lines, and
//! not this file: a table that lies leads to bytes that are not what belongs there.

use std::io::{self, BufRead, Read as _, Seek, SeekFrom, Write};

/// About how many bytes of lines are in a frame; a longer line is in a longer one.
const FRAME: u64 = 1 << 20;

/// Marks the table as something that readers of zstd skip.
const SKIPPABLE: u32 = 0x184D_2A5E;
/// Ends the table.
const SEEKABLE: u32 = 0x8F92_EAB1;
/// Number of frames, descriptor, magic number.
const FOOTER: u64 = 9;
const ENTRY: u64 = 8;

/// How hard zstd tries: its own default, some hundreds of megabytes in a second.
const LEVEL: i32 = 3;

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
pub fn pack(mut from: impl BufRead, mut to: impl Write) -> io::Result<u64> {
    let (mut table, mut total) = (Vec::new(), 0);
    let mut frame = Vec::new();
    loop {
        frame.clear();
        while wide(frame.len()) < FRAME && from.read_until(b'\n', &mut frame)? > 0 {}
        if frame.is_empty() {
            break;
        }
        let packed = zstd::bulk::compress(&frame, LEVEL)?;
        to.write_all(&packed)?;
        for length in [packed.len(), frame.len()] {
            let length = u32::try_from(length).map_err(|_| io::Error::other("a line of gigabytes"))?;
            table.extend_from_slice(&length.to_le_bytes());
        }
        total += wide(frame.len());
    }
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
