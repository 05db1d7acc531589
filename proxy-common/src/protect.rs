//! What `protect` shares between the kernel side and the loader: where to look, whether it is on, and who the daemon is.
//!
//! None of it is pinned: it belongs to the programs of one load.

/// What the programs that refuse tracing need, set by the loader before the load.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// cgroup v2 id of the governed cgroup.
    pub governed: u64,
    /// 1: others than root are kept from tracing; 0: nothing is looked at.
    pub on: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `task_struct.ptrace`
    pub task_ptrace: u32,
    /// `task_struct.parent`: the tracer of a task that is traced
    pub task_parent: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: the cgroup v2
    pub css_set_cgroup: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `kernfs_node.__parent` (before 6.15: `parent`)
    pub node_parent: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `cred.cap_effective`
    pub cred_capabilities: u32,
    /// `cred.user_ns`
    pub cred_user_namespace: u32,
    /// `user_namespace.level`
    pub user_namespace_level: u32,
    /// Zero.
    pub reserved: u32,
}

/// A process that is protected wherever it is: the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// As in [`Capture`](super::Capture); 0: none.
    pub start_time_ns: u64,
    /// As in [`Capture`](super::Capture).
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
}

/// How one process wanted to get at another: `mode` of the kernel's `ptrace_may_access` (include/linux/ptrace.h).
pub const MODE_ATTACH: u32 = 2;
/// Nobody is to be told of a refusal.
pub const MODE_NOAUDIT: u32 = 4;
/// By the real ids of who asks: a system call about another process, not a file below `/proc`.
pub const MODE_REALCREDS: u32 = 16;

/// An [`Event`](super::Event) of a refused trace says about the other process in `dst_addr` its start and its cgroup, in
/// `protocol` its tgid, and in `dst_port` the mode.
#[must_use]
pub fn other_process(start_time_ns: u64, cgroup_id: u64) -> [u8; 16] {
    let mut both = [0; 16];
    let (start, cgroup) = both.split_at_mut(8);
    start.copy_from_slice(&start_time_ns.to_ne_bytes());
    cgroup.copy_from_slice(&cgroup_id.to_ne_bytes());
    both
}

/// Start and cgroup, as [`other_process`] put them together.
#[must_use]
pub fn start_and_cgroup(other: [u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = other;
    (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p]))
}

const _: () = assert!(size_of::<Protection>() == 64);
const _: () = assert!(size_of::<Guarded>() == 16);

#[cfg(feature = "user")]
mod pod {
    //! aya's mark that any bytes of the record's size are a record.
    #![allow(unsafe_code, reason = "aya's marker trait for plain records is unsafe to implement")]

    // SAFETY: repr(C), made of integers only, no padding (size asserted above).
    unsafe impl aya::Pod for super::Protection {}
}
