//! Digests of executables, computed once per content.
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use super::{Workload, process};

/// What a content is known by: a write changes the ctime.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    dev: u64,
    ino: u64,
    size: u64,
    ctime: (i64, i64),
}

/// A larger executable has no digest: to read it would cost more than anybody's identity is worth.
const MAX_BYTES: u64 = 1 << 30;

/// How many digests are kept; beyond, all are forgotten and computed again.
const MOST: usize = 4096;

/// SHA-256 of executables by device, inode, size and ctime.
#[derive(Default)]
pub struct Digests {
    known: Mutex<HashMap<Key, [u8; 32]>>,
    reading: Mutex<()>,
}

impl Digests {
    /// The digest of the captured executable, with the file that it is of: that of the living process, or, when that is
    /// gone, the file at `path` if it is the captured one. `None`: neither can be had. Blocks on the disk.
    #[must_use]
    pub fn of(&self, workload: &Workload, path: Option<&Path>) -> Option<([u8; 32], File)> {
        let mut file = process::open_executable(workload).or_else(|| {
            let file = File::open(path?).ok()?;
            process::is_captured(&file, workload).then_some(file)
        })?;
        Some((self.of_file(&mut file).ok()?, file))
    }

    /// The digest of what an open file holds. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be read, is too large or mostly holes, or changed meanwhile.
    pub fn of_file(&self, file: &mut File) -> io::Result<[u8; 32]> {
        let key = key(file)?;
        // Holes cost nothing to make and as much as data to read.
        if key.size > MAX_BYTES || file.metadata()?.blocks() * 512 < key.size / 2 {
            return Err(io::Error::other("the file is too large, or mostly holes"));
        }
        // One at a time: whoever starts many programs must not keep every thread reading.
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*known);
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hash.update(buffer.get(..n).unwrap_or_default()),
            }
        }
        let digest = hash.finalize().into();
        // Written to while it was read: the digest is of nothing that ever ran.
        if self::key(file)? != key {
            return Err(io::Error::other("the file changed while it was read"));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, digest);
        Ok(digest)
    }
}

fn key(file: &File) -> io::Result<Key> {
    let meta = file.metadata()?;
    Ok(Key { dev: meta.dev(), ino: meta.ino(), size: meta.size(), ctime: (meta.ctime(), meta.ctime_nsec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_content_has_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "one").unwrap();
        let digests = Digests::default();
        let one = digests.of_file(&mut File::open(&path).unwrap()).unwrap();
        assert_eq!(one, <[u8; 32]>::from(Sha256::digest("one")));
        assert_eq!(digests.of_file(&mut File::open(&path).unwrap()).unwrap(), one);
        std::fs::write(&path, "three").unwrap();
        assert_ne!(digests.of_file(&mut File::open(&path).unwrap()).unwrap(), one);
    }
}
