//! Files in folders that others may own: read and replaced within a folder that is held open, whole or not at all.
//!
//! Invariant: no link is followed below a folder that is open here, and a file keeps the owner, the mode and the
//! extended attributes that it had. So whoever owns the folder gets nothing from us that he could not have made.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use sha2::{Digest as _, Sha256};

use super::error::StoreError;

/// The largest file that is read here, in bytes. The system's bundle takes 220 KB, a keystore 170 KB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What files begin with until they are whole. Those that a kill left behind are deleted by the next change.
const UNFINISHED: &str = ".vouchsafe-new-";

/// The SHA-256 of a file's content, or of where a link leads.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

/// A file or a link as it was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file.
    File {
        /// All of it.
        content: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
    },
    /// A symbolic link.
    Link(PathBuf),
}

impl Found {
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::File { content, .. } => digest(content),
            Self::Link(to) => digest(to.as_os_str().as_encoded_bytes()),
        }
    }
}

/// A folder that is held open.
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    uid: u32,
}

/// The folder and the name of a path.
pub(super) fn split(path: &Path) -> Result<(&Path, &OsStr), StoreError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(StoreError::refused(path, "names no file")),
    }
}

/// The path without links; `None` when nothing is there.
pub(super) fn real(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(Some(real)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(StoreError::io("look at", path)(error)),
    }
}

