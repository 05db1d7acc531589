//! LSM `ptrace_access_check` and `ptrace_traceme` (`protect`): none but root gets at the memory, the registers or the
//! descriptors of a governed process or of the daemon.
//!
//! On the whole system, because whoever traces need not be governed. Everything that cannot be read counts against who asks.
use aya_ebpf::{
    EbpfContext,
    btf_maps::Array,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task},
    macros::{btf_map, lsm},
    programs::LsmContext,
};
use proxy_common::{
    Capture, Counter, ENVIRONMENT_TRACED, EVENT_TRACE, EVENT_TRACEME,
    protect::{Guarded, MODE_ATTACH, MODE_NOAUDIT, MODE_REALCREDS, Protection, other_process},
};

use crate::{
    capture::{self, IterTask, handed, iterated, read, start_time, start_time_of},
    maps::{PROGRAMS, count, offsets},
    network::{self, Target},
};

/// Verdicts of an LSM program.
const PASS: i32 = 0;
const EPERM: i32 = -1;

/// include/uapi/linux/capability.h
const CAP_SYS_PTRACE: u64 = 19;

/// How far up the hierarchy a cgroup is looked for; one that is deeper counts as governed.
const MOST_LEVELS: u32 = 16;

/// The daemon, since it has said who it is.
#[btf_map]
pub static GUARDED: Array<Guarded, 1> = Array::new();

/// Set by the loader.
#[unsafe(no_mangle)]
static PROTECTION: Protection = Protection {
    governed: 0,
    on: 0,
    task_cred: 0,
    task_ptrace: 0,
    task_parent: 0,
    task_cgroups: 0,
    css_set_cgroup: 0,
    cgroup_node: 0,
    node_id: 0,
    node_parent: 0,
    cred_uid: 0,
    cred_capabilities: 0,
    cred_user_namespace: 0,
    user_namespace_level: 0,
    reserved: 0,
};

/// As the loader set it (volatile: the compiler must not fold the zeros above).
macro_rules! set {
    ($field:ident) => {
        // SAFETY: a read of an initialised static.
        unsafe { core::ptr::read_volatile(&raw const PROTECTION.$field) }
    };
}

/// `ptrace_access_check(child, mode)`: the current task wants to get at another process. The kernel itself has agreed, and
/// does not ask about threads of the process that asks.
#[lsm(hook = "ptrace_access_check")]
pub fn on_ptrace(ctx: LsmContext) -> i32 {
    let mode: u32 = ctx.arg(1);
    // What remains are the files below /proc that tools read of processes of the same user: `exe`, `maps`, `fd` …
    if mode & (MODE_ATTACH | MODE_REALCREDS) == 0 {
        return PASS;
    }
    // SAFETY: no arguments.
    let current = unsafe { bpf_get_current_task() };
    let child = first_argument(&ctx);
    if !is_protected(child) || is_roots(current) {
        return PASS;
    }
    refuse(child, mode, EVENT_TRACE)
}

/// `ptrace_traceme(parent)`: the current task wants to be traced by its parent.
#[lsm(hook = "ptrace_traceme")]
pub fn on_traceme(ctx: LsmContext) -> i32 {
    // SAFETY: no arguments.
    let current = unsafe { bpf_get_current_task() };
    let parent = first_argument(&ctx);
    if !is_protected(current) || is_roots(parent) {
        return PASS;
    }
    refuse(parent, 0, EVENT_TRACEME)
}

#[inline(always)]
fn refuse(other: u64, mode: u32, event: u16) -> i32 {
    count(Counter::RefusedTrace);
    if mode & MODE_NOAUDIT == 0 {
        let mut who = Capture::default();
        capture::current(&mut who, 0);
        let cgroup = cgroup_of(other).and_then(|node| read::<u64>(node, set!(node_id)));
        let named = other_process(start_time_of(other), cgroup.unwrap_or(0));
        let tgid = read::<u32>(other, offsets().task_tgid).unwrap_or(0);
        network::tell(&who, &Target::new(tgid, named, mode as u16), event);
    }
    EPERM
}

/// The first argument as a number; zero when it cannot be read.
#[inline(always)]
fn first_argument(ctx: &LsmContext) -> u64 {
    handed(ctx.as_ptr(), 0).unwrap_or(0)
}

