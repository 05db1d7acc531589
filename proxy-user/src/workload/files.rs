//! Files by device and inode, in the kernel's spelling.
use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use proxy_policy::ExePattern;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, open, openat2, statx};
use rustix::io::Errno;

/// A file as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// `s_dev` of the super block, kernel encoding (`major << 20 | minor`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// The kernel's encoding of a device (include/linux/kdev_t.h), unlike user space's.
#[must_use]
pub fn kernel_device(major: u32, minor: u32) -> u64 {
    (u64::from(major) << 20) | u64::from(minor)
}

/// Major and minor number of a device in the kernel's encoding.
#[must_use]
pub fn major_minor(device: u64) -> (u64, u64) {
    (device >> 20, device & 0xf_ffff)
}

/// The device of an open file, which a process may have found in its own mount namespace; `None` where the file system shows user space another device than its super block's
/// (btrfs with subvolumes, some overlayfs): there one pair of super block and inode can name several files, which anybody
/// could arrange, so it names none.
#[must_use]
pub fn device(file: impl AsFd, pid: u32) -> Option<u64> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok()?;
    device_of(&stat, Some(pid))
}

/// The file that a process executes now.
#[must_use]
pub fn executed_by(pid: u32) -> Option<FileId> {
    named(Path::new(&format!("/proc/{pid}/exe")), Some(pid))
}

/// The file that a path names now; symbolic links are followed.
#[must_use]
pub fn named_by(path: &Path) -> Option<FileId> {
    named(path, None)
}

/// The same, as far as the kernel can say it from memory: nothing is mounted for it, and nobody asked who may not answer. The way to a file
/// that a process executes is in memory.
#[must_use]
pub fn at_hand(path: &Path) -> Option<FileId> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = || openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
    let mut opened = open();
    for _ in 0..AGAIN {
        match opened {
            Err(Errno::AGAIN) => opened = open(),
            _ => break,
        }
    }
    of_open(opened.ok()?)
}

/// How often a path is looked up in memory again that is not found there. A lookup that may not wait gives up, as if it was not, when somebody
/// mounts or renames something at this moment, anywhere on the host (`LOOKUP_RCU`, Documentation/filesystems/path-lookup.rst).
const AGAIN: usize = 8;

/// The file that is open.
#[must_use]
pub fn of_open(file: impl AsFd) -> Option<FileId> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok()?;
    Some(FileId { dev: device_of(&stat, None)?, ino: stat.stx_ino })
}

/// The file that an absolute path names now to a process, with its own root and mounts.
#[must_use]
pub fn seen_by(pid: u32, path: &Path) -> Option<FileId> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok()?;
    Some(FileId { dev: device_of(&stat, Some(pid))?, ino: stat.stx_ino })
}

fn named(path: &Path, pid: Option<u32>) -> Option<FileId> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok()?;
    Some(FileId { dev: device_of(&stat, pid)?, ino: stat.stx_ino })
}

fn device_of(stat: &rustix::fs::Statx, pid: Option<u32>) -> Option<u64> {
    let shown = kernel_device(stat.stx_dev_major, stat.stx_dev_minor);
    // Devices with a major number are block devices: what stat shows is what the super block has. Anonymous ones may
    // differ.
    if stat.stx_dev_major != 0 {
        return Some(shown);
    }
    // The mount is in our own namespace, or in that of the process that we found the file through; ids are unique over all.
    let process = pid.map(|pid| format!("/proc/{pid}/mountinfo"));
    let tables = std::iter::once("/proc/self/mountinfo").chain(process.as_deref());
    let device = tables
        .into_iter()
        .find_map(|table| find_device(&std::fs::read_to_string(table).ok()?, stat.stx_mnt_id));
    device.filter(|device| *device == shown)
}

/// The super block's device of a mount, from a mountinfo file (proc(5)): fields id, parent, major:minor.
fn find_device(mountinfo: &str, mount: u64) -> Option<u64> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ');
        if fields.next()?.parse::<u64>().ok()? != mount {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some(kernel_device(major.parse().ok()?, minor.parse().ok()?))
    })
}

