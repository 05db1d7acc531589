//! Where cgroup v2 is, and which cgroup an id names.
use std::{
    ffi::c_int,
    fs::File,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use super::error::KernelError;

/// Where the cgroup v2 hierarchy is mounted, from `/proc/self/mountinfo` (proc(5)); the shallowest mount of its root.
///
/// # Errors
/// [`KernelError::NoCgroup2`].
pub fn mount_point() -> Result<PathBuf, KernelError> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").map_err(|_| KernelError::NoCgroup2)?;
    find_mount(&mountinfo).ok_or(KernelError::NoCgroup2)
}

fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ');
            let (root, point) = (fields.nth(3)?, fields.next()?);
            (file_system.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(unescape(point)))
        })
        .collect();
    found.sort_by_key(|path| path.components().count());
    found.into_iter().next()
}

/// `\040` and its like, as mountinfo writes spaces.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The governed cgroup and the hierarchy that it is part of.
#[derive(Debug)]
pub struct Cgroups {
    mount: PathBuf,
    root: File,
    governed: PathBuf,
    unit_root: String,
}

impl Cgroups {
    /// Finds the hierarchy and checks the governed cgroup (default: the root of the hierarchy).
    ///
    /// # Errors
    /// [`KernelError::NoCgroup2`], [`KernelError::Cgroup`].
    pub fn open(governed: Option<&Path>, unit_root: Option<&str>) -> Result<Self, KernelError> {
        let mount = mount_point()?;
        let bad = |path: &Path, what: &str| KernelError::Cgroup {
            path: path.to_owned(),
            what: what.to_owned(),
            mount: format!(" {}", mount.display()),
        };
        let root = File::open(&mount).map_err(|error| bad(&mount, &error.to_string()))?;
        let governed = governed.unwrap_or(&mount).to_owned();
        let real = governed.canonicalize().map_err(|error| bad(&governed, &error.to_string()))?;
        if !real.is_dir() || !real.starts_with(&mount) {
            return Err(bad(&governed, "is not a cgroup of the v2 hierarchy"));
        }
        let unit_root = match unit_root {
            Some(root) => root.to_owned(),
            None => systemd_root().unwrap_or_default(),
        };
        let unit_root = format!("/{}", unit_root.trim_matches('/'));
        Ok(Self { mount, root, governed: real, unit_root })
    }

    /// The governed cgroup as a folder.
    #[must_use]
    pub fn governed(&self) -> &Path {
        &self.governed
    }

    /// The cgroup below which systemd's tree stands.
    #[must_use]
    pub fn unit_root(&self) -> &str {
        &self.unit_root
    }

    /// The path of the cgroup with this id in the hierarchy (`/system.slice/x.service`), while it exists.
    ///
    /// A cgroup v2 id is the 64-bit kernfs id, which is also what a file handle of the hierarchy holds
    /// (`FILEID_KERNFS`, fs/kernfs/mount.c); ids are not used again.
    #[must_use]
    pub fn path_of(&self, id: u64) -> Option<String> {
        const FILEID_KERNFS: c_int = 0xfe;
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: c_int,
            id: [u8; 8],
        }
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
        // SAFETY: the handle has the layout of struct file_handle with eight bytes behind it and lives across the call.
        let fd = unsafe {
            libc::open_by_handle_at(
                self.root.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY,
            )
        };
        if fd < 0 {
            return None;
        }
        // SAFETY: a descriptor that the kernel just gave us and nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let inside = path.strip_prefix(&self.mount).ok()?;
        Some(format!("/{}", inside.to_str()?))
    }

    /// The folder of a cgroup that is named by its path in the hierarchy.
    #[must_use]
    pub fn folder_of(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Whether the cgroup with this path in the hierarchy is the governed one, or below it.
    #[must_use]
    pub fn governs(&self, path: &str) -> bool {
        self.folder_of(path).starts_with(&self.governed)
    }

    /// The id of the governed cgroup.
    #[must_use]
    pub fn governed_id(&self) -> Option<u64> {
        std::fs::metadata(&self.governed).ok().map(|meta| meta.ino())
    }

    /// Whether this process is in the governed cgroup.
    #[must_use]
    pub fn contains_me(&self) -> bool {
        let Ok(own) = std::fs::read_to_string("/proc/self/cgroup") else { return false };
        let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else { return false };
        self.mount.join(path.trim_start_matches('/')).starts_with(&self.governed)
    }
}

/// Where systemd's own tree starts: PID 1's cgroup without `/init.scope` or `/system.slice`, as systemd itself finds it.
fn systemd_root() -> Option<String> {
    let text = std::fs::read_to_string("/proc/1/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path =
        path.strip_suffix("/init.scope").or_else(|| path.strip_suffix("/system.slice")).unwrap_or(path);
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_unified_and_hybrid_layouts() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(find_mount(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        let part = "30 23 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(find_mount(part), None);
        assert_eq!(find_mount("31 23 0:28 / /x rw - tmpfs tmpfs rw\n"), None);
    }

    #[test]
    fn an_id_names_its_cgroup_until_it_is_gone() {
        let cgroups = Cgroups::open(None, None).unwrap();
        let dir = cgroups.mount.join(format!("vouchsafe-id-test-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let id = std::fs::metadata(&dir).unwrap().ino();
        let found = cgroups.path_of(id);
        std::fs::remove_dir(&dir).unwrap();
        assert_eq!(found, Some(format!("/{}", dir.file_name().unwrap().to_str().unwrap())));
        assert_eq!(cgroups.path_of(id), None);
    }
}
