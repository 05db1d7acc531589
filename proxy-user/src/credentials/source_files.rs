//! Secrets that stand in files, in credentials of the daemon's unit, and in its environment: `file:`, `systemd:`, `env:`.
//!
//! All are read before they are needed. A file that changes is read again once it stood still from one look to the next, so
//! that nobody gets one half of it; a file that is gone takes its secret with it. One line break at the end is not part of
//! the secret.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use proxy_policy::{SecretRef, Store as Place};
use zeroize::Zeroizing;

use super::sealed::MAX_SECRET_BYTES;
use super::secret::Secret;
use super::sources::{Held, SourceError};
use crate::workload::{files, writers};

/// Secrets as they were read, by reference.
pub(super) struct Texts {
    /// Where systemd puts the credentials of the unit (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)).
    unit: Option<PathBuf>,
    read: RwLock<HashMap<SecretRef, Reading>>,
    /// Held while files are read, so that versions follow on one another.
    reading: Mutex<()>,
}

struct Reading {
    result: Result<Held, SourceError>,
    /// What was read.
    stamp: Option<Stamp>,
    /// What was there at the last look, if that is something else.
    changing: Option<Option<Stamp>>,
    /// The last version that was given out.
    version: u64,
}

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Texts {
    /// With the environment of this process.
    pub(super) fn of_this_process() -> Self {
        Self::with_unit(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
    }

    fn with_unit(unit: Option<PathBuf>) -> Self {
        Self { unit, read: RwLock::default(), reading: Mutex::default() }
    }

    /// What was read last. Never waits for a file.
    pub(super) fn held(&self, reference: &SecretRef) -> Option<Result<Held, SourceError>> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        read.get(reference).map(|reading| reading.result.clone())
    }

    /// Reads one, and keeps it.
    pub(super) fn read(&self, reference: &SecretRef) -> Result<Held, SourceError> {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.held(reference).unwrap_or_else(|| self.take(reference))
    }

    /// Reads those that were not read yet, and forgets all others.
    pub(super) fn prepare(&self, references: &[&SecretRef]) {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = |place: Place| matches!(place, Place::Systemd | Place::File | Place::Env);
        self.read.write().unwrap_or_else(PoisonError::into_inner).retain(|it, _| references.contains(&it));
        for reference in references.iter().filter(|reference| ours(reference.store())) {
            if self.held(reference).is_none()
                && let Err(error) = self.take(reference)
            {
                tracing::warn!("{reference}: {error}");
            }
        }
    }

    /// Reads all of them again.
    pub(super) fn read_again(&self) {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        for reference in self.references() {
            // Whoever needs it is told.
            let _ = self.take(&reference);
        }
    }

    /// Reads those again whose files are others than before, and stood still since the last look.
    pub(super) fn follow(&self) {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        for reference in self.references() {
            let Some(path) = self.path(&reference) else { continue };
            let now = std::fs::metadata(path).ok().map(|meta| Stamp::of(&meta));
            let still = {
                let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
                let Some(reading) = read.get_mut(&reference) else { continue };
                if reading.stamp == now {
                    reading.changing = None;
                    continue;
                }
                // What is gone is gone at once.
                let still = now.is_none() || reading.changing == Some(now);
                reading.changing = Some(now);
                still
            };
            if still {
                match self.take(&reference) {
                    Ok(held) => tracing::info!(version = held.version, "{reference} changed"),
                    Err(error) => tracing::warn!("{reference}: {error}"),
                }
            }
        }
    }

    fn references(&self) -> Vec<SecretRef> {
        self.read.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn path(&self, reference: &SecretRef) -> Option<PathBuf> {
        match reference.store() {
            Place::File => Some(PathBuf::from(reference.name())),
            Place::Systemd => Some(self.unit.as_ref()?.join(reference.name())),
            _ => None,
        }
    }

    /// Reads a secret as it is now. The same content stays the same secret: what was made of it goes on.
    fn take(&self, reference: &SecretRef) -> Result<Held, SourceError> {
        let (content, stamp) = match (reference.store(), self.path(reference)) {
            (Place::Env, _) => (from_environment(reference.name()), None),
            (_, Some(path)) => match read_file(&path) {
                Ok((content, stamp)) => (Ok(content), Some(stamp)),
                Err(error) => (Err(error), std::fs::metadata(&path).ok().map(|meta| Stamp::of(&meta))),
            },
            (_, None) => (Err(no_unit(reference.name())), None),
        };
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        let before = read.get(reference);
        let version = before.map_or(0, |reading| reading.version);
        let result = content.and_then(trimmed).map(|content| {
            match before.and_then(|reading| reading.result.as_ref().ok()) {
                Some(held) if held.secret.expose() == content.as_slice() => held.clone(),
                _ => Held {
                    secret: Arc::new(Secret::from(content)),
                    version: version + 1,
                    since_s: stamp.and_then(|stamp| u64::try_from(stamp.modified.0).ok()),
                },
            }
        });
        let version = result.as_ref().map_or(version, |held| held.version);
        read.insert(reference.clone(), Reading { result: result.clone(), stamp, changing: None, version });
        result
    }
}

fn no_unit(name: &str) -> SourceError {
    SourceError::Missing {
        problem: format!(
            "systemd gave this daemon no credentials; add LoadCredential={name}:PATH to its unit, and restart it"
        ),
    }
}

fn from_environment(name: &str) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    std::env::var_os(name).map(|value| Zeroizing::new(value.into_vec())).ok_or_else(|| SourceError::Missing {
        problem: format!(
            "the daemon has no variable {name} in its environment; set it in its unit, and restart it"
        ),
    })
}