/// Whether a path names this file now. Of thousands of paths that a workload is held against most have another inode, which
/// says enough: the table of mounts is only read for the others.
fn names(path: &Path, file: FileId) -> bool {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let Ok(stat) = statx(CWD, path, AtFlags::empty(), flags) else { return false };
    stat.stx_ino == file.ino && device_of(&stat, None) == Some(file.dev)
}

/// How many files a pattern is held against before it is given up.
const MOST_FILES: usize = 10_000;

/// Which of the files that a pattern names now is this one. A hard link is the same file; a copy is not.
#[must_use]
pub fn find(pattern: &ExePattern, wanted: FileId) -> Option<PathBuf> {
    if let Some(path) = pattern.literal() {
        let path = Path::new(path);
        return names(path, wanted).then(|| path.to_owned());
    }
    let mut budget = MOST_FILES;
    search(Path::new(pattern.directory()), pattern, wanted, &mut budget, 0)
}

fn search(
    dir: &Path,
    pattern: &ExePattern,
    wanted: FileId,
    budget: &mut usize,
    depth: u8,
) -> Option<PathBuf> {
    if depth > 16 {
        return None;
    }
    // A subdirectory can only matter when the pattern has something behind its first wildcard segment.
    let deep = pattern.as_str().contains("**")
        || pattern.as_str().matches('/').count() > dir.to_string_lossy().matches('/').count() + 1;
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        *budget = budget.checked_sub(1)?;
        let path = entry.path();
        let text = path.to_str()?;
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            if deep && let Some(found) = search(&path, pattern, wanted, budget, depth + 1) {
                return Some(found);
            }
        } else if pattern.matches(text) && names(&path, wanted) {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_path_names_one_file_a_hard_link_the_same_a_copy_another() {
        let dir = tempfile::tempdir().unwrap();
        let (one, link, symlink, copy) = (
            dir.path().join("one"),
            dir.path().join("link"),
            dir.path().join("symlink"),
            dir.path().join("copy"),
        );
        std::fs::write(&one, "x").unwrap();
        std::fs::hard_link(&one, &link).unwrap();
        std::os::unix::fs::symlink(&one, &symlink).unwrap();
        std::fs::copy(&one, &copy).unwrap();
        let id = named_by(&one);
        assert_eq!(at_hand(&one), id, "it was just looked at");
        assert!(id.is_some());
        assert_eq!(named_by(&link), id);
        assert_eq!(named_by(&symlink), id);
        assert_ne!(named_by(&copy), id);
        assert_eq!(named_by(&dir.path().join("none")), None);
        let id = id.unwrap();
        assert!(names(&one, id) && names(&link, id) && names(&symlink, id));
        assert!(!names(&copy, id) && !names(&dir.path().join("none"), id));
        assert!(!names(&one, FileId { dev: id.dev + 1, ..id }), "the same inode of another file system");
    }

    #[test]
    fn a_path_is_at_hand_also_while_others_mount() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        use nix::sched::{CloneFlags, unshare};
        const NONE: Option<&str> = None;
        let dir = tempfile::tempdir().unwrap();
        let (path, place) = (dir.path().join("deep/file"), dir.path().join("place"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::create_dir(&place).unwrap();
        std::fs::write(&path, "x").unwrap();
        let id = named_by(&path);
        let until = Instant::now() + Duration::from_secs(1);
        let missed = std::thread::scope(|scope| {
            let (begun, beginning) = std::sync::mpsc::channel();
            scope.spawn(move || {
                // Its mounts are its own; the lock is one for the host.
                let mounts = unshare(CloneFlags::CLONE_NEWNS).is_ok()
                    && mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).is_ok();
                begun.send(mounts).unwrap();
                while mounts && Instant::now() < until {
                    mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
                    umount2(&place, MntFlags::MNT_DETACH).unwrap();
                }
            });
            assert!(beginning.recv().unwrap(), "this test mounts, which takes root");
            let mut missed = 0;
            while Instant::now() < until {
                missed += usize::from(at_hand(&path) != id);
            }
            missed
        });
        assert_eq!(missed, 0);
    }

    #[test]
    fn the_mount_table_has_the_device_of_a_mount() {
        let table = "22 28 0:21 / /sys rw - sysfs sysfs rw\n28 1 254:1 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(find_device(table, 28), Some((254 << 20) | 1));
        assert_eq!(find_device(table, 22), Some(21));
        assert_eq!(find_device(table, 2), None);
    }
}
