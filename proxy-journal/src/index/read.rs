//! Reads an index, whatever its bytes are: no more memory than it says, and it may not say much.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use zstd::bulk::Decompressor;

use super::block::{Block, ENTRY, Entry, most_packed};
use super::build::{FOOTER, Footer};
use super::paths::Paths;
use super::{DICTIONARIES, Summary, dictionary, paths};

/// Most bytes of the dictionaries (that are made: 42 MB at most), and of the directory: 400,000 blocks, that is over a billion records. Each thread that looks may hold
/// both.
const MOST: u64 = 64 << 20;

/// Why a file is not the index that it should be: it is made anew then.
#[derive(Debug, thiserror::Error)]
pub enum BadIndex {
    /// It is something else, of another version, or was damaged.
    #[error("it is no index, or was damaged: {0}")]
    Shape(&'static str),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// An index in a file, of which only what is asked for is read.
pub struct Index<R> {
    file: R,
    summary: Summary,
    words: Arc<[Vec<String>; DICTIONARIES]>,
    pub(super) directory: Vec<Entry>,
    unpacker: Decompressor<'static>,
}

impl<R: Read + Seek> Index<R> {
    /// Reads the end of the file, and what is said there.
    ///
    /// # Errors
    /// It is no index.
    pub fn open(mut file: R) -> Result<Index<R>, BadIndex> {
        let end = file.seek(SeekFrom::End(0))?;
        let footer_at = end.checked_sub(FOOTER as u64).ok_or(BadIndex::Shape("it is too short"))?;
        file.seek(SeekFrom::Start(footer_at))?;
        let mut bytes = [0; FOOTER];
        file.read_exact(&mut bytes)?;
        let footer = Footer::read(&bytes).ok_or(BadIndex::Shape("it does not end as one"))?;
        let directory_size = u64::from(footer.blocks) * ENTRY as u64;
        let begin = footer_at
            .checked_sub(footer.packed_directory)
            .and_then(|at| Some((at.checked_sub(footer.packed_words)?, at)));
        let Some((words_at, directory_at)) = begin else {
            return Err(BadIndex::Shape("its parts are longer than it is"));
        };
        if footer.words > MOST || directory_size > MOST {
            return Err(BadIndex::Shape("its parts are too long"));
        }
        let mut unpacker = Decompressor::new()?;
        let mut part = |at, packed, size| unpack(&mut file, &mut unpacker, at, packed, size);
        let words = part(words_at, footer.packed_words, footer.words)?;
        let words = dictionary::read(&words).ok_or(BadIndex::Shape("its dictionaries are wrong"))?;
        let bytes = part(directory_at, footer.packed_directory, directory_size)?;
        let mut directory = Vec::with_capacity(bytes.len() / ENTRY);
        for bytes in bytes.chunks_exact(ENTRY) {
            let entry = Entry::read(bytes).ok_or(BadIndex::Shape("its directory is wrong"))?;
            let length = u64::from(entry.packed) + u64::from(entry.packed_paths);
            let inside = entry.at.checked_add(length).is_some_and(|end| end <= words_at);
            if !inside
                || u64::from(entry.packed) > most_packed()
                || u64::from(entry.packed_paths) > paths::MOST
                || u64::from(entry.paths) > paths::MOST
            {
                return Err(BadIndex::Shape("a block is not in it"));
            }
            directory.push(entry);
        }
        Ok(Index { file, summary: footer.summary, words: Arc::new(words), directory, unpacker })
    }

    /// The segment that it is of, as it says.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> usize {
        self.directory.len()
    }

    /// Whether the rows of this block are decisions whose outcome is not in the segment.
    pub(crate) fn is_open(&self, block: usize) -> bool {
        self.directory.get(block).is_some_and(|entry| entry.open)
    }

    /// Whether an id that begins with these (the first eight bytes, from and up to) can be in this block.
    pub(crate) fn may_have_id(&self, block: usize, first: u64, last: u64) -> bool {
        self.directory.get(block).is_some_and(|entry| entry.first_id <= last && entry.last_id >= first)
    }

    /// The words of a column.
    pub(crate) fn words(&self) -> &Arc<[Vec<String>; DICTIONARIES]> {
        &self.words
    }

    /// Reads a block.
    ///
    /// # Errors
    /// It was damaged.
    pub(crate) fn block(&mut self, number: usize) -> Result<Block, BadIndex> {
        let entry = self.directory.get(number).ok_or(BadIndex::Shape("there is no such block"))?.clone();
        let size = Block::size(entry.rows);
        let bytes = unpack(
            &mut self.file,
            &mut self.unpacker,
            entry.at,
            u64::from(entry.packed),
            u64::try_from(size).unwrap_or(u64::MAX),
        )?;
        Block::new(&entry, bytes).ok_or(BadIndex::Shape("a block is too short"))
    }

    /// Reads the paths of a block.
    ///
    /// # Errors
    /// They were damaged.
    pub(crate) fn paths(&mut self, number: usize) -> Result<Paths, BadIndex> {
        let entry = self.directory.get(number).ok_or(BadIndex::Shape("there is no such block"))?.clone();
        let at = entry.at.saturating_add(u64::from(entry.packed));
        let (packed, size) = (u64::from(entry.packed_paths), u64::from(entry.paths));
        let bytes = unpack(&mut self.file, &mut self.unpacker, at, packed, size)?;
        Paths::read(entry.rows, bytes).ok_or(BadIndex::Shape("the paths of a block are wrong"))
    }

    /// Reads every row: for who asks whether it is whole.
    ///
    /// # Errors
    /// It was damaged.
    pub fn check(&mut self) -> Result<u64, BadIndex> {
        let mut rows = 0;
        for number in 0..self.blocks() {
            let block = self.block(number)?;
            self.paths(number)?;
            for row in 0..block.len() {
                let row = block.row(row);
                if row.offset >= self.summary.length || row.decision.is_some_and(|at| at >= row.offset) {
                    return Err(BadIndex::Shape("a row is not in the segment"));
                }
                rows += 1;
            }
        }
        if rows == self.summary.rows { Ok(rows) } else { Err(BadIndex::Shape("it has not all its rows")) }
    }
}

fn unpack(
    file: &mut (impl Read + Seek),
    unpacker: &mut Decompressor<'_>,
    at: u64,
    packed: u64,
    size: u64,
) -> Result<Vec<u8>, BadIndex> {
    file.seek(SeekFrom::Start(at))?;
    // What is not there takes no memory.
    let mut bytes = Vec::new();
    file.by_ref().take(packed).read_to_end(&mut bytes)?;
    let size = usize::try_from(size).map_err(|_| BadIndex::Shape("a part is too long"))?;
    // What is packed is at most some thousand times as long: not every promise is believed.
    if size > bytes.len().saturating_mul(1 << 15) {
        return Err(BadIndex::Shape("a part says to be longer than it can be"));
    }
    let part = unpacker.decompress(&bytes, size).map_err(|_| BadIndex::Shape("a part was damaged"))?;
    if part.len() == size { Ok(part) } else { Err(BadIndex::Shape("a part is too short")) }
}
