//! The key that signs checkpoints: made at the first start, kept beside the journal, handed over from time to time.
//!
//! The former key is destroyed when another takes over, so that whoever takes the host over later cannot sign what was before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::OFlag;
use proxy_journal::{Checkpoint, Head, KeyChange, Note, PublicKey, Record, Recovery, SecretKey, keys};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::RecordError;
use super::store::own;

/// What signs this journal.
pub(super) struct Signer {
    journal: Uuid,
    key: SecretKey,
    path: PathBuf,
    /// The file with all hand-overs, beside the segments.
    keys: PathBuf,
}

impl Signer {
    /// The signer of the journal in `dir`, whose end is this. The second is whether its key must still be named in the journal.
    ///
    /// # Errors
    /// The key cannot be had: it is not there, not the one whose turn it is, or others may write to it.
    pub(super) fn open(dir: &Path, end: Option<&Recovery>) -> Result<(Signer, bool), RecordError> {
        let path = key_path(dir);
        let (keys, next) = (dir.join(keys::FILE), next_path(&path));
        let turn = end.and_then(|end| Some((end.journal?, end.key?)));
        let Some((journal, public)) = turn else {
            // A journal begins, or one of a version before there were keys goes on.
            let journal = Uuid::now_v7();
            let key = match read(&path)? {
                Some(key) => key,
                None => make(&path)?,
            };
            return Ok((Signer { journal, key, path, keys }, true));
        };
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordError::Open { path, source }
        };
        // A kill in the middle of a hand-over: what the journal says decides.
        if let Some(key) = read(&next)?.filter(|key| key.public() == public) {
            put(&next, &path).map_err(at(&path))?;
            return Ok((Signer { journal, key, path, keys }, false));
        }
        match read(&path)? {
            Some(key) if key.public() == public => {
                let _ = fs::remove_file(next);
                Ok((Signer { journal, key, path, keys }, false))
            }
            found => Err(RecordError::Key { path, public, found: found.map(|key| key.public()) }),
        }
    }

    /// The record that names its key for the first time.
    pub(super) fn introduction(&self, after: Head) -> Record {
        Record::Key(Box::new(KeyChange::new(
            self.journal,
            &self.key,
            None,
            after,
            "the journal is signed from here on",
        )))
    }

    pub(super) fn journal(&self) -> Uuid {
        self.journal
    }

    /// When its key was made.
    pub(super) fn made(&self) -> io::Result<std::time::SystemTime> {
        fs::metadata(&self.path)?.modified()
    }

    pub(super) fn public(&self) -> PublicKey {
        self.key.public()
    }

    pub(super) fn sign(&self, note: &Note) -> Checkpoint {
        Checkpoint::new(note, &self.key)
    }

    /// Makes the next key, which is not used before [`Signer::take_over`], and the record that hands over to it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn next(&self, after: Head, reason: &str) -> Result<(SecretKey, Record), RecordError> {
        let key = make(&next_path(&self.path))?;
        let change = KeyChange::new(self.journal, &key, Some(&self.key), after, reason);
        Ok((key, Record::Key(Box::new(change))))
    }

    /// From here on `key` signs; its record is in the journal, and on the disk.
    pub(super) fn take_over(&mut self, key: SecretKey) -> io::Result<()> {
        self.key = key;
        put(&next_path(&self.path), &self.path)
    }

    /// Notes the line of a hand-over beside the segments.
    pub(super) fn note(&self, line: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_NOFOLLOW.bits();
        let mut file =
            OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(&self.keys)?;
        file.write_all(line)?;
        file.sync_all()
    }

    /// Whether the hand-overs beside the segments end with the key that signs.
    pub(super) fn is_noted(&self, dir: &Path) -> bool {
        proxy_journal::Keys::read(dir).is_ok_and(|keys| keys.all().last() == Some(self.public()))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("public", &self.public()).finish_non_exhaustive()
    }
}

/// Where the key of the journal in `dir` is: beside it, so that what is copied from it has no key.
pub(super) fn key_path(dir: &Path) -> PathBuf {
    dir.with_file_name("journal.key")
}

fn next_path(path: &Path) -> PathBuf {
    path.with_extension("key.next")
}

fn read(path: &Path) -> Result<Option<SecretKey>, RecordError> {
    let at = |source| RecordError::Open { path: path.to_owned(), source };
    let mut file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(at)?,
    };
    own(path, &file)?;
    let mut text = Zeroizing::new(String::with_capacity(128));
    (&mut file).take(128).read_to_string(&mut text).map_err(at)?;
    let mut bytes = Zeroizing::new([0_u8; 36]);
    let length = STANDARD.decode_slice(text.trim_end(), bytes.as_mut_slice());
    let key: Option<&[u8; 32]> = bytes.first_chunk().filter(|_| length == Ok(32));
    let wrong = || at(io::Error::other("it is not the key of a journal; bring it back from a backup"));
    key.map(SecretKey::from_bytes).map(Some).ok_or_else(wrong)
}

/// Makes a key, and brings it to the disk.
fn make(path: &Path) -> Result<SecretKey, RecordError> {
    let at = |source| RecordError::Open { path: path.to_owned(), source };
    let mut seed = Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| at(io::Error::other("there is no randomness")))?;
    let text = Zeroizing::new(STANDARD.encode(seed.as_slice()) + "\n");
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        put(&new, path)
    };
    write().map_err(at)?;
    Ok(SecretKey::from_bytes(&seed))
}

/// Renames, for good.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
}
