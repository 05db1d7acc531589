//! Finds a call by its id, or by the beginning of it.

use std::collections::BTreeMap;
use std::io;

use uuid::Uuid;

use super::{Archive, Place};
use crate::facts::Facts;

/// An id, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix {
    /// Hexadecimal digits, at most 32.
    digits: String,
}

impl IdPrefix {
    /// Reads an id as it is shown: with or without hyphens, `urn:uuid:` before it; `None` when it is none.
    pub fn parse(text: &str) -> Option<IdPrefix> {
        let text = text.trim();
        let text = text.strip_prefix("urn:uuid:").unwrap_or(text);
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let hex = digits.chars().all(|c| c.is_ascii_hexdigit());
        ((1..=32).contains(&digits.len()) && hex).then(|| IdPrefix { digits: digits.to_ascii_lowercase() })
    }

    /// The whole id, if it is one.
    pub fn whole(&self) -> Option<Uuid> {
        (self.digits.len() == 32).then(|| Uuid::try_parse(&self.digits).ok()).flatten()
    }

    /// The first eight bytes of ids that begin so, from and up to.
    fn range(&self) -> (u64, u64) {
        let first: String = self.digits.chars().chain(std::iter::repeat('0')).take(16).collect();
        let last: String = self.digits.chars().chain(std::iter::repeat('f')).take(16).collect();
        let number = |digits: &str| u64::from_str_radix(digits, 16).unwrap_or(0);
        (number(&first), number(&last))
    }

    fn begins(&self, id: Uuid) -> bool {
        id.as_simple().encode_lower(&mut Uuid::encode_buffer()).starts_with(&self.digits)
    }
}

/// Where the lines of a call stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pieces {
    /// The decision, or the connection.
    pub decision: Option<Place>,
    /// The outcome.
    pub outcome: Option<Place>,
}

impl Archive {
    /// The calls whose id begins so, the newest segment first; not many more than `most`.
    ///
    /// # Errors
    /// A segment or an index cannot be read.
    pub fn find(&mut self, wanted: &IdPrefix, most: usize) -> io::Result<BTreeMap<Uuid, Pieces>> {
        let (first, last) = wanted.range();
        let mut found: BTreeMap<Uuid, Pieces> = BTreeMap::new();
        for part in (0..self.parts.len()).rev() {
            let segment = self.parts.get(part).map_or(0, |part| part.number);
            let index = match self.index(part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                index => index?,
            };
            let mut rows = Vec::new();
            for number in 0..index.blocks() {
                if !index.may_have_id(number, first, last) {
                    continue;
                }
                let block = match index.block(number) {
                    Ok(block) => block,
                    Err(bad) => return Err(self.damaged(part, bad)),
                };
                let ids = (0..block.len()).filter(|row| (first..=last).contains(&block.id(*row)));
                rows.extend(ids.map(|row| block.row(row)).take(most.saturating_mul(4)));
            }
            for row in rows {
                let place = |offset| Place { segment, offset };
                let Some(line) = self.line(place(row.offset))? else { continue };
                let Ok(facts) = Facts::of(&line.text, None) else { continue };
                let Some(id) = facts.id.filter(|id| wanted.begins(*id)) else { continue };
                let pieces = found.entry(id).or_default();
                if row.decision.is_some() || row.unpaired {
                    pieces.outcome.get_or_insert(place(row.offset));
                    pieces.decision = pieces.decision.or(row.decision.map(place));
                } else {
                    pieces.decision.get_or_insert(place(row.offset));
                }
            }
            let complete =
                wanted.whole().is_some_and(|id| found.get(&id).is_some_and(|it| it.decision.is_some()));
            if complete || found.len() > most {
                break;
            }
        }
        Ok(found)
    }
}
