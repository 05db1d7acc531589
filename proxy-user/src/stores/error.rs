//! What keeps a trust store from being changed: what, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::trust::CaError;

/// Why a store is not as it should be. What was trusted before is trusted still.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There are no roots to hand out.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The operating system said no.
    #[error("cannot {action} {}: {said}{}", path.display(), advice(said))]
    Io {
        /// What was tried: `read`, `write` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said; in the message already, so that it is not told twice.
        said: io::Error,
    },
    /// Somebody else wrote the file between our look at it and our change.
    #[error("{} was changed by somebody else at the same time, and was left as they made it: run the command again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The store is not one that may or can be changed.
    #[error("{} {reason}", path.display())]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// No tool that this host's system store is made with.
    #[error(
        "this host has none of the tools that a system trust store is made with (update-ca-certificates, update-ca-trust, trust): \
         install the package ca-certificates; where the distribution is built as a whole (NixOS: \
         security.pki.certificateFiles), name /etc/vouchsafe/trust/roots.pem there, or give bots the bundle with --unit"
    )]
    NoSystemStore,
    /// A program that is needed for this store is not here.
    #[error("{program} is not installed, and {what} cannot be changed without it: install {package}")]
    NoTool {
        /// The program.
        program: &'static str,
        /// The kind of store.
        what: &'static str,
        /// Its package, by distribution.
        package: &'static str,
    },
    /// A tool failed.
    #[error("`{command}` failed ({status}){}{said}", if said.is_empty() { "" } else { ": " })]
    Tool {
        /// The command as one would type it.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// The tool says that it worked, and the store says otherwise.
    #[error("{} was changed without an error, and still is not as it should be ({state}): see what else manages it", path.display())]
    NotTaken {
        /// The store.
        path: PathBuf,
        /// What it looks like.
        state: String,
    },
    /// It failed, and what was done could not be taken back.
    #[error("{error}; taking back what was done failed as well: {undo}")]
    NotUndone {
        /// What failed first.
        error: Box<StoreError>,
        /// What failed then.
        undo: Box<StoreError>,
    },
    /// Another command of ours is at work.
    #[error("another `vouchsafe trust` has been at work for a minute (it holds {}): wait for it, or look what it hangs on", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// The list of what was put where cannot be understood.
    #[error(
        "{} is damaged ({reason}): move it away and run `vouchsafe trust install` with the stores that you want; what is in stores already is found there",
        path.display()
    )]
    Manifest {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, said: source }
    }

    pub(super) fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.to_owned(), reason: reason.into() }
    }
}

/// What to do about what the system said.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room and run the command again, the file is as it was"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; this host keeps it read-only: change it where its image is built, or give bots the bundle with --unit"
        }
        io::ErrorKind::PermissionDenied if !nix::unistd::geteuid().is_root() => "; run the command as root",
        io::ErrorKind::PermissionDenied => "; it may be immutable (lsattr) or kept by a security module",
        _ => "",
    }
}
