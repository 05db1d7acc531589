//! Keeps the memory of the daemon to itself: not on swap, not in a core file, not for a debugger.

use std::fs;

use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Bit of `CAP_IPC_LOCK` in a capability set (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// Protects the whole process, once, before the first secret is read. Returns what could not be done, in words for
/// the log: secrets are then in memory that could be swapped or dumped, and the daemon works all the same.
#[must_use = "the operator must hear what is not protected"]
pub fn protect_process_memory() -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        problems.push(format!("core files could not be switched off (RLIMIT_CORE): {error}"));
    }
    // Also takes ptrace and /proc/PID/mem away from processes of the same user (PR_SET_DUMPABLE, prctl(2)).
    if let Err(error) = prctl::set_dumpable(false) {
        problems.push(format!("the process could not be made undumpable (PR_SET_DUMPABLE): {error}"));
    }
    if !may_lock() {
        problems.push(
            "secrets are in memory that may be swapped: locking it needs CAP_IPC_LOCK or LimitMEMLOCK=infinity in the \
             unit"
                .to_owned(),
        );
    } else if let Err(error) = mlockall(everything_when_used()) {
        problems.push(format!("secrets are in memory that may be swapped: mlockall failed: {error}"));
    }
    problems
}

/// Gives back what the start used of memory, which cannot be done while it is locked: `let_go` is called while nothing is, for some
/// milliseconds. Then all is locked again but what comes from files, which `unlock_files` leaves to the system.
///
/// # Errors
/// It could not be locked again, in words for the log.
pub fn give_back_memory(let_go: impl FnOnce(), unlock_files: impl FnOnce()) -> Result<(), String> {
    if !may_lock() {
        let_go();
        return Ok(());
    }
    // What was never locked is not harder to unlock.
    let _ = munlockall();
    let_go();
    let locked = mlockall(everything_when_used());
    unlock_files();
    locked.map_err(|error| format!("secrets are in memory that may be swapped: mlockall failed: {error}"))
}

/// All pages of now and later, each when it is first used, so that thread stacks stay as small as they are.
fn everything_when_used() -> MlockAllFlags {
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault
}

/// Whether everything may be locked. Under a limit, later allocations would fail (MCL_FUTURE, mlockall(2)): then
/// it is better not to lock at all.
fn may_lock() -> bool {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    unlimited || fs::read_to_string("/proc/self/status").is_ok_and(|status| has_ipc_lock(&status))
}

fn has_ipc_lock(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    set.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_those_of_the_kernel() {
        assert_eq!(everything_when_used().bits(), 1 | 2 | 4);
    }

    #[test]
    fn a_protected_process_is_not_dumpable_and_writes_no_core() {
        // Of this test process, which does not mind.
        drop(protect_process_memory());
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
    }

    #[test]
    fn the_capability_is_found_by_its_bit() {
        assert!(has_ipc_lock("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(has_ipc_lock("CapEff:\t0000000000004000"));
        assert!(!has_ipc_lock("CapEff:\t00000000ffffbfff"));
        assert!(!has_ipc_lock("CapPrm:\t000001ffffffffff"));
        assert!(!has_ipc_lock("CapEff:\tx"));
    }
}
