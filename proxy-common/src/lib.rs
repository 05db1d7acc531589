//! What the kernel side and user space must both spell the same: records, keys, names of maps and counters.
//!
//! `no_std`, no dependencies on the kernel side. Every record is `repr(C)`, has no padding that is not named, and its
//! size is asserted below: a change of layout is a change of [`ABI_VERSION`], because maps outlive the daemon.
#![no_std]

/// Version of the layouts in this crate. It is part of the directory that maps and links are pinned in, so that a
/// daemon never reads a map written by programs of another layout.
pub const ABI_VERSION: u32 = 1;

/// Length of the kernel's `comm` (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// How many origins may wait for their accept at once. At the bound a new connection finds no origin and is refused.
pub const MAX_ORIGINS: u32 = 65_536;

/// The process that called `connect`, as the kernel saw it inside the hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// `task->group_leader->start_boottime`, nanoseconds since boot. With `tgid` it names one process for ever.
    pub start_time_ns: u64,
    /// Inode number of the executable (`mm->exe_file->f_inode->i_ino`); 0 if it could not be read.
    pub exe_ino: u64,
    /// cgroup v2 id of the task (`bpf_get_current_cgroup_id`): the inode number of its cgroup directory.
    pub cgroup_id: u64,
    /// Cookie of the socket's network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// Device of the executable in the kernel's own encoding (`major << 20 | minor`), unlike `st_dev`.
    pub exe_dev: u32,
    /// Process id (the kernel's tgid) in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Inode number of the mount namespace; 0 if it could not be read.
    pub mntns_ino: u32,
    /// The task's `comm`: a label for people, never identity.
    pub comm: [u8; COMM_LEN],
}

/// IPv4 socket asked for an IPv4 address.
pub const FAMILY_V4: u8 = 4;
/// IPv6 socket asked for an IPv6 address.
pub const FAMILY_V6: u8 = 6;
/// IPv6 socket asked for a v4-mapped address: IPv4 on the wire.
pub const FAMILY_MAPPED: u8 = 46;

/// The kernel's record of one connection: the workload and the destination that it asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who called.
    pub capture: Capture,
    /// `bpf_get_socket_cookie`, unique for the life of the kernel.
    pub socket_cookie: u64,
    /// The address asked for, network order; IPv4 as v4-mapped IPv6.
    pub dst_addr: [u8; 16],
    /// The port asked for, host order.
    pub dst_port: u16,
    /// One of [`FAMILY_V4`], [`FAMILY_V6`], [`FAMILY_MAPPED`].
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// What finds an origin at accept: the client's own address on a connection to the proxy's listener.
///
/// The listener's address is not part of it: there is one per family, and the 4-tuple is unique.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginKey {
    /// Network namespace of the connecting socket.
    pub netns_cookie: u64,
    /// The client's address, network order; IPv4 as v4-mapped IPv6.
    pub addr: [u8; 16],
    /// The client's port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// What the programs remember of a socket (socket storage): freed by the kernel with the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The origin of the connection that is being made or open on this socket.
    pub origin: Origin,
    /// The key under which the origin was published; all zero before the SYN.
    pub key: OriginKey,
}

/// Where connections are turned to. One per pin directory; written by the daemon before the programs are attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// IPv4 address of the listener, network order.
    pub listen_v4: [u8; 4],
    /// IPv6 address of the listener, network order.
    pub listen_v6: [u8; 16],
    /// Port of the IPv4 listener, host order.
    pub port_v4: u16,
    /// Port of the IPv6 listener, host order.
    pub port_v6: u16,
}

/// The daemon as the kernel sees it; its connections are never turned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaemonSlot {
    /// Set by the daemon: the cookie of the socket by which it introduces itself. Zero: nobody is introducing.
    pub hello_cookie: u64,
    /// Set by the connect hook when it meets that socket: who the daemon is.
    pub capture: Capture,
}

