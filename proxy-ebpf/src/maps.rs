//! The maps and the globals, and small ways to use them.
use crate::environment::Strings;
use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use proxy_common::{
    COUNTER_NAMES, Counter, DaemonSlot, EVENT_BYTES, Event, Facts, MAX_NAMESPACES, MAX_NETWORK_RULES,
    MAX_ORIGINS, MAX_PROGRAMS, MAX_STANDINGS, NetworkKey, Offsets, Origin, OriginKey, PORT_WORDS, Program,
    ProxyConfig, SocketState, Standing,
};

#[btf_map]
pub static ORIGINS: HashMap<OriginKey, Origin, { MAX_ORIGINS as usize }> = HashMap::new();
#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();
#[btf_map]
pub static CONFIG: Array<ProxyConfig, 1> = Array::new();
#[btf_map]
pub static PORTS: Array<u64, PORT_WORDS> = Array::new();
#[btf_map]
pub static DAEMON: Array<DaemonSlot, 1> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_NAMES.len() }> = PerCpuArray::new();
#[btf_map]
pub static GENERATION: Array<u32, 1> = Array::new();
#[btf_map]
pub static NETWORK: LpmTrie<NetworkKey, u32, { MAX_NETWORK_RULES as usize }> = LpmTrie::new();
#[btf_map]
pub static STANDINGS: LruHashMap<Facts, Standing, { MAX_STANDINGS as usize }> = LruHashMap::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, EVENT_BYTES> = RingBuf::new();
#[btf_map]
pub static PROGRAMS: HashMap<u32, Program, { MAX_PROGRAMS as usize }> = HashMap::new();
#[btf_map]
pub static SERVED: HashMap<u64, u32, { MAX_NAMESPACES as usize }> = HashMap::new();
#[btf_map]
pub static VARIABLES: HashMap<u64, u32, 64> = HashMap::new();
#[btf_map]
pub static STRINGS: PerCpuArray<Strings, 1> = PerCpuArray::new();
/// Where a [`Program`] is put together, a place for each event: each is too large for the stack.
#[btf_map]
pub static STARTED: PerCpuArray<Program, 3> = PerCpuArray::new();

/// Set by the loader from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    task_group_leader: 0,
    task_start_time: 0,
    task_mm: 0,
    task_nsproxy: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_ino: 0,
    inode_sb: 0,
    sb_dev: 0,
    nsproxy_mnt_ns: 0,
    mnt_ns_inum: 0,
    inode_ctime_sec: 0,
    inode_ctime_nsec: 0,
    sock_socket: 0,
    socket_file: 0,
    task_pid: 0,
    task_tgid: 0,
    task_signal: 0,
    signal_live: 0,
    mm_env_start: 0,
    mm_env_end: 0,
    mm_arg_start: 0,
    mm_arg_end: 0,
    task_fs: 0,
    fs_users: 0,
    fs_pwd_dentry: 0,
    dentry_inode: 0,
    task_cred: 0,
    cred_user_ns: 0,
    user_ns_level: 0,
    skb_sk: 0,
};

/// The offsets as the loader set them (volatile: the compiler must not fold the zeros above).
#[inline(always)]
pub fn offsets() -> Offsets {
    // SAFETY: a read of an initialised static.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS) }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU and programs of one CPU do not nest within a hook.
        unsafe { *slot += 1 }
    }
}

/// Whether the daemon mediates this port (host order).
#[inline(always)]
pub fn is_mediated(port: u16) -> bool {
    match PORTS.get(u32::from(port >> 6)) {
        Some(word) => word & (1 << (port & 63)) != 0,
        None => false,
    }
}
