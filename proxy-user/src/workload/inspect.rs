//! A running process as a workload: what the kernel would capture if it connected now, read from `/proc`.
//!
//! `/proc` is read in several steps. What is told is only what two readings in a row agree on, start time and executable
//! included, so that no process is described by the facts of two.
use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
    sync::Arc,
};

use procfs::process::Process;
use rustix::fs::{Mode, OFlags};

use super::{
    Workload, Workloads,
    files::{self, FileId},
    unit,
};
use crate::kernel::{Cgroups, clock_ticks};

/// A process, and what a capture does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The process as the kernel would capture it, but for the cookie of its network namespace, which `/proc` does not
    /// have (0).
    pub workload: Workload,
    /// Inode number of the network namespace; 0: unknown.
    pub netns_ino: u64,
}

/// Why a process is no workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWorkload {
    /// There is none with this id.
    #[error("there is no process {0}")]
    Gone(u32),
    /// It ended, and its parent has not taken notice of it.
    #[error("process {0} has ended and is only waited for by its parent")]
    Ended(u32),
    /// It is a part of the kernel.
    #[error("process {0} is a kernel thread: it executes no file, makes no calls and has no identity")]
    KernelThread(u32),
    /// It is the id of a thread.
    #[error("{0} is a thread of process {1}; ask for {1}")]
    Thread(u32, u32),
    /// No two readings agreed.
    #[error("process {0} changes faster than it can be read; try again")]
    Changing(u32),
}

/// How often a process is read until two readings agree.
const ATTEMPTS: usize = 8;

/// What `/proc` shows of a process now.
///
/// # Errors
/// It is none, or none that can call.
pub fn process(pid: u32, workloads: &Workloads) -> Result<Inspected, NoWorkload> {
    let mut last = read(pid, workloads)?;
    for _ in 0..ATTEMPTS {
        let now = read(pid, workloads)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    Err(NoWorkload::Changing(pid))
}

fn read(pid: u32, workloads: &Workloads) -> Result<Inspected, NoWorkload> {
    /// `include/linux/sched.h`
    const PF_KTHREAD: u32 = 0x0020_0000;
    let gone = |_| NoWorkload::Gone(pid);
    let process = Process::new(i32::try_from(pid).map_err(|_| NoWorkload::Gone(pid))?).map_err(gone)?;
    let (stat, status) = (process.stat().map_err(gone)?, process.status().map_err(gone)?);
    match u32::try_from(status.tgid) {
        Ok(tgid) if tgid != pid => return Err(NoWorkload::Thread(pid, tgid)),
        _ => {}
    }
    if stat.flags & PF_KTHREAD != 0 {
        return Err(NoWorkload::KernelThread(pid));
    }
    if matches!(stat.state, 'Z' | 'X' | 'x') {
        return Err(NoWorkload::Ended(pid));
    }
    let exe = Executable::of(pid);
    let cgroup = cgroup_of(pid);
    let inode = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.ino());
    let cgroup_id = cgroup.as_deref().map_or(0, |path| inode(&workloads.cgroups().folder_of(path)));
    let place = workloads.place(cgroup_id).filter(|place| Some(&place.path) == cgroup.as_ref());
    let namespace = |kind: &str| inode(Path::new(&format!("/proc/{pid}/ns/{kind}")));
    let workload = Workload {
        boot: Arc::clone(workloads.boot()),
        pid,
        // Known to the tick, as everything that is compared with /proc; 0 would mean that it is not known.
        start_time_ns: (stat.starttime * (1_000_000_000 / clock_ticks())).max(1),
        exe_dev: exe.as_ref().map_or(0, |exe| exe.file.dev),
        exe_ino: exe.as_ref().map_or(0, |exe| exe.file.ino),
        exe: exe.and_then(|exe| exe.path),
        uid: status.ruid,
        gid: status.rgid,
        cgroup_id,
        cgroup,
        invocation: place.as_ref().and_then(|place| workloads.invocation(place, cgroup_id)),
        container: place.as_ref().and_then(|place| place.container.clone()),
        unit: place.and_then(|place| place.unit),
        mntns: namespace("mnt"),
        environment: proxy_common::ENVIRONMENT_UNSEEN,
        comm: stat.comm,
        ..Workload::default()
    };
    Ok(Inspected { workload, netns_ino: namespace("net") })
}

