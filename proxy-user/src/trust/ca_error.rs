//! What can be wrong with the CA on disk, and what to do about it.

use std::path::PathBuf;

use time::OffsetDateTime;

use super::files::FileError;

/// Why there is no usable CA. The daemon does not start without one, and a policy that needs a new one is refused.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or made, or others have access to it.
    #[error(transparent)]
    File(#[from] FileError),
    /// No roots, and the caller may not make any.
    #[error("there is no CA at {} yet: the daemon makes it when it first starts", path.display())]
    NotThere {
        /// Where the roots would be.
        path: PathBuf,
    },
    /// A file that is no key or no certificate.
    #[error("{} is damaged ({reason}): restore it, or move {} away, which makes a new CA at the next start, and then run `vouchsafe trust refresh`", path.display(), generation(path).display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The published roots are no certificates. They are written from what is in the generations.
    #[error("{} is damaged ({reason}): start the daemon again, which writes it anew", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Key and certificates are sound, but do not belong together.
    #[error("{} is not the key of {}: restore the file that was replaced, or move {} away, which makes a new CA at the next start", key.display(), certificate.display(), generation(key).display())]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The certificates of another key.
        certificate: PathBuf,
    },
    /// The clock says a time before there was this program; certificates made now would be of no use.
    #[error("the clock of this host says {}, which cannot be: set it, and start again", .0.date())]
    Clock(OffsetDateTime),
    /// A new key or certificate could not be made.
    #[error("cannot make a new CA")]
    Make(#[source] rcgen::Error),
}

/// The directory of a generation's file.
fn generation(path: &std::path::Path) -> &std::path::Path {
    path.parent().unwrap_or(path)
}
