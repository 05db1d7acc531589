//! Who calls: the workload, read from the current task inside the hook.
use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_task},
};
use proxy_common::{Capture, Counter, ENVIRONMENT_UNSEEN, EXEC_UNSEEN};

use crate::maps::{PROGRAMS, count, offsets};

/// Reads a `T` at `base + offset` in kernel memory.
#[inline(always)]
pub fn read<T>(base: u64, offset: u32) -> Option<T> {
    if base == 0 {
        return None;
    }
    // SAFETY: bpf_probe_read_kernel checks the address itself and fails on one that is not mapped.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// A pointer that the kernel hands to a program in its context, as a number: read as memory, because the verifier takes what
/// is loaded from there for a pointer that nothing can be added to.
#[inline(always)]
pub fn handed<C>(context: *mut C, offset: u32) -> Option<u64> {
    read::<u64>(context as u64, offset).filter(|pointer| *pointer != 0)
}

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c): the context of an iterator over tasks.
#[repr(C)]
pub struct IterTask {
    meta: u64,
    task: u64,
}

/// The task that an iterator has come to; `None` at its end.
#[inline(always)]
pub fn iterated(context: *mut IterTask) -> Option<u64> {
    handed(context, core::mem::offset_of!(IterTask, task) as u32)
}

/// Start of the current process in nanoseconds since boot (`group_leader->start_boottime`), or 0.
#[inline(always)]
pub fn start_time() -> u64 {
    // SAFETY: no arguments.
    start_time_of(unsafe { bpf_get_current_task() })
}

/// The same of any task.
#[inline(always)]
pub fn start_time_of(task: u64) -> u64 {
    let offsets = offsets();
    read::<u64>(task, offsets.task_group_leader)
        .and_then(|leader| read::<u64>(leader, offsets.task_start_time))
        .unwrap_or(0)
}

/// Device (kernel encoding), inode and time of the last change of the file that a task's memory names as its executable.
#[inline(always)]
pub fn executable_of(task: u64) -> Option<(u32, u64, u64)> {
    let offsets = offsets();
    let mm = read::<u64>(task, offsets.task_mm)?;
    let file = read::<u64>(mm, offsets.mm_exe_file)?;
    let inode = read::<u64>(file, offsets.file_inode)?;
    let ino = read::<u64>(inode, offsets.inode_ino)?;
    let sb = read::<u64>(inode, offsets.inode_sb)?;
    let dev = read::<u32>(sb, offsets.sb_dev)?;
    let seconds = read::<u64>(inode, offsets.inode_ctime_sec)?;
    // The top bit is a mark of the kernel's own since 6.13: somebody has looked at the time (`I_CTIME_QUERIED`).
    let nanos = read::<u32>(inode, offsets.inode_ctime_nsec)? & 0x7fff_ffff;
    Some((dev, ino, seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::from(nanos))))
}

/// Fills in the executable of the current process, whose id and start are there already, and how it was started. Zero
/// unless what the kernel saw it execute and what its memory names agree.
#[inline(always)]
fn executable(task: u64, into: &mut Capture) {
    (into.exe_dev, into.exe_ino, into.exe_ctime_ns) = (0, 0, 0);
    (into.environment, into.exec_tgid, into.exec_ns) = (ENVIRONMENT_UNSEEN, 0, EXEC_UNSEEN);
    let Some((dev, ino, ctime)) = executable_of(task) else {
        count(Counter::CaptureExeFailed);
        return;
    };
    // A key must be on the stack: what a function gets as a pointer is none to an older verifier (6.1).
    let tgid = into.tgid;
    // SAFETY: the value is only compared and copied.
    let Some(program) = (unsafe { PROGRAMS.get(&tgid) }) else {
        count(Counter::ProgramUnseen);
        return;
    };
    if program.start_time_ns != into.start_time_ns {
        count(Counter::ProgramUnseen);
        return;
    }
    if (program.exe_dev, program.exe_ino) != (dev, ino) {
        count(Counter::ProgramDisguised);
        return;
    }
    (into.exe_dev, into.exe_ino, into.exe_ctime_ns) = (dev, ino, ctime);
    into.environment = program.environment;
    (into.exec_tgid, into.exec_ns) = (program.exec_tgid, program.exec_ns);
}

/// Fills `into` with the current process. What cannot be read stays zero and is counted; zero never matches a policy.
#[inline(always)]
pub fn current(into: &mut Capture, netns_cookie: u64) {
    capture_current(into, netns_cookie);
}

/// The same, as a function that others could call: the verifier looks at such a one by itself and once, and not once for each way that
/// leads to a call of it (`BTF_FUNC_GLOBAL`, Documentation/bpf/btf.rst). It must return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_current(into: *mut Capture, netns_cookie: u64) -> u32 {
    // SAFETY: who calls it has one, and the verifier wants to see that it is asked.
    let Some(into) = (unsafe { into.as_mut() }) else { return 0 };
    let offsets = offsets();
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    into.tgid = (pid_tgid >> 32) as u32;
    into.tid = pid_tgid as u32;
    into.uid = uid_gid as u32;
    into.gid = (uid_gid >> 32) as u32;
    // SAFETY: no arguments.
    into.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    into.netns_cookie = netns_cookie;
    into.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    into.start_time_ns = start_time();
    if into.start_time_ns == 0 {
        count(Counter::CaptureStartFailed);
    }
    executable(task, into);
    into.mntns_ino = read::<u64>(task, offsets.task_nsproxy)
        .and_then(|nsproxy| read::<u64>(nsproxy, offsets.nsproxy_mnt_ns))
        .and_then(|mnt_ns| read::<u32>(mnt_ns, offsets.mnt_ns_inum))
        .unwrap_or(0);
    1
}
