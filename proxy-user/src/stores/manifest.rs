//! What was put where: `STATE/trust/manifest.json` (0600), and the lock under which it changes.
//!
//! Invariant: a fingerprint is in the manifest before its certificate is in a store, and leaves it after. So a kill at
//! any point leaves nothing in a store that is not found again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::Target;
use super::error::StoreError;
use super::files::{Folder, Found};
use super::roots::Fingerprint;
use crate::base::ownership;

const VERSION: u32 = 1;
const NAME: &str = "manifest.json";

/// How often the lock is tried, and how long apart: a minute.
const ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(100);

/// A store and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) target: Target,
    /// Where it really is, links in its path resolved.
    pub(super) place: PathBuf,
    /// The roots of ours that are in it, or may be.
    pub(super) put: BTreeSet<Fingerprint>,
    /// The folders that were made for it, outermost first.
    #[serde(default)]
    pub(super) made: Vec<PathBuf>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    pub(super) stores: Vec<Entry>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { version: VERSION, stores: Vec::new() }
    }
}

impl Manifest {
    pub(super) fn entry(&self, target: &Target) -> Option<&Entry> {
        self.stores.iter().find(|entry| entry.target == *target)
    }

    /// Puts an entry in, or in place of the one of the same store; `None` takes it out.
    pub(super) fn set(&mut self, target: &Target, entry: Option<Entry>) {
        let at = self.stores.iter().position(|entry| entry.target == *target);
        match (at.and_then(|at| self.stores.get_mut(at)), entry) {
            (Some(old), Some(new)) => *old = new,
            (None, Some(new)) => self.stores.push(new),
            (_, None) => self.stores.retain(|entry| entry.target != *target),
        }
    }

    /// Everything of ours that may be somewhere.
    pub(super) fn put(&self) -> BTreeSet<Fingerprint> {
        self.stores.iter().flat_map(|entry| entry.put.iter().cloned()).collect()
    }
}

/// The folder of the manifest.
pub(super) struct Book {
    folder: PathBuf,
}

impl Book {
    pub(super) fn below(state: &Path) -> Self {
        Self { folder: state.join("trust") }
    }

    /// The manifest; an empty one where there is none yet.
    ///
    /// # Errors
    /// It cannot be read, others could have written it, it is damaged, or of a newer version.
    pub(super) fn read(&self) -> Result<Manifest, StoreError> {
        let path = self.folder.join(NAME);
        let damaged = |reason: String| StoreError::Manifest { path: path.clone(), reason };
        if let Some(problem) = ownership::problem(&path).or_else(|| ownership::problem(&self.folder)) {
            return Err(StoreError::refused(&path, problem));
        }
        let found = match Folder::open(&self.folder)? {
            Some(folder) => folder.read(OsStr::new(NAME))?,
            None => None,
        };
        match found {
            None => Ok(Manifest::default()),
            Some(Found::Link(_)) => Err(damaged("it is a link".to_owned())),
            Some(Found::File { content, .. }) => {
                #[derive(Deserialize)]
                struct Version {
                    version: u32,
                }
                let Version { version } =
                    serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
                if version != VERSION {
                    return Err(damaged(format!(
                        "it is of version {version}, and this program knows {VERSION}"
                    )));
                }
                serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))
            }
        }
    }

    /// Writes it as a whole.
    pub(super) fn write(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.folder.join(NAME);
        let failed = |error: serde_json::Error| StoreError::io("write", &path)(io::Error::other(error));
        let mut text = serde_json::to_vec_pretty(manifest).map_err(failed)?;
        text.push(b'\n');
        let missing = || StoreError::io("open", &self.folder)(io::ErrorKind::NotFound.into());
        let folder = Folder::open(&self.folder)?.ok_or_else(missing)?;
        let before = folder.read(OsStr::new(NAME))?.map(|found| found.digest());
        folder.replace(OsStr::new(NAME), &text, 0o600, before.as_ref())
    }

    /// Waits until nobody else is at work, and keeps others from it until the file is dropped.
    ///
    /// # Errors
    /// Somebody is for longer than a minute, or the state folder cannot be written.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("create", &self.folder)(error));
            }
            _ => {}
        }
        let path = self.folder.join("lock");
        let options = OFlag::O_NOFOLLOW.bits();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(options)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        for _ in 0..ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
            }
        }
        Err(StoreError::Busy { path })
    }
}

#[cfg(test)]
mod tests {
    use super::super::roots::tests::some;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn entry(target: Target) -> Entry {
        Entry { target, place: "/a/b".into(), put: some(2).ids(), made: vec!["/a".into()] }
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written_and_only_root_may_read_it() {
        let state = tempfile::tempdir().unwrap();
        let book = Book::below(state.path());
        let _lock = book.lock().unwrap();
        assert_eq!(book.read().unwrap(), Manifest::default());
        let mut manifest = Manifest::default();
        for target in [
            Target::System,
            Target::Bundle,
            Target::Unit { unit: "a.service".into() },
            Target::File { path: "/x y/cacert.pem".into() },
            Target::Java { path: "/j".into() },
            Target::Nss { path: "/n".into() },
            Target::HashDir { path: "/h".into() },
        ] {
            manifest.set(&target.clone(), Some(entry(target)));
        }
        book.write(&manifest).unwrap();
        assert_eq!(book.read().unwrap(), manifest);
        let mode = fs::metadata(state.path().join("trust/manifest.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        manifest.set(&Target::System, None);
        assert_eq!((manifest.stores.len(), manifest.entry(&Target::System)), (6, None));
    }

    #[test]
    fn a_damaged_one_one_of_a_newer_version_and_one_that_others_can_write_are_refused() {
        let state = tempfile::tempdir().unwrap();
        let book = Book::below(state.path());
        let _lock = book.lock().unwrap();
        let path = state.path().join("trust/manifest.json");
        for text in ["", "{}", "{\"version\": 2, \"stores\": []}", "{\"version\": 1, \"stores\": [{}]}"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(book.read(), Err(StoreError::Manifest { .. })), "{text}");
        }
        fs::write(&path, "{\"version\": 1, \"stores\": []}").unwrap();
        book.read().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(book.read(), Err(StoreError::Refused { .. })));
    }
}
