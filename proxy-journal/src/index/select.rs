//! A filter over an index: which blocks, and which rows.

use std::io::{Read, Seek};

use super::block::Entry;
use super::{ABSENT, API, Block, DICTIONARIES, HOST, IDENTITY, Index, KIND, OTHER, UNIT};
use crate::facts::Ruling;
use crate::filter::{Filter, fits};
use crate::timestamp::Timestamp;

/// Whether a row is one that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It is not.
    No,
    /// It is.
    Yes,
    /// The index cannot tell: the line has to be read.
    Perhaps,
}

/// A filter, with the numbers of one index for its words.
pub(crate) struct Selection {
    filter: Filter,
    /// For each dictionary, when it is asked for: which numbers fit.
    words: [Option<Vec<bool>>; DICTIONARIES],
    /// The same, as the bits of [`Entry::words`].
    bits: [u64; DICTIONARIES],
    /// What is not asked about is asked of no row.
    needs_ruling: bool,
    needs_status: bool,
    needs_time: bool,
}

/// Whether a word, or that there is none, is asked for.
type Fits<'a> = &'a dyn Fn(Option<&str>) -> bool;

impl Selection {
    /// For this index.
    pub(crate) fn new<R: Read + Seek>(filter: &Filter, index: &Index<R>) -> Selection {
        let asks: [(usize, bool, Fits<'_>); 5] = [
            (KIND, !filter.kinds.is_empty() || !filter.quiet.is_empty(), &|word| filter.fits_kind(word)),
            (IDENTITY, !filter.identities.is_empty(), &|word| filter.fits_identity(word)),
            (API, !filter.apis.is_empty(), &|word| fits(&filter.apis, word)),
            (UNIT, !filter.units.is_empty(), &|word| fits(&filter.units, word)),
            (HOST, !filter.hosts.is_empty(), &|word| fits(&filter.hosts, word)),
        ];
        let (mut words, mut bits) = (<[Option<Vec<bool>>; DICTIONARIES]>::default(), [0; DICTIONARIES]);
        for (column, asked, fits) in asks {
            let (Some(known), true) = (index.words().get(column), asked) else { continue };
            let fitting: Vec<bool> =
                std::iter::once(fits(None)).chain(known.iter().map(|word| fits(Some(word)))).collect();
            let mut bit = 1_u64 << (OTHER % 64);
            for (number, _) in fitting.iter().enumerate().filter(|(_, fits)| **fits) {
                bit |= 1 << (number % 64);
            }
            if let (Some(words), Some(bits)) = (words.get_mut(column), bits.get_mut(column)) {
                (*words, *bits) = (Some(fitting), bit);
            }
        }
        Selection {
            words,
            bits,
            needs_ruling: !filter.rulings.is_empty(),
            needs_status: !filter.statuses.is_empty(),
            needs_time: filter.since.is_some() || filter.until.is_some(),
            filter: filter.clone(),
        }
    }

    /// Whether a block can have rows that are asked for. Of an outcome whose decision is elsewhere only time, kind and status
    /// are known: it has bits for what is absent.
    pub(super) fn may_be_in(&self, entry: &Entry) -> bool {
        let time = Timestamp::from_micros;
        let unknown = entry.rulings & 1 != 0;
        let ruling = |ruling: &Ruling| entry.rulings & (1 << *ruling as u8) != 0;
        let status = |class: &u8| entry.classes & (1 << class) != 0;
        let mut columns = self.words.iter().zip(self.bits).zip(entry.words).enumerate();
        self.filter.fits_time(time(entry.first_time), time(entry.last_time))
            && (!self.needs_ruling || unknown || self.filter.rulings.iter().any(ruling))
            && (!self.needs_status
                || (0..=6)
                    .filter(status)
                    .any(|class| self.filter.statuses.iter().any(|range| range.touches(class))))
            && columns.all(|(column, ((asked, wanted), there))| {
                let absent = column != KIND && there & (1 << ABSENT) != 0 && unknown;
                asked.is_none() || absent || wanted & there != 0
            })
    }

    /// The rows that may be asked for.
    pub(crate) fn judge_all(&self, block: &Block) -> Vec<(usize, Judged)> {
        let rows = (0..block.len()).map(|row| (row, self.judge(block, row)));
        rows.filter(|(_, judged)| *judged != Judged::No).collect()
    }

    /// Whether a row is asked for.
    fn judge(&self, block: &Block, row: usize) -> Judged {
        let unpaired = block.is_unpaired(row);
        let mut judged = Judged::Yes;
        for (column, fitting) in self.words.iter().enumerate() {
            let Some(fitting) = fitting else { continue };
            if unpaired && column != KIND {
                judged = Judged::Perhaps;
                continue;
            }
            match block.word(column, row) {
                OTHER => judged = Judged::Perhaps,
                number if fitting.get(usize::from(number)).copied().unwrap_or(false) => {}
                _ => return Judged::No,
            }
        }
        let time = || self.filter.fits_time(block.time(row), block.time(row));
        if (self.needs_time && !time())
            || (self.needs_status && !self.filter.fits_status(block.status(row)))
            || (self.needs_ruling && !unpaired && !self.filter.fits_ruling(block.ruling(row)))
        {
            return Judged::No;
        }
        if unpaired { Judged::Perhaps } else { judged }
    }
}

impl<R: Read + Seek> Index<R> {
    /// What is in this block, if it is worth reading: of lines, not of decisions that wait.
    pub(crate) fn entry_for(&self, block: usize, selection: &Selection) -> Option<&Entry> {
        self.directory.get(block).filter(|entry| !entry.open && selection.may_be_in(entry))
    }
}
