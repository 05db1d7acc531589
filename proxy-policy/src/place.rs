//! Where something stands in the policy files, and values that remember it.

use std::ops::Deref;

/// One of the files of a policy set; [`crate::PolicySet::file_name`] gives its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(crate) u32);

/// A position in a file. Lines and columns count from 1; columns count characters, not bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// A value and where it was written. Two are equal when their values are: the place does not count.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// What was written.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

impl<T> Spanned<T> {
    /// A value and its place.
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

/// Turns byte offsets of one text into places. A file may be one long line, so that not even a column is counted from
/// the beginning of its line.
pub(crate) struct Lines<'t> {
    file: FileId,
    text: &'t str,
    starts: Vec<usize>,
    /// How many characters begin before each block of the text.
    marks: Vec<usize>,
}

/// Bytes from one mark to the next.
const BLOCK: usize = 256;

impl<'t> Lines<'t> {
    pub(crate) fn new(file: FileId, text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let marks = text.as_bytes().chunks(BLOCK).scan(0, |before, block| {
            let mark = *before;
            *before += begun(block);
            Some(mark)
        });
        let (starts, marks) = (std::iter::once(0).chain(after_breaks).collect(), marks.collect());
        Self { file, text, starts, marks }
    }

    /// The place of a byte offset; one past the end or inside a character counts as the nearest before it.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.characters(self.text.floor_char_boundary(offset)) - self.characters(start) + 1;
        Place { file: self.file, line: saturate(line), column: saturate(column) }
    }

    /// How many characters are before a byte offset at which one begins, or the text ends.
    fn characters(&self, offset: usize) -> usize {
        let block = (offset / BLOCK).min(self.marks.len().saturating_sub(1));
        let rest = self.text.as_bytes().get(block * BLOCK..offset).unwrap_or_default();
        self.marks.get(block).copied().unwrap_or(0) + begun(rest)
    }

    /// A piece of the text.
    pub(crate) fn text(&self, range: std::ops::Range<usize>) -> &str {
        self.text.get(range).unwrap_or_default()
    }

    /// The beginning of the file.
    pub(crate) fn top(&self) -> Place {
        Place { file: self.file, line: 1, column: 1 }
    }
}

/// How many characters begin in these bytes.
fn begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, offset: usize) -> (u32, u32) {
        let place = Lines::new(FileId(0), text).place(offset);
        (place.line, place.column)
    }

    #[test]
    fn columns_count_characters_from_one() {
        let text = "a = 1\nü = \"é\"\n";
        assert_eq!(at(text, 0), (1, 1));
        assert_eq!(at(text, 4), (1, 5));
        assert_eq!(at(text, 6), (2, 1));
        assert_eq!(at(text, 8), (2, 2), "after a character of two bytes");
        assert_eq!(at(text, 7), (2, 1), "inside a character");
        assert_eq!(at(text, text.len()), (3, 1));
        assert_eq!(at("", 0), (1, 1));
    }

    #[test]
    fn columns_of_a_long_line_are_those_that_one_counts() {
        let line = "aé€𝄞".repeat(200);
        for text in [line.clone(), format!("first\n{line}\n{line}")] {
            let lines = Lines::new(FileId(0), &text);
            for offset in 0..=text.len() + 1 {
                let upto = &text[..text.floor_char_boundary(offset)];
                let (before, last) = upto.rsplit_once('\n').unwrap_or(("", upto));
                let counted = before.matches('\n').count() + usize::from(upto.contains('\n')) + 1;
                let place = lines.place(offset);
                let expected = (saturate(counted), saturate(last.chars().count() + 1));
                assert_eq!((place.line, place.column), expected, "at {offset}");
            }
        }
    }

    #[test]
    fn equality_ignores_the_place() {
        let a = Spanned::new("x", Place { file: FileId(1), line: 2, column: 3 });
        assert_eq!(a, Spanned::new("x", Place::default()));
        assert_ne!(a, Spanned::new("y", a.place));
    }
}
