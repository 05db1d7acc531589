//! The words of a segment, each once.

use std::collections::HashMap;

use super::{ABSENT, DICTIONARIES, OTHER};

/// Longest word in bytes; names of hosts and units have at most 255.
const LONGEST: usize = 512;
/// Most bytes of all words of a column: what a bot makes up must not fill the memory of those who look, nor take the room of others.
const MOST_BYTES: usize = 4 << 20;

/// Gives words their numbers.
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    columns: [Column; DICTIONARIES],
}

#[derive(Debug, Default)]
struct Column {
    known: HashMap<String, u16>,
    /// The words as they are written.
    bytes: Vec<u8>,
    /// The last word that was looked up, which mostly comes again, and its number; [`ABSENT`] before there is one.
    last: (String, u16),
}

impl Dictionaries {
    /// The number of a word in a column.
    pub(super) fn number(&mut self, column: usize, word: Option<&str>) -> u16 {
        let Some(word) = word else { return ABSENT };
        let Some(Column { known, bytes, last }) = self.columns.get_mut(column) else { return OTHER };
        if last.1 != ABSENT && last.0 == word {
            return last.1;
        }
        if let Some(number) = known.get(word) {
            word.clone_into(&mut last.0);
            last.1 = *number;
            return *number;
        }
        let number = u16::try_from(known.len() + 1).unwrap_or(OTHER);
        let (true, Ok(length)) = (word.len() <= LONGEST, u16::try_from(word.len())) else { return OTHER };
        if number == OTHER || bytes.len() + word.len() > MOST_BYTES {
            return OTHER;
        }
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(word.as_bytes());
        known.insert(word.to_owned(), number);
        number
    }

    /// All of them as they are written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for Column { known, bytes, .. } in &self.columns {
            all.extend_from_slice(&u32::try_from(known.len()).unwrap_or(0).to_le_bytes());
            all.extend_from_slice(bytes);
        }
        all
    }
}

/// Reads what [`Dictionaries::bytes`] wrote; `None` when it is something else.
pub(super) fn read(mut bytes: &[u8]) -> Option<[Vec<String>; DICTIONARIES]> {
    let mut columns: [Vec<String>; DICTIONARIES] = Default::default();
    for column in &mut columns {
        let (count, rest) = bytes.split_first_chunk()?;
        bytes = rest;
        let count = u32::from_le_bytes(*count);
        if count >= u32::from(OTHER) {
            return None;
        }
        for _ in 0..count {
            let (length, rest) = bytes.split_first_chunk()?;
            let (word, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            column.push(std::str::from_utf8(word).ok()?.to_owned());
            bytes = rest;
        }
    }
    bytes.is_empty().then_some(columns)
}
