//! Nothing unrecorded: the decision is in the journal before it takes effect, the outcome after it ended.
//!
//! [`Recorder::begin`] writes the decision of an allowed call and returns the [`Receipt`] without which nothing is
//! forwarded; [`Receipt::complete`] takes the outcome, once. What the journal is made of says [`proxy_journal`].
//!
//! * `options` says how.
//! * `signer` has the key of the checkpoints.
//! * `store` opens the directory: ownership, lock, repair after a kill or a loss of power.
//! * `space` keeps a reserve for when the disk is full.
//! * `state` writes, signs, and goes on in the next segment.
//! * `committer` is the thread that does so in time, and brings it to the disk.
//! * `keeper` compresses closed segments, and removes those whose time is over.
//! * `recorder` is what all of it is asked by.
//! * `batch` has calls that are decided at the same time written together.
//! * `receipt` is the proof that a call is recorded.
//! * `capture` is one body that is kept for auditors, `captures` the thread that writes them.
//! * `signal` tells those who read the journal as it grows.

mod batch;
mod capture;
mod captures;
mod committer;
mod signal;
mod keeper;
mod options;
mod receipt;
mod recorder;
mod signer;
mod space;
mod state;
mod store;

pub use capture::{Capture, Captures, Ending, NotKept};
pub use options::{Durability, Options};
pub use receipt::Receipt;
pub use recorder::{Health, Recorder};
pub use signal::Signal;

use std::path::PathBuf;

use proxy_journal::{AppendError, PublicKey, RecoverError};

use crate::base::causes::chain;

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
    /// A segment that must be there is not.
    #[error(
        "the journal cannot be continued: {} is missing. Bring it back; or, to begin a new chain, move the whole directory away and keep \
         it as evidence", .0.display()
    )]
    Missing(PathBuf),
    /// Two segments do not belong together.
    #[error(
        "the journal cannot be continued: {} does not go on where {} ends. Find out who changed them; `vouchsafe audit verify` tells \
         more. To begin a new chain, move the whole directory away and keep it as evidence", path.display(), before.display()
    )]
    Apart {
        /// The last segment.
        path: PathBuf,
        /// The one before.
        before: PathBuf,
    },
    /// The key that must sign is not there.
    #[error(
        "the journal is signed by {public}, and {}: {}. Bring the key back from a backup; or, to begin a new chain with a new key, move the \
         directory of the journal away and keep it as evidence", path.display(),
        match found { Some(other) => format!("is another key ({other})"), None => "is not there".to_owned() }
    )]
    Key {
        /// Where it belongs.
        path: PathBuf,
        /// The key whose turn it is.
        public: PublicKey,
        /// The one that is there.
        found: Option<PublicKey>,
    },
    /// Where the journal spilled before has segments.
    #[error(
        "segments of the journal are in {}, and journal.spill is {} now; set it back, and change it when they are brought home",
        there.display(), spill.display()
    )]
    Spilled {
        /// Where they are.
        there: PathBuf,
        /// Where the setting says.
        spill: PathBuf,
    },
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
    /// The bodies of a call cannot be kept.
    #[error("the bodies of this call must be kept for auditors and cannot be in {}: {why}", path.display())]
    Uncaptured {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: std::sync::Arc<str>,
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
pub(crate) mod tests;
