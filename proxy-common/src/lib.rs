//! What the kernel side and user space must both spell the same: records, keys, names of maps and counters.
//!
//! `no_std`, no dependencies on the kernel side. Every record is `repr(C)`, has no padding that is not named, and its
//! size is asserted below: a change of layout is a change of [`ABI_VERSION`], because maps outlive the daemon.
#![no_std]

mod network;
pub mod protect;

pub use network::{
    EVERYBODY, Facts, NETWORK_KEY_BITS, NetworkKey, PASSES_AND_IS_TOLD, STANDS_BY_START, Standing,
};

/// Version of the layouts in this crate. It is part of the directory that maps and links are pinned in, so that a
/// daemon never reads a map written by programs of another layout.
pub const ABI_VERSION: u32 = 3;

/// Length of the kernel's `comm` (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// How many origins may wait for their accept at once. At the bound a new connection finds no origin and is refused.
pub const MAX_ORIGINS: u32 = 65_536;

/// How many network rules of all identities there may be; a policy with more is refused.
pub const MAX_NETWORK_RULES: u32 = 65_536;

/// How many standings are remembered; beyond, the least recently used is forgotten, and its workload is asked for again.
pub const MAX_STANDINGS: u32 = 65_536;

/// How many network namespaces may be served at once. In others, connections end in a timeout.
pub const MAX_NAMESPACES: u32 = 16_384;

/// How many processes there may be whose program is known. At the bound a new process matches no `exe` and no `sha256`.
pub const MAX_PROGRAMS: u32 = 65_536;

/// How many bytes of its arguments are remembered of a program that was started.
pub const COMMAND_BYTES: usize = 256;

/// How many bytes of its `PATH` are remembered of a program that was started.
pub const PATH_BYTES: usize = 128;

/// Bytes of the ring buffer for [`Event`]s.
pub const EVENT_BYTES: usize = 1 << 20;

/// The process that called `connect`, as the kernel saw it inside the hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// `task->group_leader->start_boottime`, nanoseconds since boot. With `tgid` it names one process for ever.
    pub start_time_ns: u64,
    /// Inode number of the executable (`mm->exe_file->f_inode->i_ino`); 0 if it could not be read.
    pub exe_ino: u64,
    /// Last change of the executable's inode, content included (`i_ctime`), nanoseconds since the epoch; 0 if it could
    /// not be read.
    pub exe_ctime_ns: u64,
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
    /// A bit for each of [`LOADER_VARIABLES`] that the process was started with, and `ENVIRONMENT_*`.
    pub environment: u32,
    /// With `exec_ns`, the one `execve` by which the program came into being; a child has that of its parent.
    pub exec_tgid: u32,
    /// When that was (`bpf_ktime_get_ns`); [`EXEC_UNSEEN`].
    pub exec_ns: u64,
}

/// The program was there before its start could be seen.
pub const EXEC_UNSEEN: u64 = 1;

/// What a process was seen to execute; the key is its tgid.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// As in [`Capture`]: a tgid that is used again is another process.
    pub start_time_ns: u64,
    /// As in [`Capture`].
    pub exe_ino: u64,
    /// As in [`Capture`].
    pub exe_dev: u32,
    /// As in [`Capture`].
    pub environment: u32,
    /// As in [`Capture`].
    pub exec_ns: u64,
    /// Inode of the working directory as it was started.
    pub cwd_ino: u64,
    /// Device of the working directory as it was started, kernel encoding.
    pub cwd_dev: u32,
    /// As in [`Capture`].
    pub exec_tgid: u32,
    /// `PROGRAM_*`.
    pub flags: u32,
    /// Bytes of all its arguments, each with its NUL; more than [`COMMAND_BYTES`] are not kept.
    pub command_length: u32,
    /// The arguments as it was started, from `argv[0]` on; bytes beyond the length are without meaning.
    pub command: [u8; COMMAND_BYTES],
    /// The value of `PATH` as it was started, with a NUL behind; what does not fit is not kept.
    pub path: [u8; PATH_BYTES],
}