/// Offsets into kernel structures, taken by the loader from the running kernel's BTF and set before the load.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.start_boottime` (before 5.5: `real_start_time`)
    pub task_start_time: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.nsproxy`
    pub task_nsproxy: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `super_block.s_dev`
    pub sb_dev: u32,
    /// `nsproxy.mnt_ns`
    pub nsproxy_mnt_ns: u32,
    /// `mnt_namespace.ns.inum`
    pub mnt_ns_inum: u32,
}

/// Places where the programs count, in the order of [`COUNTER_NAMES`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections turned to the proxy.
    Redirected = 0,
    /// Connections left alone: a port that is not mediated.
    NotMediated,
    /// Connections of the daemon itself.
    OwnConnection,
    /// Refused: the proxy's own address was asked for directly.
    RefusedProxyAddress,
    /// Refused: not TCP, to a mediated port.
    RefusedProtocol,
    /// Refused: the socket storage could not be written.
    RefusedNoStorage,
    /// Refused: the daemon has not configured the programs.
    RefusedNotConfigured,
    /// Origins published for the accept.
    OriginPublished,
    /// Origins that could not be published (map full); the proxy will refuse the connection.
    OriginLost,
    /// The executable of a workload could not be read; it will match no `exe`.
    CaptureExeFailed,
    /// The start time of a workload could not be read; it will be unknown.
    CaptureStartFailed,
}

/// Names of the counters, for people and for metrics.
pub const COUNTER_NAMES: [&str; 11] = [
    "redirected",
    "not_mediated",
    "own_connection",
    "refused_proxy_address",
    "refused_protocol",
    "refused_no_storage",
    "refused_not_configured",
    "origin_published",
    "origin_lost",
    "capture_exe_failed",
    "capture_start_failed",
];

/// Number of 64-bit words in the bitmap of mediated ports.
pub const PORT_WORDS: usize = 1024;

/// Names of the maps and globals, as the loader asks for them.
pub mod names {
    /// Hash: [`OriginKey`](super::OriginKey) → [`Origin`](super::Origin).
    pub const ORIGINS: &str = "ORIGINS";
    /// Socket storage: [`SocketState`](super::SocketState).
    pub const SOCKETS: &str = "SOCKETS";
    /// Array of one [`ProxyConfig`](super::ProxyConfig).
    pub const CONFIG: &str = "CONFIG";
    /// Array of [`PORT_WORDS`](super::PORT_WORDS) words: bit n is set when port n is mediated.
    pub const PORTS: &str = "PORTS";
    /// Array of one [`DaemonSlot`](super::DaemonSlot).
    pub const DAEMON: &str = "DAEMON";
    /// Per-CPU array of counters.
    pub const COUNTERS: &str = "COUNTERS";
    /// Read-only global: [`Offsets`](super::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// All maps that are pinned.
    pub const PINNED_MAPS: [&str; 6] = [ORIGINS, SOCKETS, CONFIG, PORTS, DAEMON, COUNTERS];
}

/// IPv4 in network order as v4-mapped IPv6 (RFC 4291, section 2.5.5.2).
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const _: () = assert!(size_of::<Capture>() == 72);
const _: () = assert!(size_of::<Origin>() == 104);
const _: () = assert!(size_of::<OriginKey>() == 32);
const _: () = assert!(size_of::<SocketState>() == 136);
const _: () = assert!(size_of::<ProxyConfig>() == 24);
const _: () = assert!(size_of::<DaemonSlot>() == 80);
const _: () = assert!(size_of::<Offsets>() == 44);
const _: () = assert!(COUNTER_NAMES.len() == Counter::CaptureStartFailed as usize + 1);

#[cfg(feature = "user")]
mod pod {
    //! aya's mark that any bytes of the record's size are a record.
    #![allow(unsafe_code, reason = "aya's marker trait for plain records is unsafe to implement")]
    use super::{Capture, DaemonSlot, Offsets, Origin, OriginKey, ProxyConfig, SocketState};

    // SAFETY: repr(C), made of integers and arrays of integers only, no padding (sizes asserted above).
    unsafe impl aya::Pod for Capture {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Origin {}
    // SAFETY: as above.
    unsafe impl aya::Pod for OriginKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SocketState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ProxyConfig {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DaemonSlot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Offsets {}
}