/// Whether a task acts as root: as user 0 and with CAP_SYS_PTRACE, both of the initial user namespace. The capability
/// alone is what a debugger's file may carry for everybody; the user alone is what a confined service is.
///
/// One question after the other, and a function of its own: put together, the compiler combines values of which the verifier
/// knows that they were not set.
#[inline(never)]
fn is_roots(task: u64) -> bool {
    let Some(cred) = read::<u64>(task, set!(task_cred)) else { return false };
    let Some(uid) = read::<u32>(cred, set!(cred_uid)) else { return false };
    if uid != 0 {
        return false;
    }
    let Some(capabilities) = read::<u64>(cred, set!(cred_capabilities)) else { return false };
    if capabilities & (1 << CAP_SYS_PTRACE) == 0 {
        return false;
    }
    let Some(namespace) = read::<u64>(cred, set!(cred_user_namespace)) else { return false };
    let Some(level) = read::<u32>(namespace, set!(user_namespace_level)) else { return false };
    level == 0
}

/// Asked before anything that branches: the verifier follows the walk over the cgroups once for each way that leads here.
#[inline(always)]
fn is_protected(task: u64) -> bool {
    is_governed(task) || is_daemon(task)
}

#[inline(always)]
fn is_daemon(task: u64) -> bool {
    let Some(daemon) = GUARDED.get(0) else { return false };
    daemon.start_time_ns != 0
        && read::<u32>(task, offsets().task_tgid) == Some(daemon.tgid)
        && start_time_of(task) == daemon.start_time_ns
}

/// Whether the cgroup of a task is the governed one or below it; also when that cannot be told.
#[inline(never)]
fn is_governed(task: u64) -> bool {
    let Some(mut node) = cgroup_of(task) else { return true };
    let governed = set!(governed);
    for _ in 0..MOST_LEVELS {
        match read::<u64>(node, set!(node_id)) {
            Some(id) if id != governed => {}
            _ => return true,
        }
        match read::<u64>(node, set!(node_parent)) {
            Some(0) => return false,
            Some(parent) => node = parent,
            None => return true,
        }
    }
    true
}

/// The folder of a task's cgroup, `struct kernfs_node`.
#[inline(always)]
fn cgroup_of(task: u64) -> Option<u64> {
    read::<u64>(task, set!(task_cgroups))
        .and_then(|set| read::<u64>(set, set!(css_set_cgroup)))
        .and_then(|cgroup| read::<u64>(cgroup, set!(cgroup_node)))
}

/// Whether a task is traced by others than root now.
#[inline(always)]
fn is_traced(task: u64) -> bool {
    match read::<u32>(task, set!(task_ptrace)) {
        Some(0) => false,
        // The tracer, as it is now.
        Some(_) => !read::<u64>(task, set!(task_parent)).is_some_and(is_roots),
        None => true,
    }
}

/// For the program that the current process is executing: a mark when others than root trace it from before, or when
/// nothing keeps them from it, because it is not governed yet. There are no other threads at this moment.
#[inline(always)]
pub fn of_executed() -> u32 {
    if set!(on) == 0 {
        return 0;
    }
    // SAFETY: no arguments.
    let current = unsafe { bpf_get_current_task() };
    if is_governed(current) && !is_traced(current) { 0 } else { ENVIRONMENT_TRACED }
}

/// Every thread that is there as protection begins: those that others trace from before are marked. Run by the daemon,
/// once, when the other programs are attached; so it also says who the daemon is.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn on_each_traced(ctx: *mut IterTask) -> i32 {
    let daemon =
        Guarded { start_time_ns: start_time(), tgid: (bpf_get_current_pid_tgid() >> 32) as u32, reserved: 0 };
    let _ = GUARDED.set(0, daemon, 0);
    let Some(task) = iterated(ctx) else { return 0 };
    if !is_traced(task) {
        return 0;
    }
    let Some(tgid) = read::<u32>(task, offsets().task_tgid) else { return 0 };
    if let Some(program) = PROGRAMS.get_ptr_mut(&tgid) {
        // SAFETY: a value of the map; whoever writes at the same time executes something, and marks it by itself.
        unsafe {
            if (*program).start_time_ns == start_time_of(task) {
                (*program).environment |= ENVIRONMENT_TRACED;
            }
        }
    }
    0
}
