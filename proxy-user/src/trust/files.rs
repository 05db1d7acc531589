//! Files that only some may read or write: checked when opened, created whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

/// The largest file that is read here, in bytes. A certificate takes 1 KiB, and 20 bytes for each host that a policy names.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// How the name of a file begins that is not whole yet.
pub(super) const NEW: &str = ".new-";

/// Of private keys.
pub(super) const KEY_MODE: u32 = 0o600;

/// Of certificates, which everybody may read.
pub(super) const CERTIFICATE_MODE: u32 = 0o644;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("cannot {action} {}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { " (only root may: run the command as root)" } else { "" })]
    Io {
        /// What was tried: `read`, `create` …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may do with the file what only we may.
    #[error("{} has mode {mode:04o}, but must not allow more than {most:04o}: run `chmod {most:04o} {}`{}", path.display(), path.display(), if *most & 0o044 == 0 { ", and replace what is in it if somebody may have read it" } else { "" })]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits that it may have at most.
        most: u32,
    },
    /// The file belongs to somebody who is neither us nor root.
    #[error("{} belongs to uid {owner}: run `chown {expected} {}`", path.display(), path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// The uid that it belongs to.
        owner: u32,
        /// The uid of this process.
        expected: u32,
    },
    /// There is something else of that name.
    #[error("{} is not a regular file of at most 16 MiB: move it away", path.display())]
    NotAFile {
        /// What is in the way.
        path: PathBuf,
    },
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

/// Mode and owner of what is open, not of what the path names by now.
fn check(path: &Path, metadata: &fs::Metadata, most: u32) -> Result<(), FileError> {
    let (mode, owner, expected) = (metadata.mode() & 0o7777, metadata.uid(), geteuid().as_raw());
    if owner != 0 && owner != expected {
        return Err(FileError::Owner { path: path.to_owned(), owner, expected });
    }
    if mode & !most != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode, most });
    }
    Ok(())
}

/// The content of `path`; `None` when there is no such file. `most` are the permission bits it may have at most. A
/// symlink is not followed.
pub(super) fn read(path: &Path, most: u32) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let options = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(options.bits()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("read", path))?,
    };
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    check(path, &metadata, most)?;
    // Room for all of it: a buffer that grows leaves unwiped copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(0) + 64;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(io_error("read", path))?;
    Ok(Some(content))
}

/// Makes `path` with `content` and exactly `mode`, whole or not at all, and on the disk before it returns. A file
/// that is there already is left alone: that is `Ok` too, since another start of ours was faster.
pub(super) fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let attempt = || {
        let permissions = Permissions::from_mode(mode);
        let mut file = tempfile::Builder::new()
            .prefix(NEW)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        file.write_all(content)?;
        file.as_file().set_permissions(permissions)?; // not by creation, where the umask takes bits away
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            persisted => drop(persisted?),
        }
        File::open(directory)?.sync_all()
    };
    attempt().map_err(io_error("create", path))
}

/// Puts `content` in the place of what `path` is, whole or not at all, and on the disk before it returns.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let attempt = || {
        let mut file = tempfile::Builder::new()
            .prefix(NEW)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        file.write_all(content)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(directory)?.sync_all()
    };
    attempt().map_err(io_error("write", path))
}

/// Makes `path` a directory of mode 0755 if there is none, and checks that nobody else may write to it.
pub(super) fn directory(path: &Path) -> Result<(), FileError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(io_error("create", path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("create", path)(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(io_error("read", path))?;
    if !metadata.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(io_error("use", path)(error));
    }
    check(path, &metadata, 0o755)
}