/// What was read of the start is whole: the arguments, the working directory, the credentials.
pub const PROGRAM_START_KNOWN: u32 = 1;
/// Another process can change its working and its root directory (`CLONE_FS`).
pub const PROGRAM_SHARES_DIRECTORIES: u32 = 2;
/// It is in a user namespace below the first one, where anybody can make other files appear under a path.
pub const PROGRAM_IN_USER_NAMESPACE: u32 = 4;

/// Variables by which whoever starts a program puts code of his own into it: the first eight bytes of `NAME=value`, the
/// bit of an environment, and the name for people. More variables than meant may match; they are as suspicious. Variables of
/// one runtime may share a bit.
pub const LOADER_VARIABLES: [(&[u8; 8], u32, &str); 46] = [
    (b"LD_PRELO", 0, "LD_PRELOAD"),
    (b"LD_LIBRA", 1, "LD_LIBRARY_PATH"),
    (b"LD_AUDIT", 2, "LD_AUDIT"),
    (b"GLIBC_TU", 3, "GLIBC_TUNABLES"),
    (b"GCONV_PA", 4, "GCONV_PATH"),
    (b"OPENSSL_", 5, "OPENSSL_CONF"),
    (b"PYTHONPA", 6, "PYTHONPATH"),
    (b"PYTHONST", 7, "PYTHONSTARTUP"),
    (b"PYTHONHO", 8, "PYTHONHOME"),
    (b"PYTHONPY", 8, "PYTHONPYCACHEPREFIX"),
    (b"PYTHONPL", 8, "PYTHONPLATLIBDIR"),
    (b"PYTHONUS", 9, "PYTHONUSERBASE"),
    (b"PYTHONBR", 10, "PYTHONBREAKPOINT"),
    (b"PYTHONIN", 10, "PYTHONINSPECT"),
    (b"PYTHONWA", 11, "PYTHONWARNINGS"),
    (b"NODE_OPT", 12, "NODE_OPTIONS"),
    (b"NODE_PAT", 13, "NODE_PATH"),
    (b"NODE_COM", 13, "NODE_COMPILE_CACHE"),
    (b"BUN_OPTI", 14, "BUN_OPTIONS"),
    (b"PERL5OPT", 15, "PERL5OPT"),
    (b"PERL5LIB", 16, "PERL5LIB"),
    (b"PERL_USE", 16, "PERL_USE_UNSAFE_INC"),
    (b"PERL5DB=", 17, "PERL5DB"),
    (b"PERLLIB=", 18, "PERLLIB"),
    (b"RUBYOPT=", 19, "RUBYOPT"),
    (b"RUBYLIB=", 20, "RUBYLIB"),
    (b"GEM_HOME", 20, "GEM_HOME"),
    (b"GEM_PATH", 20, "GEM_PATH"),
    (b"BUNDLE_G", 20, "BUNDLE_GEMFILE"),
    (b"BUNDLE_P", 20, "BUNDLE_PATH"),
    (b"BUNDLE_A", 20, "BUNDLE_APP_CONFIG"),
    (b"BUNDLER_", 20, "BUNDLER_SETUP"),
    (b"RUBYGEMS", 20, "RUBYGEMS_GEMDEPS"),
    (b"JAVA_TOO", 21, "JAVA_TOOL_OPTIONS"),
    (b"_JAVA_OP", 22, "_JAVA_OPTIONS"),
    (b"IBM_JAVA", 22, "IBM_JAVA_OPTIONS"),
    (b"OPENJ9_J", 22, "OPENJ9_JAVA_OPTIONS"),
    (b"JDK_JAVA", 23, "JDK_JAVA_OPTIONS"),
    (b"CLASSPAT", 24, "CLASSPATH"),
    (b"BASH_ENV", 25, "BASH_ENV"),
    (b"BASH_FUN", 25, "BASH_FUNC_*"),
    (b"SHELLOPT", 25, "SHELLOPTS"),
    (b"BASHOPTS", 25, "BASHOPTS"),
    (b"PHP_INI_", 26, "PHP_INI_SCAN_DIR"),
    (b"LUA_INIT", 27, "LUA_INIT"),
    (b"DOTNET_S", 28, "DOTNET_STARTUP_HOOKS"),
];

