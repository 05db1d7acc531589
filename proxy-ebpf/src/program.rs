//! Which program a process was started with, from the kernel's own events: exec, fork and exit, system-wide.
//!
//! `mm->exe_file`, which the connect hook reads, can be changed by the process itself (`prctl(PR_SET_MM_MAP)`), also by an
//! unprivileged one in a user namespace. So a process is what it was seen to execute, and what the hook reads must agree.
use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_ktime_get_ns},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use proxy_common::{Counter, ENVIRONMENT_UNSEEN, EXEC_UNSEEN, Program};

use crate::{
    capture::{IterTask, executable_of, iterated, read, start_time, start_time_of},
    environment,
    maps::{PROGRAMS, STARTED, count, offsets},
    protect, start,
};

/// The `BPF_NOEXIST` of bpf_map_update_elem.
const NOEXIST: u64 = 1;

/// Places in [`STARTED`].
const OF_EXEC: u32 = 0;
const OF_FORK: u32 = 1;
const OF_WALK: u32 = 2;

/// `sched_process_exec(task, old_pid, bprm)`: the task is the current one.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn on_exec(_ctx: RawTracePointContext) -> i32 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let Some((dev, ino, _)) = executable_of(task) else { return 0 };
    let mm = read::<u64>(task, offsets().task_mm).unwrap_or(0);
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(program) = STARTED.get_ptr_mut(OF_EXEC) else { return 0 };
    // SAFETY: the slot is this CPU's and this event's, and a tracepoint does not interrupt itself.
    let program = unsafe { &mut *program };
    program.start_time_ns = start_time();
    program.exe_ino = ino;
    program.exe_dev = dev;
    // SAFETY: no arguments.
    program.exec_ns = unsafe { bpf_ktime_get_ns() };
    program.exec_tgid = tgid;
    // Into the map at once: an older verifier follows what comes behind once for every value that it knows of what came before, and of a
    // map it knows none.
    let environment = &raw mut program.environment;
    // SAFETY: the field of a place that is ours; volatile, so that it is not kept in a register in between.
    unsafe { environment.write_volatile(protect::of_executed()) };
    start::of_executed(task, mm, program);
    let found = environment::of_executed(mm);
    // SAFETY: as above.
    unsafe { environment.write_volatile(environment.read_volatile() | found) };
    environment::search_path(&mut program.path);
    insert(tgid, program, 0);
    0
}

/// `sched_process_fork(parent, child)`: a child runs its parent's program.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn on_fork(ctx: RawTracePointContext) -> i32 {
    let offsets = offsets();
    let (parent, child): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let ids = |task| Some((read::<u32>(task, offsets.task_pid)?, read::<u32>(task, offsets.task_tgid)?));
    let Some((pid, tgid)) = ids(child) else { return 0 };
    // A thread is no process.
    if pid != tgid {
        return 0;
    }
    let Some((_, parent_tgid)) = ids(parent) else { return 0 };
    let Some(program) = STARTED.get_ptr_mut(OF_FORK) else { return 0 };
    // SAFETY: the entry is the parent's, which is alive and forking; the slot is this CPU's and this event's.
    let program = unsafe {
        let Some(of_parent) = PROGRAMS.get_ptr(&parent_tgid) else { return 0 };
        program.copy_from_nonoverlapping(of_parent, 1);
        &mut *program
    };
    if program.start_time_ns == start_time_of(parent) {
        program.start_time_ns = start_time_of(child);
        insert(tgid, program, 0);
    }
    0
}

/// `sched_process_exit(task)`: the last thread takes the process with it.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn on_exit(ctx: RawTracePointContext) -> i32 {
    let offsets = offsets();
    let task: u64 = ctx.arg(0);
    let live =
        read::<u64>(task, offsets.task_signal).and_then(|signal| read::<u32>(signal, offsets.signal_live));
    if let (Some(0), Some(tgid)) = (live, read::<u32>(task, offsets.task_tgid)) {
        let _ = PROGRAMS.remove(&tgid);
    }
    0
}

/// The processes that were there before: run once, after the events are attached, so that none is missed. What an event
/// said is newer, and stays.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn on_each_task(ctx: *mut IterTask) -> i32 {
    let Some(task) = iterated(ctx) else { return 0 };
    let offsets = offsets();
    let ids = (read::<u32>(task, offsets.task_pid), read::<u32>(task, offsets.task_tgid));
    if let (Some(pid), Some(tgid)) = ids
        && pid == tgid
        && let Some((dev, ino, _)) = executable_of(task)
    {
        let Some(program) = STARTED.get_ptr_mut(OF_WALK) else { return 0 };
        // SAFETY: the slot is this CPU's; its rest was zero from the start and stays so.
        let program = unsafe { &mut *program };
        program.start_time_ns = start_time_of(task);
        program.exe_ino = ino;
        program.exe_dev = dev;
        program.environment = ENVIRONMENT_UNSEEN;
        program.exec_ns = EXEC_UNSEEN;
        insert(tgid, program, NOEXIST);
    }
    0
}

#[inline(always)]
fn insert(tgid: u32, program: &Program, flags: u64) {
    if PROGRAMS.insert(&tgid, program, flags).is_err() && flags != NOEXIST {
        count(Counter::ProgramsLost);
    }
}
