//! Who may change a file that the daemon believes: nobody but root and the daemon's own user.
use std::{os::unix::fs::MetadataExt, path::Path};

/// What is wrong with owner or mode of a file or folder, if anything. A file that cannot be looked at is left to the
/// one who reads it.
#[must_use]
pub fn problem(path: &Path) -> Option<String> {
    let meta = std::fs::metadata(path).ok()?;
    judge(meta.uid(), meta.mode(), nix::unistd::geteuid().as_raw())
}

fn judge(owner: u32, mode: u32, me: u32) -> Option<String> {
    if owner != 0 && owner != me {
        return Some(format!("belongs to uid {owner}, who could change it; it must belong to root"));
    }
    if mode & 0o002 != 0 {
        return Some(format!("is writable by everybody (mode {:04o})", mode & 0o7777));
    }
    if mode & 0o020 != 0 {
        return Some(format!("is writable by its group (mode {:04o})", mode & 0o7777));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemon_may_be_able_to_write() {
        assert!(judge(0, 0o100_644, 0).is_none());
        assert!(judge(7, 0o100_600, 7).is_none());
        assert!(judge(7, 0o100_644, 0).is_some());
        assert!(judge(0, 0o100_666, 0).is_some());
        assert!(judge(0, 0o100_664, 0).is_some());
    }
}
