//! Room on the disk: a reserve for what must be written when there is none left for calls.
//!
//! The reserve is a file beside the segments whose blocks are taken. When the disk is full it is given back, so that the ends of calls
//! that are open, denials and checkpoints are still written, and no call is begun; when it can be taken again, calls are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// Name of the file.
const FILE: &str = "reserve";

/// The reserve.
#[derive(Debug)]
pub(super) struct Reserve {
    file: Option<File>,
    bytes: u64,
    /// It was given back, because there is no room.
    pub(super) spent: bool,
}

impl Reserve {
    /// Takes as many bytes of the disk of `dir`; none when they are not there, or the file system cannot.
    pub(super) fn take(dir: &Path, bytes: u64) -> io::Result<Reserve> {
        if bytes == 0 {
            let _ = std::fs::remove_file(dir.join(FILE));
            return Ok(Reserve { file: None, bytes, spent: false });
        }
        let flags = OFlag::O_NOFOLLOW.bits();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(dir.join(FILE))?;
        file.set_len(bytes.min(file.metadata()?.len()))?;
        let mut reserve = Reserve { file: Some(file), bytes, spent: true };
        if !reserve.refill() {
            reserve.spend();
        }
        Ok(reserve)
    }

    /// Gives back the reserve of an earlier run, and whether there was any.
    pub(super) fn give_back(dir: &Path) -> bool {
        let flags = OFlag::O_NOFOLLOW.bits();
        let opened = OpenOptions::new().write(true).custom_flags(flags).open(dir.join(FILE));
        opened
            .is_ok_and(|file| file.metadata().is_ok_and(|meta| meta.blocks() > 0) && file.set_len(0).is_ok())
    }

    /// Gives it back, so that a little can be written.
    pub(super) fn spend(&mut self) {
        self.spent = true;
        if let Some(file) = &self.file
            && let Err(error) = file.set_len(0)
        {
            tracing::error!(%error, "the reserve of the journal cannot be given back");
        }
    }

    /// Takes it again, when there is as much room besides: so that it is not spent again at once. Whether there is room now.
    pub(super) fn refill(&mut self) -> bool {
        let Some(file) = &self.file else {
            self.spent = false;
            return true;
        };
        let taken = file.metadata().map_or(0, |meta| meta.blocks().saturating_mul(512));
        let free = fstatvfs(file).map_or(u64::MAX, |room| room.f_bavail.saturating_mul(room.f_frsize));
        if free < (self.bytes.saturating_mul(2)).saturating_sub(taken) {
            return false;
        }
        self.spent = match fallocate(file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => false,
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                // What was taken of it before there was no more.
                let _ = file.set_len(0);
                true
            }
            // A file system that cannot take blocks ahead: then there is no reserve, and the next write tells.
            Err(_) => false,
        };
        !self.spent
    }
}

/// Whether a write failed because there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