/// What a process executes: file and path of one descriptor, so that the path is that of the file.
struct Executable {
    file: FileId,
    path: Option<String>,
}

impl Executable {
    fn of(pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let open = rustix::fs::open(format!("/proc/{pid}/exe"), flags, Mode::empty()).ok()?;
        let file = File::from(open);
        let id = FileId { dev: files::device(&file, pid)?, ino: file.metadata().ok()?.ino() };
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
        Some(Self { file: id, path: path.map(|path| path.to_string_lossy().into_owned()) })
    }
}

/// The path in the v2 hierarchy (cgroups(7)); `None` when the cgroup was removed.
fn cgroup_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (!path.ends_with(" (deleted)")).then(|| path.to_owned())
}

/// The processes of a unit of the system, in the order of their ids: those of its cgroup and of all below. `None` when the
/// unit has no cgroup, so that nothing of it runs.
#[must_use]
pub fn processes_of_unit(name: &str, cgroups: &Cgroups) -> Option<Vec<u32>> {
    let folder = unit_folder(cgroups.unit_root(), name, cgroups)?;
    let mut processes = BTreeSet::new();
    collect(&cgroups.folder_of(&folder), &mut processes);
    Some(processes.into_iter().collect())
}

/// The processes that are governed, in the order of their ids.
#[must_use]
pub fn governed_processes(cgroups: &Cgroups) -> Vec<u32> {
    let mut processes = BTreeSet::new();
    collect(cgroups.governed(), &mut processes);
    processes.into_iter().collect()
}

/// The cgroup of a unit: slices are searched, and [`unit::of_cgroup`] says what is a unit, as for workloads.
fn unit_folder(slice: &str, name: &str, cgroups: &Cgroups) -> Option<String> {
    let children = fs::read_dir(cgroups.folder_of(slice)).ok()?.flatten();
    let folders = children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
    let paths: Vec<String> = folders
        .filter_map(|child| Some(format!("{}/{}", slice.trim_end_matches('/'), child.file_name().to_str()?)))
        .collect();
    let found = paths.iter().find(|path| unit::of_cgroup(path, cgroups.unit_root()).as_deref() == Some(name));
    found.cloned().or_else(|| {
        let mut slices = paths.iter().filter(|path| path.ends_with(".slice"));
        slices.find_map(|slice| unit_folder(slice, name, cgroups))
    })
}

/// Adds the processes of a cgroup and of all below it. 0 stands for one in a pid namespace that we do not see.
fn collect(folder: &Path, processes: &mut BTreeSet<u32>) {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    processes.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for child in fs::read_dir(folder).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&child.path(), processes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn workloads() -> Workloads {
        let cgroups = Arc::new(Cgroups::open(None, Some("/")).unwrap());
        Workloads::new(cgroups, crate::config::Containers::default())
    }

    #[test]
    fn a_process_is_what_it_runs_and_who_runs_it() {
        let seen = process(std::process::id(), &workloads()).unwrap();
        let me = files::named_by(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!((seen.workload.exe_dev, seen.workload.exe_ino), (me.dev, me.ino));
        assert_eq!(seen.workload.uid, nix::unistd::getuid().as_raw());
        assert!(seen.workload.start_time_ns > 0 && seen.netns_ino > 0 && seen.workload.mntns > 0);
        let folder = workloads().cgroups().folder_of(seen.workload.cgroup.as_deref().unwrap());
        assert_eq!(seen.workload.cgroup_id, fs::metadata(folder).unwrap().ino());
    }

    #[test]
    fn what_is_no_process_is_told_apart() {
        assert_eq!(process(u32::MAX, &workloads()), Err(NoWorkload::Gone(u32::MAX)));
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        // Not reaped yet: it is in /proc until we wait for it.
        let ended = |_| process(pid, &workloads()) == Err(NoWorkload::Ended(pid));
        assert!((0..1_000_000).any(ended));
        child.wait().unwrap();
        assert_eq!(process(pid, &workloads()), Err(NoWorkload::Gone(pid)));
        let (tell, told) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = wait.recv();
        });
        let tid = u32::try_from(told.recv().unwrap()).unwrap();
        assert_eq!(process(tid, &workloads()), Err(NoWorkload::Thread(tid, std::process::id())));
        drop(end);
        thread.join().unwrap();
    }
}
