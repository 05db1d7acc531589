//! The secret store on disk: one encrypted file, replaced in one step, under a lock.
//!
//! Next to the store `secrets.store` stand `secrets.lock` (held exclusively by whoever changes the store; readers
//! need no lock, because the file is only ever replaced as a whole) and, while a write goes on, `secrets.store.new`.
//! Nothing here ever removes or overwrites a store that could not be read.

use std::collections::btree_map::Entry as MapEntry;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::about::{About, AboutError, Label, Owner};
use super::creds::{self, SealKeyError, Sealed};
use super::files::{self, Openness};
use super::key::{self, KeySource, StoreKey};
use super::name::SecretName;
use super::sealed::{self, Entry, MAX_STORE_BYTES, Past, SealError, Secrets};
use super::secret::Secret;

/// The name of the store in the state directory.
pub const STORE_FILE: &str = "secrets.store";

const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Why the store or its key could not be used: what, where, and what to do, all
/// in `Display`; there is no chain of sources, which would say it twice. None carries any content.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {what} {}: {error}{}", path.display(), advice(error))]
    Io {
        /// What was tried, as in "open".
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// Others have permissions on a file that is ours alone.
    #[error("{} may be used by others (mode {mode:04o}) and is therefore not trusted; find out who did it, then run \
             `chmod 600 {}`", path.display(), path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error("{} belongs to uid {uid}, not to root or to us, and is therefore not trusted; find out who did it, then \
             run `chown root {}`", path.display(), path.display())]
    WrongOwner {
        /// Which file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A directory, a device or a FIFO.
    #[error("{} is not a regular file; move it away", path.display())]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// The key file holds something else.
    #[error("{} holds no key: a key is 32 bytes, or 64 hexadecimal digits in lower case; put the key that the store \
             was written with back from your backup", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// There is a store and no key.
    #[error("there is a store at {} but no key for it: neither a systemd credential {} nor {}; put the key back from \
             your backup, or, when it is lost, move the store away and set the secrets again",
            store.display(), key::SYSTEMD_CREDENTIAL, key.display())]
    NoKey {
        /// The store.
        store: PathBuf,
        /// Where our own key would be.
        key: PathBuf,
    },
    /// The file is no store that this key opens.
    #[error("cannot open the secret store {}: {reason}; {}", path.display(), sealed_advice(reason))]
    Sealed {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        reason: SealError,
    },
    /// The new content cannot be written into a store.
    #[error("cannot store the secret in {}: {reason}", path.display())]
    Refused {
        /// The store.
        path: PathBuf,
        /// What is wrong with the content.
        reason: SealError,
    },
    /// Another process keeps the lock.
    #[error("{} has been locked by another process for ten seconds; see who it is with `fuser {}` and try again",
            path.display(), path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// No secret has this name.
    #[error("there is no secret {name} in {}; `vouchsafe secret list` shows those that are", path.display())]
    NotFound {
        /// The name that was asked for.
        name: SecretName,
        /// The store.
        path: PathBuf,
    },
    /// Labels or owner cannot be kept with the secret.
    #[error("{name} is as it was: {reason}")]
    About {
        /// The secret.
        name: SecretName,
        /// What is wrong with them.
        reason: AboutError,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library gave no random bytes; this host cannot make keys")]
    Cryptography,
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), error }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root",
        io::ErrorKind::StorageFull => "; make room on this file system",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the state directory must be on a file system that can be written"
        }
        _ => "",
    }
}

fn sealed_advice(error: &SealError) -> &'static str {
    match error {
        SealError::OtherKey => {
            "put the key back that it was written with (where systemd provides the key, the variable \
             CREDENTIALS_DIRECTORY names its directory), or the store from the same backup as the key"
        }
        SealError::Version { .. } => "the file was left as it is",
        _ => {
            "the file was left as it is: put it back from your backup, or move it away and set the secrets again \
             with `vouchsafe secret set NAME`"
        }
    }
}

