//! Looks through the indexes of a folder, from either end, a block at a time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::{Archive, Hit, Inside, Place, Sieve, View, Words};
use crate::facts::Part;
use crate::filter::Filter;
use crate::index::{Judged, OTHER, Paths, Row, Selection, short_id};

/// How far a search has come.
pub struct Walk {
    filter: Filter,
    sieve: Option<Box<dyn Sieve>>,
    with_paths: bool,
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
    /// The paths of its rows, if they were asked for.
    pub paths: Option<Paths>,
}

impl Batch {
    /// The path of a hit: `Some(None)` where there is none, `None` when the index does not have it, or paths were not asked for.
    pub fn path(&self, hit: &Hit) -> Option<Option<&str>> {
        if hit.row.unpaired { None } else { self.paths.as_ref()?.of(hit.at) }
    }

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
        Walk {
            filter,
            sieve: None,
            with_paths: false,
            newest_first,
            parts: 0..archive.parts.len(),
            now: None,
        }
    }

    /// The same from the oldest to the newest, in so many shares, each of segments that follow each other: for threads of their own.
    pub fn shares(archive: &Archive, filter: &Filter, count: usize) -> Vec<Walk> {
        let (all, count) = (archive.parts.len(), count.max(1));
        let end = |share: usize| all * share / count;
        let share =
            |at: usize| Walk { parts: end(at)..end(at + 1), ..Walk::new(archive, filter.clone(), false) };
        (0..count).map(share).filter(|walk| !walk.parts.is_empty()).collect()
    }

    /// The same in walks of one segment each, the first one that comes first.
    pub fn segments(archive: &Archive, filter: &Filter, newest_first: bool) -> Vec<Walk> {
        let one =
            |part: usize| Walk { parts: part..part + 1, ..Walk::new(archive, filter.clone(), newest_first) };
        let mut all: Vec<_> = (0..archive.parts.len()).map(one).collect();
        if newest_first {
            all.reverse();
        }
        all
    }

    /// Only what this may ask for as well.
    #[must_use]
    pub fn sifted(self, sieve: Option<Box<dyn Sieve>>) -> Walk {
        Walk { sieve, ..self }
    }

    /// With the paths of what is found.
    #[must_use]
    pub fn with_paths(self) -> Walk {
        Walk { with_paths: true, ..self }
    }

    /// What is asked for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    fn take(range: &mut std::ops::Range<usize>, newest_first: bool) -> Option<usize> {
        if newest_first { range.next_back() } else { range.next() }
    }
}

/// A row that a sieve let through.
struct Sifted {
    row: usize,
    by_filter: Judged,
    by_sieve: Judged,
}

impl Sifted {
    fn judged(&self) -> Judged {
        if self.by_filter == Judged::Yes { self.by_sieve } else { self.by_filter }
    }
}

fn sift(sieve: &mut dyn Sieve, rows: Vec<(usize, Judged)>, view: View<'_>) -> Vec<Sifted> {
    let rows = rows.into_iter().map(|(row, by_filter)| {
        let by_sieve = sieve.judge(&view, row);
        Sifted { row, by_filter, by_sieve }
    });
    rows.filter(|row| row.by_sieve != Judged::No).collect()
}

fn sift_again(sieve: &mut dyn Sieve, rows: &mut Vec<Sifted>, view: View<'_>) {
    rows.retain_mut(|row| {
        if row.by_sieve == Judged::Perhaps {
            row.by_sieve = sieve.judge(&view, row.row);
        }
        row.by_sieve != Judged::No
    });
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
                if let Some(sieve) = &mut walk.sieve {
                    sieve.enter(&words);
                }
                walk.now = Some(Now { part, blocks: 0..index.blocks(), selection, words });
                continue;
            };
            let part = now.part;
            let index = self.index(part)?;
            let mut next = || Walk::take(&mut now.blocks, walk.newest_first);
            let may_have = |at: &usize| {
                let sieve = walk.sieve.as_ref();
                index
                    .entry_for(*at, &now.selection)
                    .is_some_and(|entry| sieve.is_none_or(|sieve| sieve.may_be_in(&Inside(entry))))
            };
            let Some(number) = std::iter::from_fn(&mut next).find(may_have) else {
                walk.now = None;
                continue;
            };
            let block = match index.block(number) {
                Ok(block) => block,
                Err(bad) => return Err(self.damaged(part, bad)),
            };
            let mut rows = now.selection.judge_all(&block);
            let mut paths = None;
            if let Some(sieve) = &mut walk.sieve {
                let mut sifted = sift(sieve.as_mut(), rows, View { block: &block, paths: None });
                let uncertain = |row: &Sifted| row.by_sieve == Judged::Perhaps;
                if sieve.asks_for_paths() && sifted.iter().any(uncertain) {
                    match index.paths(number) {
                        Ok(read) => paths = Some(read),
                        Err(bad) => return Err(self.damaged(part, bad)),
                    }
                    sift_again(sieve.as_mut(), &mut sifted, View { block: &block, paths: paths.as_ref() });
                }
                rows = sifted.into_iter().map(|row| (row.row, row.judged())).collect();
            }
            if walk.with_paths && paths.is_none() && !rows.is_empty() {
                match index.paths(number) {
                    Ok(read) => paths = Some(read),
                    Err(bad) => return Err(self.damaged(part, bad)),
                }
            }
            let segment = self.parts.get(part).map_or(0, |part| part.number);
            let hit = |(at, judged): (usize, Judged)| {
                let row = block.row(at);
                Hit {
                    at,
                    place: Place { segment, offset: row.offset },
                    decision: row.decision.map(|offset| Place { segment, offset }),
                    row,
                    certain: judged == Judged::Yes,
                }
            };
            let mut hits: Vec<Hit> = rows.into_iter().map(hit).collect();
            if walk.newest_first {
                hits.reverse();
            }
            let words = Arc::clone(&now.words);
            for hit in hits.iter_mut().filter(|hit| hit.row.unpaired) {
                hit.decision = self.decision_of(hit)?;
            }
            return Ok(Some(Batch { hits, words, paths }));
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
        if self.shared.waiting.get().is_none() {
            let all = self.all_waiting()?;
            let _ = self.shared.waiting.set(all);
        }
        self.shared.waiting.get().ok_or_else(|| io::Error::other("what waits is not there"))
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