/// Without one line break at the end. Copies nothing.
fn trimmed(mut content: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let length = without_line_end(&content).len();
    content.truncate(length);
    match content.is_empty() {
        true => Err(SourceError::Missing { problem: "the secret is empty".to_owned() }),
        false => Ok(content),
    }
}

/// Without one line break at the end, which is not part of a secret.
pub(super) fn without_line_end(content: &[u8]) -> &[u8] {
    match content.strip_suffix(b"\n") {
        Some(content) => content.strip_suffix(b"\r").unwrap_or(content),
        None => content,
    }
}

/// Reads a file that nobody else could have read or written.
fn read_file(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Stamp), SourceError> {
    let shown = path.display();
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => SourceError::Missing { problem: format!("there is no file {shown}") },
        _ => SourceError::Unavailable { problem: format!("{shown} cannot be read: {error}") },
    };
    // Without waiting for the other end, should it be a pipe.
    let mut options = File::options();
    let file = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    let refused = |why: String| SourceError::Unavailable { problem: format!("{shown} {why}") };
    if !meta.is_file() {
        return Err(refused("is not a file".to_owned()));
    }
    if let Some(why) = exposed(&meta) {
        return Err(refused(why));
    }
    // Whoever owns a folder or a link on the way could lead it to another secret, which he cannot read himself.
    let id = files::of_open(&file).ok_or_else(|| {
        let why = "is on a file system whose files cannot be told apart (btrfs with subvolumes); use vault: or systemd:";
        refused(why.to_owned())
    })?;
    if let Some(why) = writers::of_path(path, id, nix::unistd::geteuid().as_raw(), true) {
        return Err(SourceError::Unavailable { problem: format!("{shown} is no secret: {why}") });
    }
    if meta.size() > MAX_SECRET_BYTES as u64 {
        return Err(refused(format!("has more than {MAX_SECRET_BYTES} bytes")));
    }
    // One more than it may have, and of its final size from the start: a buffer that grew would leave a copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 2));
    file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut content).map_err(cannot)?;
    if content.len() > MAX_SECRET_BYTES {
        return Err(refused(format!("has more than {MAX_SECRET_BYTES} bytes")));
    }
    Ok((content, Stamp::of(&meta)))
}

/// What lets others than root and the daemon's own user or group read or change a file, if anything.
fn exposed(meta: &Metadata) -> Option<String> {
    let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    judge(meta.uid(), meta.gid(), meta.mode(), user, group)
}

fn judge(owner: u32, group: u32, mode: u32, our_user: u32, our_group: u32) -> Option<String> {
    let mode = mode & 0o777;
    if owner != 0 && owner != our_user {
        return Some(format!("belongs to uid {owner}; it must belong to root (chown root)"));
    }
    if mode & 0o007 != 0 {
        return Some(format!("is open to everybody (mode {mode:04o}); take that away (chmod 0600)"));
    }
    if mode & 0o020 != 0 {
        return Some(format!("is writable by its group (mode {mode:04o}); take that away (chmod 0600)"));
    }
    if mode & 0o040 != 0 && group != 0 && group != our_group {
        return Some(format!(
            "is readable by the group {group} (mode {mode:04o}); take that away (chmod 0600)"
        ));
    }
    None
}

#[cfg(test)]
#[path = "source_files_tests.rs"]
mod tests;