impl Folder {
    /// Opens a folder, links in its path resolved once; `None` when it is not there.
    ///
    /// # Errors
    /// It cannot be read, or everybody may put files into it.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(real) = real(path)? else { return Ok(None) };
        let failed = || StoreError::io("open", path);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut fd = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed()(error.into()))?;
        // Step by step, so that a link that somebody puts in place of a folder meanwhile is not followed.
        for component in real.components() {
            if let Component::Normal(name) = component {
                fd = rustix::fs::openat(&fd, name, flags, Mode::empty())
                    .map_err(|error| failed()(error.into()))?;
            }
        }
        let file = File::from(fd);
        let meta = file.metadata().map_err(failed())?;
        if meta.mode() & 0o002 != 0 {
            let reason = format!(
                "is a folder in which everybody can put files (mode {:04o}): run `chmod o-w {}`",
                meta.mode() & 0o7777,
                real.display()
            );
            return Err(StoreError::refused(path, reason));
        }
        Ok(Some(Self { path: real, fd: file.into(), uid: meta.uid() }))
    }

    /// The same, where nobody but root and this user may own it.
    pub(super) fn of_system(path: &Path) -> Result<Option<Self>, StoreError> {
        let folder = Self::open(path)?;
        if let Some(folder) = &folder
            && folder.uid != 0
            && folder.uid != geteuid().as_raw()
        {
            let reason = format!(
                "belongs to uid {}, and must belong to root: run `chown root {}`",
                folder.uid,
                path.display()
            );
            return Err(StoreError::refused(path, reason));
        }
        Ok(folder)
    }

    /// Who owns it.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    fn failed(&self, action: &'static str, name: &OsStr) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = self.path.join(name);
        move |source| StoreError::Io { action, path, said: source }
    }

    /// What is there of that name; `None` when nothing is.
    ///
    /// # Errors
    /// It cannot be read, or is neither a file of at most 16 MiB nor a link.
    pub(super) fn read(&self, name: &OsStr) -> Result<Option<Found>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => {
                let to = rustix::fs::readlinkat(&self.fd, name, Vec::new())
                    .map_err(|error| self.failed("read", name)(error.into()))?;
                return Ok(Some(Found::Link(PathBuf::from(OsStr::from_bytes(to.as_bytes())))));
            }
            Err(error) => return Err(self.failed("read", name)(error.into())),
        };
        let meta = file.metadata().map_err(self.failed("read", name))?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            let path = self.path.join(name);
            return Err(StoreError::refused(&path, "is not a regular file of at most 16 MiB"));
        }
        let mut content = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut content).map_err(self.failed("read", name))?;
        Ok(Some(Found::File { content, mode: meta.mode() & 0o7777, uid: meta.uid() }))
    }

    /// The names in it, at most 10,000.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error: rustix::io::Errno| StoreError::io("list", &self.path)(error.into());
        let listing = rustix::fs::Dir::read_from(&self.fd).map_err(failed)?;
        let mut names: Vec<String> = listing
            .take(10_000)
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !matches!(name.as_str(), "." | ".."))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether what is there of that name is what was seen before.
    fn still(&self, name: &OsStr, before: Option<&Digest>) -> Result<(), StoreError> {
        let now = self.read(name)?.map(|found| found.digest());
        if now.as_ref() == before { Ok(()) } else { Err(StoreError::Changed { path: self.path.join(name) }) }
    }

    /// Puts a file in place of what was there, if that is what was seen before. A new file gets `mode` and our owner.
    ///
    /// # Errors
    /// Then the old file is there as it was.
    pub(super) fn replace(
        &self,
        name: &OsStr,
        content: &[u8],
        mode: u32,
        before: Option<&Digest>,
    ) -> Result<(), StoreError> {
        self.clean();
        self.unfinished(name, before, |new, old| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&self.fd, new, flags, Mode::from_raw_mode(0o600))?);
            file.write_all(content)?;
            match old {
                Some(old) => inherit(&file, old)?,
                None => file.set_permissions(Permissions::from_mode(mode))?,
            }
            file.sync_all()
        })
    }

    /// Makes a link, in place of what was seen before.
    ///
    /// # Errors
    /// Then the old one is there as it was.
    pub(super) fn link(&self, name: &OsStr, to: &Path, before: Option<&Digest>) -> Result<(), StoreError> {
        self.unfinished(name, before, |new, _| Ok(rustix::fs::symlinkat(to, &self.fd, new)?))
    }

    /// Lets `make` make something under a name of its own, and renames it.
    fn unfinished(
        &self,
        name: &OsStr,
        before: Option<&Digest>,
        make: impl FnOnce(&str, Option<&File>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let new = format!("{UNFINISHED}{}", uuid::Uuid::now_v7().simple());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let old = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).ok().map(File::from);
        let made = make(&new, old.as_ref()).map_err(self.failed("write", name));
        if let Err(error) = made.and_then(|()| self.still(name, before)) {
            let _ = rustix::fs::unlinkat(&self.fd, &*new, AtFlags::empty());
            return Err(error);
        }
        self.swap(&new, name, before)
    }

    /// Puts `new` in place of what was seen before. The two change places, so that what somebody else put there a moment
    /// ago is not lost: it goes back.
    fn swap(&self, new: &str, name: &OsStr, before: Option<&Digest>) -> Result<(), StoreError> {
        use rustix::io::Errno;
        let failed = |error: Errno| self.failed("replace", name)(error.into());
        let discard = || rustix::fs::unlinkat(&self.fd, new, AtFlags::empty());
        let flags = if before.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let ours = self.out(new)?;
        match rustix::fs::renameat_with(&self.fd, new, &self.fd, name, flags) {
            Ok(()) if before.is_none() => {}
            Ok(()) if self.out(new)?.as_ref() == before => discard().map_err(failed)?,
            Ok(()) => return Err(self.put_back(new, name, ours)),
            // A file system that cannot exchange: the moment between look and change stays.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(&self.fd, new, &self.fd, name).map_err(|error| {
                    let _ = discard();
                    failed(error)
                })?;
            }
            Err(error) => {
                let _ = discard();
                return Err(match error {
                    Errno::EXIST | Errno::NOENT => StoreError::Changed { path: self.path.join(name) },
                    error => failed(error),
                });
            }
        }
        self.sync()
    }

    /// The digest of what has the name of what is unfinished.
    fn out(&self, new: &str) -> Result<Option<Digest>, StoreError> {
        Ok(self.read(OsStr::new(new))?.map(|found| found.digest()))
    }

    /// Puts back what came out under `new`, until what comes out for it is what was put in: else somebody was faster, and
    /// what he made is the newest.
    fn put_back(&self, new: &str, name: &OsStr, ours: Option<Digest>) -> StoreError {
        let mut inside = ours;
        for _ in 0..1000 {
            let Ok(next) = self.out(new) else { break };
            let back = rustix::fs::renameat_with(&self.fd, new, &self.fd, name, RenameFlags::EXCHANGE);
            if let Err(error) = back {
                return self.failed("put back", name)(error.into());
            }
            if self.out(new).is_ok_and(|out| out == inside) {
                let _ = rustix::fs::unlinkat(&self.fd, new, AtFlags::empty());
                break;
            }
            inside = next;
        }
        StoreError::Changed { path: self.path.join(name) }
    }

    /// Deletes a file or a link, if it is what was seen before.
    ///
    /// # Errors
    /// Then it is there as it was.
    pub(super) fn delete(&self, name: &OsStr, before: &Digest) -> Result<(), StoreError> {
        self.clean();
        self.still(name, Some(before))?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
            .map_err(|error| self.failed("delete", name)(error.into()))?;
        self.sync()
    }

    /// Makes a folder in it, of mode 0755.
    pub(super) fn make(&self, name: &OsStr, mode: u32) -> Result<(), StoreError> {
        let failed = |error: rustix::io::Errno| self.failed("create", name)(error.into());
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)).map_err(failed)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(failed)?;
        // Not by creation, where the umask takes bits away.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)).map_err(failed)?;
        self.sync()
    }

    /// Deletes a folder in it, if nothing is in that.
    pub(super) fn delete_empty(&self, name: &OsStr) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(())
            | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {
                self.sync()
            }
            Err(error) => Err(self.failed("delete", name)(error.into())),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.fd).map_err(|error| StoreError::io("write", &self.path)(error.into()))
    }

    /// Deletes what a kill left unfinished. Only one of us is at work at a time.
    pub(super) fn clean(&self) {
        for name in self.names().unwrap_or_default().iter().filter(|name| name.starts_with(UNFINISHED)) {
            let _ = rustix::fs::unlinkat(&self.fd, name.as_str(), AtFlags::empty());
        }
    }
}

/// Owner, mode and extended attributes (the label of a security module, access lists) of the file that is replaced.
fn inherit(new: &File, old: &File) -> io::Result<()> {
    let meta = old.metadata()?;
    let own = new.metadata()?;
    if (meta.uid(), meta.gid()) != (own.uid(), own.gid()) {
        fchown(new, Some(meta.uid()), Some(meta.gid()))?;
    }
    new.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))?;
    let mut names = vec![0_u8; 64 * 1024];
    // A file system without attributes says so; then there is nothing to keep.
    let Ok(length) = rustix::fs::flistxattr(old.as_fd(), names.as_mut_slice()) else { return Ok(()) };
    names.truncate(length);
    // Signatures over the old content would make the new one unreadable where they are verified.
    let signed = |name: &[u8]| name.starts_with(b"security.ima") || name.starts_with(b"security.evm");
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !signed(name)) {
        let mut value = vec![0_u8; 64 * 1024];
        if let Ok(length) = rustix::fs::fgetxattr(old.as_fd(), name, value.as_mut_slice()) {
            value.truncate(length);
            // Where it may not be set, the system gives what belongs there.
            let _ = rustix::fs::fsetxattr(new.as_fd(), name, &value, rustix::fs::XattrFlags::empty());
        }
    }
    Ok(())
}
