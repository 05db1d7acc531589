//! Private files: opened only when nobody else can read them, replaced in one step.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::store::StoreError;

/// Which permissions a private file may have besides its owner's.
#[derive(Clone, Copy)]
pub(super) struct Openness {
    forbidden: u32,
}

impl Openness {
    /// None.
    pub(super) const OWNER_ONLY: Self = Self { forbidden: 0o077 };
    /// The group may read.
    pub(super) const GROUP_MAY_READ: Self = Self { forbidden: 0o037 };
}

/// Opens a regular file for reading and checks, on the open file, that it belongs to root or to us and that
/// nobody else has a permission that `allowed` does not name. A symbolic link is not followed.
pub(super) fn open_private(path: &Path, allowed: Openness) -> Result<File, StoreError> {
    let failed = |source| StoreError::io("open", path, source);
    // O_NONBLOCK: a FIFO in its place must not stop us.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(StoreError::NotAFile { path: path.to_owned() });
    }
    if found.uid() != 0 && found.uid() != geteuid().as_raw() {
        return Err(StoreError::WrongOwner { path: path.to_owned(), uid: found.uid() });
    }
    if found.mode() & allowed.forbidden != 0 {
        return Err(StoreError::TooOpen { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(file)
}

/// Replaces the file at `path` in one step: whoever opens it sees the old content or the new one, and after a
/// crash one of both is there. The caller holds a lock, because the name of the intermediate file is fixed (so that
/// what a crash left is used up by the next write).
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        // The new name is on the disk only after the directory is.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().inspect_err(|_| drop(fs::remove_file(temporary)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_old_content_and_no_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&path, |file| file.write_all(b"old")).unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(error.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_is_overwritten_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::os::unix::fs::symlink("/nowhere/at/all", directory.path().join("file.new")).unwrap();
        replace(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