/// What may be told about a secret: all but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: SecretName,
    /// How often it has been set.
    pub version: u64,
    /// When it was set last, in seconds since the Unix epoch.
    pub created_s: u64,
    /// What people say of it.
    pub about: About,
    /// The versions before this one, the oldest first.
    pub before: Vec<Past>,
}

/// A store file and the source of its key. Holds nothing open and nothing secret between calls.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    key: KeySource,
}

impl Store {
    /// The store at `path`; nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, key: KeySource) -> Self {
        Self { path: path.into(), key }
    }

    /// Where the store is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another store in the same folder, under the same key and the same lock: `secrets.EXTENSION`.
    ///
    /// # Errors
    /// This store is there and its key is not: then no new key may be made for the other one.
    pub(super) fn beside(&self, extension: &str) -> Result<Self, StoreError> {
        let other = Self { path: self.path.with_extension(extension), key: self.key.clone() };
        match self.path.exists() && self.key.read()?.is_none() {
            true => Err(StoreError::NoKey { store: self.path.clone(), key: self.key.own_file().to_owned() }),
            false => Ok(other),
        }
    }

    /// All secrets; none when there is no store yet.
    ///
    /// # Errors
    /// The store or its key is unreadable, not private, damaged, or of another key or version.
    pub fn read(&self) -> Result<Secrets, StoreError> {
        let file = match files::open_private(&self.path, Openness::OWNER_ONLY) {
            Ok(file) => file,
            Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Secrets::new());
            }
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_STORE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| StoreError::io("read", &self.path, source))?;
        let sealed = |reason| StoreError::Sealed { path: self.path.clone(), reason };
        if bytes.len() > MAX_STORE_BYTES {
            return Err(sealed(SealError::TooLarge));
        }
        let key = self.key.read()?.ok_or_else(|| StoreError::NoKey {
            store: self.path.clone(),
            key: self.key.own_file().to_owned(),
        })?;
        sealed::open(&bytes, &key).map_err(sealed)
    }

    /// Names, versions and dates, by name.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let listed = |(name, entry): (SecretName, Entry)| Listed {
            name,
            version: entry.version,
            created_s: entry.created_s,
            about: entry.about,
            before: entry.before,
        };
        Ok(self.read()?.into_iter().map(listed).collect())
    }

    /// Sets a secret and returns its version. `now_s` is the time in seconds since the Unix epoch. The directory
    /// and the key are made when they are not there.
    ///
    /// # Errors
    /// Those of [`Store::read`] and of writing; the old store then stays as it was.
    pub fn set(&self, name: &SecretName, secret: Secret, now_s: u64) -> Result<u64, StoreError> {
        self.set_about(name, secret, &[], None, now_s)
    }

    /// The same, and takes up labels and an owner; what they do not name stays as it was with the version before.
    ///
    /// # Errors
    /// Those of [`Store::set`], and more labels than a secret may have.
    pub fn set_about(
        &self,
        name: &SecretName,
        secret: Secret,
        labels: &[Label],
        owner: Option<&Owner>,
        now_s: u64,
    ) -> Result<u64, StoreError> {
        if let Some(directory) = self.path.parent() {
            key::create_state_directory(directory)?;
        }
        self.change(|secrets| {
            let secret = Arc::new(secret);
            let entry = match secrets.entry(name.clone()) {
                MapEntry::Vacant(vacant) => vacant.insert(Entry::new(secret, 1, now_s)),
                MapEntry::Occupied(occupied) => {
                    let entry = occupied.into_mut();
                    entry.succeed(secret, now_s);
                    entry
                }
            };
            entry
                .about
                .change(labels, owner)
                .map_err(|reason| StoreError::About { name: name.clone(), reason })?;
            Ok(entry.version)
        })
    }

    /// Takes up labels and an owner of a secret that is there, whose value and version stay; what is said of it then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of [`Store::set_about`].
    pub fn describe(
        &self,
        name: &SecretName,
        labels: &[Label],
        owner: Option<&Owner>,
    ) -> Result<About, StoreError> {
        let missing = || StoreError::NotFound { name: name.clone(), path: self.path.clone() };
        if !self.path.exists() {
            return Err(missing());
        }
        self.change(|secrets| {
            let entry = secrets.get_mut(name).ok_or_else(missing)?;
            entry
                .about
                .change(labels, owner)
                .map_err(|reason| StoreError::About { name: name.clone(), reason })?;
            Ok(entry.about.clone())
        })
    }

    /// Puts a secret in the place of the one that has this version, and returns the new version; `None` when there is another
    /// version or none by now.
    ///
    /// # Errors
    /// Those of [`Store::set`].
    pub(super) fn replace(
        &self,
        name: &SecretName,
        version: u64,
        secret: Arc<Secret>,
        now_s: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.change(|secrets| {
            let Some(entry) = secrets.get_mut(name).filter(|entry| entry.version == version) else {
                return Ok(None);
            };
            entry.succeed(secret, now_s);
            Ok(Some(entry.version))
        })
    }

    /// In one step: what stands under `next` becomes that of `name`, what stood there that of `previous`, and nothing is under
    /// `next` any more. Returns the new version; `None` when `name` has not this version, or nothing is under `next`.
    ///
    /// # Errors
    /// Those of [`Store::set`].
    pub(super) fn promote(
        &self,
        name: &SecretName,
        version: u64,
        next: &SecretName,
        previous: &SecretName,
        now_s: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.change(|secrets| {
            let Some(new) = secrets.get(next).map(|entry| Arc::clone(&entry.secret)) else { return Ok(None) };
            let Some(entry) = secrets.get_mut(name).filter(|entry| entry.version == version) else {
                return Ok(None);
            };
            let old = entry.succeed(new, now_s);
            let version_now = entry.version;
            secrets.insert(previous.clone(), Entry::new(old, version, now_s));
            secrets.remove(next);
            Ok(Some(version_now))
        })
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of [`Store::read`] and of writing; the old store then stays as it was.
    pub fn remove(&self, name: &SecretName) -> Result<(), StoreError> {
        let missing = || StoreError::NotFound { name: name.clone(), path: self.path.clone() };
        if !self.path.exists() {
            return Err(missing());
        }
        self.change(|secrets| secrets.remove(name).map(drop).ok_or_else(missing))
    }

    /// Seals the key of this store by systemd-creds(1) into `to`, and sees that it opens to the same key; our own file stays.
    ///
    /// # Errors
    /// Those of [`SealKeyError`]; then `to` is as it was.
    pub fn seal_key(&self, to: &Path, with_key: &str) -> Result<Sealed, SealKeyError> {
        let _locked = self.lock()?;
        creds::seal(&self.key, to, with_key)
    }

    /// Removes our own file of the key, when `sealed` opens to it and systemd hands it over.
    ///
    /// # Errors
    /// Those of [`SealKeyError`]; then it stays.
    pub fn remove_own_key(&self, sealed: &Path) -> Result<(), SealKeyError> {
        let _locked = self.lock()?;
        creds::remove_own(&self.key, sealed)
    }

    /// Where the key is when systemd has none.
    #[must_use]
    pub fn own_key_file(&self) -> &Path {
        self.key.own_file()
    }

    fn change<T>(&self, edit: impl FnOnce(&mut Secrets) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _locked = self.lock()?;
        let mut secrets = self.read()?;
        let result = edit(&mut secrets)?;
        let refused = |reason| StoreError::Refused { path: self.path.clone(), reason };
        let bytes = sealed::seal(&secrets, &self.key_or_new()?).map_err(refused)?;
        files::replace(&self.path, |file: &mut File| file.write_all(&bytes))
            .map_err(|source| StoreError::io("write the secret store", &self.path, source))?;
        Ok(result)
    }

    /// Called under the lock and after [`Store::read`], which refuses a store without its key: when there is no
    /// key here, there is no store either.
    fn key_or_new(&self) -> Result<StoreKey, StoreError> {
        match self.key.read()? {
            Some(key) => Ok(key),
            None => self.key.create(),
        }
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.path.with_extension("lock");
        let failed = |source| StoreError::io("lock", &path, source);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(failed)?;
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(StoreError::Busy { path })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn store_in(directory: &Path) -> Store {
        Store::new(directory.join(STORE_FILE), KeySource::file(directory.join(key::KEY_FILE)))
    }

    fn value(store: &Store, of: &str) -> Option<Vec<u8>> {
        store.read().ok().unwrap().get(of).map(|entry| entry.secret.expose().to_vec())
    }

    #[test]
    fn a_secret_that_was_set_is_read_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(&directory.path().join("state"));
        assert!(store.list().unwrap().is_empty());
        assert_eq!(store.set(&name("a"), secret("one"), 10).unwrap(), 1);
        assert_eq!(store.set(&name("b"), secret("two"), 11).unwrap(), 1);
        assert_eq!(store.set(&name("a"), secret("three"), 12).unwrap(), 2);
        assert_eq!(value(&store, "a").unwrap(), b"three");
        let listed = store.list().unwrap();
        let before = vec![Past { version: 1, created_s: 10 }];
        let about = About::default();
        assert_eq!(listed[0], Listed { name: name("a"), version: 2, created_s: 12, about, before });
        assert_eq!(listed.len(), 2);
        store.remove(&name("a")).unwrap();
        assert!(value(&store, "a").is_none());
        assert!(matches!(store.remove(&name("a")), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn directory_store_key_and_lock_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        store_in(&state).set(&name("a"), secret("one"), 1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        for entry in fs::read_dir(&state).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 3);
    }

    #[test]
    fn a_store_that_cannot_be_read_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        store.set(&name("a"), secret("one"), 1).unwrap();
        let good = fs::read(store.path()).unwrap();

        let mut damaged = good.clone();
        damaged[60] ^= 1;
        for bytes in [&damaged[..], &good[..good.len() - 1], b"", b"something else entirely, not a store"] {
            fs::write(store.path(), bytes).unwrap();
            for result in [store.set(&name("b"), secret("two"), 2).err(), store.remove(&name("a")).err()] {
                assert!(matches!(result, Some(StoreError::Sealed { .. })), "{result:?}");
            }
            assert_eq!(fs::read(store.path()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_store_without_its_key_gets_no_new_key() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        store.set(&name("a"), secret("one"), 1).unwrap();
        fs::remove_file(store.key.own_file()).unwrap();
        assert!(matches!(store.set(&name("b"), secret("two"), 2), Err(StoreError::NoKey { .. })));
        assert!(!store.key.own_file().exists());
    }

    #[test]
    fn a_store_of_another_key_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        store.set(&name("a"), secret("one"), 1).unwrap();
        fs::write(store.key.own_file(), [9; 32]).unwrap();
        let error = store.read().err().unwrap();
        assert!(error.to_string().contains("another key"), "{error}");
        assert!(std::error::Error::source(&error).is_none(), "the chain would say it a second time");
    }

    #[test]
    fn a_store_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        store.set(&name("a"), secret("one"), 1).unwrap();
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(store.read(), Err(StoreError::TooOpen { mode: 0o666, .. })));
    }

    #[test]
    fn a_file_larger_than_a_store_may_be_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        store.set(&name("a"), secret("one"), 1).unwrap();
        OpenOptions::new().write(true).open(store.path()).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(store.read(), Err(StoreError::Sealed { reason: SealError::TooLarge, .. })));
    }

    #[test]
    fn two_that_set_at_the_same_time_both_succeed() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let store = &store;
                scope.spawn(move || store.set(&name(&format!("writer-{writer}")), secret("x"), 1).unwrap());
            }
        });
        assert_eq!(store.list().unwrap().len(), 8);
    }
}