/// One more, which is shorter: what a shell that traces itself (`-x`) puts before each line, and runs the commands in it.
pub const TRACE_PROMPT: (&[u8; 4], u32, &str) = (b"PS4=", 25, "PS4");

/// With `protect`: others than root trace the process, or could when it was executed. It has no identity.
pub const ENVIRONMENT_TRACED: u32 = 1 << 29;
/// There are more variables than are looked at, or they could not be read.
pub const ENVIRONMENT_LONG: u32 = 1 << 30;
/// The process was there before its start could be seen.
pub const ENVIRONMENT_UNSEEN: u32 = 1 << 31;

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
    /// One of the `VETTED_*`: whether packets of this socket may leave.
    pub vetted: u32,
    /// With [`VETTED_ALLOWED`]: the generation of the policy that allowed it. Under another one it is asked again.
    pub generation: u32,
}

/// Nobody looked at this socket yet: its packets do not leave.
pub const VETTED_NOT: u32 = 0;
/// Its connection was turned to the proxy.
pub const VETTED_TURNED: u32 = 1;
/// A network rule, or the standing of the workload, lets it go where it goes.
pub const VETTED_ALLOWED: u32 = 2;
/// It answers: somebody else opened the connection to a listener.
pub const VETTED_PASSIVE: u32 = 3;
/// It is the daemon's own.
pub const VETTED_DAEMON: u32 = 4;
/// As [`VETTED_ALLOWED`], of a workload to which everything is open: a raw socket, whose packets may have options.
pub const VETTED_OPEN: u32 = 5;

/// Something that the programs decided, or ask: in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Who; of packets without a vetted socket only the cgroup and the user are known.
    pub capture: Capture,
    /// Where to, network order; IPv4 as v4-mapped IPv6.
    pub dst_addr: [u8; 16],
    /// Where to, host order.
    pub dst_port: u16,
    /// One of the `EVENT_*`.
    pub kind: u16,
    /// `IPPROTO_*`.
    pub protocol: u32,
}

