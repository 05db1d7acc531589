//! A folder of segments as one: looked through by their indexes, read where something was found.
//!
//! Of a segment that is closed the index lies beside it; where it is missing, or is of something else, it is made anew, and
//! written there if that may be done. The last segment, which grows, is indexed in memory as it is when it is looked at.

mod count;
mod files;
mod find;
mod pages;
mod sieve;
mod walk;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::facts::Facts;
use crate::filter::Filter;
use crate::index::{BadIndex, DICTIONARIES, Row, Summary, short_id};
use crate::segment;
use crate::source::is_packed;
use crate::timestamp::Timestamp;

pub use count::{Counted, Group, Key};
pub use files::{Kept, index_name, keep_index, pack_indexed, put_index};
pub use find::{IdPrefix, Pieces};
pub use sieve::{Inside, Sieve, View};
pub use walk::{Batch, Walk};

use files::Loaded;
use pages::Pages;

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Offset in the segment, before it was compressed.
    pub offset: u64,
}

/// A line, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    /// Its bytes.
    pub text: Vec<u8>,
}

/// What the index has of a line that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Where it stands.
    pub place: Place,
    /// Its decision, if it is an outcome.
    pub decision: Option<Place>,
    /// What is known of it.
    pub row: Row,
    /// Which row of its block it is.
    pub at: usize,
    /// Whether it is certain that it is asked for; else it must be read.
    pub certain: bool,
}

/// A call, or another line, as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What it can be looked for by.
    pub facts: Facts,
    /// The decision, if `line` is an outcome and its decision is there.
    pub decision: Option<Line>,
    /// The line that is shown.
    pub line: Line,
}

/// What is done with indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexes {
    /// They are read, and what is missing is written.
    Keep,
    /// They are read, and nothing is written.
    Read,
    /// Everything is read from the segments.
    Ignore,
}

/// The words of an index, by column.
pub type Words = Arc<[Vec<String>; DICTIONARIES]>;

#[derive(Clone)]
struct Part {
    number: u32,
    path: PathBuf,
    /// Nothing is written to it any more.
    closed: bool,
    /// What the index beside it says, when that was found to be of this segment.
    fits: Option<Summary>,
}

/// The segments of a folder, as they were when it was opened.
pub struct Archive {
    dir: PathBuf,
    indexes: Indexes,
    parts: Vec<Part>,
    loaded: Option<(usize, Loaded)>,
    pages: Pages,
    shared: Arc<Shared>,
}

/// What is found out once for all threads that look at a folder.
#[derive(Default)]
struct Shared {
    /// Indexes that lie nowhere.
    memory: Mutex<HashMap<usize, Arc<[u8]>>>,
    /// Decisions whose outcome is not in their segment, by the first bytes of their id.
    waiting: OnceLock<HashMap<u64, Vec<Place>>>,
}

impl Shared {
    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Arc<[u8]>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Archive {
    /// Lists the segments.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(dir: &Path, indexes: Indexes) -> io::Result<Archive> {
        let listed = segment::list(dir)?;
        let last = listed.last().map(|(number, _)| *number);
        let part = |(number, path): (u32, PathBuf)| {
            let closed = Some(number) != last || is_packed(&path);
            Part { number, path, closed, fits: None }
        };
        Ok(Archive {
            dir: dir.to_owned(),
            indexes,
            parts: listed.into_iter().map(part).collect(),
            loaded: None,
            pages: Pages::default(),
            shared: Arc::default(),
        })
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The same segments, for another thread.
    pub fn again(&self) -> Archive {
        Archive {
            dir: self.dir.clone(),
            indexes: self.indexes,
            parts: self.parts.clone(),
            loaded: None,
            pages: Pages::default(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// The last segment, and where its last line ends that was whole when it was looked at.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn end(&mut self) -> io::Result<Option<Place>> {
        let Some(last) = self.parts.len().checked_sub(1) else { return Ok(None) };
        let summary = self.index(last)?.summary();
        let offset = summary.length.saturating_sub(summary.torn);
        Ok(self.parts.get(last).map(|part| Place { segment: part.number, offset }))
    }

    /// Reads the line at a place; `None` when its segment is not there any more.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn line(&mut self, place: Place) -> io::Result<Option<Line>> {
        let Some(part) = self.parts.iter_mut().find(|part| part.number == place.segment) else {
            return Ok(None);
        };
        let text = match self.pages.line(part.number, &part.path, place.offset) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It was compressed, or came to its time, since it was listed.
                let listed = segment::list(&self.dir)?;
                let Some((_, path)) = listed.into_iter().find(|(number, _)| *number == place.segment) else {
                    return Ok(None);
                };
                part.path = path;
                self.pages.line(part.number, &part.path, place.offset)
            }
            other => other,
        }?;
        Ok(Some(Line { place, text }))
    }

    /// Reads what was found; `None` when it is not what is asked for, seen closely, or is not there any more.
    ///
    /// # Errors
    /// It cannot be read, or something else stands there than the index says.
    pub fn read(&mut self, hit: &Hit, filter: &Filter) -> io::Result<Option<Call>> {
        let Some(mut call) = self.call(hit.place, hit.decision)? else { return Ok(None) };
        let (facts, row) = (&mut call.facts, &hit.row);
        if facts.kind == crate::facts::UNREADABLE {
            // Of when it is, only what stands around it tells.
            facts.time = row.time;
        }
        if facts.time != row.time || facts.id.map_or(0, short_id) != row.id {
            return Err(self.untrue(hit.place.segment));
        }
        Ok((hit.certain || filter.matches(facts)).then_some(call))
    }

    /// Reads a line and its decision.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn call(&mut self, place: Place, decision: Option<Place>) -> io::Result<Option<Call>> {
        let Some(line) = self.line(place)? else { return Ok(None) };
        let decision = match decision {
            Some(place) => self.line(place)?,
            None => None,
        };
        let of = |decision: Option<&Line>| {
            Facts::of(&line.text, decision.map(|decision| decision.text.as_slice()))
        };
        let facts = of(decision.as_ref())
            .or_else(|_| of(None))
            .unwrap_or_else(|_| Facts::unreadable(Timestamp::from_micros(0)));
        Ok(Some(Call { facts, decision, line }))
    }

    fn untrue(&self, segment: u32) -> io::Error {
        let part = self.parts.iter().find(|part| part.number == segment);
        let path = part.map(|part| files::index_path(&part.path, segment)).unwrap_or_default();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the index {} is not that of its segment; `vouchsafe audit index --rebuild` makes all anew",
                path.display()
            ),
        )
    }

    fn damaged(&self, part: usize, bad: BadIndex) -> io::Error {
        match bad {
            BadIndex::Read(error) => error,
            BadIndex::Shape(_) => self.untrue(self.parts.get(part).map_or(0, |part| part.number)),
        }
    }
}

#[cfg(test)]
mod tests;
