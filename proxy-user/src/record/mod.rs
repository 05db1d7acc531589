//! Nothing unrecorded: the decision is in the journal before it takes effect, the outcome after it ended.
//!
//! [`Recorder::begin`] writes the decision of an allowed call and returns the [`Receipt`] without which nothing is
//! forwarded; [`Receipt::complete`] takes the outcome, once. What the journal is made of says [`proxy_journal`].
//!
//! * `store` opens the directory: ownership, lock, repair after a kill.
//! * `recorder` writes, and keeps the thread that flushes and syncs.
//! * `batch` has calls that are decided at the same time written together.
//! * `receipt` is the proof that a call is recorded.
//! * `journald` shows the same records to systemd's journal.
//! * `fields` spells them in its protocol.

mod batch;
mod fields;
mod journald;
mod receipt;
mod recorder;
mod store;

pub use journald::{JournaldHealth, JournaldState};
pub use receipt::Receipt;
pub use recorder::{Health, Recorder};
pub use store::Options;

use std::path::PathBuf;

use proxy_journal::{AppendError, RecoverError};

/// Why the journal cannot be opened, or a record is not in it. A call whose decision is not in it must be refused.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The directory, or a file of it, cannot be made, opened or read.
    #[error("the journal cannot be opened at {}", path.display())]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner may write to it.
    #[error(
        "{} may be written by others than the daemon (owner {uid}, mode {mode:04o}), so nobody could trust the journal; \
         make it the daemon's own, with mode 0700 for the directory and 0600 for a file", path.display()
    )]
    Exposed {
        /// The directory or file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Another daemon has it open.
    #[error("another vouchsafe daemon writes the journal in {}; stop it first", .0.display())]
    Locked(PathBuf),
    /// It was changed, or cannot be read to its end.
    #[error("the journal {} cannot be continued", path.display())]
    Broken {
        /// The segment.
        path: PathBuf,
        /// What is wrong, and what to do.
        #[source]
        source: RecoverError,
    },
    /// A version that rotates the journal wrote here.
    #[error("{} has more than one segment: a newer version of vouchsafe wrote it, and only that can go on", .0.display())]
    Newer(PathBuf),
    /// The write failed; nothing of it is in the journal.
    #[error(
        "the journal in {} cannot be written, so calls are refused; see that its disk has room and can be written",
        path.display()
    )]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// What was written could not be brought to the disk; calls are refused until it can.
    #[error("the journal in {} does not reach its disk ({why}), so calls are refused; see to the disk", path.display())]
    Unsynced {
        /// The directory.
        path: PathBuf,
        /// What the disk said.
        why: String,
    },
    /// The record is too long for the journal.
    #[error("this call cannot be recorded, so it is refused")]
    TooLong(#[source] AppendError),
    /// The caller asked for something that this function does not record: a receipt for a denial, say.
    #[error("{0}")]
    Misuse(&'static str),
    /// The daemon is ending; nothing more is begun.
    #[error("the journal is closed: the daemon is stopping")]
    Stopped,
}

#[cfg(test)]
mod tests;
