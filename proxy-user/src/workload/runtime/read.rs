//! Reads files of runtimes: those that nobody but root can have written, and only so much of them.
use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

const STICKY: u32 = 0o1000;
const OTHERS: u32 = 0o022;

/// Whose a file may be, in folders that are root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Root's.
    Root,
    /// Anybody's: the kubelet gives a pod's token to the user that the pod runs as, who does not come to these folders.
    Anybody,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    #[error("{} cannot be read: {}", .0.display(), .1)]
    Io(PathBuf, std::io::Error),
    #[error("{} can be written by others than root", .0.display())]
    Foreign(PathBuf),
    #[error("{} is larger than {} bytes", .0.display(), .1)]
    TooLarge(PathBuf, u64),
    #[error("{} is not what its runtime writes", .0.display())]
    Format(PathBuf),
}

/// The content of a file of at most `most` bytes. It may be a secret.
pub(super) fn bytes(path: &Path, owner: Owner, most: u64) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Unread::Missing(path.to_owned()),
        _ => Unread::Io(path.to_owned(), error),
    };
    // Once all folders of the real path are root's, nobody else can lead us elsewhere.
    let real = path.canonicalize().map_err(failed)?;
    for folder in real.ancestors().skip(1) {
        let meta = fs::symlink_metadata(folder).map_err(failed)?;
        // In a folder with the sticky bit what is root's stays, and all on the way is.
        if meta.uid() != 0 || (meta.mode() & OTHERS != 0 && meta.mode() & STICKY == 0) {
            return Err(Unread::Foreign(folder.to_owned()));
        }
    }
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&real).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(Unread::Format(path.to_owned()));
    }
    if meta.mode() & OTHERS != 0 || (owner == Owner::Root && meta.uid() != 0) {
        return Err(Unread::Foreign(path.to_owned()));
    }
    if meta.len() > most {
        return Err(Unread::TooLarge(path.to_owned(), most));
    }
    read_at_most(file, meta.len(), most)
        .map_err(failed)?
        .ok_or_else(|| Unread::TooLarge(path.to_owned(), most))
}

/// It may grow while it is read.
fn read_at_most(file: File, length: u64, most: u64) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64));
    file.take(most + 1).read_to_end(&mut content)?;
    Ok((u64::try_from(content.len()).unwrap_or(u64::MAX) <= most).then_some(content))
}

/// A file of root's as JSON.
pub(super) fn json<T: serde::de::DeserializeOwned>(path: &Path, most: u64) -> Result<T, Unread> {
    let content = bytes(path, Owner::Root, most)?;
    serde_json::from_slice(&content).map_err(|_| Unread::Format(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_what_nobody_but_root_can_have_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        let file = folder.join("file");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "text").unwrap();
        let mode =
            |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&file, 0o644);
        let root = || bytes(&file, Owner::Root, 4);
        assert_eq!(**root().unwrap(), *b"text");
        assert!(matches!(bytes(&file, Owner::Root, 3), Err(Unread::TooLarge(..))));
        for bad in [0o664, 0o646] {
            mode(&file, bad);
            assert!(matches!(root(), Err(Unread::Foreign(_))), "{bad:o}");
        }
        mode(&file, 0o600);
        chown(&file, Some(1000), None).unwrap();
        assert!(matches!(root(), Err(Unread::Foreign(_))));
        assert!(bytes(&file, Owner::Anybody, 4).is_ok());
        chown(&file, Some(0), None).unwrap();
        for bad in [0o775, 0o777] {
            mode(&folder, bad);
            assert!(matches!(root(), Err(Unread::Foreign(_))), "{bad:o}");
        }
        mode(&folder, 0o1777);
        assert!(root().is_ok(), "as /tmp");
        mode(&folder, 0o755);
        chown(&folder, Some(1000), None).unwrap();
        assert!(matches!(root(), Err(Unread::Foreign(_))));
        // A link is as good as the folder that it leads to.
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(matches!(bytes(&link, Owner::Root, 4), Err(Unread::Foreign(_))));
        assert!(matches!(bytes(&dir.path().join("none"), Owner::Root, 4), Err(Unread::Missing(_))));
        assert!(matches!(
            bytes(Path::new("/dev/null"), Owner::Root, 4),
            Err(Unread::Format(_) | Unread::Foreign(_))
        ));
    }
}
