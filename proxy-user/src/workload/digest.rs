//! Digests of executables, computed once per content.
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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

/// How many may wait for a digest, each in a thread; beyond, there is none.
const MOST_WAITING: usize = 64;

/// After how many bytes a file that is read is looked at again.
const LOOK_AGAIN: usize = 8 << 20;

/// SHA-256 of executables by device, inode, size and ctime.
#[derive(Default)]
pub struct Digests {
    known: Mutex<HashMap<Key, [u8; 32]>>,
    reading: Mutex<()>,
    waiting: AtomicUsize,
}

/// A place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn of(waiting: &'a AtomicUsize) -> io::Result<Self> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return Err(io::Error::other("too many wait for a digest"));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        // One at a time: whoever starts many programs must not keep every thread reading, nor waiting.
        let _place = Place::of(&self.waiting)?;
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        // Written to while it was read: the digest is of nothing that ever ran.
        let unchanged = |file: &File| match self::key(file)? == key {
            true => Ok(()),
            false => Err(io::Error::other("the file changed while it was read")),
        };
        unchanged(file)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        let mut since = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => {
                    hash.update(buffer.get(..n).unwrap_or_default());
                    since += n;
                }
            }
            if since >= LOOK_AGAIN {
                unchanged(file)?;
                since = 0;
            }
        }
        let digest = hash.finalize().into();
        unchanged(file)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, digest);
        Ok(digest)
    }

    fn known(&self, key: Key) -> Option<[u8; 32]> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
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

    #[test]
    fn a_digest_that_is_known_does_not_wait_for_what_somebody_else_has_read() {
        let dir = tempfile::tempdir().unwrap();
        let (known, other) = (dir.path().join("known"), dir.path().join("other"));
        std::fs::write(&known, "known").unwrap();
        std::fs::write(&other, "other").unwrap();
        let digests = std::sync::Arc::new(Digests::default());
        let of = |path: &Path| {
            let (digests, mut file) = (std::sync::Arc::clone(&digests), File::open(path).unwrap());
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || tell.send(digests.of_file(&mut file).ok()));
            told
        };
        let soon = std::time::Duration::from_secs(5);
        assert!(of(&known).recv_timeout(soon).unwrap().is_some());
        let reading = digests.reading.lock().unwrap();
        assert!(of(&known).recv_timeout(soon).unwrap().is_some());
        // Others wait, and not without end.
        let waiting: Vec<_> = (0..=MOST_WAITING).map(|_| of(&other)).collect();
        let refused = || waiting.iter().filter(|told| matches!(told.try_recv(), Ok(None))).count();
        assert!((0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            refused() == 1
        }));
        drop(reading);
        let found = waiting.iter().filter_map(|told| told.recv_timeout(soon).ok().flatten()).count();
        assert_eq!(found, MOST_WAITING);
    }
}
