//! What the tests need of the host, and what a killed run left on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// Where bpffs is.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// Names of everything that a world makes on the host begin so; the pid of the test run and a number follow.
pub(crate) const PREFIX: &str = "vouchsafe-test-";

/// Checks the host, once per run; fails with what is missing.
pub(crate) fn prepare() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests load BPF programs into the running kernel and need root: sudo cargo xtask test"
    );
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if mount_of("bpf").is_none() {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .expect("this kernel lets nobody mount a bpf file system, which these tests need");
        }
        for program in ["nginx", "/usr/bin/curl", "/usr/bin/python3", "nsenter", "unshare", "setpriv", "ip"] {
            let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
            assert!(
                found.is_ok_and(|s| s.success()),
                "{program} is not installed; `cargo xtask test` does it"
            );
        }
        remove_leftovers();
    });
}

/// The daemon's binary: `VOUCHSAFE_BIN`, else beside the test's own.
pub fn daemon() -> PathBuf {
    let path = std::env::var_os("VOUCHSAFE_BIN").map_or_else(|| built("vouchsafe"), PathBuf::from);
    assert!(path.is_file(), "{} is missing; run `cargo xtask build` first", path.display());
    path
}

/// The program behind `cargo xtask`.
pub fn xtask() -> PathBuf {
    let path = built("xtask");
    assert!(path.is_file(), "xtask is not built; run `cargo xtask test`, or `cargo build -p xtask` first");
    path
}

/// A program of this workspace in the folder where the tests are built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2() -> PathBuf {
    mount_of("cgroup2").expect("no cgroup v2 is mounted, which these tests need")
}

fn mount_of(kind: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        (rest.split(' ').next() == Some(kind)).then(|| fields.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Removes what runs left whose process is gone.
fn remove_leftovers() {
    let places = [cgroup2(), PathBuf::from(BPFFS), std::env::temp_dir()];
    for name in places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            tear_down(&name);
        }
    }
}

/// Takes away everything that a world with this name has made: processes, cgroups, pins, namespace, folder.
pub(crate) fn tear_down(name: &str) {
    remove_cgroup(&cgroup2().join(name));
    let _ = fs::remove_dir_all(Path::new(BPFFS).join(name));
    let folder = std::env::temp_dir().join(name);
    let _ = umount2(&folder.join("net"), MntFlags::MNT_DETACH);
    let _ = fs::remove_dir_all(folder);
}

/// Kills what is in a cgroup of ours and removes it with everything below.
fn remove_cgroup(path: &Path) {
    if !path.is_dir() {
        return;
    }
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    wait_until("the removal of a cgroup", || {
        for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid) = pid.parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        (fs::remove_dir(path).is_ok() || !path.exists()).then_some(())
    });
}
