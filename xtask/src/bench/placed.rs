//! Who runs on which processor: client and server on one, the daemon on another, so that none takes time from the other.

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Of clients and servers.
pub(super) const OUTSIDE: usize = 0;
/// Of the daemon.
pub(super) const DAEMON: usize = 1;

/// Fails where there are not two.
pub(super) fn check() -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(processors >= 2, "--placed needs two processors, and there is {processors}");
    Ok(())
}

/// Has this thread, and every process that it starts from now on, run on one processor alone.
pub(super) fn stay_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot stay on processor {processor}"))
}

/// Does something on a processor, with all that it starts, and comes back to where this thread was.
pub(super) fn on<T>(processor: usize, what: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(Pid::from_raw(0))?;
    stay_on(processor)?;
    let done = what();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    done
}
