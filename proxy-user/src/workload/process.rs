//! `/proc`, believed only where it agrees with the capture.
use std::{fs::File, os::unix::fs::MetadataExt, path::PathBuf};

use procfs::process::Process;

use super::{
    Workload,
    files::{self, FileId},
};
use crate::kernel::clock_ticks;

/// Whether `/proc/PID` is still the process that started at this time (nanoseconds since boot): `/proc` shows ticks.
pub(super) fn is_same(process: &Process, start_time_ns: u64) -> bool {
    let ticks = start_time_ns / (1_000_000_000 / clock_ticks());
    process.stat().is_ok_and(|stat| stat.starttime == ticks)
}

/// The path of a process's executable, as a label. `None` when the process is gone, is another one by now, or has
/// executed another file than this one.
#[must_use]
pub fn executable_label(pid: u32, start_time_ns: u64, captured: FileId) -> Option<String> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let path = process.exe().ok()?;
    // Checked after the read: what was executed, or got the pid, in between shows here.
    let runs = files::executed_by(pid);
    (runs == Some(captured) && is_same(&process, start_time_ns)).then(|| path.to_string_lossy().into_owned())
}

/// The path of the executable of the process that started at this time, as a label. `None` when it is gone.
#[must_use]
pub fn path_label(pid: u32, start_time_ns: u64) -> Option<String> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let path = process.exe().ok()?;
    is_same(&process, start_time_ns).then(|| path.to_string_lossy().into_owned())
}

/// The captured executable as an open file, also when its path is gone. `None` when the process is gone, is another
/// one, or has executed something else.
#[must_use]
pub fn open_executable(workload: &Workload) -> Option<File> {
    let file = File::open(PathBuf::from(format!("/proc/{}/exe", workload.pid))).ok()?;
    is_captured(&file, workload).then_some(file)
}

/// The environment that a process shows now; `None` when it is gone or another one.
#[must_use]
pub fn environment(workload: &Workload) -> Option<Vec<u8>> {
    let process = Process::new(i32::try_from(workload.pid).ok()?).ok()?;
    let shown = std::fs::read(format!("/proc/{}/environ", workload.pid)).ok()?;
    is_same(&process, workload.start_time_ns).then_some(shown)
}

/// Whether the process is still there.
#[must_use]
pub fn is_alive(workload: &Workload) -> bool {
    let process = i32::try_from(workload.pid).ok().and_then(|pid| Process::new(pid).ok());
    process.is_some_and(|process| is_same(&process, workload.start_time_ns))
}

/// Whether an open file is the captured executable.
#[must_use]
pub fn is_captured(file: &File, workload: &Workload) -> bool {
    file.metadata().is_ok_and(|meta| meta.ino() == workload.exe_ino)
        && files::device(file, workload.pid).is_some_and(|dev| dev == workload.exe_dev)
}
