//! The command that has another key sign the journal.

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::{Failure, Peer};

/// The name of the command; it has no arguments.
pub const ROTATE_KEY_COMMAND: &str = "journal-key-rotate";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateKeyReport {
    /// The key that signs from here on.
    pub key: String,
}

/// Whether this peer may say so.
///
/// # Errors
/// It may not: the socket's group may look and reload, not end the key that auditors know.
pub fn may_rotate(peer: Peer) -> Result<(), Failure> {
    if peer.uid == 0 || peer.uid == geteuid().as_raw() {
        return Ok(());
    }
    let message = format!("uid {} may not have another key sign the journal", peer.uid);
    Err(Failure::new("not-allowed", message, "run the command as root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_end_a_key() {
        let peer = |uid| Peer { uid, gid: 0, pid: None };
        assert!(may_rotate(peer(0)).is_ok() && may_rotate(peer(geteuid().as_raw())).is_ok());
        assert_eq!(may_rotate(peer(1000)).unwrap_err().code, "not-allowed");
    }
}
