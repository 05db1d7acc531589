//! Enough descriptors for every connection that the limits allow.
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many descriptors the daemon asks for: two for each connection, and room.
const DESCRIPTORS: u64 = 1 << 20;

/// Raises the soft limit as far as the hard one lets it.
pub(super) fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(DESCRIPTORS).max(soft);
        if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
            tracing::warn!(%error, "cannot raise the number of descriptors");
        }
    }
}