/// Refused: no rule allows it.
pub const EVENT_REFUSED: u16 = 1;
/// Refused for now: the daemon has to say who it is. What comes after may pass.
pub const EVENT_ASK: u16 = 2;
/// Allowed by a rule of its identity.
pub const EVENT_ALLOWED: u16 = 3;
/// Refused: something else than TCP to a mediated port.
pub const EVENT_PROTOCOL: u16 = 4;
/// Refused: a socket of a kind that cannot be mediated (raw, SCTP, …).
pub const EVENT_SOCKET: u16 = 5;
/// A packet was dropped: nobody vetted its socket.
pub const EVENT_UNVETTED: u16 = 6;
/// Refused: the proxy's own address.
pub const EVENT_PROXY: u16 = 7;
/// Held back: nobody listens in the socket's network namespace yet.
pub const EVENT_NETNS: u16 = 9;
/// Refused: a tunnel device, by which packets come from no socket.
pub const EVENT_TUNNEL: u16 = 10;
/// Refused: a socket of a family that does not go through IP; `protocol` is the family.
pub const EVENT_FAMILY: u16 = 8;
/// Refused: tracing another process, or its memory ([`protect::other_process`]).
pub const EVENT_TRACE: u16 = 20;
/// Refused: to be traced by the other process.
pub const EVENT_TRACEME: u16 = 21;

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
    /// Seconds of the inode's last change: `inode.i_ctime_sec`, `__i_ctime` or `i_ctime`
    pub inode_ctime_sec: u32,
    /// Nanoseconds of it: `inode.i_ctime_nsec`, or what follows the seconds
    pub inode_ctime_nsec: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `mm_struct.env_start`
    pub mm_env_start: u32,
    /// `mm_struct.env_end`
    pub mm_env_end: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `task_struct.fs`
    pub task_fs: u32,
    /// `fs_struct.users`
    pub fs_users: u32,
    /// `fs_struct.pwd.dentry`
    pub fs_pwd_dentry: u32,
    /// `dentry.d_inode`
    pub dentry_inode: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.user_ns`
    pub cred_user_ns: u32,
    /// `user_namespace.level`
    pub user_ns_level: u32,
    /// `sk_buff.sk`
    pub skb_sk: u32,
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
    /// Let through by a network rule or by the standing of the workload.
    NetworkAllowed,
    /// Refused: no network rule allows it.
    RefusedNetwork,
    /// Refused until the daemon has said who it is.
    RefusedUnknown,
    /// Refused: a socket of a kind that cannot be mediated.
    RefusedSocket,
    /// Packets dropped because nobody vetted their socket.
    DroppedUnvetted,
    /// Events that found the ring buffer full.
    EventsLost,
    /// A process whose program was not seen: it matches no `exe` and no `sha256`.
    ProgramUnseen,
    /// A process that names another executable than the one it was seen to execute; it matches neither.
    ProgramDisguised,
    /// Processes that found the table of programs full.
    ProgramsLost,
    /// Packets dropped because they would not have gone where their socket was vetted to go.
    DroppedAstray,
    /// Packets held back until the proxy listens in their network namespace.
    HeldBack,
    /// Refused: tracing a governed process or the daemon (`protect`).
    RefusedTrace,
}

/// Names of the counters, for people and for metrics.
pub const COUNTER_NAMES: [&str; 23] = [
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
    "network_allowed",
    "refused_network",
    "refused_unknown",
    "refused_socket",
    "dropped_unvetted",
    "events_lost",
    "program_unseen",
    "program_disguised",
    "programs_lost",
    "dropped_astray",
    "held_back",
    "refused_trace",
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
    /// Array of one number: the generation of the policy whose rules and standings hold.
    pub const GENERATION: &str = "GENERATION";
    /// Longest-prefix trie: [`NetworkKey`](super::NetworkKey) → 1.
    pub const NETWORK: &str = "NETWORK";
    /// LRU hash: [`Facts`](super::Facts) → [`Standing`](super::Standing).
    pub const STANDINGS: &str = "STANDINGS";
    /// Ring buffer of [`Event`](super::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// Hash: tgid → [`Program`](super::Program).
    pub const PROGRAMS: &str = "PROGRAMS";
    /// Hash: cookies of the network namespaces in which the proxy listens → 1.
    pub const SERVED: &str = "SERVED";
    /// Hash: the starts of [`LOADER_VARIABLES`](super::LOADER_VARIABLES) as words of this machine → their bits. Not pinned.
    pub const VARIABLES: &str = "VARIABLES";
    /// Read-only global: [`Offsets`](super::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// Read-only global: [`Protection`](super::protect::Protection).
    pub const PROTECTION: &str = "PROTECTION";
    /// All maps that are pinned.
    pub const PINNED_MAPS: [&str; 12] = [
        ORIGINS, SOCKETS, CONFIG, PORTS, DAEMON, COUNTERS, GENERATION, NETWORK, STANDINGS, EVENTS, PROGRAMS,
        SERVED,
    ];
}

/// IPv4 in network order as v4-mapped IPv6 (RFC 4291, section 2.5.5.2).
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const _: () = assert!(size_of::<Capture>() == 96);
const _: () = assert!(size_of::<Origin>() == 128);
const _: () = assert!(size_of::<OriginKey>() == 32);
const _: () = assert!(size_of::<SocketState>() == 168);
const _: () = assert!(size_of::<Event>() == 120);
const _: () = assert!(size_of::<ProxyConfig>() == 24);
const _: () = assert!(size_of::<DaemonSlot>() == 104);
const _: () = assert!(size_of::<Offsets>() == 124);
const _: () = assert!(LOADER_VARIABLES.len() < 64);
const _: () = assert!(size_of::<Program>() == 56 + COMMAND_BYTES + PATH_BYTES);
const _: () = assert!(COUNTER_NAMES.len() == Counter::RefusedTrace as usize + 1);

#[cfg(feature = "user")]
mod pod {
    //! aya's mark that any bytes of the record's size are a record.
    #![allow(unsafe_code, reason = "aya's marker trait for plain records is unsafe to implement")]
    use super::{
        Capture, DaemonSlot, Facts, NetworkKey, Offsets, Origin, OriginKey, Program, ProxyConfig,
        SocketState, Standing,
    };

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
    // SAFETY: as above.
    unsafe impl aya::Pod for NetworkKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Facts {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Standing {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Program {}
}
