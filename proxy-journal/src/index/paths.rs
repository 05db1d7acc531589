//! The paths of the rows of a block: nearly each is another one, so they stand as they are.
//!
//! For each row the length of its path and one, or 0 where there is none, or [`ELSEWHERE`] (u16: all low bytes, then all high
//! ones), then the paths one after another, in UTF-8.

use super::ROWS;

/// Longest path that is kept, in bytes; of one that is longer the line has to be read.
const LONGEST: usize = 1024;

/// In the place of a length: the path is in the line alone.
const ELSEWHERE: u16 = u16::MAX;

/// Most bytes of the paths of a block, however they were packed.
pub(super) const MOST: u64 = (ROWS * (LONGEST + 2) + 1024) as u64;

/// What is kept of a path until its row comes: of one that is too long as much as shows that.
pub(super) fn kept(path: Option<&str>) -> Option<&str> {
    path.map(|path| path.get(..path.floor_char_boundary(LONGEST + 4)).unwrap_or(path))
}

/// Paths of the rows that become a block.
#[derive(Debug, Default)]
pub(super) struct Collected {
    lengths: Vec<u16>,
    text: Vec<u8>,
}

impl Collected {
    /// The path of the next row.
    pub(super) fn push(&mut self, path: Option<&str>) {
        let length = match path {
            None => 0,
            Some(path) if path.len() > LONGEST => ELSEWHERE,
            Some(path) => {
                self.text.extend_from_slice(path.as_bytes());
                u16::try_from(path.len() + 1).unwrap_or(ELSEWHERE)
            }
        };
        self.lengths.push(length);
    }

    /// The bytes, and begins anew.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let lengths = std::mem::take(&mut self.lengths);
        let low = lengths.iter().map(|length| length.to_le_bytes()[0]);
        let high = lengths.iter().map(|length| length.to_le_bytes()[1]);
        low.chain(high).chain(std::mem::take(&mut self.text)).collect()
    }
}

/// The paths of a block that was read.
#[derive(Debug)]
pub struct Paths {
    text: String,
    places: Vec<Place>,
}

/// Where the path of a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There is none.
    Nowhere,
    /// From here to there.
    Here(u32, u32),
    /// In the line alone.
    Elsewhere,
}

impl Paths {
    /// Of the bytes of a block with so many rows; `None` when they do not fit.
    pub(super) fn read(rows: u32, mut bytes: Vec<u8>) -> Option<Paths> {
        let rows = usize::try_from(rows).ok()?;
        let (lengths, _) = bytes.split_at_checked(rows.checked_mul(2)?)?;
        let (low, high) = lengths.split_at_checked(rows)?;
        let mut places = Vec::with_capacity(rows);
        let mut end = 0_u32;
        for length in low.iter().zip(high).map(|(low, high)| u16::from_le_bytes([*low, *high])) {
            places.push(match length.checked_sub(1) {
                None => Place::Nowhere,
                Some(_) if length == ELSEWHERE => Place::Elsewhere,
                Some(length) => {
                    let begin = end;
                    end = end.checked_add(u32::from(length))?;
                    Place::Here(begin, end)
                }
            });
        }
        let text = String::from_utf8(bytes.split_off(rows * 2)).ok()?;
        let whole = usize::try_from(end).ok()? == text.len();
        let apart = |place: &Place| match place {
            Place::Here(_, end) => usize::try_from(*end).is_ok_and(|end| text.is_char_boundary(end)),
            Place::Nowhere | Place::Elsewhere => true,
        };
        (whole && places.iter().all(apart)).then_some(Paths { text, places })
    }

    /// The path of a row, if it has one; `None` where it is in the line alone.
    pub fn of(&self, row: usize) -> Option<Option<&str>> {
        match *self.places.get(row)? {
            Place::Nowhere => Some(None),
            Place::Here(begin, end) => {
                let range = usize::try_from(begin).ok()?..usize::try_from(end).ok()?;
                self.text.get(range).map(Some)
            }
            Place::Elsewhere => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn paths_are_read_as_they_were_written(paths in prop::collection::vec(prop::option::of(".{0,40}"), 0..50), long in any::<prop::sample::Index>()) {
            let mut paths = paths;
            if !paths.is_empty() {
                let at = long.index(paths.len());
                paths[at] = Some("é".repeat(LONGEST / 2 + at % 3));
            }
            let mut collected = Collected::default();
            paths.iter().for_each(|path| collected.push(kept(path.as_deref())));
            let read = Paths::read(u32::try_from(paths.len()).unwrap(), collected.take()).unwrap();
            for (row, path) in paths.iter().enumerate() {
                let path = path.as_deref();
                prop_assert_eq!(read.of(row), path.is_none_or(|path| path.len() <= LONGEST).then_some(path));
            }
            prop_assert_eq!(read.of(paths.len()), None);
        }

        #[test]
        fn no_bytes_are_paths_that_cannot_be(rows in 0..20_u32, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(paths) = Paths::read(rows, bytes) {
                for row in 0..20 {
                    prop_assert!(paths.of(row).flatten().is_none_or(|path| path.len() <= 100));
                }
            }
        }
    }
}
