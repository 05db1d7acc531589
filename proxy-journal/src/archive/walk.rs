//! Looks through the indexes of a folder, from either end, a block at a time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::{Archive, Hit, Place, Words};
use crate::facts::Part;
use crate::filter::Filter;
use crate::index::{Judged, OTHER, Row, Selection, short_id};

/// How far a search has come.
pub struct Walk {
    filter: Filter,
    newest_first: bool,
    /// Parts that are still to be looked at.
    parts: std::ops::Range<usize>,
    now: Option<Now>,
}

struct Now {
    part: usize,
    blocks: std::ops::Range<usize>,
    selection: Selection,
    words: Words,
}

/// What was found in one block, in the order that was asked for.
pub struct Batch {
    /// What was found; maybe nothing.
    pub hits: Vec<Hit>,
    /// The words of its rows.
    pub words: Words,
}

impl Batch {
    /// A word of a row: `Some(None)` where there is nothing, `None` when the index does not have it: the line must be read.
    pub fn word(words: &Words, row: &Row, column: usize) -> Option<Option<String>> {
        let number = row.word(column);
        if row.unpaired || number == OTHER {
            return None;
        }
        let Some(at) = usize::from(number).checked_sub(1) else { return Some(None) };
        words.get(column)?.get(at).cloned().map(Some)
    }
}

impl Walk {
    /// Looks for what this filter asks for.
    pub fn new(archive: &Archive, filter: Filter, newest_first: bool) -> Walk {
        Walk { filter, newest_first, parts: 0..archive.parts.len(), now: None }
    }

    /// The same from the oldest to the newest, in so many shares, each of segments that follow each other: for threads of their own.
    pub fn shares(archive: &Archive, filter: &Filter, count: usize) -> Vec<Walk> {
        let (all, count) = (archive.parts.len(), count.max(1));
        let end = |share: usize| all * share / count;
        let share =
            |at: usize| Walk { parts: end(at)..end(at + 1), ..Walk::new(archive, filter.clone(), false) };
        (0..count).map(share).filter(|walk| !walk.parts.is_empty()).collect()
    }

    /// What is asked for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    fn take(range: &mut std::ops::Range<usize>, newest_first: bool) -> Option<usize> {
        if newest_first { range.next_back() } else { range.next() }
    }
}

impl Archive {
    /// What there is in the next block that may have some; `None` at the end.
    ///
    /// # Errors
    /// A segment or an index cannot be read.
    pub fn next(&mut self, walk: &mut Walk) -> io::Result<Option<Batch>> {
        loop {
            let Some(now) = &mut walk.now else {
                let Some(part) = Walk::take(&mut walk.parts, walk.newest_first) else { return Ok(None) };
                let index = match self.index(part) {
                    // It came to its time since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    index => index?,
                };
                let selection = Selection::new(&walk.filter, index);
                let words = Arc::clone(index.words());
                walk.now = Some(Now { part, blocks: 0..index.blocks(), selection, words });
                continue;
            };
            let part = now.part;
            let index = self.index(part)?;
            let mut next = || Walk::take(&mut now.blocks, walk.newest_first);
            let Some(number) = std::iter::from_fn(&mut next).find(|at| index.may_have(*at, &now.selection))
            else {
                walk.now = None;
                continue;
            };
            let block = match index.block(number) {
                Ok(block) => block,
                Err(bad) => return Err(self.damaged(part, bad)),
            };
            let segment = self.parts.get(part).map_or(0, |part| part.number);
            let mut hits = Vec::new();
            for row in 0..block.len() {
                let judged = now.selection.judge(&block, row);
                if judged == Judged::No {
                    continue;
                }
                let row = block.row(row);
                hits.push(Hit {
                    place: Place { segment, offset: row.offset },
                    decision: row.decision.map(|offset| Place { segment, offset }),
                    row,
                    certain: judged == Judged::Yes,
                });
            }
            if walk.newest_first {
                hits.reverse();
            }
            let words = Arc::clone(&now.words);
            for hit in hits.iter_mut().filter(|hit| hit.row.unpaired) {
                hit.decision = self.decision_of(hit)?;
            }
            return Ok(Some(Batch { hits, words }));
        }
    }

    /// The decision of an outcome that stands in another segment.
    fn decision_of(&mut self, hit: &Hit) -> io::Result<Option<Place>> {
        if !self.waiting()?.contains_key(&hit.row.id) {
            return Ok(None);
        }
        let Some(line) = self.line(hit.place)? else { return Ok(None) };
        let Part::Ends(id) = Part::of(&line.text) else { return Ok(None) };
        self.decision_before(id, hit.place)
    }

    /// The decision of the call with this id whose outcome is not in its segment, but at this place or later.
    ///
    /// # Errors
    /// A segment or an index cannot be read.
    pub fn decision_before(&mut self, id: Uuid, outcome: Place) -> io::Result<Option<Place>> {
        let places = self.waiting()?.get(&short_id(id)).cloned().unwrap_or_default();
        for place in places.into_iter().rev().filter(|place| *place < outcome) {
            let Some(line) = self.line(place)? else { continue };
            if Part::of(&line.text) == Part::Opens(id) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn waiting(&mut self) -> io::Result<&HashMap<u64, Vec<Place>>> {
        let waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => self.all_waiting()?,
        };
        Ok(self.waiting.insert(waiting))
    }

    /// All decisions whose outcome is not in their segment.
    fn all_waiting(&mut self) -> io::Result<HashMap<u64, Vec<Place>>> {
        let mut waiting: HashMap<u64, Vec<Place>> = HashMap::new();
        for part in 0..self.parts.len() {
            let segment = self.parts.get(part).map_or(0, |part| part.number);
            let (mut index, _) = match self.load(part, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                loaded => loaded?,
            };
            for number in (0..index.blocks()).filter(|number| index.is_open(*number)).collect::<Vec<_>>() {
                let block = index.block(number).map_err(|bad| self.damaged(part, bad))?;
                for row in (0..block.len()).map(|row| block.row(row)) {
                    waiting.entry(row.id).or_default().push(Place { segment, offset: row.offset });
                }
            }
        }
        Ok(waiting)
    }
}
