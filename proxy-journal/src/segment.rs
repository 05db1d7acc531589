//! One file of the journal: how it is named, and the one thing beside writing that the writer must do to it.

use std::fs::File;
use std::io::{self, Cursor, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::source::is_packed;

/// What the journal is written to: a file that can be cut back after a failed write.
pub trait Segment: Write {
    /// Cuts the segment back to `len` bytes, its length before the failed write; the next write begins there.
    ///
    /// # Errors
    /// When it cannot be cut, or is shorter than `len` already (somebody else cut it).
    fn cut_back(&mut self, len: u64) -> io::Result<()>;
}

impl Segment for File {
    fn cut_back(&mut self, len: u64) -> io::Result<()> {
        let now = self.metadata()?.len();
        if now < len {
            // set_len would fill the gap with zeros and hide what happened.
            return Err(shorter(now, len));
        }
        if now > len {
            self.set_len(len)?;
        }
        self.seek(SeekFrom::Start(len)).map(|_| ())
    }
}

impl Segment for Cursor<Vec<u8>> {
    fn cut_back(&mut self, len: u64) -> io::Result<()> {
        let now = self.get_ref().len();
        match usize::try_from(len) {
            Ok(size) if size <= now => self.get_mut().truncate(size),
            _ => return Err(shorter(u64::try_from(now).unwrap_or(u64::MAX), len)),
        }
        self.set_position(len);
        Ok(())
    }
}

fn shorter(now: u64, len: u64) -> io::Error {
    io::Error::other(format!("the journal has {now} bytes where {len} were written: somebody else cut it"))
}

/// Name of the segment with this number, counted from 1: `journal-00000001.jsonl`.
pub fn file_name(number: u32) -> String {
    format!("journal-{number:08}.jsonl")
}

/// Name of a closed segment that is compressed: `journal-00000001.jsonl.zst`.
pub fn packed_name(number: u32) -> String {
    format!("{}.zst", file_name(number))
}

/// The name, in the directory of the journal, of a link to where it goes on while that has no room (`on_full = "spill"`).
pub const SPILL: &str = "spill";

/// Number of the segment with this file name, compressed or not; `None` for every other file.
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("journal-")?;
    let digits = digits.strip_suffix(".zst").unwrap_or(digits).strip_suffix(".jsonl")?;
    let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The segments in a directory and in what its link [`SPILL`] leads to, in the order of the chain. While a segment is being
/// compressed or brought back from there, it has two files for a moment; the one that was first is named then.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = list_one(dir)?;
    let spill = dir.join(SPILL);
    match list_one(&spill) {
        Ok(more) => found.extend(more),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key = |(number, path): &(u32, PathBuf)| (*number, is_packed(path), !path.starts_with(&spill));
    found.sort_by_key(key);
    found.dedup_by_key(|(number, _)| *number);
    Ok(found)
}

fn list_one(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in dir.read_dir()? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(number_of) {
            found.push((number, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_known_by_its_name_and_by_no_other() {
        assert_eq!(file_name(1), "journal-00000001.jsonl");
        assert_eq!(number_of("journal-00000012.jsonl"), Some(12));
        assert_eq!(number_of(&packed_name(12)), Some(12));
        for name in ["journal-1.jsonl", "journal-00000001.jsonl.gz", "journal-+0000001.jsonl", "lock"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn segments_are_found_compressed_and_where_the_journal_spilled_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let spill = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(spill.path(), dir.path().join(SPILL)).unwrap();
        let (here, there) = (dir.path(), dir.path().join(SPILL));
        for path in [
            here.join(packed_name(1)),
            here.join(packed_name(2)),
            here.join(file_name(2)),
            there.join(file_name(3)),
            here.join(packed_name(3)),
            here.join(file_name(4)),
            there.join(file_name(4)),
        ] {
            std::fs::write(path, "").unwrap();
        }
        let expected = [
            (1, here.join(packed_name(1))),
            (2, here.join(file_name(2))),
            (3, there.join(file_name(3))),
            (4, there.join(file_name(4))),
        ];
        assert_eq!(list(here).unwrap(), expected);
    }

    #[test]
    fn a_file_that_somebody_cut_is_not_filled_up_with_zeros() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.cut_back(4).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5);
        assert!(file.cut_back(6).unwrap_err().to_string().contains("somebody else cut it"));
        assert_eq!(file.metadata().unwrap().len(), 5);
    }
}
